package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"

	"approvalrelay/cmd/relay/sim"
	"approvalrelay/configs"
)

// benchLoad is what to send.
type benchLoad struct {
	kind        string // challenge | event
	rate        float64
	duration    time.Duration
	connections int
	users       int
	approve     bool
}

// bench plays everybody around a running relay. A webhook and what comes of it
// are brought together by the event's id, of which a challenge's is a part.
type bench struct {
	load     benchLoad
	cfg      *configs.Config
	merchant string
	base     string
	client   *http.Client
	issuer   *sim.Issuer
	push     *sim.PushService
	sink     *sim.Downstream
	servers  []*http.Server

	sent     sync.Map // by the common part of the ids: when the webhook was due
	arrived  sync.Map // by the same: when its delivery came
	approved sync.Map // by the challenge's id: when it was approved
	answers  *histogram
	delivery *histogram
	confirms *histogram
	nSent, nOK, nErr, nArrived, nTwice,
	nApproved, nConfirmed atomic.Int64
	last    atomic.Int64 // when the last delivery came, ns
	approve chan sim.Notification
}

// histogram takes durations up to a minute, in microseconds, from any goroutine.
type histogram struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram
}

func newHistogram() *histogram { return &histogram{h: hdrhistogram.New(1, 60_000_000, 3)} }

func (h *histogram) add(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.h.RecordValue(min(max(1, d.Microseconds()), 60_000_000)) // in range, so it cannot fail
}

func (h *histogram) millis() map[string]float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.h.TotalCount() == 0 {
		return nil
	}
	at := func(q float64) float64 { return float64(h.h.ValueAtQuantile(q)) / 1000 }
	return map[string]float64{"p50": at(50), "p90": at(90), "p99": at(99), "max": float64(h.h.Max()) / 1000}
}

const benchKeep = 1000 // records that each party keeps; the bench counts by itself

func newBench(cfg *configs.Config, load benchLoad) (*bench, error) {
	merchant, err := oneMerchant(cfg, "")
	if err != nil {
		return nil, err
	}
	m := cfg.Merchants[merchant]
	if m.IssuerAPI == nil || len(cfg.Forward.Targets) == 0 || cfg.Push.VAPID.PublicKey == "" || !cfg.Push.AllowPrivateNetworks {
		return nil, errors.New("a bench needs issuer_api, a forward target, push.vapid and push.allow_private_networks; relay bench --print-config writes such a file")
	}
	key, err := m.Secrets[0].Key()
	if err != nil {
		return nil, fmt.Errorf("merchants.%s.secrets: %w", merchant, err)
	}
	b := &bench{
		load: load, cfg: cfg, merchant: merchant, base: "http://" + localAddress(cfg.Server.Listen),
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: load.connections + 64}},
		issuer: sim.NewIssuer(merchant, key, m.IssuerAPI.MerchantID), push: sim.NewPushService(cfg.Push.VAPID.PublicKey),
		sink:    sim.NewDownstream(cfg.Forward.Targets[0].Secrets[0].Reveal()),
		answers: newHistogram(), delivery: newHistogram(), confirms: newHistogram(),
		approve: make(chan sim.Notification, 1<<16),
	}
	b.issuer.Keep(benchKeep)
	b.push.Keep(benchKeep)
	b.sink.Keep(benchKeep)
	return b, b.serve()
}

func (b *bench) serve() error {
	for addr, h := range map[string]http.Handler{
		benchPush: b.push, hostPort(b.cfg.Forward.Targets[0].URL): b.sink, hostPort(b.cfg.Merchants[b.merchant].IssuerAPI.BaseURL): b.issuer,
	} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			b.close()
			return fmt.Errorf("play an outside party: %w", err)
		}
		srv := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout}
		b.servers = append(b.servers, srv)
		go func() { _ = srv.Serve(ln) }() // ends with close
	}
	return nil
}

func hostPort(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw // validated when it was loaded
	}
	return u.Host
}

func (b *bench) close() {
	for _, s := range b.servers {
		_ = s.Close()
	}
	b.client.CloseIdleConnections()
}

// run loads the relay and reports.
func (b *bench) run(ctx context.Context) (benchReport, error) {
	if b.load.kind == "challenge" {
		if err := b.subscribe(ctx); err != nil {
			return benchReport{}, fmt.Errorf("register the cardholders' devices: %w", err)
		}
	}
	b.observe()
	var approvers sync.WaitGroup
	for range b.load.connections {
		approvers.Go(func() { b.approveAll(ctx) })
	}
	start := time.Now()
	b.fire(ctx, start)
	sending := time.Since(start)
	b.settle(ctx)
	close(b.approve)
	approvers.Wait()
	return b.report(start, sending), nil
}

// observe measures what arrives from now on.
func (b *bench) observe() {
	b.push.OnRecord(func(n sim.Notification) {
		c, _ := n.Payload["challenge"].(map[string]any)
		id, _ := c["id"].(string)
		if id == "" || c["status"] != "pending" {
			return
		}
		b.arrive(id[4:], n.At)
		if b.load.approve {
			b.approve <- n
		}
	})
	b.sink.OnRecord(func(d sim.Delivery) {
		if b.load.kind == "event" && len(d.ID) > 4 {
			b.arrive(d.ID[4:], d.At)
		}
	})
	b.issuer.OnRecord(func(c sim.Call) {
		if at, ok := b.approved.LoadAndDelete(c.IdempotencyKey); ok {
			b.confirms.add(c.At.Sub(at.(time.Time)))
			b.nConfirmed.Add(1)
		}
	})
}

func (b *bench) arrive(id string, at time.Time) {
	if _, twice := b.arrived.LoadOrStore(id, at); twice {
		b.nTwice.Add(1)
		return
	}
	b.nArrived.Add(1)
	b.last.Store(at.UnixNano())
}

// fire sends webhooks: at the rate, each counted from when it was due, so that a
// slow answer does not hide those that wait behind it; or as fast as the
// connections allow.
func (b *bench) fire(ctx context.Context, start time.Time) {
	var g errgroup.Group
	end := start.Add(b.load.duration)
	if b.load.rate <= 0 {
		for range b.load.connections {
			g.Go(func() error {
				for ctx.Err() == nil && time.Now().Before(end) {
					b.post(ctx, time.Now())
				}
				return nil
			})
		}
		_ = g.Wait() // its functions return no errors
		return
	}
	g.SetLimit(b.load.connections)
	step := time.Duration(float64(time.Second) / b.load.rate)
	for due := start; due.Before(end) && ctx.Err() == nil; due = due.Add(step) {
		pause(ctx, time.Until(due))
		g.Go(func() error { b.post(ctx, due); return nil })
	}
	_ = g.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (b *bench) post(ctx context.Context, due time.Time) {
	n := b.nSent.Add(1)
	typ, payload := b.webhook(n)
	a, err := b.issuer.Post(ctx, b.base, typ, payload)
	id, _ := a.Body["event_id"].(string)
	if err != nil || a.Status != http.StatusOK || a.Body["status"] != "accepted" || len(id) < 5 {
		b.nErr.Add(1)
		return
	}
	b.answers.add(time.Since(due))
	b.nOK.Add(1)
	b.sent.Store(id[4:], due)
}

// webhook is the n-th; its decrypted body is about 400 bytes. No two amounts in a row
// are the same, or challenges that wait would share a notification.
func (b *bench) webhook(n int64) (string, map[string]any) {
	user := fmt.Sprintf("bench-%d", n%int64(max(1, b.load.users)))
	p := map[string]any{
		"card_id": "card-" + user, "user_id": user, "occur_time": time.Now().UnixMilli(), "transaction_id": fmt.Sprintf("T%d-%d", time.Now().UnixNano(), n),
		"transaction_amount": fmt.Sprintf("%d.%02d", 100+n/100%900, n%100), "transaction_currency": "840", "merchant_name": "Sephora Digital", "merchant_country_code": "250",
		"card_number": "4242********4242", "description": strings.Repeat("x", 120),
	}
	if b.load.kind == "event" {
		p["status"] = "SUCCESS"
		return "TRANSACTION_CREATED", p
	}
	return "CARD_3DS", p
}

// settle waits until everything accepted has arrived, or nothing more comes.
func (b *bench) settle(ctx context.Context) {
	const silence = 10 * time.Second
	done := func() bool {
		return b.nArrived.Load() >= b.nOK.Load() && b.nConfirmed.Load() >= b.nApproved.Load() && (!b.load.approve || b.nApproved.Load() >= b.nArrived.Load())
	}
	seen, since := int64(-1), time.Now()
	for ctx.Err() == nil && !done() && time.Since(since) < silence {
		if n := b.nArrived.Load() + b.nConfirmed.Load(); n != seen {
			seen, since = n, time.Now()
		}
		pause(ctx, 20*time.Millisecond)
	}
}

func (b *bench) report(start time.Time, sending time.Duration) benchReport {
	r := benchReport{
		Kind: b.load.kind, Sent: int(b.nSent.Load()), Accepted: int(b.nOK.Load()), Errors: int(b.nErr.Load()), Duplicates: int(b.nTwice.Load()),
		Faults: b.push.Faults() + b.sink.Faults() + b.issuer.Faults(),
	}
	b.sent.Range(func(id, due any) bool {
		at, ok := b.arrived.Load(id)
		if !ok {
			r.Lost++
			return true
		}
		r.Arrived++
		b.delivery.add(at.(time.Time).Sub(due.(time.Time)))
		return true
	})
	r.AcceptedPS = float64(r.Accepted) / sending.Seconds()
	if all := time.Unix(0, b.last.Load()).Sub(start); r.Arrived > 0 && all > 0 {
		r.DeliveredPS = float64(r.Arrived) / all.Seconds()
	}
	r.Answer, r.Delivery, r.Confirm = b.answers.millis(), b.delivery.millis(), b.confirms.millis()
	return r
}

// approveAll answers pushes with their action tokens, as a service worker does.
func (b *bench) approveAll(ctx context.Context) {
	for n := range b.approve {
		c, _ := n.Payload["challenge"].(map[string]any)
		id, _ := c["id"].(string)
		token, _ := c["action_token"].(string)
		b.approved.Store(id, time.Now())
		b.nApproved.Add(1)
		if _, err := b.cardholder(token).post(ctx, "/v1/challenges/"+id+"/approve", nil); err != nil {
			b.nErr.Add(1)
		}
	}
}

// subscribe registers one device for each cardholder.
func (b *bench) subscribe(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(16)
	for i := range b.load.users {
		g.Go(func() error {
			token, err := mintToken(b.cfg, fmt.Sprintf("bench-%d", i), b.merchant, time.Now().Add(time.Hour))
			if err != nil {
				return err
			}
			wait, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return b.cardholder(token).register(wait, b.push.Subscribe("http://"+benchPush))
		})
	}
	return g.Wait()
}

func (b *bench) cardholder(token string) cardholder {
	return cardholder{client: b.client, base: b.base, token: token}
}
