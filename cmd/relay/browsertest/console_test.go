package browsertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"approvalrelay/cmd/relay/sim"
)

// The operator's console, in Chromium, on a real relay.

// console is where a page of it is.
func (w *world) console(page string) string { return w.admin + "/console/#/" + page }

// newOperator opens a tab that fails the test for what the page's script throws,
// and for what its Content-Security-Policy stops.
func newOperator(t testing.TB) *tab {
	t.Helper()
	b := newTab(t)
	if err := chromedp.Listen(b.ctx, func(ev any) {
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("the page's script failed: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception)
		case *cdplog.EventEntryAdded:
			if e.Entry.Source == cdplog.EntrySourceSecurity {
				t.Errorf("the page's policy: %s", e.Entry.Text)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	b.must(chromedp.Call(b.ctx, cdplog.Enable, cdp.Empty{}))
	return b
}

// ops is the ops API, as the operator's own scripts use it.
func (w *world) ops(method, path string, into any) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.admin+"/ops/v1/"+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= 300 {
		w.t.Fatalf("%s %s: %d %s %v", method, path, res.StatusCode, answer, err)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			w.t.Fatalf("%s %s: %v", method, path, err)
		}
	}
}

// receive sends any event as the issuer does, and returns the answer's status and
// the event's id.
func (w *world) receive(typ string, payload map[string]any) (status, eventID string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), shownTime)
	defer cancel()
	answer, err := w.issuer.Post(ctx, w.base, typ, payload)
	if err != nil || answer.Status != http.StatusOK {
		w.t.Fatalf("%s was answered %d %s: %v", typ, answer.Status, answer.Raw, err)
	}
	status, _ = answer.Body["status"].(string)
	eventID, _ = answer.Body["event_id"].(string)
	return status, eventID
}

// phone turns notifications on for a user on a device without a browser, and
// returns the device.
func (w *world) phone(user string) *sim.Device {
	w.t.Helper()
	device := w.push.Subscribe(w.pushURL)
	var sub struct{ ID string }
	w.call(http.MethodPost, "/v1/push/subscriptions", user, json.RawMessage(device.JSON()), &sub)
	ctx, cancel := context.WithTimeout(context.Background(), shownTime)
	defer cancel()
	if err := device.Wait(ctx, 1); err != nil {
		w.t.Fatal(err)
	}
	var got struct{ Activation struct{ Code string } }
	if err := json.Unmarshal(device.Notifications()[0].Raw, &got); err != nil {
		w.t.Fatal(err)
	}
	w.call(http.MethodPost, "/v1/push/subscriptions/"+sub.ID+"/activate", user, map[string]string{"code": got.Activation.Code}, nil)
	return device
}

// approve answers the user's only challenge, and returns its id.
func (w *world) approve(user string) string {
	w.t.Helper()
	id := w.pendingID(user)
	w.call(http.MethodPost, "/v1/challenges/"+id+"/approve", user, map[string]any{}, nil)
	return id
}

// deadTarget makes a second target that nobody answers at, and gives it up soon.
var deadTarget = []string{"targets: [", `targets: [{name: ledger, url: "http://127.0.0.1:1/hook", events: ["*"], retry: [20ms], secrets: ["` + webhookSecret + `"]}, `}

// lackingCard names no card that the relay knows to look for.
func lackingCard(user string) map[string]any {
	return map[string]any{
		"plastic": "card-of-" + user, "occur_time": time.Now().UnixMilli(), "auth_id": "ref-" + user,
		"merchant_name": "Sephora Digital", "transaction_amount": "77.00", "transaction_currency": "978", "otp_phone": "4915112345678",
	}
}

// busy makes a relay that has seen a bit of everything.
func (w *world) busy() (name, card, ended string) {
	w.t.Helper()
	name, card = "10293847", "crd_8f2c91d07a"
	device := w.phone(name)
	first := payment(name, card, "Sephora Digital", "100.20")
	w.post(first)
	ctx, cancel := context.WithTimeout(context.Background(), shownTime)
	defer cancel()
	if err := device.Wait(ctx, 2); err != nil {
		w.t.Fatal(err)
	}
	ended = w.approve(name)
	w.awaitConfirm(first, approved)
	w.post(payment(name, card, "NameSilo", "50.00"))
	w.call(http.MethodPost, "/v1/challenges/"+w.pendingID(name)+"/reject", name, map[string]any{"reason": "cancelled"}, nil)
	w.post(payment(name, card, "A Shop With A Name That Is Much Longer Than Any Screen Of A Phone Is Wide GmbH & Co. KG", "1234567.89"))
	recharge := map[string]any{"card_id": card, "user_id": name, "occur_time": time.Now().UnixMilli(), "amount": "25.00", "currency": "USD", "trade_no": "20260703-5512"}
	w.receive("CARD_RECHARGE_RESULT", recharge)
	w.receive("CARD_RECHARGE_RESULT", recharge)
	if status, _ := w.receive("CARD_3DS", lackingCard(name)); status != "quarantined" {
		w.t.Fatalf("an event without a card is %s, want it in quarantine", status)
	}
	forged := bytes.Replace(w.issuer.Seal("CARD_3DS", recharge), []byte(`"hmac":"`), []byte(`"hmac":"0`), 1)
	if answer, err := w.issuer.Send(ctx, w.base, forged); err != nil || answer.Status != http.StatusUnauthorized {
		w.t.Fatalf("a forged webhook: %d %v", answer.Status, err)
	}
	w.awaitStats("a dead letter", func(s stats) bool { return s.DeadLetters > 0 })
	return name, card, ended
}

// stats is what a test reads of them.
type stats struct {
	DeadLetters int `json:"dead_letters"`
	Targets     []struct {
		Name, Status string
		Waiting      int
	}
	Series []struct{ Events, Approved int }
}

func (w *world) awaitStats(what string, good func(stats) bool) {
	w.t.Helper()
	if !until(2*shownTime, func() bool {
		var s stats
		w.ops(http.MethodGet, "stats", &s)
		return good(s)
	}) {
		w.t.Fatalf("the stats do not show %s within %s", what, 2*shownTime)
	}
}

// confirmAs answers the question that an action asks.
func (b *tab) confirmAs(operator, button string) {
	b.t.Helper()
	var dialog []node
	if !until(shownTime, func() bool { dialog = b.find(nil, "dialog"); return len(dialog) == 1 }) {
		b.t.Fatalf("nothing is asked within %s; the page says:\n%s", shownTime, b.text())
	}
	eval[bool](b, fmt.Sprintf("(document.getElementById('ask-name').value = %q, true)", operator))
	b.clickIn(&dialog[0], button)
}

// says waits until the result of an action, in the live region, holds the text.
func (b *tab) says(text string) {
	b.t.Helper()
	var said string
	if !until(shownTime, func() bool {
		said = eval[string](b, "document.getElementById('result').innerText")
		return strings.Contains(said, text)
	}) {
		b.t.Fatalf("the result is %q after %s, want %q; the page says:\n%s", said, shownTime, text, b.text())
	}
}

// TestConsolePages looks at every page in each of its states, narrow and wide,
// light and dark, as TestEveryState does.
func TestConsolePages(t *testing.T) {
	t.Parallel()
	idle, w := newWorld(t), newWorld(t, deadTarget...)
	name, card, ended := w.busy()
	w.awaitStats("what happened", func(s stats) bool {
		return len(s.Series) > 0 && s.Series[len(s.Series)-1].Events > 0 && s.Series[len(s.Series)-1].Approved > 0
	})
	var forwarded, dead struct{ Data []struct{ ID string } }
	w.ops(http.MethodGet, "events?outcome=forwarded", &forwarded)
	w.ops(http.MethodGet, "deliveries?status=dead", &dead)
	var held struct{ Data []struct{ ID string } }
	w.ops(http.MethodGet, "events?outcome=quarantined", &held)
	pages := []struct {
		name  string
		w     *world
		at    string
		sees  string
		click string
	}{
		{"overview", w, "overview", "dead letter", ""},
		{"overview-idle", idle, "overview", "No webhook was accepted", ""},
		{"events", w, "events", "duplicate", ""},
		{"events-none", w, "events?type=NONE", "No event matches", ""},
		{"event-forwarded", w, "event?id=" + forwarded.Data[0].ID, "trade_no", ""},
		{"event-quarantined", w, "event?id=" + held.Data[0].ID, "plastic", ""},
		{"event-unknown", w, "event?id=evt_none", "no such record", ""},
		{"search-user", w, "search?q=" + name, "Events of the user", ""},
		{"search-card", w, "search?q=" + card, "belongs to", ""},
		{"search-none", w, "search?q=nothing", "Nothing is known", ""},
		{"challenges", w, "challenges", "Sephora", ""},
		{"challenge-ended", w, "challenge?id=" + ended, "Confirm to the issuer", ""},
		{"challenge-pending", w, "challenge?id=" + w.pendingID(name), "Announced", ""},
		{"quarantine", w, "quarantine", "action-requiring", ""},
		{"quarantine-none", idle, "quarantine", "Nothing is in quarantine", ""},
		{"deadletters", w, "deadletters", "ledger", ""},
		{"deadletters-none", idle, "deadletters", "No dead letters", ""},
		{"deliveries", w, "deliveries", "core", ""},
		{"delivery", w, "delivery?id=" + dead.Data[0].ID, "no answer", ""},
		{"targets", w, "targets", "ledger", ""},
		{"question", w, "targets", "ledger", "Pause core"},
		{"cardholders", w, "cardholders", "Import card owners", ""},
		{"cardholder", w, "cardholder?merchant=acme&user=" + name, "endpoint", ""},
		{"cardholder-none", w, "cardholder?merchant=acme&user=nobody", "No device", ""},
		{"system", w, "system", "Retention", ""},
	}
	for _, p := range pages {
		t.Run(p.name, func(t *testing.T) {
			b := newOperator(t)
			b.open(p.w.console(p.at))
			if p.name == "cardholder" {
				b.sees(strings.TrimPrefix(p.w.pushURL, "http://"), "127.0.0.1")
			} else {
				b.sees(p.sees)
			}
			if p.click != "" {
				b.click(p.click)
				b.awaitButton(nil, "Go back", true)
			}
			b.lookAround("console-" + p.name)
		})
	}
}

// lookAround inspects the page in a narrow and a wide window, light and dark.
func (b *tab) lookAround(name string) {
	b.t.Helper()
	for _, v := range []viewport{narrow, wide} {
		for _, scheme := range []string{"light", "dark"} {
			b.size(v)
			b.scheme(scheme)
			b.settle()
			b.inspect(fmt.Sprintf("%s-%d-%s", name, v.width, scheme))
		}
	}
}
