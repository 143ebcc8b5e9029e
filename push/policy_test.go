package push

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Keys from RFC 8291, appendix A.
const (
	rfcP256dh = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
	rfcAuth   = "BTBZMqHH6r4Tts7J_aSIgg"
)

func mustPolicy(t testing.TB, allowPrivate bool, hosts ...string) *Policy {
	t.Helper()
	p, err := NewPolicy(hosts, allowPrivate)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseEndpoint(t *testing.T) {
	t.Parallel()
	strict := mustPolicy(t, false, "up.example.org", "up.example.org:8443", "*.Up.Example.net", "203.0.113.9")
	dev := mustPolicy(t, true)
	accepted := []struct {
		policy   *Policy
		in, want string // want empty: unchanged
	}{
		{strict, "https://fcm.googleapis.com/fcm/send/abc:APA91b", ""},
		{strict, "https://jmt17.google.com/fcm/send/x", ""},
		{strict, "https://updates.push.services.mozilla.com/wpush/v2/gAAAA", ""},
		{strict, "https://wns2-par02p.notify.windows.com/w/?token=BQYA%2bx%3d", ""},
		{strict, "https://web.push.apple.com/QGz0", ""},
		{strict, "https://FCM.googleapis.com:443/Send/X", "https://fcm.googleapis.com/Send/X"},
		{strict, "HTTPS://fcm.googleapis.com/x", "https://fcm.googleapis.com/x"},
		{strict, "https://up.example.org/UP?token=1", ""},
		{strict, "https://up.example.org:8443/UP", ""},
		{strict, "https://a.b.up.example.net/", ""},
		{strict, "https://203.0.113.9/p", ""},
		{strict, "https://fcm.googleapis.com/" + strings.Repeat("a", maxEndpoint-27), ""},
		{dev, "http://127.0.0.1:4567/wpush/v2/x", ""},
		{dev, "http://[::1]:4567/x", ""},
		{dev, "http://push_server:80/x", "http://push_server/x"},
		{dev, "https://anything.invalid:8443/x", ""},
	}
	for _, c := range accepted {
		sub, err := c.policy.Parse(c.in, rfcP256dh, rfcAuth)
		want := c.want
		if want == "" {
			want = c.in
		}
		if err != nil || sub.Endpoint != want {
			t.Errorf("Parse(%q) = %q, %v; want %q", c.in, sub.Endpoint, err, want)
		}
	}
	refused := []struct {
		policy *Policy
		in     string
	}{
		{strict, ""},
		{strict, "fcm.googleapis.com/x"},
		{strict, "https:fcm.googleapis.com/x"},
		{strict, "https:///fcm.googleapis.com/x"},
		{strict, "http://fcm.googleapis.com/x"},
		{strict, "ftp://fcm.googleapis.com/x"},
		{strict, "https://fcm.googleapis.com:8443/x"},
		{strict, "https://fcm.googleapis.com:0443/x"},
		{strict, "https://fcm.googleapis.com:/x"},
		{strict, "https://fcm.googleapis.com./x"},
		{strict, "https://fcm.googleapis.com.evil.example/x"},
		{strict, "https://evil.example/fcm.googleapis.com"},
		{strict, "https://evilfcm.googleapis.com/x"},
		{strict, "https://push.apple.com/x"},
		{strict, "https://.push.apple.com/x"},
		{strict, "https://evil..push.apple.com/x"},
		{strict, "https://evilpush.apple.com/x"},
		{strict, "https://a.push.apple.com:8443/x"},
		{strict, "https://169.254.169.254/x.google.com/"},
		{strict, "https://169.254.169.254/.push.apple.com"},
		{strict, "https://169.254.169.254?.push.apple.com"},
		{strict, `https://169.254.169.254\.push.apple.com/x`},
		{strict, "https://fcm.googleapis.com@169.254.169.254/x"},
		{strict, "https://user:pw@fcm.googleapis.com/x"},
		{strict, "https://@fcm.googleapis.com/x"},
		{strict, "https://fcm.googleapis.com/x#f"},
		{strict, "https://fcm.googleapis.com/x#"},
		{strict, "https://fcm%2egoogleapis.com/x"},
		{strict, "https://fcm.googleapis.com/x y"},
		{strict, "https://fcm.googleapis.com/x\r\nHost: evil"},
		{strict, "https://fcm。googleapis.com/x"},
		{strict, "https://ｆcm.googleapis.com/x"},
		{strict, "https://fcm.googleapis.com\u200b/x"},
		{strict, "https://fcm.googleapıs.com/x"},
		{strict, "https://fcm.xn--googleaps-ufb.com/x"},
		{strict, "https://web.push.apple.com.xn--p1ai/x"},
		{strict, "https://xn--push-apple-9za.com/x"},
		{strict, "https://localhost/x"},
		{strict, "https://localhost./x"},
		{strict, "https://2130706433/x"},
		{strict, "https://0x7f000001/x"},
		{strict, "https://0177.0.0.1/x"},
		{strict, "https://127.1/x"},
		{strict, "https://0251.0376.0251.0376/latest/meta-data"},
		{strict, "https://0xa9fea9fe/latest/meta-data"},
		{strict, "https://2852039166/latest/meta-data"},
		{strict, "https://[fd00:ec2::254]/latest/meta-data"},
		{strict, "https://[::ffff:169.254.169.254]/x"},
		{strict, "https://[64:ff9b::a9fe:a9fe]/x"},
		{strict, "https://3405803785/p"}, // 203.0.113.9, which is allowed as it is
		{strict, "https://[::ffff:203.0.113.9]/p"},
		{strict, "https://fcm.googleapis.com:80/x"},
		{strict, "https://fcm.googleapis.com:443:80/x"},
		{strict, "https://fcm.googleapis.com:+443/x"},
		{strict, "https://fcm.googleapis.com:65979/x"}, // 443 + 65536
		{strict, "https://fcm.googleapis.com:443@169.254.169.254/x"},
		{strict, "https://fcm.googleapis.com%40169.254.169.254/x"},
		{strict, "//fcm.googleapis.com/x"},
		{strict, "https://[::1]/x"},
		{strict, "https://127.0.0.1/x"},
		{strict, "https://up.example.net/x"},
		{strict, "https://up.example.org:9443/x"},
		{strict, "https://fcm.googleapis.com/" + strings.Repeat("a", maxEndpoint-26)},
		{dev, "ftp://127.0.0.1/x"},
		{dev, "http://127.0.0.1:99999/x"},
		{dev, "http://127.0.0.1:0/x"},
		{dev, "http://u@127.0.0.1/x"},
		{dev, "http://[fe80::1%25eth0]/x"},
	}
	for _, c := range refused {
		_, err := c.policy.Parse(c.in, rfcP256dh, rfcAuth)
		invalid, ok := errors.AsType[*InvalidError](err)
		if !ok || invalid.Field != "endpoint" {
			t.Errorf("Parse(%q) = %v, want an InvalidError of endpoint", c.in, err)
		} else if strings.Contains(c.in, "@") != strings.Contains(invalid.Problem, "user name") {
			t.Errorf("Parse(%q): problem %q", c.in, invalid.Problem)
		}
	}
}

func TestParseKeys(t *testing.T) {
	t.Parallel()
	p := mustPolicy(t, false)
	const endpoint = "https://fcm.googleapis.com/fcm/send/x"
	point, _ := base64.RawURLEncoding.DecodeString(rfcP256dh)
	auth, _ := base64.RawURLEncoding.DecodeString(rfcAuth)
	for _, enc := range []*base64.Encoding{base64.RawURLEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.StdEncoding} {
		sub, err := p.Parse(endpoint, enc.EncodeToString(point), enc.EncodeToString(auth))
		if err != nil || sub.P256dh != rfcP256dh || sub.Auth != rfcAuth {
			t.Errorf("keys are not normalised: %v", err)
		}
	}
	offCurve := slices.Clone(point)
	offCurve[64] ^= 1
	compressed := append([]byte{2}, point[1:33]...)
	b64 := base64.RawURLEncoding.EncodeToString
	for _, c := range []struct{ name, p256dh, auth, field string }{
		{"no p256dh", "", rfcAuth, "keys.p256dh"},
		{"not base64", strings.Repeat("!", 87), rfcAuth, "keys.p256dh"},
		{"off the curve", b64(offCurve), rfcAuth, "keys.p256dh"},
		{"compressed", b64(compressed), rfcAuth, "keys.p256dh"},
		{"too long", b64(append(point[:65:65], 0)), rfcAuth, "keys.p256dh"},
		{"infinity", b64(make([]byte, 65)), rfcAuth, "keys.p256dh"},
		{"huge", strings.Repeat("A", 1<<20), rfcAuth, "keys.p256dh"},
		{"no auth", rfcP256dh, "", "keys.auth"},
		{"15 bytes", rfcP256dh, b64(auth[:15]), "keys.auth"},
		{"17 bytes", rfcP256dh, b64(append(auth[:16:16], 0)), "keys.auth"},
		{"loose last bits", rfcP256dh, rfcAuth[:21] + "h", "keys.auth"},
		{"wrong padding", rfcP256dh, rfcAuth + "=", "keys.auth"},
		{"line break", rfcP256dh, rfcAuth[:20] + "\r\n", "keys.auth"},
	} {
		_, err := p.Parse(endpoint, c.p256dh, c.auth)
		invalid, ok := errors.AsType[*InvalidError](err)
		if !ok || invalid.Field != c.field {
			t.Errorf("%s: %v, want an InvalidError of %s", c.name, err, c.field)
		}
	}
}

func TestNewPolicyNamesEveryBadHost(t *testing.T) {
	t.Parallel()
	bad := []string{"", "*", "*.", "*.com", "*.example.com:8443", "https://push.example", "push.example/x", "push.example:", "push.example:0",
		"push.example:65536", "push.example:http", "a b.example", "u@push.example", "[::1]:443", ".example.com", "push.example.", "a*.example.com"}
	_, err := NewPolicy(append([]string{"good.example.com"}, bad...), false)
	if err == nil {
		t.Fatal("bad hosts are accepted")
	}
	if got := strings.Count(err.Error(), "push endpoint host"); got != len(bad) {
		t.Errorf("%d of %d bad hosts are named:\n%v", got, len(bad), err)
	}
	if strings.Contains(err.Error(), "good.example.com") {
		t.Error("a good host is called bad")
	}
}

func TestAppleAndHost(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]struct {
		host  string
		apple bool
	}{
		"https://web.push.apple.com/x":           {"web.push.apple.com", true},
		"https://fcm.googleapis.com/x":           {"fcm.googleapis.com", false},
		"http://127.0.0.1:99/web.push.apple.com": {"127.0.0.1", false},
		"https://web.push.apple.com.evil/x":      {"web.push.apple.com.evil", false},
	} {
		s := Subscription{Endpoint: endpoint}
		if s.Host() != want.host || s.Apple() != want.apple {
			t.Errorf("%s: host %q, apple %v", endpoint, s.Host(), s.Apple())
		}
	}
}

func FuzzParse(f *testing.F) {
	strict := mustPolicy(f, false, "up.example.org:8443", "*.up.example.net")
	dev := mustPolicy(f, true)
	for _, e := range []string{"https://fcm.googleapis.com/x", "https://FCM.googleapis.com:443?x", "https://a.up.example.net/%zz",
		"https://up.example.org:8443", "http://[::1%25a]:80/", "https://u@web.push.apple.com/", "https://web.push.apple.com/a b#",
		`https://169.254.169.254\.push.apple.com/`, "http://127.0.0.1:80?#", "https:opaque", "https://a%80.push.apple.com/"} {
		f.Add(e, rfcP256dh, rfcAuth)
	}
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("https://web.push.apple.com/Q", base64.StdEncoding.EncodeToString(key.PublicKey().Bytes()), base64.StdEncoding.EncodeToString(make([]byte, 16)))
	exact := []string{"fcm.googleapis.com", "jmt17.google.com", "up.example.org:8443"}
	suffixes := []string{".push.services.mozilla.com", ".notify.windows.com", ".push.apple.com", ".up.example.net"}
	f.Fuzz(func(t *testing.T, endpoint, p256dh, auth string) {
		for _, p := range []*Policy{strict, dev} {
			sub, err := p.Parse(endpoint, p256dh, auth)
			if err != nil {
				if _, ok := errors.AsType[*InvalidError](err); !ok {
					t.Fatalf("refusal is a %T", err)
				}
				continue
			}
			if again, err := p.Parse(sub.Endpoint, sub.P256dh, sub.Auth); err != nil || again != sub {
				t.Fatalf("%q is accepted, its normal form %q is not: %v", endpoint, sub.Endpoint, err)
			}
			u, err := url.Parse(sub.Endpoint)
			if err != nil || len(sub.Endpoint) > 1000 || u.User != nil || strings.ContainsAny(sub.Endpoint, "# \r\n\t\x00") {
				t.Fatalf("accepted %q", sub.Endpoint)
			}
			k, err := base64.RawURLEncoding.DecodeString(sub.P256dh)
			if err != nil || len(k) != 65 || k[0] != 4 {
				t.Fatalf("accepted p256dh %q", sub.P256dh)
			}
			if _, err := ecdh.P256().NewPublicKey(k); err != nil {
				t.Fatalf("p256dh %q is not on the curve", sub.P256dh)
			}
			if k, err := base64.RawURLEncoding.DecodeString(sub.Auth); err != nil || len(k) != 16 {
				t.Fatalf("accepted auth %q", sub.Auth)
			}
		}
		sub, err := strict.Parse(endpoint, p256dh, auth)
		if err != nil {
			return
		}
		var stored Subscription
		if j, err := json.Marshal(sub); err != nil || json.Unmarshal(j, &stored) != nil || stored != sub {
			t.Fatalf("%q is stored as another: %v", sub.Endpoint, err)
		}
		// Not by url.Parse: the authority as any HTTP client must read it (RFC 3986, section 3.2).
		rest, ok := strings.CutPrefix(sub.Endpoint, "https://")
		host := rest[:len(rest)-len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz0123456789-_.:"))]
		tail := rest[len(host):]
		if !ok || tail != "" && tail[0] != '/' && tail[0] != '?' {
			t.Fatalf("accepted %q", sub.Endpoint)
		}
		if !slices.Contains(exact, host) && !slices.ContainsFunc(suffixes, func(s string) bool {
			return strings.HasSuffix(host, s) && len(host) > len(s) && !strings.Contains(host, ":") && host[0] != '.'
		}) {
			t.Fatalf("accepted host %q", host)
		}
	})
}
