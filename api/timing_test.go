package api

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"

	"approvalrelay/crypto"
)

var timing = flag.Bool("timing", false, "measure whether refusals take the same time")

const (
	timingSamples = 400_000
	// leak is where Welch's t of two classes means that their times differ. Those of
	// dudect (Reparaz, Balasch, Verbauwhede, 2017) take 10 for a leak; noise of a
	// busy machine stays well below.
	leak = 10
)

// TestTiming: how long a refusal takes does not tell how far a guess was right.
// For each check the first class is wrong at once, the second in its last byte,
// and both are measured in turns drawn by lot. That a comparison which does tell is
// found shows that the others would be.
func TestTiming(t *testing.T) {
	if !*timing {
		t.Skip("it takes a minute of a quiet machine: go test ./api -run Timing -v -args -timing")
	}
	auth := newAuth(t, withSecret)
	good := sign(t, jwt.SigningMethodHS256, []byte(testSecret), nil, goodClaims(testClock))
	ring := newRing(t, "0123456789abcdef")
	sealed, mac, err := ring.Seal(make([]byte, 300))
	must(t, err)
	root, err := crypto.NewRoot(crypto.GenerateKey())
	must(t, err)
	action := root.SignToken(crypto.Claims{Merchant: "acme", User: "12345", Challenge: "chl_x", Subscription: "sub_x", Expires: testClock})
	setMode()
	server := &Server{adminToken: new([32]byte)}
	*server.adminToken = sha256.Sum256([]byte(testAdmin))

	open := func(text string) { _, _ = ring.Open(text[:len(text)-len(mac)], text[len(text)-len(mac):]) }
	verify := func(token string) { _, _ = root.VerifyToken(token, testClock) }
	login := func(token string) { _, _ = auth.verify(t.Context(), token) }
	c, _ := gin.CreateTestContext(httptest.NewRecorder())
	c.Request = httptest.NewRequest("GET", "/", nil)
	header := []string{""}
	c.Request.Header["Authorization"] = header
	operator := func(bearer string) { header[0] = bearer; _ = server.operator(c) }

	envelope, admin := sealed+mac, "Bearer "+testAdmin
	padded := func(at int) string { // authentic, with sixteen bytes of padding of which one is wrong
		block := slices.Repeat([]byte{aes.BlockSize}, aes.BlockSize)
		block[at] ^= 1
		return sealBlocks(t, "0123456789abcdef", append(make([]byte, 304), block...))
	}
	want := make([]byte, len(mac))
	leaky := func(text string) {
		payload, guess := text[:len(text)-len(mac)], text[len(text)-len(mac):]
		h := hmac.New(sha256.New, []byte("0123456789abcdef"))
		h.Write([]byte(payload))
		hex.Encode(want, h.Sum(nil))
		for i := range want {
			if want[i] != guess[i] {
				return
			}
		}
	}
	last := len(envelope) - 1
	if got := welch(leaky, altered(envelope, len(sealed)), altered(envelope, last)); got < leak {
		t.Fatalf("a comparison that ends at the first difference has |t| = %.1f: this machine is too busy to measure anything", got)
	} else {
		t.Logf("|t| = %6.1f  control: a comparison that ends at the first difference", got)
	}
	for name, c := range map[string]struct {
		check func(string)
		a, b  string
	}{
		"envelope, HMAC wrong in its first or last digit":        {open, altered(envelope, len(sealed)), altered(envelope, last)},
		"envelope, HMAC wrong, base64 or not":                    {open, altered(envelope, last), "!" + altered(envelope, last)[1:]},
		"envelope, padding wrong in its first or last byte":      {open, padded(0), padded(aes.BlockSize - 2)},
		"action token, MAC wrong in its first or last character": {verify, altered(action, strings.IndexByte(action, '.')+1), altered(action, len(action)-1)},
		"operator's token, wrong in its first or last character": {operator, altered(admin, len("Bearer ")), altered(admin, len(admin)-1)},
		"HS256, signature wrong in its first or last byte":       {login, otherSignature(t, good, 0), otherSignature(t, good, 31)},
	} {
		if got := welch(c.check, c.a, c.b); got >= leak {
			t.Errorf("|t| = %6.1f  %s", got, name)
		} else {
			t.Logf("|t| = %6.1f  %s", got, name)
		}
	}
}

// altered is a text with one other character.
func altered(s string, at int) string {
	c := "0"
	if s[at] == '0' {
		c = "1"
	}
	return s[:at] + c + s[at+1:]
}

func otherSignature(t *testing.T, token string, at int) string {
	text, sig := cutLast(token)
	raw, err := base64.RawURLEncoding.DecodeString(sig)
	must(t, err)
	raw[at] ^= 1
	return text + "." + b64(raw)
}

// welch measures a check of two texts in turns drawn by lot, and returns the
// largest |t| of Welch's test over its times, each time without the slowest
// measurements: interrupts and garbage collection, which have nothing to do with
// either. Each turn has a copy of its own, so that where a text lies tells nothing.
func welch(check func(string), a, b string) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC()
	const n = timingSamples
	class := make([]bool, n)
	times := make([]float64, n)
	for i := range n {
		class[i] = rand.IntN(2) == 0
		text := a
		if class[i] {
			text = b
		}
		text = strings.Clone(text)
		start := time.Now()
		check(text)
		times[i] = float64(time.Since(start))
	}
	class, times = class[n/20:], times[n/20:] // until caches and the processor's clock are warm
	sorted := slices.Sorted(slices.Values(times))
	worst := 0.0
	for _, share := range []float64{0.5, 0.75, 0.9, 0.99} {
		limit := sorted[int(share*float64(len(sorted)))]
		var x, y moments
		for i, d := range times {
			switch {
			case d > limit:
			case class[i]:
				y.add(d)
			default:
				x.add(d)
			}
		}
		worst = max(worst, math.Abs(x.mean-y.mean)/math.Sqrt(x.variance()/x.n+y.variance()/y.n))
	}
	return worst
}

// moments is a running mean and sum of squared deviations (Welford, 1962).
type moments struct{ n, mean, squares float64 }

func (m *moments) add(x float64) {
	m.n++
	d := x - m.mean
	m.mean += d / m.n
	m.squares += d * (x - m.mean)
}

func (m *moments) variance() float64 { return m.squares / (m.n - 1) }

// sealBlocks makes an authentic envelope of whole blocks, however they end: its
// payload and HMAC in one text.
func sealBlocks(t *testing.T, secret string, blocks []byte) string {
	block, err := aes.NewCipher([]byte(secret))
	must(t, err)
	sealed := make([]byte, aes.BlockSize+len(blocks))
	cipher.NewCBCEncrypter(block, sealed[:aes.BlockSize]).CryptBlocks(sealed[aes.BlockSize:], blocks)
	payload := base64.StdEncoding.EncodeToString(sealed)
	return payload + hmacOf(secret, payload)
}
