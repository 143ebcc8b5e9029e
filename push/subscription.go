package push

import (
	"crypto/ecdh"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const (
	p256dhLen = 65 // an uncompressed P-256 point (RFC 8291, section 3.1)
	authLen   = 16 // the authentication secret (RFC 8291, section 3.2)
)

// Subscription is where one browser can be reached (W3C Push API,
// PushSubscription). Policy.Parse makes it: the endpoint's host is in lower case
// without a default port, the keys are base64url without padding.
//
// All of it is secret. It shows only its host when formatted or logged, but
// encodes to JSON whole, because that is how it is stored (sealed).
type Subscription struct {
	Endpoint string `json:"endpoint"`
	P256dh   string `json:"p256dh"`
	Auth     string `json:"auth"`
}

// InvalidError says which field of a subscription was refused and why. It never
// quotes the value.
type InvalidError struct {
	Field   string // the JSON field: "endpoint", "keys.p256dh" or "keys.auth"
	Problem string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Problem }

// Parse checks what a browser sent (PushSubscription.toJSON) and returns it in
// normal form: what Parse returns, it accepts again unchanged. Keys may be
// base64url or standard base64, padded or not. A refusal is an *InvalidError.
func (p *Policy) Parse(endpoint, p256dh, auth string) (Subscription, error) {
	endpoint, err := p.normalise(endpoint)
	if err != nil {
		return Subscription{}, &InvalidError{"endpoint", err.Error()}
	}
	point, err := decodeKey(p256dh, p256dhLen)
	if err != nil {
		return Subscription{}, &InvalidError{"keys.p256dh", err.Error()}
	}
	if _, err := ecdh.P256().NewPublicKey(point); err != nil {
		return Subscription{}, &InvalidError{"keys.p256dh", "must be an uncompressed point on the curve P-256"}
	}
	secret, err := decodeKey(auth, authLen)
	if err != nil {
		return Subscription{}, &InvalidError{"keys.auth", err.Error()}
	}
	return Subscription{Endpoint: endpoint, P256dh: encodeKey(point), Auth: encodeKey(secret)}, nil
}

// Host is the push service's host name, without the port: fit for logs and metrics.
func (s Subscription) Host() string {
	u, err := url.Parse(s.Endpoint)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

// Apple tells whether the subscription is Safari's, which wants Declarative Web Push.
func (s Subscription) Apple() bool { return strings.HasSuffix(s.Host(), ".push.apple.com") }

// decodeKey decodes exactly size bytes from either base64 alphabet.
func decodeKey(s string, size int) ([]byte, error) {
	if s == "" {
		return nil, errors.New("is missing")
	}
	raw := s
	if strings.Contains(s, "=") && len(s)%4 == 0 {
		raw = strings.TrimSuffix(strings.TrimSuffix(s, "="), "=")
	}
	// The length is settled first: Go's decoder skips line breaks, and an
	// attacker's megabyte need not be decoded to be refused.
	if len(raw) != base64.RawURLEncoding.EncodedLen(size) {
		return nil, fmt.Errorf("must be %d bytes in base64url", size)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(strings.NewReplacer("+", "-", "/", "_").Replace(raw))
	if err != nil || len(b) != size {
		return nil, fmt.Errorf("must be %d bytes in base64url", size)
	}
	return b, nil
}

func encodeKey(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
