package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"approvalrelay/cmd/relay/sim"
)

// The population.
const (
	users     = 40
	cardsEach = 3
)

func userName(n int) string       { return fmt.Sprintf("user-%d", n) }
func cardName(user, n int) string { return fmt.Sprintf("card-%d-%d", user, n) }

// Timing of the cardholders.
const (
	actionTime = 6 * time.Second        // a decision may wait 3 s for the issuer
	actionRest = 250 * time.Millisecond // before a call is repeated on another node
	thinkTime  = 1500 * time.Millisecond
	soonest    = 50 * time.Millisecond // how late the late ones are: from this to a fifth of the challenge's life
	patience   = 5 * time.Second       // calls are repeated until so long after the expiry
)

var apps = &http.Client{Timeout: actionTime, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// challenge is one that the issuer sent, from its plan to its end.
type challenge struct {
	number       int
	plan         plan
	user, card   string
	code         bool // it has a code instead of being approved
	id           string
	acknowledged bool
	expires      time.Time // as pushed
	acting       bool
	pushes       map[*sim.Device]*pushes
	attempts     []attempt
	final        *final // as the API shows it at the end; nil: not asked, or not found
}

// pushes are the announcements of one challenge to one device.
type pushes struct {
	tries, taken int
	first, last  time.Time // the first one taken, the last try
}

// attempt is one call of the cardholder API.
type attempt struct {
	at, answered time.Time
	node         int
	action       string
	token        bool // with the push's action token
	status       int  // 0: no answer
	code         string
	decision     string    // in the answer
	decidedAt    time.Time // in the answer
	otp          string
}

func (c *challenge) String() string {
	return fmt.Sprintf("%s (challenge %d of %s, to %s)", c.id, c.number, c.user, c.plan)
}

// decisions are the different ones that were acknowledged: one, if all is well.
func (c *challenge) decisions() []string {
	var all []string
	for _, a := range c.attempts {
		if (a.action == approve || a.action == reject) && a.taken() && !slices.Contains(all, a.action) {
			all = append(all, a.action)
		}
	}
	return all
}

func (a attempt) taken() bool { return a.status == 200 || a.status == 202 }

// enrol makes the ledger listen to the parties, and registers and activates one
// or two devices of every user, as their apps do. Only the first call does
// anything.
func (w *world) enrol(ctx context.Context) {
	l := w.ledger
	l.mu.Lock()
	first := len(l.devices) == 0
	if first {
		l.active = w.active.names
		for n := range users {
			l.devices[userName(n)] = nil
		}
	}
	l.mu.Unlock()
	if !first {
		return
	}
	w.core.Keep(keep)
	w.flaky.Keep(keep)
	w.issuer.Keep(keep)
	w.push.Keep(keep)
	w.core.OnRecord(func(d sim.Delivery) { l.delivered("core", d) })
	w.flaky.OnRecord(func(d sim.Delivery) { l.delivered("flaky", d) })
	w.issuer.OnRecord(l.called)
	acts := context.WithoutCancel(ctx) // cardholders go on when the load has ended; drain waits for them
	w.push.OnRecord(func(n sim.Notification) {
		if c, token := l.pushed(n); c != nil {
			go w.act(acts, c, token)
		}
	})
	var all sync.WaitGroup
	for n := range users {
		all.Go(func() {
			for range 1 + n%2 {
				w.register(ctx, userName(n))
			}
		})
	}
	all.Wait()
}

// register goes the way of every browser, and begins anew where a fault is met.
func (w *world) register(ctx context.Context, user string) {
	d := w.push.Subscribe(w.pushURL)
	token := w.token(user)
	for node := rand.IntN(len(w.nodes)); ctx.Err() == nil; node++ {
		if w.activate(ctx, node, token, d) {
			w.ledger.mu.Lock()
			w.ledger.devices[user] = append(w.ledger.devices[user], d)
			w.ledger.mu.Unlock()
			return
		}
		rest(ctx, actionRest)
	}
}

func (w *world) activate(ctx context.Context, node int, token string, d *sim.Device) bool {
	if _, status, err := w.call(ctx, node, "POST", token, "/v1/push/subscriptions", string(d.JSON())); err != nil || status/100 != 2 {
		return false
	}
	waiting, cancel := context.WithTimeout(ctx, actionTime)
	defer cancel()
	if d.Wait(waiting, 1) != nil {
		return false
	}
	for _, n := range d.Notifications() {
		a, _ := n.Payload["activation"].(map[string]any)
		id, _ := a["id"].(string)
		code, _ := a["code"].(string)
		if _, status, err := w.call(ctx, node, "POST", token, "/v1/push/subscriptions/"+id+"/activate", fmt.Sprintf(`{"code":%q}`, code)); err == nil && status == http.StatusNoContent {
			return true
		}
	}
	return false
}

// call makes one call of the cardholder API, on the node of that number; numbers
// go round.
func (w *world) call(ctx context.Context, node int, method, token, path, body string) (raw []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, method, w.nodes[node%len(w.nodes)].base()+path, strings.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := apps.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	raw, err = io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return raw, res.StatusCode, err
}

// act carries out a challenge's plan. token is the push's action token, which
// half of the cardholders use.
func (w *world) act(ctx context.Context, c *challenge, token string) {
	defer w.ledger.acted()
	r := w.random("act", c.number)
	node, think := r.IntN(len(w.nodes)), time.Duration(r.Int64N(int64(min(thinkTime, w.ttl/4))))
	if r.IntN(2) == 0 {
		token = ""
	}
	h := holder{w: w, c: c, token: token}
	rest(ctx, think)
	switch c.plan {
	case toApprove:
		h.do(ctx, node, approve, fmt.Sprintf(`{"shown":{"amount":"100.2","currency":"USD","payee":%q}}`, c.shop()))
	case toReject:
		h.do(ctx, node, reject, "")
	case toReport:
		h.do(ctx, node, reject, `{"reason":"not_me"}`)
	case toConflict:
		var both sync.WaitGroup
		both.Go(func() { h.do(ctx, node, approve, "") })
		both.Go(func() { h.do(ctx, node+1, reject, "") })
		both.Wait()
	case toBeLate:
		late := soonest + time.Duration(r.Int64N(int64(w.ttl/5)))
		rest(ctx, time.Until(h.expires().Add(time.Second+late))) // a push says it without the fraction of the second
		h.do(ctx, node, approve, "")
	case toFinish:
		if h.do(ctx, node, reveal, "") {
			h.do(ctx, node+1, done, "")
		}
	case toRead:
		h.do(ctx, node, reveal, "")
	}
}

// holder is one cardholder at work on one challenge.
type holder struct {
	w     *world
	c     *challenge
	token string // "": signed in
}

func (h holder) expires() time.Time {
	h.w.ledger.mu.Lock()
	defer h.w.ledger.mu.Unlock()
	return h.c.expires
}

// do repeats one call on the next node until it is answered or the challenge is
// over. It returns whether it was taken. An action token that is refused makes
// the cardholder sign in.
func (h holder) do(ctx context.Context, node int, action, body string) bool {
	until := h.expires()
	if now := time.Now(); until.Before(now) {
		until = now
	}
	until = until.Add(patience)
	for ; ; node++ {
		a := h.try(ctx, node, action, body)
		h.w.ledger.tried(h.c, a)
		switch {
		case a.taken():
			return true
		case a.status == http.StatusUnauthorized && h.token != "":
			h.token = ""
		case a.status != 0 && a.status != http.StatusServiceUnavailable && a.status != http.StatusTooManyRequests:
			return false
		}
		if !rest(ctx, actionRest) || time.Now().After(until) {
			return false
		}
	}
}

func (h holder) try(ctx context.Context, node int, action, body string) attempt {
	token := h.token
	if token == "" {
		token = h.w.token(h.c.user)
	}
	a := attempt{at: time.Now(), node: node % len(h.w.nodes), action: action, token: h.token != ""}
	raw, status, err := h.w.call(ctx, node, "POST", token, "/v1/challenges/"+h.c.id+"/"+action, body)
	a.answered = time.Now()
	if err != nil {
		return a
	}
	var got struct {
		Code     string
		OTP      string
		Decision *struct {
			Action    string
			DecidedAt time.Time `json:"decided_at"`
		}
	}
	if json.Unmarshal(raw, &got) != nil {
		got.Code = "no JSON"
	}
	a.status, a.code, a.otp = status, got.Code, got.OTP
	if got.Decision != nil {
		a.decision, a.decidedAt = got.Decision.Action, got.Decision.DecidedAt
	}
	return a
}
