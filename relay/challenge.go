package relay

import (
	"time"

	"approvalrelay/crypto"
)

// ChallengeKind is what an action-requiring event is about.
type ChallengeKind string

// The kinds.
const (
	ThreeDS          ChallengeKind = "three_ds"
	CardVerification ChallengeKind = "card_verification"
)

// Method is what the cardholder is asked for.
type Method string

// The methods: decide in the app, read a code, open a link.
const (
	MethodApprove Method = "approve"
	MethodOTP     Method = "otp"
	MethodURL     Method = "url"
)

// Status of a challenge; the package documentation has the table.
type Status string

// The statuses.
const (
	Pending    Status = "pending"
	Confirming Status = "confirming"
	Approved   Status = "approved"
	Rejected   Status = "rejected"
	Completed  Status = "completed"
	Expired    Status = "expired"
	Failed     Status = "failed"
	Cancelled  Status = "cancelled"
)

// Final tells whether nothing can happen any more.
func (s Status) Final() bool { return s != Pending && s != Confirming }

// Action is the cardholder's answer.
type Action string

// The two answers.
const (
	Approve Action = "approve"
	Reject  Action = "reject"
)

// ReasonNotMe is the reason of a reject that reports fraud.
const ReasonNotMe = "not_me"

// Device is where a decision came from, for the operator's eyes only.
type Device struct {
	SubscriptionID string `json:"subscription_id,omitempty"`
	IP             string `json:"ip,omitempty"`
	UserAgent      string `json:"user_agent,omitempty"`
}

// Shown is what the cardholder saw when approving (dynamic linking, PSD2 RTS
// Art. 5). A nil field was not echoed.
type Shown struct {
	Amount   *string `json:"amount,omitempty"`
	Currency *string `json:"currency,omitempty"`
	Payee    *string `json:"payee,omitempty"`
}

// Decision is the one answer of a challenge.
type Decision struct {
	Action    Action    `json:"action"`
	Reason    string    `json:"reason,omitempty"`
	DecidedAt time.Time `json:"decided_at"`
	Device    Device    `json:"device,omitzero"`
	Shown     *Shown    `json:"shown,omitempty"`
	Proof     *Proof    `json:"proof,omitempty"` // of an approval that needed a step-up
}

// FailureCode says why a decision did not reach the issuer.
type FailureCode string

// The failures. FailureUnknown: the last try timed out, the issuer may have
// taken it.
const (
	IssuerRefused     FailureCode = "issuer_refused"
	IssuerUnreachable FailureCode = "issuer_unreachable"
	FailureUnknown    FailureCode = "unknown"
)

// Failure of a confirm.
type Failure struct {
	Code   FailureCode `json:"code"`
	Detail string      `json:"detail"`
}

// Challenge is an event that needs the cardholder. The methods below are pure:
// they return the next state, or a *Refusal and the same state.
type Challenge struct {
	Version int    `json:"-"` // of the stored record; 0 is not stored yet
	UserID  string `json:"-"` // the owner; "" is unassigned

	ID       string        `json:"-"` // names the record
	Merchant string        `json:"m"`
	Type     string        `json:"ty"` // the event's type
	Kind     ChallengeKind `json:"k"`
	Method   Method        `json:"me"`
	Status   Status        `json:"st"`

	CardID    string `json:"ca,omitempty"`
	Last4     string `json:"l4,omitempty"`
	Payee     string `json:"pa,omitempty"`
	Country   string `json:"co,omitempty"`
	Amount    string `json:"am,omitempty"`
	Currency  string `json:"cu,omitempty"`
	Reference string `json:"re,omitempty"`
	Wallet    string `json:"wa,omitempty"`
	Named     string `json:"un,omitempty"` // the user that its event named, who need not be the owner

	OccurredAt time.Time `json:"oc,omitzero"` // zero: the issuer did not say
	CreatedAt  time.Time `json:"-"`           // its id carries it
	ExpiresAt  time.Time `json:"ex"`
	RevealedAt time.Time `json:"rv,omitzero"`
	EndedAt    time.Time `json:"en,omitzero"`

	Decision *Decision `json:"de,omitempty"`
	Failure  *Failure  `json:"fa,omitempty"`
	Note     string    `json:"no,omitempty"` // why it was cancelled

	PushesOwed   int    `json:"po,omitempty"` // devices that the announcement was owed to
	PushesFailed int    `json:"pf,omitempty"` // of these, whose first attempt failed
	Announced    bool   `json:"an,omitempty"`
	Silence      string `json:"si,omitempty"` // why the announcement was owed to no device
	Tag          string `json:"tg,omitempty"` // of the notification that it took over from one like it; "": its own
	Trace        string `json:"tp,omitempty"` // the W3C traceparent of its arrival, if there are traces

	StepUp *StepUp `json:"su,omitempty"` // approving needs a passkey; nil: it does not

	// Secret is sealed in the store and dropped by the step that ends the
	// challenge.
	Secret Secret `json:"-"`
}

// Secret is what only the cardholder and the issuer may see: the decrypted body
// (with code, link and the issuer's own ids) and, where a target wants it, the
// envelope as it came. It redacts itself.
type Secret struct {
	crypto.Redacted
	Body     []byte
	Envelope []byte
}

// Holder is what the challenge is indexed by.
func (c Challenge) Holder() Holder {
	if c.CardID != "" {
		return Holder{Merchant: c.Merchant, CardID: c.CardID}
	}
	return Holder{Merchant: c.Merchant, UserID: c.UserID}
}

// Owner is the cardholder; its ID is empty while the challenge is unassigned.
func (c Challenge) Owner() User { return User{Merchant: c.Merchant, ID: c.UserID} }

// EventID is the event that the challenge came from.
func (c Challenge) EventID() string { return eventOf(c.ID) }

// ended is the one way into a final status.
func (c Challenge) ended(s Status, now time.Time) Challenge {
	c.Status, c.EndedAt, c.Secret = s, now, Secret{}
	return c
}

// Decide takes the cardholder's answer. tell says whether the issuer has to be
// told of an approve or reject, requireShown whether an approve must echo what
// was shown; of one with a step-up, what was signed is what was shown. The same
// answer again returns the challenge unchanged.
func (c Challenge) Decide(d Decision, tell, requireShown bool, now time.Time) (Challenge, error) {
	if d.Action == Approve && c.Method != MethodApprove {
		return c, refuse(CodeWrongMethod, "This challenge is answered with its code or link, it cannot be approved; use reveal.")
	}
	if c.Decision != nil {
		if c.Decision.Action == d.Action {
			return c, nil
		}
		return c, refuse(CodeAlreadyDecided, "This challenge was already decided the other way; a decision is never changed.")
	}
	if err := c.open(now); err != nil {
		return c, err
	}
	if d.Action == Approve {
		if err := c.checkShown(d.Shown, requireShown); err != nil {
			return c, err
		}
		if err := c.checkStepUp(d.Proof, now); err != nil {
			return c, err
		}
	}
	if d.Proof != nil {
		linked := c.shown()
		d.Shown = &linked
	}
	d.DecidedAt = now
	c.Decision, c.StepUp = &d, c.StepUp.spent()
	if tell && c.Method == MethodApprove {
		c.Status = Confirming
		return c, nil
	}
	return c.ended(d.Action.status(), now), nil
}

func (a Action) status() Status {
	if a == Approve {
		return Approved
	}
	return Rejected
}

// open refuses what is no longer pending, or past its expiry although nobody
// has swept it yet.
func (c Challenge) open(now time.Time) error {
	switch {
	case c.Status == Cancelled:
		return refuse(CodeCancelled, "This challenge was withdrawn: a newer one replaced it, or the operator cancelled it.")
	case c.Status == Completed && c.Decision == nil && c.EndedAt.Before(c.ExpiresAt):
		return refuse(CodeAlreadyDecided, "This challenge is already finished.")
	case c.Status != Pending && c.Decision != nil:
		return refuse(CodeAlreadyDecided, "This challenge was already decided.")
	case c.Status != Pending || !now.Before(c.ExpiresAt):
		return refuse(CodeExpired, "This challenge has expired; start the payment again to get a new one.")
	}
	return nil
}

func (c Challenge) checkShown(s *Shown, required bool) error {
	if s == nil {
		s = &Shown{}
	}
	for _, f := range []struct {
		name        string
		shown       *string
		want        string
		equal       func(a, b string) bool
		mustBeGiven bool
	}{
		{"shown.amount", s.Amount, c.Amount, SameAmount, c.Amount != ""},
		{"shown.currency", s.Currency, c.Currency, sameText, c.Currency != ""},
		{"shown.payee", s.Payee, c.Payee, sameText, c.Payee != ""},
	} {
		if f.shown == nil {
			if required && f.mustBeGiven {
				return Invalid(f.name, "An approval must echo what the cardholder was shown.")
			}
			continue
		}
		if !f.equal(*f.shown, f.want) {
			return refuse(CodeShownMismatch, "What was shown is not what is to be approved; load the challenge again. Nothing was decided.")
		}
	}
	return nil
}

func sameText(a, b string) bool { return a == b }

// Confirmed takes the issuer's answer to the decision: nil for taken, else why
// not. It does nothing to a challenge that is no longer confirming.
func (c Challenge) Confirmed(failure *Failure, now time.Time) Challenge {
	if c.Status != Confirming {
		return c
	}
	if failure != nil {
		c.Failure = failure
		return c.ended(Failed, now)
	}
	return c.ended(c.Decision.Action.status(), now)
}

// Reveal records that the code or link was read; it may be repeated while the
// challenge is pending.
func (c Challenge) Reveal(now time.Time) (Challenge, error) {
	if c.Method == MethodApprove {
		return c, refuse(CodeWrongMethod, "This challenge has no code or link; approve or reject it.")
	}
	if err := c.open(now); err != nil {
		return c, err
	}
	if c.RevealedAt.IsZero() {
		c.RevealedAt = now
	}
	return c, nil
}

// Done says that the cardholder is finished with the code or link. One that was
// revealed and has lapsed is completed already, also if nobody has written that
// yet.
func (c Challenge) Done(now time.Time) (Challenge, error) {
	if c.Method == MethodApprove {
		return c, refuse(CodeWrongMethod, "This challenge has no code or link; approve or reject it.")
	}
	if seen := c.At(now); seen.Status == Completed {
		return seen, nil
	}
	if err := c.open(now); err != nil {
		return c, err
	}
	return c.ended(Completed, now), nil
}

// Expire ends a challenge whose time is up; before that it does nothing. One
// that is confirming is given grace, so that the attempt under way can still
// tell how it ended: past it the issuer's view is unknown.
func (c Challenge) Expire(grace time.Duration, now time.Time) Challenge {
	switch {
	case c.Status == Pending && !now.Before(c.ExpiresAt):
		if !c.RevealedAt.IsZero() {
			return c.ended(Completed, now)
		}
		return c.ended(Expired, now)
	case c.Status == Confirming && !now.Before(c.ExpiresAt.Add(grace)):
		return c.Confirmed(&Failure{Code: FailureUnknown, Detail: "The decision could not be confirmed with the issuer in time; it may have been taken."}, now)
	}
	return c
}

// At is the challenge as it must be seen at a time: one whose time is up has
// ended, also if nobody has written that yet.
func (c Challenge) At(now time.Time) Challenge {
	if c.Status == Pending {
		return c.Expire(0, now)
	}
	return c
}

// Cancel withdraws a pending challenge; any other stays as it is, and one whose
// time is up ends as it was seen to have ended.
func (c Challenge) Cancel(note string, now time.Time) Challenge {
	if c = c.At(now); c.Status != Pending {
		return c
	}
	c.Note = note
	return c.ended(Cancelled, now)
}

// Assign gives an unassigned challenge its owner; an owner never changes.
func (c Challenge) Assign(user string) Challenge {
	if c.UserID == "" {
		c.UserID = user
	}
	return c
}

// Supersedes tells whether c replaces an older challenge o of the same card and
// reference: the one that happened later wins, and of two that happened at the
// same time the one that arrived later.
func (c Challenge) Supersedes(o Challenge) bool {
	if c.happened().Equal(o.happened()) {
		return !c.CreatedAt.Before(o.CreatedAt)
	}
	return c.happened().After(o.happened())
}

func (c Challenge) happened() time.Time {
	if c.OccurredAt.IsZero() {
		return c.CreatedAt
	}
	return c.OccurredAt
}
