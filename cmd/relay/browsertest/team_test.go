package browsertest

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// team is the site of a team that has a frontend or a login page of its own, on
// an origin of its own.
type team struct {
	*httptest.Server
	mu    sync.Mutex
	pages map[string]string // by path
	token func() string     // what its backend gives out at /relay-token
	asked []*http.Request
}

func newTeam(t testing.TB) *team {
	s := &team{pages: map[string]string{}, token: func() string { return "" }}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *team) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r)
	page, ok := s.pages[r.URL.Path]
	switch {
	case r.URL.Path == "/relay-token":
		page = s.token()
	case !ok:
		http.NotFound(w, r)
		return
	case strings.HasSuffix(r.URL.Path, ".js"):
		w.Header().Set("Content-Type", "text/javascript")
	}
	_, _ = w.Write([]byte(page)) // a browser that has gone needs no page
}

func (s *team) show(path, page string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages[path] = page
}

// requests are those for a path.
func (s *team) requests(path string) []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.asked), func(r *http.Request) bool { return r.URL.Path != path })
}

// readme is the n-th block of code in a language under a heading of the README,
// with the relay's address in it.
func readme(t testing.TB, heading, language string, n int, base string) string {
	t.Helper()
	text, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n### "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	section, _, _ = strings.Cut(section, "\n### ")
	blocks := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(section, -1)
	if !found || n >= len(blocks) {
		t.Fatalf("the README has no block %d of %s under %q", n, language, heading)
	}
	return strings.ReplaceAll(blocks[n][1], "https://relay.example.com", base)
}

// TestOwnFrontend: the page in the README is a whole frontend, notifications
// included, on an origin of its own.
func TestOwnFrontend(t *testing.T) {
	t.Parallel()
	s := newTeam(t)
	w := newWorld(t, "cors_origins: []", `cors_origins: ["`+s.URL+`"]`)
	name, card := user()
	s.token = func() string { return w.token(name, time.Hour) }
	s.show("/", "<!doctype html><title>Team</title>"+readme(t, "Your own frontend", "html", 0, w.base))
	s.show("/sw.js", readme(t, "Your own frontend", "js", 0, w.base))

	c := newChromiumFor(t, w, s.URL)
	c.open(s.URL)
	bought := payment(name, card, "Sephora Digital", "100.20")
	w.post(bought)
	c.sees("Sephora Digital 100.20 EUR pending")
	c.click("Approve")
	w.awaitConfirm(bought, approved)
	c.sees("Sephora Digital 100.20 EUR approved")

	w.post(withCode(name, card, "NameSilo", "50.00", "045435"))
	c.sees("NameSilo 50.00 USD pending")
	c.click("Reject")
	c.sees("NameSilo 50.00 USD rejected")

	c.click("Turn on notifications")
	c.desktop.await("that they are on", about("Notifications are on"))
	if !until(shownTime, func() bool { return slices.Equal(w.subscriptions(name), []string{"active"}) }) {
		t.Fatal("the subscription was not activated")
	}
	w.post(payment(name, card, "Pushed Shop", "7.00"))
	c.desktop.await("about it", about("Pushed Shop", "7.00"))
}

// TestSignInFromThePageThatOpenedIt: by the README's lines, and only if the
// page's origin is allowed.
func TestSignInFromThePageThatOpenedIt(t *testing.T) {
	t.Parallel()
	s := newTeam(t)
	w := newWorld(t)
	name, card := user()
	s.token = func() string { return w.token(name, time.Hour) }
	w.post(payment(name, card, "Sephora Digital", "100.20"))
	s.show("/", `<!doctype html><title>Team</title><button>Card approvals</button><script>
		const freshToken = () => fetch('/relay-token').then((answer) => answer.text());
		document.querySelector('button').onclick = () => {`+readme(t, "The app as it is", "js", 0, w.base)+`
			// A page that is not asked may talk all the same.
			if (location.hash === '#insist') freshToken().then((token) => setInterval(() => app.postMessage({ type: 'relay:token', token }, '*'), 20));
		};
	</script>`)

	b := newTab(t)
	b.open(s.URL + "/#insist")
	b.click("Card approvals")
	app := b.popup(w.base + "/app/")
	app.sees("signed out")
	eval[bool](app, "new Promise((heard) => { let n = 0; addEventListener('message', () => { n += 1; if (n === 3) heard(true); }); })")
	if !app.shows("signed out") || app.shows("Sephora") {
		t.Fatalf("a page whose origin is not allowed has signed somebody in:\n%s", app.text())
	}

	w.reconfigure("cors_origins: []", `cors_origins: ["`+s.URL+`"]`)
	b = newTab(t)
	b.open(s.URL)
	b.click("Card approvals")
	app = b.popup(w.base + "/app/")
	app.article("Sephora Digital", "100.20")
	if address := eval[string](app, "location.href"); address != w.base+"/app/" {
		t.Errorf("the address is %s", address)
	}
}

// popup is the tab that was opened from this one.
func (b *tab) popup(url string) *tab {
	b.t.Helper()
	var id target.ID
	own := chromedp.FromContext(b.ctx)
	if !until(shownTime, func() bool {
		all, err := chromedp.Targets(b.ctx)
		i := slices.IndexFunc(all, func(one *target.Info) bool {
			return one.Type == "page" && strings.HasPrefix(one.URL, url) && one.BrowserContextID == own.BrowserContextID && one.TargetID != own.Target.TargetID
		})
		if err == nil && i >= 0 {
			id = all[i].TargetID
		}
		return id != ""
	}) {
		b.t.Fatalf("no tab with %s was opened within %s", url, shownTime)
	}
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(id))
	b.t.Cleanup(cancel)
	return attach(b.t, ctx)
}

// TestEndOfTheSessionLeadsToTheLoginPage: with the way back, and without a token
// in any address.
func TestEndOfTheSessionLeadsToTheLoginPage(t *testing.T) {
	t.Parallel()
	s := newTeam(t)
	w := newWorld(t, `app: {name: "Card approvals"}`, `app: {login_url: "`+s.URL+`/login?lang=en"}`)
	s.show("/login", "<!doctype html><title>Login</title>Who are you?")
	name, card := user()
	w.post(payment(name, card, "Sephora Digital", "100.20"))
	back := w.base + "/app/#/challenges/" + w.pendingID(name)

	b := newTab(t)
	b.open(w.base + "/app/#token=" + w.token(name, 2*time.Second))
	b.article("Sephora Digital")
	eval[bool](b, "(location.hash = '"+strings.TrimPrefix(back, w.base+"/app/")+"', true)")
	b.sees("Who are you?")
	asked := s.requests("/login")
	if len(asked) != 1 {
		t.Fatalf("the login page was asked for %d times", len(asked))
	}
	query, err := url.ParseQuery(asked[0].URL.RawQuery)
	if err != nil || query.Get("return_to") != back || query.Get("lang") != "en" {
		t.Errorf("the login page was asked for by %s: %v", asked[0].URL, err)
	}
	if r := asked[0]; r.Referer() != "" || strings.Contains(r.URL.String(), "eyJ") {
		t.Errorf("it learnt too much: %s, from %q", r.URL, r.Referer())
	}

	// A login that sends back the same refused token ends there, not in a loop.
	b.open(w.base + "/app/#token=" + w.token(name, -time.Minute))
	b.sees("session has ended")
	if link := eval[string](b, "document.getElementById('sign-in').href"); !strings.HasPrefix(link, s.URL+"/login?") {
		t.Errorf("the way to sign in is %q", link)
	}
	if asked := s.requests("/login"); len(asked) != 1 {
		t.Errorf("the login page was asked for %d times within half a minute", len(asked))
	}
}
