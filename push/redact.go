package push

import (
	"fmt"
	"io"
	"log/slog"
)

// What holds a secret shows none of it, whichever way it reaches a log. Subscription
// alone encodes to JSON whole, because that is how it is stored.

func (s Subscription) String() string {
	return "push.Subscription{" + s.Host() + " [redacted]}"
}

func (v VAPID) String() string {
	return "push.VAPID{" + v.Subject + " " + v.PublicKey + " [redacted]}"
}

func (n Notice) String() string {
	return fmt.Sprintf("push.Notice{%q %q [redacted]}", n.ChallengeID, n.Status)
}

func (m Message) String() string {
	return fmt.Sprintf("push.Message{%d bytes, TTL %s, urgency %q, topic %q [redacted]}", len(m.Payload), m.TTL, m.Urgency, m.Topic)
}

func (s Subscription) GoString() string { return s.String() }
func (v VAPID) GoString() string        { return v.String() }
func (n Notice) GoString() string       { return n.String() }
func (m Message) GoString() string      { return m.String() }

func (s Subscription) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }
func (v VAPID) Format(f fmt.State, _ rune)        { _, _ = io.WriteString(f, v.String()) }
func (n Notice) Format(f fmt.State, _ rune)       { _, _ = io.WriteString(f, n.String()) }
func (m Message) Format(f fmt.State, _ rune)      { _, _ = io.WriteString(f, m.String()) }

func (s Subscription) LogValue() slog.Value { return slog.StringValue(s.String()) }
func (v VAPID) LogValue() slog.Value        { return slog.StringValue(v.String()) }
func (n Notice) LogValue() slog.Value       { return slog.StringValue(n.String()) }
func (m Message) LogValue() slog.Value      { return slog.StringValue(m.String()) }

func (v VAPID) MarshalText() ([]byte, error)   { return []byte(v.String()), nil }
func (n Notice) MarshalText() ([]byte, error)  { return []byte(n.String()), nil }
func (m Message) MarshalText() ([]byte, error) { return []byte(m.String()), nil }
