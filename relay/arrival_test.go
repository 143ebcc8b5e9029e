package relay

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"approvalrelay/crypto"
)

// stillStore is enough of a store to decide about an arrival.
type stillStore struct{ Store }

func (stillStore) Now() time.Time  { return testNow.Add(300 * time.Microsecond) }
func (stillStore) Partitions() int { return 16 }

func arrive(t *testing.T, root crypto.Root, merchant, typ, body string) Arrival {
	t.Helper()
	s := New(Options{Lives: testLives, Duplicates: 72 * time.Hour}, stillStore{}, slog.New(slog.DiscardHandler))
	m := testMerchant()
	m.Name = merchant
	return s.arrival(m, Webhook{Merchant: merchant, Type: typ}, []byte(body), root, s.store.Now())
}

func testRoot(t *testing.T) crypto.Root {
	t.Helper()
	root, err := crypto.NewRoot(crypto.GenerateKey())
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Content that says nothing of when or what is forgotten soon, so that a second
// equal purchase can be paid.
func TestHowLongContentIsRemembered(t *testing.T) {
	t.Parallel()
	root := testRoot(t)
	for name, tc := range map[string]struct {
		body string
		want time.Duration
	}{
		"a reference":          {`{"card_id":1,"otp":"045435","auth_id":"a"}`, 72 * time.Hour},
		"a time":               {`{"card_id":1,"otp":"045435","occur_time":1795000000000}`, 72 * time.Hour},
		"neither":              {`{"card_id":1,"otp":"045435"}`, 600 * time.Second},
		"an unacceptable time": {`{"card_id":1,"otp":"045435","occur_time":0}`, 600 * time.Second},
	} {
		a := arrive(t, root, "acme", "CARD_3DS", tc.body)
		if a.Fingerprint == nil || a.Remember != tc.want {
			t.Errorf("%s: remembered for %v, fingerprint %v; want %v", name, a.Remember, a.Fingerprint != nil, tc.want)
		}
	}
	for name, body := range map[string]string{"not JSON": "{", "no card": `{"otp":"045435"}`, "no amount": `{"card_id":1}`} {
		a := arrive(t, root, "acme", "CARD_3DS", body)
		again := arrive(t, root, "acme", "not a name", body)
		if a.Event.Outcome != OutcomeQuarantined || !bytes.Equal(a.Fingerprint, again.Fingerprint) || a.Partition != again.Partition {
			t.Errorf("%s: outcome %s, known again: %v", name, a.Event.Outcome, bytes.Equal(a.Fingerprint, again.Fingerprint))
		}
	}
}

func TestFingerprintIsOfTheContent(t *testing.T) {
	t.Parallel()
	root := testRoot(t)
	one := arrive(t, root, "acme", "CARD_3DS", `{"card_id":1,"amount":5,"currency":"EUR"}`)
	for name, tc := range map[string]struct {
		merchant, typ, body string
		same                bool
	}{
		"another type":         {"acme", "TRANSACTION_CREATED", `{"card_id":1,"amount":5,"currency":"EUR"}`, true},
		"another order":        {"acme", "CARD_3DS", "{\"currency\" : \"EUR\",\n\"amount\":5, \"card_id\":1}", true},
		"another merchant":     {"other", "CARD_3DS", `{"card_id":1,"amount":5,"currency":"EUR"}`, false},
		"another amount":       {"acme", "CARD_3DS", `{"card_id":1,"amount":6,"currency":"EUR"}`, false},
		"one field more":       {"acme", "CARD_3DS", `{"card_id":1,"amount":5,"currency":"EUR","x":null}`, false},
		"a number as a string": {"acme", "CARD_3DS", `{"card_id":"1","amount":5,"currency":"EUR"}`, false},
	} {
		a := arrive(t, root, tc.merchant, tc.typ, tc.body)
		if bytes.Equal(a.Fingerprint, one.Fingerprint) != tc.same {
			t.Errorf("%s: the same %v, want %v", name, !tc.same, tc.same)
		}
		if tc.same && a.Partition != one.Partition {
			t.Errorf("%s: in partition %d, the first is in %d", name, a.Partition, one.Partition)
		}
	}
	if !one.Event.ReceivedAt.Equal(testNow) || !one.Challenge.CreatedAt.Equal(testNow) {
		t.Errorf("received at %v, want whole milliseconds, as the store keeps them", one.Event.ReceivedAt)
	}
}

func TestWhatTeachesAnOwner(t *testing.T) {
	t.Parallel()
	root := testRoot(t)
	earlier := testNow.Add(-time.Minute)
	for name, tc := range map[string]struct {
		typ, body string
		want      time.Time
		undated   bool
	}{
		"card and user":       {"CARD_ASSIGN_RESULT", `{"card_id":1,"user_id":2,"status":"SUCCESS"}`, testNow, true},
		"by when it happened": {"CARD_ASSIGN_RESULT", `{"card_id":1,"user_id":2,"occur_time":"` + earlier.Format(time.RFC3339) + `"}`, earlier, false},
		"the future is now":   {"CARD_ASSIGN_RESULT", `{"card_id":1,"user_id":2,"occur_time":"2100-01-01T00:00:00Z"}`, testNow, false},
		"a challenge, too":    {"CARD_3DS", `{"card_id":1,"user_id":2,"otp":"045435"}`, testNow, true},
		"a failure":           {"CARD_ASSIGN_RESULT", `{"card_id":1,"user_id":2,"status":"FAILED"}`, time.Time{}, false},
		"no user":             {"CARD_ASSIGN_RESULT", `{"card_id":1}`, time.Time{}, false},
		"no card":             {"CARD_ASSIGN_RESULT", `{"user_id":2}`, time.Time{}, false},
		"quarantined":         {"CARD_ASSIGN_RESULT", `{"card_id":1,"user_id":2,"otp":"045435"}`, time.Time{}, false},
	} {
		if a := arrive(t, root, "acme", tc.typ, tc.body); !a.LearnAt.Equal(tc.want) || a.Undated != tc.undated {
			t.Errorf("%s: teaches as of %v, undated %v; want %v, %v", name, a.LearnAt, a.Undated, tc.want, tc.undated)
		}
	}
}
