package relay_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/push"
	"approvalrelay/relay"
)

func TestWebhookRingsEveryActiveDevice(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.device(anna, 2)
	h.device(berta, 3)
	h.subscribe(anna, 4) // pending
	h.pusher.clear()

	id := h.receive("CARD_3DS", purchase("c-1"))
	h.wantPushes(map[int]int{1: 1, 2: 1})
	for _, m := range h.pusher.all() {
		if m.TTL != 300*time.Second || m.Urgency != "high" || m.Topic != push.Topic(id) || m.Notification.Tag != id || m.Notification.Silent {
			t.Errorf("TTL %v, urgency %q, topic %q, %+v", m.TTL, m.Urgency, m.Topic, m.Notification)
		}
		c := m.Challenge
		if c.ID != id || c.Method != "approve" || c.Status != "pending" || !c.ExpiresAt.Equal(start.Add(300*time.Second)) || c.ActionToken == "" || c.OTP != "" {
			t.Errorf("the challenge in it is %+v", c)
		}
	}
	h.wantOwn(id, "created")
	if got := h.listed(anna, false); !slices.Equal(got, []string{id}) {
		t.Errorf("anna's list is %v", got)
	}
	if got := h.listed(berta, true); len(got) != 0 {
		t.Errorf("berta's list is %v", got)
	}
	if _, err := h.Get(h.ctx, berta, id); !errors.Is(err, relay.ErrNotFound) {
		t.Errorf("berta loads it: %v", err)
	}
	if _, err := h.Get(h.ctx, relay.User{Merchant: "other", ID: "anna"}, id); !errors.Is(err, relay.ErrNotFound) {
		t.Errorf("the anna of another merchant loads it: %v", err)
	}
}

func TestCodeIsPushedOnlyIfWanted(t *testing.T) {
	for _, include := range []bool{false, true} {
		t.Run(fmt.Sprint(include), func(t *testing.T) {
			h := newHarness(t, func(o *relay.Options) { o.Push.IncludeOTP = include })
			h.device(anna, 1)
			h.receive("CARD_3DS", payload("card_id", "c-1", "user_id", "anna", "otp", code))
			h.wantPushes(map[int]int{1: 1})
			m := h.pusher.all()[0]
			if got := m.Challenge.OTP == code; got != include || strings.Contains(m.Notification.Title+m.Notification.Body, code) {
				t.Errorf("the code is in it: %v, want %v; visible is %+v", got, include, m.Notification)
			}
			if !include && strings.Contains(m.Raw, code) {
				t.Error("the code is somewhere in the push")
			}
		})
	}
}

func TestWebhookRefused(t *testing.T) {
	h := newHarness(t, nil)
	sealed, mac, err := h.ring.Seal([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		w    relay.Webhook
		want error
	}{
		"unknown merchant": {relay.Webhook{Merchant: "nobody", Type: "X", Payload: sealed, HMAC: mac}, relay.ErrUnknownMerchant},
		"wrong HMAC":       {relay.Webhook{Merchant: "acme", Type: "X", Payload: sealed, HMAC: strings.Repeat("0", 64)}, crypto.ErrSignature},
	} {
		if r, err := h.Receive(h.ctx, tc.w); !errors.Is(err, tc.want) || r != (relay.Receipt{}) {
			t.Errorf("%s: %+v, %v; want %v", name, r, err, tc.want)
		}
	}
}

func TestDuplicates(t *testing.T) {
	h := newHarness(t, func(o *relay.Options) { o.Targets = append(o.Targets, target("core", "*", "CARD_3DS")) })
	h.device(anna, 1)
	body := purchase("c-1")
	first, err := h.send("acme", "CARD_3DS", body)
	if err != nil {
		t.Fatal(err)
	}
	h.quiet()
	for _, typ := range []string{"CARD_3DS", "CARD_VERIFICATION", "TRANSACTION_CREATED"} {
		if r, err := h.send("acme", typ, body); err != nil || r.Status != relay.Duplicate || r.EventID != first.EventID {
			t.Errorf("the same content as %s: %+v, %v; want a duplicate of %s", typ, r, err, first.EventID)
		}
	}
	h.quiet()
	h.wantPushes(map[int]int{1: 1})
	if got := h.downstream.to("core"); len(got) != 1 {
		t.Errorf("forwarded %d times, want once", len(got))
	}
	if r, err := h.send("other", "CARD_3DS", body); err != nil || r.Status != relay.Accepted {
		t.Errorf("the same content from another merchant: %+v, %v", r, err)
	}
}

// A captured envelope under another type must not keep the real one out.
func TestQuarantineDoesNotBlockTheReal(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	body := payload("card_id", "c-1", "user_id", "anna", "otp", code)
	r, err := h.send("acme", "TRANSACTION_CREATED", body)
	if err != nil || r.Status != relay.Quarantined {
		t.Fatalf("a code under another type: %+v, %v", r, err)
	}
	h.quiet()
	h.wantPushes(nil)
	ev, err := h.store.Event(h.ctx, r.EventID)
	if err != nil || ev.Outcome != relay.OutcomeQuarantined || ev.Reason == "" || len(ev.Fields) != 3 {
		t.Errorf("its record is %+v, %v", ev, err)
	}
	own := h.downstream.to("own")
	if len(own) != 1 || own[0].Type != "relay.event.quarantined" || !strings.Contains(own[0].Data, r.EventID) || strings.Contains(own[0].Data, code) {
		t.Errorf("our own events are %+v", own)
	}
	if _, err := h.store.Owner(h.ctx, relay.Holder{Merchant: "acme", CardID: "c-1"}); !errors.Is(err, relay.ErrNotFound) {
		t.Errorf("what was not understood taught an owner: %v", err)
	}

	h.receive("CARD_3DS", body)
	h.wantPushes(map[int]int{1: 1})
}

// Whoever has captured an envelope can post it any number of times, under any type and
// with other members beside what is signed: that must not fill the quarantine, which
// holds whole bodies.
func TestCapturedEnvelopeIsQuarantinedOnce(t *testing.T) {
	h := newHarness(t, nil)
	body := payload("card_id", "c-1", "user_id", "anna", "otp", code)
	first, err := h.send("acme", "A", body)
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []string{"A", "B", "not a name"} {
		if r, err := h.send("acme", typ, body); err != nil || r != (relay.Receipt{Status: relay.Quarantined, EventID: first.EventID}) {
			t.Errorf("under %q: %+v, %v; want %s again", typ, r, err, first.EventID)
		}
	}
	if r, err := h.send("acme", "A", payload("card_id", "c-1", "user_id", "anna", "otp", "045436")); err != nil || r.EventID == first.EventID {
		t.Errorf("another event is taken for the same: %+v, %v", r, err)
	}
	h.quiet()
	held, _, err := h.Events(h.ctx, relay.EventFilter{Range: relay.Range{Limit: 10}, Outcome: relay.OutcomeQuarantined})
	if err != nil || len(held) != 2 {
		t.Errorf("%d are in quarantine, %v; want 2", len(held), err)
	}
	if own := h.downstream.to("own"); len(own) != 2 {
		t.Errorf("announced %d times, want 2", len(own))
	}
	if r, err := h.send("acme", "CARD_3DS", body); err != nil || r.Status != relay.Accepted {
		t.Errorf("the real one: %+v, %v", r, err)
	}
}

func TestExpiredOnArrival(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	id := h.receive("CARD_3DS", purchase("c-1", "occur_time", start.Add(-301*time.Second).UnixMilli()))
	h.pass(time.Hour)
	h.wantPushes(nil)
	h.wantOwn(id, "expired")
	if c := h.wantStatus(id, relay.Expired); c.Secret.Body != nil {
		t.Error("its body was kept")
	}
	if got := h.listed(anna, true); !slices.Equal(got, []string{id}) {
		t.Errorf("anna's list of all is %v", got)
	}
}

func TestUnassignedIsAdopted(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	id := h.receive("CARD_3DS", purchase("c-1", "user_id", nil))
	h.wantPushes(nil)
	h.wantOwn(id, "created", "unreachable")
	if _, err := h.Get(h.ctx, anna, id); !errors.Is(err, relay.ErrNotFound) {
		t.Errorf("anna loads what is nobody's: %v", err)
	}
	// A failed assignment teaches nothing.
	h.receive("CARD_ASSIGN_RESULT", payload("card_id", "c-1", "user_id", "berta", "status", "FAILED", "occur_time", start.UnixMilli()))
	h.wantPushes(nil)

	h.pass(10 * time.Second)
	h.receive("CARD_ASSIGN_RESULT", payload("card_id", "c-1", "user_id", "anna", "status", "SUCCESS", "occur_time", start.UnixMilli()))
	h.wantPushes(map[int]int{1: 1})
	h.wantOwn(id, "created", "unreachable") // nothing of it again
	if m := h.pusher.all()[0]; m.Challenge.ID != id || m.TTL != 290*time.Second {
		t.Errorf("pushed %+v with TTL %v", m.Challenge, m.TTL)
	}
	if got := h.listed(anna, false); !slices.Equal(got, []string{id}) {
		t.Errorf("anna's list is %v", got)
	}
	// The next one is hers at once, and a later lesson does not take the first.
	next := h.receive("CARD_3DS", purchase("c-1", "user_id", nil, "auth_id", "other"))
	h.pass(time.Second)
	h.receive("CARD_ASSIGN_RESULT", payload("card_id", "c-1", "user_id", "berta", "status", "SUCCESS", "occur_time", start.Add(time.Second).UnixMilli()))
	for _, c := range []string{id, next} {
		if owner := h.challenge(c).UserID; owner != "anna" {
			t.Errorf("%s is %q's, want anna's", c, owner)
		}
	}
}

// An event that does not say when it happened, withheld by the network or sent again
// when it is no duplicate any more, must not give the card back to whose it once was.
func TestCapturedEventMakesNobodyOwnerAgain(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.device(berta, 2)
	h.receive("CARD_ASSIGN_RESULT", payload("card_id", "c-1", "user_id", "berta"))
	h.pass(time.Minute)
	h.receive("CARD_ASSIGN_RESULT", payload("card_id", "c-1", "user_id", "anna", "occur_time", h.clock.Now().UnixMilli()))
	h.pass(time.Minute)
	h.receive("CARD_ACTIVATE_RESULT", payload("card_id", "c-1", "user_id", "berta", "status", "SUCCESS"))
	id := h.receive("CARD_3DS", payload("card_id", "c-1", "otp", code))
	if owner := h.challenge(id).UserID; owner != "anna" {
		t.Errorf("the code is %s's, want anna's", owner)
	}
	h.wantPushes(map[int]int{1: 1})
}

// The card's owner becomes known after the challenge has arrived, and before it
// is announced: its devices ring once.
func TestAdoptedBeforeItIsAnnounced(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.store.holding(relay.KindAnnounce)
	h.receive("CARD_3DS", purchase("c-1", "user_id", nil))
	h.receive("CARD_ASSIGN_RESULT", payload("card_id", "c-1", "user_id", "anna", "status", "SUCCESS"))
	h.wantPushes(nil)
	h.store.release()
	h.quiet()
	h.wantPushes(map[int]int{1: 1})
}

// The same, while the step that announces it is under way.
func TestAdoptedWhileItIsAnnounced(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	planned, proceed := h.store.first(relay.KindAnnounce)
	id := h.accepted("CARD_3DS", purchase("c-1", "user_id", nil))
	within(t, planned)
	h.accepted("CARD_ASSIGN_RESULT", payload("card_id", "c-1", "user_id", "anna", "status", "SUCCESS"))
	h.store.awaitSettled(t, relay.KindLearn, 1)
	proceed()
	h.quiet()
	h.wantPushes(map[int]int{1: 1})
	h.wantOwn(id, "created")
}

func TestOperatorsOwnerWins(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.device(berta, 2)
	card := relay.Holder{Merchant: "acme", CardID: "c-1"}
	waiting := h.receive("CARD_3DS", purchase("c-1", "user_id", nil))
	if err := h.store.SetOwner(h.ctx, card, relay.Owner{UserID: "berta", At: start, ByOperator: true}); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	h.wantPushes(map[int]int{2: 1})
	h.pusher.clear()

	named := h.receive("CARD_3DS", purchase("c-1", "auth_id", "second", "occur_time", start.Add(time.Hour).UnixMilli())) // says anna
	h.wantPushes(map[int]int{2: 1})
	for _, id := range []string{waiting, named} {
		if owner := h.challenge(id).UserID; owner != "berta" {
			t.Errorf("%s is %q's, want berta's", id, owner)
		}
	}
	if o, err := h.store.Owner(h.ctx, card); err != nil || o.UserID != "berta" || !o.ByOperator {
		t.Errorf("the owner is %+v, %v", o, err)
	}
}

func TestSuperseded(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	older := h.receive("CARD_3DS", purchase("c-1", "amount", "10.00"))
	h.pass(time.Second)
	otherCard := h.receive("CARD_3DS", purchase("c-2", "auth_id", "ref-c-1"))
	otherRef := h.receive("CARD_3DS", purchase("c-1", "auth_id", "else"))
	h.pusher.clear()

	newer := h.receive("CARD_3DS", purchase("c-1", "amount", "20.00"))
	h.wantStatus(newer, relay.Pending)
	h.wantStatus(otherCard, relay.Pending)
	h.wantStatus(otherRef, relay.Pending)
	if c := h.wantStatus(older, relay.Cancelled); c.Note == "" {
		t.Error("nothing says why it was cancelled")
	}
	h.wantOwn(older, "cancelled", "created")
	_, err := h.Decide(h.ctx, anna, older, approve())
	refused(t, err, relay.CodeCancelled)

	h.wantPushes(map[int]int{1: 2})
	for _, m := range h.pusher.all() {
		if want := map[string]string{older: "cancelled", newer: "pending"}[m.Challenge.ID]; m.Challenge.Status != want {
			t.Errorf("pushed %s as %q, want %q", m.Challenge.ID, m.Challenge.Status, want)
		}
	}
	// A retry of what happened earlier does not replace what happened later.
	late := h.receive("CARD_3DS", purchase("c-1", "amount", "5.00", "occur_time", start.Add(-time.Minute).UnixMilli()))
	h.wantStatus(late, relay.Cancelled)
	h.wantStatus(newer, relay.Pending)
}

func TestCardNumberAsCardID(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	id := h.receive("CARD_3DS", purchase(pan, "auth_id", "ref"))
	c := h.challenge(id)
	if !strings.HasPrefix(c.CardID, "pan_") || c.Last4 != "1111" {
		t.Errorf("the card is %q, ····%s", c.CardID, c.Last4)
	}
	if got := h.listed(anna, false); !slices.Equal(got, []string{id}) {
		t.Errorf("anna's list is %v", got)
	}
	for _, f := range h.downstream.all() {
		if strings.Contains(f.Data, pan) {
			t.Errorf("%s holds the card number", f.Type)
		}
	}
	if m := h.pusher.all(); len(m) != 1 || strings.Contains(m[0].Raw, pan) {
		t.Error("the push holds the card number")
	}
	// The issuer knows no token of ours.
	if _, err := h.Decide(h.ctx, anna, id, approve()); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	if got := h.issuer.confirms(id); len(got) != 1 || got[0].CardID != pan {
		t.Errorf("the issuer was asked %d times", len(got))
	}
}

func TestPaging(t *testing.T) {
	h := newHarness(t, nil)
	var want []string // newest first
	for i := range 7 {
		id := h.receive("CARD_3DS", purchase(fmt.Sprintf("c-%d", i%3), "auth_id", fmt.Sprint(i)))
		want = append([]string{id}, want...)
		if i%2 == 0 {
			if _, err := h.Decide(h.ctx, anna, id, reject("")); err != nil {
				t.Fatal(err)
			}
		}
		h.clock.Advance(time.Millisecond)
	}
	var got []string
	cursor := ""
	for page := 0; page == 0 || cursor != ""; page++ {
		p, err := h.List(h.ctx, anna, true, 2, cursor)
		if err != nil || len(p.Challenges) > 2 || page > 4 {
			t.Fatalf("page %d: %d challenges, %v", page, len(p.Challenges), err)
		}
		for _, c := range p.Challenges {
			got = append(got, c.ID)
		}
		cursor = p.Next
	}
	if !slices.Equal(got, want) {
		t.Errorf("the pages hold\n%v, want\n%v", got, want)
	}
	if got := h.listed(anna, false); len(got) != 3 {
		t.Errorf("pending are %d, want 3", len(got))
	}
	for _, wrong := range []string{"x", "!", "AAAA", strings.Repeat("A", 4096)} {
		_, err := h.List(h.ctx, anna, true, 2, wrong)
		refused(t, err, relay.CodeInvalidRequest)
	}
	h.pass(301 * time.Second)
	if got := h.listed(anna, false); len(got) != 0 {
		t.Errorf("pending after their expiry: %v", got)
	}
}
