package relay

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/crypto/passkey"
)

// StepUpOptions is by what approving is confirmed, and when.
type StepUpOptions struct {
	Party *passkey.Party // nil: never
	Above Threshold
}

// stepUp is what a new challenge needs to be approved.
func (s *Service) stepUp(c Challenge) *StepUp {
	if s.StepUp.Party == nil || c.Method != MethodApprove || !s.StepUp.Above.exceeded(c) {
		return nil
	}
	return &StepUp{}
}

// needing is a challenge as it must be seen today: one that arrived before auth.step_up
// was set, or whose record has lost that it needs a passkey, needs it all the same.
func (s *Service) needing(c Challenge) Challenge {
	if c.StepUp == nil && c.Status == Pending {
		c.StepUp = s.stepUp(c)
	}
	return c
}

var errNoPasskeys = refuse(CodeNotConfigured, "Passkeys are not used here: the operator has not set auth.step_up.")

// nonceLength is in bytes; WebAuthn asks for 16 at least.
const nonceLength = 32

func newNonce() []byte {
	nonce := make([]byte, nonceLength)
	rand.Read(nonce) // never fails: it ends the program instead
	return nonce
}

// registered is what a proof keeps of a public key having been a user's.
func registered(root crypto.Root, u User, p passkey.Proof) []byte {
	return root.Fingerprint([]byte("passkey registered"), []byte(u.Merchant), []byte(u.ID), p.CredentialID, p.PublicKey)
}

// Passkeys of the user.
func (s *Service) Passkeys(ctx context.Context, u User) ([]Passkey, error) {
	if s.StepUp.Party == nil {
		return nil, errNoPasskeys
	}
	p, err := s.passkeys(ctx, u)
	if err != nil {
		return nil, err
	}
	return p.List, nil
}

// EnrolPasskey begins the registration of a passkey: it returns the options for the
// browser (PublicKeyCredentialCreationOptionsJSON). The caller has made sure that
// the user signed in a moment ago.
func (s *Service) EnrolPasskey(ctx context.Context, u User) (json.RawMessage, error) {
	root, err := s.stepUpRoot(ctx)
	if err != nil {
		return nil, err
	}
	challenge := newNonce()
	p, err := s.changePasskeys(ctx, u, func(p Passkeys, now time.Time) (Passkeys, []Delivery, error) {
		p, err := p.Begin(challenge, now)
		return p, nil, err
	})
	if err != nil {
		return nil, err
	}
	return s.StepUp.Party.CreationOptions(p.owner(root), challenge)
}

func (s *Service) stepUpRoot(ctx context.Context) (crypto.Root, error) {
	if s.StepUp.Party == nil {
		return crypto.Root{}, errNoPasskeys
	}
	return s.rootKey(ctx)
}

// AddPasskey ends a registration with the browser's answer
// (RegistrationResponseJSON). All devices of the user are owed word of it.
func (s *Service) AddPasskey(ctx context.Context, u User, response []byte, label string) (k Passkey, err error) {
	root, err := s.stepUpRoot(ctx)
	if err != nil {
		return Passkey{}, err
	}
	devices, err := s.store.Devices(ctx, u)
	if err != nil {
		return Passkey{}, fmt.Errorf("read the user's devices: %w", err)
	}
	_, err = s.changePasskeys(ctx, u, func(p Passkeys, now time.Time) (Passkeys, []Delivery, error) {
		challenge := p.enrolling(now)
		if challenge == nil {
			return p, nil, Invalid("passkey", "No registration is under way, or it took longer than two minutes; begin again.")
		}
		c, err := s.StepUp.Party.Register(p.owner(root), challenge, response)
		if err != nil {
			s.log.LogAttrs(ctx, slog.LevelWarn, "passkey refused", slog.String("merchant", u.Merchant), slog.String("user_id", u.ID), slog.String("error", err.Error()))
			return p, nil, Invalid("passkey", "This is not a good answer to the registration that is under way; begin again.")
		}
		k = Passkey{ID: newID(prefixPasskey, u.Partition(s.store.Partitions()), now), Label: label, CreatedAt: now, Credential: c}
		p, err = p.Add(k)
		var owe []Delivery
		for _, sub := range devices.Active() {
			owe = append(owe, s.pushDelivery(u, sub.ID, NoticePasskey, now, activationTime))
		}
		return p, owe, err
	})
	if err != nil {
		return Passkey{}, err
	}
	s.logPasskey(ctx, "passkey registered", u, k.ID)
	return k, nil
}

// RemovePasskey forgets one passkey, all of the user's if id is "": ErrNotFound.
func (s *Service) RemovePasskey(ctx context.Context, u User, id string) error {
	_, err := s.changePasskeys(ctx, u, func(p Passkeys, _ time.Time) (Passkeys, []Delivery, error) {
		p, err := p.Remove(id)
		return p, nil, err
	})
	if err == nil {
		s.logPasskey(ctx, "passkey removed", u, id)
	}
	return err
}

func (s *Service) logPasskey(ctx context.Context, what string, u User, id string) {
	s.log.LogAttrs(ctx, slog.LevelInfo, what, given([]slog.Attr{slog.String("merchant", u.Merchant), slog.String("user_id", u.ID)}, "passkey_id", id)...)
}

// passkeys reads a user's passkeys.
func (s *Service) passkeys(ctx context.Context, u User) (Passkeys, error) {
	p, err := s.store.Passkeys(ctx, u)
	if err != nil {
		return Passkeys{}, fmt.Errorf("read the user's passkeys: %w", err)
	}
	return p, nil
}

// changePasskeys swaps a user's passkeys; a lost race is decided again.
func (s *Service) changePasskeys(ctx context.Context, u User, decide func(Passkeys, time.Time) (Passkeys, []Delivery, error)) (next Passkeys, err error) {
	err = again("the user's passkeys changed", func() error {
		p, err := s.passkeys(ctx, u)
		if err != nil {
			return err
		}
		var owe []Delivery
		if next, owe, err = decide(p, s.store.Now().Truncate(time.Millisecond)); err != nil {
			return err
		}
		if err := s.store.SavePasskeys(ctx, next, owe...); err != nil {
			return fmt.Errorf("store the user's passkeys: %w", err)
		}
		return nil
	})
	return next, err
}

// Confirmation is what the cardholder's browser needs to confirm an approval.
type Confirmation struct {
	Options json.RawMessage // PublicKeyCredentialRequestOptionsJSON
	Shown   Shown           // what will be signed
}

// OfferStepUp begins the confirmation of an approval.
func (s *Service) OfferStepUp(ctx context.Context, u User, id string) (Confirmation, error) {
	root, err := s.stepUpRoot(ctx)
	if err != nil {
		return Confirmation{}, err
	}
	p, err := s.passkeys(ctx, u)
	if err != nil {
		return Confirmation{}, err
	}
	nonce := newNonce()
	c, err := s.change(ctx, u, id, func(c Challenge, now time.Time) (Challenge, error) {
		next, err := c.Offer(nonce, now)
		if err == nil && len(p.List) == 0 {
			return c, errNoPasskey
		}
		return next, err
	})
	if err != nil {
		return Confirmation{}, err
	}
	options, err := s.StepUp.Party.RequestOptions(p.owner(root), c.Linked(Approve, nonce))
	return Confirmation{options, c.shown()}, err
}

var errNoPasskey = refuse(CodeNoPasskey, "Approving this needs a passkey, and the cardholder has none yet; register one first.")

// shown is what the cardholder of a challenge is shown.
func (c Challenge) shown() Shown {
	return Shown{Amount: optional(c.Amount), Currency: optional(c.Currency), Payee: optional(c.Payee)}
}

// ProveStepUp checks the browser's answer (AuthenticationResponseJSON) to what
// OfferStepUp returned, and makes of it the proof for Decide. A failure counts. The
// proof is nil if the challenge is not waiting for one: Decide has the answer then.
func (s *Service) ProveStepUp(ctx context.Context, u User, id string, response []byte) (*Proof, error) {
	root, err := s.stepUpRoot(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.Get(ctx, u, id)
	if err != nil {
		return nil, err
	}
	now := s.store.Now()
	if c.StepUp == nil || c.open(now) != nil || c.StepUp.Blocked() {
		return nil, nil
	}
	p, err := s.passkeys(ctx, u)
	if err != nil {
		return nil, err
	}
	proof, used, fault := s.prove(root, c, p, response, now)
	if fault != nil {
		return nil, s.failStepUp(ctx, u, id, proof.linked, fault)
	}
	if _, err := s.changePasskeys(ctx, u, func(p Passkeys, now time.Time) (Passkeys, []Delivery, error) { return p.Used(used, now), nil, nil }); err != nil {
		// The nonce, not the counter, makes an assertion good once.
		s.log.LogAttrs(ctx, slog.LevelWarn, "that a passkey was used is not noted", slog.String("passkey_id", proof.PasskeyID), slog.String("error", err.Error()))
	}
	s.count.stepUps.WithLabelValues(stepUpPassed).Inc()
	return &proof, nil
}

// prove is the pure part. With an error the proof says at most what was signed.
func (s *Service) prove(root crypto.Root, c Challenge, p Passkeys, response []byte, now time.Time) (proof Proof, used passkey.Credential, err error) {
	asserted, err := passkey.Parse(response)
	if err != nil {
		return proof, used, err
	}
	proof.linked = asserted.Challenge
	nonce, ok := c.offered(asserted.Challenge, now)
	if !ok {
		return proof, used, fmt.Errorf("%w: what it signs is not on offer", passkey.ErrAssertion)
	}
	used, signed, err := s.StepUp.Party.Assert(p.owner(root), c.Linked(Approve, nonce), asserted)
	if err != nil {
		return proof, used, err
	}
	proof.Proof, proof.Nonce, proof.PasskeyID = signed, nonce, p.idOf(signed.CredentialID)
	proof.Registered = registered(root, c.Owner(), signed)
	return proof, used, nil
}

func (s *Service) failStepUp(ctx context.Context, u User, id string, linked []byte, fault error) error {
	c, err := s.change(ctx, u, id, func(c Challenge, now time.Time) (Challenge, error) { return c.FailStepUp(linked, now), nil })
	if err != nil {
		return err
	}
	s.log.LogAttrs(ctx, slog.LevelWarn, "step-up failed", append(c.logged(), slog.Int("failures", c.StepUp.Failures), slog.String("error", fault.Error()))...)
	s.count.stepUps.WithLabelValues(stepUpFailed).Inc()
	if c.StepUp.Blocked() {
		return errBlocked
	}
	return errStepUpFailed
}

// ErrNoProof says that a challenge was not approved with a step-up.
var ErrNoProof = errors.New("it was not approved with a passkey")

// VerifyProof checks again the proof that a challenge was approved with: that what
// the record shows is what was signed, by a key that was its owner's. The error says
// what does not hold, ErrNoProof if there is nothing to check.
func (s *Service) VerifyProof(ctx context.Context, id string) (Challenge, error) {
	root, err := s.stepUpRoot(ctx)
	if err != nil {
		return Challenge{}, err
	}
	if !IsChallengeID(id) {
		return Challenge{}, ErrNotFound
	}
	c, err := s.store.Challenge(ctx, id)
	if err != nil {
		return Challenge{}, fmt.Errorf("load challenge: %w", err)
	}
	d := c.Decision
	if d == nil || d.Action != Approve || d.Proof == nil {
		return c, ErrNoProof
	}
	if err := s.StepUp.Party.Verify(c.Linked(d.Action, d.Proof.Nonce), d.Proof.Proof); err != nil {
		return c, fmt.Errorf("the signature does not belong to what the record shows (amount, currency, payee, decision): %w", err)
	}
	if subtle.ConstantTimeCompare(registered(root, c.Owner(), d.Proof.Proof), d.Proof.Registered) != 1 {
		return c, errors.New("the key that signed was not found to be the cardholder's when the payment was approved")
	}
	if d.Shown == nil || c.checkShown(d.Shown, true) != nil {
		return c, errors.New("what the decision says was shown is not what the record shows")
	}
	return c, nil
}
