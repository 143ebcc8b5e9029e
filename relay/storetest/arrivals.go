package storetest

import (
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"approvalrelay/relay"
)

var arrivals = map[string]func(*testing.T, *World){
	"arrival stores event, challenge and what is owed": testArrive,
	"arrival owes now and later":                       testArriveOwes,
	"same content is a duplicate of the first":         testDuplicate,
	"of concurrent arrivals exactly one is first":      testDuplicateRace,
	"a duplicate writes nothing":                       testDuplicateWritesNothing,
	"content is forgotten in time":                     testRemember,
	"an arrival that is run twice is no duplicate":     testArriveTwice,
	"without a fingerprint nothing is a duplicate":     testNoFingerprint,
	"a new challenge names the one it replaces":        testSupersedes,
	"what has expired on arrival is only listed":       testExpiredOnArrival,
}

func testArrive(t *testing.T, w *World) {
	for _, card := range []string{"card-1", ""} {
		a := w.Challenge(card, "user-1", "ref")
		a.Event.Secret.Body = []byte(`{"kept":"for a target"}`)
		a.Challenge.Secret.Envelope = []byte("the envelope")
		a.Own = []relay.Event{w.Event(card, "user-1").Event}
		if got := w.Arrive(w.a, a); got.UserID != "user-1" {
			t.Errorf("the owner is %q, want user-1", got.UserID)
		}
		c := w.Load(w.a, a.Challenge.ID)
		want := *a.Challenge
		want.Version = 1
		equal(t, "challenge", c, want)
		for _, e := range append(a.Own, a.Event) {
			got, err := w.a.Event(t.Context(), e.ID)
			if err != nil {
				t.Fatalf("Event: %v", err)
			}
			equal(t, "event", got, e)
		}
		next := w.Due(w.a, a.Partition)
		equal(t, "when it expires", next.UTC(), c.ExpiresAt)
		leases := w.Lease(w.a, a.Partition, relay.LaneTasks)
		var announced bool
		for _, l := range leases {
			w.Settle(w.a, l, nil)
			announced = announced || reflect.DeepEqual(l.Delivery, relay.Delivery{Kind: relay.KindAnnounce, ChallengeID: c.ID})
		}
		if !announced {
			t.Errorf("handed out %+v, want the announcement of %s", leases, c.ID)
		}
		w.Advance(Life)
		w.Due(w.a, a.Partition)
		expire := w.LeaseOne(w.a, a.Partition, relay.LaneTasks)
		equal(t, "at its expiry", expire.Delivery, relay.Delivery{Kind: relay.KindExpire, ChallengeID: c.ID})
		w.Settle(w.a, expire, nil)
	}
	for _, id := range []string{w.ID("chl_", 0), w.ID("chl_", 255), "chl_", ""} {
		_, err := w.a.Challenge(t.Context(), id)
		wantErr(t, "Challenge "+id, err, relay.ErrNotFound)
		_, err = w.a.Event(t.Context(), id)
		wantErr(t, "Event "+id, err, relay.ErrNotFound)
	}
}

func testArriveOwes(t *testing.T, w *World) {
	a := w.Event("card-1", "")
	now := w.Delivery(relay.KindForward, "core", a.Event)
	later := w.Delivery(relay.KindForward, "audit", a.Event)
	later.Next = w.Now().Add(time.Minute)
	a.Owe = []relay.Delivery{now, later}
	w.Arrive(w.a, a)
	core, audit := relay.TargetLane("core"), relay.TargetLane("audit")
	w.owes(w.a, "after the arrival", map[relay.Lane]int{core: 1, audit: 1})
	equal(t, "owed now", w.LeaseOne(w.a, a.Partition, core, audit).Delivery, now)
	equal(t, "next due", w.Due(w.a, a.Partition).UTC(), later.Next)
	w.Advance(time.Minute)
	if next := w.Due(w.a, a.Partition); !next.IsZero() {
		t.Errorf("next due at %v, want nothing", next)
	}
	equal(t, "owed later", w.LeaseOne(w.a, a.Partition, core, audit).Delivery, later)
}

func testDuplicate(t *testing.T, w *World) {
	first := w.Challenge("card-1", "user-1", "ref")
	w.Arrive(w.a, first)
	b := w.Node("b")
	for i, a := range []relay.Arrival{w.Challenge("card-1", "user-1", "ref"), w.Event("card-1", "")} {
		a.Fingerprint = first.Fingerprint
		got, err := b.Arrive(t.Context(), a)
		if err != nil || !got.Duplicate || got.EventID != first.Event.ID {
			t.Fatalf("%s: %+v, %v, want a duplicate of %s", at("again", i), got, err, first.Event.ID)
		}
	}
	other := w.Event("card-1", "")
	w.Arrive(b, other)
}

func testDuplicateRace(t *testing.T, w *World) {
	nodes := []Backend{w.a, w.Node("b")}
	for range 20 {
		const each = 4
		fingerprint := randomBytes()
		got := make([]relay.Arrived, len(nodes)*each)
		errs := make([]error, len(got))
		var wg sync.WaitGroup
		for i := range got {
			a := w.Event("card-1", "user-1")
			a.Fingerprint = fingerprint
			wg.Go(func() { got[i], errs[i] = nodes[i%len(nodes)].Arrive(t.Context(), a) })
		}
		wg.Wait()
		firsts := 0
		for i := range got {
			if errs[i] != nil {
				t.Fatalf("Arrive: %v", errs[i])
			}
			if !got[i].Duplicate {
				firsts++
			}
			if got[i].EventID != got[0].EventID {
				t.Fatalf("two answers name different firsts: %s, %s", got[i].EventID, got[0].EventID)
			}
		}
		if firsts != 1 {
			t.Fatalf("%d of %d arrivals were first, want 1", firsts, len(got))
		}
	}
}

func testDuplicateWritesNothing(t *testing.T, w *World) {
	first := w.Event("card-1", "")
	w.Arrive(w.a, first)
	again := w.Challenge("card-1", "user-1", "ref")
	again.Fingerprint, again.LearnAt = first.Fingerprint, w.Now()
	again.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", again.Event)}
	if got, err := w.a.Arrive(t.Context(), again); err != nil || !got.Duplicate {
		t.Fatalf("Arrive = %+v, %v, want a duplicate", got, err)
	}
	_, err := w.a.Challenge(t.Context(), again.Challenge.ID)
	wantErr(t, "its challenge", err, relay.ErrNotFound)
	_, err = w.a.Event(t.Context(), again.Event.ID)
	wantErr(t, "its event", err, relay.ErrNotFound)
	_, err = w.a.Owner(t.Context(), again.Challenge.Holder())
	wantErr(t, "its lesson", err, relay.ErrNotFound)
	w.owes(w.a, "after a duplicate", nil)
	w.nothing(w.a, "after a duplicate", again.Partition, relay.LaneTasks, relay.TargetLane("core"))
	if next := w.Due(w.a, again.Partition); !next.IsZero() {
		t.Errorf("something is due at %v, want nothing", next)
	}
}

// testArriveTwice: a client repeats a call when the connection breaks.
func testArriveTwice(t *testing.T, w *World) {
	a := w.Challenge("card-1", "user-1", "ref")
	w.Arrive(w.a, a)
	w.Arrive(w.a, a)
	q := relay.ChallengeQuery{User: a.Challenge.Owner(), Cards: []string{"card-1"}, Limit: 10}
	if list, err := w.a.Challenges(t.Context(), q); err != nil || len(list) != 1 {
		t.Errorf("Challenges = %d, %v, want one", len(list), err)
	}
}

func testRemember(t *testing.T, w *World) {
	first := w.Event("card-1", "")
	first.Remember = 10 * time.Minute
	w.Arrive(w.a, first)
	again := func() relay.Arrival {
		a := w.Event("card-1", "")
		a.Fingerprint, a.Remember = first.Fingerprint, first.Remember
		return a
	}
	w.Pass(10*time.Minute - time.Second)
	if got, err := w.a.Arrive(t.Context(), again()); err != nil || got.EventID != first.Event.ID {
		t.Fatalf("shortly before: %+v, %v, want the first's id", got, err)
	}
	w.Pass(2 * time.Second)
	w.Arrive(w.a, again())
}

func testNoFingerprint(t *testing.T, w *World) {
	for range 3 {
		a := w.Event("card-1", "")
		a.Fingerprint = nil
		w.Arrive(w.a, a)
	}
}

func testSupersedes(t *testing.T, w *World) {
	announce := func(a relay.Arrival) string {
		t.Helper()
		w.Advance(time.Second)
		a.Challenge.CreatedAt = w.Now()
		w.Arrive(w.a, a)
		l := w.LeaseOne(w.a, a.Partition, relay.LaneTasks)
		w.Settle(w.a, l, nil)
		equal(t, "the announced challenge", l.Delivery.ChallengeID, a.Challenge.ID)
		return strings.Join(l.Delivery.Supersedes, " ")
	}
	first, second := w.Challenge("card-1", "", "ref-1"), w.Challenge("card-1", "", "ref-1")
	for _, step := range []struct {
		what string
		a    relay.Arrival
		want string
	}{
		{"the first", first, ""},
		{"another reference", w.Challenge("card-1", "", "ref-2"), ""},
		{"another card", w.Challenge("card-2", "", "ref-1"), ""},
		{"no reference", w.Challenge("card-1", "", ""), ""},
		{"no reference again", w.Challenge("card-1", "", ""), ""},
		{"the same card and reference", second, first.Challenge.ID},
		{"and again", w.Challenge("card-1", "", "ref-1"), first.Challenge.ID + " " + second.Challenge.ID},
	} {
		equal(t, step.what, announce(step.a), step.want)
	}
	ended := w.Challenge("card-3", "", "ref-1")
	announce(ended)
	w.End(w.a, ended.Challenge.ID, relay.Rejected)
	equal(t, "after the older has ended", announce(w.Challenge("card-3", "", "ref-1")), "")
}

func testExpiredOnArrival(t *testing.T, w *World) {
	w.Arrive(w.a, w.Teaching("card-1", "user-1", w.Now()))
	a := w.Challenge("card-1", "", "ref")
	w.Settle(w.a, w.LeaseOne(w.a, a.Partition, relay.LaneTasks), nil)
	a.Challenge.Status, a.Challenge.ExpiresAt, a.Challenge.EndedAt = relay.Expired, w.Now().Add(-time.Minute), w.Now()
	a.Challenge.Secret = relay.Secret{}
	w.Arrive(w.a, a)
	w.nothing(w.a, "expired on arrival", a.Partition, relay.LaneTasks)
	if next := w.Due(w.a, a.Partition); !next.IsZero() {
		t.Errorf("something is due at %v, want nothing", next)
	}
	q := relay.ChallengeQuery{User: relay.User{Merchant: Merchant, ID: "user-1"}, Cards: []string{"card-1"}, Limit: 10}
	for _, ended := range []bool{false, true} {
		q.Ended = ended
		list, err := w.a.Challenges(t.Context(), q)
		if err != nil || len(list) != map[bool]int{false: 0, true: 1}[ended] {
			t.Errorf("Challenges(ended: %t) = %d of them, %v", ended, len(list), err)
		}
	}
	live, err := w.a.Unassigned(t.Context(), a.Challenge.Holder())
	if err != nil || len(live) != 0 {
		t.Errorf("Unassigned = %d, %v, want none", len(live), err)
	}
	// It replaces nothing and is replaced by nothing.
	next := w.Challenge("card-1", "", "ref")
	w.Arrive(w.a, next)
	equal(t, "the next one's announcement", w.LeaseOne(w.a, next.Partition, relay.LaneTasks).Delivery,
		relay.Delivery{Kind: relay.KindAnnounce, ChallengeID: next.Challenge.ID})
}
