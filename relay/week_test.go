package relay_test

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"approvalrelay/crypto"
	"approvalrelay/push"
	"approvalrelay/relay"
	"approvalrelay/relay/redisstore"
)

// All but the rate is as in production: 50 is the rate that is promised, and would
// be a week of 30 million events.
var weekRate = flag.Float64("week.rate", 0.002, "events per simulated second of TestWeek")

const (
	day       = 24 * time.Hour
	retention = 72 * time.Hour

	// As in redisstore: of dead letters, and of whose an endpoint is.
	deadLife     = 30 * day
	endpointLife = 1000 * day

	warm  = 4 // the first day at whose end all that retention forgets has begun to go
	grain = 15 * time.Minute
)

// A week of traffic leaves behind what retention allows, and nothing else: from
// the fourth day on the store does not grow, nor does the process, and when the
// traffic has ended and retention is over every key that is left is named here.
//
// It is not parallel: it measures the process.
func TestWeek(t *testing.T) {
	w := newWeek(t)
	w.populate()
	w.at(0, func() { w.event(0) })
	var steady tallies
	var before memory
	for d := 1; d <= 7; d++ {
		w.run(start.Add(time.Duration(d) * day))
		now := w.tally()
		t.Logf("day %d, %d events:\n%s", d, w.events, now)
		w.checkBounds(now)
		switch {
		case d == warm:
			steady, before = now, w.memory()
		case d > warm:
			if d <= 2*int(retention/day) {
				steady["dup:"] = now["dup:"] // which goes after twice the retention
			}
			now.checkGrowth(t, d, steady)
		}
	}
	w.checkMemory(before)
	w.checkVariety()
	w.over = true
	w.run(start.Add(7*day + retention + deadLife + day))
	w.checkLeft()
	w.run(w.clock.Now().Add(endpointLife))
	if n := w.tally()["endpoint:"].keys; n > 0 {
		t.Errorf("whose %d endpoints are is still known", n)
	}
}

// A target that is gone gets nothing, for as long as nobody resumes it: what it
// is owed must end at max_backlog all the same, or it would fill the store.
func TestGoneTargetCannotFillTheStore(t *testing.T) {
	gone := target("gone", "*")
	gone.MaxBacklog = 3
	h := newHarness(t, withTargets(gone))
	h.downstream.will(func(forwarded) relay.Outcome { return relay.Outcome{Verdict: relay.Gone} })
	h.receive("CARD_STATUS", payload("card_id", "c-0"))
	shed := h.logs.next(`"error":"the target's backlog is beyond max_backlog"`)
	const many = 40
	for i := range many {
		h.accepted("CARD_STATUS", payload("card_id", fmt.Sprint("c-", i+1)))
	}
	within(t, shed)
	h.quiet()
	backlog, err := h.store.Backlog(h.ctx)
	if owed := backlog[relay.TargetLane("gone")]; err != nil || owed > gone.MaxBacklog || owed+len(h.deadLetters()) != many+1 {
		t.Errorf("%d are owed and %d are dead, %v; want at most %d owed, and the others dead", owed, len(h.deadLetters()), err, gone.MaxBacklog)
	}
}

// What was owed to a target that the operator then takes out of the
// configuration is not owed for ever.
func TestRemovedTargetLeavesNothing(t *testing.T) {
	w := newWeek(t)
	u, card := holderOf(0)
	w.plain(u, card, "handed out to nobody")
	o := w.Options
	o.Targets = o.Targets[:1]
	w.serve(o)
	for _, owed := range []int{1, 0} {
		w.must(w.worker.SweepOnce(w.ctx))
		backlog, err := w.store.Backlog(w.ctx)
		w.must(err)
		if got := backlog[relay.TargetLane("core")]; got != owed {
			t.Errorf("%d deliveries are owed %s after the last event, want %d", got, w.clock.Now().Sub(start), owed)
		}
		w.run(w.clock.Now().Add(retention + time.Minute))
	}
	w.run(start.Add(retention + deadLife + day))
	w.checkLeft()
}

// week is one node at work, other nodes that come and die, and the world around
// them. The test's goroutine does everything.
type week struct {
	*harness
	server *miniredis.Miniredis
	store  *weekStore
	worker *relay.Worker
	open   func(node string) *redisstore.Store
	errand []errand  // by time
	due    time.Time // when the store has something to do next
	aged   time.Time // up to here the keys have aged
	over   bool      // no more traffic

	events int
	bodies []sent // the last ones, to be sent again
	codes  map[string]string
	active map[relay.User]map[string]bool // endpoints that are active, as far as the world knows
	cards  map[string]bool                // "merchant:c:card" of all cards there ever were
	users  map[string]bool
	seen   map[string]int // what has happened
}

type errand struct {
	at time.Time
	do func()
}

// weekStore tells when a request has stored its step.
type weekStore struct {
	*redisstore.Store
	stored func()
}

func (s *weekStore) Commit(ctx context.Context, st relay.Step) error {
	err := s.Store.Commit(ctx, st)
	if st.Settle == nil && s.stored != nil {
		s.stored()
	}
	return err
}

func newWeek(t *testing.T) *week {
	secret, err := crypto.ParseSecret(strings.Repeat("k", 32), crypto.UTF8)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := crypto.NewKeyring(secret)
	if err != nil {
		t.Fatal(err)
	}
	vault, err := crypto.NewVault(crypto.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	w := &week{harness: &harness{t: t, ctx: t.Context(), clock: &clock{now: start}, ring: ring}, server: miniredis.RunT(t), aged: start,
		codes: map[string]string{}, active: map[relay.User]map[string]bool{}, cards: map[string]bool{}, users: map[string]bool{}, seen: map[string]int{}}
	w.server.SetTime(start)
	w.open = func(node string) *redisstore.Store {
		s, err := redisstore.Open(redisstore.Options{
			URL: "redis://" + w.server.Addr(), Prefix: "relay", Partitions: 2, Vault: vault, Node: node, Clock: w.clock.Now, Log: slog.New(slog.DiscardHandler),
			Retention: redisstore.Retention{Challenges: retention, Events: retention, Deliveries: retention},
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	w.store = &weekStore{Store: w.open("lives")}
	t.Cleanup(func() { w.must(w.store.Close()) })
	o := options(ring)
	o.Duplicates = retention
	o.Merchants["acme"].Retry = relay.Schedule{Retry: []time.Duration{5 * time.Second, 30 * time.Second}, RepeatLast: true}
	core := target("core", "*", "CARD_3DS")
	core.Schedule.Retry = []time.Duration{5 * time.Second, 30 * time.Second, 10 * time.Minute, 2 * time.Hour, 12 * time.Hour}
	o.Targets = append(o.Targets, core)
	w.serve(o)
	return w
}

// serve starts the node, anew with other options.
func (w *week) serve(o relay.Options) {
	log := slog.New(slog.DiscardHandler)
	w.Service = relay.New(o, w.store, log)
	w.worker = relay.NewWorker(w.Service, w.store, relay.Outside{Pusher: w, Issuer: w, Downstream: w}, log)
}

func (w *week) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%v into the week: %v", w.clock.Now().Sub(start), err)
	}
}

// at has something done after a while.
func (w *week) at(wait time.Duration, do func()) {
	e := errand{w.clock.Now().Add(wait), do}
	i, _ := slices.BinarySearchFunc(w.errand, e, func(a, b errand) int { return a.at.Compare(b.at) })
	w.errand = slices.Insert(w.errand, i, e)
}

// run lets time pass from one thing that happens to the next.
func (w *week) run(until time.Time) {
	w.t.Helper()
	const patience = 1000
	stands := 0
	w.settle()
	for w.clock.Now().Before(until) {
		next := until
		if len(w.errand) > 0 && w.errand[0].at.Before(next) {
			next = w.errand[0].at
		}
		if !w.due.IsZero() && w.due.Before(next) {
			next = w.due
		}
		if stands++; w.pass(next) {
			stands = 0
		}
		if stands > patience {
			w.t.Fatalf("%v into the week there is no end of what is due", w.clock.Now().Sub(start))
		}
		for len(w.errand) > 0 && !w.errand[0].at.After(w.clock.Now()) {
			do := w.errand[0].do
			w.errand = slices.Delete(w.errand, 0, 1)
			do()
		}
		w.settle()
	}
}

// pass sets all clocks. Keys age in steps, so a TTL may be off by one of them.
func (w *week) pass(to time.Time) bool {
	step := to.Sub(w.clock.Now())
	if step <= 0 {
		return false
	}
	w.clock.Advance(step)
	w.server.SetTime(to)
	if age := to.Sub(w.aged); age >= grain {
		w.server.FastForward(age)
		w.aged = to
	}
	return true
}

// settle lets everything happen that is due, and notes when the next is.
func (w *week) settle() {
	w.t.Helper()
	w.must(w.worker.Once(w.ctx, func(p int) (due, waiting bool) {
		next := w.nextDue(p)
		return !next.IsZero() && !next.After(w.clock.Now()), w.waiting(p)
	}))
	w.due = time.Time{}
	for p := range w.store.Partitions() {
		if next := w.nextDue(p); w.due.IsZero() || !next.IsZero() && next.Before(w.due) {
			w.due = next
		}
	}
}

// nextDue and waiting look into Redis, which is quicker than to ask it.
func (w *week) nextDue(p int) time.Time {
	due := fmt.Sprintf("relay:{p%02d}:due", p)
	members, err := w.server.ZMembers(due)
	if err != nil {
		return time.Time{} // there is none
	}
	score, err := w.server.ZScore(due, members[0])
	w.must(err)
	return time.UnixMilli(int64(score)).UTC()
}

func (w *week) waiting(p int) bool {
	return slices.ContainsFunc(weekLanes, func(l relay.Lane) bool {
		entries, err := w.server.Stream(fmt.Sprintf("relay:{p%02d}:q:%s", p, l))
		return err == nil && len(entries) > 0
	})
}

var weekLanes = []relay.Lane{relay.LaneTasks, relay.LanePush, relay.LaneConfirm, relay.LaneLock, relay.TargetLane("own"), relay.TargetLane("core")}

func (w *week) saw(what string) { w.seen[what]++ }

// hour of the day, by the fake clock.
func (w *week) hour() int { return int(w.clock.Now().Sub(start)/time.Hour) % 24 }

func oneIn(n uint32, s string) bool {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()%n == 0
}

func outcome(v relay.Verdict, status int) relay.Outcome {
	return relay.Outcome{Verdict: v, Attempt: relay.Attempt{StatusCode: status}}
}

// Forward: "core" is down for four hours a day, and never takes some events.
func (w *week) Forward(_ context.Context, target string, m relay.Message) relay.Outcome {
	if target == "own" {
		w.saw(m.Type)
		return outcome(relay.Delivered, 200)
	}
	if h := w.hour(); h >= 9 && h < 13 || oneIn(20, m.EventID) {
		w.saw("core answers 500")
		return outcome(relay.TryAgain, 500)
	}
	return outcome(relay.Delivered, 200)
}

// Confirm goes by the reference.
func (w *week) Confirm(_ context.Context, c relay.IssuerCall) relay.Outcome {
	switch {
	case strings.HasPrefix(c.Reference, "refuse"):
		return outcome(relay.Refused, 422)
	case strings.HasPrefix(c.Reference, "away"):
		return outcome(relay.TryAgain, 503)
	}
	return outcome(relay.Delivered, 200)
}

// Lock is down for six hours a day, and refuses some cards.
func (w *week) Lock(_ context.Context, c relay.IssuerCall) relay.Outcome {
	switch {
	case oneIn(5, c.ChallengeID):
		return outcome(relay.Refused, 404)
	case w.hour() < 6:
		w.saw("lock answers 500")
		return outcome(relay.TryAgain, 500)
	}
	return outcome(relay.Delivered, 200)
}

// Send: a browser that was thrown away is gone once it is active; the push
// service is down for three minutes an hour.
func (w *week) Send(_ context.Context, s push.Subscription, m push.Message) push.Result {
	p := &pusher{}
	p.Send(w.ctx, s, m)
	got := p.all()[0]
	if got.Activation.Code != "" {
		w.codes[got.Activation.ID] = got.Activation.Code
		return push.Result{Verdict: push.Delivered, StatusCode: 201}
	}
	switch {
	case strings.Contains(s.Endpoint, "thrown-away"):
		w.saw("push answers 410")
		for _, endpoints := range w.active {
			delete(endpoints, s.Endpoint)
		}
		return push.Result{Verdict: push.Gone, StatusCode: 410}
	case w.clock.Now().Sub(start)%time.Hour < 3*time.Minute:
		w.saw("push answers 503")
		return push.Result{Verdict: push.Retry, StatusCode: 503}
	}
	w.saw("push")
	return push.Result{Verdict: push.Delivered, StatusCode: 201}
}
