package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"approvalrelay/relay"
)

var deliveries = map[string]func(*testing.T, *World){
	"what is due moves at its time, in order":   testDue,
	"all that is due moves at once":             testDueMany,
	"a retry keeps its attempts":                testRetry,
	"dead letters are listed, newest first":     testDead,
	"a dead letter is replayed once":            testReplay,
	"a dead letter is dropped":                  testDrop,
	"the backlog counts exactly":                testBacklog,
	"a push without a record leaves none":       testUnrecorded,
	"a parked delivery is kept until resumed":   testParkedDelivery,
	"targets are parked for all nodes":          testPark,
	"a delivery's record is forgotten in time":  testDeliveryRetention,
	"a retry whose record is gone is forgotten": testForgottenRetry,
}

var core = relay.TargetLane("core")

// forward is a forward to core that has just been leased.
func (w *World) forward(b Backend, card string) relay.Lease {
	w.t.Helper()
	a := w.Event(card, "")
	a.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", a.Event)}
	w.Arrive(b, a)
	return w.LeaseOne(b, a.Partition, core)
}

func testDue(t *testing.T, w *World) {
	a := w.Event("c", "")
	start := w.Now()
	var byTime [4]relay.Delivery
	for _, i := range []int{2, 0, 3, 1} {
		d := w.Delivery(relay.KindForward, "core", a.Event)
		d.Next = start.Add(time.Duration(i+1) * time.Second)
		byTime[i] = d
		a.Owe = append(a.Owe, d)
	}
	w.Arrive(w.a, a)
	next := func(want time.Time) {
		t.Helper()
		if got := w.Due(w.a, a.Partition); !got.Equal(want) {
			t.Fatalf("the next is due at %v, want %v", got, want)
		}
	}
	next(byTime[0].Next)
	w.nothing(w.a, "before its time", a.Partition, core)
	w.Advance(time.Second - time.Millisecond)
	next(byTime[0].Next)
	w.nothing(w.a, "a millisecond early", a.Partition, core)
	w.Advance(time.Millisecond)
	next(byTime[1].Next)
	equal(t, "at its time", w.LeaseOne(w.a, a.Partition, core).Delivery, byTime[0])
	w.Advance(time.Hour)
	next(time.Time{})
	var got []relay.Delivery
	for _, l := range w.Lease(w.a, a.Partition, core) {
		got = append(got, l.Delivery)
	}
	equal(t, "the order", got, byTime[1:])
}

func testDueMany(t *testing.T, w *World) {
	const many = 300 // more than one script moves
	a := w.Event("c", "")
	want := map[string]bool{}
	for i := range many {
		d := w.Delivery(relay.KindForward, "core", a.Event)
		d.Next = w.Now().Add(time.Duration(i) * time.Millisecond)
		a.Owe = append(a.Owe, d)
		want[d.ID] = true
	}
	w.Arrive(w.a, a)
	w.Advance(time.Minute)
	if next := w.Due(w.a, a.Partition); !next.IsZero() {
		t.Fatalf("some are left, due at %v", next)
	}
	last := time.Time{}
	for len(want) > 0 {
		leases := w.Lease(w.a, a.Partition, core)
		if len(leases) == 0 {
			t.Fatalf("%d were not handed out", len(want))
		}
		for _, l := range leases {
			if d := l.Delivery; !want[d.ID] || d.Next.Before(last) {
				t.Fatalf("%s was handed out twice or out of order", d.ID)
			}
			delete(want, l.Delivery.ID)
			last = l.Delivery.Next
		}
	}
	w.nothing(w.a, "after all", a.Partition, core)
}

func testRetry(t *testing.T, w *World) {
	ctx := t.Context()
	l := w.forward(w.a, "c")
	id := l.Delivery.ID
	_, err := w.a.Delivery(ctx, id)
	wantErr(t, "never attempted", err, relay.ErrNotFound)
	var want *relay.Delivery
	for i := range 3 {
		want = w.Tried(l, relay.DeliveryPending, w.Now().Add(time.Minute))
		w.Settle(w.a, l, want)
		got, err := w.a.Delivery(ctx, id)
		if err != nil {
			t.Fatalf("Delivery: %v", err)
		}
		equal(t, at("the record after attempt", i+1), got, *want)
		w.Due(w.a, l.Partition)
		w.nothing(w.a, "before the retry is due", l.Partition, core)
		w.owes(w.a, "waiting for a retry", map[relay.Lane]int{core: 1})
		w.Advance(time.Minute)
		w.Due(w.a, l.Partition)
		l = w.LeaseOne(w.a, l.Partition, core)
		equal(t, at("handed out for attempt", i+2), l.Delivery, *want)
	}
	want = w.Tried(l, relay.DeliveryDelivered, time.Time{})
	w.Settle(w.a, l, want)
	got, err := w.a.Delivery(ctx, id)
	if err != nil || len(got.Attempts) != 4 {
		t.Fatalf("Delivery = %d attempts, %v, want 4", len(got.Attempts), err)
	}
	equal(t, "the record when delivered", got, *want)
	w.owes(w.a, "delivered", nil)
	if next := w.Due(w.a, l.Partition); !next.IsZero() {
		t.Errorf("something is due at %v", next)
	}
}

// deadLetter is a forward that was given up.
func (w *World) deadLetter(b Backend) relay.Delivery {
	w.t.Helper()
	l := w.forward(b, "c")
	d := w.Tried(l, relay.DeliveryDead, time.Time{})
	w.Settle(b, l, d)
	return *d
}

func testDead(t *testing.T, w *World) {
	p := card("c").Partition(w.a.Partitions())
	var want []relay.Delivery
	for range 5 {
		w.Advance(time.Second)
		want = append([]relay.Delivery{w.deadLetter(w.a)}, want...)
	}
	for _, limit := range []int{10, 5, 2} {
		got, err := w.a.DeadLetters(t.Context(), p, limit)
		if err != nil {
			t.Fatalf("DeadLetters: %v", err)
		}
		equal(t, at("limit", limit), got, want[:min(limit, len(want))])
	}
	for other := range w.a.Partitions() {
		if got, err := w.a.DeadLetters(t.Context(), other, 10); other != p && (err != nil || len(got) != 0) {
			t.Errorf("partition %d: %+v, %v, want none", other, got, err)
		}
	}
	got, err := w.a.Delivery(t.Context(), want[0].ID)
	if err != nil {
		t.Fatalf("Delivery: %v", err)
	}
	equal(t, "its record", got, want[0])
	// It needs its event for longer than events are kept.
	w.Pass(20 * 24 * time.Hour)
	if _, err := w.a.Event(t.Context(), want[0].EventID); err != nil {
		t.Errorf("the event of a dead letter: %v", err)
	}
}

func testReplay(t *testing.T, w *World) {
	ctx, b := t.Context(), w.Node("b")
	for range 10 {
		dead := w.deadLetter(w.a)
		p, _ := relay.PartitionOf(dead.ID)
		errs := make(chan error, 2)
		for _, n := range []Backend{w.a, b} {
			go func() { errs <- n.Replay(ctx, dead.ID) }()
		}
		one, two := <-errs, <-errs
		if one == nil {
			one, two = two, one
		}
		if two != nil || !errors.Is(one, relay.ErrNotFound) {
			t.Fatalf("two replays: %v, %v; want one nil and one ErrNotFound", one, two)
		}
		w.owes(w.a, "replayed", map[relay.Lane]int{core: 1})
		again := w.LeaseOne(w.a, p, core)
		want := dead
		want.Status, want.Tries = relay.DeliveryPending, 0
		equal(t, "handed out again", again.Delivery, want)
		if left, err := w.a.DeadLetters(ctx, p, 10); err != nil || len(left) != 0 {
			t.Fatalf("DeadLetters = %+v, %v, want none", left, err)
		}
		w.Settle(w.a, again, w.Tried(again, relay.DeliveryDelivered, time.Time{}))
		wantErr(t, "replay of what was delivered", w.a.Replay(ctx, dead.ID), relay.ErrNotFound)
		w.owes(w.a, "delivered", nil)
	}
	for _, id := range []string{"", "dlv_x", w.ID("dlv_", 0), w.ID("dlv_", 255)} {
		wantErr(t, "Replay "+id, w.a.Replay(ctx, id), relay.ErrNotFound)
		wantErr(t, "Drop "+id, w.a.Drop(ctx, id), relay.ErrNotFound)
	}
}

func testDrop(t *testing.T, w *World) {
	ctx := t.Context()
	dead, kept := w.deadLetter(w.a), w.deadLetter(w.a)
	p, _ := relay.PartitionOf(dead.ID)
	if err := w.a.Drop(ctx, dead.ID); err != nil {
		t.Fatalf("Drop: %v", err)
	}
	wantErr(t, "dropped again", w.a.Drop(ctx, dead.ID), relay.ErrNotFound)
	wantErr(t, "replay of what was dropped", w.a.Replay(ctx, dead.ID), relay.ErrNotFound)
	_, err := w.a.Delivery(ctx, dead.ID)
	wantErr(t, "its record", err, relay.ErrNotFound)
	left, err := w.a.DeadLetters(ctx, p, 10)
	if err != nil {
		t.Fatalf("DeadLetters: %v", err)
	}
	equal(t, "what is left", left, []relay.Delivery{kept})
	pending := w.forward(w.a, "c")
	wantErr(t, "drop of what is pending", w.a.Drop(ctx, pending.Delivery.ID), relay.ErrNotFound)
	w.owes(w.a, "with one pending", map[relay.Lane]int{core: 1})
}

func testBacklog(t *testing.T, w *World) {
	audit := relay.TargetLane("audit")
	b := w.Node("b")
	w.owes(b, "at first", nil)
	a := w.Event("c", "")
	first, second := w.Delivery(relay.KindForward, "core", a.Event), w.Delivery(relay.KindForward, "audit", a.Event)
	second.Next = w.Now().Add(time.Minute)
	a.Owe = []relay.Delivery{first, second}
	w.Arrive(w.a, a)
	w.owes(b, "owed", map[relay.Lane]int{core: 1, audit: 1})
	a2 := w.Event("other card", "")
	a2.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", a2.Event)}
	w.Arrive(b, a2)
	w.owes(b, "owed in another partition", map[relay.Lane]int{core: 2, audit: 1})
	w.Settle(b, w.LeaseOne(b, a2.Partition, core), nil)
	w.owes(b, "settled without a record", map[relay.Lane]int{core: 1, audit: 1})

	l := w.LeaseOne(w.a, a.Partition, core)
	w.owes(b, "under way", map[relay.Lane]int{core: 1, audit: 1})
	w.Settle(w.a, l, w.Tried(l, relay.DeliveryPending, w.Now().Add(time.Minute)))
	w.owes(b, "to be retried", map[relay.Lane]int{core: 1, audit: 1})
	w.Advance(time.Minute)
	w.Due(w.a, a.Partition)
	w.owes(b, "due", map[relay.Lane]int{core: 1, audit: 1})

	l = w.LeaseOne(w.a, a.Partition, core)
	parked := *w.Tried(l, relay.DeliveryParked, time.Time{})
	w.Settle(w.a, l, &parked, parked)
	w.owes(b, "parked", map[relay.Lane]int{core: 1, audit: 1})
	l = w.LeaseOne(w.a, a.Partition, core)
	w.Settle(w.a, l, w.Tried(l, relay.DeliveryDead, time.Time{}))
	w.owes(b, "dead", map[relay.Lane]int{audit: 1})
	if err := w.a.Replay(t.Context(), l.Delivery.ID); err != nil {
		t.Fatalf("Replay: %v", err)
	}
	w.owes(b, "replayed", map[relay.Lane]int{core: 1, audit: 1})
	l = w.LeaseOne(w.a, a.Partition, core)
	w.Settle(w.a, l, w.Tried(l, relay.DeliveryDelivered, time.Time{}))
	w.owes(b, "delivered", map[relay.Lane]int{audit: 1})
	l = w.LeaseOne(w.a, a.Partition, audit)
	more := w.Delivery(relay.KindPush, "sub", a.Event)
	w.Settle(w.a, l, w.Tried(l, relay.DeliveryDelivered, time.Time{}), more, relay.Delivery{Kind: relay.KindEnded, ChallengeID: w.ID("chl_", a.Partition)})
	w.owes(b, "one led to another, inner ones do not count", map[relay.Lane]int{relay.LanePush: 1})
}

func testUnrecorded(t *testing.T, w *World) {
	ctx := t.Context()
	a := w.Event("c", "")
	a.Owe = []relay.Delivery{w.Delivery(relay.KindPush, "sub", a.Event)}
	w.Arrive(w.a, a)
	l := w.LeaseOne(w.a, a.Partition, relay.LanePush)
	dead := w.Tried(l, relay.DeliveryDead, time.Time{})
	w.Settle(w.a, l, dead)
	if err := w.a.Replay(ctx, dead.ID); err != nil {
		t.Fatalf("Replay: %v", err)
	}
	w.Settle(w.a, w.LeaseOne(w.a, a.Partition, relay.LanePush), nil)
	_, err := w.a.Delivery(ctx, dead.ID)
	wantErr(t, "its record", err, relay.ErrNotFound)
	w.owes(w.a, "after it", nil)
}

func testParkedDelivery(t *testing.T, w *World) {
	l := w.forward(w.a, "c")
	parked := *w.Tried(l, relay.DeliveryParked, time.Time{})
	w.Settle(w.a, l, &parked, parked)
	w.Pass(20 * 24 * time.Hour)
	if _, err := w.a.Event(t.Context(), parked.EventID); err != nil {
		t.Errorf("the event of a parked delivery: %v", err)
	}
	got, err := w.a.Delivery(t.Context(), parked.ID)
	if err != nil {
		t.Fatalf("Delivery: %v", err)
	}
	equal(t, "its record", got, parked)
	equal(t, "handed out when resumed", w.LeaseOne(w.Node("b"), l.Partition, core).Delivery, parked)
}

func testPark(t *testing.T, w *World) {
	ctx, b := t.Context(), w.Node("b")
	for _, step := range []struct {
		parked bool
		reason string
		want   map[string]string
	}{
		{true, "paused", map[string]string{"core": "paused"}},
		{true, "it answered 410", map[string]string{"core": "it answered 410"}},
		{false, "", map[string]string{}},
		{false, "", map[string]string{}},
	} {
		if err := w.a.Park(ctx, "core", step.parked, step.reason); err != nil {
			t.Fatalf("Park: %v", err)
		}
		got, err := b.Parked(ctx)
		if err != nil {
			t.Fatalf("Parked: %v", err)
		}
		equal(t, "parked", got, step.want)
	}
}

func testDeliveryRetention(t *testing.T, w *World) {
	l := w.forward(w.a, "c")
	w.Settle(w.a, l, w.Tried(l, relay.DeliveryDelivered, time.Time{}))
	w.Pass(365 * 24 * time.Hour)
	_, err := w.a.Delivery(t.Context(), l.Delivery.ID)
	wantErr(t, "the delivery", err, relay.ErrNotFound)
	_, err = w.a.Event(t.Context(), l.Delivery.EventID)
	wantErr(t, "the event", err, relay.ErrNotFound)
}

func testForgottenRetry(t *testing.T, w *World) {
	lost := w.forward(w.a, "c")
	w.Settle(w.a, lost, w.Tried(lost, relay.DeliveryPending, w.Now().Add(time.Hour)))
	w.Pass(365 * 24 * time.Hour)
	kept := w.forward(w.a, "c")
	w.Settle(w.a, kept, w.Tried(kept, relay.DeliveryPending, w.Now()))
	w.Due(w.a, lost.Partition)
	var ids []string
	for _, l := range w.Lease(w.a, lost.Partition, core) {
		ids = append(ids, l.Delivery.ID)
	}
	if !slices.Equal(ids, []string{kept.Delivery.ID}) {
		t.Fatalf("handed out %v, want %s", ids, kept.Delivery.ID)
	}
	w.owes(w.a, "one is forgotten", map[relay.Lane]int{core: 1})
}
