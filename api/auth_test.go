package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
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

func TestBadTokens(t *testing.T) {
	t.Parallel()
	hs := func(header map[string]any, change ...jwt.MapClaims) string {
		return sign(t, jwt.SigningMethodHS256, []byte(testSecret), header, goodClaims(testClock, change...))
	}
	claim := func(name string, v any) string { return hs(nil, jwt.MapClaims{name: v}) }
	good := hs(nil)
	parts := strings.Split(good, ".")
	withTail := base64.RawURLEncoding.EncodeToString(append(decodePart(t, parts[1]), " {}"...))
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: publicDER(t, &rsaKey.PublicKey)})

	for name, token := range map[string]string{
		"empty":                       "",
		"not a token":                 "hello",
		"two parts":                   parts[0] + "." + parts[1],
		"no signature":                parts[0] + "." + parts[1] + ".",
		"a fourth part":               good + ".e30",
		"data after the token":        good + "AA",
		"data after the claims":       signedText(parts[0] + "." + withTail),
		"padding":                     parts[0] + "=." + parts[1] + "." + parts[2],
		"not base64":                  "!" + good,
		"altered claims":              parts[0] + "." + parts[1][:len(parts[1])-2] + "AA." + parts[2],
		"altered signature":           parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])),
		"loose bits in the signature": looseBits(good),
		"alg none":                    raw(map[string]any{"alg": "none", "typ": "JWT"}, goodClaims(testClock), ""),
		"alg nOnE":                    raw(map[string]any{"alg": "nOnE"}, goodClaims(testClock), ""),
		"alg none with a signature":   raw(map[string]any{"alg": "none"}, goodClaims(testClock), parts[2]),
		"alg missing":                 raw(map[string]any{"typ": "JWT"}, goodClaims(testClock), parts[2]),
		"alg a number":                raw(map[string]any{"alg": 256}, goodClaims(testClock), parts[2]),
		"header not an object":        raw("HS256", goodClaims(testClock), parts[2]),
		"claims not an object":        signedText(parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`["sub"]`))),
		"HS384 under the secret":      sign(t, jwt.SigningMethodHS384, []byte(testSecret), nil, goodClaims(testClock)),
		"HS512 under the secret":      sign(t, jwt.SigningMethodHS512, []byte(testSecret), nil, goodClaims(testClock)),
		"RS256":                       sign(t, jwt.SigningMethodRS256, rsaKey, nil, goodClaims(testClock)),
		"another secret":              sign(t, jwt.SigningMethodHS256, []byte("another secret of thirty-two bytes"), nil, goodClaims(testClock)),
		"a public key as the secret":  sign(t, jwt.SigningMethodHS256, pemKey, nil, goodClaims(testClock)),
		"crit":                        hs(map[string]any{"crit": []string{"exp"}}),
		"crit, empty":                 hs(map[string]any{"crit": []string{}}),
		"crit, null":                  hs(map[string]any{"crit": nil}),
		"no issuer":                   claim("iss", nil),
		"wrong issuer":                claim("iss", "https://evil.example.com"),
		"issuer with a slash":         claim("iss", testIssuer+"/"),
		"issuer a list":               claim("iss", []string{testIssuer}),
		"no audience":                 claim("aud", nil),
		"wrong audience":              claim("aud", "someone-else"),
		"wrong audiences":             claim("aud", []string{"a", "b"}),
		"empty audience":              claim("aud", ""),
		"audience a number":           claim("aud", 5),
		"no expiry":                   claim("exp", nil),
		"expired":                     claim("exp", testClock.Add(-31*time.Second).Unix()),
		"expired at the leeway":       claim("exp", testClock.Add(-30*time.Second).Unix()),
		"expiry a text":               claim("exp", "2099-01-01T00:00:00Z"),
		"expiry zero":                 claim("exp", 0),
		"expiry below zero":           claim("exp", -1),
		"not yet valid":               claim("nbf", testClock.Add(31*time.Second).Unix()),
		"not before a text":           claim("nbf", "soon"),
		"no user":                     claim("sub", nil),
		"empty user":                  claim("sub", ""),
		"user a number":               claim("sub", 12345),
		"user a list":                 claim("sub", []string{"12345"}),
		"user too long":               claim("sub", strings.Repeat("x", 257)),
		"user with a line break":      claim("sub", "123\n45"),
		"user with a tab":             claim("sub", "acme\t12345"),
		"user with DEL":               claim("sub", "123\x7f"),
		"no merchant":                 claim("merchant", nil),
		"merchant a number":           claim("merchant", 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, err := newAuth(t, withSecret).verify(t.Context(), token)
			if !errors.Is(err, errUnauthorized) || id != (identity{}) {
				t.Errorf("%+v, %v", id, err)
			}
		})
	}
}

func decodePart(t *testing.T, part string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(part)
	must(t, err)
	return b
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

func publicDER(t *testing.T, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	must(t, err)
	return der
}

func TestGoodTokens(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options JWTOptions
		method  jwt.SigningMethod
		key     any
		change  jwt.MapClaims
	}{
		"HS256":                {withSecret, jwt.SigningMethodHS256, []byte(testSecret), nil},
		"RS256":                {withPublicKey(&rsaKey.PublicKey), jwt.SigningMethodRS256, rsaKey, nil},
		"ES256":                {withPublicKey(&p256Key.PublicKey), jwt.SigningMethodES256, p256Key, nil},
		"EdDSA":                {withPublicKey(edKey.Public()), jwt.SigningMethodEdDSA, edKey, nil},
		"one of audiences":     {withSecret, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"aud": []string{"x", testAudience}}},
		"within the leeway":    {withSecret, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"exp": testClock.Add(-29 * time.Second).Unix()}},
		"a long user":          {withSecret, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"sub": strings.Repeat("x", 256)}},
		"a single merchant":    {with(func(o *JWTOptions) { o.HS256Secret, o.MerchantClaim, o.SingleMerchant = Secret(testSecret), "", "acme" }), jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"merchant": "other"}},
		"another user claim":   {with(func(o *JWTOptions) { o.HS256Secret, o.UserClaim = Secret(testSecret), "uid" }), jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"uid": "12345", "sub": nil}},
		"issued in the future": {withSecret, jwt.SigningMethodHS256, []byte(testSecret), jwt.MapClaims{"iat": testClock.Add(time.Hour).Unix()}},
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

// TestAlgorithmConfusion: a key is good for the one algorithm of its type.
func TestAlgorithmConfusion(t *testing.T) {
	t.Parallel()
	der := publicDER(t, &rsaKey.PublicKey)
	pkcs1 := x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)
	for name, secret := range map[string][]byte{
		"PEM":        pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"DER":        der,
		"PKCS 1 PEM": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
		"Ed25519":    edKey.Public().(ed25519.PublicKey),
	} {
		for _, key := range []crypto.PublicKey{&rsaKey.PublicKey, edKey.Public(), &p256Key.PublicKey} {
			token := sign(t, jwt.SigningMethodHS256, secret, nil, goodClaims(testClock))
			if _, err := newAuth(t, withPublicKey(key)).verify(t.Context(), token); err == nil {
				t.Errorf("the %s public key was taken as a secret for %T", name, key)
			}
		}
	}
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodRS384, jwt.SigningMethodRS512, jwt.SigningMethodPS256} {
		if _, err := newAuth(t, withPublicKey(&rsaKey.PublicKey)).verify(t.Context(), sign(t, method, rsaKey, nil, goodClaims(testClock))); err == nil {
			t.Errorf("%s was taken", method.Alg())
		}
	}
	if _, err := newAuth(t, withPublicKey(&rsaKey.PublicKey)).verify(t.Context(), sign(t, jwt.SigningMethodRS256, otherRSA, nil, goodClaims(testClock))); err == nil {
		t.Error("another key's signature was taken")
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
