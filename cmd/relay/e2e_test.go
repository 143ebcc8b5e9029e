package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"approvalrelay/cmd/relay/sim"
	"approvalrelay/crypto"
)

func purchase(card any, user, ref string) map[string]any {
	return map[string]any{
		"card_id": card, "user_id": user, "auth_id": ref, "occur_time": time.Now().UnixMilli(), "merchant_name": "Sephora Digital", "merchant_country_code": "250",
		"transaction_amount": "100.20", "transaction_currency": "840", "card_number": "4242********4242",
	}
}

// TestMainJob: a webhook becomes a push, the approval becomes a sealed confirm,
// and the team's own service hears about it.
func TestMainJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	phone, laptop := w.device(c, "u1"), w.device(c, "u1")
	id := w.challenge(c, "CARD_3DS", purchase(67890, "u1", "A-1"))

	for _, d := range []*sim.Device{phone, laptop} {
		n := w.pushed(d, 2)[1]
		p := answer{json: n.Payload}
		if p.text("notification", "title") != "Approve 100.20 USD?" || p.text("notification", "tag") != id || p.text("challenge", "id") != id ||
			p.text("challenge", "status") != "pending" || n.Urgency != "high" || n.Topic == "" || n.TTL < 290 || n.TTL > 300 {
			t.Fatalf("push: %+v", n)
		}
	}
	list := c.get(c.token("u1"), "/v1/challenges")
	if !strings.Contains(list.raw, id) || strings.Contains(c.get(c.token("u2"), "/v1/challenges").raw, id) {
		t.Fatalf("the list of u1, or of somebody else: %s", list.raw)
	}
	token := answer{json: w.pushed(phone, 2)[1].Payload}.text("challenge", "action_token")
	a := c.post(token, "/v1/challenges/"+id+"/approve", `{"shown":{"amount":"100.2","currency":"USD","payee":"Sephora Digital"}}`)
	if a.status != http.StatusOK || a.text("status") != "approved" || a.text("decision", "action") != "approve" {
		t.Fatalf("approve: %d %s", a.status, a.raw)
	}
	calls := w.issuer.Calls()
	if len(calls) != 1 || calls[0].Fault != "" || calls[0].Path != "/card/3ds_confirm" || calls[0].IdempotencyKey != id ||
		fmt.Sprint(calls[0].Body) != "map[auth_id:A-1 auth_result:2 card_id:67890]" {
		t.Fatalf("the issuer got %+v", calls)
	}
	end := answer{json: w.pushed(laptop, 3)[2].Payload}
	if end.text("challenge", "status") != "approved" || end.text("notification", "silent") != "true" || end.text("challenge", "action_token") != "<nil>" {
		t.Fatalf("follow-up: %v", end.json)
	}
	created := w.forwarded(c, "relay.challenge.created", func(sim.Delivery) bool { return true })
	approved := w.forwarded(c, "relay.challenge.approved", func(sim.Delivery) bool { return true })
	if (answer{json: approved.JSON}).text("data", "user_id") != "u1" || (answer{json: created.JSON}).text("data", "id") != id {
		t.Fatalf("forwarded %s and %s", created.Body, approved.Body)
	}
	if n := len(phone.Notifications()); n != 2 {
		t.Fatalf("the device that decided got %d pushes, want no follow-up", n)
	}
	if a := c.get(token, "/v1/challenges/"+id); a.status != http.StatusUnauthorized {
		t.Fatalf("the action token of an ended challenge: %d", a.status)
	}
}

// TestCode: a one-time code is seen by the cardholder, and by nobody else.
func TestCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	phone := w.device(c, "u1")
	id := w.challenge(c, "CARD_3DS", map[string]any{"card_id": "c-1", "user_id": "u1", "otp": oneTimeCode, "amount": 50, "currency": "USD", "detail": "NameSilo", "card_number": canaryPAN})
	n := w.pushed(phone, 2)[1]
	if strings.Contains(string(n.Raw), oneTimeCode) || strings.Contains(fmt.Sprint(n.Payload), oneTimeCode) {
		t.Fatal("the push carries the code")
	}
	a := c.post(c.token("u1"), "/v1/challenges/"+id+"/reveal", "")
	if a.status != 200 || a.text("otp") != oneTimeCode || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("reveal: %d %s", a.status, a.raw)
	}
	if a := c.post(c.token("u1"), "/v1/challenges/"+id+"/approve", ""); a.status != 409 || a.text("code") != "wrong_method" {
		t.Fatalf("approve: %d %s", a.status, a.raw)
	}
	if a := c.post(c.token("u1"), "/v1/challenges/"+id+"/done", ""); a.status != 200 || a.text("status") != "completed" {
		t.Fatalf("done: %d %s", a.status, a.raw)
	}
	w.forwarded(c, "relay.challenge.completed", func(d sim.Delivery) bool {
		if strings.Contains(string(d.Body), oneTimeCode) || strings.Contains(string(d.Body), canaryPAN) {
			t.Errorf("our own event carries a secret: %s", d.Body)
		}
		return true
	})
	if a := c.post(c.token("u1"), "/v1/challenges/"+id+"/reveal", ""); a.status != 409 {
		t.Fatalf("reveal after done: %d %s", a.status, a.raw)
	}
}

// TestOtherEvents are forwarded, once, signed.
func TestOtherEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	recharge := map[string]any{"card_id": 67890, "transaction_id": "T-1", "receive_amount": "250.00", "currency": "USD", "status": "SUCCESS", "occur_time": time.Now().UnixMilli()}
	first := w.send(c, "CARD_RECHARGE_RESULT", recharge)
	again := w.send(c, "CARD_RECHARGE_RESULT", recharge)
	other := w.send(c, "TRANSACTION_CREATED", recharge)
	if first.text("status") != "accepted" || again.text("status") != "duplicate" || other.text("status") != "duplicate" || again.text("event_id") != first.text("event_id") {
		t.Fatalf("answers: %s, %s, %s", first.raw, again.raw, other.raw)
	}
	d := w.forwarded(c, "CARD_RECHARGE_RESULT", func(sim.Delivery) bool { return true })
	if d.ID != first.text("event_id") || d.Attempt != 1 || (answer{json: d.JSON}).text("data", "receive_amount") != "250.00" {
		t.Fatalf("forwarded: %s", d.Body)
	}
	q := w.send(c, "TRANSACTION_CREATED", map[string]any{"card_id": "c-9", "otp": oneTimeCode})
	if q.text("status") != "quarantined" {
		t.Fatalf("a code under another type: %s", q.raw)
	}
	w.forwarded(c, "relay.event.quarantined", func(d sim.Delivery) bool {
		return (answer{json: d.JSON}).text("data", "id") == q.text("event_id") && !strings.Contains(string(d.Body), oneTimeCode)
	})
	bad, err := w.issuer.Send(t.Context(), c.base, []byte(`{"encrypted_payload":"AAAA","type":"CARD_3DS","hmac":"00"}`))
	if err != nil || bad.Status != http.StatusUnauthorized {
		t.Fatalf("a forged envelope: %v %+v", err, bad)
	}
	for _, d := range w.downstream.Deliveries() {
		if d.Type == "TRANSACTION_CREATED" {
			t.Fatalf("what was a duplicate or in quarantine was forwarded: %s", d.Body)
		}
	}
}

// TestUnassigned: a challenge whose card nobody is known to own rings when the
// owner becomes known.
func TestUnassigned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	phone := w.device(c, "u1")
	id := w.challenge(c, "CARD_3DS", purchase("c-7", "", "A-1"))
	w.forwarded(c, "relay.challenge.unreachable", func(sim.Delivery) bool { return true })
	if a := c.get(c.token("u1"), "/v1/challenges/"+id); a.status != http.StatusNotFound {
		t.Fatalf("somebody sees the unassigned challenge: %d", a.status)
	}
	w.send(c, "CARD_ASSIGN_RESULT", map[string]any{"card_id": "c-7", "user_id": "u1", "status": "SUCCESS", "occur_time": time.Now().UnixMilli()})
	if p := (answer{json: w.pushed(phone, 2)[1].Payload}); p.text("challenge", "id") != id {
		t.Fatalf("pushed %v", p.json)
	}
	if a := c.post(c.token("u1"), "/v1/challenges/"+id+"/reject", `{"reason":"not_me"}`); a.status != 200 || a.text("status") != "rejected" {
		t.Fatalf("reject: %d %s", a.status, a.raw)
	}
	c.until("the card is locked", func() bool {
		for _, call := range w.issuer.Calls() {
			if call.Path == "/card/update_status" && fmt.Sprint(call.Body) == "map[card_id:c-7 status:LOCKED]" {
				return true
			}
		}
		return false
	})
	w.forwarded(c, "relay.challenge.reported", func(sim.Delivery) bool { return true })
}

// TestStreamAcrossNodes: what is decided on one node is seen on the other's
// stream.
func TestStreamAcrossNodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start(), w.start()
	req, err := http.NewRequestWithContext(t.Context(), "GET", b.base+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+b.token("u1"))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(res.Body); s.Scan(); {
			lines <- s.Text()
		}
	}()
	expect := func(want ...string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case l := <-lines:
				ok := true
				for _, s := range want {
					ok = ok && strings.Contains(l, s)
				}
				if ok {
					return
				}
			case <-deadline:
				t.Fatalf("no line with %q came", want)
			}
		}
	}
	expect("snapshot")
	id := w.challenge(a, "CARD_3DS", purchase("c-1", "u1", "A-1"))
	expect(id, `"status":"pending"`)
	if got := a.post(a.token("u1"), "/v1/challenges/"+id+"/approve", ""); got.text("status") != "approved" {
		t.Fatalf("approve: %s", got.raw)
	}
	expect(id, `"status":"approved"`)
}

// TestRedisAway: without Redis the ingress says so within 2 s, and is back by
// itself.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	phone := w.device(c, "u1")
	w.redis.Kill()
	start := time.Now()
	a := w.send(c, "CARD_3DS", purchase("c-1", "u1", "A-1"))
	if took := time.Since(start); a.status != http.StatusServiceUnavailable || a.text("code") != "store_unavailable" || took > 2*time.Second {
		t.Fatalf("without Redis: %d %s after %v", a.status, a.raw, took)
	}
	if a := c.get("", c.admin+"/readyz"); a.status != http.StatusServiceUnavailable {
		t.Fatalf("readyz without Redis: %d", a.status)
	}
	if a := c.get("", c.admin+"/healthz"); a.status != http.StatusOK {
		t.Fatalf("healthz without Redis: %d", a.status)
	}
	w.redis.Restart()
	var id string
	c.until("the ingress is back", func() bool {
		a := w.send(c, "CARD_3DS", purchase("c-1", "u1", "A-1"))
		id = "chl_" + strings.TrimPrefix(a.text("event_id"), "evt_")
		return a.status == http.StatusOK
	})
	if p := (answer{json: w.pushed(phone, 2)[1].Payload}); p.text("challenge", "id") != id {
		t.Fatalf("pushed %v", p.json)
	}
}

// TestRedisAwayAtStart: the relay stays up, says that it is not ready, and goes
// on trying.
func TestRedisAwayAtStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.redis.Kill()
	c := w.startEarly()
	if a := c.get("", c.admin+"/readyz"); a.status != http.StatusServiceUnavailable {
		t.Fatalf("readyz: %d %s", a.status, a.raw)
	}
	if a := w.send(c, "CARD_3DS", purchase("c-1", "u1", "A-1")); a.status != http.StatusServiceUnavailable || a.text("code") != "store_unavailable" {
		t.Fatalf("a webhook: %d %s", a.status, a.raw)
	}
	w.redis.Restart()
	c.until("ready", func() bool { return c.get("", c.admin+"/readyz").status == http.StatusOK })
	phone := w.device(c, "u1")
	w.challenge(c, "CARD_3DS", purchase("c-1", "u1", "A-1"))
	w.pushed(phone, 2)
}

// TestRedisHangs: a Redis that is there but does not answer is told within 2 s,
// too, and what waited goes on when it does.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	phone := w.device(c, "u1")
	w.redis.Stop()
	start := time.Now()
	a := w.send(c, "CARD_3DS", purchase("c-1", "u1", "A-1"))
	if took := time.Since(start); a.status != http.StatusServiceUnavailable || took > 2*time.Second {
		t.Errorf("while Redis hangs: %d %s after %v", a.status, a.raw, took)
	}
	w.redis.Cont()
	c.until("ready", func() bool { return c.get("", c.admin+"/readyz").status == http.StatusOK })
	id := w.challenge(c, "CARD_3DS", purchase("c-2", "u1", "A-2"))
	c.until("the push", func() bool {
		for _, n := range phone.Notifications() {
			if (answer{json: n.Payload}).text("challenge", "id") == id {
				return true
			}
		}
		return false
	})
}

// TestForeignKeys: a relay whose storage.keys do not open what is stored is not
// ready, says so, and takes nothing.
func TestForeignKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start()
	key := strings.Index(w.yaml, "storage:")
	end := key + strings.Index(w.yaml[key:], "\n")
	w.yaml = w.yaml[:key] + fmt.Sprintf("storage: {keys: [%q]}", base64.StdEncoding.EncodeToString(crypto.GenerateKey())) + w.yaml[end:]
	c := w.startEarly()
	if a := c.get("", c.admin+"/readyz"); a.status != http.StatusServiceUnavailable || !strings.Contains(a.raw, "storage.keys") {
		t.Errorf("readyz: %d %s", a.status, a.raw)
	}
	if a := w.send(c, "CARD_3DS", purchase("c-1", "u1", "A-1")); a.status < 500 {
		t.Errorf("a webhook: %d %s", a.status, a.raw)
	}
}
