package faults

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/cmd/relay/sim"
	"approvalrelay/crypto"
	"approvalrelay/push"
	"approvalrelay/relay/storetest/redistest"
)

// world is one run: everything around the nodes, the nodes, and the ledger of
// what was promised and what arrived.
type world struct {
	t      testing.TB
	ledger *ledger

	redis    *redistest.Server // nil on a Redis that was given by its URL
	rdb      *redis.Client     // straight to redis, nil without it
	redisURL string            // of Redis itself, not through a proxy
	nodes    []*node

	issuer      *sim.Issuer
	push        *sim.PushService
	core, flaky *sim.Downstream // flaky gives up early: what it misses are dead letters
	pushURL     string          // where the push service listens
	pushMood    atomic.Pointer[mood]
	gone        sync.Map // *sim.Device whose subscription has ended

	active     activeFaults // which faults are on at this moment
	redisBegun atomic.Int64 // faults of the Redis track so far
	report     *report

	ttl                 time.Duration // of a challenge
	rate, challengeRate float64       // events and challenges a second
	seed                uint64
	storageKey          string // base64, as in the configuration
	canaries            []string
	dir                 string // logs and configurations; kept when the run fails
}

// setup is what distinguishes one world from another.
type setup struct {
	nodes               int
	redisURL            string // "": a Redis of its own, and a proxy before it for each node
	waitReplicas        int
	ttl                 time.Duration
	rate, challengeRate float64
	seed                uint64
}

// fault is one kind of damage.
type fault struct {
	kind  string
	track track
	// do breaks something for about d and mends it: it returns when what it broke
	// works again, whether or not ctx has ended.
	do func(ctx context.Context, w *world, r *mathrand.Rand, d time.Duration)
}

// track: faults of one track never overlap, those of different tracks do.
type track string

const (
	redisTrack track = "redis"
	nodeTrack  track = "node"
	partyTrack track = "party"
)

// What is looked for in logs must not stand there by chance: times and durations
// are full of digits.
const (
	merchantSecret = "0123456789abcdef0123456789abcdef"
	webhookSecret  = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	jwtSecret      = "a-development-secret-of-32-bytes!"
	merchantID     = "3f2c9a52-7d0e-4a41-9c59-0f6f4d1c2b77"
	canaryPAN      = "4111111111111111"
	oneTimeCode    = "0q7Zk9P4"
)

// newWorld starts everything around the nodes, and makes the nodes without
// starting them.
func newWorld(t testing.TB, s setup) *world {
	t.Helper()
	public, private, err := push.GenerateVAPID()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, ledger: newLedger(), redisURL: s.redisURL, report: newReport(),
		issuer: sim.NewIssuer("acme", []byte(merchantSecret), merchantID), push: sim.NewPushService(public),
		core: sim.NewDownstream(webhookSecret), flaky: sim.NewDownstream(webhookSecret),
		ttl: s.ttl, rate: s.rate, challengeRate: s.challengeRate, seed: s.seed,
		storageKey: base64.StdEncoding.EncodeToString(crypto.GenerateKey()), dir: keptDir(t),
	}
	w.canaries = []string{merchantSecret, webhookSecret, jwtSecret, w.storageKey, private, oneTimeCode, canaryPAN, "eyJ", "rat_", "encrypted_payload"}
	w.push.Behave(w.pushBehaviour)
	if w.redisURL == "" {
		w.redis = redistest.Start(t, "--appendfsync", "always")
		w.redisURL = w.redis.URL
		w.rdb = redis.NewClient(&redis.Options{Addr: w.redis.Addr, MaxRetries: -1, DialTimeout: redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout})
		t.Cleanup(func() { _ = w.rdb.Close() }) // only a test's connection
	}
	serve := func(h http.Handler) string {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		return server.URL
	}
	w.pushURL = serve(w.push)
	yaml := w.yaml(s, serve(w.issuer), public, private, serve(w.core), serve(w.flaky))
	for i := range s.nodes {
		w.addNode(fmt.Sprintf("node%d", i+1), yaml)
	}
	return w
}

// yaml is the configuration of all nodes; the URL of Redis is left open.
func (w *world) yaml(s setup, issuerURL, vapidPublic, vapidPrivate, coreURL, flakyURL string) string {
	return fmt.Sprintf(`
server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", public_url: "http://localhost", shutdown_timeout: %s}
redis: {url: %%q, partitions: 8, wait_replicas: %d}
storage: {keys: [%q]}
challenges: {ttl: {three_ds: %[4]s, card_verification: %[4]s}}
merchants:
  acme:
    secrets: [{value: %[5]q}]
    rate_limit: {per_second: 1000000, burst: 1000000}
    issuer_api:
      base_url: %[6]q
      merchant_id: %[7]q
      timeout: 1500ms
      confirm:
        path: /card/3ds_confirm
        body: {card_id: "$card_id", auth_id: "$reference", auth_result: "$decision"}
        decision_values: {approve: 2, reject: 3}
        retry: [100ms, 250ms, 500ms, 1s]
      lock_card:
        path: /card/update_status
        body: {card_id: "$card_id", status: LOCKED}
auth:
  rate_limit: {per_second: 1000000, burst: 1000000}
  jwt: {issuer: "https://id.test", audience: relay, hs256_secret: %[8]q}
push:
  vapid: {subject: "mailto:ops@example.com", public_key: %[9]q, private_key: %[10]q}
  allow_private_networks: true
  per_card_limit: {count: 1000, window: 1m}
forward:
  targets:
    - {name: core, url: "%[11]s/hook", events: ["*", "relay.*"], secrets: [%[13]q], timeout: 2s, concurrency: 16, retry: [100ms, 200ms, 400ms%[14]s]}
    - {name: flaky, url: "%[12]s/hook", events: [CARD_STATUS_CHANGE], secrets: [%[13]q], timeout: 1s, retry: [100ms, 200ms, 400ms]}
log: {level: info}
`, shutdownTimeout, s.waitReplicas, w.storageKey, w.ttl, merchantSecret, issuerURL, merchantID, jwtSecret,
		vapidPublic, vapidPrivate, coreURL, flakyURL, webhookSecret, strings.Repeat(", 1s", 90))
}

// token is a JWT of a cardholder, good for an hour. It says that it was issued a
// minute ago: the clock of a node may be behind.
func (w *world) token(user string) string {
	part := func(v map[string]any) string {
		data, err := json.Marshal(v)
		if err != nil {
			panic(err) // strings and numbers only
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	now := time.Now()
	signed := part(map[string]any{"alg": "HS256", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": "https://id.test", "aud": "relay", "sub": user, "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix(), "jti": rand.Text(),
	})
	mac := hmac.New(sha256.New, []byte(jwtSecret))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// activeFaults are the kinds that are on, with how often each has been. The zero
// value is empty.
type activeFaults struct {
	mu     sync.Mutex
	on     map[string]int
	counts map[string]int
}

func (a *activeFaults) begin(kind string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.on == nil {
		a.on, a.counts = map[string]int{}, map[string]int{}
	}
	a.on[kind]++
	a.counts[kind]++
}

func (a *activeFaults) end(kind string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.on[kind]--; a.on[kind] == 0 {
		delete(a.on, kind)
	}
}

// names are the kinds that are on, sorted.
func (a *activeFaults) names() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.on))
}

// happened is how often each kind has been.
func (a *activeFaults) happened() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.counts)
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// until asks cond every 20 ms, and tells whether it became true within limit.
func until(limit time.Duration, cond func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			return false
		case <-tick.C:
		}
	}
	return true
}
