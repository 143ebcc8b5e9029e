package push

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"approvalrelay/relay/storetest/freeport"
)

const secretPath = "/wpush/v2/gAAAAABsecrettoken"

func TestSendIsReadByTheDevice(t *testing.T) {
	t.Parallel()
	d, v := newDevice(t), newTestVAPID(t)
	for name, overTLS := range map[string]bool{"http": false, "https": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, got := pushService(t, d, v)
			s := newTestSender(t, v, mustPolicy(t, true))
			wantProto := 1
			if overTLS {
				srv.EnableHTTP2 = true
				srv.StartTLS()
				roots := x509.NewCertPool()
				roots.AddCert(srv.Certificate())
				s.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}
				wantProto = 2
			} else {
				srv.Start()
			}
			// Spare capacity that webpush-go must not write into.
			backing := append(announced.Payload(false), "SPARE"...)
			payload := backing[:len(backing)-len("SPARE")]
			r := s.Send(t.Context(), d.subscription(srv.URL+secretPath), Message{
				Payload: payload, TTL: 299*time.Second + 900*time.Millisecond, Urgency: "high", Topic: Topic("chl_01J"),
			})
			if r.Verdict != Delivered || r.StatusCode != 201 || r.Err != nil || r.Latency <= 0 {
				t.Fatalf("result %+v", r)
			}
			m := <-got
			if !bytes.Equal(m.message, payload) || m.proto != wantProto {
				t.Errorf("HTTP/%d, message %s", m.proto, m.message)
			}
			for header, want := range map[string]string{"TTL": "299", "Urgency": "high", "Topic": Topic("chl_01J"), "Content-Encoding": "aes128gcm"} {
				if m.header.Get(header) != want {
					t.Errorf("%s: %q, want %q", header, m.header.Get(header), want)
				}
			}
			if string(backing[len(payload):]) != "SPARE" {
				t.Error("the caller's memory behind the payload was written to")
			}
		})
	}
}

func TestSendBounds(t *testing.T) {
	t.Parallel()
	d, v := newDevice(t), newTestVAPID(t)
	srv, got := pushService(t, d, v)
	srv.Start()
	s, sub := newTestSender(t, v, mustPolicy(t, true)), d.subscription(srv.URL+secretPath)
	largest := bytes.Repeat([]byte("x"), MaxPayload)
	if r := s.Send(t.Context(), sub, Message{Payload: largest, TTL: -time.Minute}); r.Verdict != Delivered {
		t.Fatalf("largest payload: %+v", r)
	}
	m := <-got
	if !bytes.Equal(m.message, largest) || m.header.Get("TTL") != "0" || m.header["Topic"] != nil || m.header["Urgency"] != nil {
		t.Errorf("%d bytes, header %v", len(m.message), m.header)
	}
	for name, message := range map[string]Message{
		"payload":            {Payload: append(largest, 'x')},
		"urgency":            {Urgency: "urgent"},
		"topic too long":     {Topic: strings.Repeat("a", 33)},
		"topic alphabet":     {Topic: "a b"},
		"topic header split": {Topic: "a\r\nX: y"},
		"topic letter":       {Topic: "é"},
	} {
		if r := s.Send(t.Context(), sub, message); r.Verdict != Fault || r.StatusCode != 0 || r.Err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := newTestSender(t, VAPID{}, mustPolicy(t, true)).Send(t.Context(), sub, Message{}); r.Verdict != Fault || r.Err == nil {
		t.Errorf("no VAPID keys: %+v", r)
	}
	for name, bad := range map[string]Subscription{"no auth": {sub.Endpoint, sub.P256dh, ""}, "no key": {sub.Endpoint, "", sub.Auth}} {
		if r := s.Send(t.Context(), bad, Message{}); r.Verdict != Fault || r.Err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if len(got) != 0 {
		t.Error("a message that was refused has been sent")
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	s := newTestSender(t, newTestVAPID(t), mustPolicy(t, true))
	for _, c := range []struct {
		status     int
		retryAfter string
		want       Verdict
		wantAfter  time.Duration
	}{
		{200, "", Delivered, 0}, {201, "", Delivered, 0}, {202, "9", Delivered, 0}, {204, "", Delivered, 0},
		{404, "9", Gone, 0}, {410, "", Gone, 0},
		{408, "", Retry, 0}, {425, "", Retry, 0}, {429, "", Retry, 0}, {429, "7", Retry, 7 * time.Second}, {429, "99999", Retry, time.Hour},
		{500, "", Retry, 0}, {502, "", Retry, 0}, {503, "soon", Retry, 0}, {503, "120", Retry, 2 * time.Minute},
		{400, "9", Fault, 0}, {401, "", Fault, 0}, {403, "", Fault, 0}, {405, "", Fault, 0}, {413, "", Fault, 0},
		{300, "", Fault, 0}, {304, "", Fault, 0}, {600, "", Fault, 0},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if c.retryAfter != "" {
				w.Header().Set("Retry-After", c.retryAfter)
			}
			w.WriteHeader(c.status)
		}))
		r := s.Send(t.Context(), d.subscription(srv.URL+secretPath), Message{Payload: []byte("{}")})
		srv.Close()
		if r.Verdict != c.want || r.StatusCode != c.status || r.RetryAfter != c.wantAfter || (r.Err == nil) != (c.want == Delivered) {
			t.Errorf("%d %q: %+v", c.status, c.retryAfter, r)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "0": 0, "30": 30 * time.Second, "3600": time.Hour, "3601": time.Hour, "99999999999999999999999": time.Hour, "-5": 0, "1.5": 0, "x": 0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:00 GMT": 0, "Sat, 03 Jan 2026 03:04:05 GMT": time.Hour,
		"Friday, 02-Jan-26 03:04:35 GMT": 30 * time.Second,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
}

func TestResponseIsBoundedPrintableAndScrubbed(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	s := newTestSender(t, newTestVAPID(t), mustPolicy(t, true))
	endless := bytes.Repeat([]byte("é"), 1<<20)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		if r.URL.Path == secretPath {
			fmt.Fprintf(w, "no\x00\n\u202e <%s> token %s, %q", r.RequestURI, "gAAAAABsecrettoken", r.URL.Query().Get("token"))
			return
		}
		_, _ = w.Write(endless)
	}))
	t.Cleanup(srv.Close)
	r := s.Send(t.Context(), d.subscription(srv.URL+secretPath+"?token=abc%2bdefghi%3d"), Message{})
	if want := `no    </wpush/v2/[redacted]?token=[redacted]> token [redacted], "[redacted]`; !strings.HasPrefix(r.Response, want) {
		t.Errorf("response %q, want %q", r.Response, want)
	}
	if r := s.Send(t.Context(), d.subscription(srv.URL+"/huge"), Message{}); r.Verdict != Fault || len(r.Response) == 0 || len(r.Response) > 1024 {
		t.Errorf("%d bytes of response, %+v", len(r.Response), r.Verdict)
	}
}

// countedBody counts what is read of it.
type countedBody struct {
	left, read int
	closed     bool
}

func (b *countedBody) Read(p []byte) (int, error) {
	n := min(len(p), b.left)
	if n == 0 {
		return 0, io.EOF
	}
	b.left, b.read = b.left-n, b.read+n
	return n, nil
}

func (b *countedBody) Close() error { b.closed = true; return nil }

func TestBodiesAreDrainedWithinBoundsAndClosed(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	s := newTestSender(t, newTestVAPID(t), mustPolicy(t, true))
	for size, want := range map[int]int{0: 0, 5000: 5000, 1 << 20: maxResponse + maxDrain} {
		body := &countedBody{left: size}
		s.client.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 201, Body: body}, nil
		})
		s.Send(t.Context(), d.subscription("https://push.example"+secretPath), Message{})
		if body.read != want || !body.closed {
			t.Errorf("body of %d bytes: %d read, closed %v", size, body.read, body.closed)
		}
	}
}

// An answer whose body never ends has still been given.
func TestStatusCountsWhenTheBodyHangs(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	s := newTestSender(t, newTestVAPID(t), mustPolicy(t, true))
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(201)
		_, _ = io.WriteString(w, "partial")
		w.(http.Flusher).Flush()
		<-release
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(release) })
	s.client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(r)
		cancel() // the head is here: now the body is cut off
		return resp, err
	})
	if r := s.Send(ctx, d.subscription(srv.URL+secretPath), Message{}); r.Verdict != Delivered || r.StatusCode != 201 || r.Err != nil {
		t.Errorf("result %+v", r)
	}
}

// rawServer answers every connection with the given bytes, after reading the request's head.
func rawServer(t *testing.T, answer func(head string) string, hold <-chan struct{}) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 8192)
				n, _ := c.Read(buf)
				_, _ = io.WriteString(c, answer(string(buf[:n])))
				if hold != nil {
					<-hold
				}
				_ = c.(*net.TCPConn).SetLinger(0) // a reset, not a close
				c.Close()
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func TestNetworkFailures(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	s := newTestSender(t, newTestVAPID(t), mustPolicy(t, true))
	closed := freeport.Address(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	// A whole answer, which would deliver if its head were not bounded.
	hugeHead := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 1<<20))
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(hugeHead.Close)
	reset := rawServer(t, func(string) string { return "" }, nil)
	for name, c := range map[string]struct {
		ctx  context.Context
		url  string
		want error
	}{
		"reset":     {t.Context(), reset, nil},
		"refused":   {t.Context(), "http://" + closed, nil},
		"canceled":  {canceled, reset, context.Canceled},
		"bad name":  {t.Context(), "http://push.invalid.", nil},
		"not HTTP":  {t.Context(), rawServer(t, func(head string) string { return head }, nil), nil},
		"not TLS":   {t.Context(), strings.Replace(reset, "http:", "https:", 1), nil},
		"huge head": {t.Context(), hugeHead.URL, nil},
	} {
		r := s.Send(c.ctx, d.subscription(c.url+secretPath), Message{})
		if r.Verdict != Retry || r.StatusCode != 0 || r.Err == nil || c.want != nil && !errors.Is(r.Err, c.want) {
			t.Errorf("%s: %+v", name, r)
			continue
		}
		if text := fmt.Sprintf("%+v", r); strings.Contains(text, "secrettoken") || strings.Contains(text, d.subscription("").Auth) {
			t.Errorf("%s: leaks: %s", name, text)
		}
	}
}

// The whole send is bounded, whatever the caller's context allows.
func TestSendEndsAfterTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		s := newTestSender(t, newTestVAPID(t), mustPolicy(t, true))
		s.client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		r := s.Send(t.Context(), d.subscription("https://push.example"+secretPath), Message{})
		if r.Verdict != Retry || r.Latency != 10*time.Second || !errors.Is(r.Err, context.DeadlineExceeded) {
			t.Errorf("result %+v", r)
		}
	})
}

// After 101 a body is the raw connection and would be read for ever.
func TestSwitchingProtocolsDoesNotHang(t *testing.T) {
	t.Parallel()
	d, hold := newDevice(t), make(chan struct{})
	t.Cleanup(func() { close(hold) })
	s := newTestSender(t, newTestVAPID(t), mustPolicy(t, true))
	url := rawServer(t, func(string) string {
		return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
	}, hold)
	if r := s.Send(t.Context(), d.subscription(url+secretPath), Message{}); r.Verdict != Fault || r.StatusCode != 101 {
		t.Errorf("result %+v", r)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func BenchmarkSend(b *testing.B) {
	s := newTestSender(b, newTestVAPID(b), mustPolicy(b, false))
	s.client.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusCreated, Body: http.NoBody}, nil
	})
	sub := newDevice(b).subscription("https://fcm.googleapis.com" + secretPath)
	m := Message{Payload: announced.Payload(false), TTL: 5 * time.Minute, Urgency: "high", Topic: Topic("chl_01J")}
	b.ReportAllocs()
	for b.Loop() {
		if r := s.Send(b.Context(), sub, m); r.Verdict != Delivered {
			b.Fatal(r.Err)
		}
	}
}
