package browsertest

import (
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Approving with a passkey. The authenticator is Chromium's virtual one, which signs
// as a real one does; what is simulated is the finger on it.

// asksForPasskeys changes the configuration: more than 30 EUR needs a passkey.
var asksForPasskeys = []string{"\nauth:\n", "\nauth:\n  step_up: passkey\n  above: \"30.00 EUR\"\n"}

// addPasskey goes through the page's own way to a passkey.
func (b *tab) addPasskey() {
	b.t.Helper()
	b.click("Add a passkey")
	b.sees("was added")
}

// alert waits until an alert within root says something.
func (b *tab) alert(root node, text string) {
	b.t.Helper()
	var said string
	if !until(shownTime, func() bool {
		said = ""
		for _, n := range b.find(&root, "alert") {
			said += " " + b.textOf(n)
		}
		return strings.Contains(said, text)
	}) {
		b.t.Fatalf("the alert is %q after %s, want %q; the page says:\n%s", said, shownTime, text, b.text())
	}
}

// disabled waits until a button can be pressed no more.
func (b *tab) disabled(root node, name string) {
	b.t.Helper()
	if !until(shownTime, func() bool {
		return eval[bool](b, fmt.Sprintf(`[...document.querySelectorAll('article button')].some((one) => one.checkVisibility({ visibilityProperty: true })
			&& one.textContent === %q && one.getAttribute('aria-disabled') === 'true')`, name))
	}) {
		b.t.Fatalf("the button %q is not there, or can be pressed after %s; the page says:\n%s", name, shownTime, b.text())
	}
}

// passkeys are those that a user has at the relay.
func (w *world) passkeys(user string) (ids []string) {
	w.t.Helper()
	var list struct{ Data []struct{ ID string } }
	w.call(http.MethodGet, "/v1/passkeys", user, nil, &list)
	for _, k := range list.Data {
		ids = append(ids, k.ID)
	}
	return ids
}

// undecided fails the test if the issuer was told anything.
func (w *world) undecided() {
	w.t.Helper()
	if calls := w.issuer.Calls(); len(calls) != 0 {
		w.t.Fatalf("the issuer was told %+v", calls)
	}
}

// stepUpPending signs a user with a passkey in, on a tab with their authenticator,
// where a payment waits that needs it.
func stepUpPending(w *world, b *tab, name, card string) (*authenticator, purchase, node) {
	b.t.Helper()
	finger := b.authenticator()
	b.open(w.app(name))
	b.addPasskey()
	bought := payment(name, card, "Sephora Digital", "100.20")
	w.post(bought)
	a := b.article("Sephora Digital", "100.20")
	b.status(a, "you need your passkey")
	return finger, bought, a
}

// TestApproveWithAPasskey: from none, over adding one, to an approval whose proof
// holds; below the amount nothing is asked for; a removed one is gone.
func TestApproveWithAPasskey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, asksForPasskeys...)
	b := newTab(t)
	b.authenticator()
	name, card := user()
	small := payment(name, card, "Corner Shop", "30.00")
	w.post(small)
	b.open(w.app(name))
	a := b.article("Corner Shop", "30.00")
	b.clickIn(&a, "Approve")
	w.awaitConfirm(small, approved)

	bought := payment(name, card, "Sephora Digital", "30.01")
	w.post(bought)
	a = b.article("Sephora Digital", "30.01")
	b.status(a, "you need your passkey")
	b.clickIn(&a, "Approve")
	b.alert(a, "you have none yet")
	b.clickIn(&a, "Add a passkey")
	if !until(shownTime, func() bool { return eval[string](b, "document.activeElement.id") == "passkeys-add" }) {
		t.Fatal("the card's way to a passkey does not lead to where one is added")
	}
	b.addPasskey()
	id := w.idOf(name, "Sephora Digital")
	b.clickIn(&a, "Approve")
	w.awaitConfirm(bought, approved)
	b.status(a, "approved")

	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command(path, "verify", "--config", w.config, id).CombinedOutput()
	if err != nil || !strings.Contains(string(said), "approved 30.01 EUR to \"Sephora Digital\"") {
		t.Errorf("relay verify: %v: %s", err, said)
	}

	b.open(w.app(name))
	b.sees("last used")
	if ids := w.passkeys(name); len(ids) != 1 {
		t.Fatalf("the passkeys are %q, want one", ids)
	}
	b.click("Remove Chrome · Linux")
	b.sees("was removed")
	if ids := w.passkeys(name); len(ids) != 0 {
		t.Errorf("after it was removed the passkeys are %q", ids)
	}
	if on := eval[string](b, "document.activeElement.id"); on != "passkeys-title" {
		t.Errorf("after it was removed the focus is on %q", on)
	}
}

// TestPasskeysByKeyboardAlone: one is added, used and removed without a mouse.
func TestPasskeysByKeyboardAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, asksForPasskeys...)
	b := newTab(t)
	b.authenticator()
	name, card := user()
	press := func(name string) {
		t.Helper()
		var seen []string
		for range 30 {
			if err := chromedp.Do(b.ctx, chromedp.KeyEvent(kb.Tab)); err != nil {
				t.Fatal(err)
			}
			on := eval[string](b, "document.activeElement.ariaLabel ?? document.activeElement.innerText.trim()")
			if seen = append(seen, on); on == name {
				if err := chromedp.Do(b.ctx, chromedp.KeyEvent(kb.Enter)); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
		t.Fatalf("by Tab one comes to %q, and not to %q", seen, name)
	}
	b.open(w.app(name))
	b.awaitButton(nil, "Add a passkey", true)
	press("Add a passkey")
	b.sees("was added")
	bought := payment(name, card, "Sephora Digital", "100.20")
	w.post(bought)
	a := b.article("Sephora Digital")
	press("Approve")
	w.awaitConfirm(bought, approved)
	b.status(a, "approved")
	press("Remove Chrome · Linux")
	b.sees("was removed")
}

// TestPasskeyNotGiven: who does not give it finds everything as it was, and no
// failure is counted.
func TestPasskeyNotGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t, asksForPasskeys...)
	b := newTab(t)
	b.onNewDocument(`
		const get = CredentialsContainer.prototype.get;
		window.browsertestRefused = 0;
		CredentialsContainer.prototype.get = function (...all) {
			return get.apply(this, all).catch((error) => { browsertestRefused += 1; throw error; });
		};
	`)
	name, card := user()
	finger, bought, a := stepUpPending(w, b, name, card)
	finger.verifies(false)
	for i := range 6 { // one more than failures may be
		b.clickIn(&a, "Approve")
		if !until(shownTime, func() bool {
			return eval[bool](b, fmt.Sprintf(`browsertestRefused === %d && document.activeElement.textContent === 'Approve'
				&& document.activeElement.ariaDisabled === 'false'`, i+1))
		}) {
			t.Fatalf("Approve cannot be pressed again:\n%s", b.text())
		}
		b.status(a, "you need your passkey")
	}
	if alerts := b.find(&a, "alert"); len(alerts) != 0 {
		t.Errorf("it is called an error: %q", b.textOf(alerts[0]))
	}
	w.undecided()
	finger.verifies(true)
	b.clickIn(&a, "Approve")
	w.awaitConfirm(bought, approved)
}

// TestPasskeyOfAnotherUser approves nothing, be it that of somebody else who uses
// the same device: not offered to the browser, and refused if it comes all the same.
func TestPasskeyOfAnotherUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, asksForPasskeys...)
	b := newTab(t)
	mine, _ := user()
	b.onNewDocument(`
		const get = CredentialsContainer.prototype.get;
		CredentialsContainer.prototype.get = function ({ publicKey }) {
			return get.call(this, { publicKey: window.browsertestAny ? { ...publicKey, allowCredentials: [] } : publicKey });
		};
	`)
	finger := b.authenticator()
	b.open(w.app(mine))
	b.addPasskey()
	b.click("Sign out")
	b.sees("signed out")

	// The other one has a passkey, too, but on another device.
	name, card := user()
	elsewhere := newTab(t)
	stepUpPending(w, elsewhere, name, card)
	b.open(w.app(name))
	a := b.article("Sephora Digital")
	b.clickIn(&a, "Approve")
	b.status(a, "you need your passkey")
	w.undecided()
	eval[bool](b, "window.browsertestAny = true")
	b.clickIn(&a, "Approve")
	b.alert(a, "was not accepted")
	w.undecided()
	if got, err := chromedp.Call(b.ctx, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: finger.id}); err != nil || len(got.Credentials) != 1 || got.Credentials[0].SignCount == 0 {
		t.Errorf("the other's passkey has signed nothing, so that this says little: %+v, %v", got, err)
	}
}

// TestPasskeyBlocked: five refusals in a row end the ways to approve, on every
// device, and everyone is told; rejecting stays, also from the notification.
func TestPasskeyBlocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, asksForPasskeys...)
	c := newChromium(t, w)
	name, card := user()
	c.turnOnNotifications(w.app(name))
	finger, bought, a := stepUpPending(w, c.tab, name, card)
	other := newTab(t)
	other.open(w.app(name))
	there := other.article("Sephora Digital")
	finger.forges(true)
	for i := range 5 {
		c.clickIn(&a, "Approve")
		if i < 4 {
			c.alert(a, "was not accepted")
		}
	}
	for b, card := range map[*tab]node{c.tab: a, other: there} {
		b.alert(card, "can no longer be approved")
		b.disabled(card, "Approve")
		b.clickIn(&card, "Approve")
		b.alert(card, "can no longer be approved")
	}
	w.undecided()
	n := c.desktop.await("that it is blocked", about("blocked", "Sephora Digital"))
	if n.Silent || n.key("Approve") != "" {
		t.Errorf("the notification is silent, or offers an approval: %+v", n)
	}
	c.desktop.press(n, "Reject")
	w.awaitConfirm(bought, rejected)
	other.status(there, "reject")
}

// TestRejectNeedsNoPasskey: neither of somebody who has none, nor of a browser that
// knows none.
func TestRejectNeedsNoPasskey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, asksForPasskeys...)
	b := newTab(t)
	b.onNewDocument("delete window.PublicKeyCredential;")
	name, card := user()
	bought := payment(name, card, "Sephora Digital", "100.20")
	w.post(bought)
	b.open(w.app(name))
	a := b.article("Sephora Digital")
	b.clickIn(&a, "Approve")
	b.alert(a, "This browser has no passkeys")
	w.undecided()
	b.sees("To approve what needs one, use another browser")
	b.awaitButton(nil, "Add a passkey", false)
	b.clickIn(&a, "Reject")
	w.awaitConfirm(bought, rejected)
}

// TestNotificationOfAStepUpOpensTheApp: the worker cannot ask for a passkey, so that
// Approve leads to the card; Reject decides at once.
func TestNotificationOfAStepUpOpensTheApp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, asksForPasskeys...)
	c := newChromium(t, w)
	name, card := user()
	c.turnOnNotifications(w.app(name))
	c.authenticator()
	c.addPasskey()
	bought := payment(name, card, "Sephora Digital", "100.20")
	w.post(bought)
	c.desktop.press(c.desktop.await("about it", about("Sephora Digital")), "Approve")
	id := w.pendingID(name)
	if !until(shownTime, func() bool { return strings.HasSuffix(c.location(), "#/challenges/"+id) }) {
		t.Fatalf("the page is at %s, want the challenge", c.location())
	}
	w.undecided()
	if said := c.desktop.notices(); slices.ContainsFunc(said, about("Sending to your bank")) {
		t.Errorf("the notification claims that something is sent: %+v", said)
	}
	a := c.article("Sephora Digital")
	c.clickIn(&a, "Approve")
	w.awaitConfirm(bought, approved)

	bought = payment(name, card, "Not That One", "100.21")
	w.post(bought)
	c.desktop.press(c.desktop.await("about it", about("Not That One", "100.21")), "Reject")
	w.awaitConfirm(bought, rejected)
}

// TestChangingPasskeysNeedsARecentSignIn: an open session is not enough. The way to
// sign in again is the login page; without one the page says what to do.
func TestChangingPasskeysNeedsARecentSignIn(t *testing.T) {
	t.Parallel()
	s := newTeam(t)
	w := newWorld(t, asksForPasskeys...)
	s.show("/login", "<!doctype html><title>Login</title>Who are you?")
	b := newTab(t)
	b.authenticator()
	name, _ := user()
	longAgo := "/app/#token=" + w.tokenSince(name, time.Hour, time.Now().Add(-10*time.Minute))
	b.open(w.base + longAgo)
	b.click("Add a passkey")
	b.sees("please sign in again first")
	if len(w.passkeys(name)) != 0 || b.shows("signed out") {
		t.Errorf("an old session has added a passkey, or has ended:\n%s", b.text())
	}

	w.reconfigure(`app: {name: "Card approvals"}`, `app: {login_url: "`+s.URL+`/login"}`)
	b.open(w.base + "/app/?again" + longAgo[len("/app/"):])
	b.click("Add a passkey")
	b.sees("Who are you?")
	asked := s.requests("/login")
	query, err := url.ParseQuery(asked[0].URL.RawQuery)
	if err != nil || query.Get("max_age") != "300" || !strings.HasPrefix(query.Get("return_to"), w.base+"/app/") {
		t.Errorf("the login page was asked for by %s: %v", asked[0].URL, err)
	}
	b.open(w.app(name))
	b.addPasskey()
}

// TestNoPasskeysWhereNoneAreAskedFor: the page has nothing about them.
func TestNoPasskeysWhereNoneAreAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newTab(t)
	name, card := user()
	onePending(w, b, name, card)
	b.awaitButton(nil, "Sign out", true)
	if b.shows("passkey") {
		t.Errorf("the page speaks of passkeys:\n%s", b.text())
	}
}

// TestPasskeysInAnOlderBrowser: one that cannot read and write WebAuthn's JSON
// itself.
func TestPasskeysInAnOlderBrowser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, asksForPasskeys...)
	b := newTab(t)
	b.onNewDocument(`
		delete PublicKeyCredential.parseCreationOptionsFromJSON;
		delete PublicKeyCredential.parseRequestOptionsFromJSON;
		delete PublicKeyCredential.prototype.toJSON;
	`)
	name, card := user()
	_, bought, a := stepUpPending(w, b, name, card)
	b.clickIn(&a, "Approve")
	w.awaitConfirm(bought, approved)
	// The authenticator is asked for another one of the same user, and has one.
	b.click("Add a passkey")
	b.sees("already has a passkey")
}

// TestModuleAsksForThePasskeyItself: a frontend of one's own that knows nothing of
// step-ups gets its approval by relay.js.
func TestModuleAsksForThePasskeyItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t, asksForPasskeys...)
	b := newTab(t)
	name, card := user()
	_, bought, _ := stepUpPending(w, b, name, card)
	status := eval[string](b, fmt.Sprintf(`import('/app/relay.js')
		.then(({ Relay }) => new Relay({ token: %q }).approve(%q, { amount: '100.20', currency: 'EUR', payee: 'Sephora Digital' }))
		.then((answer) => answer.status, (error) => error.code)`, w.token(name, time.Hour), w.pendingID(name)))
	if status != "approved" && status != "confirming" {
		t.Fatalf("approve gave %q", status)
	}
	w.awaitConfirm(bought, approved)
}

// passkeyStates are those of a page where passkeys are asked for.
var passkeyStates = []state{
	{"step-up", func(w *world, b *tab, name, card string) { stepUpPending(w, b, name, card) }},
	{"step-up-asking", func(w *world, b *tab, name, card string) {
		finger, _, a := stepUpPending(w, b, name, card)
		finger.waits()
		b.clickIn(&a, "Approve")
		b.status(a, "Waiting for your passkey")
	}},
	{"step-up-failed", func(w *world, b *tab, name, card string) {
		finger, _, a := stepUpPending(w, b, name, card)
		finger.forges(true)
		b.clickIn(&a, "Approve")
		b.alert(a, "was not accepted")
	}},
	{"step-up-blocked", func(w *world, b *tab, name, card string) {
		finger, _, a := stepUpPending(w, b, name, card)
		finger.forges(true)
		for i := range 5 {
			b.clickIn(&a, "Approve")
			if i < 4 {
				b.alert(a, "was not accepted")
			}
		}
		b.alert(a, "can no longer be approved")
	}},
	{"step-up-approved", func(w *world, b *tab, name, card string) {
		_, _, a := stepUpPending(w, b, name, card)
		b.clickIn(&a, "Approve")
		b.status(a, "approved")
	}},
	{"no-passkey", func(w *world, b *tab, name, card string) {
		onePending(w, b, name, card)
		a := b.article("Sephora Digital")
		b.clickIn(&a, "Approve")
		b.awaitButton(&a, "Add a passkey", true)
	}},
	{"passkeys-unsupported", func(w *world, b *tab, name, card string) {
		b.onNewDocument("delete window.PublicKeyCredential;")
		onePending(w, b, name, card)
		b.sees("This browser has no passkeys")
	}},
	{"passkeys-not-recent", func(w *world, b *tab, name, _ string) {
		b.open(w.base + "/app/#token=" + w.tokenSince(name, time.Hour, time.Now().Add(-time.Hour)))
		b.click("Add a passkey")
		b.sees("please sign in again")
	}},
	{"passkeys", func(w *world, b *tab, name, card string) {
		for range 2 {
			b.must(chromedp.Call(b.ctx, webauthn.Disable, cdp.Empty{}))
			b.authenticator()
			b.open(w.app(name))
			b.addPasskey()
		}
		eval[bool](b, "(window.onresize = () => document.getElementById('passkeys').scrollIntoView(), true)")
	}},
}

// TestEveryPasskeyState is TestEveryState where passkeys are asked for.
func TestEveryPasskeyState(t *testing.T) {
	t.Parallel()
	lookAtEvery(t, newWorld(t, asksForPasskeys...), passkeyStates)
}
