package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"approvalrelay/cmd/relay/sim"
	"approvalrelay/configs"
	"approvalrelay/crypto"
	"approvalrelay/push"
	"approvalrelay/relay/storetest/redistest"
)

// world is everything around the relay: a real Redis, an issuer, a push service
// and a downstream target that verify what they get with code of their own.
type world struct {
	t          *testing.T
	redis      *redistest.Server
	issuer     *sim.Issuer
	push       *sim.PushService
	downstream *sim.Downstream
	pushURL    string
	yaml       string
	logs       *syncBuffer
}

// syncBuffer takes the log of several nodes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const (
	merchantSecret = "0123456789abcdef0123456789abcdef"
	webhookSecret  = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	jwtSecret      = "a-development-secret-of-32-bytes!"
	merchantID     = "3f2c9a52-7d0e-4a41-9c59-0f6f4d1c2b77"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	public, private, err := push.GenerateVAPID()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, redis: redistest.Start(t, "--appendfsync", "always"), issuer: sim.NewIssuer("acme", []byte(merchantSecret), merchantID),
		push: sim.NewPushService(public), downstream: sim.NewDownstream(webhookSecret), logs: &syncBuffer{},
	}
	w.pushURL = w.serve(w.push)
	w.yaml = fmt.Sprintf(`
server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", public_url: "http://localhost", shutdown_timeout: 5s}
redis: {url: %q}
storage: {keys: [%q]}
merchants:
  acme:
    secrets: [{value: %q}]
    issuer_api:
      base_url: %q
      merchant_id: %q
      confirm:
        path: /card/3ds_confirm
        body: {card_id: "$card_id", auth_id: "$reference", auth_result: "$decision"}
        decision_values: {approve: 2, reject: 3}
      lock_card:
        path: /card/update_status
        body: {card_id: "$card_id", status: LOCKED}
auth: {jwt: {issuer: "https://id.test", audience: relay, hs256_secret: %q}}
push:
  vapid: {subject: "mailto:ops@example.com", public_key: %q, private_key: %q}
  allow_private_networks: true
forward:
  targets:
    - {name: core, url: %q, events: ["*", "relay.*"], secrets: [%q]}
log: {level: debug}
`, w.redis.URL, base64.StdEncoding.EncodeToString(crypto.GenerateKey()), merchantSecret, w.serve(w.issuer), merchantID, jwtSecret,
		public, private, w.serve(w.downstream)+"/hook", webhookSecret)
	t.Cleanup(w.noSecretsInLogs)
	return w
}

// serve runs a handler until the test ends.
func (w *world) serve(h http.Handler) string {
	s := httptest.NewServer(h)
	w.t.Cleanup(s.Close)
	return s.URL
}

func (w *world) config() *configs.Config {
	w.t.Helper()
	cfg, err := configs.Parse("test.yaml", []byte(w.yaml), func(string) (string, bool) { return "", false }, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return cfg
}

// start runs one more relay on the world's Redis.
func (w *world) start() *client {
	w.t.Helper()
	c := w.startEarly()
	c.until("ready", func() bool { return c.get("", c.admin+"/readyz").status == http.StatusOK })
	return c
}

// startEarly does not wait until it is ready.
func (w *world) startEarly() *client {
	w.t.Helper()
	cfg := w.config()
	level := &slog.LevelVar{}
	level.Set(slog.LevelDebug)
	n, err := startNode(w.t.Context(), cfg, slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: level})), level, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := n.stop(); err != nil {
			w.t.Error(err)
		}
	})
	return &client{t: w.t, cfg: cfg, node: n, base: "http://" + n.Public, admin: "http://" + n.Admin}
}

// noSecretsInLogs looks through everything that was logged for what must never be.
func (w *world) noSecretsInLogs() {
	logs := w.logs.String()
	for _, secret := range []string{merchantSecret, webhookSecret, jwtSecret, oneTimeCode, canaryPAN, "eyJ", "rat_", "encrypted_payload"} {
		if strings.Contains(logs, secret) {
			w.t.Errorf("the logs contain %q", secret)
		}
	}
}

// What is looked for in logs must not stand there by chance: times and durations
// are full of digits.
const (
	canaryPAN   = "4111111111111111"
	oneTimeCode = "0q7Zk9P4"
)

// client talks to one relay over HTTP.
type client struct {
	t           *testing.T
	cfg         *configs.Config
	node        *node
	base, admin string
	merchant    string // of tokens; "": the only one
}

type answer struct {
	status int
	header http.Header
	json   map[string]any
	raw    string
}

func (a answer) text(path ...string) string {
	var v any = a.json
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return fmt.Sprint(v)
}

func (c *client) token(user string) string {
	c.t.Helper()
	token, err := mintToken(c.cfg, user, c.merchant, time.Now().Add(time.Hour))
	if err != nil {
		c.t.Fatal(err)
	}
	return token
}

func (c *client) do(method, token, url, body string) answer {
	c.t.Helper()
	a, err := c.try(method, token, url, body)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

func (c *client) try(method, token, url, body string) (answer, error) {
	if strings.HasPrefix(url, "/") {
		url = c.base + url
	}
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: res.StatusCode, header: res.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.json) // not every answer is JSON; raw is there for those
	return a, nil
}

func (c *client) get(token, url string) answer { c.t.Helper(); return c.do("GET", token, url, "") }

func (c *client) post(token, url, body string) answer {
	c.t.Helper()
	return c.do("POST", token, url, body)
}

// until waits for a condition that another process brings about.
func (c *client) until(what string, cond func() bool) {
	c.t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			c.t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// send posts a webhook and returns the relay's answer.
func (w *world) send(c *client, typ string, payload map[string]any) answer {
	w.t.Helper()
	a, err := w.issuer.Post(w.t.Context(), c.base, typ, payload)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{status: a.Status, json: a.Body, raw: string(a.Raw)}
}

// challenge sends an action-requiring webhook and returns the challenge's id.
func (w *world) challenge(c *client, typ string, payload map[string]any) string {
	w.t.Helper()
	a := w.send(c, typ, payload)
	if a.status != http.StatusOK || a.text("status") != "accepted" {
		w.t.Fatalf("%s was answered %d %s", typ, a.status, a.raw)
	}
	return "chl_" + strings.TrimPrefix(a.text("event_id"), "evt_")
}

// device registers and activates a browser of a user, as an app does.
func (w *world) device(c *client, user string) *sim.Device {
	w.t.Helper()
	d := w.push.Subscribe(w.pushURL)
	if a := c.post(c.token(user), "/v1/push/subscriptions", string(d.JSON())); a.status != http.StatusCreated {
		w.t.Fatalf("subscribe: %d %s", a.status, a.raw)
	}
	n := w.pushed(d, 1)[0]
	code := answer{json: n.Payload}
	a := c.post(c.token(user), "/v1/push/subscriptions/"+code.text("activation", "id")+"/activate", fmt.Sprintf(`{"code":%q}`, code.text("activation", "code")))
	if a.status != http.StatusNoContent {
		w.t.Fatalf("activate: %d %s", a.status, a.raw)
	}
	return d
}

// pushed waits until a device has n pushes and returns them; the push service
// has verified and decrypted each.
func (w *world) pushed(d *sim.Device, n int) []sim.Notification {
	w.t.Helper()
	wait(w.t, "pushes", n, d.Wait)
	all := d.Notifications()
	for _, p := range all {
		if p.Fault != "" {
			w.t.Fatalf("a push was faulty: %s", p.Fault)
		}
	}
	return all
}

func wait(t *testing.T, what string, n int, fn func(context.Context, int) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := fn(ctx, n); err != nil {
		t.Fatalf("waited in vain for %d %s: %v", n, what, err)
	}
}

// forwarded waits until the target has got an event of a type, verified.
func (w *world) forwarded(c *client, typ string, match func(sim.Delivery) bool) sim.Delivery {
	w.t.Helper()
	var found sim.Delivery
	c.until("forward of "+typ, func() bool {
		for _, d := range w.downstream.Deliveries() {
			if d.Type == typ && d.Fault == "" && match(d) {
				found = d
				return true
			}
		}
		return false
	})
	return found
}
