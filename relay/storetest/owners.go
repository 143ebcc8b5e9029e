package storetest

import (
	"slices"
	"testing"
	"time"

	"approvalrelay/relay"
)

var owners = map[string]func(*testing.T, *World){
	"events teach who owns a card, newer ones win": testOwnerLearnt,
	"the operator's owner wins until deleted":      testOwnerOperator,
	"a challenge gets its owner at arrival":        testOwnerAtArrival,
	"an unassigned challenge is adopted":           testUnassigned,
	"cards are listed in the user's set":           testCards,
}

func card(id string) relay.Holder { return relay.Holder{Merchant: Merchant, CardID: id} }

func (w *World) ownerIs(b Backend, when, id, user string, at time.Time) {
	w.t.Helper()
	got, err := b.Owner(w.t.Context(), card(id))
	if err != nil || got.UserID != user || !got.At.Equal(at) || got.ByOperator {
		w.t.Fatalf("%s: the owner is %+v, %v, want %s since %v", when, got, err, user, at)
	}
}

// lessons are the inner steps that index a card, in order; they are settled.
func (w *World) lessons(b Backend, id string) []string {
	w.t.Helper()
	var users []string
	for _, l := range w.Lease(b, card(id).Partition(b.Partitions()), relay.LaneTasks) {
		w.Settle(b, l, nil)
		if d := l.Delivery; d.Kind == relay.KindLearn {
			if d.Merchant != Merchant || d.CardID != id {
				w.t.Errorf("a lesson about %s/%s, want %s/%s", d.Merchant, d.CardID, Merchant, id)
			}
			users = append(users, d.UserID)
		}
	}
	return users
}

func testOwnerLearnt(t *testing.T, w *World) {
	b := w.Node("b")
	_, err := b.Owner(t.Context(), card("c"))
	wantErr(t, "a card never seen", err, relay.ErrNotFound)
	w.Arrive(w.a, w.Event("c", "somebody")) // teaches nothing: LearnAt is zero
	_, err = b.Owner(t.Context(), card("c"))
	wantErr(t, "an event that teaches nothing", err, relay.ErrNotFound)

	start := w.Now()
	for _, step := range []struct {
		what, user string
		at         time.Duration
		want       string
		wantAt     time.Duration
		lessons    []string
	}{
		{"the first lesson", "one", 0, "one", 0, []string{"one"}},
		{"a newer one of the same user", "one", 2 * time.Second, "one", 2 * time.Second, nil},
		{"an older one", "two", time.Second, "one", 2 * time.Second, nil},
		{"one of the same instant", "two", 2 * time.Second, "one", 2 * time.Second, nil},
		{"a newer one", "two", 3 * time.Second, "two", 3 * time.Second, []string{"two"}},
	} {
		w.Arrive(w.a, w.Teaching("c", step.user, start.Add(step.at)))
		w.ownerIs(b, step.what, "c", step.want, start.Add(step.wantAt))
		equal(t, step.what+": lessons", w.lessons(b, "c"), step.lessons)
	}
	// Without a time it teaches only what nobody knew.
	undated := func(card, user string) {
		a := w.Teaching(card, user, start.Add(time.Hour))
		a.Undated = true
		w.Arrive(w.a, a)
	}
	undated("c", "one")
	w.ownerIs(b, "one without a time", "c", "two", start.Add(3*time.Second))
	equal(t, "one without a time: lessons", w.lessons(b, "c"), []string(nil))
	undated("d", "one")
	w.ownerIs(b, "the first, without a time", "d", "one", start.Add(time.Hour))
	equal(t, "the first, without a time: lessons", w.lessons(b, "d"), []string{"one"})
	_, err = b.Owner(t.Context(), relay.Holder{Merchant: "other", CardID: "c"})
	wantErr(t, "the same card of another merchant", err, relay.ErrNotFound)
}

func testOwnerOperator(t *testing.T, w *World) {
	ctx, b := t.Context(), w.Node("b")
	w.Arrive(w.a, w.Teaching("c", "learnt", w.Now()))
	if err := w.a.SetOwner(ctx, card("c"), relay.Owner{UserID: "operator's", At: w.Now(), ByOperator: true}); err != nil {
		t.Fatalf("SetOwner: %v", err)
	}
	want := relay.Owner{UserID: "operator's", At: w.Now(), ByOperator: true}
	for _, later := range []time.Duration{0, time.Hour} {
		w.Arrive(w.a, w.Teaching("c", "learnt", w.Now().Add(later)))
		got, err := b.Owner(ctx, card("c"))
		got.At = got.At.UTC()
		if err != nil {
			t.Fatalf("Owner: %v", err)
		}
		equal(t, "the owner", got, want)
	}
	// Nothing waits for the owner, so that nothing is owed; the list has the card at once.
	equal(t, "lessons", w.lessons(b, "c"), []string{"learnt"})
	cards, err := b.Cards(ctx, user("operator's"))
	if err != nil {
		t.Fatalf("Cards: %v", err)
	}
	equal(t, "the operator's user's cards", cards, []string{"c"})
	w.Arrive(w.a, w.Challenge("waits", "", ""))
	if err := w.a.SetOwner(ctx, card("waits"), relay.Owner{UserID: "operator's", At: w.Now(), ByOperator: true}); err != nil {
		t.Fatalf("SetOwner: %v", err)
	}
	equal(t, "lessons of a card with a challenge", w.lessons(b, "waits"), []string{"operator's"})
	owners, err := b.Owners(ctx, []relay.Holder{card("nobody's"), card("waits")})
	if err != nil || len(owners) != 2 || owners[0] != (relay.Owner{}) || owners[1].UserID != "operator's" {
		t.Errorf("Owners = %+v, %v", owners, err)
	}

	// Also for a challenge that names somebody else, who is not given the card.
	if got := w.Arrive(w.a, w.Challenge("c", "learnt", "")); got.UserID != "operator's" {
		t.Errorf("a challenge went to %q, want operator's", got.UserID)
	}
	equal(t, "lessons of that challenge", w.lessons(b, "c"), []string(nil))

	if err := b.SetOwner(ctx, card("c"), relay.Owner{}); err != nil {
		t.Fatalf("SetOwner: %v", err)
	}
	_, err = w.a.Owner(ctx, card("c"))
	wantErr(t, "a forgotten owner", err, relay.ErrNotFound)
	w.Arrive(w.a, w.Teaching("c", "learnt", w.Now()))
	w.ownerIs(b, "after forgetting", "c", "learnt", w.Now())
}

func testOwnerAtArrival(t *testing.T, w *World) {
	w.Arrive(w.a, w.Teaching("c", "one", w.Now()))
	equal(t, "lessons", w.lessons(w.a, "c"), []string{"one"})
	for _, step := range []struct{ what, names, want string }{
		{"named by nobody", "", "one"},
		{"named by the event", "one", "one"},
		{"the event names another user", "two", "two"},
	} {
		a := w.Challenge("c", step.names, "")
		equal(t, step.what+": the answer", w.Arrive(w.a, a).UserID, step.want)
		equal(t, step.what+": the challenge", w.Load(w.a, a.Challenge.ID).UserID, step.want)
	}
	// The other user's list must find the card, although it is not known as his.
	equal(t, "lessons", w.lessons(w.a, "c"), []string{"two"})
	// Later lessons do not move what has an owner.
	a := w.Challenge("c", "", "")
	w.Arrive(w.a, a)
	w.Arrive(w.a, w.Teaching("c", "three", w.Now().Add(time.Hour)))
	equal(t, "after a later lesson", w.Load(w.a, a.Challenge.ID).UserID, "one")
}

func testUnassigned(t *testing.T, w *World) {
	ctx := t.Context()
	waiting := w.Challenge("c", "", "")
	if got := w.Arrive(w.a, waiting); got.UserID != "" {
		t.Errorf("the owner is %q, want none", got.UserID)
	}
	over := w.Challenge("c", "", "")
	w.Arrive(w.a, over)
	w.End(w.a, over.Challenge.ID, relay.Expired)
	w.Arrive(w.a, w.Challenge("other", "", ""))
	owned := w.Challenge("c", "two", "")
	w.Arrive(w.a, owned)
	w.Lease(w.a, waiting.Partition, relay.LaneTasks)

	ids := func() []string {
		list, err := w.a.Unassigned(ctx, card("c"))
		if err != nil {
			t.Fatalf("Unassigned: %v", err)
		}
		var ids []string
		for _, c := range list {
			ids = append(ids, c.ID)
		}
		return ids
	}
	equal(t, "unassigned", ids(), []string{waiting.Challenge.ID})
	w.Advance(time.Second)
	newer := w.Challenge("c", "", "")
	w.Arrive(w.a, newer)
	w.Lease(w.a, waiting.Partition, relay.LaneTasks)
	equal(t, "unassigned, newest first", ids(), []string{newer.Challenge.ID, waiting.Challenge.ID})
	w.End(w.a, newer.Challenge.ID, relay.Cancelled)

	w.Arrive(w.a, w.Teaching("c", "one", w.Now()))
	equal(t, "lessons", w.lessons(w.a, "c"), []string{"one"})
	c := w.Load(w.a, waiting.Challenge.ID).Assign("one")
	w.Commit(w.a, relay.Step{Partition: waiting.Partition, Challenge: &c, Owe: []relay.Delivery{{Kind: relay.KindAnnounce, ChallengeID: c.ID}}})
	equal(t, "unassigned", ids(), []string(nil))
	equal(t, "the adopted challenge's owner", w.Load(w.a, c.ID).UserID, "one")
	equal(t, "owed because of it", w.LeaseOne(w.a, waiting.Partition, relay.LaneTasks).Delivery,
		relay.Delivery{Kind: relay.KindAnnounce, ChallengeID: c.ID})
	list, err := w.a.Challenges(ctx, relay.ChallengeQuery{User: c.Owner(), Cards: []string{"c"}, Limit: 10})
	if err != nil || len(list) != 1 || list[0].ID != c.ID {
		t.Errorf("the new owner's list: %+v, %v, want %s", list, err, c.ID)
	}
}

func testCards(t *testing.T, w *World) {
	ctx, u := t.Context(), relay.User{Merchant: Merchant, ID: "one"}
	for _, card := range []string{"c1", "c2", "c1"} {
		if err := w.a.IndexCard(ctx, u, card); err != nil {
			t.Fatalf("IndexCard: %v", err)
		}
	}
	for _, want := range []struct {
		u     relay.User
		cards []string
	}{{u, []string{"c1", "c2"}}, {relay.User{Merchant: "other", ID: "one"}, nil}, {relay.User{Merchant: Merchant, ID: "two"}, nil}} {
		got, err := w.Node("b").Cards(ctx, want.u)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want.cards) {
			t.Errorf("Cards(%+v) = %v, %v, want %v", want.u, got, err, want.cards)
		}
	}
}
