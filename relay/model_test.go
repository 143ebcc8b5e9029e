package relay

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// facts is what an outsider remembers of a challenge's life. Its status follows
// from them; the code under test keeps the status and must agree.
type facts struct {
	method   Method
	tell     bool // the issuer has to be told
	required bool // an approve must echo what was shown

	decided   Action
	answer    string // of the issuer: "", taken, failed
	revealed  bool
	done      bool
	swept     bool // its time was up, and that was written
	cancelled bool
	user      string
}

func (f facts) status() Status {
	outcome := map[Action]Status{Approve: Approved, Reject: Rejected}[f.decided]
	switch {
	case f.cancelled:
		return Cancelled
	case f.decided != "" && (!f.tell || f.method != MethodApprove || f.answer == "taken"):
		return outcome
	case f.answer == "failed":
		return Failed
	case f.decided != "":
		return Confirming
	case f.done || f.swept && f.revealed:
		return Completed
	case f.swept:
		return Expired
	}
	return Pending
}

// closed is the refusal of whoever comes too late, "" if nobody does.
func (f facts) closed(late bool) Code {
	switch {
	case f.cancelled:
		return CodeCancelled
	case f.decided != "" || f.done:
		return CodeAlreadyDecided
	case f.swept || late:
		return CodeExpired
	}
	return ""
}

// lapse is what everybody who comes too late finds: the time was up.
func (f *facts) lapse(late bool) {
	if late && f.closed(false) == "" {
		f.swept = true
	}
}

type machine struct {
	c    Challenge
	want facts
	now  time.Time
}

func TestChallengeModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		method := rapid.SampledFrom([]Method{MethodApprove, MethodApprove, MethodOTP, MethodURL}).Draw(t, "method")
		m := &machine{c: pendingChallenge(method), now: testNow}
		m.c.UserID = rapid.SampledFrom([]string{"", "u1"}).Draw(t, "user")
		m.want = facts{method: method, tell: rapid.Bool().Draw(t, "tell"), required: rapid.Bool().Draw(t, "required"), user: m.c.UserID}
		before := m.c
		t.Repeat(map[string]func(*rapid.T){
			"decide":  m.decide,
			"reveal":  m.reveal,
			"done":    m.done,
			"confirm": m.confirm,
			"cancel":  m.cancel,
			"sweep":   m.sweep,
			"assign":  m.assign,
			"wait":    m.wait,
			"": func(t *rapid.T) {
				m.check(t, before)
				before = m.c
			},
		})
	})
}

func (m *machine) late() bool { return !m.now.Before(testExpiry) }

// refused checks an answer against the code that is due; a refusal leaves the
// challenge as it is.
func (m *machine) refused(t *rapid.T, next Challenge, err error, want Code) {
	if refusalCode(err) != want {
		t.Fatalf("refused as %q, want %q", refusalCode(err), want)
	}
	if want != "" && !reflect.DeepEqual(next, m.c) {
		t.Fatalf("a refusal changed the challenge to %+v", next)
	}
	m.c = next
}

func (m *machine) decide(t *rapid.T) {
	action := rapid.SampledFrom([]Action{Approve, Reject}).Draw(t, "action")
	reason := rapid.SampledFrom([]string{"", "cancelled", ReasonNotMe}).Draw(t, "reason")
	texts := map[string]*Shown{
		"none": nil, "partial": {Amount: &[]string{"50"}[0]}, "wrong": {Payee: &[]string{"Other"}[0]},
		"right": {Amount: &[]string{"50.0"}[0], Currency: &[]string{"USD"}[0], Payee: &[]string{"Shop"}[0]},
	}
	shown := rapid.SampledFrom([]string{"none", "partial", "wrong", "right"}).Draw(t, "shown")
	next, err := m.c.Decide(Decision{Action: action, Reason: reason, Shown: texts[shown]}, m.want.tell, m.want.required, m.now)

	want := m.want.closed(m.late())
	switch {
	case action == Approve && m.want.method != MethodApprove:
		want = CodeWrongMethod
	case m.want.decided == action:
		want = "" // the same again
	case want != "" || action == Reject:
	case m.want.required && shown != "right":
		want = CodeInvalidRequest // the amount or the currency is missing, which comes before the payee
	case shown == "wrong":
		want = CodeShownMismatch
	}
	m.refused(t, next, err, want)
	if want == "" {
		m.want.decided = action
	}
}

func (m *machine) reveal(t *rapid.T) {
	next, err := m.c.Reveal(m.now)
	want := m.want.closed(m.late())
	if m.want.method == MethodApprove {
		want = CodeWrongMethod
	}
	m.refused(t, next, err, want)
	m.want.revealed = m.want.revealed || want == ""
}

func (m *machine) done(t *rapid.T) {
	next, err := m.c.Done(m.now)
	want := m.want.closed(m.late())
	completed := m.want.done || m.want.closed(false) == "" && m.late() && m.want.revealed || m.want.status() == Completed
	switch {
	case m.want.method == MethodApprove:
		want = CodeWrongMethod
	case completed:
		want = ""
	}
	m.refused(t, next, err, want)
	if want == "" {
		m.want.lapse(m.late())
		m.want.done = m.want.done || !m.want.swept
	}
}

func (m *machine) confirm(t *rapid.T) {
	taken := rapid.Bool().Draw(t, "taken")
	var failure *Failure
	if !taken {
		failure = &Failure{Code: IssuerRefused}
	}
	confirming := m.want.status() == Confirming
	m.c = m.c.Confirmed(failure, m.now)
	if confirming {
		m.want.answer = map[bool]string{true: "taken", false: "failed"}[taken]
	}
}

func (m *machine) cancel(*rapid.T) {
	m.c = m.c.Cancel("superseded", m.now)
	m.want.lapse(m.late())
	m.want.cancelled = m.want.cancelled || m.want.closed(false) == ""
}

func (m *machine) sweep(*rapid.T) {
	m.c = m.c.Expire(confirmGrace, m.now)
	m.want.lapse(m.late())
	if m.want.status() == Confirming && !m.now.Before(testExpiry.Add(confirmGrace)) {
		m.want.answer = "failed"
	}
}

func (m *machine) assign(t *rapid.T) {
	user := rapid.SampledFrom([]string{"", "u1", "u2"}).Draw(t, "user")
	m.c = m.c.Assign(user)
	if m.want.user == "" {
		m.want.user = user
	}
}

func (m *machine) wait(t *rapid.T) {
	// Often onto the edges: the expiry, and the end of the grace.
	edges := []time.Time{testExpiry.Add(-time.Millisecond), testExpiry, testExpiry.Add(confirmGrace - time.Millisecond), testExpiry.Add(confirmGrace)}
	to := rapid.SampledFrom(append(edges, m.now.Add(time.Second), m.now.Add(3*time.Minute))).Draw(t, "to")
	if to.After(m.now) {
		m.now = to
	}
}

// check holds the challenge against the facts, and against what it was.
func (m *machine) check(t *rapid.T, before Challenge) {
	c := m.c
	if c.Status != m.want.status() || c.UserID != m.want.user || c.RevealedAt.IsZero() == m.want.revealed {
		t.Fatalf("status %s, user %q, revealed at %v; want %s of %+v", c.Status, c.UserID, c.RevealedAt, m.want.status(), m.want)
	}
	if before.Decision != nil && (c.Decision == nil || !reflect.DeepEqual(*c.Decision, *before.Decision)) {
		t.Fatalf("the decision %+v became %+v", before.Decision, c.Decision)
	}
	if before.Status.Final() && !reflect.DeepEqual(withoutUser(before), withoutUser(c)) {
		t.Fatalf("what was final changed: %+v became %+v", before, c)
	}
	if before.UserID != "" && c.UserID != before.UserID {
		t.Fatalf("the owner %q became %q", before.UserID, c.UserID)
	}
	if c.Decision != nil && !c.Decision.DecidedAt.Before(testExpiry) || !c.RevealedAt.Before(testExpiry) {
		t.Fatalf("decided %+v, revealed at %v: after the expiry", c.Decision, c.RevealedAt)
	}
	final := c.Status.Final()
	if hasSecret := c.Secret.Body != nil || c.Secret.Envelope != nil; hasSecret == final {
		t.Fatalf("%s, secret kept: %v", c.Status, hasSecret)
	}
	if c.EndedAt.IsZero() == final || (c.Failure != nil) != (c.Status == Failed) {
		t.Fatalf("%s, ended at %v, failure %+v", c.Status, c.EndedAt, c.Failure)
	}
}

func withoutUser(c Challenge) Challenge {
	c.UserID = ""
	return c
}
