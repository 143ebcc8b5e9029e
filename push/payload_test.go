package push

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"pgregory.net/rapid"
)

var announced = Notice{
	Phase: Announce, ChallengeID: "chl_01J", Kind: "three_ds", Method: "approve", Status: "pending",
	Amount: "100.20", Currency: "USD", Payee: "Sephora Digital", Last4: "4242",
	ExpiresAt:   time.Date(2026, 1, 2, 4, 4, 5, 999, time.FixedZone("CET", 3600)),
	ActionToken: "act_token", PublicURL: "https://relay.example.com",
}

func TestPayloadGolden(t *testing.T) {
	t.Parallel()
	const want = `{"notification":{"title":"Approve 100.20 USD?","body":"Sephora Digital · card ····4242",` +
		`"navigate":"https://relay.example.com/app/#/challenges/chl_01J","tag":"chl_01J","lang":"en","dir":"ltr","silent":false},` +
		`"challenge":{"id":"chl_01J","kind":"three_ds","method":"approve","status":"pending","expires_at":"2026-01-02T03:04:05Z","action_token":"act_token"}}`
	if got := string(announced.Payload(false)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// Safari gives a worker the notification alone.
	apple := func(plain string) string {
		_, parts, _ := strings.Cut(plain, `"silent":false},`)
		return `{"web_push":8030,"mutable":true,` + strings.Replace(plain, `"silent":false}`, `"silent":false,"data":{`+parts+"}", 1)[1:]
	}
	if got, want := string(announced.Payload(true)), apple(want); got != want {
		t.Errorf("apple: got  %s\nwant %s", got, want)
	}
	ended := announced
	ended.Phase, ended.Status, ended.OTP = Ended, "approved", "045435"
	const wantEnded = `{"notification":{"title":"Approved","body":"100.20 USD · Sephora Digital · card ····4242",` +
		`"navigate":"https://relay.example.com/app/#/challenges/chl_01J","tag":"chl_01J","lang":"en","dir":"ltr","silent":true},` +
		`"challenge":{"id":"chl_01J","kind":"three_ds","method":"approve","status":"approved","expires_at":"2026-01-02T03:04:05Z"}}`
	if got := string(ended.Payload(false)); got != wantEnded {
		t.Errorf("got  %s\nwant %s", got, wantEnded)
	}
	const wantActivation = `{"notification":{"title":"Notifications are on","body":"Payment approvals will appear on this device",` +
		`"navigate":"https://relay.example.com/app/","tag":"activation","lang":"en","dir":"ltr","silent":false},"activation":{"id":"sub_1","code":"c0de"}}`
	if got := string(ActivationPayload("sub_1", "c0de", "", "https://relay.example.com/", false)); got != wantActivation {
		t.Errorf("got  %s\nwant %s", got, wantActivation)
	}
	if got, want := string(ActivationPayload("sub_1", "c0de", "", "https://relay.example.com", true)), apple(wantActivation); got != want {
		t.Errorf("apple: got  %s\nwant %s", got, want)
	}
	const wantTest = `{"web_push":8030,"mutable":true,"notification":{"title":"Test notification","body":"Notifications work on this device",` +
		`"navigate":"https://relay.example.com/app/","tag":"test","lang":"en","dir":"ltr","silent":false}}`
	if got := string(TestPayload("en-GB", "https://relay.example.com", true)); got != wantTest {
		t.Errorf("got  %s\nwant %s", got, wantTest)
	}
}

func TestNotificationText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		n           Notice
		title, body string
	}{
		{"approve", Notice{Method: "approve", Amount: "100.20", Currency: "USD", Payee: "Shop", Last4: "4242"}, "Approve 100.20 USD?", "Shop · card ····4242"},
		{"approve, no payee", Notice{Method: "approve", Amount: "5", Currency: "EUR", Last4: "4242"}, "Approve 5 EUR?", "Card ····4242"},
		{"approve, no card", Notice{Method: "approve", Amount: "5", Currency: "EUR", Payee: "Shop"}, "Approve 5 EUR?", "Shop"},
		{"approve, no currency", Notice{Method: "approve", Amount: "5"}, "Approve 5?", "Open to see it"},
		{"approve, nothing", Notice{Method: "approve"}, "Payment approval needed", "Open to see it"},
		{"currency alone", Notice{Method: "approve", Currency: "EUR"}, "Payment approval needed", "Open to see it"},
		{"otp", Notice{Kind: "three_ds", Method: "otp", Amount: "50", Currency: "USD", OTP: "045435"}, "Your code for 50 USD is ready", "Open to see it"},
		{"otp, no amount", Notice{Kind: "three_ds", Method: "otp"}, "Your code is ready", "Open to see it"},
		{"wallet", Notice{Kind: "card_verification", Method: "otp", Wallet: "googlePay", Last4: "4242"}, "Your code for Google Pay is ready", "Card ····4242"},
		{"wallet, spelt otherwise", Notice{Kind: "card_verification", Method: "otp", Wallet: "APPLE_PAY"}, "Your code for Apple Pay is ready", "Open to see it"},
		{"other wallet", Notice{Kind: "card_verification", Method: "otp", Wallet: "Garmin Pay"}, "Your code for Garmin Pay is ready", "Open to see it"},
		{"no wallet", Notice{Kind: "card_verification", Method: "otp"}, "Your code is ready", "Open to see it"},
		{"url", Notice{Method: "url", Amount: "12.5", Currency: "EUR"}, "Confirm 12.5 EUR", "Open to see it"},
		{"url, no amount", Notice{Method: "url"}, "Payment confirmation needed", "Open to see it"},
		{"url, wallet", Notice{Kind: "card_verification", Method: "url", Wallet: "applePay"}, "Confirm your card for Apple Pay", "Open to see it"},
		{"whole card number", Notice{Method: "approve", Amount: "1", Currency: "EUR", Last4: "4242424242424242"}, "Approve 1 EUR?", "Open to see it"},
		{"amount too long to show", Notice{Method: "approve", Amount: strings.Repeat("1", 60), Currency: "EUR"}, "Payment approval needed", "Open to see it"},
		{"minimal approve", Notice{Minimal: true, Method: "approve", Amount: "1", Currency: "EUR", Payee: "Shop", Last4: "4242"}, "Payment approval needed", "Open to see it"},
		{"minimal otp", Notice{Minimal: true, Method: "otp", Amount: "1", Currency: "EUR", Payee: "Shop"}, "Your code is ready", "Open to see it"},
		{"minimal ended", Notice{Minimal: true, Phase: Ended, Status: "rejected", Amount: "1", Currency: "EUR", Payee: "Shop"}, "Rejected", "Open to see it"},
		{"ended", Notice{Phase: Ended, Status: "expired", Amount: "1", Currency: "EUR", Payee: "Shop"}, "Expired", "1 EUR · Shop"},
		{"completed", Notice{Phase: Ended, Status: "completed"}, "Completed", "Open to see it"},
		{"cancelled", Notice{Phase: Ended, Status: "cancelled"}, "Cancelled", "Open to see it"},
		{"failed", Notice{Phase: Ended, Status: "failed"}, "Could not be confirmed", "Open to see it"},
		{"blocked", Notice{Phase: Blocked, Status: "pending", Amount: "1", Currency: "EUR", Payee: "Shop"}, "Approving is blocked: the passkey failed 5 times", "1 EUR · Shop"},
		{"minimal blocked", Notice{Minimal: true, Phase: Blocked, Amount: "1", Currency: "EUR", Payee: "Shop"}, "Approving is blocked: the passkey failed 5 times", "Open to see it"},
		{"another status", Notice{Phase: Ended, Status: "confirming"}, "Already answered", "Open to see it"},
		{"controls", Notice{Method: "approve", Amount: "1", Currency: "EUR", Payee: " A\u202eB\u2066C\u200b\x00\x1b[1m\nD\tE\xff "}, "Approve 1 EUR?", "ABC[1m D E"},
		{"only controls", Notice{Method: "approve", Amount: "1", Currency: "EUR", Payee: "\u202e\n"}, "Approve 1 EUR?", "Open to see it"},
		{"other scripts", Notice{Method: "approve", Amount: "1", Currency: "JPY", Payee: "東京\u3000ストア"}, "Approve 1 JPY?", "東京 ストア"},
		{"long payee", Notice{Method: "approve", Amount: "1", Currency: "EUR", Payee: strings.Repeat("é", 81)}, "Approve 1 EUR?", strings.Repeat("é", 79) + "…"},
	} {
		title, body := c.n.text()
		if title != c.title || body != c.body {
			t.Errorf("%s: %q / %q, want %q / %q", c.name, title, body, c.title, c.body)
		}
	}
}

func TestOTPOnlyWhereItBelongs(t *testing.T) {
	t.Parallel()
	n := announced
	n.Method, n.OTP = "otp", "045435"
	var p struct {
		Notification json.RawMessage
		Challenge    struct{ OTP string }
	}
	if err := json.Unmarshal(n.Payload(false), &p); err != nil {
		t.Fatal(err)
	}
	if p.Challenge.OTP != "045435" || strings.Contains(string(p.Notification), "045435") {
		t.Errorf("code in challenge %q, notification %s", p.Challenge.OTP, p.Notification)
	}
}

// Whatever comes in: valid JSON of at most one record, nothing invisible in the
// visible text, and no secret once a challenge has ended.
func TestPayloadProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := func(label string) string {
			return strings.Repeat(rapid.String().Draw(t, label), rapid.SampledFrom([]int{1, 1, 1, 50, 2000}).Draw(t, label+" times"))
		}
		n := Notice{
			Phase: rapid.SampledFrom([]Phase{Announce, Ended}).Draw(t, "phase"), ChallengeID: text("id"), Kind: text("kind"),
			Method: rapid.SampledFrom([]string{"approve", "otp", "url", "\xff"}).Draw(t, "method"), Status: text("status"),
			Amount: text("amount"), Currency: text("currency"), Payee: text("payee"), Last4: text("last4"), Wallet: text("wallet"),
			ExpiresAt: time.Unix(rapid.Int64().Draw(t, "expires"), 0), PublicURL: text("url"), Minimal: rapid.Bool().Draw(t, "minimal"),
			ActionToken: "TOKEN~" + text("token"), OTP: "OTP~" + text("otp"),
			Lang: rapid.SampledFrom([]string{"en", "de", "fr", "es", "zh", text("lang")}).Draw(t, "lang"),
		}
		apple := rapid.Bool().Draw(t, "apple")
		for _, payload := range [][]byte{n.Payload(apple), ActivationPayload(n.ChallengeID, n.OTP, n.Lang, n.PublicURL, apple), TestPayload(n.Lang, n.PublicURL, apple)} {
			var p struct {
				WebPush      int `json:"web_push"`
				Mutable      bool
				Notification notification
			}
			if err := json.Unmarshal(payload, &p); err != nil || len(payload) > MaxPayload {
				t.Fatalf("%d bytes: %v", len(payload), err)
			}
			if p.Mutable != apple || (p.WebPush == 8030) != apple || p.Notification.Title == "" || p.Notification.Body == "" || p.Notification.Navigate == "" {
				t.Fatalf("payload %s", payload)
			}
			if strings.ContainsFunc(p.Notification.Title+p.Notification.Body, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("invisible characters in %q / %q", p.Notification.Title, p.Notification.Body)
			}
		}
		if out := string(n.Payload(apple)); n.Phase == Ended && (strings.Contains(out, "TOKEN~") || strings.Contains(out, "OTP~")) {
			t.Fatal("a secret after the end")
		}
	})
}

func TestPayloadThatDoesNotFitLosesTheTokenFirst(t *testing.T) {
	t.Parallel()
	n := announced
	n.ActionToken = strings.Repeat("t", MaxPayload)
	var p body
	if err := json.Unmarshal(n.Payload(false), &p); err != nil {
		t.Fatal(err)
	}
	if p.Challenge == nil || p.Challenge.ID != n.ChallengeID || p.Challenge.ActionToken != "" || p.Notification.Title != "Approve 100.20 USD?" {
		t.Errorf("payload %s", n.Payload(false))
	}
}

func TestTopic(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, id := range []string{"", "chl_01J", "chl_01K", strings.Repeat("x", 5000)} {
		topic := Topic(id)
		if !regexp.MustCompile(`^[A-Za-z0-9_-]{32}$`).MatchString(topic) || topic != Topic(id) || seen[topic] || id != "" && strings.Contains(topic, id) {
			t.Errorf("Topic(%q) = %q", id, topic)
		}
		seen[topic] = true
	}
}
