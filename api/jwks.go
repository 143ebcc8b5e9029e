package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
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
type keySet struct{ keys keyfunc.Keyfunc }

func newKeySet(ctx context.Context, url string, log *slog.Logger) (keySet, error) {
	if log == nil {
		return keySet{}, errors.New("api: a JWKS URL needs a Log")
	}
	remote, err := jwkset.NewStorageFromHTTP(url, jwkset.HTTPClientStorageOptions{
		Ctx:                       ctx,
		Client:                    newKeysClient(),
		HTTPTimeout:               keysTimeout,
		NoErrorReturnFirstHTTPReq: true,
		RefreshInterval:           keysEvery,
		RefreshErrorHandler: func(_ context.Context, err error) {
			log.Warn("cannot fetch the keys that tokens are signed with; those known stay in use", "error", err)
		},
		Storage: keepKeys{jwkset.NewMemoryStorage()},
	})
	if err != nil {
		return keySet{}, fmt.Errorf("api: JWKS URL: %w", err)
	}
	storage, err := jwkset.NewHTTPClient(jwkset.HTTPClientOptions{
		HTTPURLs:          map[string]jwkset.Storage{url: remote},
		RateLimitWaitMax:  keysTimeout,
		RefreshUnknownKID: rate.NewLimiter(rate.Every(keysUnknown), 1),
	})
	if err != nil {
		return keySet{}, fmt.Errorf("api: JWKS URL: %w", err)
	}
	keys, err := keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: storage, UseWhitelist: []jwkset.USE{jwkset.UseSig, ""}})
	if err != nil {
		return keySet{}, fmt.Errorf("api: JWKS URL: %w", err)
	}
	return keySet{keys}, nil
}

// find is the key of a token, or all that may be where it names none; only keys
// whose type goes with the token's algorithm.
func (k keySet) find(ctx context.Context, t *jwt.Token) (any, error) {
	found, err := k.keys.KeyfuncCtx(ctx)(t)
	if err != nil {
		return nil, err
	}
	candidates := []jwt.VerificationKey{found}
	if set, ok := found.(jwt.VerificationKeySet); ok {
		candidates = set.Keys
	}
	var fit jwt.VerificationKeySet
	for _, key := range candidates {
		if alg, ok := algorithmOf(key); ok && alg == t.Method.Alg() {
			fit.Keys = append(fit.Keys, key)
		}
	}
	return fit, nil // the parser refuses an empty set
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
		if _, ok := algorithmOf(k.Key()); ok {
			n++
		}
	}
	if n == 0 {
		return 0, errors.New("api: the key set holds no key that a token may be signed with: RSA of 2048 bits or more, P-256 or Ed25519")
	}
	return n, nil
}
