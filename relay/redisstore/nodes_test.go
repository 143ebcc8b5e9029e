package redisstore

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest/redistest"
)

// TestNobodyDiesOfAnOutage: when Redis was away nobody could beat, so whoever is
// back first must not take over from the others. But who was dead before stays
// so, however often Redis goes.
func TestNobodyDiesOfAnOutage(t *testing.T) {
	t.Parallel()
	second := func(s float64) time.Time { return time.UnixMilli(int64(1000 * s)) }
	for name, c := range map[string]struct {
		beats []float64
		last  float64
		dead  bool
	}{
		"it has just started":            {[]float64{100}, 0, false},
		"it has not watched for long":    {[]float64{100, 101, 102.9}, 0, false},
		"it has":                         {[]float64{100, 101, 102, 103}, 0, true},
		"the other has just beaten":      {[]float64{100, 101, 102, 103}, 100.1, false},
		"the other has beaten at first":  {[]float64{100, 101, 102, 103}, 100, true},
		"back after an outage":           {[]float64{100, 101, 102, 103, 163}, 103, false},
		"back for a while":               {[]float64{100, 163, 164, 165, 165.9}, 100, false},
		"back for long enough":           {[]float64{100, 163, 164, 165, 166}, 100, true},
		"dead before, Redis comes, goes": {[]float64{100, 101, 110, 111, 120, 121}, 99, true},
		"alive, Redis comes and goes":    {[]float64{100, 101, 110, 111, 120, 121}, 111, false},
	} {
		var h heart
		for _, at := range c.beats {
			h.beat(time.Time{}, second(at))
		}
		if got := h.outlives(second(c.last)); got != c.dead {
			t.Errorf("%s: dead is %v, want %v", name, got, c.dead)
		}
	}
	var h heart
	for i := range 1000 {
		h.beat(time.Time{}, second(float64(i)))
	}
	if n := len(h.beats); n > 62 {
		t.Errorf("%d beats are remembered", n)
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
	nodes := b.keys.nodes()
	known := func() float64 {
		t.Helper()
		score, err := b.rdb.ZScore(t.Context(), nodes, n.Node).Result()
		if err == redis.Nil {
			return 0
		}
		if err != nil {
			t.Fatal(err)
		}
		return score
	}
	unlist := func(score float64) {
		t.Helper()
		if err := b.unlist(t.Context(), n.Node, []relay.Lane{core}, score); err != nil {
			t.Fatal(err)
		}
	}
	unlist(known())
	if known() == 0 {
		t.Error("a node that holds something was forgotten")
	}
	w.Settle(n, l, nil) // fails if its lease is gone
	unlist(known() - 1)
	if known() == 0 {
		t.Error("a node that has beaten since was forgotten")
	}
	unlist(known())
	if known() != 0 {
		t.Error("a node that is gone is still known")
	}
	n.heart.at = n.heart.at.Add(-nodeLife)
	w.Arrive(n, owing(w))
	w.LeaseOne(n, a.Partition, core)
	if known() == 0 {
		t.Error("it was handed something, and is not known")
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
