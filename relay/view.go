package relay

import (
	"encoding/json"
	"fmt"
	"time"
)

// View is a challenge as the API and our own events show it; never a code.
type View struct {
	ID         string        `json:"id"`
	Merchant   string        `json:"merchant,omitempty"` // operator and downstream only
	UserID     string        `json:"user_id,omitempty"`  // operator and downstream only
	Kind       ChallengeKind `json:"kind"`
	Method     Method        `json:"method"`
	Status     Status        `json:"status"`
	Card       CardView      `json:"card"`
	Payee      *PayeeView    `json:"payee"`
	Amount     *AmountView   `json:"amount"`
	Reference  *string       `json:"reference"`
	Wallet     *string       `json:"wallet"`
	OccurredAt *time.Time    `json:"occurred_at"`
	CreatedAt  time.Time     `json:"created_at"`
	ExpiresAt  time.Time     `json:"expires_at"`
	RevealedAt *time.Time    `json:"revealed_at"`
	StepUp     *StepUpView   `json:"step_up,omitempty"` // approving needs it
	Decision   *DecisionView `json:"decision"`
	Failure    *Failure      `json:"failure"`
}

// CardView names a card; each part is null if unknown.
type CardView struct {
	ID    *string `json:"id"`
	Last4 *string `json:"last4"`
}

// PayeeView is the shop.
type PayeeView struct {
	Name    *string `json:"name"`
	Country *string `json:"country"` // ISO 3166-1 alpha-2
}

// AmountView is a decimal as the issuer wrote it, and an ISO 4217 code.
type AmountView struct {
	Value    string  `json:"value"`
	Currency *string `json:"currency"`
}

// DecisionView is the decision; the device is for the operator only.
type DecisionView struct {
	Action    Action    `json:"action"`
	Reason    *string   `json:"reason"`
	DecidedAt time.Time `json:"decided_at"`
	Device    *Device   `json:"device,omitempty"`
	Shown     *Shown    `json:"shown,omitempty"`
	Proof     *Proof    `json:"proof,omitempty"` // operator and downstream only
}

// StepUpView is what approving needs; Blocked after too many failures.
type StepUpView struct {
	Method  string `json:"method"` // passkey
	Blocked bool   `json:"blocked"`
}

// View shows the challenge to its cardholder.
func (c Challenge) View() View {
	v := View{
		ID: c.ID, Kind: c.Kind, Method: c.Method, Status: c.Status,
		Card:      CardView{ID: optional(c.CardID), Last4: optional(c.Last4)},
		Reference: optional(c.Reference), Wallet: optional(c.Wallet),
		OccurredAt: optionalTime(c.OccurredAt), CreatedAt: c.CreatedAt.UTC(), ExpiresAt: c.ExpiresAt.UTC(),
		RevealedAt: optionalTime(c.RevealedAt), Failure: c.Failure,
	}
	if c.Payee != "" || c.Country != "" {
		v.Payee = &PayeeView{Name: optional(c.Payee), Country: optional(c.Country)}
	}
	if c.Amount != "" {
		v.Amount = &AmountView{Value: c.Amount, Currency: optional(c.Currency)}
	}
	if c.StepUp != nil {
		v.StepUp = &StepUpView{Method: "passkey", Blocked: c.StepUp.Blocked()}
	}
	if d := c.Decision; d != nil {
		v.Decision = &DecisionView{Action: d.Action, Reason: optional(d.Reason), DecidedAt: d.DecidedAt.UTC(), Shown: d.Shown}
	}
	return v
}

// OperatorView adds whose it is, where the decision came from, and its proof.
func (c Challenge) OperatorView() View {
	v := c.downstreamView()
	if v.Decision != nil && c.Decision.Device != (Device{}) {
		v.Decision.Device = &c.Decision.Device
	}
	return v
}

func (c Challenge) downstreamView() View {
	v := c.View()
	v.Merchant, v.UserID = c.Merchant, c.UserID
	if v.Decision != nil {
		v.Decision.Proof = c.Decision.Proof
	}
	return v
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// ownPrefix begins the types of our own events.
const ownPrefix = "relay."

// ownEvent is one of ours about a challenge: relay.challenge.approved and so on.
func (c Challenge) ownEvent(what string, partition int, now time.Time) Event {
	e := newOwnEvent("challenge."+what, c.Merchant, c.downstreamView(), partition, now)
	e.ChallengeID = c.ID
	return e
}

func newOwnEvent(what, merchant string, data any, partition int, now time.Time) Event {
	body, err := json.Marshal(data)
	if err != nil {
		panic(fmt.Sprintf("encode our own %T: %v", data, err)) // plain structs of strings and times
	}
	return Event{
		ID: newID(prefixEvent, partition, now), Type: ownPrefix + what, Merchant: merchant,
		Outcome: OutcomeOwn, OccurredAt: now, ReceivedAt: now, Secret: Secret{Body: body},
	}
}

// EventView is an event's record as the operator sees it.
type EventView struct {
	ID          string         `json:"id"`
	Type        string         `json:"type"`
	Merchant    string         `json:"merchant"`
	Outcome     EventOutcome   `json:"outcome"`
	Reason      *string        `json:"reason"`
	CardID      *string        `json:"card_id"`
	UserID      *string        `json:"user_id"`
	ChallengeID *string        `json:"challenge_id"`
	OccurredAt  *time.Time     `json:"occurred_at"`
	ReceivedAt  time.Time      `json:"received_at"`
	RemoteIP    *string        `json:"remote_ip,omitempty"`   // of what was refused
	ReplayedAs  *string        `json:"replayed_as,omitempty"` // out of quarantine: the event that it became
	Payload     map[string]any `json:"payload"`               // masked; null once it is gone, and in quarantine
	Fields      []FieldShape   `json:"fields,omitempty"`      // in quarantine: names and types, not values
}

// View shows the event to the operator; payload is masked already.
func (e Event) View(payload map[string]any) EventView {
	v := EventView{
		ID: e.ID, Type: e.Type, Merchant: e.Merchant, Outcome: e.Outcome, Reason: optional(e.Reason), CardID: optional(e.CardID), UserID: optional(e.UserID),
		OccurredAt: optionalTime(e.OccurredAt), ReceivedAt: e.ReceivedAt.UTC(), RemoteIP: optional(e.RemoteIP), ReplayedAs: optional(e.ReplayedAs), Payload: payload, Fields: e.Fields,
	}
	if e.Outcome == OutcomeChallenge {
		v.ChallengeID = optional(ChallengeOf(e.ID))
	}
	return v
}

// DeliveryView is a delivery as the operator sees it.
type DeliveryView struct {
	ID          string         `json:"id"`
	Kind        Kind           `json:"kind"`
	Target      *string        `json:"target"` // the target's name, or the subscription's id
	EventID     *string        `json:"event_id"`
	ChallengeID *string        `json:"challenge_id"`
	Status      DeliveryStatus `json:"status"`
	NextAttempt *time.Time     `json:"next_attempt_at"`
	Attempts    []AttemptView  `json:"attempts"`
}

// AttemptView is one try.
type AttemptView struct {
	At         time.Time `json:"at"`
	StatusCode *int      `json:"status_code"`
	LatencyMS  float64   `json:"latency_ms"`
	Error      *string   `json:"error"`
	Response   *string   `json:"response"`
}

// View shows the delivery to the operator.
func (d Delivery) View() DeliveryView {
	v := DeliveryView{
		ID: d.ID, Kind: d.Kind, Target: optional(d.Target), EventID: optional(d.EventID), ChallengeID: optional(d.ChallengeID),
		Status: d.Status, NextAttempt: optionalTime(d.Next), Attempts: make([]AttemptView, 0, len(d.Attempts)),
	}
	for _, a := range d.Attempts {
		av := AttemptView{At: a.At.UTC(), LatencyMS: float64(a.Latency.Microseconds()) / 1000, Error: optional(a.Error), Response: optional(a.Response)}
		if a.StatusCode != 0 {
			av.StatusCode = &a.StatusCode
		}
		v.Attempts = append(v.Attempts, av)
	}
	return v
}
