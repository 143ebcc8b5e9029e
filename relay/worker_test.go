package relay_test

import (
	"context"
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

func TestPerCardLimit(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	var last string
	for i := range 6 {
		last = h.receive("CARD_3DS", purchase("c-1", "auth_id", fmt.Sprint(i)))
		h.clock.Advance(time.Second)
	}
	h.wantPushes(map[int]int{1: 5})
	h.wantOwn(last, "created") // anna could be reached: she is spared
	if got := h.listed(anna, false); len(got) != 6 || got[0] != last {
		t.Errorf("anna's list is %v, want the silent one first", got)
	}
	h.pusher.clear()
	h.receive("CARD_3DS", purchase("c-2"))
	h.wantPushes(map[int]int{1: 1})

	h.pass(10 * time.Minute)
	h.pusher.clear()
	h.receive("CARD_3DS", purchase("c-1", "auth_id", "later"))
	h.wantPushes(map[int]int{1: 1})
}

// TestStaleOnesDoNotSilence: challenges that were over when they came, as after an
// outage or out of captured envelopes, do not count towards how many may ring.
func TestStaleOnesDoNotSilence(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.pusher.clear()
	for i := range 7 {
		h.wantStatus(h.receive("CARD_3DS", purchase("c-1", "auth_id", fmt.Sprint(i), "occur_time", start.Add(-time.Hour).UnixMilli())), relay.Expired)
	}
	h.clock.Advance(time.Second)
	live := h.receive("CARD_3DS", purchase("c-1", "auth_id", "live"))
	h.quiet()
	h.wantPushes(map[int]int{1: 1})
	if got := h.listed(anna, true); len(got) != 8 || got[0] != live {
		t.Errorf("anna's list is %v, want all eight", got)
	}
}

func TestUnreachable(t *testing.T) {
	for name, tc := range map[string]struct {
		devices int
		fail    func(n int) bool // the n-th browser takes nothing
		want    bool
	}{
		"no device":   {0, nil, true},
		"all failed":  {3, func(int) bool { return true }, true},
		"one reached": {3, func(n int) bool { return n != 2 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, nil)
			for n := range tc.devices {
				h.device(anna, n)
			}
			h.pusher.will(func(p pushed) push.Result {
				for n := range tc.devices {
					if p.To == endpoint(n).Endpoint && tc.fail(n) {
						return push.Result{Verdict: push.Fault, StatusCode: 403}
					}
				}
				return push.Result{StatusCode: 201}
			})
			id := h.receive("CARD_3DS", purchase("c-1"))
			want := []string{"created"}
			if tc.want {
				want = append(want, "unreachable")
			}
			h.wantOwn(id, want...)
			h.wantStatus(id, relay.Pending)
			h.pass(time.Minute)
			if got := len(h.pusher.all()); got != tc.devices {
				t.Errorf("%d pushes to %d devices: faults of ours are not tried again", got, tc.devices)
			}
		})
	}
}

func TestGoneSubscriptionIsRemoved(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	stays := h.device(anna, 2)
	h.pusher.will(func(p pushed) push.Result {
		if p.To == endpoint(1).Endpoint {
			return push.Result{Verdict: push.Gone, StatusCode: 410}
		}
		return push.Result{StatusCode: 201}
	})
	id := h.receive("CARD_3DS", purchase("c-1"))
	subs, err := h.Subscriptions(h.ctx, anna)
	if err != nil || len(subs) != 1 || subs[0].ID != stays {
		t.Fatalf("left are %d subscriptions, %v", len(subs), err)
	}
	h.pusher.clear()
	if _, err := h.Decide(h.ctx, anna, id, reject("")); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	h.wantPushes(map[int]int{2: 1})
	h.wantOwn(id, "created", "rejected")
}

func TestPushIsTriedAgain(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.pusher.will(func(pushed) push.Result {
		return push.Result{Verdict: push.Retry, StatusCode: 429, RetryAfter: 20 * time.Second}
	})
	id := h.receive("CARD_3DS", purchase("c-1"))
	h.wantOwn(id, "created", "unreachable") // at once, while there is time for other means
	h.pass(19 * time.Second)
	h.wantPushes(map[int]int{1: 1})
	h.pass(2 * time.Second)
	h.wantPushes(map[int]int{1: 2})
	if second := h.pusher.all()[1]; second.TTL != 279*time.Second || second.Topic != push.Topic(id) {
		t.Errorf("the second try has TTL %v, topic %q", second.TTL, second.Topic)
	}
	h.wantOwn(id, "created", "unreachable") // and once
	// Once it has ended it is not announced any more.
	if _, err := h.Decide(h.ctx, anna, id, reject("")); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	h.pusher.clear()
	h.pusher.will(nil)
	h.pass(59 * time.Second)
	h.wantPushes(map[int]int{1: 1})
	if m := h.pusher.all()[0]; m.Challenge.Status != "rejected" || !m.Notification.Silent {
		t.Errorf("after its end it is pushed as %+v", m)
	}
}

func TestEveryEndIsTold(t *testing.T) {
	const otp, approval = "otp", "approve"
	for want, tc := range map[relay.Status]struct {
		method string
		end    func(h *harness, id string) error
	}{
		relay.Expired:   {approval, func(h *harness, _ string) error { h.pass(300 * time.Second); return nil }},
		relay.Completed: {otp, func(h *harness, id string) error { _, err := h.Done(h.ctx, anna, id); return err }},
		relay.Cancelled: {approval, func(h *harness, id string) error { _, err := h.Cancel(h.ctx, id); return err }},
		relay.Rejected:  {otp, func(h *harness, id string) error { _, err := h.Decide(h.ctx, anna, id, reject("")); return err }},
	} {
		t.Run(string(want), func(t *testing.T) {
			h := newHarness(t, nil)
			h.device(anna, 1)
			body := purchase("c-1")
			if tc.method == otp {
				body["otp"] = code
			}
			id := h.receive("CARD_3DS", body)
			h.pusher.clear()
			if err := tc.end(h, id); err != nil {
				t.Fatal(err)
			}
			h.quiet()
			if c := h.wantStatus(id, want); c.Secret.Body != nil {
				t.Error("its body was kept")
			}
			h.wantPushes(map[int]int{1: 1})
			if m := h.pusher.all()[0]; m.Challenge.Status != string(want) || !m.Notification.Silent || m.TTL != time.Minute {
				t.Errorf("the follow-up is %+v, TTL %v", m, m.TTL)
			}
			h.wantOwn(id, "created", string(want))
			if got := h.issuer.all(); len(got) != 0 {
				t.Errorf("the issuer was asked %+v", got)
			}
			h.pass(time.Hour)
			h.wantPushes(map[int]int{1: 1})
		})
	}
}

func TestRevealAndDone(t *testing.T) {
	for name, tc := range map[string]struct {
		field, value string
		want         relay.Revealed
	}{
		"code": {"otp", code, relay.Revealed{OTP: code}},
		"link": {"auth_url", link, relay.Revealed{URL: link}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, nil)
			id := h.receive("CARD_3DS", payload("card_id", "c-1", "user_id", "anna", tc.field, tc.value))
			for range 2 {
				if got, err := h.Reveal(h.ctx, anna, id); err != nil || got != tc.want {
					t.Fatalf("reveal: right %v, %v", got == tc.want, err)
				}
				h.pass(time.Second)
			}
			if c := h.wantStatus(id, relay.Pending); !c.RevealedAt.Equal(start) {
				t.Errorf("revealed at %v, want the first time", c.RevealedAt)
			}
			_, err := h.Reveal(h.ctx, berta, id)
			refused(t, err, relay.CodeNotFound)
			_, err = h.Decide(h.ctx, anna, id, approve())
			refused(t, err, relay.CodeWrongMethod)

			for range 2 {
				if c, err := h.Done(h.ctx, anna, id); err != nil || c.Status != relay.Completed {
					t.Errorf("done: %s, %v", c.Status, err)
				}
			}
			if c := h.challenge(id); c.Secret.Body != nil || c.Secret.Envelope != nil {
				t.Error("its body was kept")
			}
			_, err = h.Reveal(h.ctx, anna, id)
			refused(t, err, relay.CodeAlreadyDecided)
		})
	}
}

func TestRevealedAndLapsed(t *testing.T) {
	h := newHarness(t, nil)
	h.store.holding(relay.KindExpire) // as if nobody swept
	id := h.receive("CARD_3DS", payload("card_id", "c-1", "user_id", "anna", "otp", code))
	unread := h.receive("CARD_3DS", payload("card_id", "c-2", "user_id", "anna", "otp", code))
	if _, err := h.Reveal(h.ctx, anna, id); err != nil {
		t.Fatal(err)
	}
	h.pass(300 * time.Second)
	if pending, all := h.listed(anna, false), h.listed(anna, true); len(pending) != 0 || len(all) != 2 {
		t.Errorf("pending are %v, all %v", pending, all)
	}
	for c, want := range map[string]relay.Status{id: relay.Completed, unread: relay.Expired} {
		if got, err := h.Get(h.ctx, anna, c); err != nil || got.Status != want {
			t.Errorf("it shows as %s, %v; want %s", got.Status, err, want)
		}
		_, err := h.Reveal(h.ctx, anna, c)
		refused(t, err, relay.CodeExpired)
	}
	h.store.release()
	h.quiet()
	if c := h.wantStatus(id, relay.Completed); c.Secret.Body != nil {
		t.Error("its body was kept")
	}
	h.wantStatus(unread, relay.Expired)
	h.wantOwn(id, "created", "unreachable", "completed")
	h.wantOwn(unread, "created", "unreachable", "expired")
}

func TestActionToken(t *testing.T) {
	h := newHarness(t, nil)
	phone := h.device(anna, 1)
	laptop := h.device(anna, 2)
	id := h.receive("CARD_3DS", purchase("c-1"))
	token := func(n int) string { return h.pusher.to(n)[0].Challenge.ActionToken }
	u, c, sub, err := h.ActionUser(h.ctx, token(1))
	if err != nil || u != anna || c != id || sub != phone {
		t.Fatalf("the token is %v's for %s from %s, %v", u, c, sub, err)
	}
	void := func(why, token string) {
		t.Helper()
		if _, _, _, err := h.ActionUser(h.ctx, token); !errors.Is(err, crypto.ErrToken) {
			t.Errorf("%s: %v", why, err)
		}
	}
	void("another device's signature", token(1)[:len(token(1))-4]+"AAAA")
	if err := h.Unsubscribe(h.ctx, anna, laptop); err != nil {
		t.Fatal(err)
	}
	void("its subscription is gone", token(2))
	phoneToken := token(1)
	if _, err := h.Decide(h.ctx, anna, id, reject("")); err != nil {
		t.Fatal(err)
	}
	void("its challenge has ended", phoneToken)

	h.quiet()
	h.pusher.clear()
	h.receive("CARD_3DS", purchase("c-2"))
	next := token(1)
	h.pass(300 * time.Second)
	void("it has expired", next)

	h.pusher.clear()
	h.receive("CARD_3DS", purchase("c-3"))
	changed := endpoint(1)
	changed.Auth = "other"
	if _, _, err := h.Subscribe(h.ctx, anna, changed, "", ""); err != nil {
		t.Fatal(err)
	}
	void("its subscription has new keys", token(1))
}

func TestActionTokenCanBeOff(t *testing.T) {
	h := newHarness(t, func(o *relay.Options) { o.Push.ActionToken = false })
	h.device(anna, 1)
	h.receive("CARD_3DS", purchase("c-1"))
	h.wantPushes(map[int]int{1: 1})
	if raw := h.pusher.all()[0].Raw; strings.Contains(raw, "rat_") {
		t.Error("the push carries a token")
	}
}

// A watcher hears of every change of its user's challenges, and of no other.
func TestWatch(t *testing.T) {
	h := newHarness(t, nil)
	mine, others := h.Watch(anna), h.Watch(berta)
	defer mine.Close()
	defer others.Close()
	id := h.receive("CARD_3DS", purchase("c-1"))
	for seen := false; !seen; {
		select {
		case c := <-mine.Changed:
			seen = c == id
		case <-mine.Missed: // the subscription to the store began only now
			seen = slices.Contains(h.listed(anna, false), id)
		}
	}
	select {
	case c := <-others.Changed:
		t.Errorf("berta hears of %s", c)
	default:
	}
}

func TestShutdownFinishesWhatIsUnderWay(t *testing.T) {
	h := newHarness(t, nil)
	id := h.receive("CARD_3DS", purchase("c-1"))
	asking, answer := make(chan struct{}), make(chan struct{})
	h.issuer.will(func(asked) relay.Outcome {
		close(asking)
		<-answer
		return relay.Outcome{Attempt: relay.Attempt{StatusCode: 200}}
	})
	decided := make(chan answered, 1)
	ctx, leave := context.WithCancel(h.ctx)
	go func() {
		c, err := h.Decide(ctx, anna, id, approve())
		decided <- answered{c, err}
	}()
	within(t, asking)
	stopped := make(chan struct{})
	go func() { h.stop(); close(stopped) }()
	close(answer)
	within(t, stopped)
	h.wantStatus(id, relay.Approved)
	leave()
	if a := within(t, decided); a.err != nil {
		t.Errorf("decide: %v", a.err)
	}
}

// One delivery that makes the worker panic takes nothing else down, and is tried
// again later.
func TestPanicIsContained(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.device(berta, 2)
	panicked := h.logs.next("the worker panicked")
	h.pusher.will(func(p pushed) push.Result {
		if p.To == endpoint(1).Endpoint {
			panic("the code is " + code)
		}
		return push.Result{StatusCode: 201}
	})
	h.accepted("CARD_3DS", purchase("c-1"))
	within(t, panicked)
	h.receive("CARD_3DS", purchase("c-2", "user_id", "berta"))
	if got := len(h.pusher.to(2)); got != 1 {
		t.Errorf("berta got %d pushes", got)
	}
	before := len(h.pusher.to(1))
	h.pusher.will(nil)
	h.pass(10 * time.Second)
	if got := len(h.pusher.to(1)) - before; got != 1 {
		t.Errorf("anna got %d pushes when the fault was gone, want 1", got)
	}
}

// A challenge that a newer version wrote is left to the nodes that know it: this
// one says so, and neither loses nor spoils what is owed.
func TestNewerRecordIsLeft(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.store.holding(relay.KindAnnounce)
	id := h.accepted("CARD_3DS", purchase("c-1"))
	h.store.unload(id, relay.ErrNewer)
	said := h.logs.next("a newer version of the relay wrote this")
	h.store.release()
	within(t, said)
	if _, err := h.Decide(h.ctx, anna, id, approve()); !errors.Is(err, relay.ErrNewer) {
		t.Errorf("decide: %v, want ErrNewer", err)
	}
	h.quiet()
	h.store.unload(id, nil) // as a node of that version reads it
	h.pass(10 * time.Second)
	if got := len(h.pusher.to(1)); got != 1 {
		t.Errorf("pushed %d times, want once", got)
	}
	h.wantStatus(id, relay.Pending)
}

// An attempt is logged and counted once, also if its challenge was forgotten
// meanwhile.
func TestAttemptOfAForgottenChallengeIsToldOnce(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.pusher.will(func(p pushed) push.Result {
		h.store.unload(p.Challenge.ID, relay.ErrNotFound)
		return push.Result{Verdict: push.Fault, StatusCode: 403}
	})
	id := h.receive("CARD_3DS", purchase("c-1"))
	told := 0
	for line := range strings.Lines(h.logs.String()) {
		if strings.Contains(line, `"msg":"delivery"`) && strings.Contains(line, `"kind":"push"`) && strings.Contains(line, id) {
			told++
		}
	}
	if told != 1 {
		t.Errorf("one attempt is logged %d times", told)
	}
}
