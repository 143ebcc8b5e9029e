package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// kinds names every kind of file that may be served. Images other than SVG are
// compressed already.
var kinds = map[string]struct {
	mediaType string
	text      bool
}{
	".css":         {"text/css; charset=utf-8", true},
	".html":        {"text/html; charset=utf-8", true},
	".js":          {"text/javascript; charset=utf-8", true},
	".json":        {"application/json", true},
	".png":         {"image/png", false},
	".svg":         {"image/svg+xml", true},
	".txt":         {"text/plain; charset=utf-8", true},
	".webmanifest": {"application/manifest+json", true},
}

type asset struct {
	mediaType      string
	runs           bool           // the page or the worker
	plain, gzipped representation // gzipped.body is nil where it would not be shorter
}

// representation is a file in one encoding, with an ETag of its own (RFC 9110,
// section 8.8.3).
type representation struct {
	body []byte
	etag string
}

// read returns the files of a folder by their paths in it.
func read(folder fs.FS) (map[string][]byte, error) {
	files := make(map[string][]byte)
	err := fs.WalkDir(folder, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files[name], err = fs.ReadFile(folder, name)
		return err
	})
	return files, err
}

// loadApp returns the cardholder app with what follows from the brand.
func loadApp(b Brand) (map[string]asset, error) {
	files, err := read(App())
	if err != nil {
		return nil, err
	}
	if err := b.generate(files); err != nil {
		return nil, err
	}
	files[worker] = fillWorker(files)
	return assetsOf(files)
}

// loadConsole returns the console, with the app's files that it is built on.
func loadConsole() (map[string]asset, error) {
	files, err := read(folder("console"))
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"element.js", "theme.css", ownLogo} {
		if files[name], err = fs.ReadFile(App(), name); err != nil {
			return nil, err
		}
	}
	return assetsOf(files)
}

// assetsOf returns files by their request paths; the page is at the root.
func assetsOf(files map[string][]byte) (assets map[string]asset, err error) {
	assets = make(map[string]asset)
	for name, body := range files {
		if assets["/"+name], err = newAsset(name, body); err != nil {
			return nil, err
		}
	}
	assets["/"] = assets["/index.html"]
	return assets, nil
}

const worker = "sw.js"

// fillWorker gives the service worker the list of what the app needs without a
// network, and a version that changes with any byte of any file: so a browser
// finds a new worker exactly when there is something new.
func fillWorker(files map[string][]byte) []byte {
	shell := []string{"./"}
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(sum, "%s %d\n%s", name, len(files[name]), files[name])
		if inShell(name) {
			shell = append(shell, name)
		}
	}
	list, err := json.Marshal(shell)
	if err != nil {
		panic("web: encode: " + err.Error()) // only strings: cannot fail
	}
	script := bytes.Replace(files[worker], []byte("{{version}}"), []byte(hex.EncodeToString(sum.Sum(nil)[:8])), 1)
	return bytes.Replace(script, []byte("['{{files}}']"), list, 1)
}

// inShell leaves out the page, which is "./", what the browser fetches by itself,
// and the icons, which only the system shows.
func inShell(name string) bool {
	return name != "index.html" && name != worker && path.Ext(name) != ".webmanifest" && !strings.HasPrefix(name, "icons/")
}

func newAsset(name string, body []byte) (asset, error) {
	kind, ok := kinds[path.Ext(name)]
	if !ok {
		return asset{}, fmt.Errorf("%s: no media type for this extension", name)
	}
	sum := sha256.Sum256(body)
	etag := hex.EncodeToString(sum[:8])
	a := asset{mediaType: kind.mediaType, runs: path.Ext(name) == ".html" || name == worker, plain: representation{body, `"` + etag + `"`}}
	if packed := pack(body); kind.text && len(packed) < len(body) {
		a.gzipped = representation{packed, `"` + etag + `-gzip"`}
	}
	return a, nil
}

func pack(body []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(body)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic("web: gzip: " + err.Error()) // a buffer takes everything
	}
	return out.Bytes()
}
