package relay_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"approvalrelay/push"
	"approvalrelay/relay"
)

// The population: so many users with a card each, so many others.
const (
	holders   = 24
	loiterers = 4 // who never activate a browser
	lost      = 4 // cards whose owner is forgotten and learnt again
	repeats   = 60
)

func holderOf(i int) (u relay.User, card string) {
	n := i % holders
	return relay.User{Merchant: "acme", ID: fmt.Sprintf("user-%d", n)}, fmt.Sprintf("card-%d", n)
}

// arrive sends an event and notes whom it is about; it returns its challenge.
func (w *week) arrive(merchant, typ string, body map[string]any, want relay.ReceiptStatus) string {
	w.t.Helper()
	r, err := w.send(merchant, typ, body)
	w.must(err)
	if r.Status != want {
		w.t.Fatalf("%s %v is %s, want %s", typ, body, r.Status, want)
	}
	w.saw(string(r.Status))
	w.events++
	if card, ok := body["card_id"].(string); ok {
		w.cards[merchant+":c:"+card] = true
	}
	if user, ok := body["user_id"].(string); ok {
		w.users[merchant+":u:"+user] = true
	}
	if want == relay.Accepted && merchant == "acme" {
		w.bodies = append(w.bodies, sent{typ, body})
		w.bodies = w.bodies[max(0, len(w.bodies)-repeats):]
	}
	return strings.Replace(r.EventID, "evt_", "chl_", 1)
}

type sent struct {
	typ  string
	body map[string]any
}

// event is the i-th one. What happens is told by the number, so that every day
// is as the one before.
func (w *week) event(i int) {
	if w.over {
		return
	}
	w.at(time.Duration(float64(time.Second) / *weekRate), func() { w.event(i + 1) })
	kind, round := i%40, i/40
	u, card := holderOf(round*5 + kind)
	name := fmt.Sprint("n", i)
	switch kind {
	case 16, 17: // an event that is sent again
		if len(w.bodies) == repeats {
			again := w.bodies[round%repeats]
			w.arrive("acme", again.typ, again.body, relay.Duplicate)
		}
	case 18:
		w.arrive("acme", "CARD_3DS", payload("card_id", card, "auth_id", name), relay.Quarantined)
	case 19: // somebody new
		w.arrive("acme", "CARD_STATUS", payload("card_id", "new-card-"+name, "user_id", "new-user-"+name, "id", name), relay.Accepted)
	case 20:
		w.answer(u, w.pay(u, card, name), approve())
	case 21:
		w.answer(u, w.pay(u, card, "refuse-"+name), approve())
	case 22:
		w.answer(u, w.pay(u, card, "away-"+name), reject(""))
	case 23:
		w.answer(u, w.pay(u, card, name), reject(""))
	case 24:
		w.answer(u, w.pay(u, card, name), reject(relay.ReasonNotMe))
	case 25, 26:
		w.read(u, w.pay(u, card, name, "otp", code), kind == 25)
	case 27:
		w.read(u, w.pay(u, card, name, "auth_url", link), true)
	case 28: // nobody answers
		w.pay(u, card, name)
	case 29: // replaced
		w.pay(u, card, name)
		w.at(time.Minute, func() { w.pay(u, card, name, "amount", "51.00") })
	case 30:
		w.teach(u, fmt.Sprint("lost-card-", round%lost), name)
	case 31: // too late
		w.pay(u, card, name, "timestamp", w.clock.Now().Add(-time.Hour).UnixMilli())
	case 32:
		id := w.pay(u, card, name)
		w.at(time.Minute, func() { _, err := w.Cancel(w.ctx, id); w.must(err) })
	case 33: // by user, without a confirm
		other := relay.User{Merchant: "other", ID: u.ID}
		id := w.arrive("other", "CARD_3DS", payload("user_id", u.ID, "auth_id", name, "amount", "1.00", "currency", "EUR"), relay.Accepted)
		w.answer(other, id, approve())
	case 34:
		w.browser(u, fmt.Sprint("https://push.example/", u.ID, "/", round%2), true)
	case 35:
		idle := relay.User{Merchant: "acme", ID: fmt.Sprint("loiterer-", round%loiterers)}
		w.browser(idle, "https://push.example/"+idle.ID, false)
	case 36: // a browser that is thrown away
		w.browser(u, "https://push.example/"+u.ID+"/thrown-away", true)
		w.at(time.Minute, func() { w.pay(u, card, name) })
	case 37:
		w.mortal(name, u, card)
	default:
		w.plain(u, card, name)
	}
}

// populate lets everybody register two browsers before the traffic begins, so
// that the days are alike.
func (w *week) populate() {
	for i := range holders {
		u, card := holderOf(i)
		w.plain(u, card, fmt.Sprint("first-", i))
		for n := range 2 {
			w.browser(u, fmt.Sprint("https://push.example/", u.ID, "/", n), true)
			w.run(w.clock.Now().Add(2 * time.Second))
		}
	}
}

func (w *week) plain(u relay.User, card, name string) {
	w.arrive(u.Merchant, "CARD_TRANSACTION", payload("card_id", card, "user_id", u.ID, "id", name, "amount", "7.00", "currency", "EUR"), relay.Accepted)
}

// pay is a payment that has to be approved.
func (w *week) pay(u relay.User, card, reference string, pairs ...any) string {
	return w.arrive(u.Merchant, "CARD_3DS", purchase(card, append([]any{"user_id", u.ID, "auth_id", reference}, pairs...)...), relay.Accepted)
}

// answer decides a minute later. It does not wait for the issuer: the worker
// does nothing meanwhile.
func (w *week) answer(u relay.User, id string, d relay.Decision) {
	w.at(time.Minute, func() {
		ctx, cancel := context.WithCancel(w.ctx)
		defer cancel()
		w.store.stored = cancel
		_, err := w.Decide(ctx, u, id, d)
		w.store.stored = nil
		w.must(err)
	})
}

// read reveals the code or link, and perhaps says that it is done with.
func (w *week) read(u relay.User, id string, done bool) {
	w.at(30*time.Second, func() { _, err := w.Reveal(w.ctx, u, id); w.must(err) })
	if done {
		w.at(90*time.Second, func() { _, err := w.Done(w.ctx, u, id); w.must(err) })
	}
}

// teach is a challenge of a card whose owner is not known, and an event that
// tells it.
func (w *week) teach(u relay.User, card, name string) {
	w.must(w.ReleaseCard(w.ctx, "acme", card))
	id := w.pay(u, card, name, "user_id", nil)
	w.at(time.Minute, func() { w.plain(u, card, name+"-taught") })
	w.at(2*time.Minute, func() {
		if _, err := w.Get(w.ctx, u, id); err != nil {
			w.t.Errorf("the card's owner was taught, and does not see its challenge: %v", err)
		}
	})
}

// browser registers, and activates its subscription when the code has come.
func (w *week) browser(u relay.User, endpoint string, activate bool) {
	w.users["acme:u:"+u.ID] = true
	sub, _, err := w.Subscribe(w.ctx, u, push.Subscription{Endpoint: endpoint, P256dh: "p", Auth: "a"}, "", "")
	w.must(err)
	w.at(time.Second, func() {
		code := w.codes[sub.ID]
		delete(w.codes, sub.ID)
		if sub.Active || !activate {
			return
		}
		w.must(w.Activate(w.ctx, u, sub.ID, code))
		if w.active[u] == nil {
			w.active[u] = map[string]bool{}
		}
		w.active[u][endpoint] = true
	})
}

// mortal is another node that takes what is owed because of an event, and dies.
func (w *week) mortal(name string, u relay.User, card string) {
	s := w.open("mortal-" + name)
	_, err := s.Beat(w.ctx)
	w.must(err)
	w.pay(u, card, name)
	for p := range s.Partitions() {
		_, err := s.Lease(w.ctx, p, weekLanes, time.Millisecond)
		w.must(err)
	}
	w.must(s.Close())
	beat := func() {
		took, err := w.worker.BeatOnce(w.ctx)
		w.must(err)
		w.seen["taken over"] += took
	}
	for after := time.Second; after <= 25*time.Second; after += time.Second {
		w.at(after, beat)
	}
}
