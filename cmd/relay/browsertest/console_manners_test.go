package browsertest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// How the console behaves: its keyboard, its token, and what it does when things
// are away.

// TestConsoleByKeyboard: a target is paused without a mouse, and the focus is
// always somewhere, and to be seen.
func TestConsoleByKeyboard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newOperator(t)
	b.open(w.console("targets"))
	b.awaitButton(nil, "Pause core", true)
	key := func(keys string) {
		t.Helper()
		if err := chromedp.Do(b.ctx, chromedp.KeyEvent(keys)); err != nil {
			t.Fatal(err)
		}
	}
	focused := func() string {
		return eval[string](b, "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText.trim() ?? ''")
	}
	tabTo := func(name string) {
		t.Helper()
		for range 25 {
			if focused() == name {
				if eval[string](b, "getComputedStyle(document.activeElement).outlineStyle") == "none" {
					t.Errorf("the focus on %s cannot be seen", name)
				}
				return
			}
			key(kb.Tab)
		}
		t.Fatalf("by Tab one does not come to %q", name)
	}
	tabTo("Skip to the page")
	key(kb.Enter)
	tabTo("Pause core")
	key(kb.Enter)
	if !until(shownTime, func() bool { return eval[string](b, "document.activeElement.id") == "ask-name" }) {
		t.Fatal("the question does not begin with the name")
	}
	key("Ann")
	tabTo("Pause")
	key(kb.Enter)
	b.says("core is paused")
	if !until(shownTime, func() bool { return focused() == "Targets" || focused() == "Resume core" }) {
		t.Errorf("after the action the focus is on %q", focused())
	}
	tabTo("Resume core")
	key(kb.Enter)
	b.awaitButton(nil, "Go back", true)
	key(kb.Escape)
	b.awaitButton(nil, "Go back", false)
	if on := focused(); on != "Resume core" {
		t.Errorf("after Escape the focus is on %q", on)
	}
	b.awaitButton(nil, "Resume core", true)
}

const adminToken = "an-admin-token-for-a-browser-0123456789"

var withToken = []string{"redis: {url:", `admin: {token: "` + adminToken + `"}` + "\nredis: {url:"}

// signIn types a token into the console.
func (b *tab) signIn(token string) {
	b.t.Helper()
	b.awaitButton(nil, "Sign in", true)
	eval[bool](b, fmt.Sprintf("(document.querySelector('[name=token]').value = %q, document.querySelector('[name=name]').value = %q, true)", token, operator))
	b.click("Sign in")
}

// TestConsoleToken: where one is configured it is asked for, kept in the tab
// alone, and asked for again when it has changed.
func TestConsoleToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withToken...)
	b := newOperator(t)
	b.open(w.console("targets"))
	b.sees("admin.token")
	b.lookAround("console-sign-in")
	b.size(wide)
	b.signIn("wrong")
	b.sees("does not take this token")
	if b.shows("core") {
		t.Error("without a token the page shows a target")
	}
	b.signIn(adminToken)
	b.awaitButton(nil, "Pause core", true)
	if at := b.location(); at != w.console("targets") {
		t.Errorf("after the sign-in the address is %s", at)
	}
	if kept := eval[string](b, "JSON.stringify(localStorage) + document.cookie"); strings.Contains(kept, adminToken) {
		t.Errorf("the token is kept beyond the tab: %s", kept)
	}
	b.open(w.console("system"))
	b.sees("Retention")
	b.click("Change level")
	b.confirmAs(operator, "Change level")
	b.says("The log level is info")

	b.lookAround("console-signed-in")
	b.size(wide)
	b.click("Sign out")
	b.sees("admin.token")
	if kept := eval[string](b, "JSON.stringify(sessionStorage)"); strings.Contains(kept, adminToken) {
		t.Errorf("who has signed out has left the token: %s", kept)
	}
	b.signIn(adminToken)
	b.sees("Retention")
	other := newOperator(t)
	other.open(w.console("overview"))
	other.sees("admin.token")

	w.reconfigure(adminToken, adminToken+"-changed")
	b.follow("Events")
	b.sees("It may have been changed")
	b.signIn(adminToken + "-changed")
	b.sees("No event matches")
}

// TestConsoleTrouble: with the store or the relay away the page says so, keeps
// what it knew, and goes on by itself.
func TestConsoleTrouble(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newOperator(t)
	b.open(w.console("targets"))
	b.awaitButton(nil, "Pause core", true)
	w.redis.Kill()
	b.sees("its store is away")
	b.awaitButton(nil, "Pause core", true)
	b.lookAround("console-store-away")
	b.click("Pause core")
	b.confirmAs(operator, "Pause")
	b.says("its store is away")
	b.open(w.console("events"))
	b.awaitButton(nil, "Try again", true)
	b.lookAround("console-store-away-at-first")
	w.stop()
	b.click("Try again")
	b.sees("does not answer")
}

// TestConsoleRestsWhenHidden: a page that nobody looks at asks for nothing, and is
// up to date at once when somebody does.
func TestConsoleRestsWhenHidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newOperator(t)
	b.onNewDocument(`
		window.browsertest = { polls: 0, fetches: 0 };
		const { setTimeout: later, fetch: ask } = window;
		const poll = (run) => () => { browsertest.polls += 1; run(); };
		window.setTimeout = (run, after, ...all) => (after === 5000 ? later(poll(run), 50) : later(run, after, ...all));
		window.fetch = (...all) => { browsertest.fetches += 1; return ask(...all); };
	`)
	b.open(w.console("targets"))
	polls := func() int { return eval[int](b, "browsertest.polls") }
	if !until(shownTime, func() bool { return polls() > 2 }) {
		t.Fatal("the page does not poll")
	}
	// The count of polls is of the same moment: while the page is hidden one is due, and
	// no other after it.
	hide := func(yes bool) (fetches, polls int) {
		both := eval[[]int](b, fmt.Sprintf(`(() => {
			Object.defineProperty(document, 'hidden', { value: %v, configurable: true });
			document.dispatchEvent(new Event('visibilitychange'));
			return [browsertest.fetches, browsertest.polls];
		})()`, yes))
		return both[0], both[1]
	}
	before, at := hide(true)
	if !until(shownTime, func() bool { return polls() > at }) {
		t.Fatal("nothing was due while the page was hidden")
	}
	if after, _ := hide(true); after != before {
		t.Errorf("%d requests while nobody looked", after-before)
	}
	if after, _ := hide(false); after != before+1 {
		t.Errorf("%d requests when somebody looked again, want one", after-before)
	}
}

// TestConsoleNoThirdParty: nothing but the relay is asked, and the chart library
// draws under the page's policy.
func TestConsoleNoThirdParty(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newOperator(t)
	seen := b.requests()
	b.open(w.console("overview"))
	b.sees("Webhook to push")
	if !until(shownTime, func() bool { return eval[int](b, "document.querySelectorAll('figure canvas').length") == 4 }) {
		t.Error("there are no charts")
	}
	for _, page := range []string{"Events", "Challenges", "Quarantine", "Dead letters", "Targets", "Cardholders", "System"} {
		b.follow(page)
		if !until(shownTime, func() bool { return eval[string](b, "document.title") == page+" · Approval relay" }) {
			t.Errorf("the link %s leads to %s", page, b.location())
		}
		b.gone("Loading…")
	}
	for _, url := range seen.all() {
		if !strings.HasPrefix(url, w.admin+"/console/") && !strings.HasPrefix(url, w.admin+"/ops/v1/") && !strings.HasPrefix(url, "data:") {
			t.Errorf("a request to %s", url)
		}
	}
	if len(seen.all()) < 25 {
		t.Errorf("only %d requests were seen, so that this says little: %q", len(seen.all()), seen.all())
	}
}
