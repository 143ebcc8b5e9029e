package crypto_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
	"time"

	"approvalrelay/crypto"
)

func root(t testing.TB) crypto.Root {
	t.Helper()
	r, err := crypto.NewRoot(rootKey)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	expires = time.UnixMilli(1750000000123).UTC()
	claims  = crypto.Claims{Merchant: "acme", User: "12345", Challenge: "chl_1", Subscription: "sub_1", Expires: expires}
)

// goldenToken, and the values below, were made by another implementation.
const goldenToken = "rat_eyJtIjoiYWNtZSIsInUiOiIxMjM0NSIsImMiOiJjaGxfMSIsInMiOiJzdWJfMSIsImUiOjE3NTAwMDAwMDAxMjN9.0qmYPi05bW7Ncv9EuZ6Zh-TJpDHVXNr3f_rheYbOyGI"

// Stored data and other nodes depend on these staying as they are.
func TestRootDerivesKnownValues(t *testing.T) {
	t.Parallel()
	r := root(t)
	for name, c := range map[string]struct{ got, want string }{
		"fingerprint": {hex.EncodeToString(r.Fingerprint([]byte("acme"), []byte("{}"))), "d9ad1973e1e5b8716a2dc59a9c88a65b808dd435c9e886cf29b23b5efeabbef3"},
		"PAN token":   {r.PANToken("acme", "4242424242424242"), "pan_lqhd6jo3iewilof2okdclupodi"},
		"activation":  {r.Activation("sub_1", "nonce"), "LDKSH2GB"},
		"token":       {r.SignToken(claims), goldenToken},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", name, c.got, c.want)
		}
	}
}

func TestRootKeepsPartsAndKeysApart(t *testing.T) {
	t.Parallel()
	r := root(t)
	other, err := crypto.NewRoot(otherKey)
	if err != nil {
		t.Fatal(err)
	}
	b := func(s string) []byte { return []byte(s) }
	seen := map[string]int{}
	for i, print := range [][]byte{
		r.Fingerprint(), r.Fingerprint(nil), r.Fingerprint(nil, nil),
		r.Fingerprint(b("ab"), b("c")), r.Fingerprint(b("a"), b("bc")), r.Fingerprint(b("abc")),
		r.Fingerprint(b("abc"), nil), r.Fingerprint(nil, b("abc")), other.Fingerprint(b("abc")),
	} {
		if first, twice := seen[string(print)]; twice {
			t.Errorf("fingerprints %d and %d are equal", first, i)
		}
		seen[string(print)] = i
	}
	if r.PANToken("a", "b4242") == r.PANToken("ab", "4242") || r.PANToken("a", "4242") == r.PANToken("b", "4242") {
		t.Error("merchants share a PAN token")
	}
	if r.Activation("a", "bc") == r.Activation("ab", "c") || r.Activation("a") == other.Activation("a") {
		t.Error("activation codes of different parts or keys are equal")
	}
}

func TestRootFormats(t *testing.T) {
	t.Parallel()
	r := root(t)
	pan, code := regexp.MustCompile(`^pan_[a-z2-7]{26}$`), regexp.MustCompile(`^[2-9A-HJ-NP-Z]{8}$`)
	for i := range 200 {
		part := strings.Repeat("x", i)
		if token := r.PANToken("acme", part); !pan.MatchString(token) {
			t.Errorf("PAN token %q", token)
		}
		if c := r.Activation(part); !code.MatchString(c) {
			t.Errorf("activation code %q", c)
		}
	}
}

func TestVerifyToken(t *testing.T) {
	t.Parallel()
	r := root(t)
	got, err := r.VerifyToken(goldenToken, expires.Add(-time.Millisecond))
	if err != nil || got != claims {
		t.Fatalf("%+v, %v; want %+v", got, err, claims)
	}
	other, err := crypto.NewRoot(otherKey)
	if err != nil {
		t.Fatal(err)
	}
	long := claims
	long.User = strings.Repeat("x", 700)
	body, mac, _ := strings.Cut(goldenToken, ".")
	for name, c := range map[string]struct {
		token string
		now   time.Time
	}{
		"at expiry":            {goldenToken, expires},
		"after expiry":         {goldenToken, expires.Add(time.Hour)},
		"never expiring":       {r.SignToken(crypto.Claims{}), expires},
		"other key":            {other.SignToken(claims), time.Time{}},
		"over 1 KiB":           {r.SignToken(long), time.Time{}},
		"empty":                {"", time.Time{}},
		"prefix only":          {"rat_", time.Time{}},
		"no MAC":               {body, time.Time{}},
		"empty MAC":            {body + ".", time.Time{}},
		"no prefix":            {goldenToken[4:], time.Time{}},
		"other prefix":         {"pan_" + goldenToken[4:], time.Time{}},
		"newline at the end":   {goldenToken + "\n", time.Time{}},
		"newline in the body":  {body[:9] + "\n" + body[9:] + "." + mac, time.Time{}},
		"padded MAC":           {goldenToken + "=", time.Time{}},
		"spare bits of MAC":    {goldenToken[:len(goldenToken)-1] + "J", time.Time{}},
		"something after it":   {goldenToken + ".x", time.Time{}},
		"signed, but not JSON": {forge(t, "rat_!!!"), time.Time{}},
		"signed, JSON array":   {forge(t, "rat_"+base64.RawURLEncoding.EncodeToString([]byte("[]"))), time.Time{}},
	} {
		if got, err := r.VerifyToken(c.token, c.now); err != crypto.ErrToken || got != (crypto.Claims{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// forge signs any text with the right key, to reach what lies behind the MAC.
func forge(t *testing.T, signed string) string {
	t.Helper()
	key, err := hkdf.Key(sha256.New, rootKey, nil, "approvalrelay/v1 token", 32)
	if err != nil {
		t.Fatal(err)
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func TestForgeSignsLikeRoot(t *testing.T) {
	t.Parallel()
	body, _, _ := strings.Cut(goldenToken, ".")
	if forge(t, body) != goldenToken {
		t.Error("forge does not make valid MACs, so tests with it prove nothing")
	}
}

func FuzzVerifyToken(f *testing.F) {
	f.Add(goldenToken, "acme", "u", uint16(0), uint8(1))
	f.Add("rat_.", "", "<&>\"", uint16(70), uint8(0x20))
	f.Add(strings.Repeat("rat_", 300), "é", "\x00", uint16(500), uint8(0xff))
	r := root(f)
	f.Fuzz(func(t *testing.T, arbitrary, merchant, user string, at uint16, flip uint8) {
		now := expires.Add(-time.Minute)
		got, err := r.VerifyToken(arbitrary, now)
		if arbitrary != goldenToken && err != crypto.ErrToken {
			t.Fatalf("arbitrary text: %+v, %v", got, err)
		}
		if len(merchant)+len(user) > 80 {
			merchant, user = "acme", "12345"
		}
		want := claims
		// JSON holds no invalid UTF-8.
		want.Merchant, want.User = strings.ToValidUTF8(merchant, "?"), strings.ToValidUTF8(user, "?")
		token := []byte(r.SignToken(want))
		got, err = r.VerifyToken(string(token), now)
		if err != nil || got != want {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
		before := bytes.Clone(token)
		token[int(at)%len(token)] ^= flip | 1
		if got, err := r.VerifyToken(string(token), now); err != crypto.ErrToken {
			t.Fatalf("%s made of %s: %+v, %v", token, before, got, err)
		}
	})
}
