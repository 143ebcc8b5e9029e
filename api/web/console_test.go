package web

import (
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
)

// consoleFiles returns every file of the console by its path.
func consoleFiles(t *testing.T) map[string]string {
	t.Helper()
	assets, err := loadConsole()
	if err != nil {
		t.Fatal(err)
	}
	return texts(assets)
}

// TestConsoleReferencesAndFilesMatch: what is named is there, and what is there is
// named; but a licence only has to lie beside what it is of.
func TestConsoleReferencesAndFilesMatch(t *testing.T) {
	t.Parallel()
	all := consoleFiles(t)
	used := map[string]bool{"index.html": true, "uplot/LICENSE.txt": true}
	for name, content := range all {
		for _, target := range named(name, content) {
			if _, exists := all[target]; !exists {
				t.Errorf("%s names %s, which is not in the console", name, target)
			}
			used[target] = true
		}
	}
	for name := range all {
		if !used[name] {
			t.Errorf("nothing names %s", name)
		}
	}
	if !strings.Contains(all["uplot/LICENSE.txt"], "MIT License") {
		t.Error("uPlot's licence is not beside it")
	}
}

// TestConsoleIsServedAsTheAppIs: the same headers, types and ETags, with files of
// the app where the two share them.
func TestConsoleIsServedAsTheAppIs(t *testing.T) {
	t.Parallel()
	console, err := Console()
	if err != nil {
		t.Fatal(err)
	}
	app := servedFiles(t, Brand{})
	mediaTypes := map[string]string{
		".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
		".txt": "text/plain; charset=utf-8",
	}
	get := func(target string, header http.Header) *http.Response {
		r := httptest.NewRequest("GET", target, nil)
		r.Header = header
		w := httptest.NewRecorder()
		console.ServeHTTP(w, r)
		return w.Result()
	}
	for name, content := range consoleFiles(t) {
		answer := get("/"+name, http.Header{})
		if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != mediaTypes[path.Ext(name)] || body(t, answer) != content {
			t.Errorf("%s: %d %s", name, answer.StatusCode, answer.Header.Get("Content-Type"))
		}
		if again := get("/"+name, http.Header{"If-None-Match": {answer.Header.Get("ETag")}}); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s: revalidation = %d", name, again.StatusCode)
		}
	}
	for _, name := range []string{"element.js", "theme.css", "icon.svg"} {
		if body(t, get("/"+name, http.Header{})) != app[name] {
			t.Errorf("%s is not that of the app", name)
		}
	}
	page := get("/", http.Header{"Accept-Encoding": {"gzip"}})
	if page.StatusCode != 200 || page.Header.Get("Content-Encoding") != "gzip" || page.Header.Get("Cache-Control") != "no-cache" ||
		!strings.Contains(page.Header.Get("Content-Security-Policy"), "script-src 'self'; style-src 'self';") {
		t.Errorf("the page: %d %v", page.StatusCode, page.Header)
	}
	if script := get("/main.js", http.Header{}); script.Header.Get("Content-Security-Policy") != headers["Content-Security-Policy"] {
		t.Errorf("a script: %v", script.Header)
	}
	for target, status := range map[string]int{"/none.js": 404, "/pages/": 404, "/sw.js": 404, "/config.json": 404} {
		if got := get(target, http.Header{}).StatusCode; got != status {
			t.Errorf("%s: %d, want %d", target, got, status)
		}
	}
}
