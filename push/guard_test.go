package push

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"code.dny.dev/ssrf"
)

var privateAddresses = []string{
	"169.254.169.254", "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1",
	"::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1",
	"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::",
}

func TestDialerRefusesPrivateAddresses(t *testing.T) {
	t.Parallel()
	d := newDialer(mustPolicy(t, false))
	for _, a := range privateAddresses {
		c, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(a, "443"))
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, ssrf.ErrProhibitedIP) {
			t.Errorf("%s: %v, want it refused before a packet is sent", a, err)
		}
	}
}

func TestDialerPorts(t *testing.T) {
	t.Parallel()
	control := newDialer(mustPolicy(t, false, "up.example.org:8443")).Control
	for address, ok := range map[string]bool{
		"8.8.8.8:443": true, "[2606:4700::1111]:443": true, "8.8.8.8:8443": true, "8.8.8.8:80": false, "8.8.8.8:6379": false,
	} {
		if err := control("tcp4", address, nil); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// nameServer resolves every name to one address, for a resolver of Go's own.
func nameServer(t *testing.T, address netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if n > 12 {
				_, _ = conn.WriteTo(dnsAnswer(buf[:n], address), from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// dnsAnswer answers a query of one question (RFC 1035, section 4.1).
func dnsAnswer(query []byte, address netip.Addr) []byte {
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	question := query[12 : end+5]
	const a, aaaa = 1, 28
	qtype := binary.BigEndian.Uint16(query[end+1:])
	matches := qtype == a && address.Is4() || qtype == aaaa && address.Is6()
	out := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
	if matches {
		out[7] = 1
		out = append(out, 0xc0, 12, 0, byte(qtype), 0, 1, 0, 0, 0, 60, 0, byte(address.BitLen()/8))
		out = append(out, address.AsSlice()...)
	}
	return out
}

func TestNameThatResolvesToAPrivateAddress(t *testing.T) {
	t.Parallel()
	d, v := newDevice(t), newTestVAPID(t)
	for _, a := range []string{"127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"} {
		p := mustPolicy(t, false, "push.example.org")
		s := newTestSender(t, v, p)
		dialer := newDialer(p)
		dialer.Resolver = nameServer(t, netip.MustParseAddr(a))
		s.client.Transport = newTransport(dialer)
		r := s.Send(t.Context(), d.subscription("https://push.example.org"+secretPath), Message{})
		if r.Verdict != Fault || !errors.Is(r.Err, ssrf.ErrProhibitedIP) {
			t.Errorf("%s: %+v", a, r)
		}
	}
}

// The same name server and sender do reach an address that may be reached: what
// the test above sees is the guard, not a broken resolver.
func TestNameThatResolvesToAnAllowedAddress(t *testing.T) {
	t.Parallel()
	d, v := newDevice(t), newTestVAPID(t)
	srv, got := pushService(t, d, v)
	srv.Start()
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := mustPolicy(t, true)
	s := newTestSender(t, v, p)
	dialer := newDialer(p)
	dialer.Resolver = nameServer(t, netip.MustParseAddr("127.0.0.1"))
	s.client.Transport = newTransport(dialer)
	r := s.Send(t.Context(), d.subscription("http://push.example.org:"+u.Port()+secretPath), Message{Payload: []byte("hello")})
	if r.Verdict != Delivered {
		t.Fatalf("result %+v", r)
	}
	if m := <-got; string(m.message) != "hello" {
		t.Errorf("message %q", m.message)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	s := newTestSender(t, newTestVAPID(t), mustPolicy(t, true))
	var hits atomic.Int32
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits.Add(1) }))
	t.Cleanup(target.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		srv := httptest.NewServer(http.RedirectHandler(target.URL, status))
		r := s.Send(t.Context(), d.subscription(srv.URL+secretPath), Message{})
		srv.Close()
		if r.Verdict != Fault || r.StatusCode != status {
			t.Errorf("%d: %+v", status, r)
		}
	}
	if hits.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	t.Parallel()
	if newTransport(newDialer(mustPolicy(t, false))).Proxy != nil {
		t.Error("a proxy would dial past the guard")
	}
}

// A subscription stored under yesterday's configuration is not sent to under today's.
func TestPolicyIsCheckedBeforeEverySend(t *testing.T) {
	t.Parallel()
	d, v := newDevice(t), newTestVAPID(t)
	endpoint := "https://up.example.org" + secretPath
	sub := d.subscription(endpoint)
	if _, err := mustPolicy(t, false, "up.example.org").Parse(sub.Endpoint, sub.P256dh, sub.Auth); err != nil {
		t.Fatal(err)
	}
	s := newTestSender(t, v, mustPolicy(t, false))
	s.client.Transport = roundTripper(func(*http.Request) (*http.Response, error) {
		t.Error("it was sent")
		return nil, errors.New("unreachable")
	})
	for _, e := range []string{endpoint, "https://169.254.169.254/x.google.com/", "http://fcm.googleapis.com/x"} {
		r := s.Send(t.Context(), d.subscription(e), Message{})
		if _, ok := errors.AsType[*InvalidError](r.Err); r.Verdict != Fault || !ok || strings.Contains(r.Err.Error(), "x.google.com") {
			t.Errorf("%s: %+v", e, r)
		}
	}
}
