package push

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// device is the browser's side of a subscription, written from RFC 8291 alone.
type device struct {
	key  *ecdh.PrivateKey
	auth []byte
}

func newDevice(t testing.TB) device {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	auth := make([]byte, 16)
	rand.Read(auth)
	return device{key, auth}
}

func (d device) subscription(endpoint string) Subscription {
	b64 := base64.RawURLEncoding.EncodeToString
	return Subscription{Endpoint: endpoint, P256dh: b64(d.key.PublicKey().Bytes()), Auth: b64(d.auth)}
}

// decrypt opens an aes128gcm body of one record (RFC 8188, section 2; RFC 8291, section 3.4).
func (d device) decrypt(body []byte) ([]byte, error) {
	if len(body) < 21 || len(body) > 4096 {
		return nil, fmt.Errorf("body of %d bytes", len(body))
	}
	salt, rs, idLen := body[:16], binary.BigEndian.Uint32(body[16:20]), int(body[20])
	if len(body) < 21+idLen || int(rs) < len(body)-21-idLen {
		return nil, errors.New("body does not fit its record size")
	}
	senderKey, record := body[21:21+idLen], body[21+idLen:]
	sender, err := ecdh.P256().NewPublicKey(senderKey)
	if err != nil {
		return nil, err
	}
	shared, err := d.key.ECDH(sender)
	if err != nil {
		return nil, err
	}
	info := "WebPush: info\x00" + string(d.key.PublicKey().Bytes()) + string(senderKey)
	ikm, err1 := hkdf.Key(sha256.New, shared, d.auth, info, 32)
	key, err2 := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: aes128gcm\x00", 16)
	nonce, err3 := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: nonce\x00", 12)
	block, err4 := aes.NewCipher(key)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, nonce, record, nil)
	if err != nil {
		return nil, err
	}
	message, ok := strings.CutSuffix(strings.TrimRight(string(plain), "\x00"), "\x02")
	if !ok {
		return nil, errors.New("no delimiter of a last record")
	}
	return []byte(message), nil
}

// checkVAPID verifies an Authorization header (RFC 8292, sections 2 and 3).
func checkVAPID(header, publicKey, origin, subject string) error {
	params, ok := strings.CutPrefix(header, "vapid ")
	token, k, ok2 := strings.Cut(strings.TrimPrefix(params, "t="), ", k=")
	parts := strings.Split(token, ".")
	if !ok || !ok2 || len(parts) != 3 || k != publicKey {
		return fmt.Errorf("header %q", header)
	}
	var head struct{ Alg string }
	var claims struct {
		Aud, Sub string
		Exp      int64
	}
	for i, into := range []any{&head, &claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return err
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return err
		}
	}
	key, err := base64.RawURLEncoding.DecodeString(k)
	if err != nil {
		return err
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), key)
	if err != nil {
		return err
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(sig) != 64 {
		return fmt.Errorf("signature of %d bytes: %w", len(sig), err)
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if head.Alg != "ES256" || !ecdsa.Verify(pub, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return errors.New("signature is wrong")
	}
	left := time.Until(time.Unix(claims.Exp, 0))
	if claims.Aud != origin || claims.Sub != subject || left <= time.Minute || left > 24*time.Hour {
		return fmt.Errorf("claims %+v, %s left", claims, left)
	}
	return nil
}

// received is one message as the push service and then the device see it.
type received struct {
	message []byte
	header  http.Header
	proto   int
}

// pushService takes every push for d, checks and opens it, and answers 201.
func pushService(t *testing.T, d device, v VAPID) (*httptest.Server, <-chan received) {
	t.Helper()
	got := make(chan received, 10)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read body: %v", err)
		}
		message, err := d.decrypt(body)
		if err != nil {
			t.Errorf("decrypt: %v", err)
		}
		scheme := "http://"
		if r.TLS != nil {
			scheme = "https://"
		}
		if err := checkVAPID(r.Header.Get("Authorization"), v.PublicKey, scheme+r.Host, "mailto:ops@example.com"); err != nil {
			t.Errorf("VAPID: %v", err)
		}
		w.WriteHeader(http.StatusCreated)
		got <- received{message, r.Header, r.ProtoMajor}
	}))
	t.Cleanup(srv.Close)
	return srv, got
}

func newTestSender(t testing.TB, v VAPID, p *Policy) *Sender {
	t.Helper()
	s := NewSender(v, p)
	t.Cleanup(s.Close)
	return s
}
