package relay

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"approvalrelay/crypto"
)

// still is a store of which only the clock and the number of partitions are asked.
type still struct{ Store }

func (still) Now() time.Time  { return time.UnixMilli(1_795_000_000_000).UTC() }
func (still) Partitions() int { return 16 }

// FuzzArrival: whatever an authentic body and its type are, it is decided without a
// fault what is stored, and outside of what is sealed stands no card number but
// under a name that may have numbers of that form, nor a code or a link.
func FuzzArrival(f *testing.F) {
	for _, typ := range []string{"CARD_3DS", "CARD_VERIFICATION", "CARD_ACTIVATE_RESULT", "relay.x", "4111111111111111", ""} {
		for _, body := range []string{
			`{"card_id":"4111111111111111","user_id":"u1","otp":"0q7Zk9P4","note":"code 0q7Zk9P4"}`,
			`{"cardNo":"4111 1111 1111 1111","amount":"100.20","currency":"USD","merchant_name":"Shop 5555555555554444"}`,
			`{"card_id":1,"auth_url":"https://acs.example/0q7Zk9P4","walletProvider":"4111111111111111","merchant_country":"USA"}`,
			`{"card_number":"4111111111111111","4111111111111111":{"0q7Zk9P4":"0q7Zk9P4"},"code":"0q7Zk9P4"}`,
			`{"data":{"customer_id":7,"values":"0q7Zk9P4","expirationTime":1795000100000}}`, `{"otp":"0q7Zk9P4"`,
		} {
			f.Add(typ, []byte(body))
		}
	}
	root, err := crypto.NewRoot(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		f.Fatal(err)
	}
	m := &Merchant{Name: "acme", Mapping: DefaultMapping(), Actions: map[string]ChallengeKind{"CARD_3DS": ThreeDS, "CARD_VERIFICATION": CardVerification}}
	s := &Service{store: still{}, Options: Options{
		Lives:      Lifetimes{TTL: map[ChallengeKind]time.Duration{ThreeDS: 300 * time.Second, CardVerification: 600 * time.Second}, Max: 600 * time.Second},
		Duplicates: 72 * time.Hour, Targets: []Target{{Name: "core", Events: []string{"*", "relay.*", "CARD_3DS"}}, {Name: "raw", Events: []string{"CARD_3DS"}, Envelope: true}},
	}}
	f.Fuzz(func(t *testing.T, typ string, body []byte) {
		a := s.arrival(m, Webhook{Merchant: "acme", Type: typ, Raw: []byte(`{"hmac":""}`)}, body, root, still{}.Now())
		fields := Fields{}
		if p, err := ParsePayload(body); err == nil {
			fields = m.Mapping.Read(p)
		}
		if a.Fingerprint == nil || a.Challenge != nil && a.Event.Outcome != OutcomeChallenge {
			t.Errorf("%s, fingerprint %x, challenge %v", a.Event.Outcome, a.Fingerprint, a.Challenge != nil)
		}
		if p, ok := PartitionOf(a.Event.ID); !ok || p != a.Partition {
			t.Errorf("event %s in partition %d", a.Event.ID, a.Partition)
		}
		if c := a.Challenge; c != nil && (c.CardID == "" && c.UserID == "" || c.ExpiresAt.After(still{}.Now().Add(600*time.Second)) ||
			c.Method == MethodApprove && (c.Amount == "" || c.Currency == "")) {
			t.Errorf("challenge %+v", c)
		}
		clear := []any{a.Event, a.Challenge, a.Owe}
		for _, own := range a.Own {
			clear = append(clear, own)
		}
		stored, err := json.Marshal(clear)
		if err != nil {
			t.Fatal(err)
		}
		var list []any
		dec := json.NewDecoder(bytes.NewReader(stored))
		dec.UseNumber()
		if err := dec.Decode(&list); err != nil {
			t.Fatal(err)
		}
		checkClear(t, "", list, fields)
	})
}

// asCame are the members that hold the issuer's own ids and numbers as they came: by
// chance one is like a card number, or like a code. A card's id is never one whole.
var asCame = map[string]bool{"ca": true, "u": true, "re": true, "am": true}

func checkClear(t *testing.T, key string, v any, f Fields) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			checkClear(t, k, e, f)
		}
	case []any:
		for _, e := range v {
			checkClear(t, key, e, f)
		}
	case string:
		if _, ours := PartitionOf(v); ours {
			return // random, and so by chance like anything
		}
		if holdsPAN(v) && !asCame[key] || LooksLikePAN(v) && key == "ca" {
			t.Errorf("%s: %q is stored in clear", key, v)
		}
		if !asCame[key] && (f.URL != "" && strings.Contains(v, f.URL) || f.OTP == "0q7Zk9P4" && strings.Contains(v, f.OTP) && key != "ty") { // a type may be any word
			t.Errorf("%s: the code or the link is stored in clear: %q", key, v)
		}
	}
}
