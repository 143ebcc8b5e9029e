package relay_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"approvalrelay/push"
	"approvalrelay/relay"
)

// journal is what an outside party got, in order, and how it answers.
type journal[Call, Answer any] struct {
	mu     sync.Mutex
	calls  []Call
	answer func(Call) Answer // nil: all is well
}

func (j *journal[Call, Answer]) take(c Call, fine Answer) Answer {
	j.mu.Lock()
	j.calls = append(j.calls, c)
	answer := j.answer
	j.mu.Unlock()
	if answer == nil {
		return fine
	}
	return answer(c)
}

func (j *journal[Call, Answer]) all() []Call {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.calls)
}

func (j *journal[Call, Answer]) clear() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.calls = nil
}

// will says how it answers from now on.
func (j *journal[Call, Answer]) will(answer func(Call) Answer) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.answer = answer
}

// pushed is one push, as the service worker reads it.
type pushed struct {
	To         string // the endpoint
	TTL        time.Duration
	Urgency    string
	Topic      string
	Raw        string
	Activation struct{ ID, Code string }
	Challenge  struct {
		ID, Method, Status, OTP string
		ActionToken             string    `json:"action_token"`
		ExpiresAt               time.Time `json:"expires_at"`
	}
	Notification struct {
		Title, Body, Tag string
		Silent           bool
	}
}

type pusher struct{ journal[pushed, push.Result] }

func (p *pusher) Send(_ context.Context, s push.Subscription, m push.Message) push.Result {
	got := pushed{To: s.Endpoint, TTL: m.TTL, Urgency: m.Urgency, Topic: m.Topic, Raw: string(m.Payload)}
	if err := json.Unmarshal(m.Payload, &got); err != nil {
		return push.Result{Verdict: push.Fault, Err: err}
	}
	return p.take(got, push.Result{Verdict: push.Delivered, StatusCode: 201})
}

// to is what one browser got.
func (p *pusher) to(n int) []pushed {
	return slices.DeleteFunc(p.all(), func(m pushed) bool { return m.To != endpoint(n).Endpoint })
}

// wantPushes compares how many pushes each browser got since the last clear.
func (h *harness) wantPushes(want map[int]int) {
	h.t.Helper()
	total := 0
	for n, count := range want {
		if got := len(h.pusher.to(n)); got != count {
			h.t.Errorf("browser %d got %d pushes, want %d", n, got, count)
		}
		total += count
	}
	if got := len(h.pusher.all()); got != total {
		h.t.Errorf("%d pushes in all, want %d", got, total)
	}
}

// asked is one call of the issuer, in a form that prints.
type asked struct {
	What, Merchant, ChallengeID, CardID, UserID, Reference string
	Action                                                 relay.Action
	Payload                                                string
}

type issuer struct{ journal[asked, relay.Outcome] }

func (i *issuer) call(what string, c relay.IssuerCall) relay.Outcome {
	return i.take(asked{what, c.Merchant, c.ChallengeID, c.CardID, c.UserID, c.Reference, c.Action, string(relay.Canonical(c.Payload))},
		relay.Outcome{Attempt: relay.Attempt{StatusCode: 200}})
}

func (i *issuer) Confirm(_ context.Context, c relay.IssuerCall) relay.Outcome {
	return i.call("confirm", c)
}

func (i *issuer) Lock(_ context.Context, c relay.IssuerCall) relay.Outcome { return i.call("lock", c) }

// confirms are the confirms of one challenge.
func (i *issuer) confirms(challenge string) []asked {
	return slices.DeleteFunc(i.all(), func(a asked) bool { return a.What != "confirm" || a.ChallengeID != challenge })
}

// forwarded is one event as a target got it.
type forwarded struct {
	Target, EventID, Type, Merchant, Data, Envelope string
	Attempt                                         int
}

type downstream struct {
	journal[forwarded, relay.Outcome]
}

func (d *downstream) Forward(_ context.Context, target string, m relay.Message) relay.Outcome {
	return d.take(forwarded{target, m.EventID, m.Type, m.Merchant, string(m.Data), string(m.Envelope), m.Attempt},
		relay.Outcome{Attempt: relay.Attempt{StatusCode: 200}})
}

func (d *downstream) to(target string) []forwarded {
	return slices.DeleteFunc(d.all(), func(f forwarded) bool { return f.Target != target })
}

// wantOwn compares our own events about a challenge, in any order.
func (h *harness) wantOwn(challenge string, want ...string) {
	h.t.Helper()
	var got []string
	for _, f := range h.downstream.to("own") {
		if strings.Contains(f.Data, challenge) {
			got = append(got, strings.TrimPrefix(f.Type, "relay.challenge."))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		h.t.Errorf("our own events about it are %v, want %v", got, want)
	}
}

func refused(t *testing.T, err error, want relay.Code) {
	t.Helper()
	if r, ok := errors.AsType[*relay.Refusal](err); !ok || r.Code != want {
		t.Errorf("error %v, want it refused as %s", err, want)
	}
}
