package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// patience bounds a wait for something that must come.
const patience = 10 * time.Second

// dial opens a connection that ends with the test, at the latest after patience.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// speak sends bytes as they are, and returns the whole answer; its body stays raw.
func speak(t *testing.T, addr, text string) (*http.Response, string) {
	t.Helper()
	conn := dial(t, addr)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%.80q: %v", text, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%.80q: %v", text, err)
	}
	return resp, string(body)
}

// banner is a name or version of what runs here.
var banner = regexp.MustCompile(`(?i)\bgo1?\.\d|golang|\bgin\b|redis[ /-]?\d|net/http|approvalrelay`)

// TestAnswersOfTheListeners: whatever is sent, also what never reaches a handler of
// ours: no banner, security headers on all that we answer ourselves, and one line of
// JSON in the log for each request, with nothing that a caller wrote outside of quotes.
func TestAnswersOfTheListeners(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	const mark = "cAnArY7"
	get := func(path string, headers ...string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
	}
	post := func(path, body string, headers ...string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n%s", path, len(body), strings.Join(append(headers, ""), "\r\n"), body)
	}
	requests := []struct {
		name, text string
		status     int
		bare       bool // answered by net/http before any handler
	}{
		{"a page", get("/v1/push/key"), 200, false},
		{"the app", get("/app/"), 200, false},
		{"no such path", get("/" + mark), 404, false},
		{"no such file", get("/app/" + mark), 404, false},
		{"a redirect", get("/app"), 302, false},
		{"no token", get("/v1/challenges"), 401, false},
		{"another method", strings.Replace(get("/v1/challenges"), "GET", mark, 1), 405, false},
		{"TRACE", strings.Replace(get("/v1/challenges", "X-Secret: "+mark), "GET", "TRACE", 1), 405, false},
		{"OPTIONS *", strings.Replace(get("*"), "GET", "OPTIONS", 1), 404, false},
		{"CONNECT", strings.Replace(get(mark+".example.com:443"), "GET", "CONNECT", 1), 404, false},
		{"a bad envelope", post("/webhooks/acme", mark), 400, false},
		{"a forged envelope", post("/webhooks/acme", `{"encrypted_payload":"AAAA","type":"`+mark+`","hmac":"00"}`), 401, false},
		{"no such merchant", post("/webhooks/"+mark+"%0a%22", "{}"), 404, false},
		{"a body too large", post("/webhooks/acme", strings.Repeat("x", 70<<10)), 413, false},
		{"line breaks in the path", get("/%0d%0aSet-Cookie:%20" + mark + "%0d%0a{%22level%22:%22" + mark), 404, false},
		{"line breaks in the query", get("/v1/challenges?cursor=%0d%0a" + mark + "&" + mark), 401, false},
		{"a forged request id", get("/v1/challenges", `X-Request-Id: x","level":"`+mark), 401, false},
		{"quotes in headers", get("/v1/challenges", "User-Agent: \\x1b[31m"+mark+"\t\"}{", "Referer: "+mark, "X-Forwarded-For: "+mark, "Forwarded: for="+mark, "X-Operator: "+mark), 401, false},
		{"bytes that are no text", get("/\xff\xfe"+mark, "User-Agent: \xff\xfe"+mark), 404, false},
		{"an upgrade to HTTP/2", get("/v1/push/key", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), 200, false},
		{"HTTP/2 at once", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404, false}, // a request like any other, answered in HTTP/1.1

		{"no request at all", mark + "\r\n\r\n", 400, true},
		{"a header without a name", get("/", ": "+mark), 400, true},
		{"a NUL in a header", get("/", "X: \x00"+mark), 400, true},
		{"an escape in a header", get("/", "User-Agent: \x1b[31m"+mark), 400, true},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 400, true},
		{"two Hosts", get("/", "Host: "+mark), 400, true},
		{"two lengths", post("/webhooks/acme", "x", "Content-Length: 2"), 400, true},
		{"length and chunks", post("/webhooks/acme", "0\r\n\r\n", "Transfer-Encoding: chunked, identity"), 501, true},
		{"headers too large", get("/", "X: "+strings.Repeat(mark, 4<<10)), 431, true},
		{"a path too long", get("/" + strings.Repeat(mark, 4<<10)), 431, true},
		{"HTTP/9", "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 505, true},
	}
	check := func(listener, addr string, text, name string, status int, bare bool) {
		t.Helper()
		resp, body := speak(t, addr, text)
		if status != 0 && resp.StatusCode != status {
			t.Errorf("%s, %s: %d %s, want %d", listener, name, resp.StatusCode, body, status)
		}
		if resp.ProtoMajor != 1 || resp.Header.Get("Server") != "" || resp.Header.Get("X-Powered-By") != "" || resp.Header.Get("Set-Cookie") != "" || banner.MatchString(fmt.Sprint(resp.Header)) {
			t.Errorf("%s, %s: %v", listener, name, resp.Header)
		}
		if resp.StatusCode != 200 && (banner.MatchString(body) || strings.Contains(body, mark)) {
			t.Errorf("%s, %s: %s", listener, name, body)
		}
		if h := resp.Header; !bare && (h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") == "" ||
			!strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors") || h.Get("X-Request-Id") == "" || strings.Contains(h.Get("X-Request-Id"), mark)) {
			t.Errorf("%s, %s: %v", listener, name, h)
		}
		if bare && !resp.Close {
			t.Errorf("%s, %s: the connection stays open", listener, name)
		}
	}
	handled := 0
	for _, r := range requests {
		check("public", c.node.Public, r.text, r.name, r.status, r.bare)
		if !r.bare {
			handled++
		}
	}
	logged := 0
	count := func(msg string) (n int) {
		for line := range strings.Lines(w.logs.String()) {
			var l map[string]any
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatalf("the log has a line %q", line)
			}
			if l["msg"] == msg && l["route"] != "/readyz" {
				n++
			}
			if strings.Contains(line, mark) && l["type"] != mark && l["method"] != mark {
				t.Errorf("the log has what a caller wrote: %s", line)
			}
		}
		return n
	}
	c.until("a line for each request", func() bool { logged = count("request"); return logged >= handled })
	if logged != handled {
		t.Errorf("%d requests have %d lines in the log", handled, logged)
	}

	// The same on the admin listener, whose own answers are others.
	for _, r := range requests {
		check("admin", c.node.Admin, r.text, r.name, 0, r.bare)
	}
	for _, path := range []string{"/healthz", "/readyz", "/console/", "/console", "/ops/v1/stats", "/metrics"} {
		check("admin", c.node.Admin, get(path), path, 0, false)
	}
	for name, text := range map[string]string{
		"a foreign Host": strings.Replace(get("/healthz"), "localhost", "localhost.evil.com", 1), "no Host in HTTP/1.0": "GET /healthz HTTP/1.0\r\n\r\n",
		"an empty Host": strings.Replace(get("/healthz"), "localhost", "", 1), "a foreign Origin": get("/healthz", "Origin: https://evil.com"),
	} {
		check("admin", c.node.Admin, text, name, 403, false)
	}
}

// TestSlowClients: who sends a head or a body byte by byte, or takes no answer, is cut
// off, however busy he keeps the connection.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	short := limits{header: 200 * time.Millisecond, read: 300 * time.Millisecond, write: 300 * time.Millisecond, idle: 200 * time.Millisecond}
	serve := func(t *testing.T, h http.HandlerFunc) string {
		t.Helper()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := newServer(h, short, slog.New(slog.DiscardHandler))
		go func() { _ = srv.Serve(ln) }()
		t.Cleanup(func() { _ = srv.Close() })
		return ln.Addr().String()
	}
	// trickle sends one byte after the other until the server hangs up.
	trickle := func(t *testing.T, conn net.Conn, text string) {
		t.Helper()
		start := time.Now()
		gone := make(chan error, 1)
		go func() { _, err := io.Copy(io.Discard, conn); gone <- err }()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case err := <-gone:
				if errors.Is(err, context.DeadlineExceeded) || time.Since(start) > patience/2 {
					t.Errorf("still connected after %s", time.Since(start))
				}
				return
			case <-tick.C:
				_, _ = conn.Write([]byte{text[i%len(text)]}) // gone tells
			}
		}
	}
	t.Run("head", func(t *testing.T) {
		t.Parallel()
		conn := dial(t, serve(t, func(http.ResponseWriter, *http.Request) { t.Error("half a request was handled") }))
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX: ")
		trickle(t, conn, "a")
	})
	for name, half := range map[string]struct{ head, text string }{
		"body":   {"Content-Length: 100000", "a"},
		"chunks": {"Transfer-Encoding: chunked", "1\r\na\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, serve(t, func(_ http.ResponseWriter, r *http.Request) {
				if _, err := io.ReadAll(r.Body); err == nil {
					t.Error("the body came whole")
				}
			}))
			_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\n"+half.head+"\r\n\r\n")
			trickle(t, conn, half.text)
		})
	}
	t.Run("answer", func(t *testing.T) {
		t.Parallel()
		ended := make(chan struct{})
		conn := dial(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
			defer close(ended)
			for piece := make([]byte, 1<<16); ; {
				if _, err := w.Write(piece); err != nil {
					return
				}
			}
		}))
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("the server still writes to who does not read")
		}
	})
	t.Run("silence after an answer", func(t *testing.T) {
		t.Parallel()
		conn := dial(t, serve(t, func(http.ResponseWriter, *http.Request) {}))
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("not closed: %v", err)
		}
	})
}

// TestServersAreBounded: both listeners of a node have all limits, and speak HTTP/1
// only.
func TestServersAreBounded(t *testing.T) {
	t.Parallel()
	for _, l := range []limits{publicLimits, adminLimits} {
		s := newServer(http.NotFoundHandler(), l, slog.New(slog.DiscardHandler))
		for name, d := range map[string]time.Duration{"header": s.ReadHeaderTimeout, "read": s.ReadTimeout, "write": s.WriteTimeout, "idle": s.IdleTimeout} {
			if d <= 0 || d > 10*time.Minute {
				t.Errorf("the limit %s is %s", name, d)
			}
		}
		if s.ReadHeaderTimeout > 5*time.Second || s.ReadTimeout > 15*time.Second || s.MaxHeaderBytes != maxHeader {
			t.Errorf("%+v", s)
		}
		if p := s.Protocols; !p.HTTP1() || p.HTTP2() || p.UnencryptedHTTP2() {
			t.Errorf("protocols %v", p)
		}
	}
}

// TestStreamsOutlastTheWriteLimit: an event stream is bounded by each event it
// writes, not as a whole.
func TestStreamsOutlastTheWriteLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	const write = 200 * time.Millisecond
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := newServer(c.node.api.Public(), limits{header: time.Second, read: time.Second, write: write, idle: time.Second}, slog.New(slog.DiscardHandler))
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+ln.Addr().String()+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token("u1"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for start, n := time.Now(), 0; time.Since(start) < 5*write; n++ {
		id := w.challenge(c, "CARD_3DS", purchase("c-1", "u1", fmt.Sprint("A-", n)))
		for seen := false; !seen; seen = strings.Contains(lines.Text(), id) {
			if !lines.Scan() {
				t.Fatalf("the stream ended after %s: %v", time.Since(start), lines.Err())
			}
		}
	}
}

// TestSilentConnectionsDoNotHoldUpTheEnd: browsers open connections to be quick later.
func TestSilentConnectionsDoNotHoldUpTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.yaml = strings.Replace(w.yaml, "shutdown_timeout: 5s", "shutdown_timeout: 3s", 1) // net/http waits for five
	var silent []net.Conn
	t.Cleanup(func() { // after the node has ended
		for _, conn := range silent {
			_ = conn.Close()
		}
	})
	c := w.start() // its end, with the test, must be without an error
	for _, addr := range []string{c.node.Public, c.node.Admin} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
		speak(t, addr, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") // by now the one before has been accepted
	}
}
