package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"approvalrelay/cmd/relay/sim"
	"approvalrelay/crypto/passkey/passkeytest"
)

// approveWithPasskey lets a user register a passkey and approve a payment with it.
func (c *client) approveWithPasskey(user, id string) {
	c.t.Helper()
	publicKey := func(a answer) []byte {
		c.t.Helper()
		var o struct {
			PublicKey json.RawMessage `json:"publicKey"`
		}
		if err := json.Unmarshal([]byte(a.raw), &o); a.status != http.StatusOK || err != nil {
			c.t.Fatalf("options: %d %s", a.status, a.raw)
		}
		return o.PublicKey
	}
	token, path := c.token(user), "/v1/challenges/"+id
	a := passkeytest.New("http://localhost", "localhost")
	made := a.Create(publicKey(c.post(token, "/v1/passkeys/options", "")))
	if got := c.post(token, "/v1/passkeys", `{"passkey":`+string(made)+`}`); got.status != http.StatusCreated {
		c.t.Fatalf("register: %d %s", got.status, got.raw)
	}
	if got := c.post(token, path+"/approve", ""); got.status != http.StatusForbidden {
		c.t.Fatalf("approve without a passkey: %d %s", got.status, got.raw)
	}
	signed := a.Get(publicKey(c.post(token, path+"/step-up", "")))
	if got := c.post(token, path+"/approve", `{"passkey":`+string(signed)+`}`); got.status != http.StatusOK || got.text("status") != "approved" {
		c.t.Fatalf("approve: %d %s", got.status, got.raw)
	}
}

// TestVerify: the proof of an approval holds for what the record shows, and for
// nothing else, whoever can write to Redis.
func TestVerify(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.yaml = strings.Replace(w.yaml, "auth: {jwt:", `auth: {step_up: passkey, above: "30.00 EUR", jwt:`, 1)
	c := w.start()
	id := w.challenge(c, "CARD_3DS", purchase("c-1", "u1", "A-1"))
	other := w.challenge(c, "CARD_3DS", purchase("c-2", "u1", "A-2"))
	c.approveWithPasskey("u1", id)

	approved := answer{json: w.forwarded(c, "relay.challenge.approved", func(sim.Delivery) bool { return true }).JSON}
	if approved.text("data", "decision", "proof", "passkey_id") == "<nil>" || approved.text("data", "decision", "shown", "amount") != "100.20" {
		t.Errorf("the team's own record is %v", approved.json)
	}

	file := filepath.Join(t.TempDir(), "relay.yaml")
	if err := os.WriteFile(file, []byte(w.yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	verify := func(id string) (code int, out, errs string) {
		var stdout, stderr bytes.Buffer
		code = run(context.Background(), []string{"relay", "verify", "--config", file, id}, nil, &stdout, &stderr)
		return code, stdout.String(), stderr.String()
	}
	code, out, errs := verify(id)
	if code != 0 || !strings.Contains(out, `valid: user u1 of acme approved 100.20 USD to "Sephora Digital"`) {
		t.Fatalf("verify: %d %s%s", code, out, errs)
	}
	if code, _, errs := verify(other); code != 1 || !strings.Contains(errs, "is pending: it was not approved with a passkey") {
		t.Errorf("a challenge without a proof: %d %s", code, errs)
	}
	if code, _, errs := verify("chl_01J8ZQ5X4N8K3T0V7B2M6C9R1D00"); code != 1 || !strings.Contains(errs, "there is no challenge") {
		t.Errorf("no challenge: %d %s", code, errs)
	}

	rdb := redis.NewClient(&redis.Options{Addr: w.redis.Addr})
	defer rdb.Close()
	keys, err := rdb.Keys(t.Context(), "relay:*:"+id).Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys %v, %v", keys, err)
	}
	record, err := rdb.Get(t.Context(), keys[0]).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []struct {
		from, to string
		at       func(s, substr string) int
	}{ // the names of most fields are packed
		{"100.20", "100.21", strings.Index}, {"Sephora Digital", "Thief", strings.Index}, {"USD", "EUR", strings.Index}, {"\tu1\n", "\tu2\n", strings.Index},
		{`"action":"approve"`, `"action":"reject"`, strings.Index}, {"100.20", "1.20", strings.LastIndex}, {`"registered":"`, `"registered":"AAAA`, strings.Index},
	} {
		tampered := record
		if i := change.at(record, change.from); i >= 0 {
			tampered = record[:i] + change.to + record[i+len(change.from):]
		}
		if tampered == record {
			t.Errorf("the record does not hold %s", change.from)
		}
		if err := rdb.Set(t.Context(), keys[0], tampered, redis.KeepTTL).Err(); err != nil {
			t.Fatal(err)
		}
		if code, out, _ := verify(id); code != 1 || out != "" {
			t.Errorf("with %s: %d %s", change.to, code, out)
		}
	}
}
