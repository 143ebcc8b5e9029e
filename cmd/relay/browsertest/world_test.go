package browsertest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"approvalrelay/cmd/relay/sim"
	"approvalrelay/crypto"
	"approvalrelay/push"
	"approvalrelay/relay/storetest/freeport"
	"approvalrelay/relay/storetest/redistest"
)

// How long things may take before a test gives up; none is a measurement.
const (
	upTime    = 40 * time.Second // a program to start
	shownTime = 20 * time.Second // something to be seen
)

// world is one relay with everything around it.
type world struct {
	t      testing.TB
	redis  *redistest.Server
	issuer *sim.Issuer
	core   *sim.Downstream
	push   *sim.PushService // for Chromium, whose own cannot be reached
	vapid  string           // public key
	base   string           // http://localhost:PORT
	admin  string           // http://localhost:PORT of the admin listener

	pushURL string
	config  string
	proc    *exec.Cmd
	ended   chan struct{}
	log     tail
}

const (
	merchantSecret = "0123456789abcdef0123456789abcdef"
	webhookSecret  = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	jwtSecret      = "a-development-secret-of-32-bytes!"
	merchantID     = "3f2c9a52-7d0e-4a41-9c59-0f6f4d1c2b77"
	confirmPath    = "/card/3ds_confirm"
	lockPath       = "/card/update_status"
	leeway         = time.Second // of the expiry of a token
)

// newWorld starts everything, and ends it with the test. changes to the relay's
// configuration are pairs of what stands in it and what shall stand there.
func newWorld(t testing.TB, changes ...string) *world {
	t.Helper()
	public, private, err := push.GenerateVAPID()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, vapid: public, redis: redistest.Start(t),
		issuer: sim.NewIssuer("acme", []byte(merchantSecret), merchantID),
		core:   sim.NewDownstream(webhookSecret), push: sim.NewPushService(public),
	}
	serve := func(h http.Handler) string {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		return server.URL
	}
	w.pushURL = serve(w.push)
	listen, admin := freeport.Port(t), freeport.Port(t)
	w.base, w.admin = "http://localhost:"+listen, "http://localhost:"+admin
	w.config = filepath.Join(t.TempDir(), "relay.yaml")
	w.configure(w.yaml(listen, admin, serve(w.issuer), serve(w.core), public, private), changes...)
	w.start()
	t.Cleanup(w.stop)
	return w
}

// configure writes the configuration, changed.
func (w *world) configure(yaml string, changes ...string) {
	w.t.Helper()
	for pair := range slices.Chunk(changes, 2) {
		if !strings.Contains(yaml, pair[0]) {
			w.t.Fatalf("the configuration has no %q", pair[0])
		}
		yaml = strings.ReplaceAll(yaml, pair[0], pair[1])
	}
	if err := os.WriteFile(w.config, []byte(yaml), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// reconfigure restarts the relay with changes to its configuration.
func (w *world) reconfigure(changes ...string) {
	w.t.Helper()
	yaml, err := os.ReadFile(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.stop()
	w.configure(string(yaml), changes...)
	w.start()
}

func (w *world) yaml(listen, admin, issuerURL, coreURL, vapidPublic, vapidPrivate string) string {
	return fmt.Sprintf(`
server: {listen: "127.0.0.1:%s", admin_listen: "127.0.0.1:%s", public_url: %q, shutdown_timeout: 1s, cors_origins: []}
redis: {url: %q, partitions: 4}
storage: {keys: [%q]}
merchants:
  acme:
    secrets: [{value: %q}]
    issuer_api:
      base_url: %q
      merchant_id: %q
      timeout: 20s
      confirm:
        path: %s
        body: {card_id: "$card_id", auth_id: "$reference", auth_result: "$decision"}
        decision_values: {approve: 2, reject: 3}
      lock_card: {path: %s, body: {card_id: "$card_id", status: LOCKED}}
auth:
  rate_limit: {per_second: 10000, burst: 10000}
  jwt: {issuer: "https://id.test", audience: relay, leeway: %s, hs256_secret: %q}
push:
  vapid: {subject: "mailto:ops@example.com", public_key: %q, private_key: %q}
  allow_private_networks: true
  per_card_limit: {count: 1000, window: 1m}
app: {name: "Card approvals"}
challenges: {require_shown: false}
forward:
  targets: [{name: core, url: "%s/hook", events: ["*", "relay.*"], secrets: [%q]}]
`, listen, admin, w.base, w.redis.URL, base64.StdEncoding.EncodeToString(crypto.GenerateKey()), merchantSecret,
		issuerURL, merchantID, confirmPath, lockPath, leeway, jwtSecret, vapidPublic, vapidPrivate, coreURL, webhookSecret)
}

// start runs the program, and returns when it listens.
func (w *world) start() {
	w.t.Helper()
	path, err := program()
	if err != nil {
		w.t.Fatal(err)
	}
	w.proc, w.ended = exec.Command(path, "serve", "--config", w.config), make(chan struct{})
	stderr, err := w.proc.StderrPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := spawn(w.proc); err != nil {
		w.t.Fatal(err)
	}
	up := make(chan struct{})
	go func(proc *exec.Cmd, ended chan struct{}) {
		defer close(ended)
		w.log.follow(stderr, "relay is up", up)
		_ = proc.Wait() // how it ended does not matter here
	}(w.proc, w.ended)
	select {
	case <-up:
	case <-w.ended:
		w.t.Fatalf("the relay ended:\n%s", w.log.String())
	case <-time.After(upTime):
		w.t.Fatalf("the relay did not start within %s:\n%s", upTime, w.log.String())
	}
}

// stop ends the program as an operator does.
func (w *world) stop() {
	_ = w.proc.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-w.ended:
	case <-time.After(upTime):
		w.t.Errorf("the relay still ran %s after SIGTERM:\n%s", upTime, w.log.String())
		_ = w.proc.Process.Kill()
		<-w.ended
	}
	if w.t.Failed() {
		w.t.Logf("the relay's log ends with:\n%s", w.log.String())
	}
}

// tail is the end of a program's output.
type tail struct {
	mu   sync.Mutex
	last []byte
}

// follow reads to the end, and closes seen at the first line that has text.
func (l *tail) follow(r io.Reader, text string, seen chan struct{}) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		l.mu.Lock()
		l.last = append(l.last, line...)
		l.last = l.last[max(0, len(l.last)-4096):]
		l.mu.Unlock()
		if seen != nil && bytes.Contains(line, []byte(text)) {
			close(seen)
			seen = nil
		}
		if err != nil {
			return
		}
	}
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.last)
}

// user is a cardholder with a card that nobody else has.
func user() (name, card string) {
	n := rand.Text()
	return "user-" + n, "card-" + n
}

// token is a JWT of a cardholder who has just signed in, good for life.
func (w *world) token(user string, life time.Duration) string {
	return w.tokenSince(user, life, time.Now())
}

// tokenSince is a token of a cardholder who signed in at that time.
func (w *world) tokenSince(user string, life time.Duration, signedIn time.Time) string {
	part := func(v map[string]any) string {
		data, err := json.Marshal(v)
		if err != nil {
			panic(err) // strings and numbers only
		}
		return base64.RawURLEncoding.EncodeToString(data)
	}
	now := time.Now()
	signed := part(map[string]any{"alg": "HS256", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": "https://id.test", "aud": "relay", "sub": user, "iat": now.Unix(), "exp": now.Add(life).Unix(), "auth_time": signedIn.Unix(), "jti": rand.Text(),
	})
	mac := hmac.New(sha256.New, []byte(jwtSecret))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// app is where a cardholder signs in.
func (w *world) app(user string) string {
	return w.base + "/app/#token=" + w.token(user, time.Hour)
}

// purchase is what the issuer says of one.
type purchase map[string]any

// payment is a 3DS challenge that is approved or rejected.
func payment(user, card, payee, amount string) purchase {
	return purchase{
		"card_id": card, "user_id": user, "occur_time": time.Now().UnixMilli(), "auth_id": rand.Text(),
		"merchant_name": payee, "merchant_country_code": "250", "card_number": "4242********4242",
		"transaction_amount": amount, "transaction_currency": "978",
	}
}

// withCode is a 3DS challenge that is answered by reading its code.
func withCode(user, card, payee, amount, code string) purchase {
	return purchase{
		"card_id": card, "user_id": user, "occur_time": time.Now().UnixMilli(), "reference_code": rand.Text(), "otp": code,
		"amount": json.Number(amount), "currency": "USD", "detail": payee, "card_number": "4242********4242",
	}
}

// withLink is a 3DS challenge that is answered on the bank's page.
func withLink(user, card, payee, link string) purchase {
	return purchase{
		"card_id": card, "user_id": user, "occur_time": time.Now().UnixMilli(), "auth_id": rand.Text(), "auth_url": link,
		"merchant_name": payee, "merchant_country_code": "250", "card_number": "4242********4242",
		"transaction_amount": "18.00", "transaction_currency": "978",
	}
}

// until sets when the challenge ends.
func (p purchase) until(end time.Time) purchase {
	p["expirationTime"] = end.UnixMilli()
	return p
}

// post sends it as the issuer does.
func (w *world) post(p purchase) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), shownTime)
	defer cancel()
	answer, err := w.issuer.Post(ctx, w.base, "CARD_3DS", p)
	if err != nil || answer.Status != http.StatusOK || answer.Body["status"] != "accepted" {
		w.t.Fatalf("the webhook was answered %d %s: %v", answer.Status, answer.Raw, err)
	}
}

// decisions of the issuer's API.
const (
	approved = 2
	rejected = 3
)

// awaitConfirm waits until the issuer has had the sealed confirm of a purchase
// with this decision, and fails if there is another one of it.
func (w *world) awaitConfirm(p purchase, decision int) {
	w.t.Helper()
	var got []sim.Call
	ok := until(shownTime, func() bool {
		got = nil
		for _, c := range w.issuer.Calls() {
			if c.Path == confirmPath && c.Body["auth_id"] == p["auth_id"] {
				got = append(got, c)
			}
		}
		return len(got) > 0
	})
	if !ok {
		w.t.Fatalf("the issuer had no confirm of %v within %s", p["auth_id"], shownTime)
	}
	for _, c := range got {
		if c.Fault != "" || c.Body["auth_result"] != json.Number(strconv.Itoa(decision)) || c.Body["card_id"] != p["card_id"] {
			w.t.Fatalf("the issuer had %v (%s), want the decision %d", c.Body, c.Fault, decision)
		}
	}
}

// call is the cardholder API, as another frontend of the same user uses it.
func (w *world) call(method, path, user string, body any, into any) {
	w.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := http.NewRequest(method, w.base+path, bytes.NewReader(data))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.token(user, time.Hour))
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		w.t.Fatalf("%s %s: %d %s %v", method, path, res.StatusCode, answer, err)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			w.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
}

// pendingID is the id of the only challenge that waits for a user.
func (w *world) pendingID(user string) string {
	w.t.Helper()
	return w.idOf(user, "")
}

// idOf is the id of the only challenge that waits for a user and, if payee is not
// empty, is of that one.
func (w *world) idOf(user, payee string) string {
	w.t.Helper()
	var list struct {
		Data []struct {
			ID    string
			Payee struct{ Name string }
		}
	}
	w.call(http.MethodGet, "/v1/challenges", user, nil, &list)
	var ids []string
	for _, c := range list.Data {
		if payee == "" || c.Payee.Name == payee {
			ids = append(ids, c.ID)
		}
	}
	if len(ids) != 1 {
		w.t.Fatalf("%d challenges of %q are pending, want one", len(ids), payee)
	}
	return ids[0]
}

// subscriptions is the status of each device of a user that is, or shall be, told
// of payments.
func (w *world) subscriptions(user string) (statuses []string) {
	w.t.Helper()
	var list struct{ Data []struct{ Status string } }
	w.call(http.MethodGet, "/v1/push/subscriptions", user, nil, &list)
	for _, s := range list.Data {
		statuses = append(statuses, s.Status)
	}
	return statuses
}

// statusOf is what a call with this token is answered.
func (w *world) statusOf(path, token string) int {
	req, err := http.NewRequest(http.MethodGet, w.base+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}
