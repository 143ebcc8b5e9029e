package relay

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"approvalrelay/crypto/passkey"
)

// StepUp is the strong customer authentication that approving a challenge needs
// (PSD2, RTS on SCA, Art. 4 and 5): an assertion of one of the cardholder's
// passkeys over exactly what is approved. It is set when the challenge arrives, and
// stays. Rejecting never needs it.
type StepUp struct {
	Offers   []Offer `json:"of,omitempty"`
	Failures int     `json:"fa,omitempty"` // in a row: a success decides the challenge
}

// Offer is one nonce that may be signed, once, for StepUpTime.
type Offer struct {
	Nonce []byte    `json:"n"`
	At    time.Time `json:"at"`
}

const (
	stepUpTries = 5 // RTS Art. 4(3)(b): at most five failures in a row
	// maxOffers lets several devices show the challenge at once.
	maxOffers = 5
)

// Proof is what an approval with a step-up leaves behind: everything that it takes
// to check later who approved what. Nothing in it is secret.
type Proof struct {
	passkey.Proof
	PasskeyID string `json:"passkey_id"`
	Nonce     []byte `json:"nonce"`
	// Registered is made with the relay's own key when the proof was checked: it
	// tells that the public key was then one of this user's, also when the passkey is
	// registered no more.
	Registered []byte `json:"registered"`

	linked []byte // what was signed
}

// Blocked tells whether there were too many failures: the challenge can only be
// rejected.
func (s *StepUp) Blocked() bool { return s != nil && s.Failures >= stepUpTries }

// Linked is the WebAuthn challenge by which a decision is bound to what was shown
// (RTS Art. 5, dynamic linking): SHA-256 over the challenge's id, amount, currency
// and payee, the decision, and a nonce of the relay. Any other amount or payee makes
// other bytes, which no signature over these is good for.
func (c Challenge) Linked(a Action, nonce []byte) []byte {
	h := sha256.New()
	for _, part := range []string{"approvalrelay/v1 dynamic linking", c.ID, c.Amount, c.Currency, c.Payee, string(a), string(nonce)} {
		// Each after its length, so that no two lists of parts make the same bytes.
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}

// Offer makes a nonce good for signing.
func (c Challenge) Offer(nonce []byte, now time.Time) (Challenge, error) {
	if c.StepUp == nil {
		return c, refuse(CodeNotConfigured, "This challenge needs no passkey.")
	}
	if err := c.open(now); err != nil {
		return c, err
	}
	if c.StepUp.Blocked() {
		return c, errBlocked
	}
	offers := append(c.StepUp.live(now), Offer{nonce, now})
	c.StepUp = &StepUp{Offers: offers[max(0, len(offers)-maxOffers):], Failures: c.StepUp.Failures}
	return c, nil
}

func (s *StepUp) live(now time.Time) []Offer {
	return slices.DeleteFunc(slices.Clone(s.Offers), func(o Offer) bool { return !now.Before(o.At.Add(StepUpTime)) })
}

// offered finds the nonce whose linked approval these bytes are.
func (c Challenge) offered(linked []byte, now time.Time) (nonce []byte, ok bool) {
	for _, o := range c.StepUp.live(now) {
		if bytes.Equal(c.Linked(Approve, o.Nonce), linked) {
			return o.Nonce, true
		}
	}
	return nil, false
}

// FailStepUp counts a failure. The nonce that was signed, if it is one of ours, is
// used up by it.
func (c Challenge) FailStepUp(linked []byte, now time.Time) Challenge {
	if c.StepUp == nil || c.open(now) != nil || c.StepUp.Blocked() {
		return c
	}
	offers := slices.DeleteFunc(c.StepUp.live(now), func(o Offer) bool { return bytes.Equal(c.Linked(Approve, o.Nonce), linked) })
	c.StepUp = &StepUp{Offers: offers, Failures: c.StepUp.Failures + 1}
	return c
}

// checkStepUp refuses an approval without the proof that it needs. The signature was
// checked when the proof was made; here, in the step that decides, that what it
// signed is still what is approved, and that the nonce is good.
func (c Challenge) checkStepUp(p *Proof, now time.Time) error {
	switch {
	case c.StepUp == nil:
		return nil
	case c.StepUp.Blocked():
		return errBlocked
	case p == nil:
		return refuse(CodeStepUpRequired, "Approving this needs one of the cardholder's passkeys: ask for step-up, sign what it answers, and send that with the approval.")
	}
	if _, ok := c.offered(p.linked, now); !ok {
		return errStepUpFailed
	}
	return nil
}

// spent drops the nonces of a challenge that is decided; that it needed a step-up
// stays to be seen.
func (s *StepUp) spent() *StepUp {
	if s == nil {
		return nil
	}
	return &StepUp{Failures: s.Failures}
}

// One text for every fault, so that a failure does not tell which element was wrong
// (RTS Art. 4(3)(a)).
var (
	errStepUpFailed = refuse(CodeStepUpFailed, "This is not the answer of one of the cardholder's passkeys to what is approved here, or it came too late; ask for step-up again. After five failures it can only be rejected.")
	errBlocked      = refuse(CodeStepUpBlocked, "Approving failed five times, so that this can only be rejected.")
)

// Threshold is the amount above which approving needs a step-up; the zero Threshold
// is below every amount.
type Threshold struct {
	Amount   string // decimal
	Currency string // ISO 4217, alphabetic
}

// exceeded tells whether a challenge is above: an amount in another currency, which
// cannot be compared, always is.
func (t Threshold) exceeded(c Challenge) bool {
	if t.Amount == "" || c.Currency != t.Currency {
		return true
	}
	order, ok := compareAmounts(c.Amount, t.Amount)
	return order > 0 || !ok
}
