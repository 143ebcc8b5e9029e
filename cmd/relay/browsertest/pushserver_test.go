package browsertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"approvalrelay/cmd/relay/sim"
)

// pushServer is Firefox's push service: the browser is on its websocket
// (subprotocol push-notification), the relay posts to its endpoints. What is
// posted goes on to the browser as it came: only that has the keys.
type pushServer struct {
	t      testing.TB
	server *httptest.Server
	checks *sim.PushService

	mu       sync.Mutex
	channels map[string]*channel // by the last part of the endpoint
	acks     []ack
	lost     bool // the browser's next hello is answered as if it was new
}

// channel is one subscription of a browser.
type channel struct {
	id   string
	conn *websocket.Conn
}

// ack is what the browser said of a push: 100 it was taken, 101 it could not be
// decrypted, 102 the worker failed.
type ack struct {
	ChannelID string `json:"channelID"`
	Version   string `json:"version"`
	Code      int    `json:"code"`
}

// sealedForBrowser is the only fault that the simulated push service, which
// checks VAPID, headers and the form of the encryption, may find: it stands in
// for the browser without having its keys.
const sealedForBrowser = "encryption: does not decrypt under this subscription's keys"

// newPushServer starts one for the duration of the test, for one VAPID key.
func newPushServer(t testing.TB, vapid string) *pushServer {
	p := &pushServer{t: t, checks: sim.NewPushService(vapid), channels: map[string]*channel{}}
	p.server = httptest.NewServer(p)
	t.Cleanup(p.server.Close)
	return p
}

// websocketURL is for the preference dom.push.serverURL.
func (p *pushServer) websocketURL() string {
	return strings.Replace(p.server.URL, "http", "ws", 1) + "/"
}

func (p *pushServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		p.take(w, r)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"push-notification"}, InsecureSkipVerify: true})
	if err != nil {
		return // it has been answered
	}
	defer conn.CloseNow()
	for {
		var m map[string]json.RawMessage
		if err := wsjson.Read(r.Context(), conn, &m); err != nil {
			return // the browser has gone
		}
		if answer := p.answer(conn, m); answer != nil {
			if err := wsjson.Write(r.Context(), conn, answer); err != nil {
				return
			}
		}
	}
}

// answer is the browser's side of the protocol; nil for what needs none.
func (p *pushServer) answer(conn *websocket.Conn, m map[string]json.RawMessage) map[string]any {
	text := func(name string) string { var s string; _ = json.Unmarshal(m[name], &s); return s }
	p.mu.Lock()
	defer p.mu.Unlock()
	switch text("messageType") {
	case "":
		return map[string]any{} // a ping
	case "hello":
		uaid := text("uaid")
		if uaid == "" || p.lost {
			p.lost = false
			uaid = strings.ToLower(rand.Text())
		}
		for _, c := range p.channels {
			c.conn = conn // of the only browser, which has come back
		}
		return map[string]any{"messageType": "hello", "status": 200, "uaid": uaid, "use_webpush": true, "broadcasts": map[string]any{}}
	case "register":
		device := p.checks.Subscribe(p.server.URL)
		p.channels[path.Base(device.Endpoint)] = &channel{id: text("channelID"), conn: conn}
		return map[string]any{"messageType": "register", "channelID": text("channelID"), "status": 200, "pushEndpoint": device.Endpoint}
	case "unregister":
		for token, c := range p.channels {
			if c.id == text("channelID") {
				delete(p.channels, token)
			}
		}
		return map[string]any{"messageType": "unregister", "channelID": text("channelID"), "status": 200}
	case "ack":
		var updates []ack
		if json.Unmarshal(m["updates"], &updates) == nil {
			p.acks = append(p.acks, updates...)
		}
	}
	return nil
}

// forget loses all that is known of the browser, and lets it find that out.
func (p *pushServer) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lost = true
	for token, c := range p.channels {
		delete(p.channels, token)
		_ = c.conn.CloseNow() // it connects again
	}
}

// take is the relay's side (RFC 8030): 404 for a subscription that has ended,
// what the simulated service finds wrong, else 201.
func (p *pushServer) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	c, ok := p.channels[path.Base(r.URL.Path)]
	p.mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	checked := httptest.NewRecorder()
	r.Body = io.NopCloser(bytes.NewReader(body))
	p.checks.ServeHTTP(checked, r)
	if said := checked.Body.String(); said != sealedForBrowser {
		p.t.Errorf("a push was refused: %s", said)
		w.WriteHeader(checked.Code)
		return
	}
	if err := c.notify(r.Context(), body); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

func (c *channel) notify(ctx context.Context, body []byte) error {
	return wsjson.Write(ctx, c.conn, map[string]any{
		"messageType": "notification", "channelID": c.id, "version": rand.Text(),
		"data": base64.RawURLEncoding.EncodeToString(body), "headers": map[string]string{"encoding": "aes128gcm"},
	})
}

// checkAcks fails the test for every push that the browser could not take.
func (p *pushServer) checkAcks() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.acks) == 0 {
		return errors.New("the browser took no push")
	}
	if i := slices.IndexFunc(p.acks, func(a ack) bool { return a.Code != 100 }); i >= 0 {
		return errors.New("the browser could not take a push: " + p.acks[i].Version)
	}
	return nil
}
