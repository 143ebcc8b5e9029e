package relay

import (
	"bytes"
	"slices"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/crypto/passkey"
)

// maxPasskeys bounds those of one user.
const maxPasskeys = 10

// Passkey is one WebAuthn credential of a cardholder, by which payments are
// approved where a step-up is needed.
type Passkey struct {
	ID         string             `json:"id"`
	Label      string             `json:"l,omitempty"`
	CreatedAt  time.Time          `json:"cr"`
	UsedAt     time.Time          `json:"us,omitzero"`
	Credential passkey.Credential `json:"c"`
}

// Passkeys are all of one user, one record. The methods are pure.
type Passkeys struct {
	User      User
	Version   int
	List      []Passkey
	Enrolment *Enrolment // one that is under way; a new one replaces it
}

// Enrolment is the challenge that the next passkey has to sign.
type Enrolment struct {
	Challenge []byte    `json:"c"`
	At        time.Time `json:"at"`
}

// StepUpTime is how long a cardholder may take with a passkey: to register one, and
// to sign with one.
const StepUpTime = 2 * time.Minute

// Begin an enrolment.
func (p Passkeys) Begin(challenge []byte, now time.Time) (Passkeys, error) {
	if len(p.List) >= maxPasskeys {
		return p, Invalid("passkey", "There are ten passkeys already; remove one of them first.")
	}
	p.Enrolment = &Enrolment{challenge, now}
	return p, nil
}

// enrolling is the challenge of the enrolment under way; nil if there is none, or it
// took too long.
func (p Passkeys) enrolling(now time.Time) []byte {
	if p.Enrolment == nil || !now.Before(p.Enrolment.At.Add(StepUpTime)) {
		return nil
	}
	return p.Enrolment.Challenge
}

// Add ends the enrolment with the passkey that it made.
func (p Passkeys) Add(k Passkey) (Passkeys, error) {
	if slices.ContainsFunc(p.List, func(o Passkey) bool { return bytes.Equal(o.Credential.ID, k.Credential.ID) }) {
		return p, Invalid("passkey", "This passkey is registered already.")
	}
	p.List, p.Enrolment = append(slices.Clone(p.List), k), nil
	return p, nil
}

// Used keeps a credential as it is after it has signed.
func (p Passkeys) Used(c passkey.Credential, now time.Time) Passkeys {
	p.List = slices.Clone(p.List)
	for i, k := range p.List {
		if bytes.Equal(k.Credential.ID, c.ID) {
			p.List[i].Credential, p.List[i].UsedAt = c, now
		}
	}
	return p
}

// Remove forgets a passkey, all of them if id is "": ErrNotFound if there is none.
func (p Passkeys) Remove(id string) (Passkeys, error) {
	kept := slices.DeleteFunc(slices.Clone(p.List), func(k Passkey) bool { return id == "" || k.ID == id })
	if len(kept) == len(p.List) {
		return p, ErrNotFound
	}
	p.List, p.Enrolment = kept, nil
	return p, nil
}

// owner is what the ceremonies need to know of the user. By its handle authenticators
// know a user: it is always the same, and nobody learns from it who it is.
func (p Passkeys) owner(root crypto.Root) passkey.Owner {
	handle := root.Fingerprint([]byte("passkey user"), []byte(p.User.Merchant), []byte(p.User.ID))
	o := passkey.Owner{Handle: handle, Name: p.User.ID}
	for _, k := range p.List {
		o.Credentials = append(o.Credentials, k.Credential)
	}
	return o
}

// idOf is which of the user's passkeys a credential is.
func (p Passkeys) idOf(credential []byte) string {
	for _, k := range p.List {
		if bytes.Equal(k.Credential.ID, credential) {
			return k.ID
		}
	}
	return ""
}
