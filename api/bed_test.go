package api

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"approvalrelay/crypto"
	"approvalrelay/crypto/passkey"
	"approvalrelay/push"
	"approvalrelay/relay"
	"approvalrelay/relay/redisstore"
)

const (
	testSecret   = "a secret of at least thirty-two bytes"
	testIssuer   = "https://id.example.com"
	testAudience = "relay"
	testAdmin    = "the operator's token"
	testVAPID    = "BPublicKeyOfTheRelay"
)

// bed is a whole relay in one process: the real handlers, service, worker and
// store; only the outside parties are played.
type bed struct {
	t       testing.TB
	server  *Server
	service *relay.Service
	store   *redisstore.Store
	public  *httptest.Server
	admin   *httptest.Server
	clock   *clock
	pushes  chan pushed
	issuer  *issuer
	targets *downstream
	log     *logBuffer
	ring    *crypto.Keyring
}

// patience bounds a wait that must not hang a test.
const patience = 10 * time.Second

var user12345 = relay.User{Merchant: "acme", ID: "12345"}

// newBed starts a relay; change may alter its options.
func newBed(t testing.TB, change ...func(*Options)) *bed {
	t.Helper()
	vault, err := crypto.NewVault(crypto.GenerateKey())
	must(t, err)
	b := &bed{t: t, clock: &clock{}, pushes: make(chan pushed, 100), issuer: &issuer{}, log: &logBuffer{}, ring: newRing(t, "0123456789abcdef")}
	b.targets = &downstream{got: make(chan relay.Message, 100)}
	level := &slog.LevelVar{}
	level.Set(slog.LevelDebug)
	log := slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: level}))
	b.store, err = redisstore.Open(redisstore.Options{
		URL: redisstore.Embedded, Prefix: "relay", Partitions: 2, Vault: vault, Node: rand.Text(), Clock: b.clock.Now, Log: log,
		Retention: redisstore.Retention{Challenges: time.Hour, Events: time.Hour, Deliveries: time.Hour},
	})
	must(t, err)
	t.Cleanup(func() { _ = b.store.Close() }) // some tests have closed it
	b.service = newService(t, b.store, b.ring, log)

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	subscribed := b.service.Watch(user12345)
	running.Go(func() { b.service.Run(ctx) })
	worker := relay.NewWorker(b.service, b.store, relay.Outside{Pusher: pusher(b.pushes), Issuer: b.issuer, Downstream: b.targets}, log)
	grace, end := context.WithCancel(context.Background())
	running.Go(func() { worker.Run(ctx, grace) })
	t.Cleanup(func() {
		cancel()
		defer time.AfterFunc(time.Second, end).Stop()
		running.Wait()
	})
	<-subscribed.Missed // from here on changes are seen
	subscribed.Close()
	// Lists show a card's challenges once the worker has noted whose it is, which
	// is a moment after an event has taught it.
	must(t, b.store.IndexCard(ctx, user12345, "67890"))

	change = append([]func(*Options){func(o *Options) { o.LogLevel = level }}, change...)
	b.server = newServer(t, b.service, b.clock, log, change...)
	b.public = httptest.NewServer(b.server.Public())
	b.admin = httptest.NewServer(b.server.Admin())
	t.Cleanup(func() {
		b.server.Shutdown()
		b.public.Close()
		b.admin.Close()
	})
	return b
}

func newRing(t testing.TB, secret string) *crypto.Keyring {
	t.Helper()
	s, err := crypto.ParseSecret(secret, crypto.UTF8)
	must(t, err)
	ring, err := crypto.NewKeyring(s)
	must(t, err)
	return ring
}

func newService(t testing.TB, store relay.Store, ring *crypto.Keyring, log *slog.Logger) *relay.Service {
	merchant := func(name string) *relay.Merchant {
		return &relay.Merchant{
			Name: name, Mapping: relay.DefaultMapping(), Keyring: ring,
			Actions: map[string]relay.ChallengeKind{"CARD_3DS": relay.ThreeDS, "CARD_VERIFICATION": relay.CardVerification},
			Retry:   relay.Schedule{Retry: []time.Duration{time.Second}, RepeatLast: true},
		}
	}
	party, err := passkey.New("https://relay.example.com", "Relay", []string{"https://app.example.com"}, relay.StepUpTime)
	must(t, err)
	acme := merchant("acme")
	acme.Confirm = true
	return relay.New(relay.Options{
		Merchants:  map[string]*relay.Merchant{"acme": acme, "other": merchant("other"), "slow": merchant("slow")},
		Targets:    []relay.Target{{Name: "core", Events: []string{"*"}, Concurrency: 4, MaxBacklog: 1000}},
		Lives:      relay.Lifetimes{TTL: map[relay.ChallengeKind]time.Duration{relay.ThreeDS: 5 * time.Minute, relay.CardVerification: 10 * time.Minute}, Max: 10 * time.Minute},
		Duplicates: time.Hour, PublicURL: "https://relay.example.com",
		StepUp: relay.StepUpOptions{Party: party, Above: relay.Threshold{Amount: "1000.00", Currency: "USD"}},
		Push:   relay.PushOptions{On: true, ActionToken: true, MaxSubscriptions: 10, CardCount: 100, CardWindow: time.Minute},
	}, store, log)
}

func newServer(t testing.TB, service *relay.Service, clock *clock, log *slog.Logger, change ...func(*Options)) *Server {
	t.Helper()
	auth, err := NewAuth(t.Context(), JWTOptions{
		Issuer: testIssuer, Audience: testAudience, UserClaim: "sub", MerchantClaim: "merchant", Leeway: 30 * time.Second, HS256Secret: Secret(testSecret),
	}, clock.Now)
	must(t, err)
	policy, err := push.NewPolicy(nil, false)
	must(t, err)
	o := Options{
		Service: service, Log: log, LogLevel: &slog.LevelVar{}, Auth: auth, MaxBody: 4 << 10, CORSOrigins: []string{"https://app.example.com"},
		WebhookLimits: map[string]Limit{"acme": {PerSecond: 1e6, Burst: 1e6}, "slow": {PerSecond: 0.01, Burst: 1}},
		UserLimit:     Limit{PerSecond: 1e6, Burst: 1e6},
		PushPolicy:    policy, VAPIDPublicKey: testVAPID, AdminToken: Secret(testAdmin), AdminHosts: []string{"ops.example.com:9090", "0.0.0.0"},
	}
	for _, c := range change {
		c(&o)
	}
	s, err := New(o)
	must(t, err)
	return s
}

// answer is what came back.
type answer struct {
	t      testing.TB
	Status int
	Header http.Header
	Body   []byte
}

// request describes one call.
type request struct {
	method, path, token, body string
	header                    http.Header
}

// call makes a request on the public listener, and holds the answer against the
// OpenAPI document.
func (b *bed) call(r request) answer {
	b.t.Helper()
	return send(b.t, b.public, r, true)
}

func (b *bed) ops(method, path, body string) answer {
	b.t.Helper()
	return send(b.t, b.admin, request{method: method, path: path, token: testAdmin, body: body}, false)
}

func send(t testing.TB, to *httptest.Server, r request, documented bool) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, to.URL+r.path, strings.NewReader(r.body))
	must(t, err)
	maps.Copy(req.Header, r.header)
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if host := r.header.Get("Host"); host != "" {
		req.Host = host
	}
	client := &http.Client{Transport: to.Client().Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.Header.Get("X-Request-Id") == "" {
		t.Errorf("%s %s: no X-Request-Id", r.method, r.path)
	}
	if documented {
		checkDocumented(t, req, resp, body)
	}
	return answer{t, resp.StatusCode, resp.Header, body}
}

func (a answer) status(want int) answer {
	a.t.Helper()
	if a.Status != want {
		a.t.Fatalf("status %d, want %d: %s", a.Status, want, a.Body)
	}
	return a
}

// problem checks the form of an error and its code.
func (a answer) problem(status int, code string) answer {
	a.t.Helper()
	a.status(status)
	if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("content type %q", got)
	}
	var p map[string]any
	must(a.t, json.Unmarshal(a.Body, &p))
	if p["code"] != code || p["status"] != float64(status) || p["type"] != "about:blank" || p["title"] != http.StatusText(status) ||
		p["request_id"] != a.Header.Get("X-Request-Id") || p["detail"] == "" {
		a.t.Errorf("problem %s, want code %s", a.Body, code)
	}
	return a
}

func decodeAs[T any](a answer) T {
	a.t.Helper()
	var v T
	dec := json.NewDecoder(bytes.NewReader(a.Body))
	dec.DisallowUnknownFields()
	must(a.t, dec.Decode(&v))
	return v
}

// token signs claims on top of good ones; a nil value removes a claim.
func (b *bed) token(change ...jwt.MapClaims) string {
	b.t.Helper()
	return sign(b.t, jwt.SigningMethodHS256, []byte(testSecret), nil, goodClaims(b.clock.Now(), change...))
}

func goodClaims(now time.Time, change ...jwt.MapClaims) jwt.MapClaims {
	claims := jwt.MapClaims{"iss": testIssuer, "aud": testAudience, "sub": "12345", "merchant": "acme", "exp": now.Add(time.Hour).Unix(), "auth_time": now.Unix()}
	for _, c := range change {
		for name, v := range c {
			if claims[name] = v; v == nil {
				delete(claims, name)
			}
		}
	}
	return claims
}

func sign(t testing.TB, method jwt.SigningMethod, key any, header map[string]any, claims jwt.Claims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	maps.Copy(token.Header, header)
	s, err := token.SignedString(key)
	must(t, err)
	return s
}

// payload is an event's content with a fresh reference.
func payload(change map[string]any) map[string]any {
	p := map[string]any{
		"card_id": "67890", "user_id": "12345", "amount": "100.20", "currency": "USD", "merchant_name": "Sephora Digital",
		"transaction_id": rand.Text(),
	}
	for name, v := range change {
		if p[name] = v; v == nil {
			delete(p, name)
		}
	}
	return p
}

func (b *bed) envelope(typ string, p map[string]any) string {
	b.t.Helper()
	plain, err := json.Marshal(p)
	must(b.t, err)
	return b.envelopeOf(typ, plain)
}

func (b *bed) envelopeOf(typ string, plain []byte) string {
	b.t.Helper()
	sealed, mac, err := b.ring.Seal(plain)
	must(b.t, err)
	body, err := json.Marshal(map[string]string{"encrypted_payload": sealed, "type": typ, "hmac": mac})
	must(b.t, err)
	return string(body)
}

func (b *bed) webhook(merchant, body string) answer {
	b.t.Helper()
	return b.call(request{method: "POST", path: "/webhooks/" + merchant, body: body})
}

// challenge sends an event and returns its challenge's id.
func (b *bed) challenge(merchant, typ string, change map[string]any) string {
	b.t.Helper()
	r := decodeAs[receipt](b.webhook(merchant, b.envelope(typ, payload(change))).status(200))
	if r.Status != relay.Accepted {
		b.t.Fatalf("receipt %+v", r)
	}
	return "chl_" + strings.TrimPrefix(r.EventID, "evt_")
}

func (b *bed) get(path string) answer {
	return b.call(request{method: "GET", path: path, token: b.token()})
}

func (b *bed) post(path, body string) answer {
	return b.call(request{method: "POST", path: path, token: b.token(), body: body})
}

// subscription is what a browser would send for an endpoint.
func subscription(t testing.TB, endpoint string) map[string]any {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	must(t, err)
	secret := make([]byte, 16)
	rand.Read(secret)
	return map[string]any{
		"endpoint": endpoint, "expirationTime": nil,
		"keys": map[string]any{"p256dh": base64.RawURLEncoding.EncodeToString(key.PublicKey().Bytes()), "auth": base64.RawURLEncoding.EncodeToString(secret)},
	}
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	body, err := json.Marshal(v)
	must(t, err)
	return string(body)
}

// pushed waits for a push that fits.
func (b *bed) pushed(fits func(pushed) bool) pushed {
	b.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case p := <-b.pushes:
			if fits(p) {
				return p
			}
		case <-limit.C:
			b.t.Fatal("no such push came")
		}
	}
}

// phone registers and activates a subscription, and returns its id.
func (b *bed) phone(endpoint string) string {
	b.t.Helper()
	sub := decodeAs[subscriptionView](b.post("/v1/push/subscriptions", asJSON(b.t, subscription(b.t, endpoint))).status(201))
	p := b.pushed(func(p pushed) bool { return p.Activation.ID == sub.ID })
	b.post("/v1/push/subscriptions/"+sub.ID+"/activate", asJSON(b.t, map[string]string{"code": p.Activation.Code})).status(204)
	return sub.ID
}

// actionToken waits for the push about a challenge.
func (b *bed) actionToken(challenge string) string {
	b.t.Helper()
	return b.pushed(func(p pushed) bool { return p.Challenge.ID == challenge && p.Challenge.ActionToken != "" }).Challenge.ActionToken
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ids(views []relay.View) []string {
	var out []string
	for _, v := range views {
		out = append(out, v.ID)
	}
	return slices.Clip(out)
}
