// Package web holds the cardholder app and the operator's console as static files,
// puts an operator's brand on the app, and serves both.
//
// Guarantees: every answer, errors included, carries a Content-Security-Policy:
// that of the page and the worker allows nothing but this origin's own files (no
// inline script or style, no third party, no framing), that of all else nothing; every file has a fixed media type, so nothing
// depends on the host's MIME tables; every file has a strong ETag of its
// content and encoding, so a browser revalidates cheaply and never runs a stale
// app; the service worker changes whenever any file does; an accent of any colour
// leaves every text legible (WCAG 2.2 AA).
//
// Non-goals: it holds no session and checks no token (the pages send one to the
// API by themselves), it lists no directories, and it lets no other origin in: whoever
// mounts it does that for relay.js.
package web

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"
)

//go:embed app/* console/*
var files embed.FS

func folder(name string) fs.FS {
	sub, err := fs.Sub(files, name)
	if err != nil {
		panic("web: " + err.Error()) // only possible if the embedded folder is renamed
	}
	return sub
}

// App returns the files of the cardholder app as they are embedded, index.html at
// the root.
func App() fs.FS { return folder("app") }

// headers are sent with every answer. Cross-Origin-Resource-Policy keeps other
// sites from embedding anything; a module that is imported under CORS is not
// subject to it. There is no Cross-Origin-Opener-Policy: a team's page opens the
// app and signs it in by postMessage.
var headers = map[string]string{
	"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'",
	"X-Content-Type-Options":       "nosniff",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Cache-Control":                "no-cache",
}

// running is sent beside them, or in their place, with what a browser runs: the
// page and the worker. Elsewhere the long policies would only cost time.
// connect-src covers the API, which is on the same origin; worker-src and
// manifest-src are what makes the app installable. The service worker lies beside
// the page, so its scope needs no Service-Worker-Allowed.
var running = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
		"connect-src 'self'; manifest-src 'self'; worker-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	"Permissions-Policy": "accelerometer=(), camera=(), clipboard-read=(), display-capture=(), geolocation=(), gyroscope=(), hid=(), " +
		"magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()",
}

// Handler serves the app under the brand to requests whose mount prefix is already
// stripped: "/" is the page, "/main.js" a file, and so on. Mount it with
// http.StripPrefix("/app", h) under "/app/"; the trailing slash matters, because
// the page names its files relatively.
//
// Beside the embedded files there are config.json, manifest.webmanifest and, if
// the brand has one, logo.png or logo.svg; its accent is in theme.css. Only GET and
// HEAD are answered (405 otherwise), unknown paths with 404, a matching
// If-None-Match with 304. Text is sent gzipped to who accepts that.
//
// The error says what is wrong with the brand, or with the embedded files: the
// latter is a mistake in this package, which its tests catch.
func Handler(b Brand) (http.Handler, error) {
	assets, err := loadApp(b)
	if err != nil {
		return nil, fmt.Errorf("web: the app: %w", err)
	}
	return serve(assets), nil
}

// Console serves the operator's console in the same way, without a brand; mount
// it under "/console/". It calls the ops API of its own origin, with the token
// that the operator types in.
func Console() (http.Handler, error) {
	assets, err := loadConsole()
	if err != nil {
		return nil, fmt.Errorf("web: the console: %w", err)
	}
	return serve(assets), nil
}

func serve(assets map[string]asset) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		for name, value := range headers {
			header.Set(name, value)
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			header.Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed)
			return
		}
		file, ok := assets[r.URL.Path]
		if !ok {
			refuse(w, http.StatusNotFound)
			return
		}
		file.serve(w, r)
	})
}

// refuse answers in place of http.Error, which would drop Cache-Control.
func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, http.StatusText(status))
}

func (a asset) serve(w http.ResponseWriter, r *http.Request) {
	header, chosen := w.Header(), a.plain
	if a.runs {
		for name, value := range running {
			header.Set(name, value)
		}
	}
	header.Set("Content-Type", a.mediaType)
	if a.gzipped.body != nil {
		header.Add("Vary", "Accept-Encoding") // beside Origin, where CORS has put that
		if acceptsGzip(r.Header.Values("Accept-Encoding")) {
			chosen = a.gzipped
			header.Set("Content-Encoding", "gzip")
			header.Set("Content-Length", strconv.Itoa(len(chosen.body))) // ServeContent leaves it out of encoded answers
		}
	}
	header.Set("ETag", chosen.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(chosen.body))
}

// acceptsGzip reads Accept-Encoding (RFC 9110, section 12.5.3). What names neither
// gzip nor * is sent plain, which is always allowed.
func acceptsGzip(fields []string) bool {
	accepted, named := false, false
	for _, part := range strings.Split(strings.Join(fields, ","), ",") {
		coding, weight, _ := strings.Cut(part, ";")
		name := strings.ToLower(strings.TrimSpace(coding))
		if name != "gzip" && (name != "*" || named) {
			continue
		}
		q, given := strings.CutPrefix(strings.ReplaceAll(strings.ToLower(weight), " ", ""), "q=")
		value, err := strconv.ParseFloat(q, 64)
		accepted, named = !given || err == nil && value > 0, name == "gzip"
	}
	return accepted
}
