package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// keys of every kind, made once: RSA is slow.
var (
	rsaKey, _     = rsa.GenerateKey(rand.Reader, 2048)
	weakRSA, _    = rsa.GenerateKey(rand.Reader, 1024)
	p256Key, _    = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384Key, _    = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, edKey, _   = ed25519.GenerateKey(rand.Reader)
	otherRSA, _   = rsa.GenerateKey(rand.Reader, 2048)
	discard       = slog.New(slog.NewTextHandler(io.Discard, nil))
	testClock     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	stoppedClock  = func() time.Time { return testClock }
	validOptions  = JWTOptions{Issuer: testIssuer, Audience: testAudience, UserClaim: "sub", MerchantClaim: "merchant", Leeway: 30 * time.Second, Log: discard}
	withSecret    = with(func(o *JWTOptions) { o.HS256Secret = Secret(testSecret) })
	withPublicKey = func(k crypto.PublicKey) JWTOptions { return with(func(o *JWTOptions) { o.PublicKey = k }) }
)

func with(change func(*JWTOptions)) JWTOptions {
	o := validOptions
	change(&o)
	return o
}

func newAuth(t *testing.T, o JWTOptions) *Auth {
	t.Helper()
	a, err := NewAuth(t.Context(), o, stoppedClock)
	must(t, err)
	return a
}

// raw joins a header, claims and whatever stands for a signature.
func raw(header, claims any, signature string) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	return part(header) + "." + part(claims) + "." + signature
}

func signedText(text string) string {
	sig, err := jwt.SigningMethodHS256.Sign(text, []byte(testSecret))
	if err != nil {
		panic(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// looseBits spells the same signature otherwise: its last character has two bits
// that mean nothing.
func looseBits(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[last|1])
}

func TestGoodTokens(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options JWTOptions
		method  jwt.SigningMethod
		key     any
		change  jwt.MapClaims
	}{
		"HS256":                 {withSecret, jwt.SigningMethodHS256, []byte(testSecret), nil},
		"RS256":                 {withPublicKey(&rsaKey.PublicKey), jwt.SigningMethodRS256, rsaKey, nil},
		"ES256":                 {withPublicKey(&p256Key.PublicKey), jwt.SigningMethodES256, p256Key, nil},
		"EdDSA":                 {withPublicKey(edKey.Public()), jwt.SigningMethodEdDSA, edKey, nil},
		"one of audiences":      {withSecret, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"aud": []string{"x", testAudience}}},
		"within the leeway":     {withSecret, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"exp": testClock.Add(-29 * time.Second).Unix()}},
		"a long user":           {withSecret, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"sub": strings.Repeat("x", 256)}},
		"a single merchant":     {with(func(o *JWTOptions) { o.HS256Secret, o.MerchantClaim, o.SingleMerchant = Secret(testSecret), "", "acme" }), jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"merchant": "other"}},
		"another user claim":    {with(func(o *JWTOptions) { o.HS256Secret, o.UserClaim = Secret(testSecret), "uid" }), jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"uid": "12345", "sub": nil}},
		"issued a moment later": {withSecret, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"iat": testClock.Add(30 * time.Second).Unix()}},
		"dates of zero":         {withSecret, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"iat": 0, "nbf": 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims := goodClaims(testClock, c.change)
			id, err := newAuth(t, c.options).verify(t.Context(), sign(t, c.method, c.key, nil, claims))
			must(t, err)
			want := "12345"
			if s, ok := claims["sub"].(string); ok {
				want = s
			}
			if id.User.Merchant != "acme" || id.User.ID != want || id.Expires.Unix() != claims["exp"] {
				t.Errorf("%+v", id)
			}
		})
	}
}

// TestSubjectIsAText: also where another claim names the user.
func TestSubjectIsAText(t *testing.T) {
	t.Parallel()
	a := newAuth(t, with(func(o *JWTOptions) { o.HS256Secret, o.UserClaim = Secret(testSecret), "uid" }))
	for _, sub := range []any{12345, []string{"12345"}, true} {
		if _, err := a.verify(t.Context(), sign(t, jwt.SigningMethodHS256, []byte(testSecret), nil, goodClaims(testClock, jwt.MapClaims{"uid": "12345", "sub": sub}))); err == nil {
			t.Errorf("%v was taken", sub)
		}
	}
}

// TestAuthTime: a sign-in is as old as the token says, and of an unknown age if it
// says something else.
func TestAuthTime(t *testing.T) {
	t.Parallel()
	a := newAuth(t, withSecret)
	for _, c := range []struct {
		claim any
		want  int64 // 0: unknown
	}{
		{testClock.Unix(), testClock.Unix()},
		{float64(testClock.Unix()) - 0.5, testClock.Unix() - 1},
		{1, 1},
		{testClock.Add(30 * time.Second).Unix(), testClock.Add(30 * time.Second).Unix()},
		{testClock.Add(31 * time.Second).Unix(), 0},
		{nil, 0}, {0, 0}, {-1, 0}, {"1772366400", 0}, {true, 0}, {[]int{1}, 0}, {1e300, 0}, {-1e300, 0}, {json.RawMessage("null"), 0},
	} {
		id, err := a.verify(t.Context(), sign(t, jwt.SigningMethodHS256, []byte(testSecret), nil, goodClaims(testClock, jwt.MapClaims{"auth_time": c.claim})))
		must(t, err)
		if want := c.want; id.AuthTime.IsZero() != (want == 0) || want != 0 && id.AuthTime.Unix() != want {
			t.Errorf("%v: %s", c.claim, id.AuthTime)
		}
	}
}

func TestNewAuthRefusesMistakes(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]JWTOptions{
		"no issuer":              with(func(o *JWTOptions) { o.HS256Secret, o.Issuer = Secret(testSecret), "" }),
		"no audience":            with(func(o *JWTOptions) { o.HS256Secret, o.Audience = Secret(testSecret), "" }),
		"no user claim":          with(func(o *JWTOptions) { o.HS256Secret, o.UserClaim = Secret(testSecret), "" }),
		"no merchant":            with(func(o *JWTOptions) { o.HS256Secret, o.MerchantClaim = Secret(testSecret), "" }),
		"claim and one merchant": with(func(o *JWTOptions) { o.HS256Secret, o.SingleMerchant = Secret(testSecret), "acme" }),
		"no key":                 validOptions,
		"a leeway below zero":    with(func(o *JWTOptions) { o.HS256Secret, o.Leeway = Secret(testSecret), -time.Second }),
		"a leeway without end":   with(func(o *JWTOptions) { o.HS256Secret, o.Leeway = Secret(testSecret), 6*time.Minute }),
		"two keys":               with(func(o *JWTOptions) { o.HS256Secret, o.PublicKey = Secret(testSecret), edKey.Public() }),
		"weak RSA":               withPublicKey(&weakRSA.PublicKey),
		"P-384":                  withPublicKey(&p384Key.PublicKey),
		"a private key":          withPublicKey(edKey),
		"JWKS that is no URL":    with(func(o *JWTOptions) { o.JWKSURL = "keys" }),
		"JWKS without a log":     with(func(o *JWTOptions) { o.JWKSURL, o.Log = "https://id.example.com/keys", nil }),
	} {
		_, err := NewAuth(t.Context(), o, stoppedClock)
		if err == nil {
			t.Errorf("%s was taken", name)
		} else if strings.Contains(err.Error(), testSecret) {
			t.Errorf("%s: the error quotes the secret", name)
		}
	}
}

func TestStreamsEndWithTheirToken(t *testing.T) {
	t.Parallel()
	a := newAuth(t, withSecret)
	for left, want := range map[time.Duration]time.Duration{
		time.Hour: time.Hour, time.Second: time.Second, 0: 30 * time.Second, -10 * time.Second: 20 * time.Second, // within the leeway
	} {
		if got := a.until(identity{Expires: testClock.Add(left)}); got != want {
			t.Errorf("%s before the expiry: %s, want %s", left, got, want)
		}
	}
}

// TestRefusedHeaders: everything that is wrong with a request's credentials gets
// one and the same answer.
func TestRefusedHeaders(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	good := b.token()
	var first string
	for name, values := range map[string][]string{
		"none":                nil,
		"empty":               {""},
		"no scheme":           {good},
		"Basic":               {"Basic " + good},
		"no token":            {"Bearer "},
		"two headers":         {"Bearer " + good, "Bearer " + good},
		"two, one bad":        {"Bearer x", "Bearer " + good},
		"two in one":          {"Bearer " + good + ", Bearer " + good},
		"a space too many":    {"Bearer  " + good},
		"over 8 KiB":          {"Bearer " + b.token(jwt.MapClaims{"padding": strings.Repeat("x", 7<<10)})},
		"over 8 KiB, rat_":    {"Bearer rat_" + strings.Repeat("x", 9<<10)},
		"merchant not here":   {"Bearer " + b.token(jwt.MapClaims{"merchant": "nobody"})},
		"no action token":     {"Bearer rat_"},
		"a made action token": {"Bearer rat_e30.AAAA"},
		"expired":             {"Bearer " + b.token(jwt.MapClaims{"exp": b.clock.Now().Add(-time.Hour).Unix()})},
		"the operator's":      {"Bearer " + testAdmin},
	} {
		a := b.call(request{method: "GET", path: "/v1/challenges?token=" + good + "&access_token=" + good, header: http.Header{"Authorization": values}})
		a.problem(401, "unauthorized")
		if got := a.Header.Get("WWW-Authenticate"); got != "Bearer" {
			t.Errorf("%s: WWW-Authenticate %q", name, got)
		}
		if first == "" {
			first = withoutRequestID(t, a)
		}
		if got := withoutRequestID(t, a); got != first {
			t.Errorf("%s: %s differs from %s", name, got, first)
		}
	}
	b.call(request{method: "GET", path: "/v1/challenges", header: http.Header{"Authorization": {"bearer " + good}}}).status(200)
}

func withoutRequestID(t testing.TB, a answer) string {
	t.Helper()
	return strings.Replace(string(a.Body), a.Header.Get("X-Request-Id"), "ID", 1)
}

// TestActionTokenScope: good for its one challenge, from its subscription, until
// either is gone.
func TestActionTokenScope(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	sub := b.phone("https://fcm.googleapis.com/fcm/send/phone")
	other := b.challenge("acme", "CARD_3DS", nil)
	mine := b.challenge("acme", "CARD_3DS", map[string]any{"otp": "045435"})
	token := b.actionToken(mine)
	as := func(method, path string) answer {
		return b.call(request{method: method, path: path, token: token})
	}
	for _, r := range signedInCalls() {
		r.token = token
		b.call(r).problem(401, "unauthorized")
	}
	for _, action := range []string{"approve", "reject", "reveal", "done"} {
		as("POST", "/v1/challenges/"+other+"/"+action).problem(401, "unauthorized")
	}
	as("GET", "/v1/challenges/"+other).problem(401, "unauthorized")

	as("GET", "/v1/challenges/"+mine).status(200)
	as("POST", "/v1/challenges/"+mine+"/approve").problem(409, "wrong_method")
	as("POST", "/v1/challenges/"+mine+"/reveal").status(200)
	as("POST", "/v1/challenges/"+mine+"/done").status(200)
	as("GET", "/v1/challenges/"+mine).problem(401, "unauthorized") // it has ended

	third := b.challenge("acme", "CARD_3DS", nil)
	token = b.actionToken(third)
	as("GET", "/v1/challenges/"+third).status(200)
	b.call(request{method: "DELETE", path: "/v1/push/subscriptions/" + sub, token: b.token()}).status(204)
	as("GET", "/v1/challenges/"+third).problem(401, "unauthorized")
	as("POST", "/v1/challenges/"+third+"/approve").problem(401, "unauthorized")
}

func TestActionTokenDecidesAsItsDevice(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	sub := b.phone("https://fcm.googleapis.com/fcm/send/phone")
	id := b.challenge("acme", "CARD_3DS", nil)
	b.call(request{
		method: "POST", path: "/v1/challenges/" + id + "/approve", token: b.actionToken(id),
		header: http.Header{"User-Agent": {"Browser/1.0\tü" + strings.Repeat("x", 300)}, "X-Forwarded-For": {"203.0.113.9"}},
	}).status(200)
	c, err := b.store.Challenge(t.Context(), id)
	must(t, err)
	d := c.Decision.Device
	if d.SubscriptionID != sub || d.IP != "127.0.0.1" || d.UserAgent != "Browser/1.0ü"+strings.Repeat("x", 188) {
		t.Errorf("%+v", d)
	}
}
