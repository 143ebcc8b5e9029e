package relay_test

import (
	"strings"
	"testing"
	"time"

	"approvalrelay/relay"
)

func (h *harness) subscriptions(u relay.User) []relay.Subscription {
	h.t.Helper()
	subs, err := h.Subscriptions(h.ctx, u)
	if err != nil {
		h.t.Fatal(err)
	}
	return subs
}

func TestActivation(t *testing.T) {
	h := newHarness(t, nil)
	id, code := h.subscribe(anna, 1)
	if m := h.pusher.to(1)[0]; m.TTL != 10*time.Minute || m.Notification.Silent || m.Notification.Title == "" {
		t.Errorf("the activation is %+v, TTL %v; want it visible", m.Notification, m.TTL)
	}
	refused(t, h.Activate(h.ctx, anna, id, "WRONG"), relay.CodeWrongCode)
	refused(t, h.Activate(h.ctx, berta, id, code), relay.CodeNotFound)
	if subs := h.subscriptions(anna); len(subs) != 1 || subs[0].Active {
		t.Errorf("before its activation: %+v", subs)
	}
	if err := h.Activate(h.ctx, anna, id, code); err != nil {
		t.Fatal(err)
	}
	if subs := h.subscriptions(anna); len(subs) != 1 || !subs[0].Active {
		t.Errorf("after its activation: %+v", subs)
	}

	// The same endpoint again is the same subscription, and nobody is disturbed.
	h.pusher.clear()
	sub, created, err := h.Subscribe(h.ctx, anna, endpoint(1), "Phone", "")
	h.quiet()
	if err != nil || created || sub.ID != id || !sub.Active || sub.Label != "Phone" {
		t.Errorf("the same again: %+v, created %v, %v", sub, created, err)
	}
	h.wantPushes(nil)

	// New keys have to be proved anew, and not by the old code.
	changed := endpoint(1)
	changed.Auth = "other"
	if sub, created, err = h.Subscribe(h.ctx, anna, changed, "", ""); err != nil || created || sub.ID != id || sub.Active {
		t.Errorf("new keys: %+v, created %v, %v", sub, created, err)
	}
	h.quiet()
	h.wantPushes(map[int]int{1: 1})
	refused(t, h.Activate(h.ctx, anna, id, code), relay.CodeWrongCode)
	if err := h.Activate(h.ctx, anna, id, h.pusher.to(1)[0].Activation.Code); err != nil {
		t.Errorf("the new code: %v", err)
	}
}

// A push that is still owed when the browser's keys change is for the former
// ones: who holds the new ones has proved nothing yet.
func TestNewKeysGetNothingBeforeTheyAreProved(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.store.holding(relay.KindPush)
	id := h.receive("CARD_3DS", purchase("c-1"))
	changed := endpoint(1)
	changed.P256dh = "other"
	if sub, _, err := h.Subscribe(h.ctx, anna, changed, "", ""); err != nil || sub.Active {
		t.Fatalf("new keys: %+v, %v", sub, err)
	}
	h.store.release()
	h.quiet()
	h.wantPushes(map[int]int{1: 1})
	if m := h.pusher.all()[0]; m.Activation.Code == "" || m.Challenge.ID != "" {
		t.Errorf("pushed is %+v, want the activation alone", m)
	}
	h.wantOwn(id, "created", "unreachable")
}

func TestFiveWrongCodes(t *testing.T) {
	h := newHarness(t, nil)
	id, code := h.subscribe(anna, 1)
	for range 5 {
		refused(t, h.Activate(h.ctx, anna, id, strings.Repeat("0", len(code))), relay.CodeWrongCode)
	}
	refused(t, h.Activate(h.ctx, anna, id, code), relay.CodeNotFound)
	if subs := h.subscriptions(anna); len(subs) != 0 {
		t.Errorf("left are %+v", subs)
	}
}

func TestActivationInTime(t *testing.T) {
	h := newHarness(t, nil)
	id, code := h.subscribe(anna, 1)
	h.pass(10 * time.Minute)
	refused(t, h.Activate(h.ctx, anna, id, code), relay.CodeNotFound)
	if subs := h.subscriptions(anna); len(subs) != 0 {
		t.Errorf("left are %+v", subs)
	}
}

func TestSubscriptionLimit(t *testing.T) {
	h := newHarness(t, nil) // at most 3
	for n := range 3 {
		h.device(anna, n)
		h.clock.Advance(time.Second)
	}
	if _, _, err := h.Subscribe(h.ctx, anna, endpoint(0), "", ""); err != nil { // used again
		t.Fatal(err)
	}
	h.clock.Advance(time.Second)
	h.device(anna, 3)
	h.receive("CARD_3DS", purchase("c-1"))
	h.wantPushes(map[int]int{0: 1, 2: 1, 3: 1})
}

// A browser that another user now signs in with must not show the former one's
// payments; and only who can read its pushes can take it over.
func TestEndpointChangesHands(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.device(anna, 2)
	id, code := h.subscribe(berta, 1)
	h.pusher.clear()
	h.receive("CARD_3DS", purchase("c-1"))
	h.wantPushes(map[int]int{1: 1, 2: 1}) // not proved yet

	if err := h.Activate(h.ctx, berta, id, code); err != nil {
		t.Fatal(err)
	}
	h.pusher.clear()
	h.receive("CARD_3DS", purchase("c-1", "auth_id", "next"))
	h.wantPushes(map[int]int{2: 1})
	h.pusher.clear()
	h.receive("CARD_3DS", purchase("c-2", "user_id", "berta"))
	h.wantPushes(map[int]int{1: 1})
	if subs := h.subscriptions(anna); len(subs) != 1 {
		t.Errorf("anna has %d subscriptions, want 1", len(subs))
	}
}

func TestTestPush(t *testing.T) {
	h := newHarness(t, nil)
	active := h.device(anna, 1)
	pending, _ := h.subscribe(anna, 2)
	h.pusher.clear()
	refused(t, h.TestPush(h.ctx, anna, pending), relay.CodeInvalidRequest)
	refused(t, h.TestPush(h.ctx, anna, "sub_x"), relay.CodeNotFound)
	refused(t, h.TestPush(h.ctx, berta, active), relay.CodeNotFound)
	h.quiet()
	h.wantPushes(nil)
	if err := h.TestPush(h.ctx, anna, active); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	h.wantPushes(map[int]int{1: 1})
	if m := h.pusher.all()[0]; m.TTL != time.Minute || m.Notification.Title == "" {
		t.Errorf("the test is %+v, TTL %v", m.Notification, m.TTL)
	}
}

func TestUnsubscribe(t *testing.T) {
	h := newHarness(t, nil)
	id := h.device(anna, 1)
	refused(t, h.Unsubscribe(h.ctx, berta, id), relay.CodeNotFound)
	if err := h.Unsubscribe(h.ctx, anna, id); err != nil {
		t.Fatal(err)
	}
	refused(t, h.Unsubscribe(h.ctx, anna, id), relay.CodeNotFound)
	c := h.receive("CARD_3DS", purchase("c-1"))
	h.wantPushes(nil)
	h.wantOwn(c, "created", "unreachable")
}

func TestWithoutPushKeys(t *testing.T) {
	h := newHarness(t, func(o *relay.Options) { o.Push.On = false })
	_, _, err := h.Subscribe(h.ctx, anna, endpoint(1), "", "")
	refused(t, err, relay.CodeNotConfigured)
	refused(t, h.TestPush(h.ctx, anna, "sub_x"), relay.CodeNotConfigured)
	id := h.receive("CARD_3DS", purchase("c-1"))
	h.wantPushes(nil)
	h.wantOwn(id, "created", "unreachable")
	if _, err := h.Decide(h.ctx, anna, id, approve()); err != nil {
		t.Errorf("approve: %v", err)
	}
}
