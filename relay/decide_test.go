package relay_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"approvalrelay/push"
	"approvalrelay/relay"
)

// answered is what Decide returned.
type answered struct {
	c   relay.Challenge
	err error
}

// decide answers in the background and returns when the decision is stored; the
// outcome is not waited for.
func (h *harness) decide(u relay.User, id string, d relay.Decision) relay.Challenge {
	h.t.Helper()
	ctx, leave := context.WithCancel(h.ctx)
	defer leave()
	done := make(chan answered, 1)
	go func() {
		c, err := h.Decide(ctx, u, id, d)
		done <- answered{c, err}
	}()
	h.store.awaitStored(h.t, id, relay.Confirming)
	h.quiet()
	leave()
	a := within(h.t, done)
	if a.err != nil {
		h.t.Fatalf("decide: %v", a.err)
	}
	return a.c
}

func TestApprove(t *testing.T) {
	h := newHarness(t, nil)
	phone := h.device(anna, 1)
	h.device(anna, 2)
	id := h.receive("CARD_3DS", purchase("c-1"))
	h.pusher.clear()

	amount := "50"
	c, err := h.Decide(h.ctx, anna, id, relay.Decision{Action: relay.Approve, Device: relay.Device{SubscriptionID: phone, IP: "192.0.2.1"}, Shown: &relay.Shown{Amount: &amount}})
	if err != nil || c.Status != relay.Approved {
		t.Fatalf("approve: %s, %v", c.Status, err)
	}
	h.quiet()
	stored := h.wantStatus(id, relay.Approved)
	if stored.Secret.Body != nil || stored.Decision.Device.IP != "192.0.2.1" || *stored.Decision.Shown.Amount != "50" {
		t.Errorf("stored is %+v", stored)
	}
	want := asked{"confirm", "acme", id, "c-1", "anna", "ref-c-1", relay.Approve,
		`{"amount":"50.00","auth_id":"ref-c-1","card_id":"c-1","currency":"USD","merchant_name":"Shop","user_id":"anna"}`}
	if got := h.issuer.all(); !slices.Equal(got, []asked{want}) {
		t.Errorf("the issuer was asked\n%+v, want\n%+v", got, want)
	}
	h.wantOwn(id, "created", "approved")

	// The device that decided hears nothing more.
	h.wantPushes(map[int]int{2: 1})
	m := h.pusher.all()[0]
	if m.Challenge.Status != "approved" || !m.Notification.Silent || m.TTL != time.Minute || m.Topic != push.Topic(id) || m.Notification.Tag != id || m.Challenge.ActionToken != "" {
		t.Errorf("the follow-up is %+v", m)
	}
}

func TestRejectIsConfirmedToo(t *testing.T) {
	h := newHarness(t, nil)
	id := h.receive("CARD_3DS", purchase("c-1"))
	if c, err := h.Decide(h.ctx, anna, id, reject("cancelled")); err != nil || c.Status != relay.Rejected {
		t.Fatalf("reject: %s, %v", c.Status, err)
	}
	h.quiet()
	if got := h.issuer.all(); len(got) != 1 || got[0].What != "confirm" || got[0].Action != relay.Reject {
		t.Errorf("the issuer was asked %+v", got)
	}
	h.wantOwn(id, "created", "unreachable", "rejected")
}

func TestNotMe(t *testing.T) {
	for name, body := range map[string]map[string]any{
		"approve": purchase("c-1"),
		"code":    payload("card_id", "c-1", "user_id", "anna", "auth_id", "ref-c-1", "otp", code),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, nil)
			h.device(anna, 1)
			id := h.receive("CARD_3DS", body)
			if c, err := h.Decide(h.ctx, anna, id, reject(relay.ReasonNotMe)); err != nil || c.Status != relay.Rejected {
				t.Fatalf("reject: %s, %v", c.Status, err)
			}
			h.quiet()
			h.wantOwn(id, "created", "rejected", "reported")
			var whats []string
			for _, a := range h.issuer.all() {
				whats = append(whats, a.What)
				if a.CardID != "c-1" || a.UserID != "anna" || a.ChallengeID != id || strings.Contains(a.Payload, code) {
					t.Errorf("the issuer was asked %+v", a)
				}
			}
			slices.Sort(whats)
			want := []string{"confirm", "lock"}
			if name == "code" {
				want = []string{"lock"} // nobody waits for an answer to a code
			}
			if !slices.Equal(whats, want) {
				t.Errorf("the issuer was asked to %v, want %v", whats, want)
			}

			// Nothing of this card rings for a while, but it is listed.
			h.pusher.clear()
			muted := h.receive("CARD_3DS", purchase("c-1", "auth_id", "next"))
			other := h.receive("CARD_3DS", purchase("c-2"))
			h.wantPushes(map[int]int{1: 1})
			h.wantOwn(muted, "created")
			if got := h.listed(anna, false); !slices.Contains(got, muted) || !slices.Contains(got, other) {
				t.Errorf("anna's list is %v", got)
			}
		})
	}
}

func TestOppositeDecisions(t *testing.T) {
	h := newHarness(t, nil)
	for round := range 50 {
		id := h.accepted("CARD_3DS", purchase(fmt.Sprintf("c-%d", round)))
		results := make([]answered, 2)
		var both sync.WaitGroup
		for i, d := range []relay.Decision{approve(), reject("")} {
			both.Go(func() {
				c, err := h.Decide(h.ctx, anna, id, d)
				results[i] = answered{c, err}
			})
		}
		both.Wait()
		winner, loser := results[0], results[1]
		action, status := relay.Approve, relay.Approved
		if winner.err != nil {
			winner, loser = loser, winner
			action, status = relay.Reject, relay.Rejected
		}
		if winner.err != nil || winner.c.Status != status {
			t.Fatalf("round %d: the winner is %s, %v", round, winner.c.Status, winner.err)
		}
		refused(t, loser.err, relay.CodeAlreadyDecided)
		if got := h.issuer.confirms(id); len(got) != 1 || got[0].Action != action {
			t.Fatalf("round %d: %s won, the issuer was told %+v", round, action, got)
		}
		h.wantStatus(id, status)
	}
	h.quiet()
	if got := h.issuer.all(); len(got) != 50 {
		t.Errorf("%d confirms of 50 challenges", len(got))
	}
}

func TestSameDecisionAgain(t *testing.T) {
	h := newHarness(t, nil)
	id := h.receive("CARD_3DS", purchase("c-1"))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if c, err := h.Decide(h.ctx, anna, id, approve()); err != nil || c.Status != relay.Approved {
				t.Errorf("approve: %s, %v", c.Status, err)
			}
		})
	}
	all.Wait()
	h.pass(time.Hour)
	if c, err := h.Decide(h.ctx, anna, id, approve()); err != nil || c.Status != relay.Approved {
		t.Errorf("approve an hour later: %s, %v", c.Status, err)
	}
	if got := h.issuer.confirms(id); len(got) != 1 {
		t.Errorf("%d confirms, want one", len(got))
	}
	h.wantOwn(id, "created", "unreachable", "approved")
}

func TestShownMustBeEchoed(t *testing.T) {
	h := newHarness(t, func(o *relay.Options) { o.RequireShown = true })
	id := h.receive("CARD_3DS", purchase("c-1"))
	text := func(s string) *string { return &s }
	for _, tc := range []struct {
		shown *relay.Shown
		want  relay.Code
	}{
		{nil, relay.CodeInvalidRequest},
		{&relay.Shown{Amount: text("50.00"), Currency: text("USD"), Payee: text("Shop 2")}, relay.CodeShownMismatch},
	} {
		_, err := h.Decide(h.ctx, anna, id, relay.Decision{Action: relay.Approve, Shown: tc.shown})
		refused(t, err, tc.want)
	}
	h.quiet()
	if c := h.wantStatus(id, relay.Pending); c.Decision != nil || len(h.issuer.all()) != 0 {
		t.Errorf("decided %+v", c.Decision)
	}
	right := &relay.Shown{Amount: text("50"), Currency: text("USD"), Payee: text("Shop")}
	if c, err := h.Decide(h.ctx, anna, id, relay.Decision{Action: relay.Approve, Shown: right}); err != nil || c.Status != relay.Approved {
		t.Errorf("approve: %s, %v", c.Status, err)
	}
}

// Every write is done, and its first answer is lost on the way: whoever repeats
// it does no harm.
func TestAnswersOfTheStoreAreLost(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	h.device(anna, 2)
	h.store.losing()
	body := purchase("c-1")
	if _, err := h.send("acme", "CARD_3DS", body); !errors.Is(err, relay.ErrUnavailable) {
		t.Fatalf("the webhook: %v", err)
	}
	if r, err := h.send("acme", "CARD_3DS", body); err != nil || r.Status != relay.Duplicate {
		t.Fatalf("the webhook again: %+v, %v", r, err)
	}
	h.quiet()
	h.wantPushes(map[int]int{1: 1, 2: 1})
	id := h.listed(anna, false)[0]
	if _, err := h.Decide(h.ctx, anna, id, approve()); !errors.Is(err, relay.ErrUnavailable) {
		t.Fatalf("approve: %v", err)
	}
	if c, err := h.Decide(h.ctx, anna, id, approve()); err != nil || c.Status != relay.Approved {
		t.Errorf("approve again: %s, %v", c.Status, err)
	}
	h.quiet()
	h.wantPushes(map[int]int{1: 2, 2: 2})
	h.wantOwn(id, "created", "approved")
	if got := h.issuer.all(); len(got) != 1 {
		t.Errorf("the issuer was asked %+v", got)
	}
}

func TestOthersCannotDecide(t *testing.T) {
	h := newHarness(t, nil)
	id := h.receive("CARD_3DS", purchase("c-1"))
	nobodys := h.receive("CARD_3DS", purchase("c-2", "user_id", nil))
	for _, u := range []relay.User{berta, {Merchant: "other", ID: "anna"}, {Merchant: "acme"}} {
		for _, c := range []string{id, nobodys, "chl_x", strings.Replace(id, "chl_", "evt_", 1)} {
			_, err := h.Decide(h.ctx, u, c, approve())
			if r, ok := errors.AsType[*relay.Refusal](err); !ok || r != relay.ErrNotFound {
				t.Errorf("%v decides about %s: %v; want the same words for all", u, c, err)
			}
		}
	}
	h.wantStatus(id, relay.Pending)
	h.wantStatus(nobodys, relay.Pending)
}

func TestIssuerRefuses(t *testing.T) {
	h := newHarness(t, nil)
	h.issuer.will(func(asked) relay.Outcome {
		return relay.Outcome{Verdict: relay.Refused, Attempt: relay.Attempt{StatusCode: 400, Response: "card " + pan}}
	})
	id := h.receive("CARD_3DS", purchase("c-1"))
	c, err := h.Decide(h.ctx, anna, id, approve())
	if err != nil || c.Status != relay.Failed || c.Failure == nil || c.Failure.Code != relay.IssuerRefused {
		t.Fatalf("approve: %s, %+v, %v", c.Status, c.Failure, err)
	}
	h.quiet()
	h.wantOwn(id, "created", "unreachable", "failed")
	if got := h.issuer.confirms(id); len(got) != 1 {
		t.Errorf("%d confirms, want one", len(got))
	}
	dead := h.deadLetters()
	if len(dead) != 1 || dead[0].Kind != relay.KindConfirm || len(dead[0].Attempts) != 1 || strings.Contains(dead[0].Attempts[0].Response, pan) {
		t.Errorf("the dead letters are %+v", dead)
	}
}

func (h *harness) deadLetters() (all []relay.Delivery) {
	h.t.Helper()
	for p := range h.store.Partitions() {
		list, err := h.store.DeadLetters(h.ctx, p, 100)
		if err != nil {
			h.t.Fatal(err)
		}
		all = append(all, list...)
	}
	return all
}

// An issuer that never says yes: the decision is tried until the challenge's
// expiry, always under the same id, and then fails.
func TestIssuerAwayUntilExpiry(t *testing.T) {
	for verdict, want := range map[relay.Verdict]relay.FailureCode{relay.TryAgain: relay.IssuerUnreachable, relay.Unclear: relay.FailureUnknown} {
		t.Run(string(want), func(t *testing.T) {
			h := newHarness(t, nil)
			var late bool
			h.issuer.will(func(asked) relay.Outcome {
				late = late || !h.clock.Now().Before(start.Add(300*time.Second))
				return relay.Outcome{Verdict: verdict, Attempt: relay.Attempt{Error: "no answer"}}
			})
			id := h.receive("CARD_3DS", purchase("c-1"))
			if c := h.decide(anna, id, approve()); c.Status != relay.Confirming {
				t.Fatalf("approve: %s", c.Status)
			}
			if got := h.listed(anna, false); !slices.Equal(got, []string{id}) {
				t.Errorf("the pending list is %v, want what is being confirmed in it", got)
			}
			for range 10 {
				h.pass(30 * time.Second)
			}
			h.pass(5 * time.Second)
			c := h.wantStatus(id, relay.Failed)
			if c.Failure == nil || c.Failure.Code != want || c.Secret.Body != nil {
				t.Errorf("failed with %+v, want %s", c.Failure, want)
			}
			calls := h.issuer.confirms(id)
			if len(calls) < 9 || len(h.issuer.all()) != len(calls) || late {
				t.Errorf("%d confirms of it, %d in all, one after the expiry: %v", len(calls), len(h.issuer.all()), late)
			}
			for _, call := range calls {
				if call != calls[0] {
					t.Errorf("one try says %+v, another %+v", calls[0], call)
				}
			}
			h.wantOwn(id, "created", "unreachable", "failed")
			_, err := h.Decide(h.ctx, anna, id, reject(""))
			refused(t, err, relay.CodeAlreadyDecided)
		})
	}
}

// The device that decided has closed its page by the time the decision comes to
// nothing.
func TestFailureIsToldToTheDeviceThatDecided(t *testing.T) {
	h := newHarness(t, nil)
	phone := h.device(anna, 1)
	h.issuer.will(func(asked) relay.Outcome { return relay.Outcome{Verdict: relay.TryAgain} })
	id := h.receive("CARD_3DS", purchase("c-1"))
	h.pusher.clear()
	h.decide(anna, id, relay.Decision{Action: relay.Approve, Device: relay.Device{SubscriptionID: phone}})
	h.pass(300 * time.Second)
	h.pass(5 * time.Second)
	h.wantStatus(id, relay.Failed)
	h.wantPushes(map[int]int{1: 1})
	if got := h.pusher.all()[0].Challenge.Status; got != "failed" {
		t.Errorf("it was told %q, want failed", got)
	}
}

func TestIssuerComesBack(t *testing.T) {
	h := newHarness(t, nil)
	tries := 0
	h.issuer.will(func(asked) relay.Outcome {
		if tries++; tries < 3 {
			return relay.Outcome{Verdict: relay.Unclear}
		}
		return relay.Outcome{Attempt: relay.Attempt{StatusCode: 200}}
	})
	id := h.receive("CARD_3DS", purchase("c-1"))
	h.decide(anna, id, approve())
	h.pass(2 * time.Second)
	h.pass(3 * time.Second)
	h.wantStatus(id, relay.Approved)
	if got := h.issuer.confirms(id); len(got) != 3 {
		t.Errorf("%d tries, want 3", len(got))
	}
}

// The attempt under way at the expiry may still tell how it ended; when the
// grace is over its answer comes too late.
func TestAnswerAfterExpiry(t *testing.T) {
	for name, tc := range map[string]struct {
		after time.Duration
		want  relay.Status
	}{
		"within the grace": {time.Second, relay.Approved},
		"after the grace":  {2 * time.Second, relay.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, nil)
			asking, answer := make(chan struct{}), make(chan struct{})
			h.issuer.will(func(asked) relay.Outcome {
				close(asking)
				<-answer
				return relay.Outcome{Attempt: relay.Attempt{StatusCode: 200}}
			})
			id := h.receive("CARD_3DS", purchase("c-1"))
			decided := make(chan answered, 1)
			go func() {
				c, err := h.Decide(h.ctx, anna, id, approve())
				decided <- answered{c, err}
			}()
			within(t, asking)
			h.clock.Advance(300 * time.Second)
			h.store.awaitSettled(t, relay.KindExpire, 1) // looked, and will look again after the grace
			h.clock.Advance(tc.after)
			if tc.want == relay.Failed {
				h.store.awaitSettled(t, relay.KindExpire, 2)
			}
			close(answer)
			h.quiet()
			c := h.wantStatus(id, tc.want)
			if tc.want == relay.Failed && c.Failure.Code != relay.FailureUnknown {
				t.Errorf("failed with %+v", c.Failure)
			}
			if a := within(t, decided); a.err != nil || a.c.Status != tc.want {
				t.Errorf("decide: %s, %v", a.c.Status, a.err)
			}
		})
	}
}

// An issuer that takes its time: the answer is "confirming", and the outcome
// comes later.
func TestSlowIssuer(t *testing.T) {
	h := newHarness(t, nil)
	answer := make(chan struct{})
	h.issuer.will(func(asked) relay.Outcome {
		<-answer
		return relay.Outcome{Attempt: relay.Attempt{StatusCode: 200}}
	})
	id := h.receive("CARD_3DS", purchase("c-1"))
	if c, err := h.Decide(h.ctx, anna, id, approve()); err != nil || c.Status != relay.Confirming || c.Failure != nil {
		t.Errorf("approve: %s, %v", c.Status, err)
	}
	close(answer)
	h.quiet()
	h.wantStatus(id, relay.Approved)
}

func TestWithoutIssuerAPI(t *testing.T) {
	h := newHarness(t, nil)
	for action, want := range map[relay.Action]relay.Status{relay.Approve: relay.Approved, relay.Reject: relay.Rejected} {
		r, err := h.send("other", "CARD_3DS", purchase("c-"+string(action)))
		if err != nil {
			t.Fatal(err)
		}
		id := strings.Replace(r.EventID, "evt_", "chl_", 1)
		c, err := h.Decide(h.ctx, relay.User{Merchant: "other", ID: "anna"}, id, relay.Decision{Action: action, Reason: relay.ReasonNotMe})
		if err != nil || c.Status != want {
			t.Errorf("%s: %s, %v", action, c.Status, err)
		}
	}
	h.quiet()
	if got := h.issuer.all(); len(got) != 0 {
		t.Errorf("an issuer without an API was asked %+v", got)
	}
}
