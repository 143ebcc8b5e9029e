package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// badToken is one thing that is wrong; in says with which configurations, all if empty.
type badToken struct {
	name string
	make func(m mint) string
	in   string
}

// asymmetric are those configurations whose key an attacker knows.
const asymmetric = "RS256 ES256 EdDSA JWKS"

func badTokens(trap string) []badToken {
	var all []badToken
	add := func(name string, make func(m mint) string, in ...string) {
		all = append(all, badToken{name, make, strings.Join(in, " ")})
	}
	literal := func(name, claim, old string, values ...string) {
		for _, v := range values {
			add(name+" "+v[:min(len(v), 20)], func(m mint) string { return m.inClaims(old, claim+v) })
		}
	}
	exp := fmt.Sprintf(`"exp":%d`, testClock.Add(time.Hour).Unix())
	at := func(d time.Duration) string { return fmt.Sprint(testClock.Add(d).Unix()) }

	// What must be said, and how.
	for _, name := range []string{"exp", "iss", "aud", "sub", "merchant"} {
		add(name+" missing", func(m mint) string { return m.claims(jwt.MapClaims{name: nil}) })
	}
	literal("exp", `"exp":`, exp, at(-31*time.Second), at(-30*time.Second), "0", "-1", "-1e300", "1e300", "1e400", "253402300800", "9223372036854775807", "9223372036854775808",
		"18446744073709551616", "null", `"`+at(time.Hour)+`"`, `"2099-01-01T00:00:00Z"`, "true", "["+at(time.Hour)+"]", "{}", "NaN", "0x7fffffff", "+"+at(time.Hour))
	for _, name := range []string{"nbf", "iat"} {
		literal(name, exp+`,"`+name+`":`, exp, at(31*time.Second), at(time.Hour), "-1", "1e300", "-1e300", "253402300800", "null", `"soon"`, `"`+at(-time.Hour)+`"`, "false", "[]", "{}")
	}
	literal("aud", `"aud":`, `"aud":"relay"`, `"someone-else"`, `["a","b"]`, `[]`, `""`, `[""]`, `5`, `null`, `true`, `{"relay":true}`, `["relay",5]`, `[["relay"]]`, `"rela"`, `"relay "`, `"RELAY"`, `"relay,x"`)
	literal("iss", `"iss":`, `"iss":"`+testIssuer+`"`, `"https://evil.example.com"`, `"`+testIssuer+`/"`, `"HTTPS://ID.EXAMPLE.COM"`, `""`, `["`+testIssuer+`"]`, `7`, `null`, `{}`)
	literal("sub", `"sub":`, `"sub":"12345"`, `""`, `12345`, `["12345"]`, `{"id":"12345"}`, `null`, `true`, `"123\n45"`, `"acme\t12345"`, `"123\u0000"`, `"123\u007f"`, `"\ud800"`, `"\ufffd"`, `"`+strings.Repeat("x", 257)+`"`)
	literal("merchant", `"merchant":`, `"merchant":"acme"`, `"nobody"`, `"ACME"`, `""`, `1`, `null`, `["acme"]`)
	literal("events", `"events":`, `"exp":`, `{"http://schemas.openid.net/event/backchannel-logout":{}},"exp":`, `null,"exp":`)

	// The header.
	for _, typ := range []any{"logout+jwt", "secevent+jwt", "application/secevent+jwt", "dpop+jwt", "JOSE", "JWE", "JWT ", "", 1, []string{"JWT"}, nil, true} {
		add(fmt.Sprintf("typ %v", typ), func(m mint) string { return m.good(map[string]any{"typ": typ}) })
	}
	for _, crit := range []any{[]string{"exp"}, []string{"b64"}, []string{}, nil, "exp", []string{"kid"}} {
		add(fmt.Sprintf("crit %v", crit), func(m mint) string { return m.good(map[string]any{"crit": crit}) })
	}
	for _, v := range []any{false, true, nil} {
		add(fmt.Sprintf("b64 %v", v), func(m mint) string { return m.good(map[string]any{"b64": v}) })
	}
	add("b64 false, critical, unencoded", func(m mint) string {
		_, claims := m.texts()
		return m.signParts(b64([]byte(`{"alg":"`+m.method.Alg()+`","b64":false,"crit":["b64"]}`)), claims)
	})
	for _, kid := range []any{1, true, nil, []string{"rsa"}, map[string]any{"rsa": 1}, "", strings.Repeat("k", 257), strings.Repeat("k", 5<<10)} {
		add(fmt.Sprintf("kid %.20v", kid), func(m mint) string { return m.good(map[string]any{"kid": kid}) })
	}
	for _, kid := range []string{"unknown", "RSA", "rsa ", "ec", "ed", "../../../../dev/null", "/proc/sys/kernel/randomize_va_space", "rsa' OR '1'='1", "x' UNION SELECT 'key'--",
		"rsa\x00", "%2e%2e/rsa", trap + "/key", "|id", "*", "${jndi:ldap://127.0.0.1/a}"} {
		add(fmt.Sprintf("kid %.20q", kid), func(m mint) string { return m.good(map[string]any{"kid": kid}) }, "JWKS")
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "", "none ", "HS256 ", "hs256", "RSA", "dir"} {
		add(fmt.Sprintf("alg %q", alg), func(m mint) string { return m.inHeader(`"alg":"`+m.method.Alg()+`"`, `"alg":"`+alg+`"`) })
		add(fmt.Sprintf("alg %q, unsigned", alg), func(m mint) string {
			text, _ := cutLast(m.inHeader(`"alg":"`+m.method.Alg()+`"`, `"alg":"`+alg+`"`))
			return text + "."
		})
	}
	for _, alg := range []string{`null`, `256`, `["none"]`, `{}`, `true`} {
		add("alg "+alg, func(m mint) string { return m.inHeader(`"alg":"`+m.method.Alg()+`"`, `"alg":`+alg) })
	}
	add("alg missing", func(m mint) string { return m.inHeader(`"alg":`, `"x":`) })
	add("Alg", func(m mint) string { return m.inHeader(`"alg":`, `"Alg":`) })

	// Names that stand twice; the good one first, and last.
	add("alg twice", func(m mint) string { return m.inHeader(`{`, `{"alg":"none",`) })
	add("alg twice, the same", func(m mint) string { return m.inHeader(`{`, `{"alg":"`+m.method.Alg()+`",`) })
	add("typ twice", func(m mint) string { return m.inHeader(`{`, `{"typ":"logout+jwt",`) })
	for _, claim := range []string{`"sub":"666"`, `"exp":1`, `"iss":"x"`, `"aud":"x"`, `"merchant":"other"`, `"s\u0075b":"666"`, `"x":1,"x":1`, `"x":{"y":1,"y":2}`, `"x":[[{"y":1,"y":2}]]`, `"":1,"":2`} {
		add("twice "+claim, func(m mint) string { return m.inClaims(`{`, `{`+claim+`,`) })
	}
	add("sub twice, the other last", func(m mint) string { return m.inClaims(`"sub":"12345"`, `"sub":"12345","sub":"12346"`) })

	// Keys that a token brings along, and places where it says they are.
	add("another key", func(m mint) string { return m.with(m.method, m.other, nil) })
	for _, name := range []string{"jku", "x5u"} {
		add(name, func(m mint) string { return m.with(m.method, m.other, nil, map[string]any{name: trap + "/keys"}) })
	}
	add("jwk", func(m mint) string { return m.with(m.method, m.other, nil, map[string]any{"jwk": m.jwk(m.other)}) })
	add("x5c", func(m mint) string { return m.with(m.method, m.other, nil, map[string]any{"x5c": m.certificate()}) })
	add("jwk and jku without a kid", func(m mint) string {
		h := map[string]any{"jwk": m.jwk(m.other), "jku": trap + "/keys"}
		return sign(m.t, m.method, m.other, h, goodClaims(testClock))
	})

	// The public key as a secret.
	forms := map[string]func(crypto.PublicKey) []byte{
		"PEM": func(k crypto.PublicKey) []byte { return asPEM("PUBLIC KEY", publicDER(k)) },
		"PEM, no last line": func(k crypto.PublicKey) []byte {
			return []byte(strings.TrimSpace(string(asPEM("PUBLIC KEY", publicDER(k)))))
		},
		"DER":        publicDER,
		"base64 DER": func(k crypto.PublicKey) []byte { return []byte(base64.StdEncoding.EncodeToString(publicDER(k))) },
		"raw":        rawPublic,
	}
	for name, form := range forms {
		for _, method := range []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
			add(method.Alg()+" under the public key, "+name, func(m mint) string { return m.confused(method, form) }, asymmetric)
		}
	}
	add("HS256 under the public key, JWK", func(m mint) string {
		return m.with(jwt.SigningMethodHS256, []byte(asJSON(m.t, m.jwk(m.key))), nil)
	}, asymmetric)
	add("HS256 under the RSA modulus", func(m mint) string { return m.with(jwt.SigningMethodHS256, rsaKey.N.Bytes(), nil) }, "RS256 JWKS")
	add("HS256 under PKCS 1 PEM", func(m mint) string {
		return m.with(jwt.SigningMethodHS256, asPEM("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)), nil)
	}, "RS256 JWKS")
	add("HS256 under nothing", func(m mint) string { return m.with(jwt.SigningMethodHS256, []byte{}, nil) })
	add("HS256 under its own key id", func(m mint) string { return m.with(jwt.SigningMethodHS256, []byte("rsa"), nil) })

	// Other algorithms, of the right key where it can.
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
		add(method.Alg()+" under the secret", func(m mint) string { return m.with(method, m.key, nil) }, "HS256")
	}
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodPS256, jwt.SigningMethodPS384, jwt.SigningMethodRS384, jwt.SigningMethodRS512} {
		add(method.Alg(), func(m mint) string { return m.with(method, m.key, nil) }, "RS256 JWKS")
		add(method.Alg()+" called RS256", func(m mint) string { return m.with(method, m.key, nil, map[string]any{"alg": "RS256"}) }, "RS256 JWKS")
		add("RS256 called "+method.Alg(), func(m mint) string { return m.with(m.method, m.key, nil, map[string]any{"alg": method.Alg()}) }, "RS256 JWKS")
	}
	for _, c := range []struct {
		method jwt.SigningMethod
		key    any
		in     string
	}{
		{jwt.SigningMethodRS256, rsaKey, "HS256 ES256 EdDSA"}, {jwt.SigningMethodES256, p256Key, "HS256 RS256 EdDSA JWKS"},
		{jwt.SigningMethodEdDSA, edKey, "HS256 RS256 ES256 JWKS"}, {jwt.SigningMethodES384, p384Key, "HS256 RS256 ES256 EdDSA JWKS"},
	} { // JWKS: a key of the set, under the id of another
		add(c.method.Alg(), func(m mint) string { return m.with(c.method, c.key, nil) }, c.in)
		add(c.method.Alg()+" called ours", func(m mint) string { return m.with(c.method, c.key, nil, map[string]any{"alg": m.method.Alg()}) }, c.in)
		add("ours called "+c.method.Alg(), func(m mint) string { return m.good(map[string]any{"alg": c.method.Alg()}) }, c.in)
	}
	add("HS256 under a symmetric key of the set", func(m mint) string {
		return m.with(jwt.SigningMethodHS256, []byte(testSecret), nil, map[string]any{"kid": "oct"})
	}, "JWKS")
	add("a key for encryption", func(m mint) string { return m.with(m.method, otherRSA, nil, map[string]any{"kid": "enc"}) }, "JWKS")
	add("a key for another algorithm", func(m mint) string { return m.with(m.method, otherRSA, nil, map[string]any{"kid": "ps256"}) }, "JWKS")
	add("a published private key", func(m mint) string { return m.with(m.method, leakedRSA, nil, map[string]any{"kid": "private"}) }, "JWKS")
	for name, key := range map[string]*rsa.PrivateKey{"a key for encryption or another algorithm": otherRSA, "a published private key": leakedRSA, "a weak key": weakRSA} {
		add(name+", no kid", func(m mint) string { return sign(m.t, m.method, key, nil, goodClaims(testClock)) }, "JWKS")
	}
	add("a weak key", func(m mint) string { return m.with(m.method, weakRSA, nil, map[string]any{"kid": "weak"}) }, "JWKS")

	// Signatures.
	add("no signature", func(m mint) string { return m.signature(func([]byte) []byte { return nil }) })
	add("a zero signature", func(m mint) string { return m.signature(func(s []byte) []byte { return make([]byte, len(s)) }) })
	add("one bit of the signature", func(m mint) string { return m.signature(func(s []byte) []byte { s[0] ^= 1; return s }) })
	add("the last bit of the signature", func(m mint) string { return m.signature(func(s []byte) []byte { s[len(s)-1] ^= 1; return s }) })
	add("a byte less", func(m mint) string { return m.signature(func(s []byte) []byte { return s[:len(s)-1] }) })
	add("a byte more", func(m mint) string { return m.signature(func(s []byte) []byte { return append(s, 0) }) })
	add("half a signature", func(m mint) string { return m.signature(func(s []byte) []byte { return s[:len(s)/2] }) })
	add("a signature twice", func(m mint) string { return m.signature(func(s []byte) []byte { return append(s, s...) }) })
	add("another token's signature", func(m mint) string {
		text, _ := cutLast(m.good())
		_, sig := cutLast(m.claims(jwt.MapClaims{"sub": "12346"}))
		return text + "." + sig
	})
	for name, change := range map[string]func(r, s, n *big.Int) (*big.Int, *big.Int){
		"r = s = n": func(_, _, n *big.Int) (*big.Int, *big.Int) { return n, n },
		"r = 0":     func(_, s, _ *big.Int) (*big.Int, *big.Int) { return new(big.Int), s },
		"s = 0":     func(r, _, _ *big.Int) (*big.Int, *big.Int) { return r, new(big.Int) },
		"r = s = 1": func(_, _, _ *big.Int) (*big.Int, *big.Int) { return big.NewInt(1), big.NewInt(1) },
		"r and s":   func(r, s, _ *big.Int) (*big.Int, *big.Int) { return s, r },
		"s negative": func(r, s, _ *big.Int) (*big.Int, *big.Int) {
			return r, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), s)
		},
	} {
		add("ECDSA "+name, func(m mint) string {
			return m.signature(func(sig []byte) []byte {
				r, s := change(new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]), elliptic.P256().Params().N)
				return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
			})
		}, "ES256")
	}
	add("ECDSA as DER", func(m mint) string {
		return m.signature(func(sig []byte) []byte {
			der, err := asn1.Marshal([]*big.Int{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
			must(m.t, err)
			return der
		})
	}, "ES256")

	// Forms.
	add("altered claims", func(m mint) string {
		p := strings.Split(m.good(), ".")
		return p[0] + "." + b64([]byte(asJSON(m.t, goodClaims(testClock, jwt.MapClaims{"sub": "12346"})))) + "." + p[2]
	})
	add("claims alone", func(m mint) string { return strings.Split(m.good(), ".")[1] })
	add("two parts", func(m mint) string { text, _ := cutLast(m.good()); return text })
	add("a fourth part", func(m mint) string { return m.good() + ".e30" })
	add("a fourth part, empty", func(m mint) string { return m.good() + "." })
	add("five parts, a JWE", func(m mint) string {
		p := strings.Split(m.good(), ".")
		return b64([]byte(`{"alg":"dir","enc":"A256GCM"}`)) + ".." + b64(make([]byte, 12)) + "." + p[1] + "." + b64(make([]byte, 16))
	})
	add("five parts, ours", func(m mint) string { p := strings.Split(m.good(), "."); return p[0] + "..." + p[1] + "." + p[2] })
	add("JSON serialisation", func(m mint) string {
		p := strings.Split(m.good(), ".")
		return asJSON(m.t, map[string]any{"protected": p[0], "payload": p[1], "signature": p[2]})
	})
	add("general JSON serialisation", func(m mint) string {
		p := strings.Split(m.good(), ".")
		return asJSON(m.t, map[string]any{"payload": p[1], "signatures": []any{map[string]any{"protected": p[0], "signature": p[2]}}})
	})
	add("in quotes", func(m mint) string { return `"` + m.good() + `"` })
	add("base64 of the whole", func(m mint) string { return b64([]byte(m.good())) })
	add("percent-encoded", func(m mint) string { return strings.ReplaceAll(m.good(), ".", "%2E") })
	for name, suffix := range map[string]string{"data": "AA", "a comma": ",", "a semicolon": ";x=1", "a second token": " x", "padding": "=", "all padding": "==", "a slash": "/", "a tab and text": "\tx"} {
		add("followed by "+name, func(m mint) string { return m.good() + suffix })
	}
	for _, space := range []string{" ", "\t", "\u00a0"} {
		add(fmt.Sprintf("%q inside", space), func(m mint) string { return strings.Replace(m.good(), ".", "."+space, 1) })
		add(fmt.Sprintf("%q before", space), func(m mint) string { return space + m.good() })
	}
	add("padded parts", func(m mint) string {
		h, c := m.texts()
		return m.signParts(base64.URLEncoding.EncodeToString([]byte(h+strings.Repeat(" ", 1+(3-(len(h)+1)%3)%3+1))), b64([]byte(c)))
	})
	add("loose bits in the signature", func(m mint) string { return looseBits(m.good()) })
	add("loose bits in the header", func(m mint) string {
		h, c := m.texts()
		for len(h)%3 == 0 {
			h = " " + h
		}
		return m.signParts(looseBits(b64([]byte(h))), b64([]byte(c)))
	})
	add("loose bits in the claims", func(m mint) string {
		h, c := m.texts()
		for len(c)%3 == 0 {
			c = " " + c
		}
		return m.signParts(b64([]byte(h)), looseBits(b64([]byte(c))))
	})
	add("base64 of the other alphabet", func(m mint) string {
		for i := range 1000 {
			text, sig := cutLast(m.claims(jwt.MapClaims{"jti": fmt.Sprint(i)}))
			if other := strings.NewReplacer("-", "+", "_", "/").Replace(sig); other != sig {
				return text + "." + other
			}
		}
		panic("no signature has these")
	})
	add("hexadecimal", func(m mint) string { h, c := m.texts(); return m.signParts(fmt.Sprintf("%x", h), fmt.Sprintf("%x", c)) })
	for name, claims := range map[string]string{"a list": `["sub"]`, "a text": `"sub"`, "null": `null`, "a number": `1`, "nothing": ``, "an empty object": `{}`} {
		add("claims "+name, func(m mint) string { h, _ := m.texts(); return m.sign(h, claims) })
		add("header "+name, func(m mint) string { _, c := m.texts(); return m.sign(claims, c) })
	}
	for name, tail := range map[string]string{"an object": "{}", "a brace": "}", "a text": "x", "a NUL": "\x00", "a comma": ","} {
		add("claims followed by "+name, func(m mint) string { h, c := m.texts(); return m.sign(h, c+tail) })
		add("header followed by "+name, func(m mint) string { h, c := m.texts(); return m.sign(h+tail, c) })
	}
	add("a byte order mark", func(m mint) string { h, c := m.texts(); return m.sign(h, "\ufeff"+c) })
	add("UTF-16", func(m mint) string { h, c := m.texts(); return m.sign(utf16Of(h), utf16Of(c)) })
	add("no UTF-8 in the claims", func(m mint) string { return m.inClaims(`{`, "{\"x\":\"\xff\",") })
	add("no UTF-8 in the header", func(m mint) string { return m.inHeader(`{`, "{\"x\":\"\xff\",") })
	add("a comment", func(m mint) string { return m.inClaims(`{`, `{/* */`) })
	add("a comma too many", func(m mint) string { return m.inClaims(`}`, `,}`) })
	add("single quotes", func(m mint) string { h, c := m.texts(); return m.sign(h, strings.ReplaceAll(c, `"`, `'`)) })
	add("over 8 KiB", func(m mint) string { return m.claims(jwt.MapClaims{"x": strings.Repeat("x", 7<<10)}) })
	return all
}

// TestBadTokens: a token with one thing wrong gets the same answer as any other,
// byte for byte, and nothing that it names is ever fetched.
func TestBadTokens(t *testing.T) {
	t.Parallel()
	var trapped atomic.Int32
	trap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		trapped.Add(1)
		_, _ = w.Write([]byte(keySetOf(t, rsaJWK(otherRSA, map[string]any{"kid": "rsa"}))))
	}))
	defer trap.Close()
	private := rsaJWK(leakedRSA, map[string]any{"kid": "private", "d": b64(leakedRSA.D.Bytes()), "p": b64(leakedRSA.Primes[0].Bytes()), "q": b64(leakedRSA.Primes[1].Bytes()),
		"dp": b64(leakedRSA.Precomputed.Dp.Bytes()), "dq": b64(leakedRSA.Precomputed.Dq.Bytes()), "qi": b64(leakedRSA.Precomputed.Qinv.Bytes())})
	set := newIDP(t, keySetOf(t, rsaJWK(rsaKey, map[string]any{"kid": "rsa", "use": "sig", "alg": "RS256", "x5u": "https" + strings.TrimPrefix(trap.URL, "http")}),
		ecJWK(p256Key, map[string]any{"kid": "ec"}), map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(edKey.Public().(ed25519.PublicKey)), "kid": "ed"},
		map[string]any{"kty": "oct", "k": b64([]byte(testSecret)), "kid": "oct"}, rsaJWK(weakRSA, map[string]any{"kid": "weak"}), private,
		rsaJWK(otherRSA, map[string]any{"kid": "enc", "use": "enc"}), rsaJWK(otherRSA, map[string]any{"kid": "ps256", "alg": "PS256"})))

	otherEC, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	strangerRSA, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	b := newBed(t)
	bad := badTokens(trap.URL)
	t.Logf("%d bad tokens", len(bad))
	var first string
	for _, m := range []mint{
		{t, "HS256", withSecret, jwt.SigningMethodHS256, []byte(testSecret), []byte("another secret of thirty-two bytes"), map[string]any{}},
		{t, "RS256", withPublicKey(&rsaKey.PublicKey), jwt.SigningMethodRS256, rsaKey, strangerRSA, map[string]any{}},
		{t, "ES256", withPublicKey(&p256Key.PublicKey), jwt.SigningMethodES256, p256Key, otherEC, map[string]any{}},
		{t, "EdDSA", withPublicKey(edKey.Public()), jwt.SigningMethodEdDSA, edKey, mustEd(t), map[string]any{}},
		{t, "JWKS", with(func(o *JWTOptions) { o.JWKSURL = set.URL }), jwt.SigningMethodRS256, rsaKey, strangerRSA, map[string]any{"kid": "rsa"}},
	} {
		auth := newAuth(t, m.options)
		public := httptest.NewServer(newServer(t, b.service, b.clock, discard, func(o *Options) { o.Auth = auth }).Public())
		defer public.Close()
		call := func(token string) answer {
			return send(t, public, request{method: "GET", path: "/v1/challenges", token: token}, false)
		}
		header, claims := m.texts()
		for name, good := range map[string]string{
			"good": m.good(), "made by hand": m.sign(header, claims), "spaced": m.sign(" "+header+"\n", "\t"+claims),
			"no type": m.inHeader(`"typ":"JWT"`, `"x":1`), "typ jwt": m.good(map[string]any{"typ": "jwt"}), "typ at+jwt": m.good(map[string]any{"typ": "AT+JWT"}),
			"typ application/at+jwt": m.good(map[string]any{"typ": "application/at+jwt"}), "a key beside it": m.good(map[string]any{"jwk": m.jwk(m.other), "jku": trap.URL, "x5u": trap.URL}),
			"one of audiences": m.inClaims(`"relay"`, `["x","relay"]`), "the last second": m.inClaims(fmt.Sprintf(`"exp":%d`, testClock.Add(time.Hour).Unix()), `"exp":253402300799`),
		} {
			if a := call(good); a.Status != 200 {
				t.Errorf("%s, %s: %d %s", m.name, name, a.Status, a.Body)
			}
		}
		tried := 0
		for _, c := range bad {
			if c.in != "" && !slices.Contains(strings.Fields(c.in), m.name) {
				continue
			}
			tried++
			a := call(c.make(m))
			h := a.Header.Clone()
			h.Del("Date")
			h.Del(requestIDHeader)
			got := fmt.Sprint(a.Status, h, strings.Replace(string(a.Body), a.Header.Get(requestIDHeader), "ID", 1))
			if first == "" {
				first = got
			}
			if a.Status != 401 || h.Get("WWW-Authenticate") != "Bearer" || got != first {
				t.Errorf("%s, %s: %s", m.name, c.name, got)
			}
		}
		if tried < 40 {
			t.Errorf("%s: only %d bad tokens", m.name, tried)
		}
	}
	if trapped.Load() != 0 {
		t.Errorf("%d requests to where a token, or a key, said that there are keys", trapped.Load())
	}
	if asked := set.asked.Load(); asked != 2 {
		t.Errorf("the key set was asked for %d times, want once at start and once for all unknown ids", asked)
	}
}

// TestTokenOnlyInItsHeader: nowhere else, and not twice; and it is not logged
// wherever it stands.
func TestTokenOnlyInItsHeader(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	good := b.token()
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	for name, r := range map[string]request{
		"query":                       {method: "GET", path: "/v1/challenges?access_token=" + good},
		"query, another name":         {method: "GET", path: "/v1/challenges?token=" + good + "&jwt=" + good + "&Authorization=Bearer%20" + good},
		"cookie":                      {method: "GET", path: "/v1/challenges", header: http.Header{"Cookie": {"access_token=" + good + "; Authorization=" + good + "; session=" + good}}},
		"form":                        {method: "POST", path: "/v1/challenges/chl_x/done", header: form, body: "access_token=" + good},
		"body":                        {method: "POST", path: "/v1/challenges/chl_x/done", body: asJSON(t, map[string]string{"access_token": good})},
		"other headers":               {method: "GET", path: "/v1/challenges", header: http.Header{"X-Authorization": {"Bearer " + good}, "Proxy-Authorization": {"Bearer " + good}, "X-Access-Token": {good}}},
		"websocket protocol":          {method: "GET", path: "/v1/events", header: http.Header{"Sec-Websocket-Protocol": {"bearer, " + good}}},
		"path":                        {method: "GET", path: "/v1/challenges/" + good},
		"two headers":                 {method: "GET", path: "/v1/challenges", header: http.Header{"Authorization": {"Bearer " + good, "Bearer " + good}}},
		"two headers, the first good": {method: "GET", path: "/v1/challenges", header: http.Header{"Authorization": {"Bearer " + good, "Bearer x"}}},
		"two headers, another scheme": {method: "GET", path: "/v1/challenges", header: http.Header{"Authorization": {"Basic eDp5", "Bearer " + good}}},
		"two headers, one empty":      {method: "GET", path: "/v1/challenges", header: http.Header{"Authorization": {"", "Bearer " + good}}},
		"two in one":                  {method: "GET", path: "/v1/challenges", header: http.Header{"Authorization": {"Bearer " + good + ", Bearer " + good}}},
		"another scheme":              {method: "GET", path: "/v1/challenges", header: http.Header{"Authorization": {"JWT " + good}}},
		"DPoP":                        {method: "GET", path: "/v1/challenges", header: http.Header{"Authorization": {"DPoP " + good}}},
		"no scheme":                   {method: "GET", path: "/v1/challenges", header: http.Header{"Authorization": {good}}},
	} {
		if a := send(t, b.public, r, false).problem(401, "unauthorized"); a.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: %v", name, a.Header)
		}
	}
	b.call(request{method: "GET", path: "/v1/challenges?access_token=" + good, token: good}).status(200)
	send(t, b.admin, request{method: "GET", path: "/ops/v1/stats?access_token=" + good}, false).problem(401, "unauthorized")
	if log := b.log.String(); strings.Contains(log, good) || strings.Contains(log, strings.Split(good, ".")[2]) {
		t.Error("a token is logged")
	}
	if len(b.lines("request")) == 0 {
		t.Error("nothing is logged at all")
	}
	var p problem
	must(t, json.Unmarshal(b.call(request{method: "GET", path: "/v1/challenges/" + good}).Body, &p))
	if strings.Contains(p.Detail, good) {
		t.Error("an answer quotes a token")
	}
}
