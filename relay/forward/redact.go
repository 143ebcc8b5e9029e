package forward

import (
	"fmt"
	"io"
	"log/slog"
)

const redactedText = "[redacted]"

// redacted is embedded by what holds a secret, or a template that may.
type redacted struct{}

// String returns "[redacted]".
func (redacted) String() string { return redactedText }

// GoString returns "[redacted]".
func (redacted) GoString() string { return redactedText }

// Format writes "[redacted]" whatever the verb.
func (redacted) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedText) }

// MarshalText returns "[redacted]"; JSON and YAML encoders use it too.
func (redacted) MarshalText() ([]byte, error) { return []byte(redactedText), nil }

// LogValue returns "[redacted]" to slog.
func (redacted) LogValue() slog.Value { return slog.StringValue(redactedText) }
