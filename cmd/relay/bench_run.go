package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
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

// bench plays everybody around a running relay, or around the floor, in one run
// after another.
type bench struct {
	cfg      *configs.Config
	merchant string
	client   *http.Client
	issuer   *sim.Issuer
	push     *sim.PushService
	sink     *sim.Downstream
	servers  []*http.Server
	pushURL  string // the push service's
	who      string // what the users' names begin with: those of an earlier bench have devices that are gone
	devices  int    // how many users have one
}

// benchRun is one run against one server, or several on one Redis. A webhook and
// what comes of it are brought together by the event's id, of which a challenge's
// is a part.
type benchRun struct {
	*bench
	load   benchLoad
	bases  []string // the servers' URLs
	faults int      // messages that had failed verification before

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

func newBench(cfg *configs.Config, connections int) (*bench, error) {
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
		cfg: cfg, merchant: merchant, who: newWho(),
		client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: connections + 64}},
		issuer: sim.NewIssuer(merchant, key, m.IssuerAPI.MerchantID), push: sim.NewPushService(cfg.Push.VAPID.PublicKey),
		sink: sim.NewDownstream(cfg.Forward.Targets[0].Secrets[0].Reveal()),
	}
	b.issuer.Keep(benchKeep)
	b.push.Keep(benchKeep)
	b.sink.Keep(benchKeep)
	return b, b.serve()
}

func (b *bench) serve() error {
	for addr, h := range map[string]http.Handler{
		"127.0.0.1:0": b.push, hostPort(b.cfg.Forward.Targets[0].URL): b.sink, hostPort(b.cfg.Merchants[b.merchant].IssuerAPI.BaseURL): b.issuer,
	} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			b.close()
			return fmt.Errorf("play an outside party: %w", err)
		}
		srv := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout}
		b.servers = append(b.servers, srv)
		if h == http.Handler(b.push) {
			b.pushURL = "http://" + ln.Addr().String()
		}
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

func (b *bench) faults() int { return b.push.Faults() + b.sink.Faults() + b.issuer.Faults() }

func (b *bench) newRun(load benchLoad, addresses ...string) *benchRun {
	r := &benchRun{
		bench: b, load: load, faults: b.faults(),
		answers: newHistogram(), delivery: newHistogram(), confirms: newHistogram(), approve: make(chan sim.Notification, 1<<16),
	}
	for _, a := range addresses {
		r.bases = append(r.bases, "http://"+a)
	}
	return r
}

// run loads the servers at some addresses, and reports.
func (b *bench) run(ctx context.Context, load benchLoad, addresses ...string) (benchReport, error) {
	r := b.newRun(load, addresses...)
	if load.kind == "challenge" {
		if err := r.subscribe(ctx); err != nil {
			return benchReport{}, fmt.Errorf("register the cardholders' devices: %w", err)
		}
	}
	r.observe()
	var approvers sync.WaitGroup
	for range load.connections {
		approvers.Go(func() { r.approveAll(ctx) })
	}
	start := time.Now()
	if err := r.fire(ctx, start); err != nil {
		return benchReport{}, err
	}
	sending := time.Since(start)
	r.settle(ctx)
	close(r.approve)
	approvers.Wait()
	return r.report(start, sending), ctx.Err()
}

// observe measures what arrives from now on.
func (r *benchRun) observe() {
	r.push.OnRecord(func(n sim.Notification) {
		c, _ := n.Payload["challenge"].(map[string]any)
		id, _ := c["id"].(string)
		if id == "" || c["status"] != "pending" {
			return
		}
		r.arrive(id[4:], n.At)
		if r.load.approve {
			r.approve <- n
		}
	})
	r.sink.OnRecord(func(d sim.Delivery) {
		if r.load.kind == "event" && len(d.ID) > 4 {
			r.arrive(d.ID[4:], d.At)
		}
	})
	r.issuer.OnRecord(func(c sim.Call) {
		if at, ok := r.approved.LoadAndDelete(c.IdempotencyKey); ok {
			r.confirms.add(c.At.Sub(at.(time.Time)))
			r.nConfirmed.Add(1)
		}
	})
}

func (r *benchRun) arrive(id string, at time.Time) {
	if _, twice := r.arrived.LoadOrStore(id, at); twice {
		r.nTwice.Add(1)
		return
	}
	r.nArrived.Add(1)
	r.last.Store(at.UnixNano())
}

// fire sends webhooks: at the rate, each counted from when it was due, so that a
// slow answer does not hide those that wait behind it; or as fast as the
// connections allow.
func (r *benchRun) fire(ctx context.Context, start time.Time) error {
	var g errgroup.Group
	end := start.Add(r.load.duration)
	if r.load.rate <= 0 {
		for range r.load.connections {
			g.Go(func() error {
				for ctx.Err() == nil && time.Now().Before(end) {
					r.post(ctx, time.Now())
				}
				return nil
			})
		}
		return g.Wait()
	}
	wait, stop, err := newAlarm(ctx)
	if err != nil {
		return err
	}
	defer stop()
	g.SetLimit(r.load.connections)
	step := time.Duration(float64(time.Second) / r.load.rate)
	for due := start; due.Before(end) && err == nil; due = due.Add(step) {
		if err = wait(due); err == nil {
			g.Go(func() error { r.post(ctx, due); return nil })
		}
	}
	return errors.Join(err, g.Wait())
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

func (r *benchRun) post(ctx context.Context, due time.Time) {
	n := r.nSent.Add(1)
	typ, payload := r.webhook(n)
	a, err := r.issuer.Post(ctx, r.base(), typ, payload)
	id, _ := a.Body["event_id"].(string)
	if err != nil || a.Status != http.StatusOK || a.Body["status"] != "accepted" || len(id) < 5 {
		r.nErr.Add(1)
		return
	}
	r.answers.add(time.Since(due))
	r.nOK.Add(1)
	r.sent.Store(id[4:], due)
}

// webhook is the n-th; its decrypted body is about 400 bytes. No two amounts in a row
// are the same, or challenges that wait would share a notification.
func (r *benchRun) webhook(n int64) (string, map[string]any) {
	user := r.user(int(n % int64(max(1, r.load.users))))
	p := map[string]any{
		"card_id": "card-" + user, "user_id": user, "occur_time": time.Now().UnixMilli(), "transaction_id": fmt.Sprintf("T%d-%d", time.Now().UnixNano(), n),
		"transaction_amount": fmt.Sprintf("%d.%02d", 100+n/100%900, n%100), "transaction_currency": "840", "merchant_name": "Sephora Digital", "merchant_country_code": "250",
		"card_number": "4242********4242", "description": strings.Repeat("x", 120),
	}
	if r.load.kind == "event" {
		p["status"] = "SUCCESS"
		return "TRANSACTION_CREATED", p
	}
	return "CARD_3DS", p
}

// settle waits until everything accepted has arrived, or nothing more comes.
func (r *benchRun) settle(ctx context.Context) {
	const silence = 10 * time.Second
	done := func() bool {
		return r.nArrived.Load() >= r.nOK.Load() && r.nConfirmed.Load() >= r.nApproved.Load() && (!r.load.approve || r.nApproved.Load() >= r.nArrived.Load())
	}
	seen, since := int64(-1), time.Now()
	for ctx.Err() == nil && !done() && time.Since(since) < silence {
		if n := r.nArrived.Load() + r.nConfirmed.Load(); n != seen {
			seen, since = n, time.Now()
		}
		pause(ctx, 20*time.Millisecond)
	}
}

func (r *benchRun) report(start time.Time, sending time.Duration) benchReport {
	rep := benchReport{
		Kind: r.load.kind, Sent: int(r.nSent.Load()), Accepted: int(r.nOK.Load()), Errors: int(r.nErr.Load()), Duplicates: int(r.nTwice.Load()),
		Faults: r.bench.faults() - r.faults,
	}
	r.sent.Range(func(id, due any) bool {
		at, ok := r.arrived.Load(id)
		if !ok {
			rep.Lost++
			return true
		}
		rep.Arrived++
		r.delivery.add(at.(time.Time).Sub(due.(time.Time)))
		return true
	})
	rep.AcceptedPS = float64(rep.Accepted) / sending.Seconds()
	if all := time.Unix(0, r.last.Load()).Sub(start); rep.Arrived > 0 && all > 0 {
		rep.DeliveredPS = float64(rep.Arrived) / all.Seconds()
	}
	rep.Answer, rep.Delivery, rep.Confirm = r.answers.millis(), r.delivery.millis(), r.confirms.millis()
	return rep
}

// approveAll answers pushes with their action tokens, as a service worker does.
func (r *benchRun) approveAll(ctx context.Context) {
	for n := range r.approve {
		c, _ := n.Payload["challenge"].(map[string]any)
		id, _ := c["id"].(string)
		token, _ := c["action_token"].(string)
		r.approved.Store(id, time.Now())
		r.nApproved.Add(1)
		if _, err := r.cardholder(token).post(ctx, "/v1/challenges/"+id+"/approve", nil); err != nil {
			r.nErr.Add(1)
		}
	}
}

// base is any of the servers: in turn, each would always get the same cards.
func (r *benchRun) base() string { return r.bases[mathrand.IntN(len(r.bases))] }

func newWho() string { return "bench-" + rand.Text()[:8] }

func (b *bench) user(i int) string { return fmt.Sprintf("%s-%d", b.who, i) }

// subscribe registers one device for each cardholder that has none yet.
func (r *benchRun) subscribe(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(16)
	for i := r.devices; i < r.load.users; i++ {
		g.Go(func() error {
			token, err := mintToken(r.cfg, r.user(i), r.merchant, time.Now().Add(time.Hour))
			if err != nil {
				return err
			}
			wait, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			return r.cardholder(token).register(wait, r.push.Subscribe(r.pushURL))
		})
	}
	r.devices = max(r.devices, r.load.users)
	return g.Wait()
}

func (r *benchRun) cardholder(token string) cardholder {
	return cardholder{client: r.client, base: r.base(), token: token}
}
