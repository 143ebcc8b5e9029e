package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"approvalrelay/relay/storetest/freeport"
	"approvalrelay/relay/storetest/redistest"
)

// check runs the command on a configuration.
func (w *world) check(yaml string) (code int, out, errs string) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "relay.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		w.t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	code = run(w.t.Context(), []string{"relay", "check", "--config", file}, strings.NewReader(""), &stdout, &stderr)
	for _, secret := range []string{merchantSecret, webhookSecret, jwtSecret} {
		if strings.Contains(stdout.String()+stderr.String(), secret) {
			w.t.Errorf("check prints %q", secret)
		}
	}
	return code, stdout.String(), stderr.String()
}

func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	code, out, errs := w.check(w.yaml)
	if code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{
		"ok       redis.url: Redis answers", "ok       redis.url: what it has acknowledged it keeps", "ok       redis.url: its clock and this machine's are ",
		"ok       push.vapid: the two keys are a pair", "ok       merchants.acme.issuer_api.base_url: answers (", "ok       forward.targets[0].url: answers (", "is good\n",
	} {
		if strings.Count(out, want) != 1 {
			t.Errorf("want one %q in\n%s", want, out)
		}
	}
	for _, d := range w.downstream.Deliveries() {
		if d.ID != "" || len(d.Body) != 0 {
			t.Errorf("check delivered %+v", d)
		}
	}
	for _, c := range w.issuer.Calls() {
		if c.IdempotencyKey != "" || len(c.Body) != 0 {
			t.Errorf("check told the issuer %+v", c)
		}
	}

	// What does not stop the relay is a warning.
	code, out, errs = w.check(w.yaml[:strings.Index(w.yaml, "  vapid:")] + w.yaml[strings.Index(w.yaml, "  allow_private"):])
	if want := "warning  push.vapid: there are no keys: nothing will be pushed"; code != 0 || !strings.Contains(out, want) || !strings.Contains(out, "is good") {
		t.Errorf("exit %d: %s%s\nwant %q", code, out, errs, want)
	}
}

// TestCheckFaults: each fault stands under the line of its key, and says what to do.
func TestCheckFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	line := func(yaml, key string) int { return 1 + strings.Count(yaml[:strings.Index(yaml, key)], "\n") }
	fault := func(name, yaml, key, at, want string) {
		t.Helper()
		code, out, errs := w.check(yaml)
		if want := fmt.Sprintf("relay.yaml:%d: %s: %s", line(yaml, at), key, want); code != 1 || !strings.Contains(errs, want) || strings.Contains(out, "is good") {
			t.Errorf("%s: exit %d: %s%s\nwant %q", name, code, out, errs, want)
		}
	}
	away := freeport.Address(t)
	fault("no target", replaceURL(w.yaml, "name: core, url: ", "http://"+away+"/hook"),
		"forward.targets[0].url", "name: core", "cannot be reached: connection refused; check the address")
	fault("no issuer", replaceURL(w.yaml, "base_url: ", "http://"+away), "merchants.acme.issuer_api.base_url", "base_url:", "cannot be reached: connection refused")
	fault("no Redis", replaceURL(w.yaml, "redis: {url: ", "redis://"+away), "redis.url", "redis: {", "no answer: ")

	evicting := redistest.Start(t, "--maxmemory-policy", "allkeys-lru")
	fault("eviction", replaceURL(w.yaml, "redis: {url: ", evicting.URL), "redis.url", "redis: {", "maxmemory-policy is allkeys-lru, it must be noeviction")
}

// replaceURL puts another URL behind a key.
func replaceURL(yaml, before, url string) string {
	i := strings.Index(yaml, before) + len(before)
	end := i + 1 + strings.Index(yaml[i+1:], `"`) + 1
	return yaml[:i] + `"` + url + `"` + yaml[end:]
}

// TestCheckClock: a skewed clock is worth a word, and no fault.
func TestCheckClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for offset, want := range map[time.Duration]string{time.Minute: "ahead of this machine's", -time.Minute: "behind this machine's"} {
		redis := miniredis.RunT(t)
		redis.SetTime(time.Now().Add(offset))
		_, out, errs := w.check(replaceURL(w.yaml, "redis: {url: ", "redis://"+redis.Addr()))
		if !strings.Contains(out, "warning  redis.url: its clock is ") || !strings.Contains(out, want) {
			t.Errorf("%s%s\nwant %q", out, errs, want)
		}
	}
}

func TestCheckJWKS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	for body, want := range map[string]string{
		fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","x":%q,"y":%q}]}`, b64(point[1:33]), b64(point[33:])): "ok       auth.jwt.jwks_url: 1 keys",
		`{"keys":[]}`:     "auth.jwt.jwks_url: api: the key set holds no key",
		`<html>login`:     "auth.jwt.jwks_url: api: the key set is no JSON",
		"not found (404)": "auth.jwt.jwks_url: api: the key set answers with status 404",
	} {
		idp := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			if strings.HasPrefix(body, "not found") {
				rw.WriteHeader(http.StatusNotFound)
			}
			_, _ = io.WriteString(rw, body)
		}))
		t.Cleanup(idp.Close)
		code, out, errs := w.check(strings.Replace(w.yaml, fmt.Sprintf("hs256_secret: %q", jwtSecret), fmt.Sprintf("jwks_url: %q", idp.URL), 1))
		if good := strings.HasPrefix(want, "ok"); good != (code == 0) || !strings.Contains(out+errs, want) {
			t.Errorf("%s: exit %d: %s%s\nwant %q", body, code, out, errs, want)
		}
	}
}
