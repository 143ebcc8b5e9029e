package sim

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rfcDevice is the receiver of RFC 8291, section 5 and appendix A.
func rfcDevice(t testing.TB) *Device {
	t.Helper()
	private, err := ecdh.P256().NewPrivateKey(unbase64(t, "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"))
	if err != nil {
		t.Fatal(err)
	}
	return newDevice("https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV", private, unbase64(t, "BTBZMqHH6r4Tts7J_aSIgg"))
}

const rfcBody = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"

func TestRFC8291Example(t *testing.T) {
	t.Parallel()
	d := rfcDevice(t)
	if d.P256dh != "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4" {
		t.Errorf("public key is %s", d.P256dh)
	}
	plaintext, err := d.decrypt(unbase64(t, rfcBody))
	if err != nil || string(plaintext) != "When I grow up, I want to be a watermelon" {
		t.Errorf("decrypted to %q, %v", plaintext, err)
	}
}

// RFC 8188, section 2: a record size under 18 is invalid, whatever fits in it.
func TestSmallestRecordSize(t *testing.T) {
	t.Parallel()
	d := rfcDevice(t)
	for size, want := range map[uint32]bool{17: false, 18: true} {
		if _, err := d.decrypt(encrypt(t, d, []byte{2}, size)); (err == nil) != want {
			t.Errorf("record size %d: %v", size, err)
		}
	}
}

// The example of RFC 8292, section 2.4, with its time and origin.
func TestRFC8292Example(t *testing.T) {
	t.Parallel()
	const (
		key    = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"
		header = "vapid t=eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA, k=" + key
	)
	now := time.Unix(1453523768-3600, 0)
	if err := verifyVAPID(header, key, "https://push.example.net", now); err != nil {
		t.Error(err)
	}
	if err := verifyVAPID(header, key, "https://push.example.net", now.Add(time.Hour)); err == nil {
		t.Error("accepted when it has expired")
	}
}

// expand is HKDF-SHA256 (RFC 5869) of one block, from HMAC alone, so that the
// messages of these tests do not rest on the library that opens them.
func expand(salt, secret []byte, info string, length int) []byte {
	extract := hmac.New(sha256.New, salt)
	extract.Write(secret)
	out := hmac.New(sha256.New, extract.Sum(nil))
	out.Write(append([]byte(info), 1))
	return out.Sum(nil)[:length]
}

// encrypt is the sender's side of RFC 8291; padded is the plaintext with its
// delimiter.
func encrypt(t testing.TB, d *Device, padded []byte, recordSize uint32) []byte {
	t.Helper()
	sender, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := ecdh.P256().NewPublicKey(unbase64(t, d.P256dh))
	if err != nil {
		t.Fatal(err)
	}
	shared, err := sender.ECDH(receiver)
	if err != nil {
		t.Fatal(err)
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	ikm := expand(unbase64(t, d.Auth), shared, "WebPush: info\x00"+string(receiver.Bytes())+string(sender.PublicKey().Bytes()), 32)
	block, err := aes.NewCipher(expand(salt, ikm, "Content-Encoding: aes128gcm\x00", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	header := append(salt, byte(recordSize>>24), byte(recordSize>>16), byte(recordSize>>8), byte(recordSize), 65)
	header = append(header, sender.PublicKey().Bytes()...)
	return append(header, aead.Seal(nil, expand(salt, ikm, "Content-Encoding: nonce\x00", 12), padded, nil)...)
}

type vapid struct{ *ecdsa.PrivateKey }

func newVAPID(t testing.TB) vapid {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return vapid{key}
}

func (v vapid) public(t testing.TB) string {
	t.Helper()
	point, err := v.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(point)
}

func (v vapid) header(t testing.TB, alg string, claims map[string]any) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode(mustMarshal(map[string]string{"typ": "JWT", "alg": alg})) + "." + encode(mustMarshal(claims))
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, v.PrivateKey, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return fmt.Sprintf("vapid t=%s.%s, k=%s", signed, encode(signature), v.public(t))
}

func claims(change func(map[string]any)) map[string]any {
	c := map[string]any{"aud": "https://push.example", "exp": time.Now().Add(12 * time.Hour).Unix(), "sub": "mailto:ops@example.com"}
	if change != nil {
		change(c)
	}
	return c
}

func TestPushServiceVerifies(t *testing.T) {
	t.Parallel()
	v, other := newVAPID(t), newVAPID(t)
	auth := func(header string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", header) }
	}
	claim := func(name string, value any) func(*http.Request) {
		return auth(v.header(t, "ES256", claims(func(c map[string]any) { c[name] = value })))
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	good := v.header(t, "ES256", claims(nil))
	message := []byte("{\"a\":1}\x02\x00\x00")
	soon := time.Now().Unix()
	for name, c := range map[string]struct {
		change func(*http.Request)
		padded []byte
		size   uint32
		status int
	}{
		"good":                   {nil, message, 4096, 201},
		"origin with port 443":   {claim("aud", "https://push.example:443"), message, 4096, 401},
		"contact by https":       {claim("sub", "https://example.com/contact"), message, 4096, 201},
		"parameters the other":   {auth("VAPID " + good[strings.Index(good, "k="):] + "," + strings.TrimSuffix(good[6:strings.Index(good, "k=")], ", ")), message, 4096, 201},
		"nobody's endpoint":      {func(r *http.Request) { r.URL.Path = "/push/nobody" }, message, 4096, 404},
		"no authorization":       {auth(""), message, 4096, 401},
		"bearer":                 {auth("Bearer " + good[6:]), message, 4096, 401},
		"webpush draft":          {auth("WebPush " + good[8:strings.Index(good, ",")]), message, 4096, 401},
		"parameter twice":        {auth(good + ", k=" + v.public(t)), message, 4096, 401},
		"another key":            {auth(other.header(t, "ES256", claims(nil))), message, 4096, 401},
		"signed by another key":  {auth(strings.Replace(other.header(t, "ES256", claims(nil)), other.public(t), v.public(t), 1)), message, 4096, 401},
		"alg none":               {auth(v.header(t, "none", claims(nil))), message, 4096, 401},
		"alg HS256":              {auth(v.header(t, "HS256", claims(nil))), message, 4096, 401},
		"key padded":             {auth(good + "="), message, 4096, 401},
		"token cut":              {auth("vapid t=e30.e30, k=" + v.public(t)), message, 4096, 401},
		"aud of another":         {claim("aud", "https://push.example.net"), message, 4096, 401},
		"aud with a path":        {claim("aud", "https://push.example/push"), message, 4096, 401},
		"exp missing":            {claim("exp", nil), message, 4096, 401},
		"exp passed":             {claim("exp", soon-1), message, 4096, 401},
		"exp in 25 h":            {claim("exp", soon+25*3600), message, 4096, 401},
		"sub missing":            {claim("sub", ""), message, 4096, 401},
		"sub a bare address":     {claim("sub", "ops@example.com"), message, 4096, 401},
		"sub mailto twice":       {claim("sub", "mailto:mailto:ops@example.com"), message, 4096, 401},
		"TTL missing":            {func(r *http.Request) { r.Header.Del("TTL") }, message, 4096, 400},
		"TTL negative":           {header("TTL", "-1"), message, 4096, 400},
		"Urgency unknown":        {header("Urgency", "urgent"), message, 4096, 400},
		"Topic of 33":            {header("Topic", strings.Repeat("a", 33)), message, 4096, 400},
		"Topic not base64url":    {header("Topic", "a+b"), message, 4096, 400},
		"old encoding":           {header("Content-Encoding", "aesgcm"), message, 4096, 400},
		"not the last record":    {nil, []byte("{\"a\":1}\x01"), 4096, 400},
		"no delimiter":           {nil, []byte(`{"a":1}`), 4096, 400},
		"only zeros":             {nil, []byte{0, 0}, 4096, 400},
		"nothing":                {nil, nil, 4096, 400},
		"record over its size":   {nil, message, 25, 400},
		"record size of 17":      {nil, nil, 17, 400},
		"record just its size":   {nil, message, 26, 201},
		"not JSON":               {nil, []byte("hello\x02"), 4096, 400},
		"of 4096 bytes":          {nil, filled(4096), 4096, 201},
		"of 4097 bytes":          {nil, filled(4097), 4097, 413},
		"without compulsory aud": {claim("aud", nil), message, 4096, 401},
	} {
		p := NewPushService(v.public(t))
		d := p.Subscribe("https://push.example:443/")
		request := httptest.NewRequest(http.MethodPost, d.Endpoint, bytes.NewReader(encrypt(t, d, c.padded, c.size)))
		for name, value := range map[string]string{"Authorization": good, "TTL": "60", "Urgency": "high", "Topic": "chl_1-2", "Content-Encoding": "aes128gcm"} {
			request.Header.Set(name, value)
		}
		if c.change != nil {
			c.change(request)
		}
		answer := httptest.NewRecorder()
		p.ServeHTTP(answer, request)
		got := p.Notifications()[0]
		if answer.Code != c.status || got.Status != c.status || (got.Fault == "") != (c.status == 201) || p.Faults() != min(1, c.status-201) {
			t.Errorf("%s: answered %d, fault %q", name, answer.Code, got.Fault)
		}
		if c.status != 404 && (d.Count() != 1 || d.Notifications()[0].Fault != got.Fault || got.Device != d) {
			t.Errorf("%s: the device has %+v", name, d.Notifications())
		}
		if c.status == 201 && (got.TTL != 60 || got.Urgency != "high" || got.Topic != "chl_1-2" ||
			got.Payload["a"] != json.Number("1") || !strings.HasPrefix(string(got.Raw), `{"a":1`) || answer.Header().Get("Location") == "") {
			t.Errorf("%s: recorded %+v, answered %v", name, got, answer.Header())
		}
	}
}

// filled is a plaintext that makes a body of exactly length bytes.
func filled(length int) []byte {
	padded := make([]byte, length-86-16)
	copy(padded, "{\"a\":1}\x02")
	return padded
}

func TestPushServiceTakesAnyKeyWhenItHasNone(t *testing.T) {
	t.Parallel()
	p := NewPushService("")
	server := httptest.NewServer(p)
	defer server.Close()
	p.Keep(1)
	d := p.Subscribe(server.URL)
	p.Behave(func(n int, about *Device) Behaviour {
		if about == d && n == 2 {
			return Behaviour{Status: 410}
		}
		return Behaviour{}
	})
	for _, want := range []int{201, 410, 201} {
		request, _ := http.NewRequest(http.MethodPost, d.Endpoint, bytes.NewReader(encrypt(t, d, []byte("{}\x02"), 4096)))
		request.Header.Set("Authorization", newVAPID(t).header(t, "ES256", claims(func(c map[string]any) { c["aud"] = server.URL })))
		request.Header.Set("TTL", "0")
		request.Header.Set("Content-Encoding", "aes128gcm")
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("answered %d, want %d: %+v", response.StatusCode, want, d.Notifications())
		}
	}
	if d.Count() != 3 || len(d.Notifications()) != 1 || len(p.Notifications()) != 1 || p.Faults() != 0 {
		t.Errorf("count %d, device keeps %d, service keeps %d", d.Count(), len(d.Notifications()), len(p.Notifications()))
	}
}

func TestDeviceJSON(t *testing.T) {
	t.Parallel()
	want := `{"endpoint":"https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV","expirationTime":null,"keys":{"auth":"BTBZMqHH6r4Tts7J_aSIgg","p256dh":"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"}}`
	if got := string(rfcDevice(t).JSON()); got != want {
		t.Errorf("got %s", got)
	}
}

func FuzzDecrypt(f *testing.F) {
	d := rfcDevice(f)
	f.Add(unbase64(f, rfcBody))
	f.Add([]byte{})
	f.Add(make([]byte, 21))
	f.Add(append(make([]byte, 20), 255))
	f.Fuzz(func(t *testing.T, body []byte) {
		plaintext, err := d.decrypt(body)
		if err == nil && string(plaintext) != "When I grow up, I want to be a watermelon" {
			t.Fatalf("forged %q", plaintext)
		}
	})
}

func FuzzVAPID(f *testing.F) {
	key := newVAPID(f)
	f.Add(key.header(f, "ES256", claims(nil)))
	f.Add("vapid t=..,k=")
	f.Add("vapid")
	f.Fuzz(func(t *testing.T, header string) {
		// Nothing the fuzzer has seen is signed for this origin.
		if verifyVAPID(header, "", "https://other.example", time.Now()) == nil {
			t.Fatalf("forged %q", header)
		}
	})
}
