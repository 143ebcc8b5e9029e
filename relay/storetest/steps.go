package storetest

import (
	"errors"
	"testing"
	"time"

	"approvalrelay/relay"
)

var steps = map[string]func(*testing.T, *World){
	"a step writes the next state and all it owes":    testCommit,
	"of two concurrent steps one wins":                testCommitRace,
	"a stale step writes nothing and keeps its lease": testCommitStale,
	"a lease is settled once":                         testSettleOnce,
	"of concurrent settlements one wins":              testSettleRace,
	"a report mutes the holder for a while":           testMute,
}

// pending is a challenge that has arrived, with its announcement leased.
func (w *World) pending(b Backend, card, user string) (relay.Challenge, relay.Lease) {
	w.t.Helper()
	a := w.Challenge(card, user, "")
	w.Arrive(b, a)
	for _, l := range w.Lease(b, a.Partition, relay.LaneTasks) {
		if l.Delivery.Kind == relay.KindAnnounce {
			return w.Load(b, a.Challenge.ID), l
		}
		w.Settle(b, l, nil)
	}
	w.t.Fatal("nothing was announced")
	return relay.Challenge{}, relay.Lease{}
}

func testCommit(t *testing.T, w *World) {
	ctx := t.Context()
	c, announce := w.pending(w.a, "c", "one")
	own := w.Event("c", "").Event
	own.Outcome, own.Type = relay.OutcomeOwn, "relay.challenge.approved"
	confirm := w.Delivery(relay.KindConfirm, "", own)
	confirm.ChallengeID, confirm.Deadline = c.ID, c.ExpiresAt
	lock := w.Delivery(relay.KindLock, "", own)
	lock.Secret.Body = []byte(`{"card_id":"4111111111111111"}`)
	next := c
	next.Status, next.Announced, next.PushesOwed = relay.Confirming, true, 2
	next.Decision = &relay.Decision{Action: relay.Approve, DecidedAt: w.Now(), Device: relay.Device{IP: "192.0.2.1"}}
	w.Commit(w.a, relay.Step{Partition: announce.Partition, Settle: &announce, Challenge: &next, From: c.Status, Own: []relay.Event{own}, Owe: []relay.Delivery{confirm, lock}})

	next.Version = c.Version + 1
	b := w.Node("b")
	equal(t, "the next state", w.Load(b, c.ID), next)
	got, err := b.Event(ctx, own.ID)
	if err != nil {
		t.Fatalf("Event: %v", err)
	}
	equal(t, "our own event", got, own)
	equal(t, "the confirm", w.LeaseOne(b, announce.Partition, relay.LaneConfirm).Delivery, confirm)
	equal(t, "the lock", w.LeaseOne(b, announce.Partition, relay.LaneLock).Delivery, lock)
	w.owes(b, "after the step", map[relay.Lane]int{relay.LaneConfirm: 1, relay.LaneLock: 1})
	w.nothing(b, "after the step", announce.Partition, relay.LaneTasks)
}

func testCommitRace(t *testing.T, w *World) {
	nodes := []Backend{w.a, w.Node("b")}
	for range 20 {
		c, announce := w.pending(w.a, "c", "one")
		w.Settle(w.a, announce, nil)
		statuses := []relay.Status{relay.Approved, relay.Rejected}
		errs := make(chan error, 2)
		for i, n := range nodes {
			next := c
			next.Status, next.EndedAt = statuses[i], w.Now()
			go func() {
				err := n.Commit(t.Context(), relay.Step{Partition: announce.Partition, Challenge: &next})
				if err == nil {
					err = won(statuses[i])
				}
				errs <- err
			}()
		}
		var winner won
		conflicts := 0
		for range nodes {
			switch err := <-errs; {
			case errors.As(err, &winner):
			case errors.Is(err, relay.ErrConflict):
				conflicts++
			default:
				t.Fatalf("Commit: %v", err)
			}
		}
		if conflicts != 1 {
			t.Fatalf("%d of two steps met a conflict, want 1", conflicts)
		}
		got := w.Load(w.a, c.ID)
		if got.Status != relay.Status(winner) || got.Version != c.Version+1 {
			t.Fatalf("stored %s, version %d; want %s, %d", got.Status, got.Version, winner, c.Version+1)
		}
	}
}

// won is the status that was written, told over the channel of errors.
type won relay.Status

func (s won) Error() string { return string(s) }

// unwritten is a step that must not leave a trace, and the check that it did not.
func (w *World) unwritten(b Backend, c relay.Challenge) (relay.Step, func(string)) {
	w.t.Helper()
	before := w.Load(b, c.ID)
	backlog, err := b.Backlog(w.t.Context())
	if err != nil {
		w.t.Fatalf("Backlog: %v", err)
	}
	next := c
	next.Status = relay.Cancelled
	own := w.Event("c", "").Event
	p, _ := relay.PartitionOf(c.ID)
	later := w.Delivery(relay.KindForward, "never", own)
	later.Next = w.Now().Add(-time.Second)
	st := relay.Step{Partition: p, Challenge: &next, From: c.Status, Own: []relay.Event{own}, Mute: time.Hour,
		Owe: []relay.Delivery{w.Delivery(relay.KindForward, "never", own), later}}
	return st, func(when string) {
		w.t.Helper()
		equal(w.t, when+": the challenge", w.Load(b, c.ID), before)
		after, err := b.Backlog(w.t.Context())
		if err != nil {
			w.t.Fatalf("Backlog: %v", err)
		}
		equal(w.t, when+": the backlog", after, backlog)
		_, err = b.Event(w.t.Context(), own.ID)
		wantErr(w.t, when+": the event", err, relay.ErrNotFound)
		w.Due(b, p)
		w.nothing(b, when, p, relay.TargetLane("never"))
		if w.muted(b, c) {
			w.t.Fatalf("%s: pushes are muted", when)
		}
	}
}

func testCommitStale(t *testing.T, w *World) {
	stale, announce := w.pending(w.a, "c", "one")
	fresh := stale
	fresh.Announced = true
	w.Commit(w.a, relay.Step{Partition: announce.Partition, Challenge: &fresh})

	st, check := w.unwritten(w.a, stale)
	st.Settle = &announce
	wantErr(t, "a stale step", w.a.Commit(t.Context(), st), relay.ErrConflict)
	check("after a stale step")

	absent, _ := w.unwritten(w.a, stale)
	gone := stale
	gone.ID = w.ID("chl_", announce.Partition)
	absent.Challenge = &gone
	wantErr(t, "a step on no challenge", w.a.Commit(t.Context(), absent), relay.ErrConflict)
	check("after a step on no challenge")

	st.Challenge.Version++ // decided again on what is stored
	w.Commit(w.a, st)
	equal(t, "decided again", w.Load(w.a, stale.ID).Status, relay.Cancelled)
}

func testSettleOnce(t *testing.T, w *World) {
	c, announce := w.pending(w.a, "c", "one")
	w.Settle(w.a, announce, nil)
	st, check := w.unwritten(w.a, c)
	st.Settle = &announce
	d := w.Delivery(relay.KindForward, "never", relay.Event{ID: c.EventID(), Merchant: Merchant})
	d.Status = relay.DeliveryDead
	st.Delivery = &d
	wantErr(t, "settled again", w.Node("b").Commit(t.Context(), st), relay.ErrLostLease)
	check("settled again")
	_, err := w.a.Delivery(t.Context(), d.ID)
	wantErr(t, "its record", err, relay.ErrNotFound)
	dead, err := w.a.DeadLetters(t.Context(), announce.Partition, 10)
	if err != nil || len(dead) != 0 {
		t.Errorf("DeadLetters = %+v, %v, want none", dead, err)
	}
}

func testSettleRace(t *testing.T, w *World) {
	nodes := []Backend{w.a, w.Node("b")}
	core := relay.TargetLane("core")
	for range 20 {
		a := w.Event("c", "")
		a.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", a.Event)}
		w.Arrive(w.a, a)
		l := w.LeaseOne(w.a, a.Partition, core)
		errs := make(chan error, 2)
		for _, n := range nodes {
			go func() {
				errs <- n.Commit(t.Context(), relay.Step{Partition: l.Partition, Settle: &l, Delivery: w.Tried(l, relay.DeliveryDelivered, time.Time{})})
			}()
		}
		one, two := <-errs, <-errs
		if one == nil {
			one, two = two, one
		}
		if two != nil || !errors.Is(one, relay.ErrLostLease) {
			t.Fatalf("two settlements: %v, %v; want one nil and one ErrLostLease", one, two)
		}
		w.owes(w.a, "after both", nil)
	}
}

// muted tells whether pushes for the challenge's holder are silenced.
func (w *World) muted(b Backend, c relay.Challenge) bool {
	w.t.Helper()
	return w.crowd(b, c, time.Minute).Muted
}

func testMute(t *testing.T, w *World) {
	c, _ := w.pending(w.a, "c", "one")
	if w.muted(w.a, c) {
		t.Error("muted before anything was reported")
	}
	p, _ := relay.PartitionOf(c.ID)
	c.Status = relay.Rejected
	w.Commit(w.a, relay.Step{Partition: p, Challenge: &c, From: relay.Pending, Mute: 20 * time.Minute})
	w.Pass(20*time.Minute - time.Second)
	if !w.muted(w.a, c) {
		t.Error("not muted before the time is over")
	}
	if w.muted(w.a, *w.Challenge("other", "one", "").Challenge) || w.muted(w.a, *w.Challenge("", "one", "").Challenge) {
		t.Error("another holder is muted")
	}
	w.Pass(2 * time.Second)
	if w.muted(w.a, c) {
		t.Error("still muted when the time is over")
	}
}
