package configs

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a configured secret. Every way to print, log or marshal one gives
// "[redacted]"; only Reveal gives the text. The zero value is an unset secret.
//
// The text stands behind a pointer because fmt does not call methods on
// unexported fields: a struct that holds a Secret in one then prints an
// address, never the text. It also makes == compare identity, so nobody can
// compare two secrets in variable time by accident.
type Secret struct{ text *string }

// NewSecret wraps a text; the empty text is an unset secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal returns the secret itself, "" if unset. Never log or print it.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsSet tells whether there is a non-empty secret.
func (s Secret) IsSet() bool { return s.text != nil }

// String implements fmt.Stringer, redacted.
func (s Secret) String() string { return redacted }

// GoString implements fmt.GoStringer, redacted.
func (s Secret) GoString() string { return redacted }

// Format implements fmt.Formatter, redacted for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler, redacted; encoding/json and
// YAML encoders use it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer, redacted.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
