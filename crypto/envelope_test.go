package crypto_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"

	"approvalrelay/crypto"
	"approvalrelay/relay/storetest/budget"
)

const testKey = "0123456789abcdef0123456789abcdef"

// payload400 has the size of a typical event.
var payload400 = []byte(`{"card_id":67890,"detail":"` + strings.Repeat("x", 371) + `"}`)

func keyring(t testing.TB, secrets ...string) *crypto.Keyring {
	t.Helper()
	var parsed []crypto.Secret
	for _, s := range secrets {
		secret, err := crypto.ParseSecret(s, crypto.UTF8)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, secret)
	}
	k, err := crypto.NewKeyring(parsed...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustSeal(t testing.TB, k *crypto.Keyring, plaintext []byte) (payload, mac string) {
	t.Helper()
	payload, mac, err := k.Seal(plaintext)
	if err != nil {
		t.Fatal(err)
	}
	return payload, mac
}

// macOf signs any text under testKey, as the issuer would.
func macOf(text string) string {
	h := hmac.New(sha256.New, []byte(testKey))
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil))
}

// encryptRaw makes a payload of already padded blocks under testKey.
func encryptRaw(padded []byte) string {
	block, err := aes.NewCipher([]byte(testKey))
	if err != nil {
		panic(err)
	}
	iv := []byte("an IV of 16 byte")
	out := bytes.Clone(padded)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, out)
	return base64.StdEncoding.EncodeToString(append(iv, out...))
}

type vector struct {
	Name, Secret string
	Encoding     crypto.Encoding
	Envelope     struct {
		Payload string `json:"encrypted_payload"`
		HMAC    string
	}
	Expect    string
	Plaintext *string
}

func vectors(t testing.TB) []vector {
	t.Helper()
	file, err := os.ReadFile("testdata/envelopes.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(file, &list); err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("no vectors")
	}
	return list
}

func TestVectors(t *testing.T) {
	t.Parallel()
	faults := map[string]error{"ok": nil, "invalid_signature": crypto.ErrSignature, "malformed_envelope": crypto.ErrMalformed}
	seen := map[string]int{}
	for _, v := range vectors(t) {
		seen[v.Expect]++
		t.Run(v.Name, func(t *testing.T) {
			want, known := faults[v.Expect]
			if !known {
				t.Fatalf("unknown expectation %q", v.Expect)
			}
			secret, err := crypto.ParseSecret(v.Secret, v.Encoding)
			if err != nil {
				t.Fatal(err)
			}
			k, err := crypto.NewKeyring(secret)
			if err != nil {
				t.Fatal(err)
			}
			got, err := k.Open(v.Envelope.Payload, v.Envelope.HMAC)
			if err != want {
				t.Fatalf("error %v, want %v", err, want)
			}
			if want == nil && (v.Plaintext == nil || string(got) != *v.Plaintext) {
				t.Fatalf("opened to %q, want %v", got, v.Plaintext)
			}
			if want != nil && got != nil {
				t.Fatalf("refused, yet returned %q", got)
			}
		})
	}
	for expect := range faults {
		if seen[expect] == 0 {
			t.Errorf("no vector expects %s", expect)
		}
	}
}

func TestOpenRefusesPayloadsThatAreAuthenticButNotStrict(t *testing.T) {
	t.Parallel()
	k := keyring(t, testKey)
	// IV and one block are 32 bytes, so the text ends in "=" and has spare bits.
	good := encryptRaw(append(bytes.Repeat([]byte("a"), 15), 1))
	if _, err := k.Open(good, macOf(good)); err != nil || !strings.HasSuffix(good, "=") {
		t.Fatalf("the payload all cases start from: %q, %v", good, err)
	}
	urlSafe := strings.NewReplacer("+", "-", "/", "_").Replace
	cut := len(good) - 2 // before the last character and its "="
	spare := good[:cut] + string(good[cut]+1) + "="
	for name, payload := range map[string]string{
		"empty":               "",
		"only newlines":       "\n\n\n\n",
		"newline inside":      good[:8] + "\n" + good[8:],
		"CRLF inside":         good[:8] + "\r\n" + good[8:],
		"newlines, length %4": good + "\n\n\n\n",
		"space before":        " " + good,
		"no padding":          strings.TrimRight(good, "="),
		"more padding":        good + "=",
		"spare bits set":      spare,
		"text after padding":  good + "AAAA",
		"url-safe alphabet":   urlSafe(encryptRaw(bytes.Repeat([]byte{16}, 16*64))),
		"NUL":                 good[:8] + "\x00" + good[9:],
		"an IV only":          base64.StdEncoding.EncodeToString(make([]byte, 16)),
		"half a block":        base64.StdEncoding.EncodeToString(make([]byte, 40)),
	} {
		if got, err := k.Open(payload, macOf(payload)); err != crypto.ErrMalformed || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// Every last byte, with a right padding and with each byte of it wrong.
func TestOpenChecksEveryByteOfThePadding(t *testing.T) {
	t.Parallel()
	k := keyring(t, testKey)
	open := func(padded []byte) ([]byte, error) {
		payload := encryptRaw(padded)
		return k.Open(payload, macOf(payload))
	}
	for pad := range 256 {
		padded := bytes.Repeat([]byte{'x'}, 32)
		for i := range min(pad, 32) {
			padded[31-i] = byte(pad)
		}
		padded[31] = byte(pad)
		got, err := open(padded)
		if pad < 1 || pad > 16 {
			if err != crypto.ErrMalformed {
				t.Errorf("padding %d: %v", pad, err)
			}
			continue
		}
		if err != nil || string(got) != strings.Repeat("x", 32-pad) {
			t.Errorf("padding %d: %q, %v", pad, got, err)
		}
		for i := 1; i < pad; i++ {
			bad := bytes.Clone(padded)
			bad[31-i] ^= 0x80
			if _, err := open(bad); err != crypto.ErrMalformed {
				t.Errorf("padding %d, byte %d from the end wrong: %v", pad, i, err)
			}
		}
	}
}

func TestOpenChecksTheSignatureFirst(t *testing.T) {
	t.Parallel()
	k := keyring(t, testKey)
	payload, mac := mustSeal(t, k, []byte("{}"))
	_, otherMAC := mustSeal(t, keyring(t, "YELLOW SUBMARINE"), []byte("{}"))
	for name, c := range map[string]struct{ payload, mac string }{
		"wrong":             {payload, otherMAC},
		"missing":           {payload, ""},
		"short":             {payload, mac[:62]},
		"odd":               {payload, mac[:63]},
		"long":              {payload, mac + "00"},
		"not hex":           {payload, strings.Repeat("g", 64)},
		"space":             {payload, " " + mac[1:]},
		"malformed payload": {"####", mac},
		"empty payload":     {"", mac},
	} {
		if got, err := k.Open(c.payload, c.mac); err != crypto.ErrSignature || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, mac := range []string{strings.ToUpper(mac), strings.ToUpper(mac[:32]) + mac[32:]} {
		if got, err := k.Open(payload, mac); err != nil || string(got) != "{}" {
			t.Errorf("hex of any case: %q, %v", got, err)
		}
	}
}

func TestKeyringRotation(t *testing.T) {
	t.Parallel()
	const old, next, other = "old old old old!", "next next next next next", testKey
	both := keyring(t, next, old)
	for _, secret := range []string{old, next} {
		payload, mac := mustSeal(t, keyring(t, secret), []byte("hello"))
		if got, err := both.Open(payload, mac); err != nil || string(got) != "hello" {
			t.Errorf("sealed with %q: %q, %v", secret, got, err)
		}
	}
	payload, mac := mustSeal(t, both, []byte("hello"))
	if _, err := keyring(t, next).Open(payload, mac); err != nil {
		t.Errorf("the first secret does not seal: %v", err)
	}
	for _, secret := range []string{old, other} {
		if _, err := keyring(t, secret).Open(payload, mac); err != crypto.ErrSignature {
			t.Errorf("opened with %q: %v", secret, err)
		}
	}
}

func TestSealDrawsAFreshIV(t *testing.T) {
	t.Parallel()
	k := keyring(t, testKey)
	a, _ := mustSeal(t, k, []byte("{}"))
	b, _ := mustSeal(t, k, []byte("{}"))
	if a[:20] == b[:20] {
		t.Error("two envelopes begin with the same IV")
	}
}

func TestKeyringNeedsSecrets(t *testing.T) {
	t.Parallel()
	if _, err := crypto.NewKeyring(); err == nil {
		t.Error("no secret was accepted")
	}
	if _, err := crypto.NewKeyring(crypto.Secret{}); err == nil {
		t.Error("the zero Secret was accepted")
	}
	var k crypto.Keyring
	if _, _, err := k.Seal(nil); err == nil {
		t.Error("the zero Keyring sealed")
	}
	if _, err := k.Open("", macOf("")); err != crypto.ErrSignature {
		t.Errorf("the zero Keyring opened: %v", err)
	}
}

func TestParseSecret(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		value string
		enc   crypto.Encoding
		fault string // of the error; empty: accepted
	}{
		"utf8 16":           {"YELLOW SUBMARINE", crypto.UTF8, ""},
		"utf8 24":           {testKey[:24], crypto.UTF8, ""},
		"utf8 32":           {testKey, crypto.UTF8, ""},
		"utf8 not ASCII":    {"éééééééé", crypto.UTF8, ""},
		"hex of any case":   {"00aaBBccDDeeFF112233445566778899", crypto.Hex, ""},
		"base64":            {"AAECAwQFBgcICQoLDA0ODw==", crypto.Base64, ""},
		"empty":             {"", crypto.UTF8, "has 0 bytes"},
		"17 bytes":          {"YELLOW SUBMARINES", crypto.UTF8, "has 17 bytes when read as utf8"},
		"trailing newline":  {"YELLOW SUBMARINE\n", crypto.UTF8, "has 17 bytes"},
		"hex too short":     {"00aabb", crypto.Hex, "has 3 bytes when read as hex"},
		"not hex":           {"YELLOW SUBMARINE", crypto.Hex, "not valid hex"},
		"base64, unpadded":  {"AAECAwQFBgcICQoLDA0ODw", crypto.Base64, "not valid base64"},
		"base64, newline":   {"AAECAwQFBgcICQoLDA0ODw==\n", crypto.Base64, "not valid base64"},
		"swapped":           {"utf8", "YELLOW SUBMARINE", "unknown encoding"},
		"encoding not told": {"YELLOW SUBMARINE", "", "unknown encoding"},
	} {
		_, err := crypto.ParseSecret(c.value, c.enc)
		switch {
		case c.fault == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.fault == "":
		case err == nil || !strings.Contains(err.Error(), c.fault):
			t.Errorf("%s: error %v, want %q in it", name, err, c.fault)
		case strings.Contains(err.Error(), "YELLOW") || strings.Contains(err.Error(), "AAEC") || strings.Contains(err.Error(), "aabb"):
			t.Errorf("%s: the error quotes the secret: %v", name, err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	k := keyring(t, testKey, "YELLOW SUBMARINE")
	payload, mac := mustSeal(t, keyring(t, "YELLOW SUBMARINE"), payload400)
	v := vault(t, rootKey)
	sealed := v.Seal(payload400, "evt_1")
	r := root(t)
	fingerprint := r.Fingerprint(payload400)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if got, err := k.Open(payload, mac); err != nil || !bytes.Equal(got, payload400) {
					t.Errorf("Keyring.Open: %v", err)
				}
				if p, m, err := k.Seal(payload400); err != nil || p == payload || m == mac {
					t.Errorf("Keyring.Seal: %v", err)
				}
				if got, err := v.Open(sealed, "evt_1"); err != nil || !bytes.Equal(got, payload400) {
					t.Errorf("Vault.Open: %v", err)
				}
				v.Seal(payload400, "evt_2")
				if !bytes.Equal(r.Fingerprint(payload400), fingerprint) {
					t.Error("Fingerprint changed")
				}
			}
		})
	}
	wg.Wait()
}

func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(testKey), uint8(0), []byte("{}"), uint16(0), uint8(1))
	f.Add([]byte(testKey), uint8(1), []byte{}, uint16(43), uint8(0x20))
	f.Add([]byte(testKey), uint8(2), payload400, uint16(600), uint8(0xff))
	f.Fuzz(func(t *testing.T, seed []byte, size uint8, plaintext []byte, at uint16, flip uint8) {
		key := make([]byte, 16+8*(size%3))
		copy(key, seed)
		k := keyring(t, string(key))
		before := bytes.Clone(plaintext)
		payload, mac := mustSeal(t, k, plaintext)
		if !bytes.Equal(plaintext, before) {
			t.Fatal("Seal changed its input")
		}
		got, err := k.Open(payload, mac)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("opened to %q, %v; want %q", got, err, plaintext)
		}
		flipped := func(text string) string {
			changed := []byte(text)
			changed[int(at)%len(changed)] ^= flip | 1
			return string(changed)
		}
		if got, err := k.Open(flipped(payload), mac); err != crypto.ErrSignature || got != nil {
			t.Fatalf("payload changed at %d: %q, %v", int(at)%len(payload), got, err)
		}
		// The other case of a hex digit is the same digit.
		if m := flipped(mac); !strings.EqualFold(m, mac) {
			if got, err := k.Open(payload, m); err != crypto.ErrSignature || got != nil {
				t.Fatalf("MAC changed at %d: %q, %v", int(at)%len(mac), got, err)
			}
		}
		key[0] ^= 1
		if got, err := keyring(t, string(key)).Open(payload, mac); err != crypto.ErrSignature || got != nil {
			t.Fatalf("another secret: %q, %v", got, err)
		}
	})
}

// FuzzOpen: besides the MAC as given, each payload is tried under its right MAC:
// the code behind the MAC must stand any input too. What is authentic opens to what
// a plain reading of the specification gives, whichever of the secrets is its own.
func FuzzOpen(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.Envelope.Payload, v.Envelope.HMAC)
	}
	f.Add(encryptRaw(bytes.Repeat([]byte{16}, 16)), "")              // of nothing
	f.Add(encryptRaw(append(bytes.Repeat([]byte{'x'}, 15), 17)), "") // padding longer than a block
	first, last := keyring(f, testKey), keyring(f, strings.Repeat("o", 16), testKey)
	f.Fuzz(func(t *testing.T, payload, mac string) {
		right := macOf(payload)
		want, ok := plainly(payload)
		for _, mac := range []string{mac, right, strings.ToUpper(right)} {
			for _, k := range []*crypto.Keyring{first, last} {
				got, err := k.Open(payload, mac)
				switch authentic := strings.EqualFold(mac, right); {
				case !authentic:
					if err != crypto.ErrSignature || got != nil {
						t.Fatalf("not authentic: %q, %v", got, err)
					}
				case !ok:
					if err != crypto.ErrMalformed || got != nil {
						t.Fatalf("malformed: %q, %v", got, err)
					}
				case err != nil || !bytes.Equal(got, want):
					t.Fatalf("%q, %v; want %q", got, err, want)
				}
			}
		}
	})
}

// plainly opens what is authentic under testKey, as the specification says it and
// without regard to time.
func plainly(payload string) ([]byte, bool) {
	buf, err := base64.StdEncoding.DecodeString(payload)
	if err != nil || base64.StdEncoding.EncodeToString(buf) != payload || len(buf) < 32 || len(buf)%16 != 0 {
		return nil, false
	}
	block, err := aes.NewCipher([]byte(testKey))
	if err != nil {
		panic(err)
	}
	out := make([]byte, len(buf)-16)
	cipher.NewCBCDecrypter(block, buf[:16]).CryptBlocks(out, buf[16:])
	pad := int(out[len(out)-1])
	if pad < 1 || pad > 16 || !bytes.HasSuffix(out, bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, false
	}
	return out[:len(out)-pad], true
}

// allocations of one operation; see package budget.
var allocations = map[string]float64{
	"Open": 4,
	"Seal": 7,
}

func TestBudget(t *testing.T) {
	k := keyring(t, testKey)
	payload, mac := mustSeal(t, k, payload400)
	budget.Allocations(t, allocations, "Open", func() {
		if _, err := k.Open(payload, mac); err != nil {
			t.Fatal(err)
		}
	})
	budget.Allocations(t, allocations, "Seal", func() {
		if _, _, err := k.Seal(payload400); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	k := keyring(b, testKey)
	payload, mac := mustSeal(b, k, payload400)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Open(payload, mac); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	k := keyring(b, testKey)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := k.Seal(payload400); err != nil {
			b.Fatal(err)
		}
	}
}
