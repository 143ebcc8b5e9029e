package push

import (
	"encoding/base64"
	"strings"
	"testing"
)

func newTestVAPID(t testing.TB) VAPID {
	t.Helper()
	public, private, err := GenerateVAPID()
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVAPID("mailto:ops@example.com", public, private)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestNewVAPIDKeys(t *testing.T) {
	t.Parallel()
	public, private, err := GenerateVAPID()
	if err != nil {
		t.Fatal(err)
	}
	otherPublic, otherPrivate, err := GenerateVAPID()
	if err != nil {
		t.Fatal(err)
	}
	rawPublic, _ := base64.RawURLEncoding.DecodeString(public)
	rawPrivate, _ := base64.RawURLEncoding.DecodeString(private)
	std := base64.StdEncoding.EncodeToString
	v, err := NewVAPID("https://example.com/contact", std(rawPublic), std(rawPrivate))
	if err != nil || v.PublicKey != public {
		t.Errorf("standard base64: %v, public key %q", err, v.PublicKey)
	}
	for _, c := range []struct{ name, public, private, want string }{
		{"other private", public, otherPrivate, "does not belong"},
		{"other public", otherPublic, private, "does not belong"},
		{"swapped", private, public, "public key: must be 65 bytes"},
		{"no public", "", private, "public key: is missing"},
		{"no private", public, "", "private key: is missing"},
		{"short private", public, base64.RawURLEncoding.EncodeToString(rawPrivate[:31]), "private key: must be 32 bytes"},
		{"zero private", public, base64.RawURLEncoding.EncodeToString(make([]byte, 32)), "private key: must be a P-256 key"},
		{"public off the curve", base64.RawURLEncoding.EncodeToString(append([]byte{4}, make([]byte, 64)...)), private, "public key: must be an uncompressed point"},
	} {
		_, err := NewVAPID("mailto:ops@example.com", c.public, c.private)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err != nil && c.private != "" && strings.Contains(err.Error(), c.private) {
			t.Errorf("%s: the error quotes the key", c.name)
		}
	}
}

func TestVAPIDSubject(t *testing.T) {
	t.Parallel()
	public, private, err := GenerateVAPID()
	if err != nil {
		t.Fatal(err)
	}
	for subject, warns := range map[string]bool{
		"mailto:ops@example.com": false, "mailto:a.b+c@mail.example.co.uk": false, "https://example.com/contact": false,
		"mailto:ops@localhost": true, "mailto:ops@relay.invalid": true, "https://localhost:8080": true, "https://x.Invalid/": true,
	} {
		v, err := NewVAPID(subject, public, private)
		if err != nil || (v.Warning() != "") != warns {
			t.Errorf("%s: %v, warning %q", subject, err, v.Warning())
		}
	}
	for _, subject := range []string{"", "ops@example.com", "mailto:", "mailto:ops", "mailto:@example.com", "mailto:mailto:ops@example.com",
		"mailto:<ops@example.com>", "mailto:a@example.com,b@example.com", "mailto:a@example.com?subject=x", "mailto:a b@example.com",
		"http://example.com", "https:example.com", "https://", "https://u:p@example.com", "MAILTO:ops@example.com"} {
		if _, err := NewVAPID(subject, public, private); err == nil || !strings.Contains(err.Error(), "vapid subject") {
			t.Errorf("%q: %v", subject, err)
		}
	}
}
