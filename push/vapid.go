package push

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// VAPID identifies the relay to push services (RFC 8292). NewVAPID makes it; the
// zero value cannot send.
type VAPID struct {
	Subject   string // "mailto:…" or "https://…": whom a push service may contact
	PublicKey string // base64url without padding: the applicationServerKey of PushManager.subscribe

	// private returns the key in base64url. A function, because fmt cannot call the
	// methods of a VAPID in somebody's unexported field and prints what is in it: of
	// a function that is an address, of a string or a pointer it may be the key.
	private func() string
}

// NewVAPID checks the subject (a mailto: address or an https: URL) and that public
// (65 bytes, uncompressed) belongs to private (32 bytes), both P-256 in either
// base64 alphabet. The errors never quote a key.
func NewVAPID(subject, public, private string) (VAPID, error) {
	if _, err := subjectHost(subject); err != nil {
		return VAPID{}, fmt.Errorf("vapid subject: %w", err)
	}
	pub, err := decodeKey(public, p256dhLen)
	if err != nil {
		return VAPID{}, fmt.Errorf("vapid public key: %w", err)
	}
	scalar, err := decodeKey(private, 32)
	if err != nil {
		return VAPID{}, fmt.Errorf("vapid private key: %w", err)
	}
	point, err := ecdh.P256().NewPublicKey(pub)
	if err != nil {
		return VAPID{}, errors.New("vapid public key: must be an uncompressed point on the curve P-256")
	}
	key, err := ecdh.P256().NewPrivateKey(scalar)
	if err != nil {
		return VAPID{}, errors.New("vapid private key: must be a P-256 key, not zero and below the group order")
	}
	if !key.PublicKey().Equal(point) {
		return VAPID{}, errors.New("vapid keys: the public key does not belong to the private key; generate a new pair")
	}
	return VAPID{Subject: subject, PublicKey: encodeKey(pub), private: func() string { return encodeKey(scalar) }}, nil
}

// GenerateVAPID makes a new key pair, both in base64url without padding.
func GenerateVAPID() (public, private string, err error) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("generate vapid key: %w", err)
	}
	return encodeKey(key.PublicKey().Bytes()), encodeKey(key.Bytes()), nil
}

// Warning says what a push service is known to refuse although NewVAPID takes it,
// or is empty: Apple answers 403 to a subject at localhost or under .invalid.
func (v VAPID) Warning() string {
	host, err := subjectHost(v.Subject)
	if err == nil && (host == "localhost" || strings.HasSuffix(host, ".localhost") ||
		host == "invalid" || strings.HasSuffix(host, ".invalid")) {
		return "vapid subject: Apple's push service refuses addresses at " + host + "; use a real one"
	}
	return ""
}

// subscriber is the subject as webpush-go wants it: it puts mailto: before
// everything that is not an https: URL.
func (v VAPID) subscriber() string { return strings.TrimPrefix(v.Subject, "mailto:") }

// subjectHost checks a subject and returns the host of its address or URL.
func subjectHost(subject string) (string, error) {
	if address, ok := strings.CutPrefix(subject, "mailto:"); ok {
		local, host, _ := strings.Cut(address, "@")
		host = strings.ToLower(host)
		if local == "" || !validHost(host) || strings.ContainsFunc(local, func(r rune) bool {
			return r <= ' ' || r > '~' || strings.ContainsRune(`"<>(),:;\?%`, r)
		}) {
			return "", errors.New("must be one plain address after mailto:, such as mailto:ops@example.com")
		}
		return host, nil
	}
	u, err := url.Parse(subject)
	if err != nil || u.Scheme != "https" || !strings.HasPrefix(subject, "https://") || u.User != nil || !validHost(strings.ToLower(u.Hostname())) {
		return "", errors.New("must start with mailto: or https://, such as mailto:ops@example.com")
	}
	return strings.ToLower(u.Hostname()), nil
}
