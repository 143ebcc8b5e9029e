package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"approvalrelay/relay"
)

var records = map[string]func(t *testing.T, w *World){
	"events/filters":         testEventFilters,
	"events/pages":           testEventPages,
	"events/refused":         testRefused,
	"deliveries/by status":   testDeliveriesByStatus,
	"deliveries/of an event": testHistory,
	"challenges/by status":   testChallengesByStatus,
	"counts":                 testCounts,
	"erase":                  testErase,
	"samples":                testSamples,
}

// events lists ids of all pages of a query.
func (w *World) events(b Backend, q relay.EventQuery) (ids []string) {
	w.t.Helper()
	for q.Limit = max(q.Limit, 1); ; {
		list, next, err := b.Events(w.t.Context(), q)
		if err != nil {
			w.t.Fatalf("Events: %v", err)
		}
		if len(list) > q.Limit {
			w.t.Fatalf("a page has %d events, want at most %d", len(list), q.Limit)
		}
		for _, e := range list {
			ids = append(ids, e.ID)
		}
		if next == "" {
			return ids
		}
		q.Cursor = next
	}
}

// idNow is the part of an id that carries the time, for the present.
func idNow() string { return ulid.Make().String() }

func holderOf(card, user string) []relay.Holder {
	return []relay.Holder{{Merchant: Merchant, CardID: card, UserID: user}}
}

func testEventFilters(t *testing.T, w *World) {
	b := w.Node("b")
	var all, cards, users, types, challenges []string // newest first
	put := func(a relay.Arrival, lists ...*[]string) {
		w.Advance(time.Millisecond) // for the next one's id
		w.Arrive(w.a, a)
		for _, l := range append(lists, &all) {
			*l = slices.Insert(*l, 0, a.Event.ID)
		}
	}
	for n := range 6 {
		put(w.Event(fmt.Sprint("other-", n), ""))
		a := w.Event("c", "")
		put(a, &cards)
		a = w.Event("d", "u")
		a.Event.Type = "CARD_CLOSE_RESULT"
		put(a, &users, &types)
		put(w.Challenge("c", "v", ""), &cards, &challenges)
	}
	ended := "chl_" + challenges[3][4:]
	w.End(w.a, ended, relay.Expired) // moves between two indexes
	for _, c := range []struct {
		name string
		q    relay.EventQuery
		want []string
	}{
		{"all", relay.EventQuery{}, all},
		{"by card", relay.EventQuery{Holders: holderOf("c", "")}, cards},
		{"by user", relay.EventQuery{Holders: holderOf("", "u")}, users},
		{"by the user of a challenge that has ended", relay.EventQuery{Holders: holderOf("", "v")}, challenges[3:4]},
		{"by type", relay.EventQuery{Type: "CARD_CLOSE_RESULT"}, types},
		{"by an action-requiring type", relay.EventQuery{Type: "CARD_3DS", Action: true}, challenges},
		{"by outcome", relay.EventQuery{Outcome: relay.OutcomeChallenge}, challenges},
		{"by type and card", relay.EventQuery{Type: "CARD_3DS", Action: true, Holders: holderOf("c", "")}, challenges},
		{"of another merchant", relay.EventQuery{Merchant: "other"}, nil},
		{"of nobody", relay.EventQuery{Holders: holderOf("nothing", "")}, nil},
	} {
		for _, limit := range []int{1, 5, 100} {
			c.q.Limit = limit
			got := w.events(b, c.q)
			if c.q.Holders == nil { // several partitions' indexes, in the order of writing, to the millisecond
				slices.Sort(got)
				c.want = slices.Sorted(slices.Values(c.want))
			}
			equal(t, fmt.Sprintf("%s, %d a page", c.name, limit), got, c.want)
		}
	}
	for _, cursor := range []string{"x", "MTIz", "!"} {
		_, _, err := b.Events(t.Context(), relay.EventQuery{Range: relay.Range{Limit: 1, Cursor: cursor}})
		wantErr(t, "the cursor "+cursor, err, relay.ErrCursor)
	}
}

// testEventPages: what arrives while somebody turns pages neither shifts nor
// repeats anything.
func testEventPages(t *testing.T, w *World) {
	want := map[string]bool{}
	for n := range 40 {
		a := w.Event(fmt.Sprint("c", n%7), "")
		w.Arrive(w.a, a)
		want[a.Event.ID] = true
	}
	q := relay.EventQuery{Range: relay.Range{Limit: 7}}
	for seen := map[string]bool{}; ; {
		list, next, err := w.a.Events(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if seen[e.ID] || !want[e.ID] {
				t.Errorf("%s came twice, or later than the first page", e.ID)
			}
			seen[e.ID] = true
		}
		if next == "" {
			equal(t, "events on all pages", len(seen), len(want))
			return
		}
		q.Cursor = next
		for n := range 10 { // meanwhile
			w.Arrive(w.a, w.Event(fmt.Sprint("c", n), ""))
		}
	}
}

func testRefused(t *testing.T, w *World) {
	e := relay.Event{ID: w.ID("evt_", 1), Type: "CARD_3DS", Merchant: Merchant, Outcome: relay.OutcomeRefused, Reason: "invalid_signature", RemoteIP: "192.0.2.7", ReceivedAt: w.Now()}
	// Found by its id near that time by the store's own clock.
	e.ID = "evt_" + idNow() + "01"
	e.ReceivedAt = relay.TimeOf(e.ID)
	if err := w.a.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	got, err := w.Node("b").Event(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the record", got, e)
	equal(t, "refused ones", w.events(w.a, relay.EventQuery{Outcome: relay.OutcomeRefused}), []string{e.ID})
	equal(t, "all", w.events(w.a, relay.EventQuery{}), []string{e.ID})
	equal(t, "of a type", w.events(w.a, relay.EventQuery{Type: "CARD_3DS"}), []string{e.ID})
	_, err = w.a.Event(t.Context(), "evt_"+idNow()+"01")
	wantErr(t, "another id", err, relay.ErrNotFound)
}

// deliveries lists the ids of all pages.
func (w *World) deliveries(b Backend, q relay.DeliveryQuery) (ids []string) {
	w.t.Helper()
	for q.Limit = 2; ; {
		list, next, err := b.Deliveries(w.t.Context(), q)
		if err != nil {
			w.t.Fatalf("Deliveries: %v", err)
		}
		for _, d := range list {
			ids = append(ids, d.ID)
		}
		if next == "" {
			slices.Sort(ids)
			return ids
		}
		q.Cursor = next
	}
}

func testDeliveriesByStatus(t *testing.T, w *World) {
	core := relay.TargetLane("core")
	var ids []string
	a := w.Event("c", "")
	for range 4 {
		d := w.Delivery(relay.KindForward, "core", a.Event)
		a.Owe, ids = append(a.Owe, d), append(ids, d.ID)
	}
	w.Arrive(w.a, a)
	q := relay.DeliveryQuery{Lanes: []relay.Lane{core, relay.LanePush}}
	list := func(s relay.DeliveryStatus) []string {
		q.Status = s
		return w.deliveries(w.Node("b-"+string(s)+"-"+w.ID("", 0)), q)
	}
	sorted := slices.Sorted(slices.Values(ids))
	equal(t, "waiting ones", list(relay.DeliveryPending), sorted)
	equal(t, "attempted ones", list(""), []string(nil))
	ls := w.Lease(w.a, a.Partition, core)
	by := map[string]relay.Lease{}
	for _, l := range ls {
		by[l.Delivery.ID] = l
	}
	w.Settle(w.a, by[ids[0]], w.Tried(by[ids[0]], relay.DeliveryDelivered, time.Time{}))
	w.Settle(w.a, by[ids[1]], w.Tried(by[ids[1]], relay.DeliveryDead, time.Time{}))
	w.Settle(w.a, by[ids[2]], w.Tried(by[ids[2]], relay.DeliveryPending, w.Now().Add(time.Minute)))
	equal(t, "delivered ones", list(relay.DeliveryDelivered), ids[:1])
	equal(t, "dead ones", list(relay.DeliveryDead), ids[1:2])
	equal(t, "pending ones", list(relay.DeliveryPending), slices.Sorted(slices.Values(ids[2:])))
	equal(t, "attempted ones", list(""), slices.Sorted(slices.Values(ids[:3])))
	equal(t, "parked ones", list(relay.DeliveryParked), ids[3:]) // whatever waits in a paused target's lane
	q.Kind = relay.KindPush
	equal(t, "dead pushes", list(relay.DeliveryDead), []string(nil))
}

func testHistory(t *testing.T, w *World) {
	c, announce := w.pending(w.a, "c", "one")
	ev := "evt_" + c.ID[4:]
	push := w.Delivery(relay.KindPush, "sub", relay.Event{ID: ev, Merchant: Merchant})
	push.ChallengeID = c.ID
	own := w.Event("c", "").Event
	own.Outcome, own.ChallengeID = relay.OutcomeOwn, c.ID
	told := w.Delivery(relay.KindForward, "core", own)
	told.ChallengeID = c.ID
	w.Settle(w.a, announce, nil, push, told)
	l := w.LeaseOne(w.a, announce.Partition, relay.LanePush)
	again := *w.Tried(l, relay.DeliveryParked, time.Time{})
	w.Settle(w.a, l, &again, again) // owed again, and not new
	got, err := w.Node("b").History(t.Context(), ev)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "what the event has caused", got, []relay.Owed{{ID: push.ID, Kind: relay.KindPush, Target: "sub"}, {ID: told.ID, Kind: relay.KindForward, Target: "core", EventID: own.ID}})
	found, err := w.a.Attempted(t.Context(), []string{push.ID, told.ID})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := found[push.ID]; len(found) != 1 || !ok {
		t.Errorf("attempted are %v, want the push alone", found)
	}
}

func testChallengesByStatus(t *testing.T, w *World) {
	ids := map[relay.Status][]string{}
	for n := range 6 {
		a := w.Challenge(fmt.Sprint("c", n), "u", "")
		w.Arrive(w.a, a)
		status := []relay.Status{relay.Pending, relay.Expired, relay.Cancelled}[n%3]
		if status != relay.Pending {
			w.End(w.a, a.Challenge.ID, status)
		}
		ids[status] = append(ids[status], a.Challenge.ID)
		ids[""] = append(ids[""], a.Challenge.ID)
	}
	for _, status := range []relay.Status{"", relay.Pending, relay.Expired, relay.Cancelled, relay.Approved} {
		var got []string
		for q := (relay.StatusQuery{Range: relay.Range{Limit: 1}, Status: status}); ; {
			list, next, err := w.a.AllChallenges(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range list {
				got = append(got, c.ID)
			}
			if q.Cursor = next; next == "" {
				break
			}
		}
		equal(t, "challenges that are "+string(status), slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(ids[status])))
	}
}

func testCounts(t *testing.T, w *World) {
	counts := func() relay.Counts {
		c, err := w.Node("b-" + w.ID("", 0)).Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a := w.Challenge("c", "u", "")
	w.Arrive(w.a, a)
	w.Arrive(w.a, w.Challenge("d", "u", ""))
	w.Arrive(w.a, w.Event("e", ""))
	c := counts()
	if c.Challenges[relay.Pending] != 2 || c.Events[relay.OutcomeChallenge] != 2 || c.Events[relay.OutcomeForwarded] != 1 {
		t.Errorf("%+v", c)
	}
	ch := w.Load(w.a, a.Challenge.ID)
	ch.Status = relay.Confirming
	p, _ := relay.PartitionOf(ch.ID)
	w.Commit(w.a, relay.Step{Partition: p, Challenge: &ch, From: relay.Pending})
	if c = counts(); c.Challenges[relay.Pending] != 1 || c.Challenges[relay.Confirming] != 1 {
		t.Errorf("%+v", c)
	}
	w.End(w.a, ch.ID, relay.Approved)
	if c = counts(); c.Challenges[relay.Confirming] != 0 || c.Challenges[relay.Approved] != 1 {
		t.Errorf("%+v", c)
	}
	u := user("u")
	save := func(active ...bool) {
		d, err := w.a.Devices(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		d.List = nil
		for n, is := range active {
			d.List = append(d.List, relay.Subscription{ID: fmt.Sprint("sub_", n), Active: is})
		}
		if err := w.a.SaveDevices(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		active []bool
		want   int
	}{{[]bool{false}, 0}, {[]bool{true, true}, 2}, {[]bool{true, false}, 1}, {nil, 0}} {
		if save(step.active...); counts().Subscriptions != step.want {
			t.Errorf("%v: %d subscriptions, want %d", step.active, counts().Subscriptions, step.want)
		}
	}
	lanes, err := w.a.Lanes(t.Context(), []relay.Lane{relay.LaneTasks, relay.LanePush})
	if err != nil || lanes[relay.LaneTasks].Waiting == 0 || lanes[relay.LaneTasks].Oldest.IsZero() || lanes[relay.LanePush].Waiting != 0 {
		t.Errorf("the lanes are %+v, %v", lanes, err)
	}
}

func testErase(t *testing.T, w *World) {
	a := w.Challenge("c", "u", "")
	a.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", a.Event)}
	a.Event.Owed = []relay.Owed{{ID: a.Owe[0].ID, Kind: relay.KindForward, Target: "core"}}
	w.Arrive(w.a, a)
	l := w.LeaseOne(w.a, a.Partition, relay.TargetLane("core"))
	w.Settle(w.a, l, w.Tried(l, relay.DeliveryDead, time.Time{}))
	w.End(w.a, a.Challenge.ID, relay.Cancelled)
	other := w.Event("c", "")
	w.Arrive(w.a, other)
	if err := w.a.EraseEvent(t.Context(), a.Event); err != nil {
		t.Fatal(err)
	}
	if err := w.a.EraseUser(t.Context(), user("u"), []string{"c"}); err != nil {
		t.Fatal(err)
	}
	_, err := w.a.Event(t.Context(), a.Event.ID)
	wantErr(t, "the event", err, relay.ErrNotFound)
	_, err = w.a.Challenge(t.Context(), a.Challenge.ID)
	wantErr(t, "the challenge", err, relay.ErrNotFound)
	_, err = w.a.Delivery(t.Context(), a.Owe[0].ID)
	wantErr(t, "the delivery", err, relay.ErrNotFound)
	wantErr(t, "the dead letter", w.a.Replay(t.Context(), a.Owe[0].ID), relay.ErrNotFound)
	equal(t, "the user's", w.events(w.a, relay.EventQuery{Holders: holderOf("", "u")}), []string(nil))
	equal(t, "the card's others", w.events(w.a, relay.EventQuery{Holders: holderOf("c", "")}), []string{other.Event.ID})
}

func testSamples(t *testing.T, w *World) {
	b := w.Node("b")
	at := w.Now().Truncate(relay.SampleEvery)
	for _, node := range []Backend{w.a, b} {
		if err := node.AddSample(t.Context(), w.Now(), map[string]float64{"x y": 2, "z": 0.5}); err != nil {
			t.Fatal(err)
		}
	}
	w.Advance(relay.SampleEvery)
	if err := b.AddSample(t.Context(), w.Now(), map[string]float64{"z": 1}); err != nil {
		t.Fatal(err)
	}
	got, err := b.Samples(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the samples", got, []relay.Sample{
		{At: at, Figures: map[string]float64{"x y": 4, "z": 1}}, {At: at.Add(relay.SampleEvery), Figures: map[string]float64{"z": 1}},
	})
	w.Pass(relay.SamplesKept + relay.SampleEvery)
	if got, err := b.Samples(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("after an hour there are %v, %v", got, err)
	}
}
