package api

import (
	"bytes"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// allProfiles is what must be there, and whether it is gzip, as profiles are.
var allProfiles = map[string]bool{
	"": false, "cmdline": false, "symbol": false, "trace?seconds=0.01": false, "goroutine?debug=2": false,
	"allocs": true, "goroutine": true, "heap": true, "threadcreate": true,
	"profile?seconds=1": true, "block?seconds=1": true, "mutex?seconds=1&debug=1": true,
}

func TestProfiles(t *testing.T) {
	b := newBed(t)
	const path = "/debug/pprof/"
	foreign := http.Header{"Host": {"evil.example.com"}}
	page := http.Header{"Origin": {"https://evil.example.com"}}
	for name, zipped := range allProfiles {
		send(t, b.admin, request{method: "GET", path: path + name}, false).problem(401, "unauthorized")
		send(t, b.admin, request{method: "GET", path: path + name, token: b.token()}, false).problem(401, "unauthorized")
		send(t, b.admin, request{method: "GET", path: path + name, token: testAdmin, header: foreign}, false).problem(403, "forbidden")
		send(t, b.admin, request{method: "GET", path: path + name, token: testAdmin, header: page}, false).problem(403, "forbidden")
		send(t, b.public, request{method: "GET", path: path + name, token: testAdmin}, false).problem(404, "not_found")

		a := b.ops("GET", path+name, "").status(200)
		if len(a.Body) == 0 || bytes.HasPrefix(a.Body, []byte("\x1f\x8b")) != zipped {
			t.Errorf("%s: %d bytes, %.20q", name, len(a.Body), a.Body)
		}
		if a.Header.Get("Content-Security-Policy") == "" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", name, a.Header)
		}
	}
	b.ops("GET", path+"nothing", "").problem(404, "not_found")
	b.ops("GET", "/debug/pprof", "").status(302)
	logged := 0
	for _, line := range b.lines("request") {
		if route, _ := line["route"].(string); strings.HasPrefix(route, path) {
			logged++
		}
	}
	if want := 3 * len(allProfiles); logged != want { // what came under a foreign name has a line of its own, and the public listener knows no such route
		t.Errorf("%d requests are logged, want %d", logged, want)
	}
}

// TestOneProfileAtOnce: the second is refused, the first ends with the server, and
// what it made the runtime collect is collected no more.
func TestOneProfileAtOnce(t *testing.T) {
	before := runtime.SetMutexProfileFraction(7)
	defer runtime.SetMutexProfileFraction(before)
	b := newBed(t)
	first := make(chan answer, 1)
	go func() { first <- b.ops("GET", "/debug/pprof/mutex?debug=1", "") }()
	for end := time.Now().Add(patience); runtime.SetMutexProfileFraction(-1) != 1; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("mutexes are not profiled")
		}
	}
	for _, name := range []string{"mutex", "block", "profile", "trace"} {
		b.ops("GET", "/debug/pprof/"+name, "").problem(409, "profile_running")
	}
	b.ops("GET", "/debug/pprof/heap", "").status(200)
	b.server.Shutdown()
	(<-first).status(500) // by net/http/pprof: a difference needs both ends
	if got := runtime.SetMutexProfileFraction(-1); got != 7 {
		t.Errorf("mutexes are profiled at %d, want 7 as before", got)
	}
}
