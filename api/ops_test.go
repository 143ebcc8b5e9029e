package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"approvalrelay/relay"
)

func TestAdminHostAndOrigin(t *testing.T) {
	t.Parallel()
	b := newBed(t, func(o *Options) {
		o.AdminHosts = []string{"ops.example.com:9090", "127.0.0.1:9090", "0.0.0.0", "[::]:9090", "RELAY.example.com", ""}
	})
	address := b.admin.Listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	for _, c := range []struct {
		host, origin string
		good         bool
	}{
		{address, "", true},
		{"localhost:" + port, "", true},
		{"LOCALHOST", "", true},
		{"[::1]:" + port, "", true},
		{"127.9.9.9", "", true},
		{"ops.example.com", "", true},
		{"OPS.example.com:443", "", true},
		{"relay.example.com", "", true},
		{"evil.example.com", "", false},
		{"localhost.evil.com", "", false},
		{"127.0.0.1.evil.com", "", false},
		{"0.0.0.0:" + port, "", false},
		{"[::]:" + port, "", false},
		{"192.0.2.1", "", false},
		{"ops.example.com.", "", false},
		{"localhost.:" + port, "", false},
		{"127.0.0.1.", "", false},
		{"[::1].evil.com", "", false},
		{"[::1].evil.com:" + port, "", false},
		{"evil.com:" + port, "", false},
		{"localhost.localdomain", "", false},
		{"xlocalhost", "", false},
		{"127.1", "", false},
		{"2130706433", "", false},
		{"0x7f000001", "", false},
		{"evil.com#localhost", "", false},
		{"ops.example.com.evil.com", "", false},
		{address, "http://" + address, true},
		{address, "http://localhost:" + port, true},
		{"ops.example.com", "https://ops.example.com", true},
		{address, "https://ops.example.com", true}, // a proxy that changes the Host
		{address, "http://localhost:1", false},
		{address, "http://127.0.0.1:1", false}, // the listener's name, but another program's page
		{"localhost:" + port, "http://localhost", false},
		{address, "https://evil.example.com", false},
		{address, "null", false},
		{address, "", true},
		{address, "garbage", false},
		{address, "http://" + address + ".evil.com", false},
		{address, "https://ops.example.com.", false},
		{address, "https://ops.example.com@evil.com", false},
		{address, "http://[::1].evil.com:" + port, false},
		{address, "file://", false},
	} {
		header := http.Header{"Host": {c.host}}
		if c.origin != "" {
			header.Set("Origin", c.origin)
		}
		for _, path := range []string{"/healthz", "/ops/v1/deliveries/x", "/nowhere"} {
			a := send(t, b.admin, request{method: "GET", path: path, token: testAdmin, header: header}, false)
			if c.good == (a.Status == 403) {
				t.Errorf("%s under %s from %q: %d", path, c.host, c.origin, a.Status)
			}
			if !c.good {
				a.problem(403, "forbidden")
			}
		}
	}
	if len(b.lines("request under a foreign Host or Origin refused")) == 0 {
		t.Error("no refusal is logged")
	}
	two := http.Header{"Host": {address}, "Origin": {"http://" + address, "http://" + address}}
	send(t, b.admin, request{method: "GET", path: "/healthz", header: two}, false).problem(403, "forbidden")
}

// TestAdminByItsOwnAddress: probes come to the machine's address, which is no
// loopback one; no other address is taken.
func TestAdminByItsOwnAddress(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for host, want := range map[string]int{"10.1.2.3:9090": 200, "10.1.2.4:9090": 403, "10.1.2.3.evil.com": 403} {
		r := httptest.NewRequest("GET", "/healthz", nil)
		r.Host = host
		local := &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 9090}
		r = r.WithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, net.Addr(local)))
		w := httptest.NewRecorder()
		b.server.Admin().ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", host, w.Code, want)
		}
	}
}

func TestAdminToken(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const path = "/ops/v1/merchants/acme/users/12345/subscriptions"
	for name, values := range map[string][]string{
		"none": nil, "wrong": {"Bearer x"}, "a prefix": {"Bearer " + testAdmin[:5]}, "longer": {"Bearer " + testAdmin + "x"}, "Basic": {"Basic " + testAdmin},
		"two": {"Bearer " + testAdmin, "Bearer " + testAdmin}, "a cardholder's": {"Bearer " + b.token()}, "empty": {"Bearer "},
	} {
		a := send(t, b.admin, request{method: "GET", path: path, header: http.Header{"Authorization": values}}, false)
		a.problem(401, "unauthorized")
		if a.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: no challenge", name)
		}
	}
	b.ops("GET", path, "").status(200)
	for _, open := range []string{"/healthz", "/readyz"} {
		send(t, b.admin, request{method: "GET", path: open}, false).status(200)
	}
}

// TestAdminWithoutToken: without a token only this machine is let in.
func TestAdminWithoutToken(t *testing.T) {
	t.Parallel()
	b := newBed(t, func(o *Options) { o.AdminToken = nil })
	for remote, want := range map[string]int{"127.0.0.1:5": 404, "[::1]:5": 404, "10.0.0.1:5": 401, "@": 401} {
		r := httptest.NewRequest("GET", "/ops/v1/deliveries/x", nil)
		r.Host, r.RemoteAddr = "localhost", remote
		r.Header.Set("X-Forwarded-For", "127.0.0.1")
		w := httptest.NewRecorder()
		b.server.Admin().ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", remote, w.Code, want)
		}
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	notReady := errors.New("no worker is running")
	var state error
	b := newBed(t, func(o *Options) {
		o.Ready = func(context.Context) error { return state }
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "relay_up 1\n") })
	})
	probe := func(path string) answer { return send(t, b.admin, request{method: "GET", path: path}, false) }
	if got := string(probe("/healthz").status(200).Body); got != `{"status":"ok"}` {
		t.Errorf("%s", got)
	}
	if got := string(probe("/readyz").status(200).Body); got != `{"status":"ok"}` {
		t.Errorf("%s", got)
	}
	if got := string(probe("/metrics").status(200).Body); got != "relay_up 1\n" {
		t.Errorf("%s", got)
	}
	state = notReady
	if got := string(probe("/readyz").status(503).Body); got != `{"status":"unavailable","reason":"no worker is running"}` {
		t.Errorf("%s", got)
	}
	plain := newBed(t) // asks the store, and has no metrics
	send(t, plain.admin, request{method: "GET", path: "/readyz"}, false).status(200)
	send(t, plain.admin, request{method: "GET", path: "/metrics"}, false).problem(404, "not_found")
	must(t, plain.store.Close())
	send(t, plain.admin, request{method: "GET", path: "/readyz"}, false).status(503)
	send(t, plain.admin, request{method: "GET", path: "/healthz"}, false).status(200)
	plain.ops("GET", "/ops/v1/deliveries/dlv_01J8ZQ5X4N8K3T0V7B2M6C9R1D00", "").problem(503, "store_unavailable")
}

func TestCardOwners(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const path = "/ops/v1/merchants/acme/cards/"
	b.ops("GET", path+"111", "").problem(404, "not_found")
	waiting := b.challenge("acme", "CARD_3DS", map[string]any{"card_id": "111", "user_id": nil})
	st := b.stream(b.token())
	st.snapshot()
	v := decodeAs[cardView](b.ops("PUT", path+"111", `{"user_id":"12345"}`).status(200))
	if v.Merchant != "acme" || v.CardID != "111" || v.UserID != "12345" || v.AssignedBy != "operator" || v.AssignedAt.IsZero() {
		t.Errorf("%+v", v)
	}
	if got := decodeAs[cardView](b.ops("GET", path+"111", "").status(200)); got != v {
		t.Errorf("%+v", got)
	}
	if got := st.challenge(); got.ID != waiting { // adopted by its owner
		t.Errorf("%+v", got)
	}
	// The operator's word wins over what events teach, until it is taken back.
	b.challenge("acme", "CARD_3DS", map[string]any{"card_id": "111", "user_id": "666"})
	if got := decodeAs[cardView](b.ops("GET", path+"111", "")); got.UserID != "12345" {
		t.Errorf("%+v", got)
	}
	b.ops("DELETE", path+"111", "").status(204)
	b.ops("DELETE", path+"111", "").status(204)
	b.ops("GET", path+"111", "").problem(404, "not_found")
	b.challenge("acme", "CARD_3DS", map[string]any{"card_id": "111", "user_id": "666"})
	if got := decodeAs[cardView](b.ops("GET", path+"111", "")); got.UserID != "666" || got.AssignedBy != "event" {
		t.Errorf("%+v", got)
	}

	// A card number becomes its token, the same that events get.
	b.challenge("acme", "CARD_3DS", map[string]any{"card_id": "4111111111111111", "user_id": "777"})
	got := b.ops("GET", path+"4111-1111-1111-1111", "").status(200)
	if v := decodeAs[cardView](got); !strings.HasPrefix(v.CardID, "pan_") || v.UserID != "777" {
		t.Errorf("%s", got.Body)
	}
	// Its beginning in any form; four digits alone stand in times and ports.
	for _, pan := range []string{"41111111", "4111-1111", "4111%2D1111"} {
		if strings.Contains(b.log.String(), pan) {
			t.Errorf("the log has %s", pan)
		}
	}
	if v := decodeAs[cardView](b.ops("PUT", path+"a%2Fb%20c", `{"user_id":"1"}`).status(200)); v.CardID != "a/b c" {
		t.Errorf("%+v", v)
	}
	b.ops("GET", "/ops/v1/merchants/nobody/cards/1", "").problem(404, "unknown_merchant")
	for body, field := range map[string]string{`{}`: "user_id", ``: "user_id", `{"user_id":5}`: "user_id", `{"user_id":"a\nb"}`: "user_id", `{"user_id":"1","x":1}`: "x"} {
		if p := decodeAs[problem](b.ops("PUT", path+"1", body).problem(400, "invalid_request")); p.Field != field {
			t.Errorf("%s: %+v", body, p)
		}
	}
	for _, card := range []string{"4111********1111", "%0A", strings.Repeat("x", 257)} {
		if p := decodeAs[problem](b.ops("PUT", path+card, `{"user_id":"1"}`).problem(400, "invalid_request")); p.Field != "card_id" {
			t.Errorf("%s: %+v", card, p)
		}
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.challenge("acme", "CARD_3DS", nil)
	for range 2 {
		v := decodeAs[relay.View](b.ops("POST", "/ops/v1/challenges/"+id+"/cancel", "").status(200))
		if v.Status != relay.Cancelled || v.UserID != "12345" || v.Merchant != "acme" {
			t.Errorf("%+v", v)
		}
	}
	b.post("/v1/challenges/"+id+"/approve", "").problem(409, "cancelled")
	decided := b.challenge("acme", "CARD_3DS", nil)
	b.post("/v1/challenges/"+decided+"/approve", "").status(200)
	b.ops("POST", "/ops/v1/challenges/"+decided+"/cancel", "").problem(409, "already_decided")
	b.ops("POST", "/ops/v1/challenges/chl_x/cancel", "").problem(404, "not_found")
}

func TestLostPhone(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.phone("https://fcm.googleapis.com/fcm/send/lost")
	id := b.challenge("acme", "CARD_3DS", nil)
	token := b.actionToken(id)
	const path = "/ops/v1/merchants/acme/users/12345/subscriptions"
	l := decodeAs[list[subscriptionView]](b.ops("GET", path, "").status(200))
	if len(l.Data) != 1 || l.Data[0].Status != "active" {
		t.Errorf("%+v", l)
	}
	b.ops("DELETE", path, "").status(204)
	b.ops("DELETE", path, "").status(204)
	if l := decodeAs[list[subscriptionView]](b.ops("GET", path, "").status(200)); len(l.Data) != 0 {
		t.Errorf("%+v", l)
	}
	b.call(request{method: "POST", path: "/v1/challenges/" + id + "/approve", token: token}).problem(401, "unauthorized")
	b.ops("GET", "/ops/v1/merchants/nobody/users/1/subscriptions", "").problem(404, "unknown_merchant")
	b.ops("DELETE", "/ops/v1/merchants/acme/users/%0A/subscriptions", "").problem(400, "invalid_request")
}

// TestDeadLetters: what a target refused for good is shown with its attempts, and
// goes out again when it is replayed.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.targets.setRefuse(true)
	for range 3 {
		b.webhook("acme", b.envelope("CARD_STATUS_CHANGE", payload(nil))).status(200)
		<-b.targets.got
	}
	dead := b.dead(3)
	v := decodeAs[relay.DeliveryView](b.ops("GET", "/ops/v1/deliveries/"+dead[0], "").status(200))
	if v.Kind != relay.KindForward || *v.Target != "core" || v.Status != relay.DeliveryDead || v.NextAttempt != nil || v.ChallengeID != nil || len(v.Attempts) != 1 ||
		*v.Attempts[0].StatusCode != 400 || *v.Attempts[0].Error == "" || *v.Attempts[0].Response != "no" {
		t.Errorf("%+v", v)
	}
	b.targets.setRefuse(false)
	b.ops("POST", "/ops/v1/deliveries/"+dead[0]+"/replay", "").status(202)
	if m := <-b.targets.got; m.EventID != *v.EventID {
		t.Errorf("%+v", m)
	}
	b.dead(2)
	b.ops("POST", "/ops/v1/deliveries/"+dead[0]+"/replay", "").problem(404, "not_found")
	b.ops("POST", "/ops/v1/deliveries/x/replay", "").problem(404, "not_found")
	b.ops("GET", "/ops/v1/deliveries/x", "").problem(404, "not_found")
	b.ops("POST", "/ops/v1/deadletters/replay?target=nobody", "").problem(404, "not_found")
	if got := string(b.ops("POST", "/ops/v1/deadletters/replay?target=core", "").status(202).Body); got != `{"replayed":2}` {
		t.Errorf("%s", got)
	}
	<-b.targets.got
	<-b.targets.got
	if got := string(b.ops("POST", "/ops/v1/deadletters/replay", "").status(202).Body); got != `{"replayed":0}` {
		t.Errorf("%s", got)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	sent := decodeAs[receipt](b.webhook("acme", b.envelope("CARD_ACTIVATE_RESULT", payload(map[string]any{"card_number": "4111111111111111"}))).status(200))
	if m := <-b.targets.got; m.EventID != sent.EventID {
		t.Fatalf("%+v", m)
	}
	record := b.ops("GET", "/ops/v1/events/"+sent.EventID, "").status(200)
	if v := decodeAs[relay.EventView](record); v.Outcome != relay.OutcomeForwarded || v.Payload["amount"] != "100.20" || strings.Contains(string(record.Body), "4111111111111111") {
		t.Errorf("%s", record.Body)
	}
	if again := decodeAs[receipt](b.ops("POST", "/ops/v1/events/"+sent.EventID+"/replay", "").status(200)); again != (receipt{relay.Accepted, sent.EventID}) {
		t.Errorf("%+v", again)
	}
	if m := <-b.targets.got; m.EventID != sent.EventID {
		t.Errorf("%+v", m)
	}
	odd := decodeAs[receipt](b.webhook("acme", b.envelope("CARD_3DS", payload(map[string]any{"amount": nil}))).status(200))
	if v := decodeAs[relay.EventView](b.ops("GET", "/ops/v1/events/"+odd.EventID, "").status(200)); v.Outcome != relay.OutcomeQuarantined || v.Payload != nil || len(v.Fields) == 0 {
		t.Errorf("%+v", v)
	}
	if again := decodeAs[receipt](b.ops("POST", "/ops/v1/events/"+odd.EventID+"/replay", "").status(200)); again.Status != relay.Quarantined {
		t.Errorf("%+v", again)
	}
	challenge := b.challenge("acme", "CARD_3DS", nil)
	b.ops("POST", "/ops/v1/events/evt_"+challenge[4:]+"/replay", "").problem(400, "invalid_request")
	b.ops("GET", "/ops/v1/events/x", "").problem(404, "not_found")
	b.ops("POST", "/ops/v1/events/x/replay", "").problem(404, "not_found")
}

// dead waits until there are n dead letters, and returns their ids.
func (b *bed) dead(n int) []string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	for {
		var found []string
		for p := range b.store.Partitions() {
			list, err := b.store.DeadLetters(ctx, p, 100)
			must(b.t, err)
			for _, d := range list {
				found = append(found, d.ID)
			}
		}
		if len(found) == n {
			return found
		}
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	if got := string(b.ops("POST", "/ops/v1/targets/core/pause", "").status(200).Body); got != `{"name":"core","status":"paused"}` {
		t.Errorf("%s", got)
	}
	parked, err := b.store.Parked(t.Context())
	must(t, err)
	if parked["core"] != "paused by the operator" {
		t.Errorf("%v", parked)
	}
	if got := string(b.ops("POST", "/ops/v1/targets/core/resume", "").status(200).Body); got != `{"name":"core","status":"active"}` {
		t.Errorf("%s", got)
	}
	parked, err = b.store.Parked(t.Context())
	must(t, err)
	if len(parked) != 0 {
		t.Errorf("%v", parked)
	}
	b.ops("POST", "/ops/v1/targets/nobody/pause", "").problem(404, "not_found")
	b.ops("POST", "/ops/v1/targets/nobody/resume", "").problem(404, "not_found")
}
