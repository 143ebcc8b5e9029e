package web

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

func TestAcceptsGzip(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "gzip, deflate, br, zstd": true, "br,gzip;q=0.5": true, "*": true, "identity": false, "x-gzip": false,
		"gzip;q=0": false, "gzip; q=0.000": false, "gzip;q=1.0": true, "gzip ; Q=0": false, "gzip;q=x": false, "*;q=0": false, "gzip;q=0, *": false,
		"*, gzip;q=0": false, "*;q=0, gzip": true, "br": false,
	} {
		if got := acceptsGzip([]string{field}); got != want {
			t.Errorf("%q: %v", field, got)
		}
	}
	if acceptsGzip(nil) || !acceptsGzip([]string{"br", "gzip"}) {
		t.Error("none or several fields")
	}
}

// TestEncodings: every file is the same in both encodings, each with its own
// strong ETag, and a cache can tell them apart.
func TestEncodings(t *testing.T) {
	t.Parallel()
	zip := func(more http.Header) http.Header {
		h := http.Header{"Accept-Encoding": {"gzip"}}
		for name, values := range more {
			h[name] = values
		}
		return h
	}
	zipped := 0
	b := Brand{Accent: "#0b6a4b"}
	h, err := Handler(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range servedFiles(t, b) {
		plain := ask(h, "GET", "/app/"+name, nil)
		answer := ask(h, "GET", "/app/"+name, zip(nil))
		etag := answer.Header.Get("ETag")
		if answer.Header.Get("Content-Encoding") == "" {
			if etag != plain.Header.Get("ETag") || body(t, answer) != content {
				t.Errorf("%s: not encoded, and not the same", name)
			}
			continue
		}
		zipped++
		for _, a := range []*http.Response{plain, answer} {
			if a.Header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("%s: Vary = %q", name, a.Header.Get("Vary"))
			}
		}
		if plain.Header.Get("Content-Encoding") != "" || etag == plain.Header.Get("ETag") || strings.HasPrefix(etag, "W/") {
			t.Errorf("%s: ETag %s and %s", name, etag, plain.Header.Get("ETag"))
		}
		sent := body(t, answer)
		r, err := gzip.NewReader(strings.NewReader(sent))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if unpacked, err := io.ReadAll(r); err != nil || string(unpacked) != content {
			t.Errorf("%s: unpacked to %d bytes, want %d; %v", name, len(unpacked), len(content), err)
		}
		length := strconv.Itoa(len(sent))
		head := ask(h, "HEAD", "/app/"+name, zip(nil))
		if answer.Header.Get("Content-Length") != length || head.Header.Get("Content-Length") != length || head.Header.Get("ETag") != etag || body(t, head) != "" {
			t.Errorf("%s: HEAD = %v", name, head.Header)
		}
		for given, want := range map[string]int{etag: 304, "W/" + etag: 304, `"x", ` + etag: 304, "*": 304, plain.Header.Get("ETag"): 200} {
			again := ask(h, "GET", "/app/"+name, zip(http.Header{"If-None-Match": {given}}))
			if again.StatusCode != want || want == 304 && (again.Header.Get("Content-Encoding") != "" || again.Header.Get("Vary") != "Accept-Encoding" || body(t, again) != "") {
				t.Errorf("%s: If-None-Match %s = %d %v", name, given, again.StatusCode, again.Header)
			}
		}
	}
	if zipped < 10 {
		t.Errorf("only %d files are sent compressed", zipped)
	}
}

// TestFirstLoad holds the app to its budget over the wire: the page and all that
// it may fetch before anything is pressed, headers not counted.
func TestFirstLoad(t *testing.T) {
	t.Parallel()
	assets, err := loadApp(Brand{})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for name, a := range assets {
		if name == "/index.html" || strings.HasPrefix(name, "/icons/") {
			continue // the same as "/"; fetched when the app is installed
		}
		size := len(a.plain.body)
		if a.gzipped.body != nil {
			size = len(a.gzipped.body)
		}
		total += size
		t.Logf("%6d %6d %s", size, len(a.plain.body), name)
	}
	t.Logf("%6d in all", total)
	if total > 60<<10 {
		t.Errorf("%d bytes, want at most %d", total, 60<<10)
	}
}
