package browsertest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// phone is a browser on which notifications can be turned on.
type phone interface {
	turnOnNotifications(signIn string)
	open(url string)
	notifications() *desktop
	location() string
}

func (f *firefox) notifications() *desktop  { return f.desktop }
func (c *chromium) notifications() *desktop { return c.desktop }

func (f *firefox) location() string {
	var href string
	if err := f.driver.script("return location.href", &href); err != nil {
		return err.Error()
	}
	return href
}

// about tells a notification that asks about this purchase, or says how it ended.
func about(texts ...string) func(notice) bool {
	return func(n notice) bool { return hasAll(n.Summary+"\n"+n.Body, texts) }
}

func TestNotificationsInFirefox(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := newFirefox(t, w.vapid)
	testNotifications(t, w, f)
	if err := f.push.checkAcks(); err != nil {
		t.Error(err)
	}
}

func TestNotificationsInChromium(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	testNotifications(t, w, newChromium(t, w))
}

// TestPressWhileOthersEnd: that the open page hears of the end of another challenge
// at that moment costs no notification its buttons.
func TestPressWhileOthersEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newChromium(t, w)
	name, card := user()
	c.turnOnNotifications(w.app(name))
	w.post(payment(name, card, "Other Shop", "1.00"))
	c.article("Other Shop")
	other := w.pendingID(name)
	w.call(http.MethodPost, "/v1/challenges/"+other+"/reject", name, map[string]any{}, nil)
	c.status(c.article("Other Shop"), "reject")
	eval[int](c.tab, `setInterval(() => navigator.serviceWorker.dispatchEvent(
		new MessageEvent('message', { data: { type: 'changed', id: '`+other+`' } })), 2)`)
	for i := range 40 {
		payee := fmt.Sprintf("Shop %02d", i)
		bought := payment(name, card, payee, "2.00")
		w.post(bought)
		c.desktop.press(c.desktop.await("about "+payee, about("Approve", payee)), "Approve")
		w.awaitConfirm(bought, approved)
	}
}

// TestTurnOnBeforeTheWorkerIsInstalled: who presses the button at once, on a slow
// network, gets notifications all the same.
func TestTurnOnBeforeTheWorkerIsInstalled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newChromium(t, w)
	c.onNewDocument(`
		const { register } = ServiceWorkerContainer.prototype;
		const slow = new Promise((arrived) => { window.browsertestArrived = arrived; });
		ServiceWorkerContainer.prototype.register = async function (...all) {
			await slow;
			return register.apply(this, all);
		};
	`)
	name, _ := user()
	c.open(w.app(name))
	c.click("Turn on notifications")
	eval[bool](c.tab, "(browsertestArrived(), true)")
	c.desktop.await("that they are on", about("Notifications are on"))
}

// TestLostSubscription: when the push service has lost a browser's subscription,
// the worker makes a new one and pushes come again, while no page is open.
func TestLostSubscription(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := newFirefox(t, w.vapid)
	name, card := user()
	f.turnOnNotifications(w.app(name))
	f.open("about:blank")
	f.push.forget()
	if !until(shownTime, func() bool {
		return slices.ContainsFunc(f.desktop.notices()[1:], about("Notifications are on"))
	}) {
		t.Fatal("the browser did not subscribe again")
	}
	w.post(payment(name, card, "Sephora Digital", "100.20"))
	f.desktop.await("about it", about("Sephora Digital"))
}

// testNotifications goes from the issuer's webhook to its sealed confirm, over a
// notification that a real browser shows and whose real buttons are pressed.
func testNotifications(t *testing.T, w *world, p phone) {
	d := p.notifications()
	name, card := user()
	p.turnOnNotifications(w.app(name))

	// The amount is different each time, so that no notification is taken for another.
	ask := func(payee, amount string) (purchase, notice) {
		t.Helper()
		bought := payment(name, card, payee, amount)
		w.post(bought)
		return bought, d.await("about "+payee, about(payee, amount))
	}

	bought, n := ask("Sephora Digital", "100.20")
	d.press(n, "Approve")
	w.awaitConfirm(bought, approved)
	d.await("that it was approved", about("Approved", "Sephora Digital"))

	bought, n = ask("Not That One", "100.21")
	d.press(n, "Reject")
	w.awaitConfirm(bought, rejected)
	d.await("that it was rejected", about("Rejected", "Not That One"))

	_, n = ask("Tapped Shop", "100.22")
	id := w.pendingID(name)
	d.tap(n)
	if !until(shownTime, func() bool { return strings.HasSuffix(p.location(), "#/challenges/"+id) }) {
		t.Errorf("after a tap on the notification the page is at %s, want the challenge %s", p.location(), id)
	}

	w.call(http.MethodPost, "/v1/challenges/"+id+"/approve", name, map[string]any{}, nil)
	ended := d.await("that another device approved it", about("pproved", "Tapped Shop"))
	if ended.Silent == false {
		t.Errorf("the notification %q, which only replaces another, is not silent", ended.Summary)
	}

	// The session ends: what was pushed still is enough.
	short := w.token(name, time.Second)
	p.open(w.base + "/app/#token=" + short)
	if !until(shownTime, func() bool { return w.statusOf("/v1/challenges", short) == http.StatusUnauthorized }) {
		t.Fatal("the session's token did not expire")
	}
	bought, n = ask("Late Shop", "100.23")
	d.press(n, "Approve")
	w.awaitConfirm(bought, approved)
	d.await("that it was approved without a session", about("Approved", "Late Shop"))
}
