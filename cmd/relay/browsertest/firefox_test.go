package browsertest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// firefox is one running Firefox with a profile of its own, on a desktop of its
// own, with a push service of its own.
type firefox struct {
	t       testing.TB
	driver  *marionette
	desktop *desktop
	push    *pushServer
	log     tail
}

// firefoxPackages is what .ci/run installs for it: libnotify is how it reaches a
// desktop's notifications.
const firefoxPackages = "firefox-esr libnotify4"

// firefoxPreferences: a push service of ours, notifications allowed, and nothing
// that asks the internet.
func firefoxPreferences(pushURL string) map[string]any {
	return map[string]any{
		"dom.push.serverURL":                         pushURL,
		"dom.push.testing.allowInsecureServerURL":    true,
		"dom.push.retryBaseInterval":                 100,
		"remote.prefs.recommended":                   false, // it would switch push off
		"permissions.default.desktop-notification":   1,
		"marionette.port":                            0,
		"alerts.useSystemBackend":                    true,
		"app.normandy.enabled":                       false,
		"app.update.disabledForTesting":              true,
		"browser.aboutwelcome.enabled":               false,
		"browser.newtabpage.enabled":                 false,
		"browser.safebrowsing.update.enabled":        false,
		"browser.sessionstore.resume_from_crash":     false,
		"browser.shell.checkDefaultBrowser":          false,
		"browser.startup.page":                       0,
		"browser.startup.homepage_override.mstone":   "ignore",
		"datareporting.policy.dataSubmissionEnabled": false,
		"extensions.update.enabled":                  false,
		"intl.accept_languages":                      "en-US, en",
		"network.captive-portal-service.enabled":     false,
		"network.connectivity-service.enabled":       false,
		"network.dns.disablePrefetch":                true,
		"services.settings.server":                   "data:,",
		"startup.homepage_welcome_url":               "about:blank",
		"toolkit.telemetry.reportingpolicy.firstRun": false,
		"toolkit.telemetry.server":                   "data:,",
	}
}

// newFirefox starts one for the duration of the test.
func newFirefox(t testing.TB, vapid string) *firefox {
	t.Helper()
	path := browserPath(t, "firefox-esr", firefoxPackages)
	f := &firefox{t: t, desktop: newDesktop(t), push: newPushServer(t, vapid)}
	profile := shortDir(t)
	var prefs strings.Builder
	for name, value := range firefoxPreferences(f.push.websocketURL()) {
		fmt.Fprintf(&prefs, "user_pref(%q, %#v);\n", name, value)
	}
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(prefs.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless", "--no-remote", "--profile", profile, "--marionette", "--remote-allow-system-access", "about:blank")
	cmd.Env = append(append(os.Environ(), f.desktop.environment()...), "HOME="+profile, "MOZ_CRASHREPORTER_DISABLE=1")
	output, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := spawn(cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.log.follow(output, "", nil)
		_ = cmd.Wait() // it is killed
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("Firefox said:\n%s", f.log.String())
		}
	})
	f.connect(filepath.Join(profile, "MarionetteActivePort"))
	return f
}

func (f *firefox) connect(portFile string) {
	f.t.Helper()
	var port []byte
	if !until(upTime, func() bool {
		port, _ = os.ReadFile(portFile)
		return len(port) > 0
	}) {
		f.t.Fatalf("Firefox did not start within %s:\n%s", upTime, f.log.String())
	}
	var err error
	if f.driver, err = dialMarionette(net.JoinHostPort("127.0.0.1", strings.TrimSpace(string(port)))); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if f.t.Failed() {
			f.t.Logf("the page says at the end:\n%s", f.text())
		}
		_ = f.driver.conn.Close()
	})
}

func (f *firefox) do(name string, parameters map[string]any, into any) {
	f.t.Helper()
	if err := f.driver.do(name, parameters, into); err != nil {
		f.t.Fatal(err)
	}
}

func (f *firefox) open(url string) {
	f.t.Helper()
	f.do("WebDriver:Navigate", map[string]any{"url": url}, nil)
}

// click presses the button with this accessible name as soon as there is one.
func (f *firefox) click(name string) {
	f.t.Helper()
	if !until(shownTime, func() bool {
		for _, button := range f.elements("button") {
			var label string
			if f.driver.do("WebDriver:GetComputedLabel", map[string]any{"id": button}, &label) == nil && label == name {
				return f.driver.do("WebDriver:ElementClick", map[string]any{"id": button}, nil) == nil
			}
		}
		return false
	}) {
		f.t.Fatalf("no button %q within %s; the page says:\n%s", name, shownTime, f.text())
	}
}

func (f *firefox) elements(selector string) []string {
	f.t.Helper()
	var found []map[string]string
	f.do("WebDriver:FindElements", map[string]any{"using": "css selector", "value": selector}, &found)
	var ids []string
	for _, one := range found {
		for _, id := range one {
			ids = append(ids, id)
		}
	}
	return ids
}

func (f *firefox) text() string {
	var text string
	if err := f.driver.script("return document.body.innerText", &text); err != nil {
		return err.Error()
	}
	return text
}

// turnOnNotifications signs a cardholder in and goes through the page's own way
// to notifications, to the first of them.
func (f *firefox) turnOnNotifications(signIn string) {
	f.t.Helper()
	f.open(signIn)
	f.click("Turn on notifications")
	f.desktop.await("that they are on", func(n notice) bool { return strings.Contains(n.Summary, "Notifications are on") })
}
