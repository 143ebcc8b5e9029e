package browsertest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"approvalrelay/cmd/relay/sim"
)

// inStep is how soon one device must show what was done on another.
const inStep = time.Second

func TestApproveByHandAndTwoDevicesInStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, card := user()
	bought := payment(name, card, "Sephora Digital", "100.20")
	w.post(bought)
	phone, desk := newTab(t), newTab(t)
	phone.size(narrow)
	phone.open(w.app(name))
	desk.open(w.app(name))
	here, there := phone.article("Sephora Digital", "100.20"), desk.article("Sephora Digital", "100.20")
	desk.awaitButton(&there, "Approve", true)

	phone.clickIn(&here, "Approve")
	w.awaitConfirm(bought, approved)
	phone.status(here, "approved")
	ended := time.Now()
	desk.status(there, "approved")
	if late := time.Since(ended); late > inStep {
		t.Errorf("the other device showed the end %s later, want at most %s", late, inStep)
	}
	desk.awaitButton(&there, "Approve", false)
	desk.awaitButton(&there, "Reject", false)
}

// TestReport: "This wasn't me" says what happens next, does nothing until that is
// confirmed, and then rejects and locks the card.
func TestReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, card := user()
	b := newTab(t)
	onePending(w, b, name, card)
	a := b.article("Sephora Digital")
	b.clickIn(&a, "This wasn't me")
	b.click("Go back")
	b.awaitButton(&a, "Approve", true)
	if calls := w.issuer.Calls(); len(calls) != 0 {
		t.Fatalf("the issuer was called before the report was confirmed: %+v", calls)
	}
	b.clickIn(&a, "This wasn't me")
	b.click("Report and reject")
	b.status(a, "reject")
	if !until(shownTime, func() bool {
		return slices.ContainsFunc(w.issuer.Calls(), func(c sim.Call) bool { return c.Path == lockPath && c.Body["card_id"] == card && c.Fault == "" })
	}) {
		t.Errorf("the card was not locked; the issuer had %+v", w.issuer.Calls())
	}
}

func TestExpiryWhileLooking(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, card := user()
	w.post(payment(name, card, "Sephora Digital", "100.20").until(time.Now().Add(8 * time.Second)))
	b := newTab(t)
	b.open(w.app(name))
	a := b.article("Sephora Digital", "100.20")
	b.awaitButton(&a, "Approve", true)
	b.awaitButton(&a, "Approve", false)
	b.status(a, "expired")
	if calls := w.issuer.Calls(); len(calls) != 0 {
		t.Errorf("the issuer was called: %+v", calls)
	}
}

func TestShowCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, card := user()
	w.post(withCode(name, card, "NameSilo", "50.00", "045435"))
	b := newTab(t)
	b.open(w.app(name))
	a := b.article("NameSilo", "50.00")
	if strings.Contains(eval[string](b, "document.documentElement.outerHTML"), "045435") {
		t.Error("the code is in the page before anybody asked for it")
	}
	b.clickIn(&a, "Show code")
	b.seesDigits("045435")
	var shown struct {
		RevealedAt *time.Time `json:"revealed_at"`
	}
	w.call(http.MethodGet, "/v1/challenges/"+w.pendingID(name), name, nil, &shown)
	if shown.RevealedAt == nil {
		t.Error("the relay has no record that the code was shown")
	}
	b.clickIn(&a, "Done")
	b.status(a, "done")
	if strings.Contains(eval[string](b, "document.documentElement.outerHTML"), "045435") {
		t.Error("the code is still in the page after it was done with")
	}
}

func TestOfflineAndBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, card := user()
	first := payment(name, card, "Sephora Digital", "100.20")
	w.post(first)
	b := newTab(t)
	b.open(w.app(name))
	b.article("Sephora Digital")
	b.offline(true)
	b.sees("offline")
	w.post(payment(name, card, "While Away", "7.00"))
	w.call(http.MethodPost, "/v1/challenges/"+w.idOf(name, "Sephora Digital")+"/reject", name, map[string]any{}, nil)
	b.offline(false)
	b.article("While Away", "7.00")
	b.status(b.article("Sephora Digital"), "reject")
	b.gone("offline", "reconnecting")

	w.stop()
	b.sees("reconnecting")
	w.start()
	b.gone("offline", "reconnecting")
	bought := payment(name, card, "After All", "8.00")
	w.post(bought)
	a := b.article("After All", "8.00")
	b.clickIn(&a, "Approve")
	w.awaitConfirm(bought, approved)
	b.status(a, "approved")
}

// TestNoAnswerIsNotAnApproval: the relay goes while somebody approves.
func TestNoAnswerIsNotAnApproval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, card := user()
	b := newTab(t)
	onePending(w, b, name, card)
	a := b.article("Sephora Digital")
	w.issuer.Behave(func(int, string) sim.Behaviour { return sim.Behaviour{Hang: true} })
	b.clickIn(&a, "Approve")
	b.status(a, "bank")
	w.stop()
	b.sees("reconnecting")
	if b.shows("approved") {
		t.Errorf("the page claims an approval that nobody confirmed:\n%s", b.text())
	}
	w.issuer.Behave(nil)
	w.start()
	b.status(a, "approved")
}

func TestSignOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newChromium(t, w)
	name, card := user()
	c.turnOnNotifications(w.app(name))
	if subscriptions := w.subscriptions(name); len(subscriptions) != 1 {
		t.Fatalf("the subscriptions are %v, want one", subscriptions)
	}
	if location := c.location(); strings.Contains(location, "token") {
		t.Errorf("the token still is in the address: %s", location)
	}
	c.click("Sign out")
	c.sees("signed out")
	if !until(shownTime, func() bool { return len(w.subscriptions(name)) == 0 }) {
		t.Error("this device would go on being told of the user's payments")
	}
	w.post(payment(name, card, "Sephora Digital", "100.20"))
	c.open(w.base + "/app/")
	c.sees("signed out")
	if c.shows("Sephora") {
		t.Error("who has signed out sees a payment")
	}
	kept := eval[string](c.tab, `(async () => {
		const all = [JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie];
		for (const { name } of await indexedDB.databases()) {
			const db = await new Promise((done, failed) => Object.assign(indexedDB.open(name), { onsuccess: (e) => done(e.target.result), onerror: failed }));
			for (const store of db.objectStoreNames) {
				all.push(await new Promise((done, failed) => Object.assign(db.transaction(store).objectStore(store).getAll(), { onsuccess: (e) => done(JSON.stringify(e.target.result)), onerror: failed })));
			}
			db.close();
		}
		return all.join('\n');
	})()`)
	if strings.Contains(kept, "eyJ") {
		t.Errorf("the token is still stored: %s", kept)
	}
}

// TestInstallable: Chromium would install the app, and nothing in its manifest
// is wrong. A private window would refuse, hence the browser's own context.
func TestInstallable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := chromedp.NewContext(sharedChromium(t))
	t.Cleanup(cancel)
	b := attach(t, ctx)
	b.open(w.base + "/app/")
	b.sees("signed out")
	errors, err := chromedp.Call(ctx, page.GetInstallabilityErrors, cdp.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range errors.InstallabilityErrors {
		t.Errorf("not installable: %s %+v", e.ErrorID, e.ErrorArguments)
	}
	manifest, err := chromedp.Call(ctx, page.GetAppManifest, page.GetAppManifestParams{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range manifest.Errors {
		t.Errorf("manifest line %d: %s", e.Line, e.Message)
	}
	var m struct {
		ID, Name, Display string
		StartURL          string `json:"start_url"`
		Icons             []struct{ Purpose string }
	}
	if err := json.Unmarshal([]byte(manifest.Data), &m); err != nil {
		t.Fatal(err)
	}
	maskable := false
	for _, icon := range m.Icons {
		maskable = maskable || strings.Contains(icon.Purpose, "maskable")
	}
	if m.ID == "" || m.Name == "" || m.StartURL == "" || m.Display != "standalone" || !maskable {
		t.Errorf("the manifest lacks an id, a name, a start, a window of its own or a maskable icon: %s", manifest.Data)
	}
}

// TestOfflineStart: with the relay away the installed app still opens, and says
// how things are.
func TestOfflineStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newChromium(t, w)
	name, _ := user()
	c.turnOnNotifications(w.app(name))
	w.stop()
	c.open(w.base + "/app/")
	c.sees("offline", "reconnecting", "connection")
	if c.shows("nothing is waiting") {
		t.Errorf("the page claims to know that nothing waits:\n%s", c.text())
	}
	w.start()
	c.sees("nothing")
}

// TestNoThirdParty: in a whole session, page and worker talk to the relay alone.
func TestNoThirdParty(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newChromium(t, w)
	seen := c.requests()
	name, card := user()
	c.turnOnNotifications(w.app(name))
	c.watchWorker(seen, w.base)
	for _, payee := range []string{"By Notification", "By Hand"} {
		bought := payment(name, card, payee, "9.99")
		w.post(bought)
		if payee == "By Hand" {
			a := c.article(payee)
			c.clickIn(&a, "Approve")
		} else {
			c.desktop.press(c.desktop.await("about it", about(payee)), "Approve")
		}
		w.awaitConfirm(bought, approved)
	}
	c.click("Sign out")
	c.sees("signed out")
	worker := false
	for _, url := range seen.all() {
		if !strings.HasPrefix(url, w.base+"/") && !strings.HasPrefix(url, "data:") && !strings.HasPrefix(url, "blob:") {
			t.Errorf("a request to %s", url)
		}
		worker = worker || strings.HasSuffix(url, "/approve")
	}
	if len(seen.all()) < 10 || !worker {
		t.Errorf("only %d requests were seen, so that this says little: %q", len(seen.all()), seen.all())
	}
}
