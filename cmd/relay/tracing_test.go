package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"approvalrelay/cmd/relay/sim"
)

// spanned is one span as a collector gets it, its ids in hexadecimal digits.
type spanned struct {
	name, trace, id, parent string
	node                    string // service.instance.id
	kind                    trace.Span_SpanKind
	attributes              map[string]string
	links                   []string // trace-span
}

// collected takes spans over OTLP/HTTP.
type collected struct {
	mu    sync.Mutex
	spans []spanned
	raw   []byte // everything that was sent
}

// newCollector makes the world's relays trace.
func (w *world) newCollector() *collected {
	w.t.Helper()
	c := &collected{}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &req)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			w.t.Errorf("%s got %v", r.URL.Path, err)
		}
		c.take(body, &req)
		rw.Header().Set("Content-Type", "application/x-protobuf")
	}))
	w.t.Cleanup(s.Close)
	w.yaml += fmt.Sprintf("tracing: {otlp_endpoint: %q}\n", s.URL)
	return c
}

func (c *collected) take(body []byte, req *collector.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(c.raw, body...)
	for _, r := range req.GetResourceSpans() {
		node := texts(r.GetResource().GetAttributes())["service.instance.id"]
		for _, scope := range r.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				one := spanned{
					name: s.GetName(), trace: hex.EncodeToString(s.GetTraceId()), id: hex.EncodeToString(s.GetSpanId()), parent: hex.EncodeToString(s.GetParentSpanId()),
					node: node, kind: s.GetKind(), attributes: texts(s.GetAttributes()),
				}
				for _, l := range s.GetLinks() {
					one.links = append(one.links, hex.EncodeToString(l.GetTraceId())+"-"+hex.EncodeToString(l.GetSpanId()))
				}
				c.spans = append(c.spans, one)
			}
		}
	}
}

func texts(attributes []*common.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range attributes {
		switch v := a.GetValue().GetValue().(type) {
		case *common.AnyValue_IntValue:
			m[a.GetKey()] = fmt.Sprint(v.IntValue)
		default:
			m[a.GetKey()] = a.GetValue().GetStringValue()
		}
	}
	return m
}

// find is the spans with a name and these "name", value pairs of attributes.
func (c *collected) find(name string, pairs ...string) []spanned {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []spanned
next:
	for _, s := range c.spans {
		for i := 0; i < len(pairs); i += 2 {
			if s.attributes[pairs[i]] != pairs[i+1] {
				continue next
			}
		}
		if s.name == name {
			found = append(found, s)
		}
	}
	return found
}

func (c *collected) everything() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.raw)
}

// flush sends what the relays have not sent yet.
func flush(relays ...*client) {
	for _, r := range relays {
		r.t.Helper()
		if err := r.node.spans.ForceFlush(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	}
}

const foreignTrace = "5eaf00d5eaf00d5eaf00d5eaf00d5eaf"

// traceparents puts a proxy in front of a server. It notes which traceparent passes,
// and with send it writes one of its own.
func traceparents(t *testing.T, to string, send bool) (address string, passed func() []string) {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seen []string
	s := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, strings.Join(r.In.Header.Values("Traceparent"), ","))
		r.SetURL(u)
		r.Out.Host = r.In.Host // what is signed names it
		if send {
			r.Out.Header.Set("Traceparent", "00-"+foreignTrace+"-00f067aa0ba902b7-01")
		}
	}})
	t.Cleanup(s.Close)
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), seen...)
	}
}

// TestTracing: a webhook and all that comes of it is one trace, although one node
// takes it and another makes the deliveries. The decision is a trace of its own, in
// which the confirm points back to the webhook's.
func TestTracing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spans := w.newCollector()
	w.yaml = strings.Replace(w.yaml, `events: ["*", "relay.*"]`, `events: ["*", "relay.*", "CARD_3DS"]`, 1)
	issuer := w.config().Merchants["acme"].IssuerAPI.BaseURL
	issuer, toIssuer := traceparents(t, issuer, false)
	w.yaml = replaceURL(w.yaml, "base_url: ", issuer)
	var toPush func() []string
	w.pushURL, toPush = traceparents(t, w.pushURL, false)

	takes, sends := w.start(), w.start()
	phone := w.device(sends, "u1")
	takes.node.stopWork()
	takes.node.work.Wait()
	outside := &client{t: t, cfg: takes.cfg}
	outside.base, _ = traceparents(t, takes.base, true)
	payload := purchase("c-1", "u1", "A-1")
	payload["card_number"] = canaryPAN
	id := w.challenge(outside, "CARD_3DS", payload)
	event := "evt_" + strings.TrimPrefix(id, "chl_")
	w.pushed(phone, 2)
	got := w.forwarded(sends, "CARD_3DS", func(d sim.Delivery) bool { return d.ID == event })
	outside.base, _ = traceparents(t, sends.base, true)
	if a := outside.post(outside.token("u1"), "/v1/challenges/"+id+"/approve", ""); a.text("status") != "approved" {
		t.Fatalf("approve: %d %s", a.status, a.raw)
	}
	code := w.challenge(outside, "CARD_3DS", map[string]any{"card_id": "c-1", "user_id": "u1", "otp": oneTimeCode, "auth_id": "A-2"})
	outside.post(outside.token("u1"), "/v1/challenges/"+code+"/reveal", "")
	w.pushed(phone, 3)

	one := func(name string, pairs ...string) spanned {
		t.Helper()
		var found []spanned
		sends.until("one span "+name, func() bool {
			flush(takes, sends)
			found = spans.find(name, pairs...)
			return len(found) == 1
		})
		return found[0]
	}
	webhook := one("webhook", "relay.event_id", event, "relay.status", "accepted", "relay.merchant", "acme")
	store := one("store", "relay.event_id", event, "relay.type", "CARD_3DS")
	announce := one("announce", "relay.challenge_id", id)
	push := one("push", "relay.challenge_id", id, "relay.notice", "announce", "relay.status", "delivered", "relay.attempt", "1", "http.response.status_code", "201")
	forward := one("forward", "relay.event_id", event, "relay.target", "core", "relay.status", "delivered", "http.response.status_code", "200")
	decide := one("decide", "relay.challenge_id", id, "relay.status", "approved")
	confirm := one("confirm", "relay.challenge_id", id, "relay.status", "delivered", "http.response.status_code", "200")
	for _, want := range []struct {
		span, parent spanned
		node         string
	}{{webhook, spanned{}, webhook.node}, {store, webhook, webhook.node}, {announce, store, push.node}, {push, announce, push.node}, {forward, store, push.node},
		{decide, spanned{}, push.node}, {confirm, decide, push.node}} {
		if want.span.parent != want.parent.id || want.parent.id != "" && want.span.trace != want.parent.trace || want.span.node != want.node {
			t.Errorf("%s is %+v, under %+v", want.span.name, want.span, want.parent)
		}
	}
	if webhook.node == push.node || decide.trace == webhook.trace {
		t.Errorf("webhook %+v, push %+v, decide %+v", webhook, push, decide)
	}
	if len(confirm.links) != 1 || confirm.links[0] != store.trace+"-"+store.id {
		t.Errorf("the confirm points to %v, want %s", confirm.links, store.trace)
	}
	if header, want := got.Headers.Get("Traceparent"), "00-"+forward.trace+"-"+forward.id+"-01"; header != want {
		t.Errorf("the target got the traceparent %q, want %q", header, want)
	}
	for who, seen := range map[string][]string{"the issuer": toIssuer(), "the push service": toPush()} {
		if len(seen) == 0 || strings.Join(seen, "") != "" {
			t.Errorf("%s got the traceparents %q", who, seen)
		}
	}
	if !strings.Contains(w.everythingInRedis(), `"tp":"00-`+webhook.trace) {
		t.Error("Redis does not hold the trace") // or TestTracingOff would look for the wrong thing
	}
	everything := spans.everything()
	foreign, err := hex.DecodeString(foreignTrace)
	if err != nil {
		t.Fatal(err)
	}
	path, err := url.Parse(phone.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{string(foreign), merchantSecret, webhookSecret, jwtSecret, oneTimeCode, canaryPAN, "eyJ", "rat_", path.Path, phone.Auth, "Go-http-client", "Sephora", "100.20"} {
		if strings.Contains(everything, secret) {
			t.Errorf("a span holds %q", secret)
		}
	}
}

// TestTracesAtShutdown: what was traced last is sent before the process ends.
func TestTracesAtShutdown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spans := w.newCollector()
	p := w.run()
	event := w.send(p.client, "CARD_RECHARGE_RESULT", map[string]any{"card_id": "c-1", "transaction_id": "T-1"}).text("event_id")
	w.forwarded(p.client, "CARD_RECHARGE_RESULT", func(d sim.Delivery) bool { return d.ID == event })
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	for _, name := range []string{"webhook", "store", "forward"} {
		if len(spans.find(name, "relay.event_id", event)) != 1 {
			t.Errorf("no span %s", name)
		}
	}
}

// TestTracingOff: a trace costs nothing where none is wanted.
func TestTracingOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	event := w.send(c, "CARD_RECHARGE_RESULT", map[string]any{"card_id": "c-1", "transaction_id": "T-1"}).text("event_id")
	if got := w.forwarded(c, "CARD_RECHARGE_RESULT", func(d sim.Delivery) bool { return d.ID == event }); got.Headers.Get("Traceparent") != "" {
		t.Errorf("the target got %v", got.Headers)
	}
	w.challenge(c, "CARD_3DS", purchase("c-1", "u1", "A-1"))
	if strings.Contains(w.everythingInRedis(), `"tp":`) {
		t.Error("Redis holds a traceparent")
	}
}
