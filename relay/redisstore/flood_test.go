package redisstore

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// counter counts what is asked of Redis: round trips, and records that are read.
type counter struct{ trips, records int }

func (c *counter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.count(cmd)
		return next(ctx, cmd)
	}
}

func (c *counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.count(cmds...)
		return next(ctx, cmds)
	}
}

func (c *counter) count(cmds ...redis.Cmder) {
	if cmds[0].Name() == "hello" || cmds[0].Name() == "client" {
		return // a new connection
	}
	c.trips++
	for _, cmd := range cmds {
		if cmd.Name() == "get" {
			c.records++
		}
	}
}

// A card on which an attacker has 10,000 challenges waiting costs its cardholder's
// list, and every announcement, no more than any other.
func TestFloodedCard(t *testing.T) {
	t.Parallel()
	w, n := world(t, redistest.Start(t).URL)
	const many = 10_000
	var first, last string
	for i := range many {
		w.Advance(time.Millisecond)
		a := w.Challenge("c", "one", fmt.Sprint("ref-", i))
		a.Fingerprint = nil
		w.Arrive(n, a)
		if last = a.Challenge.ID; i == 0 {
			first = last
		}
	}
	w.Advance(time.Millisecond)
	quiet := w.Challenge("d", "one", "")
	w.Arrive(n, quiet)
	var c counter
	n.rdb.AddHook(&c)
	asked := func(what string, trips, records int) {
		t.Helper()
		if c.trips > trips || c.records > records {
			t.Errorf("%s: %d round trips, %d records; want at most %d and %d", what, c.trips, c.records, trips, records)
		}
		c = counter{}
	}
	const limit = 21
	q := relay.ChallengeQuery{User: relay.User{Merchant: storetest.Merchant, ID: "one"}, Cards: []string{"c", "d"}, Limit: limit}
	var seen []string
	for page := range 5 {
		list, err := n.Challenges(t.Context(), q)
		if err != nil || len(list) != limit {
			t.Fatalf("page %d: %d, %v", page, len(list), err)
		}
		for _, ch := range list {
			seen = append(seen, ch.ID)
		}
		asked(fmt.Sprint("page ", page), 2, limit+sameInstant+1)
		q.Before, q.BeforeID = list[limit-1].CreatedAt, list[limit-1].ID
	}
	if seen[0] != quiet.Challenge.ID || seen[1] != last || len(slices.Compact(slices.Sorted(slices.Values(seen)))) != 5*limit {
		t.Errorf("the pages begin with %v, and have %d challenges", seen[:2], len(seen))
	}
	for _, id := range []string{first, last, quiet.Challenge.ID} {
		ch := w.Load(n, id)
		c = counter{}
		crowd, _, err := n.Around(t.Context(), ch, 10*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		asked("what surrounds "+id, 1, 1) // the devices
		if _, err := n.Named(t.Context(), crowd.Others); err != nil {
			t.Fatal(err)
		}
		asked("the others around "+id, 1, relay.CrowdSize)
	}

	// The card is somebody else's now: their list is not buried.
	w.Advance(time.Millisecond)
	mine := w.Challenge("c", "two", "")
	w.Arrive(n, mine)
	c = counter{}
	q = relay.ChallengeQuery{User: relay.User{Merchant: storetest.Merchant, ID: "two"}, Cards: []string{"c"}, Limit: limit}
	list, err := n.Challenges(t.Context(), q)
	if err != nil || len(list) != 1 || list[0].ID != mine.Challenge.ID {
		t.Errorf("the new owner's list: %d, %v", len(list), err)
	}
	asked("the new owner's list", 2*listPages, listPages*(limit+sameInstant))

	// An arrival looks at the newest few hundred for what it replaces.
	for ref, want := range map[string]int{fmt.Sprint("ref-", many-200): 1, "ref-0": 0} {
		w.Lease(n, mine.Partition, relay.LaneTasks) // what waits
		again := w.Challenge("c", "two", ref)
		again.Fingerprint = nil
		w.Arrive(n, again)
		if got := len(n.announcement(t, w, again).Supersedes); got != want {
			t.Errorf("one with %s names %d that it replaces, want %d", ref, got, want)
		}
	}
}

// announcement is the inner step that announces a challenge which has just arrived.
func (n node) announcement(t *testing.T, w *storetest.World, a relay.Arrival) relay.Delivery {
	t.Helper()
	for range 1000 {
		for _, l := range w.Lease(n, a.Partition, relay.LaneTasks) {
			if l.Delivery.ChallengeID == a.Challenge.ID {
				return l.Delivery
			}
		}
	}
	t.Fatal("it is not announced")
	return relay.Delivery{}
}
