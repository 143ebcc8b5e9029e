package relay

import (
	"context"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/push"
)

// Pusher sends one message to one subscription; push.Sender is the one.
type Pusher interface {
	Send(ctx context.Context, s push.Subscription, m push.Message) push.Result
}

// Issuer tells the issuer about decisions; forward.Issuer is the one. Errors are
// outcomes: they never carry a secret. The context bounds the attempt.
type Issuer interface {
	Confirm(ctx context.Context, c IssuerCall) Outcome
	Lock(ctx context.Context, c IssuerCall) Outcome
}

// IssuerCall is what the body templates may use. CardID is the issuer's own id,
// never our token of it. It redacts itself.
type IssuerCall struct {
	crypto.Redacted
	Merchant    string
	ChallengeID string // also the Idempotency-Key
	CardID      string
	UserID      string
	Reference   string
	Action      Action // of a confirm
	Payload     map[string]any
}

// Downstream posts an event to a target; forward.Downstream is the one.
type Downstream interface {
	Forward(ctx context.Context, target string, m Message) Outcome
}

// Message is one event on its way to a target. Envelope is the issuer's body,
// for targets that want it byte for byte. It redacts itself.
type Message struct {
	crypto.Redacted
	EventID    string
	Type       string
	Merchant   string
	OccurredAt time.Time // zero: unknown
	ReceivedAt time.Time
	Data       []byte // JSON
	Envelope   []byte
	Attempt    int // from 1
	// Traceparent is this attempt's, for the target to go on with (W3C Trace
	// Context); "" for none.
	Traceparent string
}
