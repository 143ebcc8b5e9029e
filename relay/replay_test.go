package relay_test

import (
	"strings"
	"testing"
	"time"

	"approvalrelay/relay"
)

// What was not understood arrives anew when the mapping has been mended, as if
// it had come when it first did.
func TestReplayOutOfQuarantine(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	body := purchase("c-1", "amount", nil, "sum", "50.00")
	r, err := h.send("acme", "CARD_3DS", body)
	if err != nil || r.Status != relay.Quarantined {
		t.Fatalf("without an amount: %+v, %v", r, err)
	}
	if v, err := h.EventRecord(h.ctx, r.EventID); err != nil || v.Payload != nil || *v.Reason == "" || len(v.Fields) == 0 {
		t.Errorf("the record is %+v, %v", v, err)
	}
	again, err := h.ReplayEvent(h.ctx, r.EventID)
	if err != nil || again.Status != relay.Quarantined || again.EventID != r.EventID {
		t.Errorf("before the mend: %+v, %v", again, err)
	}
	if n, err := h.ReplayQuarantine(h.ctx, "acme"); err != nil || n != (relay.Released{Quarantined: 1}) {
		t.Errorf("all of it before the mend: %+v, %v", n, err)
	}
	h.quiet()

	m := h.Merchants["acme"]
	m.Mapping = m.Mapping.With(map[string][]string{"amount": {"sum"}})
	h.pass(100 * time.Second)
	mended, err := h.ReplayEvent(h.ctx, r.EventID)
	if err != nil || mended.Status != relay.Accepted || mended.EventID == r.EventID {
		t.Fatalf("after the mend: %+v, %v", mended, err)
	}
	h.quiet()
	h.wantPushes(map[int]int{1: 1})
	id := strings.Replace(mended.EventID, "evt_", "chl_", 1)
	if c := h.wantStatus(id, relay.Pending); c.Amount != "50.00" || !c.ExpiresAt.Equal(start.Add(300*time.Second)) {
		t.Errorf("the challenge is %+v", c)
	}
	if v, err := h.EventRecord(h.ctx, r.EventID); err != nil || v.ReplayedAs == nil || *v.ReplayedAs != mended.EventID {
		t.Errorf("the record does not say what became of it: %+v, %v", v, err)
	}
	if n, err := h.ReplayQuarantine(h.ctx, ""); err != nil || n != (relay.Released{}) {
		t.Errorf("all of it again: %+v, %v", n, err)
	}
	if twice, err := h.ReplayEvent(h.ctx, r.EventID); err != nil || twice.Status != relay.Duplicate || twice.EventID != mended.EventID {
		t.Errorf("replayed twice: %+v, %v", twice, err)
	}
	_, err = h.ReplayEvent(h.ctx, mended.EventID)
	refused(t, err, relay.CodeInvalidRequest)
}

// All of the quarantine is run again in one call.
func TestReplayQuarantine(t *testing.T) {
	h := newHarness(t, nil)
	for _, card := range []string{"c-1", "c-2", "c-3"} {
		if r, err := h.send("acme", "CARD_3DS", purchase(card, "amount", nil, "sum", "50.00")); err != nil || r.Status != relay.Quarantined {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if r, err := h.send("acme", "CARD_3DS", purchase("c-4", "amount", nil)); err != nil || r.Status != relay.Quarantined {
		t.Fatalf("%+v, %v", r, err)
	}
	m := h.Merchants["acme"]
	m.Mapping = m.Mapping.With(map[string][]string{"amount": {"sum"}})
	if _, err := h.ReplayQuarantine(h.ctx, "nobody"); err == nil {
		t.Error("an unknown merchant is no error")
	}
	if n, err := h.ReplayQuarantine(h.ctx, "other"); err != nil || n != (relay.Released{}) {
		t.Errorf("another merchant's: %+v, %v", n, err)
	}
	if n, err := h.ReplayQuarantine(h.ctx, ""); err != nil || n != (relay.Released{Replayed: 3, Quarantined: 1}) {
		t.Errorf("%+v, %v", n, err)
	}
	list, _, err := h.OperatorChallenges(h.ctx, relay.ChallengeFilter{Range: relay.Range{Limit: 10}, Status: relay.Pending})
	if err != nil || len(list) != 3 {
		t.Errorf("%d challenges are pending, %v", len(list), err)
	}
}

// What was forwarded goes out again under its id.
func TestReplayForwarded(t *testing.T) {
	h := newHarness(t, withTargets(target("all", "*")))
	id := strings.Replace(h.receive("CARD_ACTIVATE_RESULT", payload("card_id", "c-1", "card_number", pan, "status", "SUCCESS")), "chl_", "evt_", 1)
	before := len(h.downstream.all())
	if before == 0 {
		t.Fatal("nobody got it")
	}
	v, err := h.EventRecord(h.ctx, id)
	if err != nil || v.Payload["card_number"] != "····1111" {
		t.Errorf("the record is %+v, %v", v, err)
	}
	if r, err := h.ReplayEvent(h.ctx, id); err != nil || r.EventID != id || r.Status != relay.Accepted {
		t.Fatalf("replay: %+v, %v", r, err)
	}
	h.quiet()
	all := h.downstream.all()
	if len(all) != 2*before || all[before].EventID != id || all[before].Data != all[0].Data {
		t.Errorf("forwarded %+v", all)
	}
}
