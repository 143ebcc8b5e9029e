package relay_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"approvalrelay/push"
	"approvalrelay/relay"
)

// rung are the challenges that one browser was told of, in order.
func (h *harness) rung(n int) (ids []string) {
	for _, m := range h.pusher.to(n) {
		if m.Challenge.Status == "pending" {
			ids = append(ids, m.Challenge.ID)
		}
	}
	return ids
}

// When a card on which many challenges wait gets its owner, the newest ring: who
// waits in front of a shop waits for one of these.
func TestNewestOfManyThatWaitedRing(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	var waiting []string
	for i := range 50 {
		waiting = append(waiting, h.accepted("CARD_3DS", purchase("c-1", "user_id", nil, "auth_id", fmt.Sprint(i), "amount", fmt.Sprint(i+1))))
		h.clock.Advance(time.Second)
	}
	h.quiet()
	h.wantPushes(nil)
	h.receive("CARD_ASSIGN_RESULT", payload("card_id", "c-1", "user_id", "anna", "status", "SUCCESS"))
	got := h.rung(1)
	slices.Sort(got)
	if want := waiting[45:]; !slices.Equal(got, want) {
		t.Errorf("it rings for %v, want the newest %v", got, want)
	}
	if list := h.listed(anna, false); len(list) != 50 {
		t.Errorf("%d are listed, want all", len(list))
	}
	if c := h.challenge(waiting[0]); !strings.Contains(c.Silence, "push.per_card_limit") {
		t.Errorf("the oldest is silent because %q", c.Silence)
	}
	h.wantOwn(waiting[0], "created", "unreachable") // before anybody knew whose it was, and not again
	// They count from now on: the next one is listed.
	h.pusher.clear()
	h.receive("CARD_3DS", purchase("c-1", "auth_id", "next", "amount", "99"))
	h.wantPushes(nil)
}

// Challenges that ask the same share one notification, which leads to the newest.
func TestIdenticalChallengesShareANotification(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.device(anna, 2)
	next := func(pairs ...any) string {
		h.clock.Advance(time.Second)
		return h.receive("CARD_3DS", purchase("c-1", append([]any{"auth_id", h.clock.Now().String()}, pairs...)...))
	}
	first := next()
	h.pusher.clear()
	second, third := next(), next("amount", "50.0")
	h.wantPushes(map[int]int{1: 2, 2: 2})
	for _, m := range h.pusher.all() {
		if m.Notification.Tag != first || m.Topic != push.Topic(first) || m.Challenge.ID == first || !strings.Contains(m.Raw, "#/challenges/"+m.Challenge.ID) {
			t.Errorf("pushed is %s under tag %s, topic %s; want those of %s", m.Challenge.ID, m.Notification.Tag, m.Topic, first)
		}
	}
	h.pusher.clear()
	other := next("amount", "51.00")
	if m := h.pusher.to(1); len(m) != 1 || m[0].Notification.Tag != other || m[0].Topic != push.Topic(other) {
		t.Errorf("another amount is pushed as %+v, want one of its own", m)
	}
	if got := h.listed(anna, false); !slices.Equal(got, []string{other, third, second, first}) {
		t.Errorf("listed are %v, want all", got)
	}

	// The notification stays while the newest waits, whatever becomes of the others.
	h.pusher.clear()
	for _, id := range []string{first, second} {
		if _, err := h.Decide(h.ctx, anna, id, reject("")); err != nil {
			t.Fatal(err)
		}
	}
	h.quiet()
	h.wantPushes(nil)
	if _, err := h.Cancel(h.ctx, third); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	h.wantPushes(map[int]int{1: 1, 2: 1})
	for _, m := range h.pusher.all() {
		if m.Notification.Tag != first || m.Topic != push.Topic(first) || m.Challenge.ID != third || m.Challenge.Status != "cancelled" || !m.Notification.Silent {
			t.Errorf("the follow-up is %+v", m)
		}
	}
}

// The newest ends while an older one like it waits: that is told as always.
func TestNewestOfIdenticalOnesEndsFirst(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	older := h.receive("CARD_3DS", purchase("c-1"))
	h.pass(time.Second)
	newer := h.receive("CARD_3DS", purchase("c-1", "auth_id", "other"))
	h.pusher.clear()
	if _, err := h.Decide(h.ctx, anna, newer, reject("")); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	if m := h.pusher.to(1); len(m) != 1 || m[0].Challenge.ID != newer || m[0].Challenge.Status != "rejected" || m[0].Notification.Tag != older {
		t.Errorf("told is %+v", m)
	}
	h.wantStatus(older, relay.Pending)
	h.pusher.clear()
	third := h.receive("CARD_3DS", purchase("c-1", "auth_id", "third"))
	if m := h.pusher.to(1); len(m) != 1 || m[0].Challenge.ID != third || m[0].Notification.Tag != older {
		t.Errorf("the next one like it is %+v", m)
	}
}

// Those of a card that gets its owner are announced all at once, and share one
// notification all the same.
func TestIdenticalOnesThatWaitedShareANotification(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	for i := range 8 {
		h.receive("CARD_3DS", purchase("c-1", "user_id", nil, "auth_id", fmt.Sprint(i)))
		h.clock.Advance(time.Second)
	}
	h.receive("CARD_ASSIGN_RESULT", payload("card_id", "c-1", "user_id", "anna", "status", "SUCCESS"))
	tags := map[string]bool{}
	for _, m := range h.pusher.to(1) {
		tags[m.Notification.Tag] = true
	}
	if got := len(h.pusher.to(1)); got == 0 || got > 5 || len(tags) != 1 {
		t.Errorf("%d pushes under %d tags, want at most 5 under one", got, len(tags))
	}
}

// A push that is tried again does not bring an older challenge back over a newer one.
func TestRetryDoesNotReplaceANewerOne(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.pusher.will(func(pushed) push.Result { return push.Result{Verdict: push.Retry, StatusCode: 503} })
	older := h.receive("CARD_3DS", purchase("c-1"))
	h.pusher.will(nil)
	h.clock.Advance(500 * time.Millisecond)
	newer := h.receive("CARD_3DS", purchase("c-1", "auth_id", "other"))
	h.pass(5 * time.Second)
	h.pass(5 * time.Second)
	if got := h.rung(1); !slices.Equal(got, []string{older, newer}) { // the first one failed
		t.Errorf("tried are %v, want each once", got)
	}
}

// After "not me" nothing of the card rings any more, also not what was owed before:
// neither a push that is tried again nor one that has waited.
func TestNothingRingsAfterNotMe(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	reported := h.receive("CARD_3DS", purchase("c-1"))
	h.pusher.will(func(pushed) push.Result { return push.Result{Verdict: push.Retry, StatusCode: 503} })
	retried := h.receive("CARD_3DS", purchase("c-1", "auth_id", "retried", "amount", "1.00"))
	otherCard := h.receive("CARD_3DS", purchase("c-2"))
	h.store.holding(relay.KindPush)
	waiting := h.accepted("CARD_3DS", purchase("c-1", "auth_id", "waiting", "amount", "2.00"))
	h.store.awaitSettled(t, relay.KindAnnounce, 4)
	if _, err := h.Decide(h.ctx, anna, reported, reject(relay.ReasonNotMe)); err != nil {
		t.Fatal(err)
	}
	h.pusher.clear()
	h.pusher.will(nil)
	h.clock.Advance(2 * time.Second)
	h.store.release()
	h.quiet()
	h.pass(10 * time.Second)
	if got := h.rung(1); !slices.Equal(got, []string{otherCard}) {
		t.Errorf("it rings for %v, want the other card's %s alone", got, otherCard)
	}
	for _, id := range []string{retried, waiting} {
		if !slices.Contains(h.listed(anna, false), id) {
			t.Errorf("%s is not listed", id)
		}
	}
	h.wantOwn(waiting, "created") // she was told, by the one she has reported
}
