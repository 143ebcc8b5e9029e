package relay

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// hidden is embedded in what holds a code, a link or a decrypted body: however
// it is printed, marshalled or logged, nothing of it shows.
type hidden struct{}

// String is "[redacted]".
func (hidden) String() string { return redacted }

// GoString is "[redacted]".
func (hidden) GoString() string { return redacted }

// Format writes "[redacted]" whatever the verb; without it %x and %d would print
// the fields.
func (hidden) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) }

// MarshalText is "[redacted]"; JSON encoders use it too.
func (hidden) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue is "[redacted]".
func (hidden) LogValue() slog.Value { return slog.StringValue(redacted) }
