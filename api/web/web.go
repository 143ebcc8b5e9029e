// Package web holds the cardholder app as static files and serves them.
//
// Guarantees: every answer, errors included, carries a Content-Security-Policy
// that allows nothing but this origin's own files (no inline script or style,
// no third party, no framing); every file has a fixed media type, so nothing
// depends on the host's MIME tables; every file has a strong ETag of its
// content, so a browser revalidates cheaply and never runs a stale app.
//
// Non-goals: it holds no session and checks no token (the app sends one to the
// API by itself), it lists no directories, and it compresses nothing.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"time"
)

//go:embed app/*
var files embed.FS

// App returns the files of the cardholder app, index.html at the root.
func App() fs.FS {
	app, err := fs.Sub(files, "app")
	if err != nil {
		panic("web: " + err.Error()) // only possible if the embedded folder is renamed
	}
	return app
}

// headers are sent with every answer. connect-src covers the API, which is on
// the same origin; worker-src and manifest-src are what makes the app
// installable. The service worker lies beside the page, so its scope needs no
// Service-Worker-Allowed.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
		"connect-src 'self'; manifest-src 'self'; worker-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	"X-Content-Type-Options": "nosniff",
	"Referrer-Policy":        "no-referrer",
	"Permissions-Policy":     "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
	"Cache-Control":          "no-cache",
}

// mediaTypes names every kind of file the app may consist of.
var mediaTypes = map[string]string{
	".css":         "text/css; charset=utf-8",
	".html":        "text/html; charset=utf-8",
	".js":          "text/javascript; charset=utf-8",
	".svg":         "image/svg+xml",
	".webmanifest": "application/manifest+json",
}

type asset struct {
	body      []byte
	etag      string
	mediaType string
}

// Handler serves the app to requests whose mount prefix is already stripped:
// "/" is the page, "/main.js" a file, and so on. Mount it with
// http.StripPrefix("/app", web.Handler()) under "/app/"; the trailing slash
// matters, because the page names its files relatively.
//
// Only GET and HEAD are answered (405 otherwise), unknown paths with 404, a
// matching If-None-Match with 304. It panics when a file of the app has no
// media type: a mistake in this package, which its tests catch.
func Handler() http.Handler {
	assets, err := load(App())
	if err != nil {
		panic("web: " + err.Error())
	}
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
		header.Set("Content-Type", file.mediaType)
		header.Set("ETag", file.etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file.body))
	})
}

// refuse answers in place of http.Error, which would drop Cache-Control.
func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintln(w, http.StatusText(status))
}

// load reads every file of app, keyed by its request path.
func load(app fs.FS) (map[string]asset, error) {
	assets := make(map[string]asset)
	err := fs.WalkDir(app, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		mediaType, ok := mediaTypes[path.Ext(name)]
		if !ok {
			return fmt.Errorf("%s: no media type for this extension", name)
		}
		body, err := fs.ReadFile(app, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		assets["/"+name] = asset{body: body, etag: `"` + hex.EncodeToString(sum[:16]) + `"`, mediaType: mediaType}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the app: %w", err)
	}
	assets["/"] = assets["/index.html"]
	return assets, nil
}
