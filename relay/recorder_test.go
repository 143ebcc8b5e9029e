package relay_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"approvalrelay/relay"
)

// TestRubbishCannotFillTheStore: of a flood of refused webhooks only some get a
// record, and the rest is counted; what could be a number is kept of none.
func TestRubbishCannotFillTheStore(t *testing.T) {
	metrics := prometheus.NewRegistry()
	h := newHarness(t, func(o *relay.Options) { o.Metrics = metrics })
	const flood = 5000
	for range flood {
		h.Refused(h.ctx, "acme", "CARD_3DS", "invalid_signature", "192.0.2.1", "")
	}
	unrecorded := func() int {
		families, err := metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "relay_unrecorded_webhooks_total" {
				return int(f.GetMetric()[0].GetCounter().GetValue())
			}
		}
		t.Fatal("what has no record is not counted")
		return 0
	}
	recorded := func() (n int) {
		for cursor := ""; ; {
			list, next, err := h.Events(h.ctx, relay.EventFilter{Range: relay.Range{Limit: 100, Cursor: cursor}, Outcome: relay.OutcomeRefused})
			if err != nil {
				t.Fatal(err)
			}
			n += len(list)
			if cursor = next; next == "" {
				return n
			}
		}
	}
	for deadline := time.Now().Add(20 * time.Second); recorded()+unrecorded() != flood; { // they are written beside
		if time.Now().After(deadline) {
			t.Fatalf("%d recorded and %d not, of %d", recorded(), unrecorded(), flood)
		}
	}
	if n := recorded(); n < 100 || n > 500 {
		t.Errorf("%d of %d have a record", n, flood)
	}
	for _, typ := range []string{"4111111111111111", "otp-045435", "a b"} {
		h.Refused(h.ctx, "4111111111111111", typ, "invalid_signature", "192.0.2.1", "")
	}
	list, _, err := h.Events(h.ctx, relay.EventFilter{Range: relay.Range{Limit: 100}, Outcome: relay.OutcomeRefused})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Type != "CARD_3DS" && e.Type != "" || e.Merchant != "acme" && e.Merchant != "" {
			t.Errorf("%+v", e)
		}
	}
}
