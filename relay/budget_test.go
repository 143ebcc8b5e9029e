package relay_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest/redistest"
)

// cost is what one step asks of Redis: round trips, and commands, those of scripts
// included.
type cost struct{ trips, commands int }

// costs of the steps of the hot path, exactly: what was saved must not creep back.
var costs = map[string]cost{
	"an event for one target arrives": {1, 14},
	"its forward is made":             {1, 6},
	"a challenge arrives":             {1, 15},
	"it is announced to one device":   {3, 19},
	"its push is made":                {2, 8},
	"the pending ones are listed":     {3, 4},
	"it is approved":                  {2, 12},
	"its confirm is made":             {2, 25},
}

// costRounds are made of each step, and the one in the middle is held against its
// budget: now and then one trims an index or renews its life.
const costRounds = 31

// TestBudget takes events and challenges through all their steps, one after the other,
// while nothing else asks Redis anything.
func TestBudget(t *testing.T) {
	b := newCosting(t)
	for i := range costRounds {
		b.clock.Advance(time.Second)
		b.step("an event for one target arrives", func() { b.accepted("CARD_STATUS_CHANGE", payload("card_id", "c-1", "transaction_id", i)) })
		b.handle("its forward is made", relay.KindForward)
		var id string
		b.step("a challenge arrives", func() { id = b.accepted("CARD_3DS", purchase("c-1", "auth_id", i)) })
		b.handle("it is announced to one device", relay.KindAnnounce)
		b.handle("its push is made", relay.KindPush)
		b.step("the pending ones are listed", func() {
			if got := b.listed(anna, false); len(got) != 1 {
				t.Fatalf("%d are listed", len(got))
			}
		})
		b.step("it is approved", func() { b.approve(id) })
		b.handle("its confirm is made", relay.KindConfirm)
		b.rest()
		b.wantStatus(id, relay.Approved)
	}
	for step, took := range b.took {
		slices.SortFunc(took, func(a, b spent) int { return cmp.Compare(a.commands, b.commands) })
		if got := took[costRounds/2]; got.cost != costs[step] {
			t.Errorf("%s: {%d, %d}, the budget is {%d, %d}; save what is above it, or else set it to that. Redis ran%s",
				step, got.trips, got.commands, costs[step].trips, costs[step].commands, got.what)
		}
	}
}

// spent is what a step has cost, and which commands that were.
type spent struct {
	cost
	what string
}

// costing is a harness whose loops have ended, on a Redis that counts.
type costing struct {
	*harness
	server  *redistest.Server
	metrics *prometheus.Registry
	worker  *relay.Worker
	leased  []relay.Lease
	took    map[string][]spent
}

func newCosting(t *testing.T) *costing {
	b := &costing{server: redistest.Start(t, "--hz", "500"), metrics: prometheus.NewRegistry(), took: map[string][]spent{}} // hz: how soon a read that waits ends
	b.harness = newHarnessOn(t, b.server.URL, func(o *relay.Options) {
		o.Targets, o.Push.CardCount, o.Metrics = []relay.Target{target("core", "*")}, costRounds, b.metrics
	})
	b.device(anna, 1)
	b.stop()
	b.worker = relay.NewWorker(b.Service, b.store, relay.Outside{Pusher: b.pusher, Issuer: b.issuer, Downstream: b.downstream}, b.log)
	return b
}

// step runs a step, and keeps what it has cost.
func (b *costing) step(name string, run func()) {
	b.t.Helper()
	trips, before := b.trips(), b.server.Commands()
	run()
	got, after := spent{cost: cost{trips: b.trips() - trips}}, b.server.Commands()
	for _, command := range slices.Sorted(maps.Keys(after)) {
		if n := after[command] - before[command]; n > 0 {
			got.commands += n
			got.what += fmt.Sprintf(" %d %s", n, command)
		}
	}
	b.took[name] = append(b.took[name], got)
}

func (b *costing) trips() int {
	b.t.Helper()
	families, err := b.metrics.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	return int(count(families, "relay_redis_call_duration_seconds"))
}

// approve does not wait for the issuer, whom nobody asks meanwhile.
func (b *costing) approve(id string) {
	b.t.Helper()
	ctx, leave := context.WithCancel(b.ctx)
	go func() {
		defer leave()
		b.store.awaitStored(b.t, id, relay.Confirming)
	}()
	if _, err := b.Decide(ctx, anna, id, approve()); err != nil {
		b.t.Fatal(err)
	}
}

// lease adds to what is leased. It is no part of a step: one read brings many.
func (b *costing) lease() (more bool) {
	b.t.Helper()
	lanes := []relay.Lane{relay.LaneTasks, relay.LanePush, relay.LaneConfirm, relay.TargetLane("core")}
	for p := range b.store.Partitions() {
		got, err := b.store.Lease(b.ctx, p, lanes, time.Millisecond)
		if err != nil {
			b.t.Fatal(err)
		}
		b.leased = append(b.leased, got...)
		more = more || len(got) > 0
	}
	return more
}

// handle makes one delivery of a kind, as a step.
func (b *costing) handle(step string, k relay.Kind) {
	b.t.Helper()
	b.lease()
	i := slices.IndexFunc(b.leased, func(l relay.Lease) bool { return l.Delivery.Kind == k })
	if i < 0 {
		b.t.Fatalf("nothing of the kind %s is owed", k)
	}
	l := b.leased[i]
	b.leased = slices.Delete(b.leased, i, i+1)
	b.step(step, func() { b.worker.Handle(b.ctx, l) })
}

// rest does whatever else is owed.
func (b *costing) rest() {
	b.t.Helper()
	for b.lease() || len(b.leased) > 0 {
		for _, l := range b.leased {
			b.worker.Handle(b.ctx, l)
		}
		b.leased = nil
	}
}
