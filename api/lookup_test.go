package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"approvalrelay/relay"
)

// eventually asks until cond holds: records are written beside the requests.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-limit.C:
			t.Fatalf("%s: not within %s", what, patience)
		case <-tick.C:
		}
	}
}

func (b *bed) events(query string) []relay.EventView {
	b.t.Helper()
	return decodeAs[list[relay.EventView]](b.ops("GET", "/ops/v1/events?"+query, "").status(200)).Data
}

func (b *bed) deliveries(query string) []relay.DeliveryView {
	b.t.Helper()
	return decodeAs[list[relay.DeliveryView]](b.ops("GET", "/ops/v1/deliveries?"+query, "").status(200)).Data
}

// TestEveryWebhookIsAccountedFor: what came, also what was refused, with its
// outcome, and without code or card number.
func TestEveryWebhookIsAccountedFor(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	id := b.challenge("acme", "CARD_3DS", map[string]any{"card_number": "4111111111111111", "otp": "045435", "amount": nil, "currency": nil})
	plain := b.envelope("CARD_STATUS_CHANGE", payload(map[string]any{"card_number": "4111111111111111"}))
	first := decodeAs[receipt](b.webhook("acme", plain).status(200))
	b.webhook("acme", plain).status(200)
	odd := decodeAs[receipt](b.webhook("acme", b.envelopeOf("CARD_STATUS_CHANGE", []byte(`[1]`))).status(200))
	b.webhook("acme", strings.Replace(plain, `"hmac":"`, `"hmac":"00`, 1)).problem(401, "invalid_signature")
	b.webhook("nobody", plain).problem(404, "unknown_merchant")

	eventually(t, "all are recorded", func() bool { return len(b.events("")) == 6 })
	byOutcome := map[relay.EventOutcome][]relay.EventView{}
	for _, e := range b.events("") {
		byOutcome[e.Outcome] = append(byOutcome[e.Outcome], e)
	}
	one := func(o relay.EventOutcome) relay.EventView {
		t.Helper()
		if len(byOutcome[o]) != 1 {
			t.Fatalf("%d records of %s", len(byOutcome[o]), o)
		}
		return byOutcome[o][0]
	}
	if e := one(relay.OutcomeChallenge); *e.ChallengeID != id || e.Payload["otp"] != "[removed]" || e.Payload["card_number"] != "····1111" || *e.UserID != "12345" {
		t.Errorf("%+v", e)
	}
	if e := one(relay.OutcomeForwarded); e.ID != first.EventID || e.Payload["card_number"] != "····1111" {
		t.Errorf("%+v", e)
	}
	if e := one(relay.OutcomeDuplicate); !strings.Contains(*e.Reason, first.EventID) || e.Type != "CARD_STATUS_CHANGE" || e.Payload != nil {
		t.Errorf("%+v", e)
	}
	if e := one(relay.OutcomeQuarantined); e.ID != odd.EventID || e.Reason == nil || e.Payload != nil {
		t.Errorf("%+v", e)
	}
	refused := byOutcome[relay.OutcomeRefused]
	if len(refused) != 2 {
		t.Fatalf("%+v", refused)
	}
	for _, e := range refused {
		if *e.RemoteIP != "127.0.0.1" || (*e.Reason != "invalid_signature" && *e.Reason != "unknown_merchant") {
			t.Errorf("%+v", e)
		}
		if got := decodeAs[relay.EventView](b.ops("GET", "/ops/v1/events/"+e.ID, "").status(200)); *got.Reason != *e.Reason {
			t.Errorf("by id: %+v", got)
		}
	}
	for query, want := range map[string]int{
		"type=CARD_3DS": 1, "outcome=refused": 2, "card_id=67890": 3, "user_id=12345": 3, "card_id=67890&user_id=nobody": 0,
		"merchant=other": 0, "since=2000-01-01T00:00:00Z": 6, "until=2000-01-01T00:00:00Z": 0, "type=CARD_STATUS_CHANGE&outcome=duplicate": 1,
	} {
		if got := b.events(query); len(got) != want {
			t.Errorf("%s: %d events, want %d: %+v", query, len(got), want, got)
		}
	}
	for query, field := range map[string]string{
		"outcome=odd": "outcome", "limit=0": "limit", "limit=101": "limit", "since=now": "since", "until=1": "until", "cursor=!": "cursor",
	} {
		a := b.ops("GET", "/ops/v1/events?"+query, "").problem(400, "invalid_request")
		if !strings.Contains(string(a.Body), `"field":"`+field+`"`) {
			t.Errorf("%s: %s", query, a.Body)
		}
	}
	b.ops("GET", "/ops/v1/events?merchant=nobody", "").problem(404, "unknown_merchant")
	page := decodeAs[list[relay.EventView]](b.ops("GET", "/ops/v1/events?limit=4", "").status(200))
	rest := decodeAs[list[relay.EventView]](b.ops("GET", "/ops/v1/events?limit=4&cursor="+*page.Next, "").status(200))
	if len(page.Data) != 4 || len(rest.Data) != 2 || rest.Next != nil {
		t.Errorf("%d and %d events on two pages", len(page.Data), len(rest.Data))
	}
	if log := b.log.String(); strings.Contains(log, "045435") || strings.Contains(log, "4111111111111111") {
		t.Error("a code or a card number stands in the log")
	}
}

// TestTimelineOfAChallenge: from the webhook to the issuer's answer, with why
// nobody was rung.
func TestTimelineOfAChallenge(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	sub := b.phone(endpoint)
	id := b.challenge("acme", "CARD_3DS", nil)
	b.actionToken(id)
	b.post("/v1/challenges/"+id+"/approve", "").status(200)
	read := func(id string) (what []string, all relay.Timeline) {
		all = decodeAs[relay.Timeline](b.ops("GET", "/ops/v1/challenges/"+id+"/timeline", "").status(200))
		for _, e := range all.Entries {
			what = append(what, e.What)
		}
		return what, all
	}
	eventually(t, "all is told", func() bool {
		what, _ := read(id)
		return slices.Contains(what, "confirm") && slices.Contains(what, "end")
	})
	what, all := read(id)
	what = slices.DeleteFunc(what, func(w string) bool { return w == "follow_up" }) // which comes when it comes
	if !slices.Equal(what, []string{"webhook", "announced", "push", "decision", "confirm", "end"}) {
		t.Errorf("the timeline is %q: %+v", what, all.Entries)
	}
	if all.Challenge.Status != relay.Approved || all.Challenge.UserID != "12345" || all.Event == nil || *all.Event.ChallengeID != id {
		t.Errorf("%+v", all)
	}
	kinds := map[relay.Kind]int{}
	for _, d := range b.deliveries("event_id=" + id) {
		kinds[d.Kind]++
	}
	if kinds[relay.KindPush] < 1 || kinds[relay.KindConfirm] != 1 {
		t.Errorf("the challenge has caused %v", kinds)
	}
	if got := b.deliveries("kind=push&target=" + sub); len(got) < 1 || *got[0].Target != sub {
		t.Errorf("pushes to the device: %+v", got)
	}
	silent := b.challenge("other", "CARD_3DS", map[string]any{"user_id": "nobody", "card_id": "1"})
	eventually(t, "it is announced", func() bool { what, _ := read(silent); return slices.Contains(what, "announced") })
	if _, all := read(silent); !strings.Contains(fmt.Sprint(all.Entries), "the cardholder has no active device") {
		t.Errorf("why nobody was rung: %+v", all.Entries)
	}
	b.ops("GET", "/ops/v1/challenges/chl_x/timeline", "").problem(404, "not_found")
	got := decodeAs[list[relay.View]](b.ops("GET", "/ops/v1/challenges?status=approved", "").status(200)).Data
	if len(got) != 1 || got[0].ID != id {
		t.Errorf("approved are %+v", got)
	}
	b.ops("GET", "/ops/v1/challenges?user_id=12345", "").problem(400, "invalid_request") // of which merchant?
	if got := decodeAs[list[relay.View]](b.ops("GET", "/ops/v1/challenges?merchant=acme&user_id=12345", "").status(200)).Data; len(got) != 1 {
		t.Errorf("the user's are %+v", got)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.challenge("acme", "CARD_3DS", nil)
	st := decodeAs[relay.Stats](b.ops("GET", "/ops/v1/stats", "").status(200))
	if st.Challenges[relay.Pending] != 1 || st.Events[relay.OutcomeChallenge] != 1 || len(st.Lanes) != 5 || len(st.Targets) != 1 || st.Targets[0].Name != "core" {
		t.Errorf("%+v", st)
	}
	b.ops("POST", "/ops/v1/targets/core/pause", "").status(200)
	if st := decodeAs[relay.Stats](b.ops("GET", "/ops/v1/stats", "").status(200)); st.Targets[0].Status != "paused" || st.Targets[0].Reason == nil {
		t.Errorf("%+v", st.Targets)
	}
}

// TestImportOfCards: line by line, and what is wrong is told with its line.
func TestImportOfCards(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const many = 2500
	var file bytes.Buffer
	for n := range many {
		fmt.Fprintf(&file, `{"card_id":"card-%d","user_id":"user-%d"}`+"\n", n, n%10)
	}
	file.WriteString("\n{\"card_id\":\"\",\"user_id\":\"x\"}\nrubbish\n{\"card_id\":\"a\",\"user_id\":\"b\",\"more\":1}\n")
	a := b.ops("POST", "/ops/v1/merchants/acme/cards:import", file.String()).status(200)
	lines := strings.Split(strings.TrimSpace(string(a.Body)), "\n")
	var last importProgress
	must(t, json.Unmarshal([]byte(lines[len(lines)-1]), &last))
	if len(lines) != 3 || !last.Done || last.Imported != many || last.Refused != 3 || len(last.Errors) != 3 {
		t.Errorf("%d lines, the last %+v", len(lines), last)
	}
	at := map[int]bool{}
	for _, e := range last.Errors {
		at[e.Line] = true
	}
	if !at[many+2] || !at[many+3] || !at[many+4] {
		t.Errorf("%+v", last.Errors)
	}
	cards := decodeAs[list[cardView]](b.ops("GET", "/ops/v1/merchants/acme/users/user-3/cards", "").status(200)).Data
	if len(cards) != many/10 || cards[0].AssignedBy != "operator" {
		t.Errorf("%d cards", len(cards))
	}
	b.ops("POST", "/ops/v1/merchants/nobody/cards:import", "{}").problem(404, "unknown_merchant")
	b.ops("POST", "/ops/v1/merchants/acme/other", "{}").problem(404, "not_found")
	long := b.ops("POST", "/ops/v1/merchants/acme/cards:import", strings.Repeat("x", maxImportLine+1)).problem(400, "invalid_request")
	if !strings.Contains(string(long.Body), "4096 bytes") {
		t.Errorf("%s", long.Body)
	}
	must(t, b.store.Close())
	b.ops("POST", "/ops/v1/merchants/acme/cards:import", `{"card_id":"a","user_id":"b"}`).problem(503, "store_unavailable")
}

// TestErase: nothing is left of a cardholder, and what waits is withdrawn first.
func TestErase(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.phone(endpoint)
	id := b.challenge("acme", "CARD_3DS", nil)
	b.actionToken(id)
	b.webhook("acme", b.envelope("CARD_STATUS_CHANGE", payload(nil))).status(200)
	b.ops("DELETE", "/ops/v1/merchants/acme/users/12345", "").status(http.StatusNoContent)
	b.ops("GET", "/ops/v1/challenges/"+id, "").problem(404, "not_found")
	b.ops("GET", "/ops/v1/merchants/acme/cards/67890", "").problem(404, "not_found")
	for path, n := range map[string]int{
		"/ops/v1/events?user_id=12345":                           len(b.events("user_id=12345")),
		"/ops/v1/merchants/acme/users/12345/cards":               len(decodeAs[list[cardView]](b.ops("GET", "/ops/v1/merchants/acme/users/12345/cards", "").status(200)).Data),
		"/ops/v1/merchants/acme/users/12345/subscriptions":       len(decodeAs[list[subscriptionView]](b.ops("GET", "/ops/v1/merchants/acme/users/12345/subscriptions", "").status(200)).Data),
		"/ops/v1/challenges?merchant=acme&user_id=12345&limit=9": len(decodeAs[list[relay.View]](b.ops("GET", "/ops/v1/challenges?merchant=acme&user_id=12345", "").status(200)).Data),
	} {
		if n != 0 {
			t.Errorf("%s still has %d", path, n)
		}
	}
	b.ops("DELETE", "/ops/v1/merchants/acme/users/12345", "").status(http.StatusNoContent) // again
}
