package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// lines are the log's with a message.
func (b *bed) lines(msg string) []map[string]any {
	b.t.Helper()
	var found []map[string]any
	for text := range strings.Lines(b.log.String()) {
		var line map[string]any
		must(b.t, json.Unmarshal([]byte(text), &line))
		if line["msg"] == msg {
			found = append(found, line)
		}
	}
	return found
}

func TestLogLevel(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const path = "/ops/v1/log"
	if got := string(b.ops("GET", path, "").status(200).Body); got != `{"level":"debug"}` {
		t.Errorf("%s", got)
	}
	debugged := func() int {
		b.webhook("acme", b.envelope("CARD_STATUS_CHANGE", payload(nil))).status(200)
		return len(b.lines("request"))
	}
	before := debugged()
	if before == 0 {
		t.Fatal("requests are not logged at debug")
	}
	if got := string(b.ops("PUT", path, `{"level":"error"}`).status(200).Body); got != `{"level":"error"}` {
		t.Errorf("%s", got)
	}
	quiet := len(b.lines("request"))
	if got := debugged(); got != quiet || got > before+1 {
		t.Errorf("%d requests are logged at error, %d before", got, before)
	}
	if got := string(b.ops("GET", path, "").status(200).Body); got != `{"level":"error"}` {
		t.Errorf("%s", got)
	}
	b.ops("PUT", path, `{"level":"debug"}`).status(200)
	if got := debugged(); got <= quiet {
		t.Errorf("still %d requests are logged", got)
	}
	changes := b.lines("log level changed")
	if len(changes) != 2 || changes[0]["from"] != "debug" || changes[0]["to"] != "error" || changes[1]["from"] != "error" || changes[1]["to"] != "debug" {
		t.Errorf("%v", changes)
	}
	for _, body := range []string{"", `{"level":""}`, `{"level":"INFO"}`, `{"level":"trace"}`, `{"level":"info+1"}`, `{"level":4}`} {
		p := decodeAs[problem](b.ops("PUT", path, body).problem(400, "invalid_request"))
		if p.Field != "level" || !strings.Contains(body, "4") && !strings.Contains(p.Detail, "debug, info, warn or error") {
			t.Errorf("%s: %+v", body, p)
		}
	}
	if got := string(b.ops("GET", path, "").Body); got != `{"level":"debug"}` {
		t.Errorf("a refused level holds: %s", got)
	}
}

// TestOperatorActions: what changes something has one line that says who did what.
func TestOperatorActions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.challenge("acme", "CARD_3DS", nil)
	act := func(method, path, body string, operator ...string) {
		t.Helper()
		send(t, b.admin, request{method: method, path: path, token: testAdmin, body: body, header: http.Header{"X-Operator": operator, "X-Request-Id": {"req-7"}}}, false)
	}
	act("POST", "/ops/v1/challenges/"+id+"/cancel", "", "Zoë of team A")
	act("PUT", "/ops/v1/merchants/acme/cards/4111-1111-1111-1111", `{"user_id":"12345"}`, strings.Repeat("x", 65))
	act("POST", "/ops/v1/deadletters/replay?target=core&secret=hush", "", "a", "b")
	act("DELETE", "/ops/v1/merchants/nobody/cards/1", "", "tab\there")
	act("GET", "/ops/v1/challenges/"+id, "", "reader")
	send(t, b.admin, request{method: "POST", path: "/ops/v1/challenges/" + id + "/cancel"}, false).problem(401, "unauthorized")

	type on = map[string]any
	want := []struct {
		action   string
		on       on
		status   float64
		operator any
	}{
		{"POST /ops/v1/challenges/:id/cancel", on{"id": id}, 200, "Zoë of team A"},
		{"PUT /ops/v1/merchants/:merchant/cards/:card", on{"merchant": "acme", "card": "····1111"}, 200, nil},
		{"POST /ops/v1/deadletters/replay", on{"target": "core"}, 202, nil},
		{"DELETE /ops/v1/merchants/:merchant/cards/:card", on{"merchant": "nobody", "card": "1"}, 404, nil},
	}
	got := b.lines("operator action")
	if len(got) != len(want) {
		t.Fatalf("%d lines: %v", len(got), got)
	}
	for i, w := range want {
		l := got[i]
		if l["action"] != w.action || l["status"] != w.status || l["operator"] != w.operator || l["remote_ip"] != "127.0.0.1" || l["request_id"] != "req-7" || l["level"] != "INFO" {
			t.Errorf("%v, want %+v", l, w)
		}
		if got, _ := l["on"].(on); len(got) != len(w.on) {
			t.Errorf("%v is on %v, want %v", l, got, w.on)
		}
		for k, v := range w.on {
			if got, _ := l["on"].(on); got[k] != v {
				t.Errorf("%v is on %v, want %v", l, got, w.on)
			}
		}
	}
	for _, secret := range []string{"4111-1111", "41111111", "hush", "reader", testAdmin} {
		if strings.Contains(b.log.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

// TestRefusedIsLogged: with the id of its record.
func TestRefusedIsLogged(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.webhook("acme", strings.Replace(b.envelope("CARD_3DS", payload(nil)), `"hmac":"`, `"hmac":"00`, 1)).problem(401, "invalid_signature")
	l := b.lines("webhook refused")
	if len(l) != 1 || l[0]["merchant"] != "acme" || l[0]["type"] != "CARD_3DS" || l[0]["code"] != "invalid_signature" || l[0]["level"] != "WARN" ||
		l[0]["remote_ip"] != "127.0.0.1" || l[0]["request_id"] == nil {
		t.Fatalf("%v", l)
	}
	giveUp := time.Now().Add(patience)
	for b.ops("GET", "/ops/v1/events/"+l[0]["event_id"].(string), "").Status != 200 { // it is written beside the request
		if time.Now().After(giveUp) {
			t.Fatal("there is no such record")
		}
	}
}
