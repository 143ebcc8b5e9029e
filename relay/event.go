package relay

import (
	"strings"
	"time"

	"approvalrelay/crypto"
)

// EventOutcome is what a webhook became.
type EventOutcome string

// The outcomes.
const (
	OutcomeChallenge   EventOutcome = "challenge"
	OutcomeForwarded   EventOutcome = "forwarded"
	OutcomeQuarantined EventOutcome = "quarantined"
	OutcomeDuplicate   EventOutcome = "duplicate"
	OutcomeRefused     EventOutcome = "refused"
	OutcomeOwn         EventOutcome = "own" // relay.…: ours, never received
)

// Event is the record of one webhook, or of an event of our own.
type Event struct {
	ID         string       `json:"-"` // names the record
	Type       string       `json:"ty"`
	Merchant   string       `json:"m"`
	Outcome    EventOutcome `json:"o"`
	Reason     string       `json:"r,omitempty"`  // of a quarantine, a refusal; of a duplicate, which event it repeats
	Fields     []FieldShape `json:"f,omitempty"`  // of a quarantine: names and types, never values
	CardID     string       `json:"ca,omitempty"` // tokenised if it is a card number
	UserID     string       `json:"u,omitempty"`
	OccurredAt time.Time    `json:"oc,omitzero"`
	ReceivedAt time.Time    `json:"-"`            // its id carries it
	RemoteIP   string       `json:"ip,omitempty"` // of what was refused: who sent it
	ReplayedAs string       `json:"ra,omitempty"` // out of quarantine: what it became
	Owed       []Owed       `json:"ow,omitempty"` // the deliveries that forwarded it first
	// ChallengeID is which challenge an event of our own is about; that of any
	// other follows from its own id.
	ChallengeID string `json:"ch,omitempty"`

	// Secret is sealed in the store. For an action-requiring event the body here
	// is without code and link, and only kept if a target wants the event; the
	// whole one lives and dies with the challenge.
	Secret Secret `json:"-"`
}

// Merchant is one customer of the issuer platform: how its events are read.
type Merchant struct {
	Name    string
	Actions map[string]ChallengeKind // the action-requiring types
	Mapping Mapping
	Method  Method // forces what is otherwise told by the payload; "" does not
	Keyring *crypto.Keyring
	Confirm bool     // the issuer is told of approve and reject
	Lock    bool     // the card is locked after "not me"
	Retry   Schedule // of a confirm, within the challenge's life
}

// Lifetimes of challenges.
type Lifetimes struct {
	TTL map[ChallengeKind]time.Duration // when the issuer sends no expiry
	Max time.Duration
}

// Reading is what Interpret makes of a decrypted body: an event, and a challenge
// if it is action-requiring and understood. Quarantine is the reason if it could
// not be understood; then there is no challenge and nobody learns an owner. It
// redacts itself.
type Reading struct {
	crypto.Redacted
	Payload    map[string]any // nil if the body is not a JSON object
	Fields     Fields
	Quarantine string
	Action     bool // the type is action-requiring
	Kind       ChallengeKind
	Method     Method
	ExpiresAt  time.Time
}

// Interpret reads a decrypted body that came under a type. It is pure; received
// is the time of arrival. What it refuses to understand is not an error of the
// sender: the event is authentic and is kept in quarantine.
func Interpret(m *Merchant, typ string, body []byte, lives Lifetimes, received time.Time) Reading {
	p, err := ParsePayload(body)
	if err != nil {
		return Reading{Quarantine: err.Error()}
	}
	r := Reading{Payload: p, Fields: m.Mapping.Read(p)}
	f := &r.Fields
	if f.Occurred.After(received) {
		f.Occurred = received
	}
	switch {
	case !validType(typ):
		r.Quarantine = "the type is not a name: 1 to 64 letters, digits and _ . : - are, if no card number is among them"
		return r
	case strings.HasPrefix(strings.ToLower(typ), ownPrefix):
		r.Quarantine = "types that begin with " + ownPrefix + " are the relay's own"
		return r
	}
	r.Kind, r.Action = m.Actions[typ]
	if !r.Action {
		if f.OTP != "" || f.URL != "" {
			r.Quarantine = "it carries a code or a challenge link, but its type is not action-requiring"
		}
		return r
	}
	r.Method = m.method(*f)
	switch {
	case f.CardID == "" && f.UserID == "":
		r.Quarantine = "it is action-requiring, but names neither a card nor a user"
	case r.Method == MethodApprove && (f.Amount == "" || f.Currency == ""):
		r.Quarantine = "it is to be approved, but has no amount and currency"
	case r.Method == MethodOTP && f.OTP == "":
		r.Quarantine = "its code is to be shown, but it has none"
	case r.Method == MethodURL && f.URL == "":
		r.Quarantine = "its link is to be opened, but it has none"
	}
	r.ExpiresAt = expiry(*f, r.Kind, lives, received)
	return r
}

// method follows from what the event carries, unless the configuration forces it.
func (m *Merchant) method(f Fields) Method {
	switch {
	case m.Method != "":
		return m.Method
	case f.OTP != "":
		return MethodOTP
	case f.URL != "":
		return MethodURL
	}
	return MethodApprove
}

// expiry counts from when it happened where that is known, because a retry may
// arrive when the challenge is long dead.
func expiry(f Fields, k ChallengeKind, lives Lifetimes, received time.Time) time.Time {
	from := received
	if !f.Occurred.IsZero() {
		from = f.Occurred
	}
	latest := from.Add(lives.Max)
	at := from.Add(lives.TTL[k])
	if !f.Expires.IsZero() {
		at = f.Expires
	}
	if at.After(latest) {
		at = latest
	}
	return at
}

// validType bounds what may come as a type, because the HMAC does not cover it
// and it goes into logs, records and headers.
func validType(s string) bool {
	if s == "" || len(s) > 64 || maskPANs(s) != s {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			c == '_', c == '.', c == ':', c == '-':
		default:
			return false
		}
	}
	return true
}

// challenge is the pending, or already expired, challenge of a reading.
func (r Reading) challenge(ev Event, body Secret) Challenge {
	f := r.Fields
	c := Challenge{
		ID: ChallengeOf(ev.ID), Merchant: ev.Merchant, Type: ev.Type, Kind: r.Kind, Method: r.Method, Status: Pending,
		UserID: f.UserID, Named: f.UserID, CardID: ev.CardID, Last4: f.Last4, Payee: f.Payee, Country: f.Country,
		Amount: f.Amount, Currency: f.Currency, Reference: f.Reference, Wallet: f.Wallet,
		OccurredAt: f.Occurred, CreatedAt: ev.ReceivedAt, ExpiresAt: r.ExpiresAt, Secret: body,
	}
	return c.Expire(0, ev.ReceivedAt)
}
