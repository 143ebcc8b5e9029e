package storetest

import (
	"slices"
	"testing"
	"time"

	"approvalrelay/relay"
)

var lists = map[string]func(*testing.T, *World){
	"a list is newest first, of all holders":        testList,
	"a list pages without gaps while things change": testPaging,
	"nobody sees another user's challenges":         testListIsPrivate,
	"a former owner keeps his challenges":           testFormerOwner,
	"ended challenges are forgotten in time":        testListRetention,
	"recent challenges of a card are counted":       testRecent,
}

func user(id string) relay.User { return relay.User{Merchant: Merchant, ID: id} }

// ids of the listed challenges.
func (w *World) ids(b Backend, q relay.ChallengeQuery) []string {
	w.t.Helper()
	list, err := b.Challenges(w.t.Context(), q)
	if err != nil {
		w.t.Fatalf("Challenges: %v", err)
	}
	var ids []string
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}

// arrived is the id of a challenge that has just arrived, a second after the last.
func (w *World) arrived(b Backend, card, user string) string {
	w.t.Helper()
	w.Advance(time.Second)
	a := w.Challenge(card, user, "")
	w.Arrive(b, a)
	return a.Challenge.ID
}

func testList(t *testing.T, w *World) {
	b := w.Node("b")
	var all, live []string
	for i := range 12 {
		id := w.arrived(w.a, []string{"c1", "c2", ""}[i%3], "one")
		all = append(all, id)
		if i%4 == 0 {
			w.End(w.a, id, relay.Expired)
		} else {
			live = append(live, id)
		}
	}
	slices.Reverse(all)
	slices.Reverse(live)
	q := relay.ChallengeQuery{User: user("one"), Cards: []string{"c1", "c2"}, Limit: 100}
	equal(t, "what is not over", w.ids(b, q), live)
	q.Ended = true
	equal(t, "all", w.ids(b, q), all)
	q.Limit = 5
	equal(t, "at most five", w.ids(b, q), all[:5])
	q.Limit, q.Cards = 100, nil
	equal(t, "without cards", w.ids(b, q), []string{all[0], all[3], all[6], all[9]})
	c := w.Load(w.a, live[0])
	c.Status = relay.Confirming
	p, _ := relay.PartitionOf(c.ID)
	w.Commit(w.a, relay.Step{Partition: p, Challenge: &c, From: relay.Pending})
	equal(t, "confirming is not over", w.ids(b, relay.ChallengeQuery{User: user("one"), Cards: []string{"c1", "c2"}, Limit: 100}), live)
	equal(t, "nobody's", w.ids(b, relay.ChallengeQuery{User: user("nobody"), Limit: 100, Ended: true}), []string(nil))
}

func testPaging(t *testing.T, w *World) {
	var want []string
	for i := range 40 {
		if i%5 == 0 {
			w.Advance(time.Second) // five share an instant
		}
		a := w.Challenge([]string{"c1", "c2"}[i%2], "one", "")
		w.Arrive(w.a, a)
		want = append(want, a.Challenge.ID)
		if i%3 == 0 {
			w.End(w.a, a.Challenge.ID, relay.Expired)
		}
	}
	q := relay.ChallengeQuery{User: user("one"), Cards: []string{"c1", "c2"}, Ended: true, Limit: 7}
	var got []string
	for {
		page, err := w.a.Challenges(t.Context(), q)
		if err != nil {
			t.Fatalf("Challenges: %v", err)
		}
		if len(page) == 0 {
			break
		}
		for _, c := range page {
			got = append(got, c.ID)
		}
		last := page[len(page)-1]
		q.Before, q.BeforeID = last.CreatedAt, last.ID
		// A new one comes, and one of this page and one further on end.
		w.arrived(w.a, "c1", "one")
		for _, id := range []string{page[0].ID, want[0], want[1]} {
			if c := w.Load(w.a, id); !c.Status.Final() {
				w.End(w.a, id, relay.Cancelled)
			}
		}
	}
	if !slices.IsSortedFunc(got, func(a, b string) int { return w.Load(w.a, b).CreatedAt.Compare(w.Load(w.a, a).CreatedAt) }) {
		t.Error("the pages are not newest first")
	}
	slices.Sort(got)
	slices.Sort(want)
	equal(t, "all pages together", got, want)
}

func testListIsPrivate(t *testing.T, w *World) {
	mine := w.arrived(w.a, "c", "one")
	his := w.arrived(w.a, "c", "two")
	w.End(w.a, his, relay.Expired)
	w.arrived(w.a, "c", "two")
	w.arrived(w.a, "unassigned", "")
	over := w.arrived(w.a, "unassigned", "")
	w.End(w.a, over, relay.Expired)
	for _, ended := range []bool{false, true} {
		q := relay.ChallengeQuery{User: user("one"), Cards: []string{"c", "unassigned"}, Ended: ended, Limit: 10}
		equal(t, "one's list", w.ids(w.a, q), []string{mine})
		q.User.Merchant = "other"
		equal(t, "the list of another merchant's user", w.ids(w.a, q), []string(nil))
	}
}

func testFormerOwner(t *testing.T, w *World) {
	w.Arrive(w.a, w.Teaching("c", "one", w.Now()))
	live, ended := w.arrived(w.a, "c", ""), w.arrived(w.a, "c", "")
	w.End(w.a, ended, relay.Expired)
	w.Arrive(w.a, w.Teaching("c", "two", w.Now()))
	late := w.arrived(w.a, "c", "")
	w.End(w.a, live, relay.Rejected)
	q := relay.ChallengeQuery{User: user("one"), Cards: []string{"c"}, Ended: true, Limit: 10}
	equal(t, "the former owner's", w.ids(w.a, q), []string{ended, live})
	q.User = user("two")
	equal(t, "the new owner's", w.ids(w.a, q), []string{late})
}

func testListRetention(t *testing.T, w *World) {
	old := w.arrived(w.a, "c", "one")
	w.End(w.a, old, relay.Expired)
	q := relay.ChallengeQuery{User: user("one"), Cards: []string{"c"}, Ended: true, Limit: 10}
	equal(t, "at first", w.ids(w.a, q), []string{old})
	w.Pass(365 * 24 * time.Hour)
	equal(t, "a year later", w.ids(w.a, q), []string(nil))
	_, err := w.a.Challenge(t.Context(), old)
	wantErr(t, "a year later", err, relay.ErrNotFound)
}

func testRecent(t *testing.T, w *World) {
	const within = 10 * time.Minute
	first := w.arrived(w.a, "c", "one")
	w.End(w.a, first, relay.Expired)
	w.Advance(within - 3*time.Second)
	w.arrived(w.a, "c", "one")
	w.arrived(w.a, "other", "one")
	w.End(w.a, w.arrived(w.a, "c", "two"), relay.Expired)
	last := w.Load(w.a, w.arrived(w.a, "c", "one"))
	w.arrived(w.a, "c", "one") // after it
	for _, want := range []struct {
		within time.Duration
		n      int
	}{{within, 2}, {within + 2*time.Second, 3}, {time.Second, 1}} {
		n, err := w.a.Recent(t.Context(), last, want.within)
		if err != nil || n != want.n {
			t.Errorf("Recent(%s) = %d, %v, want %d", want.within, n, err, want.n)
		}
	}
}
