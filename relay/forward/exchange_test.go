package forward

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest/freeport"
)

// Where the request cannot have been read, an issuer certainly has not taken it.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	stranger := serveTLS(t, hang, nil)
	oldTLS := serveTLS(t, hang, func(s *httptest.Server) {
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	})
	read := func(conn net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(conn)) }
	for name, c := range map[string]struct {
		url, err string
		issuer   relay.Verdict
	}{
		"refused":        {"http://" + freeport.Address(t), "connection refused", relay.TryAgain},
		"reset":          {serve(t, reset).URL, "connection reset", relay.Unclear},
		"closed":         {"http://" + tcp(t, read), "connection closed before the answer was complete", relay.Unclear},
		"half a header":  {"http://" + tcp(t, func(c net.Conn) { read(c); fmt.Fprint(c, "HTTP/1.1 200 OK\r\nX: ") }), "connection closed before the answer was complete", relay.Unclear},
		"no HTTP":        {"http://" + tcp(t, func(c net.Conn) { read(c); fmt.Fprint(c, "tls: 250 canary\r\n\r\n") }), "no valid HTTP answer", relay.Unclear},
		"endless header": {"http://" + tcp(t, func(c net.Conn) { read(c); flood(c, "HTTP/1.1 200 OK\r\n", "X: canary\r\n") }), "no valid HTTP answer", relay.Unclear},
		"silent":         {serve(t, hang).URL, "timeout", relay.Unclear},
		"silent TLS":     {"https://" + tcp(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), "timeout", relay.TryAgain},
		"unknown CA":     {stranger.URL, "TLS: failed to verify certificate: x509: certificate signed by unknown authority", relay.TryAgain},
		"plain":          {strings.Replace(serve(t, hang).URL, "http:", "https:", 1), "TLS: first record does not look like a TLS handshake", relay.TryAgain},
		"old TLS":        {oldTLS.URL, "TLS: protocol version not supported", relay.TryAgain},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := downstream(t, func(t *Target) { t.Timeout = 500 * time.Millisecond }, c.url)
			checkAttempt(t, d.Forward(t.Context(), "core", message()), relay.TryAgain, 0, c.err)
			i := issuer(t, c.url, func(a *IssuerAPI) { a.Timeout = 500 * time.Millisecond })
			checkAttempt(t, i.Confirm(t.Context(), issuerCall(t)), c.issuer, 0, c.err)
			checkAttempt(t, i.Lock(t.Context(), issuerCall(t)), c.issuer, 0, c.err)
		})
	}
}

// Over HTTP/2 it is told in the same way whether the issuer may have taken it.
func TestNoAnswerHTTP2(t *testing.T) {
	t.Parallel()
	var protocol atomic.Int32
	s := serveTLS(t, func(w http.ResponseWriter, r *http.Request) {
		protocol.Store(int32(r.ProtoMajor))
		hang(w, r)
	}, func(s *httptest.Server) { s.EnableHTTP2 = true })
	i := issuer(t, s.URL, func(a *IssuerAPI) { a.Timeout = 500 * time.Millisecond })
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	i.apis["acme"].transport.TLSClientConfig.RootCAs = pool
	checkAttempt(t, i.Confirm(t.Context(), issuerCall(t)), relay.Unclear, 0, "timeout")
	if protocol.Load() != 2 {
		t.Errorf("HTTP/%d was used", protocol.Load())
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for want, err := range map[string]error{
		"DNS: no such host":      dial(&net.DNSError{Err: "no such host", Name: "canary.example", IsNotFound: true}),
		"DNS: i/o timeout":       dial(&net.DNSError{Err: "i/o timeout", Name: "canary.example", IsTimeout: true}),
		"TLS: handshake failure": &net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")},
		"no valid HTTP answer":   errors.New(`net/http: malformed HTTP response "tls: canary"`),
		"TLS: a b":               errors.New("tls: a\nb"),
	} {
		if got := errorText(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

func TestResponse(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1<<10)
	for name, c := range map[string]struct{ answer, want string }{
		"none":          {"", ""},
		"text":          {"ok, Café ☕", "ok, Café ☕"},
		"controls":      {"a\x00b\r\n\x1b[31m\u202ec", "a b   [31m c"},
		"no UTF-8":      {"a\xff\xfeb", "a b"},
		"just 1 KiB":    {long, long},
		"huge":          {strings.Repeat("x", 10<<20), long},
		"cut character": {strings.Repeat("x", 1023) + "é", strings.Repeat("x", 1023)},
		"cut code":      {strings.Repeat(" ", 1021) + "045435", strings.Repeat(" ", 1021)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, c.answer) })
			got := downstream(t, nil, s.URL).Forward(t.Context(), "core", message()).Attempt.Response
			if got != c.want || !utf8.ValidString(got) {
				t.Errorf("%d bytes %q, want %d bytes %q", len(got), got, len(c.want), c.want)
			}
		})
	}
}

// An endless answer is read within bounds; one of common size leaves the
// connection to be used again.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	var conns atomic.Int32
	var taken atomic.Int64
	ended := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			_, _ = w.Write(make([]byte, 60<<10))
			return
		}
		defer close(ended)
		for chunk := make([]byte, 4<<10); ; {
			n, err := w.Write(chunk)
			taken.Add(int64(n))
			if err != nil {
				return
			}
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	small := downstream(t, nil, s.URL+"/small")
	for range 10 {
		checkAttempt(t, small.Forward(t.Context(), "core", message()), relay.Delivered, 200, "")
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for 10 requests", n)
	}
	checkAttempt(t, downstream(t, nil, s.URL+"/endless").Forward(t.Context(), "core", message()), relay.Delivered, 200, "")
	<-ended
	if n := taken.Load(); n > 32<<20 { // what fits in the buffers of both kernels
		t.Errorf("%d bytes were taken", n)
	}
}

// A connection that the server closes just when it is used again costs no
// attempt: both calls may be repeated.
func TestClosedIdleConnection(t *testing.T) {
	t.Parallel()
	addr := tcp(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		for n := 0; ; n++ {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			if n > 0 {
				return
			}
			fmt.Fprint(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	})
	d := downstream(t, nil, "http://"+addr)
	i := issuer(t, "http://"+addr, nil)
	for range 3 {
		checkAttempt(t, d.Forward(t.Context(), "core", message()), relay.Delivered, 204, "")
		checkAttempt(t, i.Confirm(t.Context(), issuerCall(t)), relay.Unclear, 204, "the issuer's answer is not authentic")
	}
}

func TestSwitchingProtocols(t *testing.T) {
	t.Parallel()
	addr := tcp(t, func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	})
	checkAttempt(t, downstream(t, nil, "http://"+addr).Forward(t.Context(), "core", message()), relay.TryAgain, 101, "")
	checkAttempt(t, issuer(t, "http://"+addr, nil).Confirm(t.Context(), issuerCall(t)), relay.TryAgain, 101, "")
}

func TestProxyIsNotTakenFromEnvironment(t *testing.T) {
	s := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") })
	t.Setenv("HTTP_PROXY", s.URL)
	t.Setenv("ALL_PROXY", s.URL)
	// Not loopback, which is never proxied, and nowhere (RFC 5737).
	d := downstream(t, func(t *Target) { t.Timeout = 50 * time.Millisecond }, "http://192.0.2.1/")
	if o := d.Forward(t.Context(), "core", message()); o.Verdict != relay.TryAgain || o.Attempt.StatusCode != 0 {
		t.Errorf("%+v", o)
	}
}

// Whatever a target answers, nothing that only we and it know is recorded, also
// where it echoes the request.
func TestNoSecretIsRecorded(t *testing.T) {
	t.Parallel()
	canaries := []string{"headercanary", "querycanary", "usercanary", "passcanary", strings.TrimPrefix(signingA, "whsec_"), signingB}
	echo := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.Repeat(" ", 1<<10-len("?token=querycan")), "?", r.URL.RawQuery) // the end cuts it
		fmt.Fprint(w, r.Header)
	}
	echoAll := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, r.URL, r.Header)
	}
	rawEcho := func(c net.Conn) { _, _ = io.Copy(c, c) }
	for name, host := range map[string]string{
		"echo": serve(t, echo).URL, "echo all": serve(t, echoAll).URL, "raw echo": "http://" + tcp(t, rawEcho),
		"refused": "http://" + freeport.Address(t), "reset": serve(t, reset).URL, "plain": strings.Replace(serve(t, hang).URL, "http:", "https:", 1),
		"silent": serve(t, hang).URL, "redirect": serve(t, http.RedirectHandler("/?token=querycanary", http.StatusFound).ServeHTTP).URL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := downstream(t, func(t *Target) {
				t.Timeout = 300 * time.Millisecond
				t.Secrets = []string{signingA, signingB}
				t.Headers = map[string]string{"Authorization": "Bearer headercanary"}
			}, strings.Replace(host, "://", "://usercanary:passcanary@", 1)+"/hooks?token=querycanary")
			o := d.Forward(t.Context(), "core", message())
			text := fmt.Sprintf("%+v %#v", o, o)
			if slices.ContainsFunc(canaries, func(c string) bool { return strings.Contains(text, c) }) || strings.Contains(text, "querycan") {
				t.Errorf("a secret is in %s", text)
			}
			if name == "echo all" && !strings.Contains(o.Attempt.Response, redactedText) {
				t.Errorf("nothing was removed from %s", o.Attempt.Response)
			}
		})
	}
}
