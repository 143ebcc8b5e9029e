package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/relay"
	"approvalrelay/relay/redisstore"
	"approvalrelay/relay/storetest/freeport"
)

func TestWebhookReceipts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	same := payload(nil)
	first := decodeAs[receipt](b.webhook("acme", b.envelope("CARD_3DS", same)).status(200))
	if first.Status != relay.Accepted || !strings.HasPrefix(first.EventID, "evt_") {
		t.Errorf("%+v", first)
	}
	again := decodeAs[receipt](b.webhook("acme", b.envelope("OTHER", same)).status(200))
	if again.Status != relay.Duplicate || again.EventID != first.EventID {
		t.Errorf("%+v, want a duplicate of %s", again, first.EventID)
	}
	elsewhere := decodeAs[receipt](b.webhook("other", b.envelope("CARD_3DS", same)).status(200))
	if elsewhere.Status != relay.Accepted {
		t.Errorf("%+v: merchants share their duplicates", elsewhere)
	}
	unknown := decodeAs[receipt](b.webhook("acme", b.envelope("SOMETHING_NEW", payload(nil))).status(200))
	if unknown.Status != relay.Accepted {
		t.Errorf("%+v", unknown)
	}
	for name, body := range map[string]string{
		"not an object":                   b.envelopeOf("CARD_3DS", []byte("[1]")),
		"not JSON":                        b.envelopeOf("CARD_3DS", []byte("hello")),
		"nothing":                         b.envelopeOf("CARD_3DS", nil),
		"no card and no user":             b.envelope("CARD_3DS", payload(map[string]any{"card_id": nil, "user_id": nil})),
		"approve without an amount":       b.envelope("CARD_3DS", payload(map[string]any{"amount": nil})),
		"approve without a currency":      b.envelope("CARD_3DS", payload(map[string]any{"currency": nil})),
		"a code under another type":       b.envelope("TRANSACTION_CREATED", payload(map[string]any{"otp": "045435"})),
		"a link under another type":       b.envelope("TRANSACTION_CREATED", payload(map[string]any{"auth_url": "https://acs.example.com/x"})),
		"no type":                         strings.Replace(b.envelope("CARD_3DS", payload(nil)), `"type":"CARD_3DS"`, `"x":1`, 1),
		"a type that is a number":         strings.Replace(b.envelope("CARD_3DS", payload(nil)), `"type":"CARD_3DS"`, `"type":7`, 1),
		"a type that is not a name":       b.envelope("CARD 3DS\n", payload(nil)),
		"a type that looks like our own":  b.envelope("relay.challenge.approved", payload(nil)),
		"a payload that repeats a secret": b.envelopeOf("CARD_3DS", []byte(`{"otp":"045435"`)),
	} {
		r := decodeAs[receipt](b.webhook("acme", body).status(200))
		if r.Status != relay.Quarantined {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestWebhookRefusals(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	good := b.envelope("CARD_3DS", payload(nil))
	other := newRing(t, "another secret..")
	sealed, mac, err := other.Seal([]byte("{}"))
	must(t, err)
	signed := func(text string) string { // authentic, whatever it is
		return asJSON(t, map[string]string{"encrypted_payload": text, "type": "X", "hmac": hmacOf("0123456789abcdef", text)})
	}
	var malformed string
	for name, body := range map[string]string{
		"empty":                      "",
		"not JSON":                   "hello",
		"cut off":                    good[:len(good)-1],
		"null":                       "null",
		"a list":                     "[" + good + "]",
		"a text":                     `"x"`,
		"data after it":              good + "{}",
		"no payload":                 `{"type":"X","hmac":"00"}`,
		"payload null":               `{"encrypted_payload":null,"type":"X","hmac":"00"}`,
		"payload a number":           `{"encrypted_payload":1,"type":"X","hmac":"00"}`,
		"payload an object":          `{"encrypted_payload":{},"type":"X","hmac":"00"}`,
		"not base64":                 signed("!!!!"),
		"empty payload":              signed(""),
		"an IV only":                 signed("AAAAAAAAAAAAAAAAAAAAAA=="),
		"no whole number of blocks":  signed("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="[:40] + "AAA="),
		"bad padding":                signed("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
		"base64 of the URL alphabet": signed("____________________________________________"),
	} {
		a := b.webhook("acme", body).problem(400, "malformed_envelope")
		if malformed == "" {
			malformed = withoutRequestID(t, a)
		}
		if got := withoutRequestID(t, a); got != malformed {
			t.Errorf("%s: %s differs from %s", name, got, malformed)
		}
	}
	for name, body := range map[string]string{
		"another secret": asJSON(t, map[string]string{"encrypted_payload": sealed, "type": "X", "hmac": mac}),
		"no hmac":        strings.Replace(good, `"hmac"`, `"x"`, 1),
		"hmac a number":  `{"encrypted_payload":"AAAA","type":"X","hmac":1}`,
		"hmac null":      `{"encrypted_payload":"AAAA","type":"X","hmac":null}`,
		"hmac empty":     `{"encrypted_payload":"AAAA","type":"X","hmac":""}`,
		"hmac not hex":   `{"encrypted_payload":"AAAA","type":"X","hmac":"` + strings.Repeat("z", 64) + `"}`,
		"hmac too short": `{"encrypted_payload":"AAAA","type":"X","hmac":"00"}`,
		"hmac wrong":     `{"encrypted_payload":"AAAA","type":"X","hmac":"` + strings.Repeat("0", 64) + `"}`,
	} {
		if a := b.webhook("acme", body).problem(401, "invalid_signature"); a.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: WWW-Authenticate on a webhook", name)
		}
	}
	b.webhook("nobody", good).problem(404, "unknown_merchant")
	b.webhook("ACME", good).problem(404, "unknown_merchant")
	b.webhook("", good).problem(404, "not_found")
	for _, method := range []string{"GET", "PUT", "DELETE", "PATCH", "HEAD"} {
		a := b.call(request{method: method, path: "/webhooks/acme"}).status(405)
		if a.Header.Get("Allow") != "POST" {
			t.Errorf("%s: Allow %q", method, a.Header.Get("Allow"))
		}
		if method != "HEAD" {
			a.problem(405, "method_not_allowed")
		}
	}
	if log := b.log.String(); !strings.Contains(log, `"msg":"webhook refused","merchant":"acme","code":"invalid_signature"`) {
		t.Error("a refused webhook is not logged")
	}
	b.webhook("acme", good).status(200)
}

func TestWebhookTooLarge(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.webhook("acme", strings.Repeat("x", 4<<10)).problem(400, "malformed_envelope")
	a := b.webhook("acme", strings.Repeat("x", 4<<10+1)).problem(413, "too_large")
	if a.Header.Get("X-Request-Id") == "" {
		t.Error("no request id")
	}
	// Without a length the limit is found while reading.
	req, err := http.NewRequest("POST", b.public.URL+"/webhooks/acme", io.MultiReader(strings.NewReader(strings.Repeat("x", 64<<10))))
	must(t, err)
	resp, err := b.public.Client().Do(req)
	must(t, err)
	defer resp.Body.Close()
	if resp.StatusCode != 413 || !resp.Close {
		t.Errorf("status %d, closed %t", resp.StatusCode, resp.Close)
	}
}

// TestWebhookRateLimit: beyond it nothing is read or opened, and each merchant
// has its own.
func TestWebhookRateLimit(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.webhook("slow", b.envelope("X", payload(nil))).status(200)
	a := b.webhook("slow", b.envelope("X", payload(nil))).problem(429, "rate_limited")
	if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || seconds < 90 || seconds > 100 {
		t.Errorf("Retry-After %q at one in 100 s", a.Header.Get("Retry-After"))
	}
	b.webhook("slow", strings.Repeat("x", 64<<10)).problem(429, "rate_limited")
	b.webhook("slow", strings.Replace(b.envelope("X", payload(nil)), `"hmac":"`, `"hmac":"00`, 1)).problem(429, "rate_limited")
	for _, l := range b.lines("webhook refused") {
		if l["code"] != "rate_limited" || l["type"] != nil {
			t.Errorf("beyond the limit something was read: %v", l)
		}
	}
	b.webhook("acme", b.envelope("X", payload(nil))).status(200)
	b.webhook("other", b.envelope("X", payload(nil))).status(200)
}

// answerBy is the two seconds that the issuer is promised, and one for a machine
// that runs all tests at once.
const answerBy = 3 * time.Second

// TestStoreAway: the issuer is told within two seconds, whichever way Redis is away.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	must(t, err)
	defer silent.Close()
	vault, err := crypto.NewVault(crypto.GenerateKey())
	must(t, err)
	for name, addr := range map[string]string{"silent": silent.Addr().String(), "refusing": freeport.Address(t)} {
		t.Run(name, func(t *testing.T) {
			log := slog.New(slog.NewTextHandler(io.Discard, nil))
			store, err := redisstore.Open(redisstore.Options{URL: "redis://" + addr + "/0", Prefix: "relay", Partitions: 1, Vault: vault, Node: "n", Log: log})
			must(t, err)
			defer store.Close()
			ring := newRing(t, "0123456789abcdef")
			server := newServer(t, newService(t, store, ring, log), &clock{}, log)
			b := &bed{t: t, server: server, ring: ring, public: httptest.NewServer(server.Public())}
			defer b.public.Close()
			start := time.Now()
			a := b.webhook("acme", b.envelope("X", payload(nil))).problem(503, "store_unavailable")
			if took := time.Since(start); took > answerBy {
				t.Errorf("took %s", took)
			}
			if a.Header.Get("Retry-After") != "5" {
				t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
			}
		})
	}
}

// TestReceivingIsBounded: with every place taken, a webhook waits no longer than
// the issuer does.
func TestReceivingIsBounded(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for range maxReceiving {
		b.server.receiving <- struct{}{}
	}
	forged := strings.Replace(b.envelope("X", payload(nil)), `"hmac":"`, `"hmac":"00`, 1)
	for _, body := range []string{b.envelope("X", payload(nil)), forged} { // no HMAC is computed either
		start := time.Now()
		b.webhook("acme", body).problem(503, "store_unavailable")
		if took := time.Since(start); took > answerBy {
			t.Errorf("took %s", took)
		}
	}
	<-b.server.receiving
	b.webhook("acme", forged).problem(401, "invalid_signature")
	b.webhook("acme", b.envelope("X", payload(nil))).status(200)
}

func FuzzWebhookBody(f *testing.F) {
	for _, plain := range []string{`{"card_id":"1","amount":"5","currency":"USD"}`, `[]`, ``, `{"otp":"0454","card_id":1}`} {
		f.Add([]byte(`{"encrypted_payload":"AAAA","type":"CARD_3DS","hmac":"`+hmacOf("0123456789abcdef", "AAAA")+`"}`), []byte(plain))
	}
	f.Add([]byte(`{"encrypted_payload":1}`), []byte("null"))
	f.Add([]byte("\x00\xff{"), []byte(`{"data":{"card_id":"4111111111111111"}}`))
	b := newBed(f)
	f.Fuzz(func(t *testing.T, body, plain []byte) {
		sealed, mac, err := b.ring.Seal(plain)
		must(t, err)
		authentic := `{"encrypted_payload":"` + sealed + `","type":"CARD_3DS","hmac":"` + mac + `"}`
		for _, text := range []string{string(body), authentic} {
			w := httptest.NewRecorder()
			b.server.Public().ServeHTTP(w, httptest.NewRequest("POST", "/webhooks/acme", strings.NewReader(text)))
			if w.Code >= 500 || w.Code == 429 {
				t.Errorf("status %d for %q: %s", w.Code, text, w.Body)
			}
			if text == authentic && len(text) <= 4<<10 && w.Code != 200 {
				t.Errorf("an authentic event got %d: %s", w.Code, w.Body)
			}
		}
	})
}

// hmacOf signs any text as the issuer would.
func hmacOf(secret, text string) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil))
}
