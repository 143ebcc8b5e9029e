package forward

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"approvalrelay/relay"
)

// taken is a request as the issuer's platform reads it.
type taken struct {
	path, plain string
	header      http.Header
}

// platform opens what it gets and answers as it is told to.
func platform(t *testing.T, answer http.HandlerFunc) (url string, requests <-chan taken) {
	t.Helper()
	got := make(chan taken, 16)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body map[string]string
		if err := json.Unmarshal([]byte(readAll(t, r)), &body); err != nil || len(body) != 1 {
			t.Errorf("body %v: %v", body, err)
		}
		plain, err := unseal(merchKey, body["encrypted_payload"], r.Header.Get("X-HMAC"))
		if err != nil {
			t.Error(err)
		}
		got <- taken{r.Method + " " + r.URL.Path, plain, r.Header}
		answer(w, r)
	})
	return s.URL, got
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestIssuerRequests(t *testing.T) {
	t.Parallel()
	url, requests := platform(t, text(200, sealedAnswer(merchKey, `{"status":"success"}`)))
	i := issuer(t, url, nil)
	approve := issuerCall(t)
	reject := approve
	reject.Action = relay.Reject
	lock := approve
	lock.Action = ""
	for _, c := range []struct {
		outcome     relay.Outcome
		path, plain string
	}{
		{i.Confirm(t.Context(), approve), "POST /card/3ds_confirm", `{"auth_id":"4868798","auth_result":2,"card_id":67890}`},
		{i.Confirm(t.Context(), reject), "POST /card/3ds_confirm", `{"auth_id":"4868798","auth_result":3,"card_id":67890}`},
		{i.Confirm(t.Context(), reject), "POST /card/3ds_confirm", `{"auth_id":"4868798","auth_result":3,"card_id":67890}`},
		{i.Lock(t.Context(), lock), "POST /card/update_status", `{"card_id":67890,"status":"LOCKED"}`},
	} {
		checkAttempt(t, c.outcome, relay.Delivered, 200, "")
		if c.outcome.Attempt.Response != `{"status":"success"}` {
			t.Errorf("response %q", c.outcome.Attempt.Response)
		}
		r := <-requests
		if r.path != c.path || r.plain != c.plain {
			t.Errorf("%s %s\nwant %s %s", r.path, r.plain, c.path, c.plain)
		}
		for header, want := range map[string]string{
			"Merchant-ID": "3f2c9a52", "Idempotency-Key": approve.ChallengeID,
			"Content-Type": "application/json", "User-Agent": "approvalrelay",
		} {
			if got := r.header.Get(header); got != want {
				t.Errorf("%s: %q, want %q", header, got, want)
			}
		}
	}
}

func TestIssuerStatuses(t *testing.T) {
	t.Parallel()
	for _, authentic := range []bool{true, false} {
		body := `{"message":"no"}`
		if authentic {
			body = sealedAnswer(merchKey, body)
		}
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			status, _ := strconv.Atoi(r.URL.Path[1:4])
			w.Header().Set("Retry-After", "2")
			text(status, body)(w, r)
		})
		for status := 200; status <= 599; status++ {
			i := issuer(t, fmt.Sprintf("%s/%d", s.URL, status), nil)
			want, wait, errText := relay.TryAgain, time.Duration(0), ""
			switch {
			case status < 300 && authentic && status != 204:
				want = relay.Delivered
			case status < 300:
				want, errText = relay.Unclear, "the issuer's answer is not authentic"
			case status < 400:
				errText = "redirects are not followed"
			case status == 429, status == 503:
				wait = 2 * time.Second
			case status >= 400 && status < 500 && status != 408 && status != 425:
				want = relay.Refused
			}
			o := i.Confirm(t.Context(), issuerCall(t))
			checkAttempt(t, o, want, status, errText)
			if o.RetryAfter != wait {
				t.Errorf("%d: retry after %s, want %s", status, o.RetryAfter, wait)
			}
			if status != 204 && status != 304 && o.Attempt.Response != `{"message":"no"}` {
				t.Errorf("%d: response %q", status, o.Attempt.Response)
			}
			i.Close()
		}
	}
}

// A confirmation must be the issuer's own; everything else may hide that it was
// taken, or that it was not.
func TestAuthenticAnswers(t *testing.T) {
	t.Parallel()
	const doubt = "the issuer's answer is not authentic"
	p, mac := seal(merchKey, `{"ok":true}`)
	other, _ := seal(merchKey, `{"ok":true}`)
	const badPadding = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	envelope := func(payload, mac string) string {
		return fmt.Sprintf(`{"encrypted_payload":%q,"hmac":%q}`, payload, mac)
	}
	for name, c := range map[string]struct {
		body     string
		verdict  relay.Verdict
		response string
	}{
		"authentic":         {envelope(p, mac), relay.Delivered, `{"ok":true}`},
		"upper-case HMAC":   {envelope(p, strings.ToUpper(mac)), relay.Delivered, `{"ok":true}`},
		"older secret":      {sealedAnswer(oldKey, `{"ok":true}`), relay.Delivered, `{"ok":true}`},
		"empty text":        {sealedAnswer(merchKey, ""), relay.Delivered, ""},
		"long text":         {sealedAnswer(merchKey, strings.Repeat("y", 30<<10)), relay.Delivered, strings.Repeat("y", 1<<10)},
		"more members":      {`{"code":0,` + envelope(p, mac)[1:], relay.Delivered, `{"ok":true}`},
		"stranger's secret": {sealedAnswer("0123456789abcdef0123456789abcdee", "{}"), relay.Unclear, "-"},
		"HMAC of another":   {envelope(other, mac), relay.Unclear, "-"},
		"no HMAC":           {fmt.Sprintf(`{"encrypted_payload":%q}`, p), relay.Unclear, "-"},
		"zero HMAC":         {envelope(p, strings.Repeat("0", 64)), relay.Unclear, "-"},
		"cut HMAC":          {envelope(p, mac[:62]), relay.Unclear, "-"},
		"bad padding":       {envelope(badPadding, macOf(merchKey, badPadding)), relay.Unclear, "-"},
		"plain":             {`{"ok":true}`, relay.Unclear, `{"ok":true}`},
		"no JSON":           {"OK", relay.Unclear, "OK"},
		"a list":            {"[]", relay.Unclear, "[]"},
		"nothing":           {"", relay.Unclear, ""},
		"beyond the limit":  {sealedAnswer(merchKey, strings.Repeat("y", 64<<10)), relay.Unclear, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, text(200, c.body))
			want := doubt
			if c.verdict == relay.Delivered {
				want = ""
			}
			o := issuer(t, s.URL, nil).Confirm(t.Context(), issuerCall(t))
			checkAttempt(t, o, c.verdict, 200, want)
			if c.response != "-" && o.Attempt.Response != c.response {
				t.Errorf("response %q, want %q", o.Attempt.Response, c.response)
			}
		})
	}
}

func TestHalfAnswers(t *testing.T) {
	t.Parallel()
	half := func(then http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			answer := sealedAnswer(merchKey, "{}")
			w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
			_, _ = io.WriteString(w, answer[:20])
			w.(http.Flusher).Flush()
			then(w, r)
		}
	}
	for want, then := range map[string]http.HandlerFunc{
		"connection closed before the answer was complete": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"timeout": hang,
	} {
		s := serve(t, half(then))
		i := issuer(t, s.URL, func(a *IssuerAPI) { a.Timeout = 200 * time.Millisecond })
		checkAttempt(t, i.Confirm(t.Context(), issuerCall(t)), relay.Unclear, 200, want)
	}
}

func TestIssuerNotSent(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	none := issuer(t, s.URL, func(a *IssuerAPI) { a.Confirm, a.Lock = nil, nil })
	full := issuer(t, s.URL, nil)
	stranger := issuerCall(t)
	stranger.Merchant = "other"
	undecided := issuerCall(t)
	undecided.Action = ""
	unwritable := issuerCall(t)
	unwritable.Payload = map[string]any{"card_id": json.Number("x")}
	withPayload := issuer(t, s.URL, func(a *IssuerAPI) { a.Lock.Body = map[string]any{"c": "$payload.card_id"} })
	for _, c := range []struct {
		outcome relay.Outcome
		err     string
	}{
		{none.Confirm(t.Context(), issuerCall(t)), "not sent: the merchant has no issuer_api.confirm"},
		{none.Lock(t.Context(), issuerCall(t)), "not sent: the merchant has no issuer_api.lock_card"},
		{full.Confirm(t.Context(), stranger), "not sent: the merchant has no issuer_api.confirm"},
		{full.Lock(t.Context(), stranger), "not sent: the merchant has no issuer_api.lock_card"},
		{full.Confirm(t.Context(), undecided), "not sent: there is no decision value for this action"},
		{withPayload.Lock(t.Context(), unwritable), "not sent: the body cannot be written as JSON"},
	} {
		checkAttempt(t, c.outcome, relay.Faulty, 0, c.err)
	}
}

func TestNewIssuerRefuses(t *testing.T) {
	t.Parallel()
	const prefix = `forward: issuer_api of merchant "acme": `
	both := func(approve, reject any) func(*IssuerAPI) {
		return func(a *IssuerAPI) {
			a.Confirm.Decisions = map[relay.Action]any{relay.Approve: approve, relay.Reject: reject}
		}
	}
	body := func(v any) func(*IssuerAPI) {
		return func(a *IssuerAPI) { a.Confirm.Body = map[string]any{"d": "$decision", "v": v} }
	}
	const known = "; it may hold $card_id $user_id $reference $challenge_id $decision and $payload.any.path"
	for _, c := range []struct {
		change func(*IssuerAPI)
		want   string
	}{
		{func(a *IssuerAPI) { a.Keyring = nil }, "it needs the merchant's keyring"},
		{func(a *IssuerAPI) { a.Timeout = 0 }, "its timeout must be above zero"},
		{func(a *IssuerAPI) { a.BaseURL = "canary" }, "confirm: its base_url and path do not make a URL"},
		{func(a *IssuerAPI) { a.Confirm, a.BaseURL = nil, "http://canary\x7f" }, "lock_card: its base_url and path do not make a URL"},
		{body(func() {}), "confirm: its body cannot be written as JSON"},
		{func(a *IssuerAPI) { a.Confirm.Body = nil }, "confirm: its body: the payload is a JSON null, not an object"},
		{func(a *IssuerAPI) { delete(a.Confirm.Body, "auth_result") }, "confirm: its body does not hold $decision"},
		{func(a *IssuerAPI) { a.Confirm.Decisions = nil }, "confirm: it has no decision values"},
		{both(2, nil), "confirm: its decision values must be two different ones, for approve and reject"},
		{both("YES", "YES"), "confirm: its decision values must be two different ones, for approve and reject"},
		{both(func() {}, 1), "confirm: its decision values cannot be written as JSON"},
		{body("$cardid"), "confirm: its body holds $cardid" + known},
		{body([]any{map[string]any{"x": "a $b"}, "$a"}), "confirm: its body holds $a $b" + known},
		{body("$payload"), "confirm: its body holds $payload" + known},
		{body("$payload."), "confirm: its body holds $payload" + known},
		{body("$payload_x.y"), "confirm: its body holds $payload_x" + known},
		{func(a *IssuerAPI) { a.Lock.Body = map[string]any{"s": "$decision"} },
			"lock_card: its body holds $decision; it may hold $card_id $user_id $reference $challenge_id and $payload.any.path"},
	} {
		api := confirmAPI(t, "https://api.issuer.example")
		c.change(&api)
		if _, err := NewIssuer(map[string]IssuerAPI{"acme": api}); err == nil || err.Error() != prefix+c.want {
			t.Errorf("%v\nwant %s", err, prefix+c.want)
		}
	}
	for name, change := range map[string]func(*IssuerAPI){
		"types that differ": both(2, "2"), "false": both(true, false), "a price": body("5$ and $5 and $"),
	} {
		api := confirmAPI(t, "https://api.issuer.example")
		change(&api)
		if _, err := NewIssuer(map[string]IssuerAPI{"acme": api}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
