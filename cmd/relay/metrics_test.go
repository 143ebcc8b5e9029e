package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"approvalrelay/cmd/relay/sim"
)

// TestAlarmsAndDashboardNameMetrics: what configs/deploy asks for is what a relay
// that has done its job shows, and it is named as Prometheus wants it.
func TestAlarmsAndDashboardNameMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	w.device(c, "u1")
	id := w.challenge(c, "CARD_3DS", purchase("c-1", "u1", "A-1"))
	c.post(c.token("u1"), "/v1/challenges/"+id+"/approve", "")
	w.send(c, "CARD_STATUS_CHANGE", map[string]any{"card_id": "c-1", "status": "ACTIVE"})
	w.forwarded(c, "relay.challenge.approved", func(sim.Delivery) bool { return true })

	var page string
	shown := func() []string {
		page = c.get("", c.admin+"/metrics").raw
		return regexp.MustCompile(`(?m)^relay_[a-z_]+`).FindAllString(page, -1)
	}
	asked := map[string]bool{}
	for _, file := range []string{"prometheus/alerts.yaml", "grafana/dashboard.json"} {
		text, err := os.ReadFile("../../configs/deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`relay_[a-z_]+`).FindAllString(string(text), -1) {
			asked[name] = true
		}
	}
	if len(asked) < 15 {
		t.Fatalf("alarms and dashboard name only %d metrics", len(asked))
	}
	for name := range asked {
		c.until("there is a metric "+name, func() bool {
			return slices.ContainsFunc(shown(), func(s string) bool { return s == name || strings.HasPrefix(s, name+"_") })
		})
	}
	problems, err := promlint.New(strings.NewReader(page)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "relay_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, secret := range []string{"4242********4242", "Sephora", "u1", "c-1"} {
		if strings.Contains(page, secret) {
			t.Errorf("%q stands in the metrics", secret)
		}
	}
}
