package redisstore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// waitsFor returns when so many scripts wait for their turn.
func waitsFor(t *testing.T, n *Store, want int) {
	t.Helper()
	poll(t, "scripts wait", func() bool {
		got, ok := n.queues.Load("")
		if !ok {
			return want == 0
		}
		q := got.(*queue)
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.busy == maxBatches && len(q.waiting) == want
	})
}

// TestScriptsTravelTogether stops Redis, so that scripts come to wait.
func TestScriptsTravelTogether(t *testing.T) {
	t.Parallel()
	const many = 10
	alone := slices.Repeat([]string{"evalsha"}, maxBatches)
	together := strings.TrimSpace(strings.Repeat("evalsha ", many))
	arrive := func(w *storetest.World, n *Store) func(context.Context) error {
		a := w.Event("c", "")
		return func(ctx context.Context) error { _, err := n.Arrive(ctx, a); return err }
	}
	record := func(w *storetest.World, n *Store) func(context.Context) error {
		ev := w.Event("c", "").Event
		ev.Outcome = relay.OutcomeRefused
		return func(ctx context.Context) error { return n.Record(ctx, ev) }
	}
	for _, c := range []struct {
		name   string
		before func(*Store) error
		others func(*storetest.World, *Store) func(context.Context) error
		trips  []string
	}{
		{"in one pipeline", nil, arrive, append(slices.Clone(alone), together)},
		// The first ones load their own script only.
		{"with a script that Redis has lost", func(n *Store) error { return n.rdb.ScriptFlush(t.Context()).Err() }, record, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			w, n := world(t, server.URL)
			for _, run := range []func(context.Context) error{arrive(w, n.Store), record(w, n.Store)} {
				if err := run(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if c.before != nil {
				if err := c.before(n.Store); err != nil {
					t.Fatal(err)
				}
			}
			var trips wire
			n.rdb.AddHook(&trips)
			server.Stop()
			var all sync.WaitGroup
			start := func(run func(context.Context) error) {
				all.Go(func() {
					if err := run(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			for range maxBatches {
				start(arrive(w, n.Store))
			}
			waitsFor(t, n.Store, 0)
			for range many {
				start(c.others(w, n.Store))
			}
			waitsFor(t, n.Store, many)
			server.Cont()
			all.Wait()
			got := slices.DeleteFunc(trips.reset(), func(trip string) bool { // how a connection begins
				return !strings.HasPrefix(trip, "eval")
			})
			if c.trips != nil && !slices.Equal(got, c.trips) {
				t.Errorf("the round trips were %q, want %q", got, c.trips)
			}
		})
	}
}

// TestWaitingScriptHasItsOwnTime: who waits for others is not held up by them.
func TestWaitingScriptHasItsOwnTime(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, n := world(t, server.URL)
	w.Arrive(n, w.Event("c", ""))
	server.Stop()
	var all sync.WaitGroup
	for range maxBatches {
		a := w.Event("c", "")
		all.Go(func() {
			if _, err := n.Arrive(t.Context(), a); err != nil {
				t.Error(err)
			}
		})
	}
	waitsFor(t, n.Store, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.Arrive(ctx, w.Event("c", "")); !errors.Is(err, relay.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Arrive behind others at a hanging Redis: %v, want ErrUnavailable and the deadline", err)
	}
	server.Cont()
	all.Wait()
}
