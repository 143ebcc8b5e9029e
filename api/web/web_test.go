package web

import (
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

func request(t *testing.T, method, target string, header http.Header) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for name, values := range header {
		r.Header[name] = values
	}
	w := httptest.NewRecorder()
	http.StripPrefix("/app", Handler()).ServeHTTP(w, r)
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
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff",
		"Referrer-Policy":         "no-referrer",
		"Permissions-Policy":      "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
		"Cache-Control":           "no-cache",
	}
	answers := map[string]*http.Response{
		"page":        request(t, "GET", "/app/", nil),
		"script":      request(t, "GET", "/app/main.js", nil),
		"head":        request(t, "HEAD", "/app/sw.js", nil),
		"missing":     request(t, "GET", "/app/none.js", nil),
		"post":        request(t, "POST", "/app/", nil),
		"not changed": request(t, "GET", "/app/", http.Header{"If-None-Match": {request(t, "GET", "/app/", nil).Header.Get("ETag")}}),
	}
	for name, answer := range answers {
		for header, value := range want {
			if got := answer.Header.Get(header); got != value {
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
		{"GET", "/app/manifest.webmanifest", 200, "application/manifest+json"},
		{"HEAD", "/app/", 200, "text/html; charset=utf-8"},
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
	for name, content := range appFiles(t) {
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
	_, err := load(fstest.MapFS{"app.wasm": {Data: []byte{0}}})
	if err == nil || !strings.Contains(err.Error(), "app.wasm: no media type") {
		t.Errorf("load = %v", err)
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
	for name, content := range appFiles(t) {
		if ext := path.Ext(name); ext != ".html" && ext != ".svg" {
			continue
		}
		if found := inlineCode(content); len(found) > 0 {
			t.Errorf("%s: inline code %q", name, found)
		}
	}
}

func TestNoThirdPartyAddress(t *testing.T) {
	t.Parallel()
	absolute := regexp.MustCompile(`(?i)(?:https?:)?//[a-z0-9-]+\.[a-z0-9.-]+`)
	const svgNamespace = "http://www.w3.org"
	for name, content := range appFiles(t) {
		for _, address := range absolute.FindAllString(content, -1) {
			if address != svgNamespace {
				t.Errorf("%s names %s", name, address)
			}
		}
	}
}

// references finds the files that a file of the app names: attributes in a
// page, imports and new URL('…') in a module, members of the manifest.
var references = map[string]*regexp.Regexp{
	".html":        regexp.MustCompile(`(?:src|href)="([^"#]+)"`),
	".js":          regexp.MustCompile(`(?:from\s+|import\s+|import\(|importScripts\(|new URL\()'([^']+\.[a-z]+)'`),
	".css":         regexp.MustCompile(`url\(["']?([^"')]+)`),
	".webmanifest": regexp.MustCompile(`"(?:src|start_url|scope)":\s*"([^"]+)"`),
}

func TestReferencesAndFilesMatch(t *testing.T) {
	t.Parallel()
	all := appFiles(t)
	named := map[string]bool{"index.html": true}
	for name, content := range all {
		pattern := references[path.Ext(name)]
		if pattern == nil {
			continue
		}
		for _, match := range pattern.FindAllStringSubmatch(content, -1) {
			target := path.Join(path.Dir(name), match[1])
			if target == "." {
				continue // the page itself
			}
			if _, exists := all[target]; !exists {
				t.Errorf("%s names %s, which is not in the app", name, match[1])
			}
			named[target] = true
		}
	}
	for name := range all {
		if !named[name] {
			t.Errorf("nothing names %s", name)
		}
	}
}
