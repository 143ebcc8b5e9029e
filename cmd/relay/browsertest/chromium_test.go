package browsertest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/serviceworker"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"

	"approvalrelay/cmd/relay/sim"
)

// chromiumPackages is what .ci/run installs for it.
const chromiumPackages = "chromium"

// chromiumOptions start Debian's Chromium as root without a network. It talks to
// nobody by itself, so that what is sent is what the app sends.
func chromiumOptions(path, profile string, environment []string) []chromedp.ExecAllocatorOption {
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(profile), chromedp.Env(environment...),
		chromedp.NoSandbox, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.DisableGPU,
		chromedp.Flag("headless", "new"), chromedp.Flag("lang", "en-US"), chromedp.Flag("password-store", "basic"),
		chromedp.WSURLReadTimeout(upTime),
	}
	for _, name := range []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-default-apps",
		"disable-extensions", "disable-breakpad", "disable-dev-shm-usage", "hide-scrollbars",
		// A tab that another one covers must go on as if it was seen.
		"disable-background-timer-throttling", "disable-backgrounding-occluded-windows", "disable-renderer-backgrounding",
	} {
		options = append(options, chromedp.Flag(name, true))
	}
	return options
}

// startChromium returns the context of a running browser, and what ends it.
func startChromium(path, profile string, environment []string) (context.Context, func(), error) {
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), chromiumOptions(path, profile, environment)...)
	ctx, closeBrowser := chromedp.NewContext(allocator)
	end := func() {
		closeBrowser()
		cancel()
	}
	if err := chromedp.Do(ctx); err != nil {
		end()
		return nil, nil, fmt.Errorf("start Chromium: %w", err)
	}
	return ctx, end, nil
}

// shared is the browser of all tests that need no notifications: each has a
// context (cookies, storage, workers) of its own in it.
var shared struct {
	once sync.Once
	ctx  context.Context
	end  func()
	err  error
}

func sharedChromium(t testing.TB) context.Context {
	t.Helper()
	path := browserPath(t, "chromium", chromiumPackages)
	shared.once.Do(func() {
		dir, err := buildDir()
		if err == nil {
			dir, err = os.MkdirTemp(dir, "chromium")
		}
		if err != nil {
			shared.err = err
			return
		}
		shared.ctx, shared.end, shared.err = startChromium(path, dir, []string{"HOME=" + dir, "DBUS_SESSION_BUS_ADDRESS=disabled:"})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.ctx
}

func closeChromium() {
	if shared.end != nil {
		shared.end()
	}
}

// newTab opens a tab in a fresh browser context for the duration of the test.
func newTab(t testing.TB) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(sharedChromium(t), chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	return attach(t, ctx)
}

func attach(t testing.TB, ctx context.Context) *tab {
	t.Helper()
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	b := &tab{t: t, ctx: ctx}
	b.size(wide)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the page says at the end:\n%s", b.text())
		}
	})
	return b
}

// chromium is a browser of its own with a desktop for its notifications. The
// relay's pushes to its device are decrypted by package sim and handed to the
// worker, as the browser does with those of its own push service, which cannot
// be reached here.
type chromium struct {
	*tab
	desktop *desktop
	device  *sim.Device
	pushes  chan string // what is to be handed to the worker
}

// newChromium starts one for the duration of the test, for the relay's own app.
func newChromium(t testing.TB, w *world) *chromium {
	t.Helper()
	return newChromiumFor(t, w, w.base)
}

// newChromiumFor is newChromium for the page of an origin.
func newChromiumFor(t testing.TB, w *world, origin string) *chromium {
	t.Helper()
	path := browserPath(t, "chromium", chromiumPackages)
	d, profile := newDesktop(t), shortDir(t)
	ctx, end, err := startChromium(path, profile, append(d.environment(), "HOME="+profile))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	c := &chromium{tab: attach(t, ctx), desktop: d, device: w.push.Subscribe(w.pushURL), pushes: make(chan string, 256)}
	for _, name := range []string{"notifications", "push"} {
		c.must(chromedp.CallBrowser(ctx, browser.SetPermission, browser.SetPermissionParams{
			Permission: &browser.PermissionDescriptor{Name: name, UserVisibleOnly: name == "push"}, Setting: browser.PermissionSettingGranted, Origin: origin,
		}))
	}
	c.onNewDocument(subscribeScript(c.device))
	c.deliver(origin)
	return c
}

// subscribeScript makes PushManager hand out the subscription of a simulated
// device.
func subscribeScript(device *sim.Device) string {
	return `(() => {
	const json = ` + string(device.JSON()) + `;
	const kept = 'browsertest.subscription'; // survives a reload, as a subscription does
	const bytes = (text) => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0)).buffer;
	const subscription = () => ({
		endpoint: json.endpoint, expirationTime: null,
		options: { userVisibleOnly: true, applicationServerKey: bytes(localStorage.getItem(kept)) },
		getKey: (name) => bytes(json.keys[name]),
		toJSON: () => json,
		unsubscribe: async () => { localStorage.removeItem(kept); return true; },
	});
	PushManager.prototype.getSubscription = async () => (localStorage.getItem(kept) ? subscription() : null);
	PushManager.prototype.subscribe = async ({ applicationServerKey: key }) => {
		localStorage.setItem(kept, typeof key === 'string' ? key : btoa(String.fromCharCode(...new Uint8Array(key.buffer ?? key))));
		return subscription();
	};
})()`
}

// deliver hands every push to the device on to the worker.
func (c *chromium) deliver(origin string) {
	c.t.Helper()
	registrations := make(chan serviceworker.RegistrationID, 16)
	if err := chromedp.Listen(c.ctx, func(ev any) {
		if e, ok := ev.(*serviceworker.EventWorkerRegistrationUpdated); ok {
			for _, r := range e.Registrations {
				if !r.IsDeleted && strings.HasPrefix(r.ScopeURL, origin) {
					registrations <- r.RegistrationID
				}
			}
		}
	}); err != nil {
		c.t.Fatal(err)
	}
	c.must(chromedp.Call(c.ctx, serviceworker.Enable, cdp.Empty{}))
	c.device.OnRecord(func(n sim.Notification) { c.pushes <- string(n.Raw) })
	go func() {
		var id serviceworker.RegistrationID
		for {
			select {
			case id = <-registrations:
			case data := <-c.pushes:
				for id == "" {
					select {
					case id = <-registrations:
					case <-c.ctx.Done():
						return
					}
				}
				if _, err := chromedp.Call(c.ctx, serviceworker.DeliverPushMessage, serviceworker.DeliverPushMessageParams{
					Origin: origin, RegistrationID: id, Data: data,
				}); err != nil && c.ctx.Err() == nil {
					c.t.Errorf("deliver a push: %v", err)
				}
			case <-c.ctx.Done():
				return
			}
		}
	}()
}

// turnOnNotifications signs a cardholder in and goes through the page's own way
// to notifications, to the first of them.
func (c *chromium) turnOnNotifications(signIn string) {
	c.t.Helper()
	c.open(signIn)
	c.click("Turn on notifications")
	c.desktop.await("that they are on", func(n notice) bool { return strings.Contains(n.Summary, "Notifications are on") })
}

// requests records where this tab and, from now on, the workers of its browser
// context send requests to.
func (b *tab) requests() *requests {
	b.t.Helper()
	r := &requests{}
	if err := chromedp.Listen(b.ctx, r.see); err != nil {
		b.t.Fatal(err)
	}
	return r
}

// watchWorker records also what the worker of an origin sends.
func (b *tab) watchWorker(r *requests, origin string) {
	b.t.Helper()
	var id target.ID
	own := chromedp.FromContext(b.ctx).BrowserContextID
	if !until(shownTime, func() bool {
		all, err := chromedp.Targets(b.ctx)
		i := slices.IndexFunc(all, func(one *target.Info) bool {
			return one.Type == "service_worker" && strings.HasPrefix(one.URL, origin) && (own == "" || one.BrowserContextID == own)
		})
		if err == nil && i >= 0 {
			id = all[i].TargetID
		}
		return id != ""
	}) {
		b.t.Fatalf("no service worker of %s within %s", origin, shownTime)
	}
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(id), chromedp.WithListener(r.see))
	b.t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		b.t.Fatal(err)
	}
}

// requests are the URLs of a session.
type requests struct {
	mu   sync.Mutex
	urls []string
}

func (r *requests) see(ev any) {
	if e, ok := ev.(*network.EventRequestWillBeSent); ok {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.urls = append(r.urls, e.Request.URL)
	}
}

func (r *requests) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.urls)
}

// viewport is the size of a window in CSS pixels.
type viewport struct{ width, height int64 }

var (
	narrow = viewport{360, 780}
	wide   = viewport{1280, 900}
)

func (b *tab) size(v viewport) {
	b.t.Helper()
	b.width = v.width
	b.must(chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: v.width, Height: v.height, DeviceScaleFactor: 1, Mobile: v == narrow,
	}))
}

// scheme makes the system light or dark.
func (b *tab) scheme(name string) {
	b.t.Helper()
	b.must(chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	}))
}

// offline cuts the tab off from every network, or ends that.
func (b *tab) offline(yes bool) {
	b.t.Helper()
	conditions := &network.Conditions{Offline: yes, DownloadThroughput: -1, UploadThroughput: -1}
	b.must(chromedp.Call(b.ctx, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
		MatchedNetworkConditions: []*network.Conditions{conditions},
	}))
	b.must(chromedp.Call(b.ctx, network.OverrideNetworkState, network.OverrideNetworkStateParams{
		Offline: yes, DownloadThroughput: -1, UploadThroughput: -1,
	}))
}

// screenshot is a PNG of what the window shows.
func (b *tab) screenshot() []byte {
	b.t.Helper()
	shot, err := chromedp.Call(b.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{})
	if err != nil {
		b.t.Fatal(err)
	}
	return shot.Data
}
