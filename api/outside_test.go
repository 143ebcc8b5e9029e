package api

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"

	"approvalrelay/push"
	"approvalrelay/relay"
)

// The outside parties, played.

// clock is the real time plus what a test adds.
type clock struct {
	mu  sync.Mutex
	add time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.add)
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add += d
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// pushed is the JSON that a browser would decrypt.
type pushed struct {
	To           push.Subscription
	Notification struct {
		Title string `json:"title"`
		Lang  string `json:"lang"`
	} `json:"notification"`
	Challenge struct {
		ID          string `json:"id"`
		Status      string `json:"status"`
		ActionToken string `json:"action_token"`
	} `json:"challenge"`
	Activation struct {
		ID   string `json:"id"`
		Code string `json:"code"`
	} `json:"activation"`
}

type pusher chan pushed

func (p pusher) Send(_ context.Context, s push.Subscription, m push.Message) push.Result {
	msg := pushed{To: s}
	if err := json.Unmarshal(m.Payload, &msg); err != nil {
		return push.Result{Verdict: push.Fault, Err: err}
	}
	p <- msg
	return push.Result{Verdict: push.Delivered, StatusCode: 201}
}

// issuer answers with what a test sets; the zero Outcome confirms.
type issuer struct {
	mu     sync.Mutex
	answer relay.Outcome
	hold   chan struct{} // if not nil, confirms wait for it
	calls  []relay.IssuerCall
}

func (i *issuer) Confirm(ctx context.Context, c relay.IssuerCall) relay.Outcome {
	i.mu.Lock()
	i.calls = append(i.calls, c)
	answer, hold := i.answer, i.hold
	i.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	return answer
}

// holdBack lets no confirm end until release is called.
func (i *issuer) holdBack() (release func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	hold := make(chan struct{})
	i.hold = hold
	return sync.OnceFunc(func() { close(hold) })
}

func (i *issuer) setAnswer(o relay.Outcome) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = o
}

func (i *issuer) Lock(context.Context, relay.IssuerCall) relay.Outcome { return relay.Outcome{} }

// downstream refuses for good while it is told to.
type downstream struct {
	mu     sync.Mutex
	refuse bool
	got    chan relay.Message
}

func (d *downstream) Forward(_ context.Context, _ string, m relay.Message) relay.Outcome {
	d.mu.Lock()
	refuse := d.refuse
	d.mu.Unlock()
	d.got <- m
	if refuse {
		return relay.Outcome{Verdict: relay.Faulty, Attempt: relay.Attempt{StatusCode: 400, Error: "the target answered 400", Response: "no"}}
	}
	return relay.Outcome{Attempt: relay.Attempt{StatusCode: 200}}
}

func (d *downstream) setRefuse(v bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuse = v
}
