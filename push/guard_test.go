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
	"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::ffff:0:127.0.0.1",
	"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", // NAT64
	"2002:7f00:1::", "2002:a9fe:a9fe::1", // 6to4
	"2001:0:7f00:1::", "2001:0:53aa:64c:0:fbff:5601:5601", // Teredo
	"192.0.0.192", "198.18.0.1", "240.0.0.1", "fec0::1", "2001:db8::1",
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

// Hosts that a resolver may take for an address, whatever DNS says: what is checked
// is the address that it comes to.
func TestDialerRefusesAddressesInDisguise(t *testing.T) {
	t.Parallel()
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
			t.Error("a connection was made")
			c.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d := newDialer(mustPolicy(t, false, "up.example.org:"+port))
	for _, host := range []string{"localhost", "localhost.", "LOCALHOST", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "017700000001", "::1%lo"} {
		c, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err == nil {
			c.Close()
			t.Errorf("%s was dialled", host)
		}
		if host == "localhost" && !errors.Is(err, ssrf.ErrProhibitedIP) {
			t.Errorf("%s: %v, want it refused by its address", host, err)
		}
	}
}

// nameServer resolves every name, for a resolver of Go's own: to the first address
// at first, then to the next, and to the last one from then on.
func nameServer(t *testing.T, addresses ...netip.Addr) *net.Resolver {
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
			if n <= 12 {
				continue
			}
			answer := dnsAnswer(buf[:n], addresses[0])
			_, _ = conn.WriteTo(answer, from)
			if answer[7] == 1 && len(addresses) > 1 {
				addresses = addresses[1:]
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

// DNS rebinding: a name that was public when somebody looked is private when it is
// dialled.
func TestNameThatIsRebound(t *testing.T) {
	t.Parallel()
	for _, a := range []string{"127.0.0.1", "169.254.169.254", "10.0.0.1"} {
		p := mustPolicy(t, false, "push.example.org")
		s := newTestSender(t, newTestVAPID(t), p)
		dialer := newDialer(p)
		dialer.Resolver = nameServer(t, netip.MustParseAddr("93.184.216.34"), netip.MustParseAddr(a))
		s.client.Transport = newTransport(dialer)
		looked, err := dialer.Resolver.LookupNetIP(t.Context(), "ip4", "push.example.org")
		if err != nil || len(looked) != 1 || looked[0].String() != "93.184.216.34" {
			t.Fatalf("at first it is %v, %v", looked, err)
		}
		r := s.Send(t.Context(), newDevice(t).subscription("https://push.example.org"+secretPath), Message{})
		if r.Verdict != Fault || !errors.Is(r.Err, ssrf.ErrProhibitedIP) {
			t.Errorf("then %s: %+v", a, r)
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
