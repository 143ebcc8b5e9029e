package relay

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

var testLives = Lifetimes{
	TTL: map[ChallengeKind]time.Duration{ThreeDS: 300 * time.Second, CardVerification: 600 * time.Second},
	Max: 600 * time.Second,
}

func testMerchant() *Merchant {
	return &Merchant{Name: "acme", Mapping: DefaultMapping(), Actions: map[string]ChallengeKind{"CARD_3DS": ThreeDS, "CARD_VERIFICATION": CardVerification}}
}

// Every vector is quarantined, or becomes a challenge with the expected method
// and expiry.
func TestInterpretVectors(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/payloads.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	quarantined := 0
	for _, v := range vectors {
		r := Interpret(testMerchant(), v.Type, v.Payload, testLives, testNow)
		if v.Expect["quarantined"] == true {
			quarantined++
			if r.Quarantine == "" {
				t.Errorf("%s: understood as %s", v.Name, r.Method)
			}
			continue
		}
		if r.Quarantine != "" {
			t.Errorf("%s: quarantined: %s", v.Name, r.Quarantine)
			continue
		}
		kind := map[string]ChallengeKind{"CARD_3DS": ThreeDS, "CARD_VERIFICATION": CardVerification}[v.Type]
		if !r.Action || r.Kind != kind || r.Method != Method(v.Expect["method"].(string)) {
			t.Errorf("%s: action %v, kind %s, method %s; want %s", v.Name, r.Action, r.Kind, r.Method, v.Expect["method"])
		}
		if ms, ok := v.Expect["expires_ms"]; ok && float64(r.ExpiresAt.UnixMilli()) != ms {
			t.Errorf("%s: expires at %d, want %.0f", v.Name, r.ExpiresAt.UnixMilli(), ms)
		}
	}
	if quarantined != 5 || len(vectors) != 18 {
		t.Fatalf("%d of %d vectors are quarantined, want 5 of 18", quarantined, len(vectors))
	}
}

func TestQuarantine(t *testing.T) {
	t.Parallel()
	const payment = `{"card_id":"c-1","amount":"5.00","currency":"EUR"}`
	for _, tc := range []struct {
		name, typ, body string
		method          Method
		want            string // a part of the reason, "" for none
	}{
		{name: "understood", typ: "CARD_3DS", body: payment},
		{name: "every character a name may have", typ: "a-Z.0:9_", body: payment},
		{name: "no type", typ: "", body: payment, want: "not a name"},
		{name: "type too long", typ: strings.Repeat("A", 65), body: payment, want: "not a name"},
		{name: "longest type", typ: strings.Repeat("A", 64), body: payment},
		{name: "control character in the type", typ: "CARD_3DS\n", body: payment, want: "not a name"},
		{name: "NUL in the type", typ: "CARD\x003DS", body: payment, want: "not a name"},
		{name: "space in the type", typ: "CARD 3DS", body: payment, want: "not a name"},
		{name: "letters that only look alike", typ: "СARD_3DS", body: payment, want: "not a name"},
		{name: "our own prefix", typ: "relay.challenge.approved", body: payment, want: "the relay's own"},
		{name: "our own prefix in capitals", typ: "RELAY.challenge.approved", body: payment, want: "the relay's own"},
		{name: "our own prefix in between", typ: "ReLaY.x", body: payment, want: "the relay's own"},
		{name: "merely beginning alike", typ: "relayed", body: payment},
		{name: "not JSON", typ: "CARD_3DS", body: `{"otp":"045435"`, want: "not valid JSON"},
		{name: "nothing", typ: "CARD_3DS", body: ``, want: "not valid JSON"},
		{name: "a string", typ: "CARD_3DS", body: `"045435"`, want: "a JSON string"},
		{name: "a list", typ: "TRANSACTION_CREATED", body: `[1]`, want: "a JSON array"},
		{name: "two values", typ: "CARD_3DS", body: payment + payment, want: "after its JSON value"},
		{name: "neither card nor user", typ: "CARD_3DS", body: `{"amount":1,"currency":"EUR"}`, want: "neither a card nor a user"},
		{name: "a masked card number names no card", typ: "CARD_3DS", body: `{"cardNo":"5555********4444","amount":1,"currency":"EUR"}`, want: "neither a card nor a user"},
		{name: "a user is enough", typ: "CARD_3DS", body: `{"user_id":1,"amount":1,"currency":"EUR"}`},
		{name: "approve without amount", typ: "CARD_3DS", body: `{"card_id":1,"currency":"EUR"}`, want: "no amount and currency"},
		{name: "approve without currency", typ: "CARD_3DS", body: `{"card_id":1,"amount":1}`, want: "no amount and currency"},
		{name: "a code needs neither", typ: "CARD_3DS", body: `{"card_id":1,"otp":"045435"}`},
		{name: "code under another type", typ: "TRANSACTION_CREATED", body: `{"card_id":1,"otp":"045435"}`, want: "a code or a challenge link"},
		{name: "link under another type", typ: "TRANSACTION_CREATED", body: `{"card_id":1,"auth_url":"https://acs.example/1"}`, want: "a code or a challenge link"},
		{name: "forced to a code that is missing", typ: "CARD_3DS", body: payment, method: MethodOTP, want: "it has none"},
		{name: "forced to a link that is missing", typ: "CARD_3DS", body: payment, method: MethodURL, want: "it has none"},
		{name: "forced to approve what has no amount", typ: "CARD_3DS", body: `{"card_id":1,"otp":"045435"}`, method: MethodApprove, want: "no amount and currency"},
		{name: "forced method on other types", typ: "TRANSACTION_CREATED", body: payment, method: MethodOTP},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := testMerchant()
			m.Method = tc.method
			r := Interpret(m, tc.typ, []byte(tc.body), testLives, testNow)
			if (r.Quarantine == "") != (tc.want == "") || !strings.Contains(r.Quarantine, tc.want) {
				t.Fatalf("quarantined for %q, want %q", r.Quarantine, tc.want)
			}
			if strings.Contains(r.Quarantine, "045435") {
				t.Errorf("the reason quotes the code: %s", r.Quarantine)
			}
		})
	}
}

func TestMethod(t *testing.T) {
	t.Parallel()
	const (
		code = `"otp":"045435"`
		link = `"auth_url":"https://acs.example/1"`
		sum  = `"amount":"5.00","currency":"EUR"`
	)
	for _, tc := range []struct {
		name   string
		parts  []string
		forced Method
		want   Method
	}{
		{"an amount", []string{sum}, "", MethodApprove},
		{"a code", []string{code, sum}, "", MethodOTP},
		{"a link", []string{link, sum}, "", MethodURL},
		{"a code and a link", []string{code, link}, "", MethodOTP},
		{"forced approve hides the code", []string{code, sum}, MethodApprove, MethodApprove},
		{"forced link", []string{code, link}, MethodURL, MethodURL},
		{"forced code", []string{code, link, sum}, MethodOTP, MethodOTP},
	} {
		m := testMerchant()
		m.Method = tc.forced
		body := `{"card_id":1,` + strings.Join(tc.parts, ",") + `}`
		if r := Interpret(m, "CARD_3DS", []byte(body), testLives, testNow); r.Method != tc.want || r.Quarantine != "" {
			t.Errorf("%s: method %s, quarantine %q; want %s", tc.name, r.Method, r.Quarantine, tc.want)
		}
	}
}

func TestActionTypesAreConfigured(t *testing.T) {
	t.Parallel()
	m := testMerchant()
	m.Actions = map[string]ChallengeKind{"OOB": CardVerification}
	body := []byte(`{"card_id":1,"otp":"045435"}`)
	if r := Interpret(m, "OOB", body, testLives, testNow); !r.Action || r.Kind != CardVerification || r.Quarantine != "" {
		t.Errorf("the configured type: action %v, kind %s, quarantine %q", r.Action, r.Kind, r.Quarantine)
	}
	for _, typ := range []string{"CARD_3DS", "oob"} {
		if r := Interpret(m, typ, body, testLives, testNow); r.Action || r.Quarantine == "" {
			t.Errorf("%s: action %v, quarantine %q; want its code to be suspicious", typ, r.Action, r.Quarantine)
		}
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	at := func(name string, d time.Duration) string {
		return `,"` + name + `":"` + testNow.Add(d).Format(time.RFC3339Nano) + `"`
	}
	for _, tc := range []struct {
		name, typ, times string
		want             time.Duration // from the arrival
	}{
		{"nothing known", "CARD_3DS", "", 300 * time.Second},
		{"a kind of its own", "CARD_VERIFICATION", "", 600 * time.Second},
		{"from when it happened", "CARD_3DS", at("occur_time", -100*time.Second), 200 * time.Second},
		{"the issuer's own", "CARD_3DS", at("expires_at", 150*time.Second), 150 * time.Second},
		{"the issuer's own is longer than ours", "CARD_3DS", at("expires_at", 450*time.Second), 450 * time.Second},
		{"never more than the most", "CARD_3DS", at("expires_at", time.Hour), 600 * time.Second},
		{"the most counts from when it happened", "CARD_3DS", at("occur_time", -100*time.Second) + at("expires_at", time.Hour), 500 * time.Second},
		{"the future counts as now", "CARD_3DS", at("occur_time", time.Hour), 300 * time.Second},
		{"past on arrival", "CARD_3DS", at("occur_time", -300*time.Second), 0},
		{"long past", "CARD_3DS", at("occur_time", -24*time.Hour), 300*time.Second - 24*time.Hour},
		{"the issuer's own is past", "CARD_3DS", at("expires_at", -time.Second), -time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			body := `{"card_id":1,"otp":"045435"` + tc.times + `}`
			r := Interpret(testMerchant(), tc.typ, []byte(body), testLives, testNow)
			if got := r.ExpiresAt.Sub(testNow); got != tc.want || r.Quarantine != "" {
				t.Fatalf("expires %v after its arrival, quarantine %q; want %v", got, r.Quarantine, tc.want)
			}
			if r.Fields.Occurred.After(testNow) {
				t.Errorf("it is to have happened in the future: %v", r.Fields.Occurred)
			}
			c := r.challenge(Event{ID: newID(prefixEvent, 0, testNow), ReceivedAt: testNow, CardID: "1"}, Secret{Body: []byte(body)})
			want := Pending
			if tc.want <= 0 {
				want = Expired
			}
			if c.Status != want || (c.Secret.Body == nil) != c.Status.Final() {
				t.Errorf("status %s, secret kept %v; want %s", c.Status, c.Secret.Body != nil, want)
			}
		})
	}
}

func TestCardIDIsNeverACardNumber(t *testing.T) {
	t.Parallel()
	root := testRoot(t)
	const pan = "4111111111111111"
	token := cardID(root, "acme", pan)
	if !strings.HasPrefix(token, "pan_") || strings.Contains(token, "1111") {
		t.Errorf("a card number became %q", token)
	}
	for _, same := range []string{"4111 1111 1111 1111", "4111-1111-1111-1111"} {
		if got := cardID(root, "acme", same); got != token {
			t.Errorf("cardID(%q) = %q, want the token of the bare number", same, got)
		}
	}
	if cardID(root, "other", pan) == token {
		t.Error("two merchants share the token of one card")
	}
	for _, id := range []string{"", "67890", "c-1", "4111111111111112", "pan_abc"} {
		if got := cardID(root, "acme", id); got != id {
			t.Errorf("cardID(%q) = %q, want it unchanged", id, got)
		}
	}
}
