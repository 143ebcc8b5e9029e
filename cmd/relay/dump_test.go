package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"approvalrelay/cmd/relay/sim"
)

// TestDumpHoldsNoSecret: who gets hold of Redis' files, its append-only file with
// everything that was ever written since the last rewrite, its snapshot, and its
// log of slow commands, finds no code, link, card number, key or token in them.
func TestDumpHoldsNoSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.yaml = strings.Replace(w.yaml, "    - {name: core,", fmt.Sprintf(`    - {name: retried, url: %q, events: ["*", CARD_3DS], format: envelope, include_otp: true, secrets: [%q], retry: [1h]}
    - {name: given-up, url: %q, events: ["*", CARD_3DS], include_otp: true, secrets: [%q], retry: [10ms]}
    - {name: parked, url: %q, events: ["*", CARD_3DS], secrets: [%q]}
    - {name: core,`, w.failing(http.StatusServiceUnavailable), webhookSecret, w.failing(http.StatusInternalServerError), webhookSecret, w.failing(http.StatusGone), webhookSecret), 1)
	rdb := redis.NewClient(&redis.Options{Addr: w.redis.Addr})
	defer rdb.Close()
	ctx := t.Context()
	for name, value := range map[string]string{
		"rdbcompression": "no", "list-compress-depth": "0", // nothing hides in LZF
		"aof-use-rdb-preamble": "no", "auto-aof-rewrite-percentage": "0", // the commands themselves
		"slowlog-log-slower-than": "0", "slowlog-max-len": "100000",
	} {
		if err := rdb.ConfigSet(ctx, name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}

	c := w.start()
	phone, pendingPhone := w.device(c, "u1"), w.push.Subscribe(w.pushURL)
	if a := c.post(c.token("u1"), "/v1/push/subscriptions", string(pendingPhone.JSON())); a.status != http.StatusCreated {
		t.Fatalf("subscribe: %d %s", a.status, a.raw)
	}
	activation := answer{json: w.pushed(pendingPhone, 1)[0].Payload}.text("activation", "code")
	w.issuer.Behave(func(_ int, path string) sim.Behaviour {
		if strings.Contains(path, "update_status") {
			return sim.Behaviour{Status: http.StatusServiceUnavailable} // locks wait
		}
		return sim.Behaviour{}
	})
	with := func(ref string, more map[string]any) map[string]any {
		p := purchase(canaryPAN, "u1", ref)
		p["card_number"] = canaryPAN
		for name, v := range more {
			p[name] = v
		}
		return p
	}
	approve := w.challenge(c, "CARD_3DS", with("A-1", nil))
	w.challenge(c, "CARD_3DS", with("A-2", map[string]any{"otp": oneTimeCode}))
	w.challenge(c, "CARD_VERIFICATION", with("A-3", map[string]any{"auth_url": canaryLink}))
	reported := w.challenge(c, "CARD_3DS", with("A-4", map[string]any{"otp": oneTimeCode}))
	shown := w.challenge(c, "CARD_3DS", with("A-5", map[string]any{"otp": oneTimeCode}))
	if a := c.post(c.token("u1"), "/v1/challenges/"+reported+"/reject", `{"reason":"not_me"}`); a.status != http.StatusOK {
		t.Fatalf("reject: %d %s", a.status, a.raw)
	}
	for _, call := range []string{"reveal", "done"} {
		if a := c.post(c.token("u1"), "/v1/challenges/"+shown+"/"+call, ""); a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", call, a.status, a.raw)
		}
	}
	w.send(c, "CARD_ACTIVATE_RESULT", map[string]any{"card_id": canaryPAN, "card_number": canaryPAN, "status": "SUCCESS"})
	w.send(c, "TRANSACTION_CREATED", map[string]any{"card_id": "c-1", "otp": oneTimeCode, "note": "card " + canaryPAN, oneTimeCode: canaryPAN})
	w.send(c, "CARD_3DS", map[string]any{"otp": oneTimeCode, "card_number": canaryPAN})
	if _, err := w.issuer.Send(ctx, c.base, []byte(`{"encrypted_payload":"`+canaryPAN+`","type":"`+oneTimeCode+canaryPAN+`","hmac":"`+oneTimeCode+`"}`)); err != nil {
		t.Fatal(err)
	}
	for list, want := range map[string]int{
		"deliveries?target=retried&status=pending": 2, "deliveries?target=given-up&status=dead": 2, "deliveries?target=parked&status=parked": 2,
		"deliveries?kind=lock&status=pending": 1, "events?outcome=quarantined": 2, "events?outcome=refused": 1, "challenges?status=pending": 3,
	} {
		c.until(list, func() bool { return strings.Count(c.get("", c.admin+"/ops/v1/"+list).raw, `"id":"`) >= want })
	}
	actionToken := ""
	c.until("an action token is pushed", func() bool {
		for _, n := range phone.Notifications() {
			if p := (answer{json: n.Payload}); p.text("challenge", "id") == approve {
				actionToken = p.text("challenge", "action_token")
			}
		}
		return strings.HasPrefix(actionToken, "rat_")
	})
	secrets := map[string]string{
		"a code": oneTimeCode, "a card number": canaryPAN, "a link": canaryLink, "a push auth secret": phone.Auth, "a push key": phone.P256dh,
		"the endpoint of a push": phone.Endpoint, "the auth secret of a pending subscription": pendingPhone.Auth, "an activation code": activation,
		"the merchant's secret": merchantSecret, "a target's secret": webhookSecret, "the JWT secret": jwtSecret, "a JWT": c.token("u1"), "any JWT": "eyJhbGciOi", "an action token": actionToken, "any action token": "rat_",
	}
	for _, key := range []string{"storage: {keys: [\"", "private_key: \""} {
		_, rest, _ := strings.Cut(w.yaml, key)
		secrets[key], _, _ = strings.Cut(rest, `"`)
	}
	const slowLog = "the slow log"
	files := w.dump(rdb)
	var slow bytes.Buffer
	entries, err := rdb.SlowLogGet(ctx, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fmt.Fprintln(&slow, e.Args)
	}
	files[slowLog] = slow.Bytes()
	for name, data := range files {
		// What is in clear by design must be found, else nothing is proved. The slow
		// log cuts long arguments off.
		for _, control := range []string{reported, "Sephora Digital"} {
			if cut := name == slowLog && control != reported; !cut && !bytes.Contains(data, []byte(control)) {
				t.Errorf("%q is not in %s (%d bytes): the search does not work", control, name, len(data))
			}
		}
		for what, secret := range secrets {
			for _, form := range forms(secret) {
				if bytes.Contains(data, []byte(form)) {
					t.Errorf("%s stands in %s, as %.40q", what, name, form)
				}
			}
		}
	}
}

// failing is the URL of a target that always answers so.
func (w *world) failing(status int) string {
	d := sim.NewDownstream(webhookSecret)
	d.Behave(func(int, string) sim.Behaviour { return sim.Behaviour{Status: status} })
	return w.serve(d) + "/hook"
}

// dump is Redis' data directory: a snapshot made now, and the append-only file.
func (w *world) dump(rdb *redis.Client) map[string][]byte {
	w.t.Helper()
	ctx := w.t.Context()
	if err := rdb.Save(ctx).Err(); err != nil {
		w.t.Fatal(err)
	}
	config, err := rdb.ConfigGet(ctx, "dir").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	files := map[string][]byte{}
	err = filepath.WalkDir(config["dir"], func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		// What the append-only file began with is a snapshot of nothing.
		if name := filepath.Base(path); !strings.Contains(name, ".base.") && !strings.HasSuffix(name, ".manifest") && !strings.HasSuffix(name, ".log") {
			files[name] = data
		}
		return err
	})
	if err != nil || len(files) != 2 {
		w.t.Fatalf("%d files, %v; want a snapshot and an append-only file", len(files), err)
	}
	return files
}

// forms are the ways in which a secret may stand in a file: as it is, as JSON, in
// hexadecimal, and in base64 of either alphabet, wherever in a group of three bytes
// it begins.
func forms(secret string) []string {
	quoted := fmt.Sprintf("%q", secret)
	all := []string{
		secret, quoted[1 : len(quoted)-1], strings.ReplaceAll(secret, "/", `\/`), strings.NewReplacer("&", `\u0026`, "<", `\u003c`, ">", `\u003e`).Replace(quoted[1 : len(quoted)-1]),
		hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))),
	}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := enc.DecodeString(secret); err == nil && len(raw) >= 16 {
			all = append(all, string(raw)) // what is itself an encoding
		}
		for shift := range 3 {
			text := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + secret))
			// The characters that hold bits of what stands before and after are not known.
			from, to := (8*shift+5)/6, (8*(shift+len(secret)))/6
			all = append(all, text[from:to])
		}
	}
	return all
}

// TestForms: the search finds a secret however it is written.
func TestForms(t *testing.T) {
	t.Parallel()
	const secret = `a/secret&"of <many> signs`
	asJSON := func(escape bool) string {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escape)
		if err := enc.Encode(secret); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	texts := []string{secret, asJSON(true), asJSON(false), hex.EncodeToString([]byte("xx" + secret + "yy"))}
	for before := range 4 {
		for after := range 4 {
			text := []byte(strings.Repeat("b", before) + secret + strings.Repeat("a", after))
			texts = append(texts, base64.StdEncoding.EncodeToString(text), base64.URLEncoding.EncodeToString(text))
		}
	}
	for _, text := range texts {
		found := false
		for _, form := range forms(secret) {
			found = found || strings.Contains(text, form)
		}
		if !found {
			t.Errorf("not found in %q", text)
		}
	}
	if key := base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xfb}, 16)); !strings.Contains(strings.Join(forms(key), "\n"), string(bytes.Repeat([]byte{0xfb}, 16))) {
		t.Error("a key in base64 is not looked for as its bytes")
	}
}
