package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"approvalrelay/relay"
)

func TestChallengeAsTheContractShowsIt(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	at := b.clock.Now().Add(-2 * time.Second).Truncate(time.Second)
	id := b.challenge("acme", "CARD_3DS", map[string]any{
		"card_pan": "4111********4242", "merchant_country_code": "250", "occur_time": at.UnixMilli(), "transaction_id": "4868798",
	})
	a := b.get("/v1/challenges/" + id).status(200)
	v := decodeAs[relay.View](a)
	created := v.CreatedAt.Format(time.RFC3339Nano)
	want := fmt.Sprintf(`{"id":%q,"kind":"three_ds","method":"approve","status":"pending","card":{"id":"67890","last4":"4242"},`+
		`"payee":{"name":"Sephora Digital","country":"FR"},"amount":{"value":"100.20","currency":"USD"},"reference":"4868798","wallet":null,`+
		`"occurred_at":%q,"created_at":%q,"expires_at":%q,"revealed_at":null,"decision":null,"failure":null}`,
		id, at.UTC().Format(time.RFC3339), created, at.Add(5*time.Minute).UTC().Format(time.RFC3339))
	if string(a.Body) != want {
		t.Errorf("got  %s\nwant %s", a.Body, want)
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control %q", a.Header.Get("Cache-Control"))
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	if got := string(b.get("/v1/challenges").status(200).Body); got != `{"data":[],"next_cursor":null}` {
		t.Errorf("an empty list is %s", got)
	}
	var all []string
	for range 5 {
		all = append(all, b.challenge("acme", "CARD_3DS", nil))
		b.clock.Advance(time.Millisecond)
	}
	slices.Reverse(all)
	var got []string
	path := "/v1/challenges?status=&cursor=&limit=2"
	for path != "" {
		l := decodeAs[list[relay.View]](b.get(path).status(200))
		got = append(got, ids(l.Data)...)
		path = ""
		if l.Next != nil {
			path = "/v1/challenges?limit=2&cursor=" + *l.Next
		}
	}
	if !slices.Equal(got, all) {
		t.Errorf("got %v, want %v", got, all)
	}
	b.post("/v1/challenges/"+all[0]+"/reject", "").status(200)
	if l := decodeAs[list[relay.View]](b.get("/v1/challenges?status=pending")); !slices.Equal(ids(l.Data), all[1:]) {
		t.Errorf("pending %v", ids(l.Data))
	}
	if l := decodeAs[list[relay.View]](b.get("/v1/challenges?status=all")); !slices.Equal(ids(l.Data), all) {
		t.Errorf("all %v", ids(l.Data))
	}
	other := b.token(jwt.MapClaims{"merchant": "other"})
	if l := decodeAs[list[relay.View]](b.call(request{method: "GET", path: "/v1/challenges?status=all", token: other})); len(l.Data) != 0 {
		t.Errorf("another merchant's user of the same id sees %v", ids(l.Data))
	}
}

func TestListParameters(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for query, field := range map[string]string{
		"status=open": "status", "status=Pending": "status", "limit=0": "limit", "limit=101": "limit", "limit=-1": "limit", "limit=x": "limit", "limit=1.5": "limit",
		"limit=99999999999999999999": "limit", "cursor=x": "cursor", "cursor=!!": "cursor", "cursor=AAAA": "cursor",
	} {
		a := b.get("/v1/challenges?"+query).problem(400, "invalid_request")
		if p := decodeAs[problem](a); p.Field != field || !strings.HasPrefix(p.Detail, field+": ") {
			t.Errorf("%s: %+v", query, p)
		}
	}
	b.get("/v1/challenges?limit=100").status(200)
}

func TestBodies(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	path := "/v1/challenges/" + b.challenge("acme", "CARD_3DS", nil)
	for _, c := range []struct{ action, body, field string }{
		{"approve", `{"reason":"not_me"}`, "reason"},
		{"approve", `{"shown":{"amount":"1","x":1}}`, "x"},
		{"approve", `{"shown":{"amount":100.20}}`, "shown.amount"},
		{"approve", `{"shown":"50"}`, "shown"},
		{"approve", `[]`, "body"},
		{"approve", `null`, "body"},
		{"approve", `"approve"`, "body"},
		{"approve", `{}{}`, "body"},
		{"approve", `{"shown":`, "body"},
		{"approve", "\x00", "body"},
		{"approve", `{"` + strings.Repeat("é", 100) + `":1}`, strings.Repeat("é", 32)},
		{"reject", `{"reason":"fraud"}`, "reason"},
		{"reject", `{"reason":""}`, "reason"},
		{"reject", `{"reason":1}`, "reason"},
		{"reject", `{"shown":{}}`, "shown"},
	} {
		a := b.post(path+"/"+c.action, c.body).problem(400, "invalid_request")
		if p := decodeAs[problem](a); p.Field != c.field || !strings.HasPrefix(p.Detail, c.field+": ") {
			t.Errorf("%s %s: %+v", c.action, c.body, p)
		}
	}
	b.post(path+"/approve", `{"shown":{}`+strings.Repeat(" ", 8<<10)+`}`).problem(413, "too_large")
	b.get(path).status(200)
	if v := decodeAs[relay.View](b.get(path)); v.Decision != nil {
		t.Errorf("a bad body decided: %+v", v)
	}
	for _, body := range []string{"", "  \n", "{}", `{"reason":null}`, `{"reason":"cancelled"}`} {
		id := b.challenge("acme", "CARD_3DS", nil)
		b.post("/v1/challenges/"+id+"/reject", body).status(200)
	}
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.challenge("acme", "CARD_3DS", nil)
	path := "/v1/challenges/" + id
	b.post(path+"/approve", `{"shown":{"amount":"100.21"}}`).problem(409, "shown_mismatch")
	b.post(path+"/approve", `{"shown":{"payee":"Sephora"}}`).problem(409, "shown_mismatch")
	b.post(path+"/reveal", "").problem(409, "wrong_method")
	b.post(path+"/done", "").problem(409, "wrong_method")
	first := b.post(path+"/approve", `{"shown":{"amount":"100.2","currency":"USD","payee":"Sephora Digital"}}`).status(200)
	if v := decodeAs[relay.View](first); v.Status != relay.Approved || v.Decision.Action != relay.Approve || v.Decision.Device != nil {
		t.Errorf("%s", first.Body)
	}
	again := b.post(path+"/approve", "").status(200)
	if string(again.Body) != string(first.Body) {
		t.Errorf("again %s\nfirst %s", again.Body, first.Body)
	}
	b.post(path+"/reject", "").problem(409, "already_decided")

	gone := b.challenge("acme", "CARD_3DS", nil)
	b.clock.Advance(5*time.Minute + time.Second)
	b.post("/v1/challenges/"+gone+"/approve", "").problem(409, "expired")
	b.post("/v1/challenges/"+gone+"/reject", "").problem(409, "expired")
	if v := decodeAs[relay.View](b.get("/v1/challenges/" + gone)); v.Status != relay.Expired {
		t.Errorf("%+v", v)
	}
	// Without issuer_api a decision ends at once.
	plain := b.challenge("other", "CARD_3DS", nil)
	a := b.call(request{method: "POST", path: "/v1/challenges/" + plain + "/approve", token: b.token(jwt.MapClaims{"merchant": "other"})}).status(200)
	if v := decodeAs[relay.View](a); v.Status != relay.Approved {
		t.Errorf("%+v", v)
	}
}

func TestIssuerRefuses(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.issuer.setAnswer(relay.Outcome{Verdict: relay.Refused, Attempt: relay.Attempt{StatusCode: 400}})
	v := decodeAs[relay.View](b.post("/v1/challenges/"+b.challenge("acme", "CARD_3DS", nil)+"/approve", "").status(200))
	if v.Status != relay.Failed || v.Failure.Code != relay.IssuerRefused {
		t.Errorf("%+v", v)
	}
}

// TestConfirmingThenDone: the answer does not wait for a slow issuer, the same
// decision again does not ask it again.
func TestConfirmingThenDone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	release := b.issuer.holdBack()
	defer release()
	path := "/v1/challenges/" + b.challenge("acme", "CARD_3DS", nil)
	st := b.stream(b.token())
	st.snapshot()
	if v := decodeAs[relay.View](b.post(path+"/approve", "").status(202)); v.Status != relay.Confirming {
		t.Errorf("%+v", v)
	}
	if l := decodeAs[list[relay.View]](b.get("/v1/challenges")); len(l.Data) != 1 || l.Data[0].Status != relay.Confirming {
		t.Errorf("pending does not include confirming: %+v", l)
	}
	b.post(path+"/reject", "").problem(409, "already_decided")
	release()
	for v := st.challenge(); v.Status != relay.Approved; v = st.challenge() {
		if v.Status.Final() {
			t.Fatalf("%+v", v)
		}
	}
	b.issuer.mu.Lock()
	defer b.issuer.mu.Unlock()
	if len(b.issuer.calls) != 1 || b.issuer.calls[0].Action != relay.Approve {
		t.Errorf("the issuer was told %+v", b.issuer.calls)
	}
}

func TestRevealAndDone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.challenge("acme", "CARD_3DS", map[string]any{"otp": "0q7Zk9P4"})
	path := "/v1/challenges/" + id
	b.post(path+"/approve", "").problem(409, "wrong_method")
	for range 2 {
		a := b.post(path+"/reveal", "").status(200)
		if string(a.Body) != `{"otp":"0q7Zk9P4"}` || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s, Cache-Control %q", a.Body, a.Header.Get("Cache-Control"))
		}
	}
	if v := decodeAs[relay.View](b.get(path)); v.RevealedAt == nil || v.Status != relay.Pending {
		t.Errorf("%+v", v)
	}
	if v := decodeAs[relay.View](b.post(path+"/done", "").status(200)); v.Status != relay.Completed {
		t.Errorf("%+v", v)
	}
	b.post(path+"/done", "").status(200)
	b.post(path+"/reveal", "").problem(409, "already_decided")

	link := b.challenge("acme", "CARD_VERIFICATION", map[string]any{"auth_url": "https://acs.example.com/c?a=1&b=<2>"})
	if got := decodeAs[map[string]string](b.post("/v1/challenges/"+link+"/reveal", "").status(200)); len(got) != 1 || got["action_url"] != "https://acs.example.com/c?a=1&b=<2>" {
		t.Errorf("%v", got)
	}
	if log := b.log.String(); strings.Contains(log, "0q7Zk9P4") || strings.Contains(log, "acs.example.com") {
		t.Error("a code or link is in the log")
	}
}

// TestStrangersSeeNothing: somebody else's challenge and none are one answer.
func TestStrangersSeeNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.challenge("acme", "CARD_3DS", map[string]any{"otp": "0q7Zk9P4"})
	unassigned := b.challenge("acme", "CARD_3DS", map[string]any{"user_id": nil, "card_id": "never seen"})
	stranger := b.token(jwt.MapClaims{"sub": "666"})
	foreign := b.token(jwt.MapClaims{"merchant": "other"})
	var first string
	for _, c := range []struct{ token, id string }{
		{stranger, id}, {foreign, id}, {b.token(), unassigned}, {b.token(), id[:len(id)-4] + "0000"}, {b.token(), "chl_x"}, {b.token(), "x"},
		{b.token(), strings.ToLower(id)}, {b.token(), "evt_" + id[4:]}, {b.token(), "%2e%2e%2f"}, {b.token(), id[:len(id)-2] + "ff"},
	} {
		for _, call := range []struct{ method, path string }{{"GET", ""}, {"POST", "/approve"}, {"POST", "/reject"}, {"POST", "/reveal"}, {"POST", "/done"}} {
			a := b.call(request{method: call.method, path: "/v1/challenges/" + c.id + call.path, token: c.token}).problem(404, "not_found")
			if first == "" {
				first = withoutRequestID(t, a)
			}
			if got := withoutRequestID(t, a); got != first && !strings.Contains(c.id, "%") {
				t.Errorf("%s %s: %s differs from %s", call.path, c.id, got, first)
			}
		}
	}
	if v := decodeAs[relay.View](b.get("/v1/challenges/" + id)); v.Status != relay.Pending || v.RevealedAt != nil {
		t.Errorf("%+v", v)
	}
}

func TestUserRateLimit(t *testing.T) {
	t.Parallel()
	b := newBed(t, func(o *Options) { o.UserLimit = Limit{PerSecond: 0.01, Burst: 2} })
	b.get("/v1/challenges").status(200)
	b.get("/v1/push/subscriptions").status(200)
	a := b.get("/v1/challenges").problem(429, "rate_limited")
	if a.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	b.call(request{method: "GET", path: "/v1/challenges", token: b.token(jwt.MapClaims{"sub": "666"})}).status(200)
	b.call(request{method: "GET", path: "/v1/challenges", token: b.token(jwt.MapClaims{"merchant": "other"})}).status(200)
	b.call(request{method: "GET", path: "/v1/challenges", header: http.Header{"Authorization": {"Bearer x"}}}).problem(401, "unauthorized")
}

func TestClientAddressBehindProxies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, trusted, want string
		forwarded           []string
	}{
		{"nobody is trusted", "", "127.0.0.1", []string{"203.0.113.9"}},
		{"a trusted proxy", "127.0.0.0/8", "203.0.113.9", []string{"203.0.113.9"}},
		{"what the client wrote before it", "127.0.0.0/8", "203.0.113.9", []string{"1.2.3.4, 203.0.113.9"}},
		{"in a header of its own", "127.0.0.0/8", "203.0.113.9", []string{"1.2.3.4", "203.0.113.9"}},
		{"nonsense", "127.0.0.0/8", "127.0.0.1", []string{"<script>"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, func(o *Options) { o.TrustedProxies = prefixes(c.trusted) })
			id := b.challenge("other", "CARD_3DS", nil)
			b.call(request{
				method: "POST", path: "/v1/challenges/" + id + "/approve", token: b.token(jwt.MapClaims{"merchant": "other"}),
				header: http.Header{"X-Forwarded-For": c.forwarded, "X-Real-Ip": {"6.6.6.6"}},
			}).status(200)
			ch, err := b.store.Challenge(t.Context(), id)
			must(t, err)
			if ch.Decision.Device.IP != c.want {
				t.Errorf("%q, want %q", ch.Decision.Device.IP, c.want)
			}
		})
	}
}
