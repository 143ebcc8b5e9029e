package browsertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// The budgets of the first load. Times are measured and reported only: what they
// are depends on what else the machine does.
const (
	maxFirstLoad = 60 << 10 // bytes over the wire, all told
	maxShift     = 0.0      // cumulative layout shift
)

// watchLoad records layout shifts, and when the page first has the buttons of a
// challenge and the main thread is free for the next task.
const watchLoad = `
	window.browsertest = { shift: 0, shifts: [], interactive: 0 };
	new PerformanceObserver((list) => {
		for (const entry of list.getEntries()) {
			browsertest.shift += entry.value;
			browsertest.shifts.push(...entry.sources.map(({ node }) => node?.outerHTML?.slice(0, 80) ?? '?'));
		}
	}).observe({ type: 'layout-shift', buffered: true });
	new MutationObserver((_, observer) => {
		const button = [...document.querySelectorAll('article button')].find((one) => one.checkVisibility() && one.textContent.trim() === 'Approve');
		if (!button) return;
		observer.disconnect();
		setTimeout(() => { browsertest.interactive = performance.now(); });
	}).observe(document, { childList: true, subtree: true, attributes: true });
`

// milestones tells on the way to interactive what took the time, in milliseconds
// since the navigation began.
const milestones = `(() => {
	const [page] = performance.getEntriesByType('navigation');
	const paint = performance.getEntriesByName('first-contentful-paint')[0];
	const files = performance.getEntriesByType('resource');
	const scripts = files.filter(({ name }) => name.endsWith('.js'));
	const list = files.find(({ name }) => name.includes('/v1/challenges'));
	return 'document ' + Math.round(page.responseEnd)
		+ ', first paint ' + Math.round(paint?.startTime ?? 0)
		+ ', ' + scripts.length + ' modules ' + Math.round(Math.max(...scripts.map((one) => one.responseEnd)))
		+ ', list asked ' + Math.round(list?.startTime ?? 0) + ' answered ' + Math.round(list?.responseEnd ?? 0);
})()`

// wire counts what comes over the network.
type wire struct {
	mu    sync.Mutex
	urls  map[network.RequestID]string
	bytes map[string]int
}

func (w *wire) see(ev any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch e := ev.(type) {
	case *network.EventRequestWillBeSent:
		w.urls[e.RequestID] = e.Request.URL
	case *network.EventLoadingFinished:
		w.bytes[w.urls[e.RequestID]] += int(e.EncodedDataLength)
	}
}

func (w *wire) report() (total int, lines string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for url, n := range w.bytes {
		total += n
		all = append(all, fmt.Sprintf("%7d %s", n, url))
	}
	slices.Sort(all)
	return total, strings.Join(all, "\n")
}

// TestFirstLoad loads the page with a challenge in a browser that has never seen
// it, with a quarter of the processor; and, to compare, a page that is nothing but
// the button.
func TestFirstLoad(t *testing.T) {
	w := newWorld(t, asksForPasskeys...) // the longest page
	bare := newTeam(t)
	bare.show("/", "<!doctype html><title>Bare</title><article><button>Approve</button></article>")
	for _, v := range []viewport{narrow, wide} {
		t.Run(fmt.Sprint(v.width), func(t *testing.T) {
			name, card := user()
			w.post(payment(name, card, "Sephora Digital", "100.20"))
			b := newTab(t)
			b.size(v)
			counter := &wire{urls: map[network.RequestID]string{}, bytes: map[string]int{}}
			if err := chromedp.Listen(b.ctx, counter.see); err != nil {
				t.Fatal(err)
			}
			b.onNewDocument(watchLoad)
			b.must(chromedp.Call(b.ctx, emulation.SetCPUThrottlingRate, emulation.SetCPUThrottlingRateParams{Rate: 4}))
			b.open(w.app(name))
			a := b.article("Sephora Digital", "100.20")
			b.awaitButton(&a, "Approve", true)
			if !until(shownTime, func() bool { return eval[float64](b, "browsertest.interactive") > 0 }) {
				t.Fatal("it was never interactive")
			}
			b.settle()
			total, lines := counter.report()
			t.Logf("over the wire: %d bytes\n%s", total, lines)
			shift := eval[float64](b, "browsertest.shift")
			t.Logf("cumulative layout shift %.4f: %q", shift, eval[[]string](b, "browsertest.shifts"))
			least := newTab(t)
			least.size(v)
			least.onNewDocument(watchLoad)
			least.must(chromedp.Call(least.ctx, emulation.SetCPUThrottlingRate, emulation.SetCPUThrottlingRateParams{Rate: 4}))
			least.open(bare.URL)
			if !until(shownTime, func() bool { return eval[float64](least, "browsertest.interactive") > 0 }) {
				t.Fatal("the bare page was never interactive")
			}
			t.Logf("a bare button is interactive after %.0f ms", eval[float64](least, "browsertest.interactive"))
			t.Logf("interactive after %.0f ms at a quarter of the processor: %s", eval[float64](b, "browsertest.interactive"), eval[string](b, milestones))
			if total > maxFirstLoad {
				t.Errorf("the first load is %d bytes, want at most %d", total, maxFirstLoad)
			}
			if shift > maxShift {
				t.Errorf("the layout shifts by %.4f while it loads", shift)
			}
		})
	}
}

// TestWebhookToNotification reports how long it is from the issuer's webhook to
// the call that shows the notification, in Firefox.
func TestWebhookToNotification(t *testing.T) {
	const times = 50
	w := newWorld(t)
	f := newFirefox(t, w.vapid)
	name, card := user()
	f.turnOnNotifications(w.app(name))
	var took []time.Duration
	for i := range times {
		payee := fmt.Sprintf("Shop %02d", i)
		start := time.Now()
		w.post(payment(name, card, payee, "10.00"))
		took = append(took, f.desktop.await("about "+payee, about(payee)).At.Sub(start))
	}
	slices.Sort(took)
	t.Logf("webhook to notification, %d times: p50 %s, p95 %s, most %s", times, took[times/2], took[times*95/100], took[times-1])
}
