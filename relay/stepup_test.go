package relay

import (
	"bytes"
	"testing"
	"time"
)

func nonceOf(b byte) []byte { return bytes.Repeat([]byte{b}, nonceLength) }

// needing is a pending challenge that needs a passkey, with nonces on offer.
func needing(t *testing.T, nonces ...[]byte) Challenge {
	t.Helper()
	c := pendingChallenge(MethodApprove)
	c.StepUp = &StepUp{}
	for _, n := range nonces {
		c = must(t)(c.Offer(n, testNow))
	}
	return c
}

func proofFor(c Challenge, nonce []byte) *Proof {
	return &Proof{Nonce: nonce, linked: c.Linked(Approve, nonce)}
}

// TestLinkedCoversWhatIsApproved: any change of what is approved makes other bytes.
func TestLinkedCoversWhatIsApproved(t *testing.T) {
	t.Parallel()
	c, nonce := pendingChallenge(MethodApprove), nonceOf(1)
	seen := map[string]string{string(c.Linked(Approve, nonce)): "what is approved"}
	add := func(name string, c Challenge, a Action, nonce []byte) {
		linked := string(c.Linked(a, nonce))
		if other, ok := seen[linked]; ok {
			t.Errorf("%s is linked like %s", name, other)
		}
		seen[linked] = name
	}
	add("another decision", c, Reject, nonce)
	add("another nonce", c, Approve, nonceOf(2))
	for name, change := range map[string]func(*Challenge){
		"another challenge": func(c *Challenge) { c.ID = newID(prefixChallenge, 3, testNow) },
		"another amount":    func(c *Challenge) { c.Amount = "50.01" },
		"a longer amount":   func(c *Challenge) { c.Amount = "50.000" },
		"another currency":  func(c *Challenge) { c.Currency = "EUR" },
		"another payee":     func(c *Challenge) { c.Payee = "Shop 2" },
		"a shifted part":    func(c *Challenge) { c.Currency, c.Payee = "USDS", "hop" },
		"no payee":          func(c *Challenge) { c.Payee = "" },
	} {
		changed := c
		change(&changed)
		add(name, changed, Approve, nonce)
	}
}

func TestApprovingWithAStepUp(t *testing.T) {
	t.Parallel()
	nonce := nonceOf(1)
	for name, step := range map[string]struct {
		spoil func(*Challenge, *Proof)
		none  bool
		at    time.Time
		want  Code
	}{
		"good":              {},
		"no proof":          {none: true, want: CodeStepUpRequired},
		"just in time":      {at: testNow.Add(StepUpTime - time.Millisecond)},
		"too late":          {at: testNow.Add(StepUpTime), want: CodeStepUpFailed},
		"amount changed":    {spoil: func(c *Challenge, _ *Proof) { c.Amount = "5000.00" }, want: CodeStepUpFailed},
		"currency changed":  {spoil: func(c *Challenge, _ *Proof) { c.Currency = "KWD" }, want: CodeStepUpFailed},
		"payee changed":     {spoil: func(c *Challenge, _ *Proof) { c.Payee = "Thief" }, want: CodeStepUpFailed},
		"another challenge": {spoil: func(c *Challenge, _ *Proof) { c.ID = newID(prefixChallenge, 3, testNow) }, want: CodeStepUpFailed},
		"nonce not offered": {spoil: func(c *Challenge, p *Proof) { *p = *proofFor(*c, nonceOf(9)) }, want: CodeStepUpFailed},
		"a reject signed":   {spoil: func(c *Challenge, p *Proof) { p.linked = c.Linked(Reject, p.Nonce) }, want: CodeStepUpFailed},
		"blocked":           {spoil: func(c *Challenge, _ *Proof) { c.StepUp.Failures = stepUpTries }, want: CodeStepUpBlocked},
		"four failures":     {spoil: func(c *Challenge, _ *Proof) { c.StepUp.Failures = stepUpTries - 1 }},
		"expired":           {at: testExpiry, want: CodeExpired},
	} {
		c := needing(t, nonce)
		proof := proofFor(c, nonce)
		if step.spoil != nil {
			step.spoil(&c, proof)
		}
		if step.none {
			proof = nil
		}
		if step.at.IsZero() {
			step.at = testNow
		}
		next, err := c.Decide(Decision{Action: Approve, Proof: proof}, true, false, step.at)
		if got := refusalCode(err); got != step.want {
			t.Errorf("%s: refused with %q, want %q", name, got, step.want)
			continue
		}
		if err != nil && next.Decision != nil {
			t.Errorf("%s: refused, and decided all the same", name)
		}
		if err == nil && (next.Decision.Proof != proof || next.Decision.Shown == nil || *next.Decision.Shown.Amount != "50.00" || len(next.StepUp.Offers) != 0) {
			t.Errorf("%s: decided as %+v", name, next)
		}
	}
}

// TestRejectingNeedsNoStepUp, not even when approving is blocked.
func TestRejectingNeedsNoStepUp(t *testing.T) {
	t.Parallel()
	for _, failures := range []int{0, stepUpTries} {
		c := needing(t)
		c.StepUp.Failures = failures
		next, err := c.Decide(Decision{Action: Reject, Reason: ReasonNotMe}, true, true, testNow)
		if err != nil || next.Status != Confirming {
			t.Errorf("after %d failures: %s, %v", failures, next.Status, err)
		}
	}
}

// TestNoncesAreGoodOnce and stay few.
func TestNoncesAreGoodOnce(t *testing.T) {
	t.Parallel()
	c := needing(t, nonceOf(1), nonceOf(2))
	c = c.FailStepUp(c.Linked(Approve, nonceOf(1)), testNow)
	if _, ok := c.offered(c.Linked(Approve, nonceOf(1)), testNow); ok || c.StepUp.Failures != 1 {
		t.Errorf("a nonce that failed is still on offer, or was not counted: %+v", c.StepUp)
	}
	if _, ok := c.offered(c.Linked(Approve, nonceOf(2)), testNow); !ok {
		t.Error("a failure took another device's nonce away")
	}
	for i := range byte(2 * maxOffers) {
		c = must(t)(c.Offer(nonceOf(10+i), testNow))
	}
	if len(c.StepUp.Offers) != maxOffers {
		t.Errorf("%d nonces are kept, want %d", len(c.StepUp.Offers), maxOffers)
	}
	if c = must(t)(c.Offer(nonceOf(99), testNow.Add(StepUpTime))); len(c.StepUp.Offers) != 1 {
		t.Errorf("old nonces are kept: %+v", c.StepUp.Offers)
	}
	for range stepUpTries + 3 {
		c = c.FailStepUp(nil, testNow)
	}
	if c.StepUp.Failures != stepUpTries || !c.StepUp.Blocked() {
		t.Errorf("%d failures were counted, want %d", c.StepUp.Failures, stepUpTries)
	}
	if _, err := c.Offer(nonceOf(1), testNow); refusalCode(err) != CodeStepUpBlocked {
		t.Errorf("a blocked challenge offers: %v", err)
	}
	if _, err := pendingChallenge(MethodApprove).Offer(nonceOf(1), testNow); refusalCode(err) != CodeNotConfigured {
		t.Errorf("a challenge that needs no passkey offers: %v", err)
	}
}

func TestThreshold(t *testing.T) {
	t.Parallel()
	thirty := Threshold{"30.00", "EUR"}
	for _, c := range []struct {
		above            Threshold
		amount, currency string
		want             bool
	}{
		{thirty, "30", "EUR", false}, {thirty, "30.01", "EUR", true}, {thirty, "29.99", "EUR", false}, {thirty, "3E1", "EUR", false},
		{thirty, "1", "USD", true}, {thirty, "", "", true}, {thirty, "x", "EUR", true}, {Threshold{}, "0.01", "EUR", true},
	} {
		if got := c.above.exceeded(Challenge{Amount: c.amount, Currency: c.currency}); got != c.want {
			t.Errorf("%s %s above %v: %t", c.amount, c.currency, c.above, got)
		}
	}
}

func TestPasskeysOfAUser(t *testing.T) {
	t.Parallel()
	p := Passkeys{User: User{"acme", "u1"}}
	if p.enrolling(testNow) != nil {
		t.Error("an enrolment is under way that nobody began")
	}
	p, err := p.Begin(nonceOf(1), testNow)
	if err != nil || p.enrolling(testNow.Add(StepUpTime-1)) == nil || p.enrolling(testNow.Add(StepUpTime)) != nil {
		t.Errorf("an enrolment does not last two minutes: %v", err)
	}
	for i := range byte(maxPasskeys) {
		k := Passkey{ID: string('a' + rune(i))}
		k.Credential.ID = nonceOf(i)
		if p, err = p.Add(k); err != nil || p.enrolling(testNow) != nil {
			t.Fatalf("passkey %d: %v, or it can be added twice", i, err)
		}
		if _, err := p.Add(k); refusalCode(err) != CodeInvalidRequest {
			t.Errorf("the same passkey again: %v", err)
		}
	}
	if _, err := p.Begin(nonceOf(1), testNow); refusalCode(err) != CodeInvalidRequest {
		t.Errorf("an eleventh passkey: %v", err)
	}
	if next, err := p.Remove("c"); err != nil || len(next.List) != maxPasskeys-1 || len(p.List) != maxPasskeys {
		t.Errorf("one removed: %d are left, %v", len(next.List), err)
	}
	if next, err := p.Remove(""); err != nil || len(next.List) != 0 {
		t.Errorf("all removed: %d are left, %v", len(next.List), err)
	}
	if _, err := p.Remove("none"); refusalCode(err) != CodeNotFound {
		t.Errorf("none removed: %v", err)
	}
}
