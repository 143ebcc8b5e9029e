package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"approvalrelay/cmd/relay/sim"
	"approvalrelay/crypto"
)

// withKeys gives the relays that start from now on these storage keys.
func (w *world) withKeys(keys ...string) {
	line := regexp.MustCompile(`(?m)^storage: .*$`)
	w.yaml = line.ReplaceAllLiteralString(w.yaml, fmt.Sprintf(`storage: {keys: ["%s"]}`, strings.Join(keys, `", "`)))
}

// TestRotation: what was sealed under the old key is there under the new one alone,
// as soon as the relay says so, although every node was killed on the way.
func TestRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.yaml = strings.Replace(w.yaml, `events: ["*", "relay.*"],`, `events: ["*"], retry: [10ms],`, 1)
	oldKey, newKey := base64.StdEncoding.EncodeToString(crypto.GenerateKey()), base64.StdEncoding.EncodeToString(crypto.GenerateKey())
	w.withKeys(oldKey)
	first := w.run()
	phone := w.device(first.client, "u1")
	approve := w.challenge(first.client, "CARD_3DS", purchase("c-1", "u1", "A-1"))
	token := answer{json: w.pushed(phone, 2)[1].Payload}.text("challenge", "action_token")
	withCode := purchase("c-2", "u1", "A-2")
	withCode["otp"] = oneTimeCode
	code := w.challenge(first.client, "CARD_3DS", withCode)
	w.pushed(phone, 3)
	quarantined := w.send(first.client, "TRANSACTION_CREATED", map[string]any{"card_id": "c-1", "otp": oneTimeCode}).text("event_id")
	w.downstream.Behave(func(int, string) sim.Behaviour { return sim.Behaviour{Status: http.StatusInternalServerError} })
	dead := w.send(first.client, "CARD_RECHARGE_RESULT", map[string]any{"card_id": "c-1", "transaction_id": "T-1"}).text("event_id")
	deadLetters := func(p *process, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), p.cmd.Path, append(append([]string{"deadletters"}, args...), "--config", p.cmd.Args[len(p.cmd.Args)-1])...).CombinedOutput()
		if err != nil {
			t.Fatalf("relay deadletters %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	first.until("a dead letter", func() bool { return strings.Contains(deadLetters(first, "list"), dead) })
	kill := func(p *process) {
		t.Helper()
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait() // killed
	}
	kill(first)

	w.withKeys(newKey, oldKey)
	both := w.run()
	both.until("nothing needs the old key", func() bool { return strings.Contains(w.logs.String(), "the others may be removed") })
	page := both.get("", both.admin+"/metrics").raw
	if strings.Contains(page, "relay_resealed_records_total 0\n") || !strings.Contains(page, "relay_older_key_records 0\n") {
		t.Error("the metrics do not tell what was done")
	}
	kill(both)

	w.withKeys(newKey)
	only := w.run()
	if a := only.post(token, "/v1/challenges/"+approve+"/approve", ""); a.status != http.StatusOK || a.text("status") != "approved" {
		t.Errorf("an action token of before: %d %s", a.status, a.raw)
	}
	if a := only.post(only.token("u1"), "/v1/challenges/"+code+"/reveal", ""); a.text("otp") != oneTimeCode {
		t.Errorf("a code of before: %d", a.status)
	}
	had := len(phone.Notifications())
	w.challenge(only.client, "CARD_3DS", purchase("c-1", "u1", "A-3"))
	w.pushed(phone, had+1)
	w.downstream.Behave(nil)
	if out := deadLetters(only, "replay", "--target", "core"); !strings.Contains(out, "replayed") {
		t.Errorf("replay: %s", out)
	}
	w.forwarded(only.client, "CARD_RECHARGE_RESULT", func(d sim.Delivery) bool { return d.ID == dead && d.Status == http.StatusOK })
	if a := only.do("POST", "", only.admin+"/ops/v1/events/"+quarantined+"/replay", ""); a.status != http.StatusOK {
		t.Errorf("replay of a quarantined event: %d %s", a.status, a.raw)
	}
	for _, key := range []string{oldKey, newKey} {
		if strings.Contains(w.logs.String(), key) {
			t.Error("a storage key stands in the log")
		}
	}
}
