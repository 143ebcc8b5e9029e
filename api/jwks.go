package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

// How the issuer's keys are fetched: regularly, so that a revoked key is soon
// forgotten, and once more for an unknown key id, so that a new one is known at
// once, but not as often as somebody makes up key ids.
const (
	keysEvery   = 5 * time.Minute
	keysUnknown = time.Minute
	keysTimeout = 5 * time.Second
	maxKeys     = 1 << 20 // bytes of a key set
)

// keySet is the keys of a JWKS URL (RFC 7517). What was fetched last stays good
// while the URL cannot be read.
type keySet struct {
	known  keepKeys
	remote jwkset.Storage // asks the URL when it is read for a key that is not known

	asking  sync.Mutex
	unknown *rate.Limiter
}

func newKeySet(ctx context.Context, url string, log *slog.Logger) (*keySet, error) {
	if log == nil {
		return nil, errors.New("api: a JWKS URL needs a Log")
	}
	k := &keySet{known: keepKeys{jwkset.NewMemoryStorage()}, unknown: rate.NewLimiter(rate.Every(keysUnknown), 1)}
	remote, err := jwkset.NewStorageFromHTTP(url, jwkset.HTTPClientStorageOptions{
		Ctx:                       ctx,
		Client:                    newKeysClient(),
		HTTPTimeout:               keysTimeout,
		NoErrorReturnFirstHTTPReq: true,
		RefreshInterval:           keysEvery,
		RefreshErrorHandler: func(_ context.Context, err error) {
			log.Warn("cannot fetch the keys that tokens are signed with; those known stay in use", "error", err)
		},
		Storage: k.known,
	})
	if err != nil {
		return nil, fmt.Errorf("api: JWKS URL: %w", err)
	}
	k.remote, err = jwkset.NewHTTPClient(jwkset.HTTPClientOptions{
		HTTPURLs:          map[string]jwkset.Storage{url: remote},
		RateLimitWaitMax:  keysTimeout,                  // of the request: learn never makes it wait
		RefreshUnknownKID: rate.NewLimiter(rate.Inf, 1), // ours is asked first
	})
	if err != nil {
		return nil, fmt.Errorf("api: JWKS URL: %w", err)
	}
	return k, nil
}

// find is the keys that may have signed a token: those of its key id, or all where
// it names none, that are meant for signatures of its algorithm.
func (k *keySet) find(ctx context.Context, t *jwt.Token) (any, error) {
	kid, named := t.Header["kid"].(string)
	k.learn(ctx, kid, named)
	keys, err := k.known.KeyReadAll(ctx)
	if err != nil {
		return nil, err
	}
	var fit jwt.VerificationKeySet
	for _, key := range keys {
		if alg, ok := signsWith(key); ok && alg == t.Method.Alg() && (!named || key.Marshal().KID == kid) {
			fit.Keys = append(fit.Keys, key.Key())
		}
	}
	return fit, nil // the parser refuses an empty set
}

// signsWith is the algorithm that a key of a set is meant to sign tokens with;
// false if it is meant for something else. A private key has none: whatever is
// signed with it, anybody may have signed.
func signsWith(key jwkset.JWK) (string, bool) {
	alg, ok := algorithmOf(key.Key())
	says := key.Marshal()
	return alg, ok && (says.USE == "" || says.USE == jwkset.UseSig) && (says.ALG == "" || says.ALG.String() == alg)
}

// learn asks for a key that is not known, if nobody did in the last minute. Who
// comes while it is asked waits for the answer. Whoever asks may go away: if that
// ended it, a stranger could use up the minute and keep a new key unknown.
func (k *keySet) learn(ctx context.Context, kid string, named bool) {
	if k.knows(ctx, kid, named) {
		return
	}
	k.asking.Lock()
	defer k.asking.Unlock()
	if k.unknown.Allow() {
		_, _ = k.remote.KeyRead(context.WithoutCancel(ctx), kid) // find looks whether it is there; the log has why not
	}
}

func (k *keySet) knows(ctx context.Context, kid string, named bool) bool {
	if !named {
		keys, err := k.known.KeyReadAll(ctx)
		return err == nil && len(keys) > 0
	}
	_, err := k.known.KeyRead(ctx, kid)
	return err == nil
}

// keepKeys keeps the known keys when the URL answers with none: a maintenance
// page must not sign everybody out.
type keepKeys struct{ *jwkset.MemoryJWKSet }

// KeyReplaceAll takes the keys of one answer.
func (k keepKeys) KeyReplaceAll(ctx context.Context, keys []jwkset.JWK) error {
	if len(keys) == 0 {
		return errors.New("the answer holds no key that can be used")
	}
	return k.MemoryJWKSet.KeyReplaceAll(ctx, keys)
}

// newKeysClient follows no redirect and reads a bounded answer.
func newKeysClient() *http.Client {
	return &http.Client{
		Timeout:       keysTimeout,
		Transport:     boundedTransport{http.DefaultTransport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// boundedTransport cuts long answers off.
type boundedTransport struct{ http.RoundTripper }

// RoundTrip makes the request.
func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxKeys), resp.Body}
	return resp, nil
}

// CountKeys reads a JWKS URL once and returns how many of its keys a token may be
// signed with: none is an error.
func CountKeys(ctx context.Context, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, fmt.Errorf("api: the key set: %w", err)
	}
	resp, err := newKeysClient().Do(req)
	if err != nil {
		return 0, fmt.Errorf("api: the key set: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("api: the key set answers with status %d", resp.StatusCode)
	}
	var set jwkset.JWKSMarshal
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		return 0, errors.New("api: the key set is no JSON key set")
	}
	keys, err := set.JWKSlice()
	if err != nil {
		return 0, fmt.Errorf("api: the key set: %w", err)
	}
	n := 0
	for _, k := range keys {
		if _, ok := signsWith(k); ok {
			n++
		}
	}
	if n == 0 {
		return 0, errors.New("api: the key set holds no key that a token may be signed with: RSA of 2048 bits or more, P-256 or Ed25519")
	}
	return n, nil
}
