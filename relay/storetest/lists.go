package storetest

import (
	"slices"
	"testing"
	"time"

	"approvalrelay/relay"
)

var lists = map[string]func(*testing.T, *World){
	"a list is newest first, of all holders":          testList,
	"a list pages without gaps while things change":   testPaging,
	"nobody sees another user's challenges":           testListIsPrivate,
	"a former owner keeps his challenges":             testFormerOwner,
	"ended challenges are forgotten in time":          testListRetention,
	"a former owner's do not hide one's own":          testForeign,
	"a list takes many of one instant":                testInstant,
	"what surrounds a challenge":                      testCrowd,
	"of a crowd the newest are named":                 testBigCrowd,
	"challenges are loaded in order":                  testNamed,
	"a push reads its user and its challenge at once": testForPush,
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

// testForeign: of a card that was somebody else's one sees one's own, however many
// of theirs are newer.
func testForeign(t *testing.T, w *World) {
	mine := []string{w.arrived(w.a, "c", "one"), w.arrived(w.a, "c", "one")}
	for range 70 {
		w.arrived(w.a, "c", "two")
	}
	slices.Reverse(mine)
	q := relay.ChallengeQuery{User: user("one"), Cards: []string{"c"}, Limit: 3}
	equal(t, "one's list", w.ids(w.a, q), mine)
	q.Ended = true
	equal(t, "one's list of all", w.ids(w.a, q), mine)
	q.User = user("two")
	equal(t, "the length of two's list", len(w.ids(w.a, q)), 3)
}

// testInstant: pages lose nothing of what came in the same millisecond.
func testInstant(t *testing.T, w *World) {
	want := map[string]bool{}
	for i := range 60 {
		a := w.Challenge("c", "one", "")
		w.Arrive(w.a, a)
		want[a.Challenge.ID] = true
		if i%3 == 0 {
			w.End(w.a, a.Challenge.ID, relay.Expired)
		}
	}
	q := relay.ChallengeQuery{User: user("one"), Cards: []string{"c"}, Ended: true, Limit: 4, Before: w.Now().Add(time.Hour)}
	for range 15 {
		page := w.ids(w.a, q)
		equal(t, "the length of a page", len(page), 4)
		for _, id := range page {
			if !want[id] {
				t.Fatalf("%s is there twice", id)
			}
			delete(want, id)
		}
		q.Before, q.BeforeID = w.Now(), page[3]
	}
	equal(t, "after the last page", w.ids(w.a, q), []string(nil))
}

func (w *World) crowd(b Backend, c relay.Challenge, within time.Duration) relay.Crowd {
	w.t.Helper()
	crowd, devices, err := b.Around(w.t.Context(), c, within)
	if err != nil {
		w.t.Fatalf("Around: %v", err)
	}
	alone, err := b.Devices(w.t.Context(), c.Owner())
	equal(w.t, "Devices", err, error(nil))
	equal(w.t, "the devices around", devices, alone)
	return crowd
}

func testCrowd(t *testing.T, w *World) {
	const within = 10 * time.Minute
	ended := w.arrived(w.a, "c", "one")
	w.End(w.a, ended, relay.Expired)
	w.Advance(within - 3*time.Second)
	older := w.arrived(w.a, "c", "one")
	w.arrived(w.a, "other", "one")
	w.End(w.a, w.arrived(w.a, "c", "two"), relay.Expired)
	c := w.Load(w.a, w.arrived(w.a, "c", "one"))
	newer := []string{w.arrived(w.a, "c", "one"), w.arrived(w.a, "c", "")}
	others := []string{newer[1], newer[0], older}
	for _, want := range []struct {
		within time.Duration
		n      int
	}{{within, 2}, {within + 2*time.Second, 3}, {time.Second, 1}} {
		equal(t, "around "+want.within.String(), w.crowd(w.a, c, want.within), relay.Crowd{Recent: want.n, Newer: 2, Others: others})
	}
	w.End(w.a, c.ID, relay.Rejected)
	equal(t, "around one that has ended", w.crowd(w.a, c, within), relay.Crowd{Recent: 2, Others: others})
	alone := w.Load(w.a, w.arrived(w.a, "", "three"))
	equal(t, "around one that is alone", w.crowd(w.a, alone, within), relay.Crowd{Recent: 1, Others: []string{}})
}

func testBigCrowd(t *testing.T, w *World) {
	var all []string
	for range relay.CrowdSize + 3 {
		all = append(all, w.arrived(w.a, "c", "one"))
	}
	slices.Reverse(all)
	last := w.crowd(w.a, w.Load(w.a, all[0]), time.Minute)
	equal(t, "around the newest", last.Others, all[1:relay.CrowdSize+1])
	first := w.crowd(w.a, w.Load(w.a, all[len(all)-1]), time.Minute)
	equal(t, "around the oldest", first.Others, all[:relay.CrowdSize])
	equal(t, "newer than the oldest", first.Newer, relay.CrowdSize+2)
}

func testForPush(t *testing.T, w *World) {
	ctx, u := t.Context(), user("one")
	if err := w.a.SaveDevices(ctx, relay.Devices{User: u, List: []relay.Subscription{w.device(true)}}); err != nil {
		t.Fatalf("SaveDevices: %v", err)
	}
	c := w.Load(w.a, w.arrived(w.a, "c", "one"))
	for id, want := range map[string]*relay.Challenge{c.ID: &c, w.ID("chl_", 0): nil, "": nil} {
		devices, got, err := w.a.ForPush(ctx, u, id)
		equal(t, "ForPush", err, error(nil))
		equal(t, "the devices", devices, w.devices(w.a, u))
		equal(t, "the challenge "+id, got, want)
	}
	devices, _, err := w.a.ForPush(ctx, user("two"), c.ID)
	equal(t, "ForPush", err, error(nil))
	equal(t, "no devices", devices, relay.Devices{User: user("two")})
}

func testNamed(t *testing.T, w *World) {
	one, two := w.arrived(w.a, "c", "one"), w.arrived(w.a, "", "two")
	list, err := w.Node("b").Named(t.Context(), []string{two, w.ID("chl_", 0), one})
	if err != nil || len(list) != 2 {
		t.Fatalf("Named = %d challenges, %v, want two", len(list), err)
	}
	equal(t, "the first", list[0], w.Load(w.a, two))
	equal(t, "the second", list[1], w.Load(w.a, one))
	list, err = w.a.Named(t.Context(), nil)
	equal(t, "of nothing", len(list), 0)
	equal(t, "of nothing", err, error(nil))
}
