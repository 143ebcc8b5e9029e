package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"approvalrelay/cmd/relay/sim"
)

const canaryLink = "https://acs.bank.example/3ds/canary-5f1c"

// TestNothingLeaks looks through everything that a full run leaves behind: logs,
// spans, all that Redis holds, metrics, every answer to the operator, every push. In
// none of it stands a code, a link, a card number, a key or a token.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spans := w.newCollector()
	c := w.start()
	phone := w.device(c, "u1")
	const reads = `{"reason":"not_me"}`
	run := func(payload map[string]any, calls ...string) string {
		t.Helper()
		id := w.challenge(c, "CARD_3DS", payload)
		for _, call := range calls {
			name, body, _ := strings.Cut(call, " ")
			if a := c.post(c.token("u1"), "/v1/challenges/"+id+"/"+name, body); a.status != http.StatusOK {
				t.Fatalf("%s: %d %s", call, a.status, a.raw)
			}
		}
		return id
	}
	with := func(ref string, more map[string]any) map[string]any {
		p := purchase("c-1", "u1", ref)
		p["card_number"] = canaryPAN
		for name, v := range more {
			p[name] = v
		}
		return p
	}
	ended := []string{
		run(with("A-1", nil), "approve"), run(with("A-2", nil), "reject "+reads),
		run(with("A-3", map[string]any{"otp": oneTimeCode}), "reveal", "done"), run(with("A-4", map[string]any{"auth_url": canaryLink}), "reveal", "done"),
	}
	pending := []string{run(with("A-5", map[string]any{"otp": oneTimeCode}), "reveal"), run(with("A-6", map[string]any{"auth_url": canaryLink}), "reveal")}
	w.send(c, "CARD_ACTIVATE_RESULT", map[string]any{"card_id": canaryPAN, "card_number": canaryPAN, "status": "SUCCESS"})
	w.send(c, "TRANSACTION_CREATED", map[string]any{"card_id": "c-1", "otp": oneTimeCode, "note": "card " + canaryPAN})
	if _, err := w.issuer.Send(t.Context(), c.base, []byte(`{"encrypted_payload":"`+canaryPAN+`","type":"`+oneTimeCode+canaryPAN+`","hmac":"`+oneTimeCode+`"}`)); err != nil {
		t.Fatal(err)
	}
	w.forwarded(c, "relay.event.quarantined", func(sim.Delivery) bool { return true })
	w.forwarded(c, "relay.challenge.completed", func(sim.Delivery) bool { return true })

	flush(c)
	found := map[string]string{"the log": w.logs.String(), "spans": spans.everything(), "Redis": w.everythingInRedis()}
	if len(spans.find("decide")) < 2 {
		t.Error("nothing was traced")
	}
	admin := func(path string) answer {
		t.Helper()
		a := c.get("", c.admin+path)
		if a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, a.status, a.raw)
		}
		found[path] = a.raw
		return a
	}
	for _, path := range []string{"/metrics", "/readyz", "/ops/v1/stats", "/ops/v1/challenges", "/ops/v1/merchants/acme/users/u1/subscriptions", "/ops/v1/merchants/acme/users/u1/cards"} {
		admin(path)
	}
	c.until("the refused one is recorded", func() bool { return strings.Contains(admin("/ops/v1/events?outcome=refused").raw, "invalid_signature") })
	for list, each := range map[string]string{"/ops/v1/events": "/ops/v1/events/", "/ops/v1/deliveries": "/ops/v1/deliveries/"} {
		var page struct{ Data []struct{ ID string } }
		if err := json.Unmarshal([]byte(admin(list+"?limit=100").raw), &page); err != nil || len(page.Data) < 8 {
			t.Fatalf("%s: %d, %v", list, len(page.Data), err)
		}
		for _, one := range page.Data {
			admin(each + one.ID)
		}
	}
	for _, id := range append(ended, pending...) {
		admin("/ops/v1/challenges/" + id + "/timeline")
	}
	for i, n := range phone.Notifications() {
		found[fmt.Sprintf("push %d", i)] = string(n.Raw)
	}
	secrets := []string{merchantSecret, webhookSecret, jwtSecret, oneTimeCode, canaryPAN, canaryLink, "eyJ", phone.Auth}
	for _, key := range []string{"storage: {keys: [\"", "private_key: \""} {
		_, rest, _ := strings.Cut(w.yaml, key)
		secret, _, _ := strings.Cut(rest, `"`)
		secrets = append(secrets, secret)
	}
	for where, text := range found {
		for _, secret := range secrets {
			isToken := secret == "eyJ" && strings.HasPrefix(where, "push ") // which carries the one for its challenge
			if strings.Contains(text, secret) && !isToken {
				t.Errorf("%q stands in %s", secret, where)
			}
		}
		if strings.Contains(text, "rat_") && !strings.HasPrefix(where, "push ") {
			t.Errorf("an action token stands in %s", where)
		}
	}
}

// everythingInRedis is all keys with all that they hold, as text.
func (w *world) everythingInRedis() string {
	w.t.Helper()
	ctx := w.t.Context()
	rdb := redis.NewClient(&redis.Options{Addr: w.redis.Addr})
	defer rdb.Close()
	var all strings.Builder
	keys := 0
	for it := rdb.Scan(ctx, 0, "", 1000).Iterator(); it.Next(ctx); keys++ {
		key := it.Val()
		var v any
		var err error
		switch kind := rdb.Type(ctx, key).Val(); kind {
		case "string":
			v, err = rdb.Get(ctx, key).Result()
		case "hash":
			v, err = rdb.HGetAll(ctx, key).Result()
		case "list":
			v, err = rdb.LRange(ctx, key, 0, -1).Result()
		case "set":
			v, err = rdb.SMembers(ctx, key).Result()
		case "zset":
			v, err = rdb.ZRange(ctx, key, 0, -1).Result()
		case "stream":
			v, err = rdb.XRange(ctx, key, "-", "+").Result()
		default:
			w.t.Fatalf("%s is a %s", key, kind)
		}
		if err != nil && err != redis.Nil { // it may have gone meanwhile
			w.t.Fatal(err)
		}
		fmt.Fprintln(&all, key, v)
	}
	if keys < 50 {
		w.t.Fatalf("Redis holds only %d keys", keys)
	}
	return all.String()
}
