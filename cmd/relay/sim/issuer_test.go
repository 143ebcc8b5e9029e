package sim

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
)

var testSecret = []byte("0123456789abcdef0123456789abcdef")

// confirm is a call of the issuer's API as the merchant seals it.
func confirm(t *testing.T, url, idempotencyKey, plaintext string) *http.Request {
	t.Helper()
	key, err := newEnvelopeKey(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	payload, mac := key.seal([]byte(plaintext))
	request := httptest.NewRequest(http.MethodPost, url, bytes.NewReader(mustMarshal(map[string]string{"encrypted_payload": payload})))
	request.Header.Set("Merchant-ID", "id")
	request.Header.Set("X-HMAC", mac)
	request.Header.Set("Idempotency-Key", idempotencyKey)
	return request
}

// The vectors were sealed by another implementation.
func TestEnvelopeVectors(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../../crypto/testdata/envelopes.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Secret, Encoding, Expect, Plaintext string
		Envelope                                  struct {
			Payload string `json:"encrypted_payload"`
			HMAC    string
		}
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	decode := map[string]func(string) ([]byte, error){
		"utf8": func(s string) ([]byte, error) { return []byte(s), nil },
		"hex":  hex.DecodeString, "base64": base64.StdEncoding.DecodeString,
	}
	want := map[string]error{"ok": nil, "invalid_signature": errHMAC, "malformed_envelope": errMalformed}
	seen := make(map[string]int)
	for _, v := range vectors {
		secret, err := decode[v.Encoding](v.Secret)
		if err != nil {
			t.Fatal(err)
		}
		key, err := newEnvelopeKey(secret)
		if err != nil {
			t.Fatal(err)
		}
		plaintext, err := key.open(v.Envelope.Payload, v.Envelope.HMAC)
		if !errors.Is(err, want[v.Expect]) || err == nil && string(plaintext) != v.Plaintext {
			t.Errorf("%s: opened to %q, %v", v.Name, plaintext, err)
		}
		seen[v.Expect]++
	}
	if seen["ok"] == 0 || seen["invalid_signature"] == 0 || seen["malformed_envelope"] == 0 {
		t.Errorf("vectors are missing: %v", seen)
	}
}

func FuzzEnvelope(f *testing.F) {
	key, err := newEnvelopeKey(testSecret)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", "x", `{"a":1}`, strings.Repeat("y", 16), "AQEBAQEBAQEBAQEBAQEBAU9tUcOd35IYbzPR2hasQNz2BXg7DGAH1mstcX8hFUJ1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		payload, mac := key.seal([]byte(text))
		if opened, err := key.open(payload, mac); err != nil || string(opened) != text {
			t.Fatalf("sealed and opened: %q, %v", opened, err)
		}
		if _, err := key.open(text, hex.EncodeToString(key.sum(text))); err != nil && !errors.Is(err, errMalformed) {
			t.Fatalf("authentic text: %v", err)
		}
	})
}

func TestIssuerPost(t *testing.T) {
	t.Parallel()
	key, _ := newEnvelopeKey(testSecret)
	var bodies [][]byte
	relay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies = append(bodies, body)
		envelope, err := object(body)
		if err != nil || r.URL.EscapedPath() != "/webhooks/a%2Fb" || envelope["type"] != "CARD_3DS" {
			t.Errorf("webhook %s: %v, %v", r.URL, envelope, err)
			return
		}
		plaintext, err := key.open(envelope["encrypted_payload"].(string), envelope["hmac"].(string))
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusTeapot)
		w.Write(plaintext)
	}))
	defer relay.Close()
	i := NewIssuer("a/b", testSecret, "id")
	for _, payload := range []any{map[string]any{"card_id": 67890}, []byte(`{"card_id":67890}`)} {
		answer, err := i.Post(t.Context(), relay.URL+"/", "CARD_3DS", payload)
		if err != nil || answer.Status != http.StatusTeapot || answer.Body["card_id"] != json.Number("67890") || string(answer.Raw) != `{"card_id":67890}` {
			t.Errorf("answer %+v, %v", answer, err)
		}
	}
	if bytes.Equal(bodies[0], bodies[1]) {
		t.Error("two webhooks share an IV")
	}
	if _, err := i.Send(t.Context(), relay.URL, bodies[0]); err != nil || !bytes.Equal(bodies[2], bodies[0]) {
		t.Errorf("a sealed body is not sent as it is: %v", err)
	}
}

func TestIssuerAnswersSealed(t *testing.T) {
	t.Parallel()
	i := NewIssuer("acme", testSecret, "id")
	i.Behave(func(n int, path string) Behaviour {
		if path != "/card/confirm" {
			t.Errorf("asked about %q", path)
		}
		return map[int]Behaviour{2: {Status: 422}, 3: {BadHMAC: true}}[n]
	})
	for n, want := range []struct {
		status    int
		content   string
		authentic bool
	}{{200, "success", true}, {422, "error", true}, {200, "", false}} {
		answer := httptest.NewRecorder()
		i.ServeHTTP(answer, confirm(t, "http://issuer/card/confirm", "k", `{"auth_result":2}`))
		sealed, err := object(answer.Body.Bytes())
		if err != nil || answer.Code != want.status {
			t.Fatalf("call %d answered %d, %v", n, answer.Code, err)
		}
		plaintext, err := i.key.open(sealed["encrypted_payload"].(string), sealed["hmac"].(string))
		if (err == nil) != want.authentic {
			t.Fatalf("call %d: answer opens with %v", n, err)
		}
		if content, _ := object(plaintext); want.authentic && content["status"] != want.content {
			t.Errorf("call %d answered %s", n, plaintext)
		}
		if call := i.Calls()[n]; call.Fault != "" || call.Path != "/card/confirm" || call.IdempotencyKey != "k" ||
			call.Status != want.status || call.Body["auth_result"] != json.Number("2") {
			t.Errorf("recorded %+v", call)
		}
	}
}

func TestIssuerRefuses(t *testing.T) {
	t.Parallel()
	body := func(s string) func(*http.Request) {
		return func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(s)) }
	}
	for name, c := range map[string]struct {
		plaintext string
		change    func(*http.Request)
	}{
		"merchant unknown":     {`{}`, func(r *http.Request) { r.Header.Set("Merchant-ID", "other") }},
		"merchant missing":     {`{}`, func(r *http.Request) { r.Header.Del("Merchant-ID") }},
		"hmac missing":         {`{}`, func(r *http.Request) { r.Header.Del("X-HMAC") }},
		"hmac wrong":           {`{}`, func(r *http.Request) { r.Header.Set("X-HMAC", strings.Repeat("00", 32)) }},
		"hmac not hex":         {`{}`, func(r *http.Request) { r.Header.Set("X-HMAC", "zz") }},
		"body not JSON":        {`{}`, body("hello")},
		"body without payload": {`{}`, body(`{"payload":"x"}`)},
		"plaintext not JSON":   {`hello`, func(*http.Request) {}},
		"plaintext an array":   {`[1]`, func(*http.Request) {}},
		"plaintext null":       {`null`, func(*http.Request) {}},
		"plaintext two values": {`{} {}`, func(*http.Request) {}},
	} {
		i := NewIssuer("acme", testSecret, "id")
		i.Behave(func(int, string) Behaviour { return Behaviour{Status: 200} }) // must not help
		request := confirm(t, "http://issuer/confirm", "k", c.plaintext)
		c.change(request)
		answer := httptest.NewRecorder()
		i.ServeHTTP(answer, request)
		if call := i.Calls()[0]; answer.Code != 400 || call.Fault == "" || call.Body != nil || i.Faults() != 1 {
			t.Errorf("%s: answered %d, recorded %+v", name, answer.Code, call)
		}
	}
}

func TestIssuerFirstCallWins(t *testing.T) {
	t.Parallel()
	i := NewIssuer("acme", testSecret, "id")
	i.Behave(func(n int, _ string) Behaviour {
		if n == 1 {
			return Behaviour{Status: 503}
		}
		return Behaviour{}
	})
	for n, c := range []struct {
		path, key, body string
		status          int
		conflict        bool
	}{
		{"/confirm", "k1", `{"a":2,"b":"x"}`, 503, false},
		{"/confirm", "k1", `{"b":"x", "a":2}`, 200, false},
		{"/confirm", "k1", `{"a":3,"b":"x"}`, 409, true},
		{"/confirm", "k1", `{"a":2,"b":"x"}`, 200, false},
		{"/confirm", "k2", `{"a":3,"b":"x"}`, 200, false},
		{"/lock", "k1", `{"status":"LOCKED"}`, 200, false},
		{"/confirm", "", `{"a":1}`, 200, false},
		{"/confirm", "", `{"a":2}`, 200, false},
	} {
		answer := httptest.NewRecorder()
		i.ServeHTTP(answer, confirm(t, "http://issuer"+c.path, c.key, c.body))
		if call := i.Calls()[n]; answer.Code != c.status || call.Status != c.status || call.Conflict != c.conflict {
			t.Errorf("call %d answered %d, recorded %+v", n, answer.Code, call)
		}
	}
	if i.Faults() != 1 {
		t.Errorf("%d faults, want the conflict only", i.Faults())
	}
}

func TestIssuerRefusesShortSecrets(t *testing.T) {
	t.Parallel()
	mustPanic(t, "a secret of 15 bytes", func() { NewIssuer("acme", testSecret[:15], "id") })
}

func TestFirstCallsAreBounded(t *testing.T) {
	t.Parallel()
	var f firstCalls
	call := func(n int, body string) Call {
		return Call{IdempotencyKey: strconv.Itoa(n), Body: map[string]any{"a": body}}
	}
	for n := range maxFirstCalls + 1 {
		f.contradicts(call(n, "first"))
	}
	if len(f.bodies) != maxFirstCalls || len(f.ring) != maxFirstCalls {
		t.Errorf("remembers %d keys", len(f.bodies))
	}
	if !f.contradicts(call(1, "other")) || f.contradicts(call(0, "other")) {
		t.Error("forgot another key than the oldest")
	}
}
