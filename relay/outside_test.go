package relay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"approvalrelay/push"
	"approvalrelay/relay"
	"approvalrelay/relay/redisstore"
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

type downstream struct{ journal[forwarded, relay.Outcome] }

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

// watchedStore is the store, and tells when the worker has come to rest.
type watchedStore struct {
	*redisstore.Store
	mu      sync.Mutex
	changed sync.Cond
	held    map[string]relay.Lease // handed out, and not settled
	handed  int                    // leases ever handed out
	dues    []int                  // per partition: looks for what is due
	reads   []int                  // per partition: reads that found nothing
	hold    func(relay.Lease) bool // nil, or which leases are kept aside for as long as it is set
	aside   []relay.Lease
}

// A rested worker looks often, so that tests need not wait.
const (
	readWait = 15 * time.Millisecond
	dueWait  = 3 * time.Millisecond
)

func key(l relay.Lease) string { return fmt.Sprint(l.Partition, l.Delivery.Lane(), l.Entry) }

func (s *watchedStore) Lease(ctx context.Context, p int, lanes []relay.Lane, wait time.Duration) ([]relay.Lease, error) {
	leases, err := s.Store.Lease(ctx, p, lanes, min(wait, readWait))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hold == nil {
		leases, s.aside = append(leases, s.aside...), nil
	}
	leases = slices.DeleteFunc(leases, func(l relay.Lease) bool {
		if s.hold == nil || !s.hold(l) {
			return false
		}
		s.aside = append(s.aside, l)
		return true
	})
	for _, l := range leases {
		s.held[key(l)] = l
		s.handed++
	}
	if len(leases) == 0 && err == nil {
		s.reads[p]++
	}
	s.changed.Broadcast()
	return leases, err
}

// holding keeps leases of a kind aside until release hands them out.
func (s *watchedStore) holding(k relay.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = func(l relay.Lease) bool { return l.Delivery.Kind == k }
}

func (s *watchedStore) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.hold = nil; len(s.aside) > 0; {
		s.changed.Wait()
	}
}

func (s *watchedStore) Due(ctx context.Context, p int) (time.Time, error) {
	if _, err := s.Store.Due(ctx, p); err != nil {
		return time.Time{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dues[p]++
	s.changed.Broadcast()
	return s.Now().Add(dueWait), nil
}

func (s *watchedStore) Commit(ctx context.Context, st relay.Step) error {
	err := s.Store.Commit(ctx, st)
	if st.Settle != nil && (err == nil || err == relay.ErrLostLease) {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.held, key(*st.Settle))
		s.changed.Broadcast()
	}
	return err
}

// quiet waits until no lease is held and, after a look for what is due, every
// partition was read without finding anything. It returns what is stuck.
func (s *watchedStore) quiet() (stuck string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	late := false
	timer := time.AfterFunc(20*time.Second, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.changed.Broadcast()
	})
	defer timer.Stop()
	for !late {
		handed := s.handed
		rested := func() bool { return len(s.held) == 0 && s.handed == handed }
		// The first look may have begun before; of the reads, another may have
		// made a lane's group instead of reading it.
		due := slices.Clone(s.dues)
		for !late && rested() && !beyond(s.dues, due, 2) {
			s.changed.Wait()
		}
		read := slices.Clone(s.reads)
		for !late && rested() && !beyond(s.reads, read, 3) {
			s.changed.Wait()
		}
		if rested() && !late {
			return ""
		}
		for !late && len(s.held) > 0 {
			s.changed.Wait()
		}
	}
	for _, l := range s.held {
		stuck += fmt.Sprintf("%s %s is held; ", l.Delivery.Kind, l.Delivery.ID)
	}
	return stuck + fmt.Sprintf("looks %v, reads %v", s.dues, s.reads)
}

func beyond(now, then []int, by int) bool {
	for i := range now {
		if now[i] < then[i]+by {
			return false
		}
	}
	return true
}
