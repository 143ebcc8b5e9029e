package faults

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"approvalrelay/cmd/relay/sim"
	"approvalrelay/relay"
)

// The paths of the issuer's API and the actions of the cardholder API.
const (
	confirmPath = "/card/3ds_confirm"
	lockPath    = "/card/update_status"

	approve = "approve"
	reject  = "reject"
	reveal  = "reveal"
	done    = "done"
)

// ledger holds what the relay promised (every 200 and 202) and what arrived at
// the outside parties. It keeps a few words of each message, because a long run
// has hundreds of thousands. It is safe for concurrent use.
type ledger struct {
	mu         sync.Mutex
	sent       int                       // webhooks, each content once
	acks       map[string]string         // event id → the type of the event, challenges left out
	arrivals   map[string]map[string]int // target → webhook-id → how often it was taken
	own        map[string][]ownEvent     // challenge id → our own events that core took
	calls      map[string][]call         // challenge id → calls of the issuer's API
	challenges []*challenge              // by their number
	devices    map[string][]*sim.Device  // user → the devices that were activated
	gone       map[*sim.Device]time.Time // since when a push service does not know them
	worst      map[string]time.Duration  // fault kind → the ingress's slowest answer
	acting     int                       // cardholders under way
	odd        breaches                  // what is wrong whatever else happens
	active     func() []string           // which faults are on
	outages    []outage                  // of Redis, one after the other
	dead, lost int                       // as found by the check
}

// ownEvent is one of the relay's own events: relay.challenge.approved and so on.
type ownEvent struct{ id, what string }

// call is one that reached the issuer, authentic.
type call struct {
	at     time.Time
	lock   bool
	result string // auth_result
	card   string
	status int // answered, 0: nothing
}

func newLedger() *ledger {
	return &ledger{
		acks: map[string]string{}, arrivals: map[string]map[string]int{"core": {}, "flaky": {}},
		own: map[string][]ownEvent{}, calls: map[string][]call{},
		devices: map[string][]*sim.Device{}, gone: map[*sim.Device]time.Time{}, worst: map[string]time.Duration{},
		odd: breaches{}, active: func() []string { return nil },
	}
}

type outage struct{ from, to time.Time }

// outage notes when Redis was not well.
func (l *ledger) outage(from, to time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outages = append(l.outages, outage{from, to})
}

// well is for how long Redis was well from one moment to another.
func (l *ledger) well(from, to time.Time) time.Duration {
	well := to.Sub(from)
	for _, o := range l.outages {
		if o.from.Before(from) {
			o.from = from
		}
		if o.to.After(to) {
			o.to = to
		}
		well -= max(0, o.to.Sub(o.from))
	}
	return well
}

// deviceGone says that the push service will not know a device any more.
func (l *ledger) deviceGone(d *sim.Device) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.gone[d]; !known {
		l.gone[d] = time.Now()
	}
}

// brokenOff tells a message that a dying node never finished from one that is
// wrong.
func brokenOff(fault string) bool { return strings.HasPrefix(fault, "body cannot be read") }

// delivered takes what reached a downstream target.
func (l *ledger) delivered(target string, d sim.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case d.Fault != "":
		if !brokenOff(d.Fault) {
			l.odd.add("a target refused a forward", "%s, %s %s: %s", target, d.Type, d.ID, d.Fault)
		}
		return
	case d.Status < 200 || d.Status > 299:
		return
	}
	l.arrivals[target][d.ID]++
	what, isOwn := strings.CutPrefix(d.Type, "relay.challenge.")
	if !isOwn || l.arrivals[target][d.ID] > 1 {
		return
	}
	data, _ := d.JSON["data"].(map[string]any)
	if id, _ := data["id"].(string); target == "core" {
		l.own[id] = append(l.own[id], ownEvent{d.ID, what})
	}
}

// called takes what reached the issuer's API.
func (l *ledger) called(c sim.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Fault != "" && !c.Conflict {
		if !brokenOff(c.Fault) {
			l.odd.add("the issuer refused a call", "%s %s: %s", c.Path, c.IdempotencyKey, c.Fault)
		}
		return
	}
	if c.Conflict {
		l.odd.add("two bodies under one idempotency key", "%s %s: %v", c.Path, c.IdempotencyKey, c.Body)
	}
	card, _ := c.Body["card_id"].(string)
	n, _ := c.Body["auth_result"].(json.Number)
	l.calls[c.IdempotencyKey] = append(l.calls[c.IdempotencyKey], call{at: c.At, lock: c.Path == lockPath, result: n.String(), card: card, status: c.Status})
}

// shop finds a challenge's number in the text of its push: its payee is named
// after it.
var shop = regexp.MustCompile(`^Shop (\d+)\b`)

// pushed takes what reached a device. It returns the challenge if its cardholder
// is to act on it now, with the push's action token.
func (l *ledger) pushed(n sim.Notification) (*challenge, string) {
	about, _ := n.Payload["challenge"].(map[string]any)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case n.Fault != "":
		if !brokenOff(n.Fault) {
			l.odd.add("the push service refused a push", "%s", n.Fault)
		}
		return nil, ""
	case about == nil: // an activation
		return nil, ""
	case about["status"] != "pending":
		return nil, ""
	}
	id, _ := about["id"].(string)
	text, _ := n.Payload["notification"].(map[string]any)
	body, _ := text["body"].(string)
	c := l.named(body)
	if c == nil {
		l.odd.add("a push about nothing that was sent", "%s: %q", id, body)
		return nil, ""
	}
	l.bind(c, id)
	expires, _ := about["expires_at"].(string)
	c.expires, _ = time.Parse(time.RFC3339, expires)
	if late := n.At.Sub(c.expires); late > time.Second {
		l.odd.add("announced after its expiry", "%s, %v late", c, late)
	}
	p := c.pushes[n.Device]
	if p == nil {
		p = &pushes{}
		c.pushes[n.Device] = p
	}
	p.tries, p.last = p.tries+1, n.At
	if n.Status != 201 {
		return nil, ""
	}
	if p.taken++; p.taken == 1 {
		p.first = n.At
	}
	if c.acting {
		return nil, ""
	}
	c.acting = true
	l.acting++
	token, _ := about["action_token"].(string)
	return c, token
}

func (l *ledger) named(body string) *challenge {
	m := shop.FindStringSubmatch(body)
	if m == nil {
		return nil
	}
	if n, err := strconv.Atoi(m[1]); err == nil && n < len(l.challenges) {
		return l.challenges[n]
	}
	return nil
}

// bind notes the id that the relay gave to a challenge.
func (l *ledger) bind(c *challenge, id string) {
	switch c.id {
	case "": // written once: its cardholder reads it
		c.id = id
	case id:
	default:
		l.odd.add("one webhook became two challenges", "%s is also %s", c, id)
	}
}

// acted ends what pushed began.
func (l *ledger) acted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acting--
}

// tried notes a cardholder's call and its answer.
func (l *ledger) tried(c *challenge, a attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.attempts = append(c.attempts, a)
}

// answered notes how long the ingress took, under each fault that was on.
func (l *ledger) answered(active []string, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(active) == 0 {
		active = []string{""}
	}
	for _, kind := range active {
		l.worst[kind] = max(l.worst[kind], took)
	}
}

// begun counts a webhook, each content once.
func (l *ledger) begun() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
}

// acknowledged notes a 200, of the event typ or of the challenge c.
func (l *ledger) acknowledged(typ string, c *challenge, eventID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c == nil {
		l.acks[eventID] = typ
		return
	}
	c.acknowledged = true
	l.bind(c, "chl_"+strings.TrimPrefix(eventID, "evt_"))
}

// wrong notes a breach that needs no other evidence.
func (l *ledger) wrong(kind, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.odd.add(kind, format, args...)
}

// summary is the run in figures. Events are all webhooks, each content once, and
// Acknowledged those of them that were answered with 200; Lost is how many
// promises were not kept. Duplicates are counted by lane, and the worst answers
// of the ingress by the kind of fault that was on, "" for none.
type summary struct {
	Events, Acknowledged, Challenges, Decisions, DeadLetters, Lost int
	Duplicates                                                     map[string]int
	WorstAnswer                                                    map[string]time.Duration
}

func (l *ledger) summary() summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := summary{
		Events: l.sent, Acknowledged: len(l.acks), DeadLetters: l.dead, Lost: l.lost,
		Duplicates: map[string]int{}, WorstAnswer: maps.Clone(l.worst),
	}
	for target, arrivals := range l.arrivals {
		for _, n := range arrivals {
			s.Duplicates[target] += n - 1
		}
	}
	for _, calls := range l.calls {
		confirms, locks := 0, 0
		for _, c := range calls {
			switch {
			case c.status < 200 || c.status > 299:
			case c.lock:
				locks++
			default:
				confirms++
			}
		}
		s.Duplicates["confirm"] += max(0, confirms-1)
		s.Duplicates["lock"] += max(0, locks-1)
	}
	for _, c := range l.challenges {
		if c.acknowledged {
			s.Acknowledged++
			s.Challenges++
		}
		for _, p := range c.pushes {
			s.Duplicates["push"] += max(0, p.taken-1)
		}
		s.Decisions += len(c.decisions())
	}
	return s
}

// breaches are what was promised and not kept, by kind.
type breaches map[string][]string

func (b breaches) add(kind, format string, args ...any) {
	b[kind] = append(b[kind], fmt.Sprintf(format, args...))
}

func (b breaches) merge(o breaches) {
	for kind, lines := range o {
		b[kind] = append(b[kind], lines...)
	}
}

// report fails the test, with a few examples of each kind.
func (b breaches) report(t testing.TB) {
	t.Helper()
	const shown = 20
	for _, kind := range slices.Sorted(maps.Keys(b)) {
		lines := b[kind]
		t.Errorf("%s: %d\n\t%s", kind, len(lines), strings.Join(lines[:min(len(lines), shown)], "\n\t"))
	}
}

// kept is a ledger in which every promise was kept: an event, and challenges that
// were approved, came too late, were finished, and were reported.
func kept() *ledger {
	l := newLedger()
	created := time.Now().Add(-time.Minute)
	expires := created.Add(30 * time.Second)
	phone := &sim.Device{}
	l.devices["u"] = []*sim.Device{phone}
	l.acks["evt_1"] = statusChange
	l.arrivals["core"]["evt_1"], l.arrivals["flaky"]["evt_1"] = 1, 1
	add := func(id string, p plan, code bool, end string, own []string, calls []call, attempts ...attempt) {
		c := &challenge{number: len(l.challenges), plan: p, user: "u", card: "c", code: code, id: id, acknowledged: true, expires: expires}
		c.pushes = map[*sim.Device]*pushes{phone: {tries: 1, taken: 1, first: created, last: created}}
		c.attempts, c.final = attempts, &final{status: end, created: created, expires: expires}
		for i, what := range append(own, "created", end) {
			l.own[id] = append(l.own[id], ownEvent{fmt.Sprint(id, i), what})
		}
		l.calls[id] = calls
		l.challenges = append(l.challenges, c)
	}
	at := func(after time.Duration, action string, status int, code string) attempt {
		a := attempt{at: created.Add(after), answered: created.Add(after + time.Second), action: action, status: status, code: code}
		if a.taken() && (action == approve || action == reject) {
			a.decision, a.decidedAt = action, a.at
		}
		if a.taken() && action == reveal {
			a.otp = oneTimeCode
		}
		return a
	}
	add("chl_0", toConflict, false, "approved", nil, []call{{result: "2", status: 200}}, at(0, approve, 200, ""), at(0, reject, 409, "already_decided"))
	add("chl_1", toBeLate, false, "expired", nil, nil, at(31*time.Second, approve, 409, "expired"))
	add("chl_2", toFinish, true, "completed", nil, nil, at(0, reveal, 200, ""), at(time.Second, done, 200, ""))
	add("chl_3", toReport, false, "rejected", []string{"reported"}, []call{{result: "3", status: 200}, {lock: true, card: "c", status: 200}}, at(0, reject, 200, ""))
	return l
}

// TestLedgerFindsBreaches: what was kept passes, and each broken promise is found
// for what it is.
func TestLedgerFindsBreaches(t *testing.T) {
	t.Parallel()
	const short = 10 * time.Second
	if b, _ := kept().audit(nil, short); len(b) != 0 {
		t.Fatalf("promises that were kept: %v", b)
	}
	letter := func(kind relay.Kind, target, event, challenge string, tries int) relay.Delivery {
		return relay.Delivery{ID: "dlv_1", Kind: kind, Target: target, EventID: event, ChallengeID: challenge, Attempts: make([]relay.Attempt, tries)}
	}
	if l := kept(); true {
		delete(l.arrivals["flaky"], "evt_1")
		if b, accounted := l.audit([]relay.Delivery{letter(relay.KindForward, "flaky", "evt_1", "", flakyTries)}, short); len(b) != 0 || !accounted["dlv_1"] {
			t.Errorf("a dead letter with its attempts: %v", b)
		}
	}
	phone := func(l *ledger) *sim.Device { return l.devices["u"][0] }
	for i, c := range []struct {
		kind    string
		letters []relay.Delivery
		damage  func(l *ledger)
	}{
		{"an acknowledged event is lost", nil, func(l *ledger) { delete(l.arrivals["core"], "evt_1") }},
		{"an acknowledged event is lost", nil, func(l *ledger) { delete(l.arrivals["flaky"], "evt_1") }},
		{"an event came to who did not ask for it", nil, func(l *ledger) { l.acks["evt_1"] = transaction }},
		{"a dead letter", []relay.Delivery{letter(relay.KindForward, "flaky", "evt_1", "", 3)}, func(*ledger) {}},
		{"a dead letter", []relay.Delivery{letter(relay.KindForward, "core", "evt_1", "", 9)}, func(*ledger) {}},
		{"a dead letter", []relay.Delivery{letter(relay.KindConfirm, "", "", "chl_0", 9)}, func(*ledger) {}},
		{"a dead letter", []relay.Delivery{letter(relay.KindLock, "", "", "chl_3", 9)}, func(*ledger) {}},
		{"an acknowledged challenge is gone", nil, func(l *ledger) { l.challenges[1].final = nil }},
		{"two decisions", nil, func(l *ledger) {
			a := &l.challenges[0].attempts[1]
			a.status, a.code, a.decision, a.decidedAt = 200, "", reject, a.at
		}},
		{"the answer shows another decision", nil, func(l *ledger) { l.challenges[0].attempts[0].decision = reject }},
		{"decided after expiry", nil, func(l *ledger) { l.challenges[0].attempts[0].decidedAt = l.challenges[0].expires }},
		{"decided after expiry", nil, func(l *ledger) { l.challenges[0].attempts[0].at = l.challenges[0].expires.Add(time.Second) }},
		{"a cardholder was answered wrongly", nil, func(l *ledger) { l.challenges[0].attempts = l.challenges[0].attempts[1:] }},
		{"a cardholder was answered wrongly", nil, func(l *ledger) { l.challenges[1].attempts[0].answered = l.challenges[1].expires.Add(-time.Second) }},
		{"a cardholder was answered wrongly", nil, func(l *ledger) { l.challenges[1].attempts[0].status = 500 }},
		{"a cardholder was answered wrongly", nil, func(l *ledger) { l.challenges[2].attempts[1].status = 401 }},
		{"a wrong code", nil, func(l *ledger) { l.challenges[2].attempts[0].otp = "" }},
		{"the issuer was not told", nil, func(l *ledger) { l.calls["chl_0"] = nil }},
		{"the issuer was told after the expiry", nil, func(l *ledger) { l.calls["chl_0"][0].at = time.Now() }},
		{"the issuer was told another decision", nil, func(l *ledger) { l.calls["chl_0"][0].result = "3" }},
		{"the issuer was told two decisions", nil, func(l *ledger) { l.calls["chl_0"] = append(l.calls["chl_0"], call{result: "3", status: 500}) }},
		{"the issuer was told of a code", nil, func(l *ledger) { l.calls["chl_2"] = []call{{result: "3", status: 200}} }},
		{"failed although the issuer agreed", nil, func(l *ledger) {
			*l.challenges[0].final = final{"failed", "issuer_unreachable", time.Time{}, time.Now()}
		}},
		{"a stolen card was not locked", nil, func(l *ledger) { l.calls["chl_3"][1].card = "another" }},
		{"a wrong end", nil, func(l *ledger) { l.challenges[0].final.status = "pending" }},
		{"a wrong end", nil, func(l *ledger) { l.challenges[0].final.status = "expired" }},
		{"a wrong end", nil, func(l *ledger) { l.challenges[0].final.status = "rejected" }},
		{"a wrong end", nil, func(l *ledger) { l.challenges[1].final.status = "approved" }},
		{"a wrong end", nil, func(l *ledger) { l.challenges[2].final.status = "cancelled" }},
		{"a challenge was not pushed", nil, func(l *ledger) { delete(l.challenges[1].pushes, phone(l)) }},
		{"a push was given up", nil, func(l *ledger) { l.challenges[1].pushes[phone(l)].taken = 0 }},
		{"announced after it was decided", nil, func(l *ledger) { l.challenges[0].pushes[phone(l)].last = time.Now() }},
		{"core did not hear of a challenge once", nil, func(l *ledger) { l.own["chl_1"] = l.own["chl_1"][:1] }},
		{"core did not hear of a challenge once", nil, func(l *ledger) { l.own["chl_1"] = append(l.own["chl_1"], ownEvent{"x", "expired"}) }},
		{"core heard of another end", nil, func(l *ledger) { l.own["chl_1"] = append(l.own["chl_1"], ownEvent{"x", "approved"}) }},
		{"core did not hear of a report", nil, func(l *ledger) { l.own["chl_3"] = l.own["chl_3"][1:] }},
		{"the issuer refused a call", nil, func(l *ledger) { l.called(sim.Call{Fault: "HMAC is wrong"}) }},
		{"two bodies under one idempotency key", nil, func(l *ledger) { l.called(sim.Call{Fault: "conflict", Conflict: true}) }},
		{"a target refused a forward", nil, func(l *ledger) { l.delivered("core", sim.Delivery{Fault: "signature is wrong"}) }},
		{"the push service refused a push", nil, func(l *ledger) { l.pushed(sim.Notification{Fault: "VAPID is wrong"}) }},
		{"announced after its expiry", nil, func(l *ledger) { l.pushed(announcement(l, 0, "chl_0", 2*time.Second)) }},
		{"one webhook became two challenges", nil, func(l *ledger) { l.pushed(announcement(l, 0, "chl_9", -time.Second)) }},
		{"a push about nothing that was sent", nil, func(l *ledger) { l.pushed(announcement(l, 9, "chl_9", -time.Second)) }},
	} {
		l := kept()
		c.damage(l)
		if b, _ := l.audit(c.letters, short); len(b[c.kind]) == 0 {
			t.Errorf("%d: %q was not found, but %v", i, c.kind, b)
		}
	}
	// A device that is gone need not be told, nor one of a challenge that came
	// with almost no life left.
	for name, excuse := range map[string]func(l *ledger){
		"gone":  func(l *ledger) { l.gone[phone(l)] = l.challenges[1].final.created },
		"short": func(l *ledger) { l.challenges[1].final.created = l.challenges[1].final.expires.Add(-short / 2) },
	} {
		l := kept()
		delete(l.challenges[1].pushes, phone(l))
		excuse(l)
		if b, _ := l.audit(nil, short); len(b) != 0 {
			t.Errorf("%s: %v", name, b)
		}
	}
}

// announcement is a push of a challenge that expired so long ago.
func announcement(l *ledger, number int, id string, late time.Duration) sim.Notification {
	now := time.Now()
	return sim.Notification{At: now, Device: l.devices["u"][0], Status: 201, Payload: map[string]any{
		"notification": map[string]any{"body": fmt.Sprintf("Shop %d · card ····4242", number)},
		"challenge":    map[string]any{"id": id, "status": "pending", "expires_at": now.Add(-late).Format(time.RFC3339Nano)},
	}}
}
