package web

import (
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"sync"
	"testing"
)

func request(t *testing.T, method, target string, header http.Header) *http.Response {
	t.Helper()
	h, err := plainApp()
	if err != nil {
		t.Fatal(err)
	}
	return ask(h, method, target, header)
}

// plainApp is the app without a brand.
var plainApp = sync.OnceValues(func() (http.Handler, error) { return Handler(Brand{}) })

func ask(h http.Handler, method, target string, header http.Header) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	http.StripPrefix("/app", h).ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// servedFiles returns every file that is served under the brand by its path.
func servedFiles(t *testing.T, b Brand) map[string]string {
	t.Helper()
	assets, err := loadApp(b)
	if err != nil {
		t.Fatal(err)
	}
	return texts(assets)
}

func texts(assets map[string]asset) map[string]string {
	found := make(map[string]string)
	for name, a := range assets {
		if name != "/" {
			found[name[1:]] = string(a.plain.body)
		}
	}
	return found
}

// appFiles returns every file of the app by its path.
func appFiles(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := fs.WalkDir(App(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(App(), name)
		found[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if found["index.html"] == "" {
		t.Fatal("the app has no index.html")
	}
	return found
}

func TestEveryAnswerCarriesTheStrictHeaders(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":       "nosniff",
		"Referrer-Policy":              "no-referrer",
		"Permissions-Policy":           "",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Cache-Control":                "no-cache",
	}
	runs := maps.Clone(want)
	runs["Content-Security-Policy"] = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	runs["Permissions-Policy"] = "accelerometer=(), camera=(), clipboard-read=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()"
	branded, err := Handler(Brand{Logo: []byte("<svg/>"), LogoType: "image/svg+xml"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		answer *http.Response
		want   map[string]string
	}{
		"page":        {request(t, "GET", "/app/", nil), runs},
		"by name":     {request(t, "GET", "/app/index.html", nil), runs},
		"worker":      {request(t, "HEAD", "/app/sw.js", nil), runs},
		"not changed": {request(t, "GET", "/app/", http.Header{"If-None-Match": {request(t, "GET", "/app/", nil).Header.Get("ETag")}}), runs},
		"script":      {request(t, "GET", "/app/main.js", nil), want},
		"gzipped":     {request(t, "GET", "/app/main.js", http.Header{"Accept-Encoding": {"gzip"}}), want},
		"generated":   {request(t, "GET", "/app/config.json", nil), want},
		"logo":        {ask(branded, "GET", "/app/logo.svg", nil), want},
		"missing":     {request(t, "GET", "/app/none.js", nil), want},
		"post":        {request(t, "POST", "/app/", nil), want},
	} {
		for header, value := range c.want {
			if got := c.answer.Header.Get(header); got != value {
				t.Errorf("%s: %s = %q, want %q", name, header, got, value)
			}
		}
	}
}

func TestStatusAndMediaType(t *testing.T) {
	t.Parallel()
	tests := []struct {
		method, target string
		status         int
		mediaType      string
	}{
		{"GET", "/app/", 200, "text/html; charset=utf-8"},
		{"GET", "/app/index.html", 200, "text/html; charset=utf-8"},
		{"GET", "/app/main.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/app/sw.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/app/store/session.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/app/style.css", 200, "text/css; charset=utf-8"},
		{"GET", "/app/theme.css", 200, "text/css; charset=utf-8"},
		{"GET", "/app/icon.svg", 200, "image/svg+xml"},
		{"GET", "/app/icons/icon-192.png", 200, "image/png"},
		{"GET", "/app/lang/en.json", 200, "application/json"},
		{"GET", "/app/config.json", 200, "application/json"},
		{"GET", "/app/manifest.webmanifest", 200, "application/manifest+json"},
		{"HEAD", "/app/", 200, "text/html; charset=utf-8"},
		{"GET", "/app/logo.png", 404, "text/plain; charset=utf-8"},
		{"GET", "/app/store/", 404, "text/plain; charset=utf-8"},
		{"GET", "/app/store", 404, "text/plain; charset=utf-8"},
		{"GET", "/app/main.js/", 404, "text/plain; charset=utf-8"},
		{"GET", "/app/../web.go", 404, "text/plain; charset=utf-8"},
		{"GET", "/app/challenges/chl_1", 404, "text/plain; charset=utf-8"},
		{"POST", "/app/", 405, "text/plain; charset=utf-8"},
		{"DELETE", "/app/main.js", 405, "text/plain; charset=utf-8"},
		{"OPTIONS", "/app/none", 405, "text/plain; charset=utf-8"},
	}
	for _, test := range tests {
		answer := request(t, test.method, test.target, nil)
		if answer.StatusCode != test.status || answer.Header.Get("Content-Type") != test.mediaType {
			t.Errorf("%s %s = %d %s, want %d %s", test.method, test.target,
				answer.StatusCode, answer.Header.Get("Content-Type"), test.status, test.mediaType)
		}
		if test.status == 405 && answer.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow = %q", test.method, test.target, answer.Header.Get("Allow"))
		}
		if test.method == "HEAD" && body(t, answer) != "" {
			t.Errorf("HEAD %s has a body", test.target)
		}
	}
}

func TestEveryFileIsServedWithAnETagOfItsContent(t *testing.T) {
	t.Parallel()
	owner := make(map[string]string)
	for name, content := range servedFiles(t, Brand{}) {
		answer := request(t, "GET", "/app/"+name, nil)
		if got := body(t, answer); got != content {
			t.Errorf("%s: served %d bytes that are not the file's %d", name, len(got), len(content))
		}
		etag := answer.Header.Get("ETag")
		if etag == "" || strings.HasPrefix(etag, "W/") {
			t.Errorf("%s: ETag = %q, want a strong one", name, etag)
		}
		if other, taken := owner[etag]; taken {
			t.Errorf("%s and %s share the ETag %s", name, other, etag)
		}
		owner[etag] = name
		again := request(t, "GET", "/app/"+name, http.Header{"If-None-Match": {etag}})
		if again.StatusCode != http.StatusNotModified || body(t, again) != "" {
			t.Errorf("%s: revalidation = %d, want an empty 304", name, again.StatusCode)
		}
	}
}

func TestUnknownKindOfFileIsRefused(t *testing.T) {
	t.Parallel()
	_, err := newAsset("app.wasm", []byte{0})
	if err == nil || !strings.Contains(err.Error(), "app.wasm: no media type") {
		t.Errorf("newAsset = %v", err)
	}
}

var (
	scriptTag = regexp.MustCompile(`(?i)<script\b[^>]*>([^<]*)`)
	inline    = []*regexp.Regexp{
		regexp.MustCompile(`(?i)<style\b`),
		regexp.MustCompile(`(?i)\sstyle\s*=`),
		regexp.MustCompile(`(?i)\son[a-z]+\s*=`),
		regexp.MustCompile(`(?i)javascript:`),
	}
)

// inlineCode returns what the policy would block in a page.
func inlineCode(page string) []string {
	var found []string
	for _, tag := range scriptTag.FindAllStringSubmatch(page, -1) {
		if !strings.Contains(tag[0], "src=") || strings.TrimSpace(tag[1]) != "" {
			found = append(found, tag[0])
		}
	}
	for _, pattern := range inline {
		found = append(found, pattern.FindAllString(page, -1)...)
	}
	return found
}

func TestNoInlineScriptOrStyle(t *testing.T) {
	t.Parallel()
	bad := []string{
		`<script>go()</script>`, `<script src="a.js">go()</script>`, `<style>p{}</style>`,
		`<p style="color:red">`, `<button onclick="go()">`, `<a href="javascript:go()">`,
	}
	for _, page := range bad {
		if len(inlineCode(page)) == 0 {
			t.Errorf("the check overlooks %s", page)
		}
	}
	for _, files := range []map[string]string{servedFiles(t, Brand{}), consoleFiles(t)} {
		for name, content := range files {
			if ext := path.Ext(name); ext != ".html" && ext != ".svg" {
				continue
			}
			if found := inlineCode(content); len(found) > 0 {
				t.Errorf("%s: inline code %q", name, found)
			}
		}
	}
}

func TestNoThirdPartyAddress(t *testing.T) {
	t.Parallel()
	absolute := regexp.MustCompile(`(?i)(?:https?:)?//[a-z0-9-]+\.[a-z0-9.-]+`)
	harmless := regexp.MustCompile(`^http://www\.w3\.org$|^https://(?:[a-z]+\.)?example\.com$`) // the namespace of SVG; examples in comments
	for _, files := range []map[string]string{servedFiles(t, Brand{}), consoleFiles(t)} {
		for name, content := range files {
			if strings.HasPrefix(name, "uplot/") {
				continue // its comments have links; what it does is seen in a browser
			}
			for _, address := range absolute.FindAllString(content, -1) {
				if !harmless.MatchString(address) {
					t.Errorf("%s names %s", name, address)
				}
			}
		}
	}
}
