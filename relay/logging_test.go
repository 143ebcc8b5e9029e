package relay_test

import (
	"encoding/json"
	"strings"
	"testing"

	"approvalrelay/relay"
)

// lines are the log's with a message.
func (h *harness) lines(msg string) []map[string]any {
	h.t.Helper()
	var found []map[string]any
	for text := range strings.Lines(h.logs.String()) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			h.t.Fatal(err)
		}
		if line["msg"] == msg {
			found = append(found, line)
		}
	}
	return found
}

// wantLine looks for one line with a message and these "name", value pairs.
func (h *harness) wantLine(msg string, pairs ...any) map[string]any {
	h.t.Helper()
	var found []map[string]any
next:
	for _, l := range h.lines(msg) {
		for k, v := range payload(pairs...) {
			if l[k] != v {
				continue next
			}
		}
		found = append(found, l)
	}
	if len(found) != 1 {
		h.t.Fatalf("%d lines %q with %v, want one, in:\n%s", len(found), msg, pairs, h.logs)
	}
	return found[0]
}

// TestLog: each event, attempt and change has one line, with the ids of its record.
func TestLog(t *testing.T) {
	h := newHarness(t, func(o *relay.Options) { o.Targets = append(o.Targets, target("core", "*")) })
	phone := h.device(anna, 1)
	id := h.receive("CARD_3DS", purchase("c-1"))
	event := strings.Replace(id, "chl_", "evt_", 1)
	h.wantLine("event received", "event_id", event, "challenge_id", id, "status", "accepted", "outcome", "challenge", "card_id", "c-1", "user_id", "anna", "level", "INFO")
	h.wantLine("challenge announced", "challenge_id", id, "devices", 1.0, "level", "INFO")
	push := h.wantLine("delivery", "kind", "push", "challenge_id", id, "target", phone, "attempt", 1.0, "status", "delivered", "merchant", "acme")
	if d, err := h.Delivery(h.ctx, push["delivery_id"].(string)); err != nil || d.ChallengeID != id {
		t.Errorf("the record of the push: %+v, %v", d, err)
	}
	d := approve()
	d.Device = relay.Device{SubscriptionID: phone, IP: "192.0.2.7", UserAgent: "Mozilla/5.0"}
	if _, err := h.Decide(h.ctx, anna, id, d); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	h.wantLine("challenge changed", "challenge_id", id, "event_id", event, "status", "confirming", "action", "approve", "subscription_id", phone, "ip", "192.0.2.7")
	h.wantLine("delivery", "kind", "confirm", "challenge_id", id, "attempt", 1.0)
	h.wantLine("challenge changed", "challenge_id", id, "status", "approved", "action", nil)

	r, err := h.send("acme", "CARD_3DS", purchase("c-1"))
	if err != nil || r.Status != relay.Duplicate {
		t.Fatalf("%+v, %v", r, err)
	}
	if l := h.wantLine("event received", "event_id", event, "status", "duplicate"); l["record_id"] == nil || l["record_id"] == event {
		t.Errorf("%v", l)
	}
	nobody := h.receive("CARD_3DS", purchase("c-2", "user_id", nil))
	h.wantLine("challenge announced", "challenge_id", nobody, "devices", 0.0, "silence", "nobody knows whose the card is", "level", "WARN")
	if _, err := h.AssignCard(h.ctx, "acme", "c-2", "anna"); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	h.wantLine("challenge changed", "challenge_id", nobody, "status", "pending", "user_id", "anna")
	if strings.Contains(h.logs.String(), "Mozilla") {
		t.Error("the log has a user agent")
	}
}

// TestLogOfSecrets: at debug the payload is logged, masked. The harness looks for
// the code, the link and the card number in every test.
func TestLogOfSecrets(t *testing.T) {
	h := newHarness(t, func(o *relay.Options) { o.Targets = append(o.Targets, target("core", "*")) })
	h.device(anna, 1)
	otp := h.receive("CARD_VERIFICATION", payload("card_id", "c-1", "user_id", "anna", "otp", code, "card_number", pan, "merchant_name", "Shop "+code))
	if l := h.wantLine("event received", "challenge_id", otp); l["payload"].(map[string]any)["otp"] != "[removed]" || l["payload"].(map[string]any)["card_number"] != "····1111" {
		t.Errorf("%v", l)
	}
	if r, err := h.Reveal(h.ctx, anna, otp); err != nil || r.OTP != code {
		t.Fatalf("reveal: %v", err)
	}
	h.wantLine("challenge revealed", "challenge_id", otp, "user_id", "anna", "method", "otp", "level", "INFO")
	h.receive("CARD_RECHARGE_RESULT", payload("card_id", "c-1", "card_number", pan, "amount", "7.00"))
	if l := h.wantLine("event received", "type", "CARD_RECHARGE_RESULT"); l["payload"].(map[string]any)["amount"] != "7.00" {
		t.Errorf("%v", l)
	}
	r, err := h.send("acme", "CARD_STATUS", payload("card_id", "c-1", "otp", code))
	if err != nil || r.Status != relay.Quarantined {
		t.Fatalf("%+v, %v", r, err)
	}
	if l := h.wantLine("event received", "status", "quarantined"); l["payload"] != nil || l["fields"] == nil || l["level"] != "WARN" {
		t.Errorf("%v", l)
	}
}
