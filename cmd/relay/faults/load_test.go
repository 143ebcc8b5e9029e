package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"approvalrelay/cmd/relay/sim"
)

// The issuer that sends the load: as patient as a real one, but quicker.
const (
	senders     = 96                     // webhooks under way at once
	backlog     = 1 << 15                // that wait for a sender; beyond it they are never sent
	answerTime  = 3 * time.Second        // then an attempt has failed
	promptly    = 5 * time.Second / 2    // the 2 s that are promised, and what two busy cores add
	firstRetry  = 200 * time.Millisecond // doubles up to lastRetry
	lastRetry   = time.Second
	givesUp     = time.Minute // after the end of the load
	keep        = 1000        // records of each party; the ledger has the rest
	sentTwice   = 50          // one in so many is sent again although it was acknowledged
	statusEvery = 4           // one in so many is for both targets
)

// Types of the events. flaky gets changes only.
const (
	transaction  = "TRANSACTION_CREATED"
	statusChange = "CARD_STATUS_CHANGE"
)

// plan is what a cardholder is going to do with a challenge.
type plan string

const (
	toApprove  plan = "approve"
	toReject   plan = "reject"
	toReport   plan = "report"   // reject it as somebody else's
	toConflict plan = "conflict" // approve and reject it at once on two nodes
	toBeLate   plan = "be late"
	toIgnore   plan = "ignore"
	toFinish   plan = "finish" // read the code and say so
	toRead     plan = "read"   // read the code only
)

// The shares of the plans, in percent.
var (
	approvals = []share{{toApprove, 60}, {toReject, 12}, {toConflict, 9}, {toReport, 5}, {toBeLate, 7}, {toIgnore, 7}}
	codes     = []share{{toFinish, 55}, {toRead, 15}, {toReject, 15}, {toIgnore, 15}}
)

type share struct {
	plan    plan
	percent int
}

func pick(shares []share, r *rand.Rand) plan {
	n := r.IntN(100)
	for _, s := range shares {
		if n -= s.percent; n < 0 {
			return s.plan
		}
	}
	panic("the shares are less than 100 percent")
}

// codeShare is how many challenges have a code, in percent.
const codeShare = 20

// random numbers that depend on the seed and on what they are for, not on the
// order in which goroutines ask.
func (w *world) random(what string, n int) *rand.Rand {
	h := w.seed
	for _, b := range []byte(what) {
		h = h*31 + uint64(b)
	}
	return rand.New(rand.NewPCG(h, uint64(n)))
}

// newChallenge plans the next challenge.
func (w *world) newChallenge() *challenge {
	l := w.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.challenges)
	r := w.random("challenge", n)
	user := r.IntN(users)
	c := &challenge{number: n, user: userName(user), card: cardName(user, r.IntN(cardsEach)), code: r.IntN(100) < codeShare, pushes: map[*sim.Device]*pushes{}}
	if c.plan = pick(approvals, r); c.code {
		c.plan = pick(codes, r)
	}
	if c.plan == toReport { // its card is muted and locked
		c.card = fmt.Sprintf("stolen-%d", n)
	}
	l.challenges = append(l.challenges, c)
	return c
}

// webhook is the type and the content of a challenge, as of now.
func (c *challenge) webhook() (typ string, payload map[string]any) {
	payload = map[string]any{
		"card_id": c.card, "user_id": c.user, "auth_id": fmt.Sprintf("A-%d", c.number), "occur_time": time.Now().UnixMilli(),
		"merchant_name": c.shop(), "merchant_country_code": "250", "transaction_amount": "100.20", "transaction_currency": "840", "card_number": canaryPAN,
	}
	if c.code {
		payload["otp"] = oneTimeCode
		return "CARD_VERIFICATION", payload
	}
	return "CARD_3DS", payload
}

func (c *challenge) shop() string { return fmt.Sprintf("Shop %d", c.number) }

// event is the type and the content of the n-th plain event.
func (w *world) event(n int) (typ string, payload map[string]any) {
	user := n % users
	payload = map[string]any{
		"card_id": cardName(user, n%cardsEach), "user_id": userName(user), "transaction_id": fmt.Sprintf("T-%d-%d", w.seed, n), "occur_time": time.Now().UnixMilli(),
		"merchant_name": "Sephora Digital", "transaction_amount": "12.50", "transaction_currency": "840", "status": "SUCCESS",
	}
	if n%statusEvery == 0 {
		return statusChange, payload
	}
	return transaction, payload
}

// load sends events and challenges at their rates until ctx ends and returns when
// all that was begun is acknowledged, or given up a minute later. It begins with
// enrol, if that was not done.
func (w *world) load(ctx context.Context) {
	w.enrol(ctx)
	jobs := make(chan func(context.Context), backlog)
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(givesUp, cancel) })
	defer stop()

	var all sync.WaitGroup
	for range senders {
		all.Go(func() {
			for job := range jobs {
				if ctx.Err() == nil { // else it was never begun
					job(sending)
				}
			}
		})
	}
	var clocks sync.WaitGroup
	clocks.Go(func() {
		w.tick(ctx, w.rate, func(n int) { offer(jobs, func(ctx context.Context) { w.sendEvent(ctx, n) }) })
	})
	clocks.Go(func() {
		w.tick(ctx, w.challengeRate, func(int) { offer(jobs, w.sendChallenge) })
	})
	clocks.Wait()
	close(jobs)
	all.Wait()
}

func offer(jobs chan<- func(context.Context), job func(context.Context)) {
	select {
	case jobs <- job:
	default:
	}
}

// tick calls f with 0, 1, 2, … at a rate per second, in small bunches if it must
// catch up.
func (w *world) tick(ctx context.Context, rate float64, f func(n int)) {
	start := time.Now()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for due := int(time.Since(start).Seconds() * rate); n < due; n++ {
			f(n)
		}
	}
}

func (w *world) sendEvent(ctx context.Context, n int) {
	typ, payload := w.event(n)
	w.ledger.begun()
	id := w.send(ctx, typ, payload, nil)
	if n%sentTwice != 0 || id == "" {
		return
	}
	if again := w.send(ctx, typ, payload, nil); again != "" && again != id {
		w.ledger.wrong("a duplicate was taken for new", "event %d is %s and %s", n, id, again)
	}
}

func (w *world) sendChallenge(ctx context.Context) {
	c := w.newChallenge()
	typ, payload := c.webhook()
	w.ledger.begun()
	w.send(ctx, typ, payload, c)
}

// send posts one content until it is acknowledged and returns the event's id, or
// "" if that never happened.
func (w *world) send(ctx context.Context, typ string, payload map[string]any, c *challenge) string {
	body, err := json.Marshal(payload)
	if err != nil {
		panic(err) // strings and numbers
	}
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		id, again := w.post(ctx, typ, body)
		if id != "" {
			w.ledger.acknowledged(typ, c, id)
			return id
		}
		if !again {
			return ""
		}
		if !rest(ctx, wait) {
			w.ledger.wrong("a webhook was never acknowledged", "%s, up to %v after the end of the load", typ, givesUp)
			return ""
		}
	}
}

// post makes one attempt at any node. again tells that the issuer is to repeat it.
func (w *world) post(ctx context.Context, typ string, body []byte) (id string, again bool) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	node := rand.IntN(len(w.nodes))
	before, start := w.ledger.active(), time.Now()
	a, err := w.issuer.Send(ctx, w.nodes[node].base(), w.issuer.Seal(typ, body))
	took := time.Since(start)
	if err == nil || context.Cause(ctx) == context.DeadlineExceeded {
		active := union(before, w.ledger.active())
		w.ledger.answered(active, took)
		if took > promptly {
			w.ledger.wrong("the ingress hung", "node %d took %v, faults on: %v", node, took, active)
		}
	}
	status, _ := a.Body["status"].(string)
	id, _ = a.Body["event_id"].(string)
	switch {
	case err != nil || a.Status == http.StatusServiceUnavailable:
		return "", true
	case a.Status == http.StatusOK && (status == "accepted" || status == "duplicate") && id != "":
		return id, false
	}
	w.ledger.wrong("a webhook was answered wrongly", "%s by node %d: %d %.200s", typ, node, a.Status, a.Raw)
	return "", false
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(slices.Clone(a), s)
		}
	}
	return a
}

// rest waits; false tells that ctx ended first.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// TestCalm: without damage everything is acknowledged at once, nothing is lost,
// and every plan was carried out, so that every rule of the check was asked.
func TestCalm(t *testing.T) {
	w := newWorld(t, setup{nodes: 2, ttl: 3 * time.Second, rate: 100, challengeRate: 25, seed: 1})
	for _, n := range w.nodes {
		if !n.start(0) || !n.awaitReady("its start") {
			t.FailNow()
		}
	}
	w.enrol(t.Context())
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	w.load(ctx)
	if err := w.drain(t.Context()); err != nil {
		t.Error(err)
	}
	w.check()
	s := w.ledger.summary()
	t.Logf("%+v", s)
	if s.Lost != 0 || s.Acknowledged != s.Events || s.Events < 200 || s.Challenges < 50 || s.Decisions < 20 {
		t.Errorf("too little was sent, or something was lost: %+v", s)
	}
	ends := map[string]int{}
	for _, c := range w.ledger.challenges {
		if c.final != nil {
			ends[string(c.plan)+": "+c.final.status]++
		}
	}
	for _, want := range []string{"approve: approved", "reject: rejected", "report: rejected", "be late: expired", "ignore: expired", "finish: completed", "read: completed"} {
		if ends[want] == 0 {
			t.Errorf("none was planned and ended as %q: %v", want, ends)
		}
	}
	if ends["conflict: approved"]+ends["conflict: rejected"] == 0 {
		t.Errorf("no conflict was decided: %v", ends)
	}
}
