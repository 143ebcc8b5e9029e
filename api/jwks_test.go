package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// idp serves a key set and counts how often it is asked.
type idp struct {
	*httptest.Server
	down  atomic.Bool
	body  atomic.Value // string
	asked atomic.Int32
}

func newIDP(t *testing.T, body string) *idp {
	t.Helper()
	p := &idp{}
	p.body.Store(body)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.asked.Add(1)
		if p.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = io.WriteString(w, p.body.Load().(string))
	}))
	t.Cleanup(p.Close)
	return p
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func rsaJWK(key *rsa.PrivateKey, extra map[string]any) map[string]any {
	j := map[string]any{"kty": "RSA", "n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes())}
	for k, v := range extra {
		j[k] = v
	}
	return j
}

func ecJWK(key *ecdsa.PrivateKey, extra map[string]any) map[string]any {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	half := (len(point) - 1) / 2
	j := map[string]any{"kty": "EC", "crv": key.Params().Name, "x": b64(point[1 : 1+half]), "y": b64(point[1+half:])}
	for k, v := range extra {
		j[k] = v
	}
	return j
}

func keySetOf(t testing.TB, keys ...map[string]any) string {
	t.Helper()
	return asJSON(t, map[string]any{"keys": keys})
}

func TestKeySet(t *testing.T) {
	t.Parallel()
	okp := map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(edKey.Public().(ed25519.PublicKey)), "kid": "ed"}
	oct := map[string]any{"kty": "oct", "k": b64([]byte(testSecret)), "kid": "oct"}
	p := newIDP(t, keySetOf(t, rsaJWK(rsaKey, map[string]any{"kid": "rsa", "use": "sig"}), ecJWK(p256Key, map[string]any{"kid": "ec"}), okp, oct,
		ecJWK(p384Key, map[string]any{"kid": "p384"}), rsaJWK(weakRSA, map[string]any{"kid": "weak"}),
		rsaJWK(otherRSA, map[string]any{"kid": "encryption", "use": "enc"})))
	a := newAuth(t, with(func(o *JWTOptions) { o.JWKSURL = p.URL }))
	claims := goodClaims(testClock)
	kid := func(k string) map[string]any { return map[string]any{"kid": k} }
	for name, c := range map[string]struct {
		token string
		good  bool
	}{
		"RS256":                         {sign(t, jwt.SigningMethodRS256, rsaKey, kid("rsa"), claims), true},
		"ES256":                         {sign(t, jwt.SigningMethodES256, p256Key, kid("ec"), claims), true},
		"EdDSA":                         {sign(t, jwt.SigningMethodEdDSA, edKey, kid("ed"), claims), true},
		"no key id":                     {sign(t, jwt.SigningMethodES256, p256Key, nil, claims), true},
		"no key id, unknown key":        {sign(t, jwt.SigningMethodEdDSA, mustEd(t), nil, claims), false},
		"key id a number":               {sign(t, jwt.SigningMethodRS256, rsaKey, map[string]any{"kid": 1}, claims), false},
		"another key's id":              {sign(t, jwt.SigningMethodRS256, rsaKey, kid("ec"), claims), false},
		"an algorithm of the same type": {sign(t, jwt.SigningMethodPS256, rsaKey, kid("rsa"), claims), false},
		"a symmetric key of the set":    {sign(t, jwt.SigningMethodHS256, []byte(testSecret), kid("oct"), claims), false},
		"the public key as a secret":    {sign(t, jwt.SigningMethodHS256, publicDER(&rsaKey.PublicKey), kid("rsa"), claims), false},
		"a curve that is not ours":      {sign(t, jwt.SigningMethodES384, p384Key, kid("p384"), claims), false},
		"a weak key":                    {sign(t, jwt.SigningMethodRS256, weakRSA, kid("weak"), claims), false},
		"a key for encryption":          {sign(t, jwt.SigningMethodRS256, otherRSA, kid("encryption"), claims), false},
		"a key in the header":           {sign(t, jwt.SigningMethodEdDSA, mustEd(t), map[string]any{"kid": "ed", "jwk": okp, "jku": p.URL}, claims), false},
		"none":                          {raw(map[string]any{"alg": "none", "kid": "rsa"}, claims, ""), false},
	} {
		if _, err := a.verify(t.Context(), c.token); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mustEd(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return key
}

func TestKeySetWhenTheIssuerIsDown(t *testing.T) {
	t.Parallel()
	claims := goodClaims(testClock)
	known := sign(t, jwt.SigningMethodRS256, rsaKey, map[string]any{"kid": "rsa"}, claims)
	fresh := sign(t, jwt.SigningMethodES256, p256Key, map[string]any{"kid": "ec"}, claims)
	set := keySetOf(t, rsaJWK(rsaKey, map[string]any{"kid": "rsa"}))
	both := keySetOf(t, rsaJWK(rsaKey, map[string]any{"kid": "rsa"}), ecJWK(p256Key, map[string]any{"kid": "ec"}))

	t.Run("at start", func(t *testing.T) {
		t.Parallel()
		p := newIDP(t, set)
		p.down.Store(true)
		a := newAuth(t, with(func(o *JWTOptions) { o.JWKSURL = p.URL }))
		p.down.Store(false)
		if _, err := a.verify(t.Context(), known); err != nil {
			t.Error("the keys were not fetched once the issuer was back")
		}
	})
	t.Run("an unknown key id asks once a minute at most", func(t *testing.T) {
		t.Parallel()
		p := newIDP(t, set)
		a := newAuth(t, with(func(o *JWTOptions) { o.JWKSURL = p.URL }))
		p.body.Store(both)
		if _, err := a.verify(t.Context(), fresh); err != nil {
			t.Error("a new key was not fetched")
		}
		for range 50 {
			made := sign(t, jwt.SigningMethodES256, p256Key, map[string]any{"kid": rand.Text()}, claims)
			if _, err := a.verify(t.Context(), made); err == nil {
				t.Fatal("a made-up key id was taken")
			}
		}
		if n := p.asked.Load(); n != 2 {
			t.Errorf("asked %d times, want at start and once more", n)
		}
	})
	t.Run("who goes away does not use the minute up", func(t *testing.T) {
		t.Parallel()
		p := newIDP(t, set)
		a := newAuth(t, with(func(o *JWTOptions) { o.JWKSURL = p.URL }))
		p.body.Store(both)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = a.verify(gone, sign(t, jwt.SigningMethodES256, p256Key, map[string]any{"kid": "made up"}, claims))
		if _, err := a.verify(t.Context(), fresh); err != nil {
			t.Error("a new key is not known, since a stranger's request was cut off")
		}
	})
	t.Run("all who come with a new key at once are let in", func(t *testing.T) {
		t.Parallel()
		p := newIDP(t, set)
		a := newAuth(t, with(func(o *JWTOptions) { o.JWKSURL = p.URL }))
		p.body.Store(both)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := a.verify(t.Context(), fresh); err != nil {
					t.Error("refused while the new key was fetched")
				}
			})
		}
		wg.Wait()
		if n := p.asked.Load(); n != 2 {
			t.Errorf("asked %d times, want at start and once more", n)
		}
	})
	t.Run("at start, and tokens name no key", func(t *testing.T) {
		t.Parallel()
		p := newIDP(t, set)
		p.down.Store(true)
		a := newAuth(t, with(func(o *JWTOptions) { o.JWKSURL = p.URL }))
		p.down.Store(false)
		if _, err := a.verify(t.Context(), sign(t, jwt.SigningMethodRS256, rsaKey, nil, claims)); err != nil {
			t.Error("the keys were not fetched once the issuer was back")
		}
	})
	for name, fault := range map[string]func(*idp){
		"an error":       func(p *idp) { p.down.Store(true) },
		"no keys":        func(p *idp) { p.body.Store(`{"keys":[]}`) },
		"not a key set":  func(p *idp) { p.body.Store(`<html>`) },
		"too long a set": func(p *idp) { p.body.Store(strings.Repeat(" ", maxKeys) + both) },
	} {
		t.Run("keeps its keys: "+name, func(t *testing.T) {
			t.Parallel()
			p := newIDP(t, set)
			a := newAuth(t, with(func(o *JWTOptions) { o.JWKSURL = p.URL }))
			fault(p)
			if _, err := a.verify(t.Context(), fresh); err == nil || p.asked.Load() != 2 {
				t.Fatalf("%v after %d", err, p.asked.Load())
			}
			if _, err := a.verify(t.Context(), known); err != nil {
				t.Error("the known key was lost")
			}
		})
	}
	t.Run("no redirect is followed", func(t *testing.T) {
		t.Parallel()
		p := newIDP(t, set)
		from := httptest.NewServer(http.RedirectHandler(p.URL, http.StatusFound))
		defer from.Close()
		a := newAuth(t, with(func(o *JWTOptions) { o.JWKSURL = from.URL }))
		if _, err := a.verify(t.Context(), known); err == nil || p.asked.Load() != 0 {
			t.Errorf("%v, asked %d times", err, p.asked.Load())
		}
	})
	t.Run("one that hangs is given up", func(t *testing.T) {
		t.Parallel()
		hang := make(chan struct{})
		p := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
		defer p.Close()
		defer close(hang)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := NewAuth(ctx, with(func(o *JWTOptions) { o.JWKSURL = p.URL }), stoppedClock)
		must(t, err)
	})
}
