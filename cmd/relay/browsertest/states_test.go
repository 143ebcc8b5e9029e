package browsertest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/chromedp"

	"approvalrelay/cmd/relay/sim"
)

//go:embed testdata/axe/axe.min.js
var axe string

// state is one that a cardholder can find the page in. reach brings it about
// with real calls to a real relay.
type state struct {
	name  string
	reach func(w *world, b *tab, name, card string)
}

var states = []state{
	{"loading", func(w *world, b *tab, name, _ string) {
		b.hold("*/v1/*")
		b.open(w.app(name))
		b.sees("Card approvals")
	}},
	{"nothing-pending", func(w *world, b *tab, name, _ string) {
		b.open(w.app(name))
		b.sees("nothing")
	}},
	{"one-pending", onePending},
	{"several", func(w *world, b *tab, name, card string) {
		w.post(payment(name, card, "Sephora Digital", "100.20"))
		w.post(withCode(name, card, "NameSilo", "50.00", "045435"))
		w.post(withLink(name, card, "Deutsche Bahn", "https://bank.example/3ds"))
		w.post(payment(name, card, "A Shop With A Name That Is Much Longer Than Any Screen Of A Phone Is Wide GmbH & Co. KG", "1234567.89"))
		b.open(w.app(name))
		for _, payee := range []string{"Sephora", "NameSilo", "Deutsche Bahn", "A Shop"} {
			b.article(payee)
		}
	}},
	{"code", func(w *world, b *tab, name, card string) {
		w.post(withCode(name, card, "NameSilo", "50.00", "045435"))
		b.open(w.app(name))
		b.awaitButton(nil, "Show code", true)
	}},
	{"code-shown", func(w *world, b *tab, name, card string) {
		w.post(withCode(name, card, "NameSilo", "50.00", "045435"))
		b.open(w.app(name))
		b.click("Show code")
		b.seesDigits("045435")
	}},
	{"link", func(w *world, b *tab, name, card string) {
		w.post(withLink(name, card, "Deutsche Bahn", "https://bank.example/3ds"))
		b.open(w.app(name))
		b.article("Deutsche Bahn")
	}},
	{"confirming", func(w *world, b *tab, name, card string) {
		w.issuer.Behave(func(int, string) sim.Behaviour { return sim.Behaviour{Hang: true} })
		onePending(w, b, name, card)
		a := b.article("Sephora Digital")
		b.clickIn(&a, "Approve")
		b.status(a, "bank")
		if b.shows("approved") {
			b.t.Errorf("the page claims an approval that the issuer has not confirmed:\n%s", b.text())
		}
	}},
	{"not-confirming-yet", func(w *world, b *tab, name, card string) {
		w.issuer.Behave(func(int, string) sim.Behaviour { return sim.Behaviour{Hang: true} })
		onePending(w, b, name, card)
		a := b.article("Sephora Digital")
		b.clickIn(&a, "Approve")
		b.status(a, "not confirmed yet")
	}},
	{"approved", decided("Approve", "approved")},
	{"rejected", decided("Reject", "reject")},
	{"failed", func(w *world, b *tab, name, card string) {
		w.issuer.Behave(func(int, string) sim.Behaviour { return sim.Behaviour{Status: http.StatusUnprocessableEntity} })
		decided("Approve", "not accept")(w, b, name, card)
	}},
	{"expired", func(w *world, b *tab, name, card string) {
		w.post(payment(name, card, "Sephora Digital", "100.20").until(time.Now().Add(2 * time.Second)))
		b.open(w.app(name))
		b.status(b.article("Sephora Digital"), "expired")
	}},
	{"answered-elsewhere", func(w *world, b *tab, name, card string) {
		onePending(w, b, name, card)
		w.call(http.MethodPost, "/v1/challenges/"+w.pendingID(name)+"/reject", name, map[string]any{}, nil)
		b.status(b.article("Sephora Digital"), "reject")
	}},
	{"recent", func(w *world, b *tab, name, card string) {
		for _, payee := range []string{"Sephora Digital", "Deutsche Bahn", "A Shop With A Name That Is Longer Than Any Screen Of A Phone Is Wide"} {
			w.post(payment(name, card, payee, "1234.50"))
			w.call(http.MethodPost, "/v1/challenges/"+w.pendingID(name)+"/approve", name, map[string]any{}, nil)
		}
		w.post(payment(name, card, "NameSilo", "50.00"))
		w.call(http.MethodPost, "/v1/challenges/"+w.pendingID(name)+"/reject", name, map[string]any{"reason": "not_me"}, nil)
		b.open(w.app(name))
		b.article("NameSilo")
		b.sees("nothing is waiting")
	}},
	{"report", func(w *world, b *tab, name, card string) {
		onePending(w, b, name, card)
		b.click("This wasn't me")
		b.awaitButton(nil, "Go back", true)
	}},
	{"offline", func(w *world, b *tab, name, card string) {
		onePending(w, b, name, card)
		b.offline(true)
		b.sees("offline")
	}},
	{"signed-out", func(w *world, b *tab, _, _ string) {
		b.open(w.base + "/app/")
		b.sees("signed out")
	}},
	{"session-ended", func(w *world, b *tab, name, _ string) {
		b.open(w.base + "/app/#token=" + w.token(name, -time.Minute))
		b.sees("session")
	}},
	// Last, because the relay stops.
	{"reconnecting", func(w *world, b *tab, name, card string) {
		onePending(w, b, name, card)
		w.stop()
		b.sees("reconnecting")
	}},
}

func onePending(w *world, b *tab, name, card string) {
	b.t.Helper()
	w.post(payment(name, card, "Sephora Digital", "100.20"))
	b.open(w.app(name))
	a := b.article("Sephora Digital", "100.20")
	b.awaitButton(&a, "Approve", true)
}

func decided(button, status string) func(*world, *tab, string, string) {
	return func(w *world, b *tab, name, card string) {
		b.t.Helper()
		onePending(w, b, name, card)
		a := b.article("Sephora Digital")
		b.clickIn(&a, button)
		b.status(a, status)
	}
}

// hold keeps requests on their way for as long as the tab lives.
func (b *tab) hold(pattern string) {
	b.t.Helper()
	b.must(chromedp.Call(b.ctx, fetch.Enable, fetch.EnableParams{Patterns: []*fetch.RequestPattern{{URLPattern: pattern}}}))
}

// seesDigits waits until the page shows a code, grouped or not.
func (b *tab) seesDigits(code string) {
	b.t.Helper()
	if !until(shownTime, func() bool { return strings.Contains(strings.Join(strings.Fields(b.text()), ""), code) }) {
		b.t.Fatalf("the page does not show the code within %s, but:\n%s", shownTime, b.text())
	}
}

// TestEveryState reaches each state, and looks at it in a narrow and a wide
// window, light and dark: axe finds nothing, nothing is wider than the window,
// and a screenshot is kept if that is asked for.
func TestEveryState(t *testing.T) {
	t.Parallel()
	lookAtEvery(t, newWorld(t), states)
}

func lookAtEvery(t *testing.T, w *world, all []state) {
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			b := newTab(t)
			defer w.issuer.Behave(nil)
			name, card := user()
			s.reach(w, b, name, card)
			for _, v := range []viewport{narrow, wide} {
				for _, scheme := range []string{"light", "dark"} {
					b.size(v)
					b.scheme(scheme)
					b.settle()
					b.inspect(fmt.Sprintf("%s-%d-%s", s.name, v.width, scheme))
				}
			}
		})
	}
}

// TestEveryLanguage: no text of any language is wider than a phone, or breaks what
// axe looks at, and the amount is written as that language does.
func TestEveryLanguage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, asksForPasskeys...)
	for locale, words := range map[string][]string{
		"de-AT": {"Freigeben", "1234567,89"}, "fr": {"Approuver"}, "es": {"Aprobar"}, "zh-CN": {"批准", "1,234,567.89"},
	} {
		t.Run(locale, func(t *testing.T) {
			b := newTab(t)
			b.onNewDocument(`Object.defineProperty(navigator, 'languages', { value: ['` + locale + `', 'en'] });`)
			name, card := user()
			w.post(payment(name, card, "Sephora Digital", "1234567.89"))
			w.post(withCode(name, card, "NameSilo", "50.00", "045435"))
			b.size(narrow)
			b.open(w.app(name))
			b.article("NameSilo")
			for _, word := range words {
				if text := strings.Map(func(r rune) rune {
					if r == '\u00a0' || r == '\u202f' {
						return -1 // what groups digits
					}
					return r
				}, b.text()); !strings.Contains(text, word) {
					t.Errorf("%q is not in the page:\n%s", word, text)
				}
			}
			b.clickIn(nil, words[0])
			b.sees("passkey", "clé d’accès", "llave de acceso", "通行密钥")
			if !until(shownTime, func() bool { return len(b.find(nil, "alert")) > 0 }) {
				t.Error("nothing says that there is no passkey yet")
			}
			b.settle()
			b.inspect("language-" + locale + "-360-light")
		})
	}
}

// TestNotificationsPanel: how the page looks once notifications are on, with the
// devices that get them.
func TestNotificationsPanel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := newChromium(t, w)
	name, _ := user()
	c.turnOnNotifications(w.app(name))
	c.sees("Notifications are on for this device")
	eval[bool](c.tab, "(document.querySelector('#devices summary').click(), true)")
	c.sees("This device")
	for _, scheme := range []string{"light", "dark"} {
		c.size(narrow)
		c.scheme(scheme)
		c.settle()
		c.inspect("notifications-on-360-" + scheme)
	}
}

// settle waits until all short animations have ended and the page is painted.
// What goes on for longer, as a countdown does, is part of the picture.
func (b *tab) settle() {
	b.t.Helper()
	eval[bool](b, `(async () => {
		const short = (a) => a.effect && a.effect.getComputedTiming().endTime < 2000;
		await document.fonts.ready;
		const running = document.getAnimations().filter((a) => short(a) && a.playState === 'running');
		await Promise.all(running.map((a) => a.finished.catch(() => {})));
		await new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)));
		return true;
	})()`)
}

// violation is one that axe found.
type violation struct {
	ID, Impact, Help string
	Nodes            []struct {
		Target         []any
		FailureSummary string
	}
}

// violations is what axe finds wrong with the page as it is.
func (b *tab) violations() []violation {
	b.t.Helper()
	if !eval[bool](b, "typeof window.axe === 'object'") {
		eval[bool](b, axe+"\n;true")
	}
	found := eval[string](b, "axe.run(document, {resultTypes: ['violations']}).then(({violations}) => JSON.stringify(violations))")
	var all []violation
	if err := json.Unmarshal([]byte(found), &all); err != nil {
		b.t.Fatal(err)
	}
	return all
}

// inspect fails the test for what axe finds and for what hangs over the edge,
// and keeps a screenshot.
func (b *tab) inspect(name string) {
	b.t.Helper()
	for _, v := range b.violations() {
		b.t.Errorf("%s: axe: %s (%s): %s\n%+v", name, v.ID, v.Impact, v.Help, v.Nodes)
	}
	// A phone's browser zooms out of what is too wide, so that innerWidth grows with it.
	if over := eval[int64](b, "document.documentElement.scrollWidth") - b.width; over > 0 {
		b.t.Errorf("%s: the page is %d pixels wider than its window", name, over)
	}
	if *shotsDir != "" {
		if err := os.WriteFile(filepath.Join(*shotsDir, name+".png"), b.screenshot(), 0o644); err != nil {
			b.t.Error(err)
		}
	}
}

// TestAxeSees: axe is there and finds what is wrong, also under the page's
// Content-Security-Policy.
func TestAxeSees(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := newTab(t)
	b.open(w.base + "/app/")
	b.sees("signed out")
	eval[bool](b, `(() => {
		const faint = Object.assign(document.createElement('p'), { textContent: 'faint' });
		faint.style.color = getComputedStyle(document.body).backgroundColor;
		document.querySelector('main:not([hidden])').append(faint, document.createElement('button'));
		return true;
	})()`)
	found := map[string]bool{}
	for _, v := range b.violations() {
		found[v.ID] = true
	}
	if !found["color-contrast"] || !found["button-name"] {
		t.Errorf("axe finds %v in a page with faint text and a button without a name", found)
	}
}
