package faults

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"approvalrelay/crypto"
	"approvalrelay/relay"
	"approvalrelay/relay/redisstore"
)

// What the checker allows.
const (
	drainTime    = 30 * time.Second       // beyond the life of a challenge
	askEvery     = 200 * time.Millisecond // in between
	clockSlack   = 100 * time.Millisecond // between the moment of a call and that of its decision
	pushUnderWay = 15 * time.Second       // a push on its way when its challenge is decided
	pushPause    = 20 * time.Second       // the longest between two tries of a push
	flakyTries   = 4                      // the first and three retries
	deadLetters  = 10_000                 // of one partition, all that are ever kept
)

// shortLife is for how long Redis must be well while a challenge lives, or from
// its decision to its expiry, for its push or its confirm to be demanded: a
// take-over may take 7 s.
func (w *world) shortLife() time.Duration { return min(10*time.Second, w.ttl/2) }

// final is a challenge as the API shows it when all has ended.
type final struct {
	status           string
	failure          string
	created, expires time.Time
}

// drain waits until nothing is owed any more: no cardholder acts, Redis holds no
// work, and what was acknowledged has arrived.
func (w *world) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.ttl+drainTime)
	defer cancel()
	rdb, err := w.dial()
	if err != nil {
		return err
	}
	defer rdb.Close()
	for {
		owed := w.ledger.owed()
		if owed == "" {
			if owed, err = w.owing(ctx, rdb); err == nil && owed == "" {
				return nil
			}
		}
		if !rest(ctx, askEvery) {
			return errors.Join(fmt.Errorf("still owed after %v: %s", w.ttl+drainTime, owed), err)
		}
	}
}

// owed says what the ledger waits for, "" for nothing. What flaky has not got may
// be a dead letter, which only the check can tell.
func (l *ledger) owed() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.acting > 0 {
		return fmt.Sprintf("%d cardholders act", l.acting)
	}
	missing := 0
	for id := range l.acks {
		if l.arrivals["core"][id] == 0 {
			missing++
		}
	}
	for _, c := range l.challenges {
		if c.acknowledged && len(l.own[c.id]) == 0 {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Sprintf("%d events of core", missing)
	}
	return ""
}

// check compares what was promised with what arrived, once all has ended, and
// fails the test for every breach.
func (w *world) check() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	letters, err := w.deadLetters(ctx)
	if err != nil {
		w.t.Errorf("read the dead letters: %v", err)
	}
	if err := w.finals(ctx); err != nil {
		w.t.Errorf("ask for the challenges' ends: %v", err)
	}
	b, accounted := w.ledger.audit(letters, w.shortLife())
	rdb, err := w.dial()
	if err != nil {
		w.t.Error(err)
		return
	}
	defer rdb.Close()
	space := keyspace{nodes: len(w.nodes), dead: accounted, breaches: b}
	if err := space.scan(ctx, rdb); err != nil {
		w.t.Error(err)
	}
	b.report(w.t)
	w.t.Logf("the whole key space was compared: %d keys", space.keys)
}

// deadLetters reads them past all nodes, and writes nothing.
func (w *world) deadLetters(ctx context.Context) ([]relay.Delivery, error) {
	key, err := base64.StdEncoding.DecodeString(w.storageKey)
	if err != nil {
		return nil, err
	}
	vault, err := crypto.NewVault(key)
	if err != nil {
		return nil, err
	}
	store, err := redisstore.Open(redisstore.Options{
		URL: w.redisURL, Prefix: "relay", Partitions: partitions, Vault: vault, Node: "checker", Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	var all []relay.Delivery
	for p := range partitions {
		letters, err := store.DeadLetters(ctx, p, deadLetters)
		if err != nil {
			return nil, err
		}
		all = append(all, letters...)
	}
	return all, nil
}

// finals asks the API how each challenge has ended.
func (w *world) finals(ctx context.Context) error {
	w.ledger.mu.Lock()
	all := slices.DeleteFunc(slices.Clone(w.ledger.challenges), func(c *challenge) bool { return c.id == "" })
	w.ledger.mu.Unlock()
	tokens := map[string]string{}
	for n := range users {
		tokens[userName(n)] = w.token(userName(n))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, c := range all {
		g.Go(func() error {
			for ; ; i++ {
				raw, status, err := w.call(ctx, i, "GET", tokens[c.user], "/v1/challenges/"+c.id, "")
				switch {
				case err == nil && status == http.StatusOK:
					return c.end(raw)
				case err == nil && status == http.StatusNotFound:
					return nil
				case !rest(ctx, askEvery):
					return fmt.Errorf("%s: status %d, %w", c.id, status, errors.Join(err, ctx.Err()))
				}
			}
		})
	}
	return g.Wait()
}

func (c *challenge) end(raw []byte) error {
	var v struct {
		Status    string
		CreatedAt time.Time `json:"created_at"`
		ExpiresAt time.Time `json:"expires_at"`
		Failure   *struct{ Code string }
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("%s: %w", c.id, err)
	}
	c.final = &final{status: v.Status, created: v.CreatedAt, expires: v.ExpiresAt}
	if v.Failure != nil {
		c.final.failure = v.Failure.Code
	}
	return nil
}

// audit is the comparison itself. It returns the breaches and the dead letters
// that are accounted for.
func (l *ledger) audit(letters []relay.Delivery, short time.Duration) (breaches, map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := breaches{}
	b.merge(l.odd)
	l.lost = 0
	accounted := l.auditLetters(b, letters)
	l.auditEvents(b, letters)
	for _, c := range l.challenges {
		if c.id == "" {
			continue
		}
		if c.final == nil {
			if c.acknowledged {
				l.lost++
				b.add("an acknowledged challenge is gone", "%s", c)
			}
			continue
		}
		a := audit{l: l, c: c, b: b, short: short}
		a.attempts()
		a.confirms()
		a.end()
		a.announcements()
		a.ownEvents()
	}
	l.dead = len(letters)
	return b, accounted
}

// auditLetters accounts for every dead letter: a forward that flaky did not take,
// a push to a device that is gone or whose challenge is over, a confirm that came
// too late.
func (l *ledger) auditLetters(b breaches, letters []relay.Delivery) map[string]bool {
	accounted := map[string]bool{}
	ends := map[string]string{}
	for _, c := range l.challenges {
		if c.final != nil {
			ends[c.id] = c.final.status
		}
	}
	for _, d := range letters {
		what := ""
		switch d.Kind {
		case relay.KindForward:
			if d.Target != "flaky" || len(d.Attempts) < flakyTries {
				what = "given up too early"
			}
		case relay.KindConfirm:
			if end := ends[d.ChallengeID]; end != "failed" {
				what = "its challenge is " + end
			}
		case relay.KindPush: // until the challenge ends, and audit.announcements knows what was due
		default:
			what = "this kind may not die"
		}
		if what != "" {
			b.add("a dead letter", "%s %s to %s after %d attempts, event %s: %s", d.Kind, d.ID, d.Target, len(d.Attempts), d.EventID, what)
		}
		accounted[d.ID] = true
	}
	return accounted
}

func (l *ledger) auditEvents(b breaches, letters []relay.Delivery) {
	given := map[string]bool{}
	for _, d := range letters {
		if d.Kind == relay.KindForward {
			given[d.Target+" "+d.EventID] = true
		}
	}
	for id, typ := range l.acks {
		for _, target := range []string{"core", "flaky"} {
			wanted := target == "core" || typ == statusChange
			arrived := l.arrivals[target][id] > 0 || given[target+" "+id]
			switch {
			case wanted && !arrived:
				l.lost++
				b.add("an acknowledged event is lost", "%s %s did not reach %s", typ, id, target)
			case !wanted && arrived:
				b.add("an event came to who did not ask for it", "%s %s at %s", typ, id, target)
			}
		}
	}
}

// audit is that of one challenge whose end is known.
type audit struct {
	l     *ledger
	c     *challenge
	b     breaches
	short time.Duration
}

// attempts judges every answer of the cardholder API.
func (a audit) attempts() {
	for i, t := range a.c.attempts {
		if why := a.refused(i, t); why != "" {
			a.b.add("a cardholder was answered wrongly", "%s: %s on node %d was answered %d %s: %s", a.c, t.action, t.node, t.status, t.code, why)
		}
		if t.taken() && (t.action == approve || t.action == reject) {
			a.decided(i, t)
		}
		if t.action == reveal && t.taken() && t.otp != oneTimeCode {
			a.b.add("a wrong code", "%s", a.c)
		}
	}
	if d := a.c.decisions(); len(d) > 1 {
		a.b.add("two decisions", "%s: %v were acknowledged", a.c, d)
	}
}

func (a audit) decided(i int, t attempt) {
	switch expires := a.c.final.expires; {
	case t.decision != t.action:
		a.b.add("the answer shows another decision", "%s: %s was answered with %q", a.c, t.action, t.decision)
	case !t.decidedAt.Before(expires):
		a.b.add("decided after expiry", "%s: decided %v late by its own word", a.c, t.decidedAt.Sub(expires))
	case t.at.After(expires.Add(clockSlack)) && !a.earlier(i, func(e attempt) bool { return e.action == t.action && e.at.Before(expires) && e.unclear() }):
		a.b.add("decided after expiry", "%s: %s was sent %v late and taken by node %d", a.c, t.action, t.at.Sub(expires), t.node)
	}
}

// unclear tells that the call may have been carried out although the answer does
// not say so.
func (t attempt) unclear() bool { return t.status == 0 || t.status >= 500 }

func (a audit) earlier(i int, match func(attempt) bool) bool {
	return slices.ContainsFunc(a.c.attempts[:i], match)
}

// refused says why a refusal was wrong; "" if it was not, or was none.
func (a audit) refused(i int, t attempt) string {
	over := t.answered.After(a.c.final.expires.Add(-clockSlack))
	others := slices.ContainsFunc(a.c.attempts, func(o attempt) bool { return o.action != t.action && o.action != reveal })
	switch {
	case t.taken(), t.status == 0, t.status == http.StatusServiceUnavailable:
		return ""
	case t.status == http.StatusConflict && t.code == "expired":
		if !over {
			return fmt.Sprintf("%v are left", a.c.final.expires.Sub(t.answered))
		}
		return ""
	case t.status == http.StatusConflict && t.code == "already_decided":
		if !others {
			return "nobody decided otherwise"
		}
		return ""
	case t.status == http.StatusUnauthorized && t.token:
		if _, gone := a.l.goneOf(a.c.user); !over && !others && !gone && !a.earlier(i, attempt.unclear) {
			return "its token is still good"
		}
		return ""
	}
	return "never right"
}

// goneOf tells when the first device of a user was gone.
func (l *ledger) goneOf(user string) (at time.Time, gone bool) {
	for _, d := range l.devices[user] {
		if since, ok := l.gone[d]; ok && (!gone || since.Before(at)) {
			at, gone = since, true
		}
	}
	return at, gone
}

// decisionValues are what the issuer is told, as configured.
var decisionValues = map[string]string{approve: "2", reject: "3"}

// confirms compares the decision with what the issuer was told.
func (a audit) confirms() {
	told := map[string]int{}
	locked := false
	var last call
	for _, c := range a.l.calls[a.c.id] {
		if c.lock {
			locked = locked || c.card == a.c.card
			continue
		}
		told[c.result]++
		last = c
		if late := c.at.Sub(a.c.final.expires); late > time.Second {
			a.b.add("the issuer was told after the expiry", "%s: %v after", a.c, late)
		}
	}
	decisions := a.c.decisions()
	f := a.c.final
	switch {
	case a.c.code && len(told) > 0:
		a.b.add("the issuer was told of a code", "%s: %v", a.c, told)
	case len(told) > 1:
		a.b.add("the issuer was told two decisions", "%s: %v", a.c, told)
	case !a.c.code && len(decisions) == 1 && len(told) == 0:
		if f.status != "failed" || a.l.well(a.firstTaken(), f.expires) > a.short {
			a.l.lost++
			a.b.add("the issuer was not told", "%s: %s was acknowledged, and ended as %s", a.c, decisions[0], f.status)
		}
	case len(decisions) == 1 && len(told) == 1 && told[decisionValues[decisions[0]]] == 0:
		a.b.add("the issuer was told another decision", "%s: %s was acknowledged, told was %v", a.c, decisions[0], told)
	}
	yes := last.status >= 200 && last.status <= 299
	if f.status == "failed" && yes && f.failure != "unknown" {
		a.b.add("failed although the issuer agreed", "%s: %s", a.c, f.failure)
	}
	if a.c.plan == toReport && len(decisions) == 1 && !locked {
		a.l.lost++
		a.b.add("a stolen card was not locked", "%s: card %s", a.c, a.c.card)
	}
}

// firstTaken is when the decision that was acknowledged was first sent.
func (a audit) firstTaken() time.Time {
	for _, t := range a.c.attempts {
		if t.taken() {
			return t.at
		}
	}
	return time.Time{}
}

// end judges how the challenge ended by what its cardholder did.
func (a audit) end() {
	sent := func(action string) bool {
		return slices.ContainsFunc(a.c.attempts, func(t attempt) bool { return t.action == action })
	}
	took := func(action string) bool {
		return slices.ContainsFunc(a.c.attempts, func(t attempt) bool { return t.action == action && t.taken() })
	}
	decided := took(approve) || took(reject)
	confirmed := slices.ContainsFunc(a.l.calls[a.c.id], func(c call) bool { return !c.lock && c.status >= 200 && c.status <= 299 })
	ok := false
	switch a.c.final.status {
	case "approved":
		ok = sent(approve) && !took(reject) && confirmed
	case "rejected":
		ok = sent(reject) && !took(approve) && (confirmed || a.c.code)
	case "failed":
		ok = !a.c.code && (sent(approve) || sent(reject))
	case "completed":
		ok = a.c.code && (sent(done) || sent(reveal)) && !decided
	case "expired":
		ok = !decided && !took(done) && !took(reveal)
	}
	if !ok {
		a.b.add("a wrong end", "%s: %s %s; sent %v", a.c, a.c.final.status, a.c.final.failure, a.c.history())
	}
}

func (c *challenge) history() []string {
	var all []string
	for _, t := range c.attempts {
		all = append(all, fmt.Sprintf("%s→%d %s", t.action, t.status, t.code))
	}
	return all
}

// announcements: each device that was there all the time was told, while the
// challenge lived, unless it was decided before.
func (a audit) announcements() {
	f := a.c.final
	decidedAt := a.firstTaken()
	for _, d := range a.l.devices[a.c.user] {
		p := a.c.pushes[d]
		if p != nil && !decidedAt.IsZero() && p.taken > 0 && p.last.Sub(decidedAt) > pushUnderWay {
			a.b.add("announced after it was decided", "%s: %v after", a.c, p.last.Sub(decidedAt))
		}
		since, gone := a.l.gone[d]
		switch {
		case !a.c.acknowledged, f.status != "expired", a.l.well(f.created, f.expires) < a.short:
		case gone && since.Before(f.expires):
		case p != nil && p.taken > 0:
		case p == nil:
			a.l.lost++
			a.b.add("a challenge was not pushed", "%s: one of %d devices heard nothing", a.c, len(a.l.devices[a.c.user]))
		case f.expires.Sub(p.last) > pushPause:
			a.b.add("a push was given up", "%s: %d tries, the last %v before its expiry", a.c, p.tries, f.expires.Sub(p.last))
		}
	}
}

// ownEvents: core heard of the challenge's beginning and of its one end.
func (a audit) ownEvents() {
	count := map[string]int{}
	for _, e := range a.l.own[a.c.id] {
		count[e.what]++
	}
	lived := a.c.final.created.Before(a.c.final.expires)
	if lived && count["created"] != 1 || !lived && count["created"] != 0 || count[a.c.final.status] != 1 {
		a.l.lost++
		a.b.add("core did not hear of a challenge once", "%s, which is %s: %v", a.c, a.c.final.status, count)
	}
	for _, end := range []string{"approved", "rejected", "completed", "expired", "failed", "cancelled"} {
		if end != a.c.final.status && count[end] > 0 {
			a.b.add("core heard of another end", "%s, which is %s: %v", a.c, a.c.final.status, count)
		}
	}
	if a.c.plan == toReport && len(a.c.decisions()) == 1 && count["reported"] != 1 {
		a.b.add("core did not hear of a report", "%s: %v", a.c, count)
	}
}
