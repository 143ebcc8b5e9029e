package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"approvalrelay/api/web"
	"approvalrelay/cmd/relay/sim"
	"approvalrelay/relay"
)

// demoShown is how many records of each party the panel shows.
const demoShown = 12

// demoPanel plays the issuer at the press of a button, and shows what reached
// everybody. It shows what arrived and nothing else: no code is in it, since the
// relay hands codes to the cardholder only.
type demoPanel struct {
	relayURL, appURL string
	issuer           *sim.Issuer
	pushes           *sim.PushService
	downstream       *sim.Downstream
	timer            *time.Ticker

	mu    sync.Mutex // held while the issuer sends: a push is never shown before its cause
	sent  []demoSent // the newest last
	last  demoEvent  // what "the same event again" sends
	timed bool
}

// demoTimer is how often the issuer sends by itself.
const demoTimer = 30 * time.Second

func newDemoPanel(relayURL string) *demoPanel {
	return &demoPanel{relayURL: relayURL, timer: time.NewTicker(demoTimer)}
}

// demoEvent is something for the issuer to send.
type demoEvent struct {
	Label   string
	Type    string
	Payload map[string]any
}

// demoEvents make the events by the names that the panel's buttons send.
var demoEvents = map[string]func(time.Time) demoEvent{
	"approve": func(now time.Time) demoEvent {
		return demoEvent{"3DS challenge to approve", "CARD_3DS", samplePayload("CARD_3DS", now)}
	},
	"otp": func(now time.Time) demoEvent {
		return demoEvent{"3DS one-time code", "CARD_3DS", sampleOTP(now)}
	},
	"wallet": func(now time.Time) demoEvent {
		return demoEvent{"Google Pay code", "CARD_VERIFICATION", samplePayload("CARD_VERIFICATION", now)}
	},
	"recharge": func(now time.Time) demoEvent {
		return demoEvent{"Card recharged", "CARD_RECHARGE_RESULT", samplePayload("CARD_RECHARGE_RESULT", now)}
	},
	"forged": func(now time.Time) demoEvent {
		return demoEvent{"Forged challenge", "CARD_3DS", samplePayload("CARD_3DS", now)}
	},
}

// demoSent is a webhook and the relay's answer.
type demoSent struct {
	At      time.Time      `json:"at"`
	Label   string         `json:"label"`
	Type    string         `json:"type"`
	Payload map[string]any `json:"payload"` // before it was sealed, codes masked
	Status  int            `json:"status"`
	Answer  string         `json:"answer"` // the status, or the code of a problem
	TookMS  float64        `json:"took_ms"`
	EventID string         `json:"event_id"`
}

// send lets the issuer send one of demoEvents, or "again" the last authentic one.
func (p *demoPanel) send(ctx context.Context, name string) (demoSent, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	ev := p.last
	if make, ok := demoEvents[name]; ok {
		ev = make(now)
	}
	body := p.issuer.Seal(ev.Type, ev.Payload) // under a fresh IV, also again
	if name == "forged" {
		body = forge(body)
	} else {
		p.last = ev
	}
	answer, err := p.issuer.Send(ctx, p.relayURL, body)
	if err != nil {
		return demoSent{}, err
	}
	s := demoSent{
		At: now, Label: ev.Label, Type: ev.Type, Payload: maskCodes(ev.Payload),
		Status: answer.Status, TookMS: millis(time.Since(now)),
	}
	if name == "again" {
		s.Label += ", again"
	}
	s.EventID, _ = answer.Body["event_id"].(string)
	if s.Answer, _ = answer.Body["status"].(string); s.Answer == "" {
		s.Answer, _ = answer.Body["code"].(string)
	}
	p.sent = append(p.sent[max(0, len(p.sent)-demoShown+1):], s)
	return s, nil
}

// forge signs an envelope as somebody would who does not have the key.
func forge(body []byte) []byte {
	var envelope map[string]string
	if err := json.Unmarshal(body, &envelope); err != nil {
		panic(fmt.Sprintf("demo: the issuer's own envelope: %v", err))
	}
	envelope["hmac"] = strings.Repeat("0", len(envelope["hmac"]))
	forged, err := json.Marshal(envelope)
	if err != nil {
		panic(fmt.Sprintf("demo: encode strings: %v", err))
	}
	return forged
}

func maskCodes(payload map[string]any) map[string]any {
	masked := map[string]any{}
	for name, value := range payload {
		if name == "otp" || name == "activationCode" {
			value = "••••••"
		}
		masked[name] = value
	}
	return masked
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// runTimer sends a challenge at every tick while the timer is on, until ctx ends.
func (p *demoPanel) runTimer(ctx context.Context) {
	defer p.timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.timer.C:
			p.mu.Lock()
			on := p.timed
			p.mu.Unlock()
			if on {
				_, _ = p.send(ctx, "approve") // a relay that is shutting down does not answer
			}
		}
	}
}

func (p *demoPanel) setTimer(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timed = on
	p.timer.Reset(demoTimer)
}

// demoState is what the page shows, the newest last.
type demoState struct {
	App        string           `json:"app"`
	Timer      bool             `json:"timer"`
	Sent       []demoSent       `json:"sent"`
	Phone      []demoPush       `json:"phone"`
	Issuer     []demoCall       `json:"issuer"`
	Downstream []demoForwarding `json:"downstream"`
}

type demoPush struct {
	At        time.Time `json:"at"`
	Title     string    `json:"title"`
	Body      string    `json:"body"`
	Silent    bool      `json:"silent"`
	Status    string    `json:"status"`             // of the challenge; "" if the push is about none
	Challenge string    `json:"challenge"`          // its id
	AfterMS   float64   `json:"after_ms,omitempty"` // since the issuer sent the webhook
	Fault     string    `json:"fault"`
}

type demoCall struct {
	At             time.Time      `json:"at"`
	Path           string         `json:"path"`
	IdempotencyKey string         `json:"idempotency_key"`
	Body           map[string]any `json:"body"`
	Status         int            `json:"status"`
	Fault          string         `json:"fault"`
}

type demoForwarding struct {
	At       time.Time `json:"at"`
	Type     string    `json:"type"`
	ID       string    `json:"id"`
	Attempt  int       `json:"attempt"`
	Verified bool      `json:"verified"` // its Standard Webhooks signature
	Status   int       `json:"status"`
	Fault    string    `json:"fault"`
}

func (p *demoPanel) state() demoState {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := demoState{
		App: p.appURL, Timer: p.timed, Sent: slices.Clone(p.sent),
		Phone: []demoPush{}, Issuer: []demoCall{}, Downstream: []demoForwarding{},
	}
	for _, n := range p.pushes.Notifications() {
		s.Phone = append(s.Phone, p.push(n))
	}
	for _, c := range p.issuer.Calls() {
		s.Issuer = append(s.Issuer, demoCall{c.At, c.Path, c.IdempotencyKey, c.Body, c.Status, c.Fault})
	}
	for _, d := range p.downstream.Deliveries() {
		s.Downstream = append(s.Downstream, demoForwarding{d.At, d.Type, d.ID, d.Attempt, d.Signatures > 0, d.Status, d.Fault})
	}
	return s
}

func (p *demoPanel) push(n sim.Notification) demoPush {
	var got struct {
		Notification struct {
			Title, Body string
			Silent      bool
		}
		Challenge struct{ ID, Status string }
	}
	_ = json.Unmarshal(n.Raw, &got) // n.Fault says what was wrong with it
	v := demoPush{
		At: n.At, Title: got.Notification.Title, Body: got.Notification.Body, Silent: got.Notification.Silent,
		Status: got.Challenge.Status, Challenge: got.Challenge.ID, Fault: n.Fault,
	}
	if v.Status != string(relay.Pending) {
		return v
	}
	event := relay.Challenge{ID: v.Challenge}.EventID()
	for _, sent := range p.sent {
		if sent.EventID == event { // the first one: what came again caused nothing
			v.AfterMS = millis(n.At.Sub(sent.At))
			break
		}
	}
	return v
}

//go:embed demo/index.html demo/demo.js demo/demo.css
var demoFiles embed.FS

// mount puts the panel under /demo/ in front of the admin handler, which keeps
// every other path.
func (p *demoPanel) mount(admin http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /demo", http.RedirectHandler("/demo/", http.StatusPermanentRedirect))
	asset := func(pattern, mediaType string, body []byte) {
		mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", mediaType)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
		})
	}
	asset("/demo/{$}", "text/html; charset=utf-8", demoFile("index.html"))
	asset("/demo/demo.js", "text/javascript; charset=utf-8", demoFile("demo.js"))
	asset("/demo/demo.css", "text/css; charset=utf-8", demoFile("demo.css"))
	asset("/demo/theme.css", "text/css; charset=utf-8", appFile("theme.css"))
	asset("/demo/icon.svg", "image/svg+xml", appFile("icon.svg"))
	mux.HandleFunc("GET /demo/state", func(w http.ResponseWriter, _ *http.Request) { writeState(w, p.state()) })
	mux.HandleFunc("POST /demo/send/{event}", p.serveSend)
	mux.HandleFunc("POST /demo/timer/{state}", p.serveTimer)
	guarded := guardPanel(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/demo" || strings.HasPrefix(r.URL.Path, "/demo/") {
			guarded.ServeHTTP(w, r)
			return
		}
		admin.ServeHTTP(w, r)
	})
}

func demoFile(name string) []byte {
	body, err := demoFiles.ReadFile("demo/" + name)
	if err != nil {
		panic(fmt.Sprintf("demo: %v", err)) // only if the embedded folder is renamed
	}
	return body
}

// appFile is one of the cardholder app: the panel looks like it.
func appFile(name string) []byte {
	body, err := fs.ReadFile(web.App(), name)
	if err != nil {
		panic(fmt.Sprintf("demo: %v", err)) // only if the app's icon is renamed
	}
	return body
}

// guardPanel keeps other sites' pages out: by name, so that none can point a name of
// its own at this listener, and by origin for what changes anything.
func guardPanel(h http.Handler) http.Handler {
	h = http.NewCrossOriginProtection().Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-store") // the link to the app carries a token
		if !loopbackName(r.Host) {
			http.Error(w, "the demo panel is at http://127.0.0.1 and http://localhost only", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func loopbackName(hostport string) bool {
	u := url.URL{Host: hostport}
	addr, err := netip.ParseAddr(u.Hostname())
	return strings.EqualFold(u.Hostname(), "localhost") || err == nil && addr.IsLoopback()
}

func (p *demoPanel) serveSend(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("event")
	if _, ok := demoEvents[name]; !ok && name != "again" {
		http.NotFound(w, r)
		return
	}
	sent, err := p.send(r.Context(), name)
	if err != nil {
		http.Error(w, "the relay did not answer", http.StatusBadGateway)
		return
	}
	writeState(w, sent)
}

func (p *demoPanel) serveTimer(w http.ResponseWriter, r *http.Request) {
	state := r.PathValue("state")
	if state != "on" && state != "off" {
		http.NotFound(w, r)
		return
	}
	p.setTimer(state == "on")
	w.WriteHeader(http.StatusNoContent)
}

func writeState(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// The page may have gone; nobody else waits for it.
	_ = json.NewEncoder(w).Encode(v)
}
