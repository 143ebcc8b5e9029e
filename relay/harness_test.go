package relay_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"approvalrelay/crypto"
	"approvalrelay/push"
	"approvalrelay/relay"
	"approvalrelay/relay/redisstore"
)

// What must never stand in a log line.
const (
	code = "045435"
	link = "https://acs.example/challenge/7"
	pan  = "4111111111111111"
)

var (
	start = time.UnixMilli(1_795_000_000_000).UTC()
	anna  = relay.User{Merchant: "acme", ID: "anna"}
	berta = relay.User{Merchant: "acme", ID: "berta"}
)

// harness is a service and a worker on an embedded store, with a clock that the
// test moves and an outside that answers as the test says.
type harness struct {
	*relay.Service
	t     *testing.T
	ctx   context.Context
	clock *clock
	store *watchedStore
	logs  *logBuffer
	ring  *crypto.Keyring

	options relay.Options
	log     *slog.Logger

	pusher     *pusher
	issuer     *issuer
	downstream *downstream
	stop       func() // the worker, and waits for it
}

// newHarness runs everything; change may alter the options.
func newHarness(t *testing.T, change func(*relay.Options)) *harness {
	t.Parallel()
	return newHarnessOn(t, redisstore.Embedded, change)
}

// newHarnessOn runs everything on a Redis.
func newHarnessOn(t *testing.T, url string, change func(*relay.Options)) *harness {
	secret, err := crypto.ParseSecret(strings.Repeat("k", 32), crypto.UTF8)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := crypto.NewKeyring(secret)
	if err != nil {
		t.Fatal(err)
	}
	o := options(ring)
	if change != nil {
		change(&o)
	}
	logs := &logBuffer{}
	withoutTime := func(_ []string, a slog.Attr) slog.Attr { // whose fraction may look like a code
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	log := slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: withoutTime}))
	h := &harness{t: t, ctx: t.Context(), logs: logs, clock: &clock{now: start}, ring: ring, pusher: &pusher{}, issuer: &issuer{}, downstream: &downstream{}}
	h.store = openStore(t, url, h.clock, log, o.Metrics)
	h.Service = relay.New(o, h.store, log)
	h.options, h.log = o, log
	w := relay.NewWorker(h.Service, h.store, relay.Outside{Pusher: h.pusher, Issuer: h.issuer, Downstream: h.downstream}, log)

	ctx, cancel := context.WithCancel(context.Background())
	grace, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { h.Run(ctx) })
	running.Go(func() { w.Run(ctx, grace) })
	h.stop = func() {
		cancel()
		defer time.AfterFunc(time.Second, end).Stop()
		running.Wait()
	}
	t.Cleanup(func() {
		h.stop()
		for _, secret := range []string{code, link, pan, "rat_", base64.StdEncoding.EncodeToString([]byte(code))} {
			if strings.Contains(logs.String(), secret) {
				t.Errorf("%q stands in the log:\n%s", secret, logs)
			}
		}
	})
	return h
}

func options(ring *crypto.Keyring) relay.Options {
	actions := map[string]relay.ChallengeKind{"CARD_3DS": relay.ThreeDS, "CARD_VERIFICATION": relay.CardVerification}
	return relay.Options{
		Merchants: map[string]*relay.Merchant{
			"acme": {Name: "acme", Actions: actions, Mapping: relay.DefaultMapping(), Keyring: ring, Confirm: true, Lock: true,
				Retry: relay.Schedule{Retry: []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}, RepeatLast: true}},
			"other": {Name: "other", Actions: actions, Mapping: relay.DefaultMapping(), Keyring: ring},
		},
		Targets: []relay.Target{target("own", "relay.*")},
		Lives: relay.Lifetimes{
			TTL: map[relay.ChallengeKind]time.Duration{relay.ThreeDS: 300 * time.Second, relay.CardVerification: 600 * time.Second},
			Max: 600 * time.Second,
		},
		Duplicates: 72 * time.Hour,
		PublicURL:  "https://relay.example",
		Push: relay.PushOptions{On: true, ActionToken: true, MaxSubscriptions: 3, CardCount: 5, CardWindow: 10 * time.Minute,
			MuteAfterReport: 20 * time.Minute},
	}
}

func target(name string, events ...string) relay.Target {
	return relay.Target{Name: name, Events: events, Concurrency: 4, MaxBacklog: 1000,
		Schedule: relay.Schedule{Retry: []time.Duration{5 * time.Second, 30 * time.Second}}}
}

func openStore(t *testing.T, url string, c *clock, log *slog.Logger, metrics prometheus.Registerer) *watchedStore {
	vault, err := crypto.NewVault(crypto.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	const partitions = 2
	s, err := redisstore.Open(redisstore.Options{
		URL: url, Prefix: "relay", Partitions: partitions, Vault: vault, Node: "node-1", Clock: c.Now, Log: log, Metrics: metrics,
		Retention: redisstore.Retention{Challenges: 72 * time.Hour, Events: 72 * time.Hour, Deliveries: 72 * time.Hour},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &watchedStore{Store: s, held: map[string]relay.Lease{}, settled: map[relay.Kind]int{}, stored: map[string]relay.Status{}, unknown: map[string]error{}, dues: make([]int, partitions), reads: make([]int, partitions)}
	w.changed.L = &w.mu
	return w
}

// quiet waits until nothing is owed now: all that is due was leased and settled.
func (h *harness) quiet() {
	h.t.Helper()
	if stuck := h.store.quiet(); stuck != "" {
		h.t.Fatalf("the worker does not come to rest: %s", stuck)
	}
}

// pass moves the clock and lets everything happen that is due then.
func (h *harness) pass(d time.Duration) {
	h.t.Helper()
	h.clock.Advance(d)
	h.quiet()
}

// payload is a decrypted body, as "key", value pairs.
func payload(pairs ...any) map[string]any {
	p := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		p[pairs[i].(string)] = pairs[i+1]
	}
	return p
}

// purchase is a payment to be approved in the app.
func purchase(card string, pairs ...any) map[string]any {
	p := payload("card_id", card, "user_id", "anna", "auth_id", "ref-"+card, "amount", "50.00", "currency", "USD", "merchant_name", "Shop")
	for k, v := range payload(pairs...) {
		if p[k] = v; v == nil {
			delete(p, k)
		}
	}
	return p
}

// send posts an event as the issuer does, under a fresh IV.
func (h *harness) send(merchant, typ string, body map[string]any) (relay.Receipt, error) {
	plain, err := json.Marshal(body)
	if err != nil {
		h.t.Fatal(err)
	}
	sealed, mac, err := h.ring.Seal(plain)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.Receive(h.ctx, relay.Webhook{Merchant: merchant, Type: typ, Payload: sealed, HMAC: mac, Raw: []byte(`{"raw":"` + sealed + `"}`)})
}

// accepted is send for what must be taken; it returns the id of its challenge.
func (h *harness) accepted(typ string, body map[string]any) string {
	h.t.Helper()
	r, err := h.send("acme", typ, body)
	if err != nil || r.Status != relay.Accepted {
		h.t.Fatalf("receive %s: %+v, %v", typ, r, err)
	}
	return strings.Replace(r.EventID, "evt_", "chl_", 1)
}

// receive is accepted, and lets everything happen because of it.
func (h *harness) receive(typ string, body map[string]any) string {
	h.t.Helper()
	id := h.accepted(typ, body)
	h.quiet()
	return id
}

// challenge is as the store has it.
func (h *harness) challenge(id string) relay.Challenge {
	h.t.Helper()
	c, err := h.store.Challenge(h.ctx, id)
	if err != nil {
		h.t.Fatalf("load %s: %v", id, err)
	}
	return c
}

func (h *harness) wantStatus(id string, want relay.Status) relay.Challenge {
	h.t.Helper()
	c := h.challenge(id)
	if c.Status != want {
		h.t.Fatalf("the challenge is %s, want %s", c.Status, want)
	}
	return c
}

// listed is the ids that the user sees.
func (h *harness) listed(u relay.User, all bool) []string {
	h.t.Helper()
	p, err := h.List(h.ctx, u, all, 100, "")
	if err != nil {
		h.t.Fatal(err)
	}
	ids := make([]string, 0, len(p.Challenges))
	for _, c := range p.Challenges {
		ids = append(ids, c.ID)
	}
	return ids
}

// within receives, and fails the test if that takes too long.
func within[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	select {
	case v := <-ch:
		return v
	case <-timer.C:
		t.Fatal("nothing comes")
		panic("unreachable")
	}
}

func approve() relay.Decision { return relay.Decision{Action: relay.Approve} }

func reject(reason string) relay.Decision {
	return relay.Decision{Action: relay.Reject, Reason: reason}
}

// endpoint is a browser's subscription; the number tells browsers apart.
func endpoint(n int) push.Subscription {
	return push.Subscription{Endpoint: fmt.Sprintf("https://push.example/%d", n), P256dh: "p", Auth: "a"}
}

// subscribe registers a browser and returns its id and the code pushed to it.
func (h *harness) subscribe(u relay.User, n int) (id, code string) {
	h.t.Helper()
	sub, _, err := h.Subscribe(h.ctx, u, endpoint(n), "", "")
	if err != nil {
		h.t.Fatal(err)
	}
	h.quiet()
	sent := h.pusher.to(n)
	if len(sent) == 0 || sent[len(sent)-1].Activation.ID != sub.ID {
		h.t.Fatalf("browser %d was not pushed its activation", n)
	}
	return sub.ID, sent[len(sent)-1].Activation.Code
}

// device registers and activates a browser.
func (h *harness) device(u relay.User, n int) string {
	h.t.Helper()
	id, code := h.subscribe(u, n)
	if err := h.Activate(h.ctx, u, id, code); err != nil {
		h.t.Fatal(err)
	}
	h.pusher.clear()
	return id
}

// clock is moved by the test only.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// logBuffer collects log lines.
type logBuffer struct {
	mu   sync.Mutex
	out  bytes.Buffer
	text string        // waited for
	seen chan struct{} // closed when text is there
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text != "" && bytes.Contains(p, []byte(b.text)) {
		close(b.seen)
		b.text = ""
	}
	return b.out.Write(p)
}

// next is closed when the next line that holds a text is logged.
func (b *logBuffer) next(text string) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text, b.seen = text, make(chan struct{})
	return b.seen
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out.String()
}
