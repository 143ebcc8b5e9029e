package relay_test

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"approvalrelay/crypto/passkey"
	"approvalrelay/crypto/passkey/passkeytest"
	"approvalrelay/relay"
)

const relayURL = "https://relay.example.com"

// withPasskeys makes approving need one above 30 USD.
func withPasskeys(t *testing.T) *harness {
	t.Helper()
	return newHarness(t, func(o *relay.Options) {
		party, err := passkey.New(relayURL, "Relay", nil, relay.StepUpTime)
		if err != nil {
			t.Fatal(err)
		}
		o.StepUp = relay.StepUpOptions{Party: party, Above: relay.Threshold{Amount: "30.00", Currency: "USD"}}
	})
}

// passkey registers one for a user.
func (h *harness) passkey(u relay.User) (*passkeytest.Authenticator, relay.Passkey) {
	h.t.Helper()
	a := passkeytest.New(relayURL, "relay.example.com")
	options, err := h.EnrolPasskey(h.ctx, u)
	if err != nil {
		h.t.Fatal(err)
	}
	k, err := h.AddPasskey(h.ctx, u, a.Create(options), "phone")
	if err != nil {
		h.t.Fatal(err)
	}
	return a, k
}

// offer begins the confirmation of a challenge of anna's.
func (h *harness) offer(id string) json.RawMessage {
	h.t.Helper()
	o, err := h.OfferStepUp(h.ctx, anna, id)
	if err != nil {
		h.t.Fatal(err)
	}
	return o.Options
}

func (h *harness) owned(card, amount string) string {
	h.t.Helper()
	id := h.receive("CARD_3DS", purchase(card, "user_id", "anna", "amount", amount))
	h.quiet()
	return id
}

func wantRefusal(t *testing.T, what string, err error, code relay.Code) {
	t.Helper()
	if r, ok := errors.AsType[*relay.Refusal](err); !ok || r.Code != code {
		t.Errorf("%s: error %v, want %s", what, err, code)
	}
}

func TestApproveWithAPasskey(t *testing.T) {
	h := withPasskeys(t)
	a, k := h.passkey(anna)
	id := h.owned("c1", "50.00")
	if v := h.challenge(id).View(); v.StepUp == nil || v.StepUp.Blocked {
		t.Fatalf("the challenge does not say that it needs a passkey: %+v", v.StepUp)
	}
	_, err := h.Decide(h.ctx, anna, id, approve())
	wantRefusal(t, "without a proof", err, relay.CodeStepUpRequired)

	response := a.Get(h.offer(id))
	proof, err := h.ProveStepUp(h.ctx, anna, id, response)
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Decide(h.ctx, anna, id, relay.Decision{Action: relay.Approve, Proof: proof})
	if err != nil || c.Decision.Proof.PasskeyID != k.ID {
		t.Fatalf("approve: %+v, %v", c.Decision, err)
	}
	again, err := h.ProveStepUp(h.ctx, anna, id, response)
	if err != nil || again != nil {
		t.Errorf("the same answer again made a proof: %v, %v", again, err)
	}
	if _, err := h.Decide(h.ctx, anna, id, approve()); err != nil {
		t.Errorf("the same decision again: %v", err)
	}
	h.quiet()
	if _, err := h.VerifyProof(h.ctx, id); err != nil {
		t.Errorf("the proof does not hold later: %v", err)
	}
	if list, _ := h.Passkeys(h.ctx, anna); len(list) != 1 || list[0].UsedAt.IsZero() {
		t.Errorf("the passkey was not noted as used: %+v", list)
	}
	if err := h.RemovePasskey(h.ctx, anna, k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := h.VerifyProof(h.ctx, id); err != nil {
		t.Errorf("the proof does not hold without the passkey: %v", err)
	}
}

func TestBelowTheThresholdNoPasskeyIsNeeded(t *testing.T) {
	h := withPasskeys(t)
	id := h.owned("c1", "30.00")
	if _, err := h.OfferStepUp(h.ctx, anna, id); err == nil {
		t.Error("a challenge that needs no passkey offers one")
	}
	if _, err := h.Decide(h.ctx, anna, id, approve()); err != nil {
		t.Error(err)
	}
	_, err := h.VerifyProof(h.ctx, id)
	if !errors.Is(err, relay.ErrNoProof) {
		t.Errorf("verified what has no proof: %v", err)
	}
}

// TestAnAnswerIsGoodForOneApproval: what was signed for one challenge, one nonce, or
// by somebody else is a failure, and is counted.
func TestAnAnswerIsGoodForOneApproval(t *testing.T) {
	h := withPasskeys(t)
	a, _ := h.passkey(anna)
	foreign, _ := h.passkey(berta)
	first, second := h.owned("c1", "50.00"), h.owned("c2", "5000.00")

	late := a.Get(h.offer(first))
	h.pass(relay.StepUpTime)
	unverified := *a
	unverified.UserVerified = false
	for name, response := range map[string][]byte{
		"late": late, "another challenge's": a.Get(h.offer(second)), "another user's passkey": foreign.Get(h.offer(first)), "user not verified": unverified.Get(h.offer(first)),
	} {
		proof, err := h.ProveStepUp(h.ctx, anna, first, response)
		wantRefusal(t, name, err, relay.CodeStepUpFailed)
		if proof != nil {
			t.Errorf("%s: it made a proof", name)
		}
	}
	if got := h.challenge(first); got.StepUp.Failures != 4 || got.Status != relay.Pending {
		t.Errorf("after four failures: %+v", got.StepUp)
	}
	_, err := h.ProveStepUp(h.ctx, berta, first, foreign.Sign([]byte("whatever")))
	wantRefusal(t, "another user", err, relay.CodeNotFound)
	if proof, err := h.ProveStepUp(h.ctx, anna, first, a.Get(h.offer(first))); err != nil || proof == nil {
		t.Errorf("a good answer after four failures: %v", err)
	}
	for _, secret := range []string{"signature", "clientDataJSON"} {
		if strings.Contains(h.logs.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
}

// TestFiveFailuresBlockApproving: the cardholder is told, and can reject.
func TestFiveFailuresBlockApproving(t *testing.T) {
	h := withPasskeys(t)
	a, _ := h.passkey(anna)
	h.device(anna, 1)
	id := h.owned("c1", "50.00")
	good := a.Get(h.offer(id))
	for i := range 5 {
		_, err := h.ProveStepUp(h.ctx, anna, id, []byte("{}"))
		want := relay.CodeStepUpFailed
		if i == 4 {
			want = relay.CodeStepUpBlocked
		}
		wantRefusal(t, "failure", err, want)
	}
	if proof, err := h.ProveStepUp(h.ctx, anna, id, good); proof != nil || err != nil {
		t.Errorf("a good answer after five failures: %v, %v", proof, err)
	}
	_, err := h.Decide(h.ctx, anna, id, approve())
	wantRefusal(t, "approve", err, relay.CodeStepUpBlocked)
	_, err = h.OfferStepUp(h.ctx, anna, id)
	wantRefusal(t, "offer", err, relay.CodeStepUpBlocked)
	h.quiet()
	told := about(h.pusher.all(), id)
	if len(told) != 2 || !strings.Contains(told[1], `"step_up":"blocked"`) || !strings.Contains(told[1], `"silent":false`) || !strings.Contains(told[1], "blocked: the passkey failed") {
		t.Errorf("the cardholder was told %q", told)
	}
	if !strings.Contains(told[0], `"step_up":"passkey"`) {
		t.Errorf("the announcement does not say that a passkey is needed: %s", told[0])
	}
	if _, err := h.Decide(h.ctx, anna, id, reject(relay.ReasonNotMe)); err != nil {
		t.Errorf("it cannot be rejected: %v", err)
	}
}

// TestFailuresAtOnceAreAllCounted, on whatever nodes: the fifth blocks.
func TestFailuresAtOnceAreAllCounted(t *testing.T) {
	h := withPasskeys(t)
	a, _ := h.passkey(anna)
	id := h.owned("c1", "50.00")
	wrong := *a
	wrong.Key = passkeytest.New("", "").Key
	offers := make([][]byte, 5)
	for i := range offers {
		offers[i] = wrong.Get(h.offer(id))
	}
	var group sync.WaitGroup
	for _, o := range offers {
		group.Go(func() {
			if _, err := h.ProveStepUp(h.ctx, anna, id, o); err == nil {
				t.Error("a wrong signature made a proof")
			}
		})
	}
	group.Wait()
	if c := h.challenge(id); c.StepUp.Failures != 5 {
		t.Errorf("%d of five failures at once were counted", c.StepUp.Failures)
	}
}

// TestTheSameAnswerAtOnce, as from a hand that is impatient: all are told the one
// decision.
func TestTheSameAnswerAtOnce(t *testing.T) {
	h := withPasskeys(t)
	a, _ := h.passkey(anna)
	id := h.owned("c1", "50.00")
	answer := a.Get(h.offer(id))
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			proof, err := h.ProveStepUp(h.ctx, anna, id, answer)
			if err != nil {
				t.Errorf("prove: %v", err)
				return
			}
			if _, err := h.Decide(h.ctx, anna, id, relay.Decision{Action: relay.Approve, Proof: proof}); err != nil {
				t.Errorf("decide: %v", err)
			}
		})
	}
	group.Wait()
}

func TestEnrolment(t *testing.T) {
	h := withPasskeys(t)
	id := h.owned("c1", "50.00")
	_, err := h.OfferStepUp(h.ctx, anna, id)
	wantRefusal(t, "approve without a passkey", err, relay.CodeNoPasskey)

	a := passkeytest.New(relayURL, "relay.example.com")
	_, err = h.AddPasskey(h.ctx, anna, a.Create([]byte(`{"challenge":"AAAAAAAAAAAAAAAAAAAAAAAA"}`)), "")
	wantRefusal(t, "an enrolment that nobody began", err, relay.CodeInvalidRequest)
	options, err := h.EnrolPasskey(h.ctx, anna)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(options), "anna") && !strings.Contains(string(options), `"name":"anna"`) {
		t.Errorf("the user's handle tells who it is: %s", options)
	}
	_, err = h.AddPasskey(h.ctx, berta, a.Create(options), "")
	wantRefusal(t, "another user's enrolment", err, relay.CodeInvalidRequest)
	h.pass(relay.StepUpTime)
	_, err = h.AddPasskey(h.ctx, anna, a.Create(options), "")
	wantRefusal(t, "an enrolment that took too long", err, relay.CodeInvalidRequest)

	h.device(anna, 1)
	h.device(anna, 2)
	h.quiet()
	h.pusher.clear()
	_, k := h.passkey(anna)
	h.quiet()
	h.wantPushes(map[int]int{1: 1, 2: 1})
	for _, p := range h.pusher.all() {
		if !strings.Contains(p.Raw, "A passkey was added") || strings.Contains(p.Raw, "action_token") {
			t.Errorf("the devices were told %s", p.Raw)
		}
	}
	if list, err := h.Passkeys(h.ctx, anna); err != nil || len(list) != 1 || list[0].Label != "phone" {
		t.Errorf("passkeys: %+v, %v", list, err)
	}
	wantRefusal(t, "another user removes it", h.RemovePasskey(h.ctx, berta, k.ID), relay.CodeNotFound)
	if err := h.Erase(h.ctx, anna); err != nil {
		t.Fatal(err)
	}
	if list, err := h.Passkeys(h.ctx, anna); err != nil || len(list) != 0 {
		t.Errorf("an erased user still has %+v, %v", list, err)
	}
}

// TestStepUpIsAskedForAtTheDecision, too: what arrived before it was configured, or
// lost in Redis what says so, is not approved without.
func TestStepUpIsAskedForAtTheDecision(t *testing.T) {
	h := withPasskeys(t)
	options := h.StepUp
	h.StepUp = relay.StepUpOptions{}
	id := h.owned("c1", "50.00")
	h.StepUp = options
	if h.challenge(id).StepUp != nil {
		t.Fatal("the record says already that it needs a passkey")
	}
	if c, err := h.Get(h.ctx, anna, id); err != nil || c.StepUp == nil {
		t.Errorf("the cardholder is not told: %+v, %v", c.StepUp, err)
	}
	if p, err := h.List(h.ctx, anna, false, 10, ""); err != nil || len(p.Challenges) != 1 || p.Challenges[0].StepUp == nil {
		t.Errorf("the list does not tell: %+v, %v", p, err)
	}
	_, err := h.Decide(h.ctx, anna, id, approve())
	wantRefusal(t, "without a proof", err, relay.CodeStepUpRequired)
	a, _ := h.passkey(anna)
	_, err = h.ProveStepUp(h.ctx, anna, id, []byte("{}"))
	wantRefusal(t, "a bad answer", err, relay.CodeStepUpFailed)
	proof, err := h.ProveStepUp(h.ctx, anna, id, a.Get(h.offer(id)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Decide(h.ctx, anna, id, relay.Decision{Action: relay.Approve, Proof: proof}); err != nil {
		t.Error(err)
	}
}

func TestPasskeysAreOff(t *testing.T) {
	h := newHarness(t, nil)
	_, err := h.EnrolPasskey(h.ctx, anna)
	wantRefusal(t, "enrol", err, relay.CodeNotConfigured)
	_, err = h.Passkeys(h.ctx, anna)
	wantRefusal(t, "list", err, relay.CodeNotConfigured)
	if id := h.owned("c1", "5000.00"); h.challenge(id).StepUp != nil {
		t.Error("a challenge needs a passkey that nobody can register")
	}
}

// about are the pushes that name a challenge.
func about(pushes []pushed, id string) (raw []string) {
	for _, p := range pushes {
		if strings.Contains(p.Raw, id) {
			raw = append(raw, p.Raw)
		}
	}
	return raw
}
