package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"approvalrelay/api/web"
	"approvalrelay/relay"
)

func prefixes(text string) []netip.Prefix {
	if text == "" {
		return nil
	}
	return []netip.Prefix{netip.MustParsePrefix(text)}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for given, kept := range map[string]bool{
		"abc-123_X.y": true, strings.Repeat("a", 64): true,
		"": false, strings.Repeat("a", 65): false, "a b": false, "a\tb": false, `"x"`: false, "é": false, "a,b": false,
	} {
		for _, path := range []string{"/v1/challenges", "/nowhere", "/app/", "/openapi.json"} {
			got := b.call(request{method: "GET", path: path, header: http.Header{"X-Request-Id": {given}}}).Header.Get("X-Request-Id")
			if (got == given) != kept || !validRequestID(got) {
				t.Errorf("%s: %q became %q", path, given, got)
			}
		}
	}
	one := b.call(request{method: "GET", path: "/nowhere"}).Header.Get("X-Request-Id")
	if two := b.call(request{method: "GET", path: "/nowhere"}).Header.Get("X-Request-Id"); one == two {
		t.Error("two requests share an id")
	}
}

func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, path := range []string{"/v1/challenges", "/nowhere", "/openapi.json", "/v1/push/key", "/"} {
		h := b.call(request{method: "GET", path: path}).Header
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" ||
			h.Get("Content-Security-Policy") != "default-src 'none'; frame-ancestors 'none'" || h.Get("Server") != "" {
			t.Errorf("%s: %v", path, h)
		}
	}
	if got := b.get("/v1/challenges").Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
}

func TestApp(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	a := b.call(request{method: "GET", path: "/app/"}).status(200)
	if !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") || !strings.Contains(a.Header.Get("Content-Security-Policy"), "script-src 'self'") {
		t.Errorf("%v", a.Header)
	}
	if a := b.call(request{method: "GET", path: "/app/sw.js"}).status(200); !strings.HasPrefix(a.Header.Get("Content-Type"), "text/javascript") {
		t.Errorf("%v", a.Header)
	}
	b.call(request{method: "HEAD", path: "/app/"}).status(200)
	for _, path := range []string{"/", "/app"} {
		if a := b.call(request{method: "GET", path: path}).status(302); a.Header.Get("Location") != "/app/" {
			t.Errorf("%s leads to %q", path, a.Header.Get("Location"))
		}
	}
	for _, path := range []string{"/app/nothing.js", "/app/../server.go", "/app/%2e%2e/server.go"} {
		b.call(request{method: "GET", path: path}).status(404)
	}
	b.call(request{method: "POST", path: "/app/"}).problem(405, "method_not_allowed")
}

// TestConsole: on the admin listener only, without a token, but not under a foreign
// name.
func TestConsole(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	admin := func(method, path string, header http.Header) answer {
		t.Helper()
		return send(t, b.admin, request{method: method, path: path, header: header}, false)
	}
	page := admin("GET", "/console/", nil).status(200)
	if !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") || !strings.Contains(page.Header.Get("Content-Security-Policy"), "script-src 'self'") {
		t.Errorf("%v", page.Header)
	}
	for _, path := range []string{"/console/main.js", "/console/element.js", "/console/pages/overview.js"} {
		admin("HEAD", path, nil).status(200)
	}
	if a := admin("GET", "/console", nil).status(302); a.Header.Get("Location") != "/console/" {
		t.Errorf("/console leads to %q", a.Header.Get("Location"))
	}
	admin("GET", "/console/", http.Header{"Origin": {"https://evil.com"}}).problem(403, "forbidden")
	admin("GET", "/console/../server.go", nil).status(404)
	admin("GET", "/app/", nil).problem(404, "not_found")
	b.call(request{method: "GET", path: "/console/"}).problem(404, "not_found")
}

// TestRelayModule: a team's page imports it from its own origin, and caches keep
// the answers to different pages apart.
func TestRelayModule(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	get := func(origin string) http.Header {
		return b.call(request{method: "GET", path: "/app/relay.js", header: http.Header{"Origin": {origin}, "Accept-Encoding": {"gzip"}}}).status(200).Header
	}
	for origin, allowed := range map[string]string{"https://app.example.com": "https://app.example.com", "https://evil.com": "", "": ""} {
		h := get(origin)
		if vary := strings.Join(h.Values("Vary"), ", "); h.Get("Access-Control-Allow-Origin") != allowed || vary != "Origin, Accept-Encoding" ||
			h.Get("Content-Encoding") != "gzip" || h.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("%q: %v", origin, h)
		}
	}
}

// TestBrand: what is configured reaches the app, the allowed origins with it.
func TestBrand(t *testing.T) {
	t.Parallel()
	b := newBed(t, func(o *Options) { o.Brand = web.Brand{Name: "Bank", LoginURL: "https://login.example.com/"} })
	var got struct {
		Name     string
		LoginURL string `json:"login_url"`
		Origins  []string
	}
	must(t, json.Unmarshal(b.call(request{method: "GET", path: "/app/config.json"}).status(200).Body, &got))
	if got.Name != "Bank" || got.LoginURL != "https://login.example.com/" || !slices.Equal(got.Origins, []string{"https://app.example.com"}) {
		t.Errorf("%+v", got)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, path := range []string{"/nowhere", "/v1", "/v1/", "/v1/challenges/", "/v1/Challenges", "/healthz", "/readyz", "/metrics", "/ops/v1/deliveries/x", "/webhooks", "/console/"} {
		b.get(path).problem(404, "not_found")
	}
	for path, allow := range map[string]string{"/v1/challenges": "GET", "/v1/push/subscriptions": "POST, GET", "/openapi.json": "GET"} {
		if a := b.call(request{method: "PATCH", path: path}).problem(405, "method_not_allowed"); a.Header.Get("Allow") != allow {
			t.Errorf("%s: Allow %q, want %q", path, a.Header.Get("Allow"), allow)
		}
	}
}

func TestOpenAPIDocument(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	a := b.call(request{method: "GET", path: "/openapi.json"}).status(200)
	var document struct{ OpenAPI string }
	must(t, json.Unmarshal(a.Body, &document))
	if a.Header.Get("Content-Type") != "application/json" || document.OpenAPI != "3.1.0" {
		t.Errorf("%v %s", a.Header, document.OpenAPI)
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, c := range []struct {
		path, origin string
		allowed      bool
	}{
		{"/v1/challenges", "https://app.example.com", true},
		{"/openapi.json", "https://app.example.com", true},
		{"/v1/challenges", "https://app.example.com.evil.com", false},
		{"/v1/challenges", "https://APP.example.com", false},
		{"/v1/challenges", "http://app.example.com", false},
		{"/v1/challenges", "https://app.example.com:8443", false},
		{"/v1/challenges", "null", false},
		{"/v1/challenges", "https://evilapp.example.com", false},
		{"/v1/challenges", "https://x.app.example.com", false},
		{"/v1/challenges", "https://app.example.com/", false},
		{"/v1/challenges", "https://app.example.com.", false},
		{"/v1/challenges", "https://app.example.com@evil.com", false},
		{"/v1/challenges", "https://app.example.com https://evil.com", false},
		{"/v1/challenges", "*", false},
		{"/webhooks/acme", "https://app.example.com", false},
		{"/app/relay.js", "https://app.example.com", true},
		{"/app/relay.js", "https://evil.com", false},
		{"/app/", "https://app.example.com", false},
		{"/app/main.js", "https://app.example.com", false},
		{"/app/config.json", "https://app.example.com", false},
		{"/app/x/../relay.js", "https://app.example.com", false},
		{"/app/relay.js/", "https://app.example.com", false},
	} {
		want := ""
		if c.allowed {
			want = c.origin
		}
		h := b.call(request{method: "GET", path: c.path, header: http.Header{"Origin": {c.origin}}}).Header
		if h.Get("Access-Control-Allow-Origin") != want || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s from %s: %v", c.path, c.origin, h)
		}
		if c.allowed && (h.Get("Access-Control-Expose-Headers") != "X-Request-Id, Retry-After, Date" || h.Values("Vary")[0] != "Origin") {
			t.Errorf("%v", h)
		}
		preflight := b.call(request{method: "OPTIONS", path: c.path, header: http.Header{
			"Origin": {c.origin}, "Access-Control-Request-Method": {"DELETE"}, "Access-Control-Request-Headers": {"authorization,content-type"},
		}})
		if preflight.Header.Get("Access-Control-Allow-Origin") != want {
			t.Errorf("preflight of %s from %s: %v", c.path, c.origin, preflight.Header)
		}
		if c.allowed && (preflight.Status != 204 || preflight.Header.Get("Access-Control-Allow-Headers") != "authorization,content-type") {
			t.Errorf("%d %v", preflight.Status, preflight.Header)
		}
	}
	none := newBed(t, func(o *Options) { o.CORSOrigins = nil })
	if h := none.call(request{method: "GET", path: "/v1/challenges", header: http.Header{"Origin": {"https://app.example.com"}}}).Header; h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("no origin is configured, and all are let in: %v", h)
	}
}

// TestPanicIsOpaque: a handler that panics takes nothing down and tells nobody
// what was in the request.
func TestPanicIsOpaque(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.server.publicRoutes.POST("/panic", func(c *gin.Context) {
		body, err := c.GetRawData()
		must(t, err)
		panic("cannot handle " + string(body))
	})
	b.server.publicRoutes.GET("/bug", func(c *gin.Context) { _ = []int{}[len(c.Params)] })
	b.server.publicRoutes.GET("/unknown", b.server.do(func(*gin.Context) error { return errors.New("disk on fire") }))
	a := b.call(request{method: "POST", path: "/panic", body: "the secret", token: "token-in-header"}).problem(500, "internal")
	if p := decodeAs[problem](a); p.Detail != errInternal.Detail {
		t.Errorf("%+v", p)
	}
	b.call(request{method: "GET", path: "/bug"}).problem(500, "internal")
	a = b.call(request{method: "GET", path: "/unknown?q=query-text"}).problem(500, "internal")
	if strings.Contains(string(a.Body), "fire") {
		t.Errorf("%s", a.Body)
	}
	log := b.log.String()
	for _, secret := range []string{"the secret", "token-in-header", "query-text"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log quotes %q", secret)
		}
	}
	for _, useful := range []string{"server_test.go", "disk on fire", a.Header.Get("X-Request-Id"), "index out of range"} {
		if !strings.Contains(log, useful) {
			t.Errorf("the log does not say %q", useful)
		}
	}
}

// TestEveryCodeHasAStatus: no refusal of the domain becomes a 500 by oversight.
func TestEveryCodeHasAStatus(t *testing.T) {
	t.Parallel()
	for _, code := range []relay.Code{
		relay.CodeNotFound, relay.CodeAlreadyDecided, relay.CodeExpired, relay.CodeWrongMethod, relay.CodeShownMismatch, relay.CodeInvalidRequest,
		relay.CodeWrongCode, relay.CodeCancelled, relay.CodeNotConfigured, relay.CodeUnknown, relay.CodeUnavailable,
	} {
		if statuses[code] == 0 {
			t.Errorf("%s has no status", code)
		}
	}
}

func TestNewRefusesMistakes(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	good := Options{Service: b.service, Log: discard, LogLevel: &slog.LevelVar{}, Auth: b.server.auth, MaxBody: 1, UserLimit: Limit{1, 1}}
	_, err := New(good)
	must(t, err)
	for name, change := range map[string]func(*Options){
		"no service":      func(o *Options) { o.Service = nil },
		"no log":          func(o *Options) { o.Log = nil },
		"no log level":    func(o *Options) { o.LogLevel = nil },
		"no auth":         func(o *Options) { o.Auth = nil },
		"no body":         func(o *Options) { o.MaxBody = 0 },
		"no limit":        func(o *Options) { o.UserLimit = Limit{} },
		"key, no policy":  func(o *Options) { o.VAPIDPublicKey = "B" },
		"a bad accent":    func(o *Options) { o.Brand.Accent = "red" },
		"a limit without": func(o *Options) { o.UserLimit = Limit{PerSecond: 1} },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestSecretsRedactThemselves(t *testing.T) {
	t.Parallel()
	text := "hunter2-hunter2"
	o := Options{AdminToken: Secret(text)}
	j := JWTOptions{HS256Secret: Secret(text)}
	for _, v := range []any{o.AdminToken, o, j, &o, &j} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			got := fmt.Sprintf(format, v)
			if strings.Contains(got, text) || strings.Contains(got, fmt.Sprintf("%x", text)) || strings.Contains(got, "104 117") {
				t.Errorf("%s of %s: %s", format, reflect.TypeOf(v), got)
			}
		}
	}
	body, err := json.Marshal(j.HS256Secret)
	must(t, err)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", o.AdminToken)
	if strings.Contains(string(body)+log.String(), "hunter2") {
		t.Errorf("%s %s", body, log.String())
	}
}

// TestLogsHoldNoRequestData goes through calls that carry secrets everywhere.
func TestLogsHoldNoRequestData(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const secret = "s3cr3t"
	header := http.Header{"X-Custom": {secret}, "User-Agent": {secret}, "Cookie": {secret}}
	b.call(request{method: "GET", path: "/v1/challenges?cursor=" + secret, token: secret, header: header}).status(401)
	b.call(request{method: "POST", path: "/webhooks/acme?" + secret, body: secret, header: header}).status(400)
	b.call(request{method: "GET", path: "/" + secret, header: header}).status(404)
	b.post("/v1/challenges/"+secret+"/approve", `{"`+secret+`":1}`).status(400)
	send(t, b.admin, request{method: "GET", path: "/ops/v1/merchants/acme/cards/" + secret, token: testAdmin, header: header}, false).status(404)
	if log := b.log.String(); strings.Contains(log, secret) || !strings.Contains(log, `"route":"/v1/challenges/:id/approve"`) {
		t.Error(log)
	}
}

func TestAbortedHandlerIsNotAnswered(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.server.publicRoutes.GET("/abort", func(*gin.Context) { panic(http.ErrAbortHandler) })
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("recovered %v", v)
		}
	}()
	b.server.Public().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/abort", nil))
}
