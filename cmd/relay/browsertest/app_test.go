package browsertest

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// onNewDocument runs a script before the page's own.
func (b *tab) onNewDocument(script string) {
	b.t.Helper()
	b.must(chromedp.Call(b.ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script}))
}

// TestKeyboardAlone: a payment is approved without a mouse, and the focus is not
// lost by it.
func TestKeyboardAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, card := user()
	bought := payment(name, card, "Sephora Digital", "100.20")
	w.post(bought)
	b := newTab(t)
	b.open(w.app(name))
	a := b.article("Sephora Digital")
	b.awaitButton(&a, "Approve", true)
	focused := func() string { return eval[string](b, "document.activeElement.innerText.trim()") }
	var seen []string
	for range 20 {
		if err := chromedp.Do(b.ctx, chromedp.KeyEvent(kb.Tab)); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, focused())
		if focused() == "Approve" {
			break
		}
	}
	if !slices.Contains(seen, "Reject") || focused() != "Approve" {
		t.Fatalf("by Tab one comes to %q", seen)
	}
	if eval[string](b, "getComputedStyle(document.activeElement).outlineStyle") == "none" {
		t.Error("where the focus is cannot be seen")
	}
	if err := chromedp.Do(b.ctx, chromedp.KeyEvent(kb.Enter)); err != nil {
		t.Fatal(err)
	}
	w.awaitConfirm(bought, approved)
	b.status(a, "approved")
	if on := eval[string](b, "document.activeElement.tagName"); on != "ARTICLE" {
		t.Errorf("after the answer the focus is on %s", on)
	}
}

// TestCodeHidesItself: after its time, and at once when nobody looks any more.
func TestCodeHidesItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	name, card := user()
	w.post(withCode(name, card, "NameSilo", "50.00", "045435"))
	b := newTab(t)
	b.onNewDocument(`
		const { setTimeout: real } = window;
		window.setTimeout = (run, after, ...all) => real(run, after === 30000 ? window.browsertestSoon ?? 30000 : after, ...all);
	`)
	b.open(w.app(name))
	a := b.article("NameSilo")
	hidden := func() {
		t.Helper()
		b.sees("hidden again")
		if page := eval[string](b, "document.documentElement.outerHTML"); strings.Contains(page, "045435") || strings.Contains(page, "0 4 5 4 3 5") {
			t.Error("the code is hidden, but still in the page")
		}
	}
	b.clickIn(&a, "Show code")
	b.seesDigits("045435")
	eval[bool](b, `(() => {
		Object.defineProperty(document, 'hidden', { value: true, configurable: true });
		document.dispatchEvent(new Event('visibilitychange'));
		delete document.hidden;
		return true;
	})()`)
	hidden()
	eval[int](b, "window.browsertestSoon = 1500")
	b.clickIn(&a, "Show code")
	b.seesDigits("045435")
	hidden()
}

// TestNewVersion: the next start runs what the relay has now, also without a
// network.
func TestNewVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newTab(t)
	name, _ := user()
	b.open(w.app(name))
	b.sees("Card approvals")
	kept := func(text string) {
		t.Helper()
		if !until(shownTime, func() bool {
			return eval[string](b, `(async () => {
				const names = await caches.keys();
				const answer = names.length === 1 && await (await caches.open(names[0])).match('config.json');
				return answer ? answer.text() : '';
			})()`) != "" && strings.Contains(eval[string](b, "caches.match('config.json').then((kept) => kept?.text() ?? '')"), text)
		}) {
			t.Fatalf("the worker does not keep the version of %q within %s", text, shownTime)
		}
	}
	kept("Card approvals")
	w.reconfigure("Card approvals", "Demo Bank")
	b.open(w.base + "/app/")
	b.sees("Demo Bank")
	kept("Demo Bank")
	w.stop()
	b.open(w.base + "/app/")
	b.sees("Demo Bank")
	w.start()
}

// TestStepUpOpensTheApp: where more than a press is asked for, the notification's
// button leads to the app, and decides nothing.
func TestStepUpOpensTheApp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "require_shown: false", "require_shown: true")
	c := newChromium(t, w)
	name, card := user()
	c.turnOnNotifications(w.app(name))
	bought := payment(name, card, "Sephora Digital", "100.20")
	w.post(bought)
	c.desktop.press(c.desktop.await("about it", about("Sephora Digital")), "Approve")
	id := w.pendingID(name)
	if !until(shownTime, func() bool { return strings.HasSuffix(c.location(), "#/challenges/"+id) }) {
		t.Fatalf("the page is at %s, want the challenge", c.location())
	}
	if calls := w.issuer.Calls(); len(calls) != 0 {
		t.Fatalf("the press alone has decided: %+v", calls)
	}
	a := c.article("Sephora Digital")
	c.clickIn(&a, "Approve")
	w.awaitConfirm(bought, approved)
}

// TestDeclarativePush: the worker shows what is sent to Apple's service, which
// says everything in the notification; there a follow-up cannot be silent.
func TestDeclarativePush(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newChromium(t, w)
	name, _ := user()
	c.turnOnNotifications(w.app(name))
	for _, one := range []struct{ payload, title string }{
		{`{"web_push":8030,"mutable":true,"notification":{"title":"Approve 7.00 EUR?","body":"Shop","navigate":"` + w.base + `/app/#/challenges/chl_1",` +
			`"tag":"chl_1","lang":"en","dir":"ltr","silent":false,"data":{"challenge":{"id":"chl_1","method":"approve","status":"pending","action_token":"rat_x"}}},` +
			`"challenge":{"id":"chl_1","method":"approve","status":"pending","action_token":"rat_x"}}`, "Approve 7.00 EUR?"},
		{`{"web_push":8030,"mutable":true,"notification":{"title":"Approved","body":"7.00 EUR","tag":"chl_1","lang":"en","dir":"ltr","silent":false},` +
			`"challenge":{"id":"chl_1","status":"approved"}}`, "Approved"},
		{`not JSON`, "There is something new"},
	} {
		c.pushes <- one.payload
		n := c.desktop.await("of "+one.title, about(one.title))
		if n.Silent || (n.key("Approve") != "") != strings.Contains(one.payload, "pending") {
			t.Errorf("%s: %+v", one.title, n)
		}
	}
}

// TestInstallHint: an iPhone's browser has push for installed apps only, and the
// page says how to get there.
func TestInstallHint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newTab(t)
	b.must(chromedp.Call(b.ctx, emulation.SetUserAgentOverride, emulation.SetUserAgentOverrideParams{
		UserAgent: "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
	}))
	b.onNewDocument("delete window.PushManager; delete window.Notification;")
	name, _ := user()
	b.size(narrow)
	b.open(w.app(name))
	b.sees("Add to Home Screen")
	b.awaitButton(nil, "Turn on notifications", false)
	b.settle()
	b.inspect("install-hint-360-light")
}
