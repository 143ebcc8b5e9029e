package crypto

import (
	"fmt"
	"io"
	"log/slog"
)

const redactedText = "[redacted]"

// Redacted is embedded by every type, here and elsewhere, that holds a key, a
// code, a token or a decrypted body: however it is printed, marshalled or logged,
// nothing of it shows. Its methods take the value, so that pointers and plain
// values of these types are both covered.
type Redacted struct{}

// String returns "[redacted]".
func (Redacted) String() string { return redactedText }

// GoString returns "[redacted]".
func (Redacted) GoString() string { return redactedText }

// Format writes "[redacted]" whatever the verb; without it %x and %d would print
// the fields.
func (Redacted) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedText) }

// MarshalText returns "[redacted]"; JSON and YAML encoders use it too.
func (Redacted) MarshalText() ([]byte, error) { return []byte(redactedText), nil }

// LogValue returns "[redacted]" to slog.
func (Redacted) LogValue() slog.Value { return slog.StringValue(redactedText) }
