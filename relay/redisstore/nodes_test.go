package redisstore

import (
	"testing"
	"time"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest/redistest"
)

// TestNobodyDiesOfAnOutage: when Redis was away nobody could beat, so whoever is
// back first must not take over from the others.
func TestNobodyDiesOfAnOutage(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, n := world(t, server.URL)
	dead := func() int {
		t.Helper()
		got, err := n.Beat(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	if _, err := w.Node("b").Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	dead()
	server.Kill()
	if _, err := n.Beat(t.Context()); err == nil {
		t.Fatal("Beat without Redis succeeded")
	}
	w.Advance(time.Minute)
	server.Restart()
	poll(t, "the node is connected again", func() bool { return n.Ping(t.Context()) == nil })
	if got := dead(); got != 0 {
		t.Errorf("%d nodes are dead at the first beat after the outage, want none", got)
	}
	w.Advance(nodeLife - time.Millisecond)
	if got := dead(); got != 0 {
		t.Errorf("%d nodes are dead just before all had time to beat, want none", got)
	}
	w.Advance(time.Millisecond)
	if got := dead(); got != 1 {
		t.Errorf("%d nodes are dead when all had time to beat, want one", got)
	}
}

// TestRetire: the others forget a node that could not beat for long. What it is
// handed in that very moment must stay its own, and it must be known again before
// it is handed anything more.
func TestRetire(t *testing.T) {
	t.Parallel()
	w, n := world(t, redistest.Start(t).URL)
	a := owing(w)
	w.Arrive(n, a)
	l := w.LeaseOne(n, a.Partition, core)
	b := w.Node("b").(node)
	if err := b.unlist(t.Context(), n.Node, []relay.Lane{core}); err != nil {
		t.Fatal(err)
	}
	w.Settle(n, l, nil) // fails if its lease is gone

	if err := b.unlist(t.Context(), n.Node, []relay.Lane{core}); err != nil {
		t.Fatal(err)
	}
	n.heart.beatAt = n.heart.beatAt.Add(-nodeLife)
	w.Arrive(n, owing(w))
	w.LeaseOne(n, a.Partition, core)
	if err := b.rdb.ZScore(t.Context(), b.keys.nodes(), n.Node).Err(); err != nil {
		t.Errorf("it was handed something, and is not known: %v", err)
	}
}

func TestClockTakesTheBetterMeasurement(t *testing.T) {
	t.Parallel()
	start := time.Now()
	var c clock
	if _, ok := c.get(); ok {
		t.Fatal("a clock that was never set is measured")
	}
	for i, step := range []struct {
		offset, error, after, want time.Duration
	}{
		{30 * time.Second, 700 * time.Millisecond, 0, 30 * time.Second},
		{29 * time.Second, 10 * time.Millisecond, time.Second, 29 * time.Second},
		{25 * time.Second, 400 * time.Millisecond, 2 * time.Second, 29 * time.Second},
		{28 * time.Second, goodError, 3 * time.Second, 28 * time.Second},
		{27 * time.Second, 400 * time.Millisecond, 3*time.Second + clockLife, 28 * time.Second},
		{26 * time.Second, 400 * time.Millisecond, 4*time.Second + clockLife, 26 * time.Second},
	} {
		c.set(step.offset, step.error, start.Add(step.after))
		if got, _ := c.get(); got != step.want {
			t.Errorf("after measurement %d the offset is %s, want %s", i+1, got, step.want)
		}
	}
}
