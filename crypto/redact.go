package crypto

import (
	"fmt"
	"io"
	"log/slog"
)

const redactedText = "[redacted]"

// redacted is embedded by every type that holds a key. Its methods take the
// value, so that pointers and plain values of these types are both covered.
type redacted struct{}

// String returns "[redacted]".
func (redacted) String() string { return redactedText }

// GoString returns "[redacted]".
func (redacted) GoString() string { return redactedText }

// Format writes "[redacted]" whatever the verb; without it %x and %d would print
// the fields.
func (redacted) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedText) }

// MarshalText returns "[redacted]"; JSON and YAML encoders use it too.
func (redacted) MarshalText() ([]byte, error) { return []byte(redactedText), nil }

// LogValue returns "[redacted]" to slog.
func (redacted) LogValue() slog.Value { return slog.StringValue(redactedText) }
