package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"approvalrelay/cmd/relay/sim"
)

// wiretap sees what the relay and the issuer say to each other, and can be asked
// for it as the body of a webhook: both directions have one key.
type wiretap struct {
	mu   sync.Mutex
	seen []map[string]string // encrypted_payload and hmac
}

func (w *wiretap) in(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		call, reply := map[string]string{}, map[string]string{}
		_ = json.Unmarshal(body, &call)
		call["hmac"] = r.Header.Get("X-HMAC")
		_ = json.Unmarshal(answer.Body.Bytes(), &reply)
		w.mu.Lock()
		w.seen = append(w.seen, call, reply)
		w.mu.Unlock()
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(answer.Code)
		_, _ = rw.Write(answer.Body.Bytes())
	})
}

func (w *wiretap) as(t *testing.T, typ string) (bodies []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.seen {
		body, err := json.Marshal(map[string]string{"encrypted_payload": s["encrypted_payload"], "hmac": s["hmac"], "type": typ})
		if err != nil || s["encrypted_payload"] == "" || s["hmac"] == "" {
			t.Fatalf("%v in %v", err, s)
		}
		bodies = append(bodies, string(body))
	}
	return bodies
}

// TestReplayAndConfusion: whoever has seen envelopes and cannot make any gets
// nothing to happen twice, and no phone to ring for what is past.
func TestReplayAndConfusion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tap := &wiretap{}
	issuer := httptest.NewServer(tap.in(w.issuer))
	t.Cleanup(issuer.Close)
	const betaSecret = "fedcba9876543210fedcba9876543210"
	at := strings.Index(w.yaml, "      base_url: ")
	end := at + strings.Index(w.yaml[at:], "\n")
	w.yaml = w.yaml[:at] + fmt.Sprintf("      base_url: %q", issuer.URL) + w.yaml[end:]
	w.yaml = strings.Replace(w.yaml, "\nauth: {jwt: {", fmt.Sprintf("\n  beta: {secrets: [{value: %q}]}\nauth: {jwt: {merchant_claim: merchant, ", betaSecret), 1)
	beta := sim.NewIssuer("beta", []byte(betaSecret), "")
	c := w.start()
	c.merchant = "acme"
	phone := w.device(c, "u1")
	rings := 1 // the activation
	admin := func(method, path, body string) answer {
		t.Helper()
		return c.do(method, "", c.admin+"/ops/v1"+path, body)
	}

	type event = map[string]any
	post := func(path string, body []byte) answer {
		t.Helper()
		return c.post("", "/webhooks/"+path, string(body))
	}
	want := func(what string, a answer, status string, id string) string {
		t.Helper()
		if a.status != 200 || a.text("status") != status || id != "" && a.text("event_id") != id {
			t.Fatalf("%s: %d %s, want %s %s", what, a.status, a.raw, status, id)
		}
		return a.text("event_id")
	}
	challengeOf := func(id string) string { return "chl_" + strings.TrimPrefix(id, "evt_") }
	status := func(id string) string {
		t.Helper()
		return c.get(c.token("u1"), "/v1/challenges/"+challengeOf(id)).text("status")
	}
	rung := func() []sim.Notification {
		t.Helper()
		rings++
		return w.pushed(phone, rings)
	}

	// One purchase, and everything that can be made of its envelope.
	buy := purchase("c-1", "u1", "A-1")
	envelope := w.issuer.Seal("CARD_3DS", buy)
	first := want("the purchase", post("acme", envelope), "accepted", "")
	rung()
	typed := func(typ string) []byte { // the type alone can be changed without the key
		var members map[string]string
		if err := json.Unmarshal(envelope, &members); err != nil {
			t.Fatal(err)
		}
		members["type"] = typ
		body, _ := json.Marshal(members)
		return body
	}
	variants := map[string][]byte{
		"the same bytes": envelope, "another IV": w.issuer.Seal("CARD_3DS", buy), "other keys first": w.issuer.Seal("CARD_3DS", reordered(t, buy)),
		"spaced": w.issuer.Seal("CARD_3DS", spaced(t, buy)), "as verification": typed("CARD_VERIFICATION"), "as a transaction": typed("TRANSACTION_CREATED"),
		"as an unknown type": typed("SOMETHING_ELSE"), "with more members": slices.Concat(envelope[:len(envelope)-1], []byte(`,"nonce":"1"}`)),
	}
	again := func(when string) {
		t.Helper()
		for name, body := range variants {
			want(when+", "+name, post("acme", body), "duplicate", first)
		}
	}
	again("while pending")
	for name, typ := range map[string]string{"no type": "", "a type of ours": "relay.challenge.approved", "not a name": "CARD 3DS\n"} {
		want(name, post("acme", typed(typ)), "quarantined", "")
	}
	if a := c.post(c.token("u1"), "/v1/challenges/"+challengeOf(first)+"/approve", ""); a.text("status") != "approved" {
		t.Fatalf("approve: %s", a.raw)
	}
	rung() // the follow-up: another device would be told, and this one did not decide by its token
	again("after the approval")
	if got := status(first); got != "approved" {
		t.Errorf("the approved challenge is %s", got)
	}

	// The other way round: what was an event is no challenge later.
	other := purchase("c-1", "u1", "A-2")
	id := want("a transaction", post("acme", w.issuer.Seal("TRANSACTION_CREATED", other)), "accepted", "")
	want("it as a challenge", post("acme", w.issuer.Seal("CARD_3DS", other)), "duplicate", id)
	want("it as verification", post("acme", w.issuer.Seal("CARD_VERIFICATION", other)), "duplicate", id)

	// Time.
	happened := func(ref string, ago time.Duration) event {
		p := purchase("c-1", "u1", ref)
		p["occur_time"] = time.Now().Add(-ago).UnixMilli()
		return p
	}
	stale := want("an hour old", post("acme", w.issuer.Seal("CARD_3DS", happened("A-3", time.Hour))), "accepted", "")
	if got := status(stale); got != "expired" {
		t.Errorf("a challenge an hour old is %s", got)
	}
	future := want("of tomorrow", post("acme", w.issuer.Seal("CARD_3DS", happened("A-4", -24*time.Hour))), "accepted", "")
	rung()
	v := c.get(c.token("u1"), "/v1/challenges/"+challengeOf(future))
	for field, latest := range map[string]time.Time{"occurred_at": time.Now().Add(time.Second), "expires_at": time.Now().Add(301 * time.Second)} {
		if got, err := time.Parse(time.RFC3339, v.text(field)); err != nil || got.After(latest) {
			t.Errorf("%s of a challenge of tomorrow is %s, %v", field, v.text(field), err)
		}
	}

	// Deliveries that overtook each other: the later purchase stays, the later owner too.
	later := want("the later", post("acme", w.issuer.Seal("CARD_3DS", happened("A-5", 0))), "accepted", "")
	rung()
	earlier := want("the earlier", post("acme", w.issuer.Seal("CARD_3DS", happened("A-5", 20*time.Second))), "accepted", "")
	c.until("the earlier is withdrawn", func() bool { return status(earlier) == "cancelled" })
	if got := status(later); got != "pending" {
		t.Errorf("the later challenge is %s", got)
	}
	assigned := func(user string, ago time.Duration) event {
		return event{"card_id": "c-2", "user_id": user, "status": "SUCCESS", "occur_time": time.Now().Add(-ago).UnixMilli()}
	}
	want("the later owner", post("acme", w.issuer.Seal("CARD_ASSIGN_RESULT", assigned("u2", time.Minute))), "accepted", "")
	want("the earlier owner", post("acme", w.issuer.Seal("CARD_ASSIGN_RESULT", assigned("u1", time.Hour))), "accepted", "")
	if a := admin("GET", "/merchants/acme/cards/c-2", ""); a.text("user_id") != "u2" {
		t.Errorf("the card is %s", a.raw)
	}

	// Other merchants.
	mine := purchase("c-1", "u1", "A-6")
	for name, a := range map[string]answer{
		"another merchant's secret": post("acme", beta.Seal("CARD_3DS", mine)), "another merchant's path": post("beta", w.issuer.Seal("CARD_3DS", mine)),
	} {
		if a.status != 401 || a.text("code") != "invalid_signature" {
			t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}

	// What the relay and the issuer said to each other, turned round.
	if n := len(tap.as(t, "")); n != 2 {
		t.Fatalf("%d messages were seen, want a confirm and its answer", n)
	}
	for _, typ := range []string{"CARD_3DS", "CARD_VERIFICATION"} {
		for _, body := range tap.as(t, typ) {
			want("a message as "+typ, post("acme", []byte(body)), "quarantined", "")
		}
	}
	for _, body := range tap.as(t, "CARD_ASSIGN_RESULT") { // an event like others, that says nothing new
		turned := want("a message as an assignment", post("acme", []byte(body)), "accepted", "")
		want("and again", post("acme", []byte(body)), "duplicate", turned)
	}
	if a := admin("GET", "/merchants/acme/cards/c-1", ""); a.text("user_id") != "u1" {
		t.Errorf("the card is %s", a.raw)
	}

	// A code, held back and posted first as something else.
	code := event{"card_id": "c-3", "user_id": "u1", "auth_id": "A-7", "otp": oneTimeCode, "amount": "5", "currency": "USD", "occur_time": time.Now().UnixMilli()}
	for _, typ := range []string{"TRANSACTION_CREATED", "CARD_STATUS_CHANGE", "SOMETHING_ELSE"} {
		want("a code as "+typ, post("acme", w.issuer.Seal(typ, code)), "quarantined", "")
	}
	secret := want("the code", post("acme", w.issuer.Seal("CARD_3DS", code)), "accepted", "")
	rung()
	if a := c.post(c.token("u1"), "/v1/challenges/"+challengeOf(secret)+"/reveal", ""); a.text("otp") != oneTimeCode {
		t.Errorf("reveal: %d %s", a.status, a.raw)
	}
	want("the code, too late", post("acme", w.issuer.Seal("TRANSACTION_CREATED", code)), "quarantined", "")
	want("the code again", post("acme", w.issuer.Seal("CARD_3DS", code)), "duplicate", secret)

	// Last of all something that rings and is forwarded: before it, nothing else was.
	last := want("the last", post("acme", w.issuer.Seal("CARD_3DS", purchase("c-3", "u1", "A-8"))), "accepted", "")
	for _, n := range rung() {
		if id := (answer{json: n.Payload}).text("challenge", "id"); id == challengeOf(stale) || id == challengeOf(earlier) {
			t.Errorf("a phone rang for what is past: %v", n.Payload)
		}
	}
	w.forwarded(c, "relay.challenge.created", func(d sim.Delivery) bool { return (answer{json: d.JSON}).text("data", "id") == challengeOf(last) })
	wantChallenges := []string{first, stale, future, later, earlier, secret, last}
	list := admin("GET", "/challenges?limit=100", "")
	if got := len(list.json["data"].([]any)); got != len(wantChallenges) {
		t.Errorf("%d challenges, want %d: %s", got, len(wantChallenges), list.raw)
	}
	times := map[string]int{}
	for _, d := range w.downstream.Deliveries() {
		if strings.Contains(string(d.Body), oneTimeCode) {
			t.Errorf("a target was told the code: %s", d.Body)
		}
		if times[d.ID]++; times[d.ID] > 1 {
			t.Errorf("%s %s was forwarded twice", d.Type, d.ID)
		}
	}
	if calls := w.issuer.Calls(); len(calls) != 1 {
		t.Errorf("the issuer was called %d times", len(calls))
	}
	if n := len(phone.Notifications()); n != rings {
		t.Errorf("%d pushes, want %d", n, rings)
	}
}

// reordered and spaced are the same content, written otherwise.
func reordered(t *testing.T, p map[string]any) []byte {
	t.Helper()
	names := make([]string, 0, len(p))
	for name := range p {
		names = append(names, name)
	}
	slices.Sort(names)
	slices.Reverse(names)
	members := make([]string, 0, len(p))
	for _, name := range names {
		value, err := json.Marshal(p[name])
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, fmt.Sprintf("%q:%s", name, value))
	}
	return []byte("{" + strings.Join(members, ",") + "}")
}

func spaced(t *testing.T, p map[string]any) []byte {
	t.Helper()
	text, err := json.MarshalIndent(p, "\r\n", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, ' ', '\n')
}
