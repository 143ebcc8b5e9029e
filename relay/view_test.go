package relay

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func fullChallenge() Challenge {
	east := time.FixedZone("east", 3*3600)
	c := pendingChallenge(MethodApprove)
	c.ID = "chl_1"
	c.CardID, c.Last4, c.Payee, c.Country, c.Amount, c.Currency, c.Reference = "67890", "4242", "Sephora Digital", "FR", "100.20", "USD", "4868798"
	c.OccurredAt, c.CreatedAt, c.ExpiresAt = testNow.In(east), testNow.In(east), testExpiry.In(east)
	return c
}

func TestView(t *testing.T) {
	t.Parallel()
	const pending = `{"id":"chl_1","kind":"three_ds","method":"approve","status":"pending",` +
		`"card":{"id":"67890","last4":"4242"},"payee":{"name":"Sephora Digital","country":"FR"},` +
		`"amount":{"value":"100.20","currency":"USD"},"reference":"4868798","wallet":null,` +
		`"occurred_at":"2026-11-18T11:06:40Z","created_at":"2026-11-18T11:06:40Z","expires_at":"2026-11-18T11:11:40Z","revealed_at":null,` +
		`"decision":null,"failure":null}`
	if got := encode(t, fullChallenge().View()); got != pending {
		t.Errorf("a pending one is\n%s, want\n%s", got, pending)
	}

	const bare = `{"id":"chl_1","kind":"","method":"","status":"","card":{"id":null,"last4":null},"payee":null,"amount":null,"reference":null,"wallet":null,` +
		`"occurred_at":null,"created_at":"0001-01-01T00:00:00Z","expires_at":"0001-01-01T00:00:00Z","revealed_at":null,"decision":null,"failure":null}`
	if got := encode(t, Challenge{ID: "chl_1"}.View()); got != bare {
		t.Errorf("what is unknown is\n%s, want\n%s", got, bare)
	}
}

func TestViewOfTheEnded(t *testing.T) {
	t.Parallel()
	amount := "100.2"
	d := Decision{Action: Approve, Device: Device{SubscriptionID: "sub_1", IP: "192.0.2.1", UserAgent: "Agent"}, Shown: &Shown{Amount: &amount}}
	c := must(t)(fullChallenge().Decide(d, true, false, testNow.Add(time.Second)))
	c = c.Confirmed(&Failure{Code: IssuerRefused, Detail: "Refused."}, testNow.Add(2*time.Second))

	const decision = `"decision":{"action":"approve","reason":null,"decided_at":"2026-11-18T11:06:41Z","shown":{"amount":"100.2"}}`
	const failure = `"failure":{"code":"issuer_refused","detail":"Refused."}`
	mine := encode(t, c.View())
	if !strings.Contains(mine, decision) || !strings.Contains(mine, failure) {
		t.Errorf("the cardholder's view is\n%s", mine)
	}
	for _, hidden := range []string{"192.0.2.1", "sub_1", "Agent", `"merchant"`, `"user_id"`} {
		if strings.Contains(mine, hidden) {
			t.Errorf("the cardholder's view shows %s", hidden)
		}
	}

	operators := encode(t, c.OperatorView())
	for _, shown := range []string{`"merchant":"acme"`, `"user_id":"u1"`, `"device":{"subscription_id":"sub_1","ip":"192.0.2.1","user_agent":"Agent"}`} {
		if !strings.Contains(operators, shown) {
			t.Errorf("the operator's view is without %s:\n%s", shown, operators)
		}
	}
	if again := encode(t, c.View()); again != mine {
		t.Error("the operator's view changed the cardholder's")
	}
}

func TestOwnEvent(t *testing.T) {
	t.Parallel()
	c := pendingChallenge(MethodOTP)
	ev := c.ownEvent("created", 3, testNow)
	body := string(ev.Secret.Body)
	if ev.Type != "relay.challenge.created" || ev.Outcome != OutcomeOwn || ev.Merchant != "acme" || !strings.HasPrefix(ev.ID, prefixEvent) {
		t.Errorf("the event is %+v", ev)
	}
	if p, ok := PartitionOf(ev.ID); !ok || p != 3 {
		t.Errorf("its partition is %d, want the challenge's", p)
	}
	if !strings.Contains(body, `"user_id":"u1"`) || !strings.Contains(body, c.ID) || strings.Contains(body, "045435") {
		t.Errorf("its data is %s", body)
	}
	if other := c.ownEvent("created", 3, testNow); other.ID == ev.ID {
		t.Error("two events share an id")
	}
}
