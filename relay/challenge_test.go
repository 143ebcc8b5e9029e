package relay

import (
	"encoding/base64"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	testNow    = time.UnixMilli(1_795_000_000_000).UTC()
	testExpiry = testNow.Add(5 * time.Minute)
)

// refusalCode is the code of a refusal, "" for none.
func refusalCode(err error) Code {
	if err == nil {
		return ""
	}
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Code
	}
	return Code("not a refusal: " + err.Error())
}

func pendingChallenge(m Method) Challenge {
	return Challenge{
		ID: newID(prefixChallenge, 3, testNow), Merchant: "acme", Type: "CARD_3DS", UserID: "u1", Kind: ThreeDS, Method: m, Status: Pending,
		CardID: "c1", Payee: "Shop", Amount: "50.00", Currency: "USD", CreatedAt: testNow, ExpiresAt: testExpiry,
		Secret: Secret{Body: []byte(`{"otp":"045435"}`), Envelope: []byte("envelope")},
	}
}

func must(t *testing.T) func(Challenge, error) Challenge {
	return func(c Challenge, err error) Challenge {
		t.Helper()
		if err != nil {
			t.Fatalf("a step that must be allowed was refused: %v", err)
		}
		return c
	}
}

// startStates are all states that a challenge of a method can be in, and the
// time at which the input then comes.
func startStates(t *testing.T, m Method, tell bool) map[string]struct {
	c  Challenge
	at time.Time
} {
	ok := must(t)
	type state = struct {
		c  Challenge
		at time.Time
	}
	soon, late := testNow.Add(time.Second), testExpiry.Add(time.Minute)
	p := pendingChallenge(m)
	states := map[string]state{
		"pending":   {p, soon},
		"lapsed":    {p, testExpiry}, // its time is up, and nobody has written that yet
		"expired":   {p.Expire(0, testExpiry), late},
		"cancelled": {p.Cancel("by the operator", soon), soon},
		"rejected":  {ok(p.Decide(Decision{Action: Reject}, false, false, soon)), soon},
	}
	if m != MethodApprove {
		revealed := ok(p.Reveal(soon))
		states["revealed"] = state{revealed, soon}
		states["revealed-lapsed"] = state{revealed, testExpiry}
		states["completed"] = state{ok(p.Done(soon)), soon}
		states["completed-lapsed"] = state{revealed.Expire(0, testExpiry), late}
		return states
	}
	states["approved"] = state{ok(p.Decide(Decision{Action: Approve}, false, false, soon)), soon}
	if tell {
		yes, no := ok(p.Decide(Decision{Action: Approve}, true, false, soon)), ok(p.Decide(Decision{Action: Reject}, true, false, soon))
		states["confirming-approve"] = state{yes, soon}
		states["confirming-reject"] = state{no, soon}
		states["confirming-late"] = state{yes, testExpiry.Add(confirmGrace - time.Millisecond)}
		states["confirming-over"] = state{yes, testExpiry.Add(confirmGrace)}
		states["failed"] = state{yes.Confirmed(&Failure{Code: IssuerRefused}, soon), soon}
		states["failed-reject"] = state{no.Confirmed(&Failure{Code: IssuerRefused}, soon), soon}
	}
	return states
}

var inputNames = []string{"approve", "reject", "reveal", "done", "taken", "refused", "time", "cancel"}

func apply(c Challenge, input string, tell bool, now time.Time) (Challenge, error) {
	switch input {
	case "approve":
		return c.Decide(Decision{Action: Approve}, tell, false, now)
	case "reject":
		return c.Decide(Decision{Action: Reject, Reason: ReasonNotMe}, tell, false, now)
	case "reveal":
		return c.Reveal(now)
	case "done":
		return c.Done(now)
	case "taken":
		return c.Confirmed(nil, now), nil
	case "refused":
		return c.Confirmed(&Failure{Code: IssuerRefused}, now), nil
	case "time":
		return c.Expire(confirmGrace, now), nil
	}
	return c.Cancel("superseded", now), nil
}

// The state table: a cell is the next status, "!" and the code of the refusal,
// or "=" for a challenge that stays exactly as it is. "pending" in the column of
// reveal is a first reading.
const (
	approveTold = `
		                    approve         reject           reveal        done          taken     refused  time     cancel
		pending             confirming      confirming       !wrong_method !wrong_method =         =        =        cancelled
		lapsed              !expired        !expired         !wrong_method !wrong_method =         =        expired  expired
		confirming-approve  =               !already_decided !wrong_method !wrong_method approved  failed   =        =
		confirming-reject   !already_decided =               !wrong_method !wrong_method rejected  failed   =        =
		confirming-late     =               !already_decided !wrong_method !wrong_method approved  failed   =        =
		confirming-over     =               !already_decided !wrong_method !wrong_method approved  failed   failed   =
		approved            =               !already_decided !wrong_method !wrong_method =         =        =        =
		rejected            !already_decided =               !wrong_method !wrong_method =         =        =        =
		failed              =               !already_decided !wrong_method !wrong_method =         =        =        =
		failed-reject       !already_decided =               !wrong_method !wrong_method =         =        =        =
		expired             !expired        !expired         !wrong_method !wrong_method =         =        =        =
		cancelled           !cancelled      !cancelled       !wrong_method !wrong_method =         =        =        =`

	approveAlone = `
		                    approve         reject           reveal        done          taken     refused  time     cancel
		pending             approved        rejected         !wrong_method !wrong_method =         =        =        cancelled
		lapsed              !expired        !expired         !wrong_method !wrong_method =         =        expired  expired
		approved            =               !already_decided !wrong_method !wrong_method =         =        =        =
		rejected            !already_decided =               !wrong_method !wrong_method =         =        =        =
		expired             !expired        !expired         !wrong_method !wrong_method =         =        =        =
		cancelled           !cancelled      !cancelled       !wrong_method !wrong_method =         =        =        =`

	codeOrLink = `
		                    approve         reject           reveal           done             taken refused time      cancel
		pending             !wrong_method   rejected         pending          completed        =     =       =         cancelled
		revealed            !wrong_method   rejected         =                completed        =     =       =         cancelled
		lapsed              !wrong_method   !expired         !expired         !expired         =     =       expired   expired
		revealed-lapsed     !wrong_method   !expired         !expired         completed        =     =       completed completed
		rejected            !wrong_method   =                !already_decided !already_decided =     =       =         =
		completed           !wrong_method   !already_decided !already_decided =                =     =       =         =
		completed-lapsed    !wrong_method   !expired         !expired         =                =     =       =         =
		expired             !wrong_method   !expired         !expired         !expired         =     =       =         =
		cancelled           !wrong_method   !cancelled       !cancelled       !cancelled       =     =       =         =`
)

func TestStateTable(t *testing.T) {
	t.Parallel()
	for _, table := range []struct {
		method Method
		tell   bool
		cells  string
	}{
		{MethodApprove, true, approveTold},
		{MethodApprove, false, approveAlone},
		{MethodOTP, true, codeOrLink},
		{MethodOTP, false, codeOrLink},
		{MethodURL, true, codeOrLink},
		{MethodURL, false, codeOrLink},
	} {
		states := startStates(t, table.method, table.tell)
		rows := strings.Split(strings.TrimSpace(table.cells), "\n")
		if got := strings.Fields(rows[0]); !slices.Equal(got, inputNames) {
			t.Fatalf("columns %v, want %v", got, inputNames)
		}
		if len(rows)-1 != len(states) {
			t.Errorf("method %s: the table has %d states, there are %d", table.method, len(rows)-1, len(states))
		}
		for _, row := range rows[1:] {
			cells := strings.Fields(row)
			from, ok := states[cells[0]]
			if !ok || len(cells) != len(inputNames)+1 {
				t.Fatalf("method %s: row %q is not of this table", table.method, row)
			}
			for i, input := range inputNames {
				t.Run(strings.Join([]string{string(table.method), cells[0], input}, " "), func(t *testing.T) {
					next, err := apply(from.c, input, table.tell, from.at)
					checkCell(t, from.c, next, err, cells[i+1])
				})
			}
		}
	}
}

func checkCell(t *testing.T, from, next Challenge, err error, want string) {
	t.Helper()
	code, isRefusal := strings.CutPrefix(want, "!")
	same := reflect.DeepEqual(from, next)
	switch {
	case isRefusal:
		if refusalCode(err) != Code(code) || !same {
			t.Fatalf("status %s, error %v, unchanged %v; want it refused as %s, and unchanged", next.Status, err, same, code)
		}
	case err != nil:
		t.Fatalf("refused: %v; want %s", err, want)
	case want == "=":
		if !same {
			t.Fatalf("it became %s; want it unchanged", next.Status)
		}
	case next.Status != Status(want) || same:
		t.Fatalf("status %s, unchanged %v; want %s", next.Status, same, want)
	}
	if final := next.Status.Final(); final != !next.EndedAt.IsZero() || final != (next.Secret.Body == nil && next.Secret.Envelope == nil) {
		t.Fatalf("status %s: ended at %v, secret kept %v", next.Status, next.EndedAt, next.Secret.Body != nil)
	}
}

// A challenge whose time is up answers the same whether or not the sweeper has
// written that.
func TestLapsedAnswersAsIfSwept(t *testing.T) {
	t.Parallel()
	for _, m := range []Method{MethodApprove, MethodOTP, MethodURL} {
		for name, from := range startStates(t, m, true) {
			for _, input := range inputNames {
				for _, now := range []time.Time{from.at, testExpiry.Add(time.Hour)} {
					raw, err1 := apply(from.c, input, true, now)
					swept, err2 := apply(from.c.At(now), input, true, now)
					if refusalCode(err1) != refusalCode(err2) || raw.At(now).Status != swept.Status {
						t.Errorf("%s %s, %s: %s %v before the sweep, %s %v after it", m, name, input, raw.At(now).Status, err1, swept.Status, err2)
					}
				}
			}
		}
	}
}

func TestNothingIsDecidedFromExpiryOn(t *testing.T) {
	t.Parallel()
	for _, m := range []Method{MethodApprove, MethodOTP} {
		for offset, open := range map[time.Duration]bool{-time.Millisecond: true, 0: false, time.Millisecond: false} {
			now := testExpiry.Add(offset)
			for _, input := range []string{"approve", "reject", "reveal", "done"} {
				if (m == MethodApprove) != (input == "approve") && input != "reject" {
					continue // not of this method
				}
				_, err := apply(pendingChallenge(m), input, false, now)
				if open && err != nil || !open && refusalCode(err) != CodeExpired {
					t.Errorf("%s, %s, %v from the expiry: %v", m, input, offset, err)
				}
			}
			if swept := pendingChallenge(m).Expire(0, now).Status; (swept == Pending) != open {
				t.Errorf("%s, %v from the expiry: %s", m, offset, swept)
			}
		}
	}
}

func TestShown(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	whole := func(amount, currency, payee string) *Shown {
		return &Shown{Amount: text(amount), Currency: text(currency), Payee: text(payee)}
	}
	bare := Challenge{} // neither amount, currency nor payee
	for _, tc := range []struct {
		name     string
		shown    *Shown
		required bool
		bare     bool
		want     Code
		field    string
	}{
		{name: "nothing echoed", shown: nil},
		{name: "all right", shown: whole("50.00", "USD", "Shop"), required: true},
		{name: "amounts are decimals", shown: whole("50", "USD", "Shop"), required: true},
		{name: "other zeros", shown: whole("050.000", "USD", "Shop"), required: true},
		{name: "a part of it", shown: &Shown{Amount: text("50")}},
		{name: "other amount", shown: whole("50.01", "USD", "Shop"), want: CodeShownMismatch},
		{name: "no amount at all", shown: whole("fifty", "USD", "Shop"), want: CodeShownMismatch},
		{name: "empty amount", shown: whole("", "USD", "Shop"), want: CodeShownMismatch},
		{name: "other currency", shown: whole("50", "EUR", "Shop"), want: CodeShownMismatch},
		{name: "other payee", shown: whole("50", "USD", "Shop "), want: CodeShownMismatch},
		{name: "mismatch beside what is right", shown: &Shown{Currency: text("EUR")}, want: CodeShownMismatch},
		{name: "required, none", required: true, want: CodeInvalidRequest, field: "shown.amount"},
		{name: "required, no currency", shown: &Shown{Amount: text("50")}, required: true, want: CodeInvalidRequest, field: "shown.currency"},
		{name: "required, no payee", shown: &Shown{Amount: text("50"), Currency: text("USD")}, required: true, want: CodeInvalidRequest, field: "shown.payee"},
		{name: "required, but there is nothing to show", required: true, bare: true},
		{name: "a payee where there is none", shown: &Shown{Payee: text("Shop")}, bare: true, want: CodeShownMismatch},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := pendingChallenge(MethodApprove)
			if tc.bare {
				c.Amount, c.Currency, c.Payee = bare.Amount, bare.Currency, bare.Payee
			}
			next, err := c.Decide(Decision{Action: Approve, Shown: tc.shown}, false, tc.required, testNow)
			if refusalCode(err) != tc.want {
				t.Fatalf("%v; want %q", err, tc.want)
			}
			if r, ok := errors.AsType[*Refusal](err); ok && r.Field != tc.field {
				t.Errorf("names the field %q, want %q", r.Field, tc.field)
			}
			if tc.want != "" && !reflect.DeepEqual(next, c) {
				t.Errorf("a refused approve changed the challenge: %+v", next)
			}
			// A reject stops the payment whatever was shown.
			if _, err := c.Decide(Decision{Action: Reject, Shown: tc.shown}, false, tc.required, testNow); err != nil {
				t.Errorf("the reject was refused: %v", err)
			}
		})
	}
}

func TestDecisionIsKeptWhole(t *testing.T) {
	t.Parallel()
	at := testNow.Add(time.Second)
	d := Decision{Action: Reject, Reason: ReasonNotMe, Device: Device{SubscriptionID: "sub_1", IP: "192.0.2.1"}, DecidedAt: testExpiry.Add(time.Hour)}
	c := must(t)(pendingChallenge(MethodApprove).Decide(d, true, false, at))
	d.DecidedAt = at // by our clock, whatever the caller says
	if !reflect.DeepEqual(*c.Decision, d) {
		t.Fatalf("kept %+v, want %+v", *c.Decision, d)
	}
	again := must(t)(c.Decide(Decision{Action: Reject, Device: Device{SubscriptionID: "sub_2"}}, true, false, at.Add(time.Second)))
	if again.Decision != c.Decision {
		t.Fatalf("the same answer again replaced the decision: %+v", *again.Decision)
	}
}

func TestSupersedes(t *testing.T) {
	t.Parallel()
	c := func(occurred, created int) Challenge {
		c := Challenge{CreatedAt: testNow.Add(time.Duration(created) * time.Second)}
		if occurred >= 0 {
			c.OccurredAt = testNow.Add(time.Duration(occurred) * time.Second)
		}
		return c
	}
	for _, tc := range []struct {
		name         string
		newer, older Challenge
		want         bool
	}{
		{"it happened later", c(5, 9), c(1, 8), true},
		{"a late retry of an older one", c(1, 9), c(5, 8), false},
		{"at the same time: arrived later", c(5, 9), c(5, 8), true},
		{"at the same time: arrived earlier", c(5, 8), c(5, 9), false},
		{"times unknown", c(-1, 9), c(-1, 8), true},
		{"one time unknown: its arrival counts", c(-1, 9), c(8, 8), true},
	} {
		if got := tc.newer.Supersedes(tc.older); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestSecretRedactsItself(t *testing.T) {
	t.Parallel()
	c := pendingChallenge(MethodOTP)
	ev := Event{ID: "evt_1", Secret: c.Secret}
	d := Delivery{ID: "dlv_1", Secret: c.Secret}
	in64 := base64.StdEncoding.EncodeToString(c.Secret.Body)
	checkHidden(t, []string{"045435", "30343534", "48 52 53", "envelope", in64}, c, &c, c.Secret, &c.Secret, ev, d, []Challenge{c},
		map[string]Secret{"a": c.Secret}, Revealed{OTP: "045435"}, Message{Data: c.Secret.Body, Envelope: c.Secret.Envelope},
		IssuerCall{Payload: map[string]any{"otp": "045435"}}, Reading{Payload: map[string]any{"otp": "045435"}})
}
