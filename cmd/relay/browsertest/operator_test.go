package browsertest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/chromedp"

	"approvalrelay/cmd/relay/sim"
)

// What an operator does in the console, and what comes of it.

const operator = "Jörg 李"

// search types into the box at the top.
func (b *tab) search(text string) {
	b.t.Helper()
	b.awaitButton(nil, "Search", true)
	eval[bool](b, fmt.Sprintf("(document.getElementById('find-text').value = %q, true)", text))
	b.click("Search")
}

// follow presses the first link whose name holds the text.
func (b *tab) follow(text string) {
	b.t.Helper()
	var err error
	if !until(shownTime, func() bool {
		links := b.find(nil, "link", text)
		if len(links) == 0 {
			return false
		}
		err = b.press(links[0])
		return err == nil
	}) {
		b.t.Fatalf("no link %q could be pressed within %s (%v); the page says:\n%s", text, shownTime, err, b.text())
	}
}

// TestConsoleLifeOfAChallenge: from a user's name to why and when everything
// happened to the payment; and back, by the browser's button.
func TestConsoleLifeOfAChallenge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, card := user()
	device := w.phone(name)
	bought := payment(name, card, "Sephora Digital", "100.20")
	w.post(bought)
	ctx, cancel := context.WithTimeout(t.Context(), shownTime)
	defer cancel()
	if err := device.Wait(ctx, 2); err != nil {
		t.Fatal(err)
	}
	id := w.approve(name)
	w.awaitConfirm(bought, approved)

	b := newOperator(t)
	b.open(w.admin + "/console")
	b.sees("Webhooks, last minute")
	b.search(name)
	b.sees("Events of the user")
	b.follow("CARD_3DS")
	b.sees("Payload")
	if !b.shows(`"merchant_name": "Sephora Digital"`, "body is dropped") {
		t.Errorf("the event's page has neither its payload nor why not:\n%s", b.text())
	}
	b.follow(id)
	b.sees("\ntimeline\n")
	text := b.text()
	for _, want := range []string{"Webhook", "Announced", "a push to one device", "Push", "201 after", "Decision", "approve from 127.0.0.1", "Confirm to the issuer", `"status":"success"`, "approved"} {
		if !strings.Contains(text, want) {
			t.Errorf("the timeline lacks %q:\n%s", want, text)
		}
	}
	_, timeline, _ := strings.Cut(text, "\nTimeline\n")
	at := func(part string) int { return strings.Index(timeline, "\n"+part) }
	if !(at("Webhook") < at("Push") && at("Push") < at("Decision") && at("Decision") < at("Confirm")) {
		t.Errorf("the timeline is not in order:\n%s", text)
	}
	b.follow("Confirm to the issuer")
	b.sees("delivered")
	if err := chromedp.Do(b.ctx, chromedp.NavigateBack()); err != nil {
		t.Fatal(err)
	}
	b.sees("Timeline")
	b.search("4111 1111 1111 1111")
	b.says("full card number")
	if at := b.location(); strings.Contains(at, "4111") {
		t.Errorf("a card number is in the address: %s", at)
	}
	for _, other := range []string{id, strings.Replace(id, "chl_", "evt_", 1)} {
		b.search(other)
		if !until(shownTime, func() bool { return strings.HasSuffix(b.location(), "?id="+other) }) {
			t.Errorf("the search for %s leads to %s", other, b.location())
		}
	}
}

// TestConsoleWhyNoPush: who has only the console finds out why a cardholder was not
// told, be it that nobody could be, or that the push service did not take it.
func TestConsoleWhyNoPush(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newOperator(t)
	name, card := user()
	w.post(payment(name, card, "Sephora Digital", "100.20"))
	b.open(w.console("search?q=" + name))
	b.follow("CARD_3DS")
	b.follow("chl_")
	b.sees("to no device: ")
	b.follow(name)
	b.sees("No device of this cardholder gets pushes")

	name, card = user()
	w.phone(name)
	w.push.Behave(func(int, *sim.Device) sim.Behaviour { return sim.Behaviour{Status: http.StatusBadRequest} })
	w.post(payment(name, card, "NameSilo", "50.00"))
	b.open(w.console("challenges?user_id=" + name))
	b.follow("NameSilo")
	b.sees("400 after")
	b.sees("failed")
	b.lookAround("console-push-refused")
	b.size(wide)
	b.open(w.console("overview"))
	b.follow("1 dead letter")
	b.sees("Push to sub_")
}

// TestConsoleQuarantine: an event that cannot be understood says why; after the
// mapping was mended it becomes a challenge.
func TestConsoleQuarantine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, _ := user()
	lacking := lackingCard(name)
	if status, _ := w.receive("CARD_3DS", lacking); status != "quarantined" {
		t.Fatalf("the event is %s", status)
	}
	b := newOperator(t)
	b.open(w.console("overview"))
	b.follow("1 event in quarantine")
	b.sees("names neither a card nor a user")
	eval[bool](b, "(document.querySelector('details summary').click(), true)")
	b.sees("plastic")
	if page := eval[string](b, "document.documentElement.outerHTML"); strings.Contains(page, lacking["plastic"].(string)) || strings.Contains(page, "4915112345678") {
		t.Error("the page shows a value of what nobody could read")
	}
	b.follow("CARD_3DS")
	b.click("Replay")
	b.confirmAs(operator, "Replay")
	b.says("still cannot be understood")

	w.reconfigure("    issuer_api:", "    fields: {card_id: [plastic]}\n    issuer_api:")
	b.click("Replay")
	b.confirmAs(operator, "Replay")
	b.says("Replayed: accepted as evt_")
	b.sees("Replayed as")
	b.awaitButton(nil, "Replay", false)
	b.follow("evt_")
	b.follow("chl_")
	b.sees("its card belongs to nobody yet")
	b.click("Cancel challenge")
	b.confirmAs(operator, "Cancel challenge")
	b.says("cancelled")
	b.awaitButton(nil, "Cancel challenge", false)
}

// TestConsoleTarget: what is owed to a paused target grows before one's eyes, and
// goes out when it is resumed.
func TestConsoleTarget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newOperator(t)
	b.open(w.console("targets"))
	b.click("Pause core")
	b.click("Go back")
	b.awaitButton(nil, "Pause core", true)
	b.click("Pause core")
	b.confirmAs(operator, "Pause")
	b.says("core is paused")
	b.sees("paused by the operator")
	if !slices.ContainsFunc(strings.Split(w.log.String(), "\n"), func(line string) bool {
		return strings.Contains(line, `"operator action"`) && strings.Contains(line, "/pause") && strings.Contains(line, operator)
	}) {
		t.Errorf("the log does not say who paused the target:\n%s", w.log.String())
	}
	sent := 0
	send := func() {
		w.receive("CARD_STATUS_CHANGE", map[string]any{"card_id": fmt.Sprint("card-", sent), "occur_time": 1783075432123 + sent})
		sent++
	}
	var waiting int
	// Nodes hear of a pause within seconds. Until then one may wait, for a moment.
	w.awaitStats("that the target is paused", func(s stats) bool {
		send()
		waiting = s.Targets[0].Waiting + 1
		return waiting > 4
	})
	b.sees(fmt.Sprintf("%d waiting", waiting))
	before := len(w.core.Deliveries())
	for range 3 {
		send()
	}
	b.sees(fmt.Sprintf("%d waiting", waiting+3))
	if got := len(w.core.Deliveries()); got != before {
		t.Errorf("the paused target got %d events", got-before)
	}
	b.click("Resume core")
	b.confirmAs(operator, "Resume")
	b.says("core is active")
	b.sees("0 waiting")
	if !until(shownTime, func() bool { return len(w.core.Deliveries()) == sent }) {
		t.Errorf("the target got %d events after it was resumed, want %d", len(w.core.Deliveries()), sent)
	}
}

// TestConsoleDeadLetters: one is sent again, the rest of its target with one
// press, and one is dropped.
func TestConsoleDeadLetters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `events: ["*", "relay.*"]`, `retry: [20ms], events: ["*"]`)
	w.core.Behave(func(int, string) sim.Behaviour { return sim.Behaviour{Status: http.StatusTeapot} })
	const sent = 4
	var ids []string
	for i := range sent {
		_, id := w.receive("CARD_STATUS_CHANGE", map[string]any{"card_id": fmt.Sprint("card-", i), "occur_time": 1783075432123 + i})
		ids = append(ids, id)
	}
	w.awaitStats("dead letters", func(s stats) bool { return s.DeadLetters == sent })
	w.core.Behave(nil)
	delivered := func() (got int) {
		for _, d := range w.core.Deliveries() {
			if d.Status < 300 && slices.Contains(ids, d.ID) {
				got++
			}
		}
		return got
	}
	b := newOperator(t)
	b.open(w.console("overview"))
	b.follow(fmt.Sprintf("%d dead letters", sent))
	b.sees("2 attempts, the last: answered 418")
	press := func(which string) {
		t.Helper()
		var found []node
		if !until(shownTime, func() bool { found = b.find(nil, "button", which+": Forward to core"); return len(found) > 0 }) {
			t.Fatalf("no %s; the page says:\n%s", which, b.text())
		}
		if err := b.press(found[0]); err != nil {
			t.Fatal(err)
		}
		b.confirmAs(operator, which)
	}
	press("Replay")
	b.says("on its way again")
	w.awaitStats("one dead letter less", func(s stats) bool { return s.DeadLetters == sent-1 })
	press("Drop")
	b.says("dropped")
	w.awaitStats("two dead letters less", func(s stats) bool { return s.DeadLetters == sent-2 })
	if !until(shownTime, func() bool { return delivered() == 1 }) {
		t.Errorf("%d were delivered, want the one that was replayed", delivered())
	}
	b.open(w.console("deadletters?target=core"))
	b.click("Replay all of core")
	b.confirmAs(operator, "Replay all")
	b.says(fmt.Sprintf("%d on their way again", sent-2))
	b.sees("No dead letters")
	if !until(shownTime, func() bool { return delivered() == sent-1 }) {
		t.Errorf("%d were delivered, want all but the dropped one", delivered())
	}
}

// TestConsoleCardholder: a lost phone is revoked, a card assigned and released,
// and a cardholder erased.
func TestConsoleCardholder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, card := user()
	w.phone(name)
	w.phone(name)
	b := newOperator(t)
	b.open(w.console("cardholders"))
	b.sees("Look up")
	eval[bool](b, fmt.Sprintf("(document.querySelector('[name=user]').value = %q, true)", name))
	b.click("Show")
	b.sees("No card is known")
	revoke := func() []node { return b.find(nil, "button", "Revoke an unnamed device") }
	if !until(shownTime, func() bool { return len(revoke()) == 2 }) {
		t.Fatalf("%d devices are shown, want two:\n%s", len(revoke()), b.text())
	}
	if err := b.press(revoke()[0]); err != nil {
		t.Fatal(err)
	}
	b.confirmAs(operator, "Revoke")
	b.says("The device is revoked")
	if !until(shownTime, func() bool { return len(revoke()) == 1 }) || len(w.subscriptions(name)) != 1 {
		t.Errorf("%d devices are shown and %d are there, want one", len(revoke()), len(w.subscriptions(name)))
	}

	w.post(payment("", card, "Sephora Digital", "100.20"))
	eval[bool](b, fmt.Sprintf("(document.querySelector('[name=card]').value = %q, true)", card))
	b.click("Assign card")
	b.confirmAs(operator, "Assign card")
	b.says("is " + name)
	b.sees("Sephora Digital") // the challenge had no owner, and is theirs in a moment
	id := w.pendingID(name)
	b.search(card)
	b.sees("operator’s word")
	b.follow(name)
	b.click("Release " + card)
	b.confirmAs(operator, "Release card")
	b.says("released")
	b.follow("Sephora Digital")
	b.sees("Timeline")
	if !strings.HasSuffix(b.location(), id) {
		t.Errorf("the link leads to %s, want %s", b.location(), id)
	}

	b.open(w.console("cardholder?merchant=acme&user=" + name))
	b.click("Erase cardholder")
	b.confirmAs(operator, "Erase")
	b.says("erased")
	b.sees("No device of this cardholder")
	if left := w.subscriptions(name); len(left) != 0 {
		t.Errorf("%d devices are left", len(left))
	}
}

// TestConsolePasskeys: the operator sees that an approval needs one, which it was
// given by, and takes one away.
func TestConsolePasskeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, asksForPasskeys...)
	name, card := user()
	phone := newTab(t)
	_, bought, a := stepUpPending(w, phone, name, card)
	id := w.pendingID(name)
	b := newOperator(t)
	b.open(w.console("challenge?id=" + id))
	b.sees("Step-up\npasskey")
	phone.clickIn(&a, "Approve")
	w.awaitConfirm(bought, approved)
	passkeys := w.passkeys(name)
	b.follow(passkeys[0])
	b.sees("last used")
	b.lookAround("console-passkeys")
	b.size(wide)
	b.click("Remove Chrome · Linux, " + passkeys[0])
	b.confirmAs(operator, "Remove")
	b.says("The passkey is removed")
	b.sees("this cardholder cannot approve what needs one")
	if left := w.passkeys(name); len(left) != 0 {
		t.Errorf("left are %q", left)
	}
}

// TestConsoleImport: the owners of many cards, from a file that is sent in
// pieces; wrong lines are named by their number in the file.
func TestConsoleImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const cards = 12_000 // more than one piece
	var file strings.Builder
	for i := range cards {
		fmt.Fprintf(&file, `{"card_id":"card-%06d","user_id":"user-%06d"}`+"\n", i, i)
	}
	file.WriteString(`{"card_id":"card-without-a-user"}`)
	path := filepath.Join(t.TempDir(), "owners.ndjson")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newOperator(t)
	b.open(w.console("cardholders"))
	b.sees("Import card owners")
	document, err := chromedp.Call(b.ctx, dom.GetDocument, dom.GetDocumentParams{})
	if err != nil {
		t.Fatal(err)
	}
	input, err := chromedp.Call(b.ctx, dom.QuerySelector, dom.QuerySelectorParams{NodeID: document.Root.NodeID, Selector: "input[type=file]"})
	if err != nil {
		t.Fatal(err)
	}
	b.must(chromedp.Call(b.ctx, dom.SetFileInputFiles, dom.SetFileInputFilesParams{Files: []string{path}, NodeID: cdp.NodeID(input.NodeID)}))
	b.click("Import")
	b.confirmAs(operator, "Import")
	b.says("Done: 12,000 cards imported, 1 line refused")
	b.sees("Line 12,001:")
	var owner struct {
		UserID string `json:"user_id"`
	}
	w.ops(http.MethodGet, "merchants/acme/cards/card-011999", &owner)
	if owner.UserID != "user-011999" {
		t.Errorf("the last card is %q's", owner.UserID)
	}
}
