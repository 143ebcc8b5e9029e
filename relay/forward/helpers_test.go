package forward

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/relay"
)

const (
	signingA = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	signingB = "whsec_c2Vjb25kIHNlY3JldCBvZiB0aGUgdGFyZ2V0ISE="
	merchKey = "0123456789abcdef0123456789abcdef"
	oldKey   = "fedcba9876543210fedcba9876543210"
)

var (
	occurred = time.Date(2025, 12, 1, 10, 30, 0, 5e6, time.FixedZone("", 2*3600))
	received = time.Date(2025, 12, 1, 8, 30, 1, 250e6+999, time.UTC)
)

func message() relay.Message {
	return relay.Message{
		EventID: "evt_01J8ZQ5X4N8K3T0V7B2M6C9R1D0a", Type: "CARD_APPLY_RESULT", Merchant: "acme",
		OccurredAt: occurred, ReceivedAt: received, Attempt: 3, Data: []byte(`{"card_id":67890}`),
	}
}

// downstream is a Downstream with one target, named core.
func downstream(t testing.TB, change func(*Target), url string) *Downstream {
	t.Helper()
	target := Target{Name: "core", URL: url, Secrets: []string{signingA}, Timeout: 5 * time.Second, Concurrency: 4}
	if change != nil {
		change(&target)
	}
	d, err := NewDownstream([]Target{target})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func keyring(t testing.TB, keys ...string) *crypto.Keyring {
	t.Helper()
	var secrets []crypto.Secret
	for _, k := range keys {
		s, err := crypto.ParseSecret(k, crypto.UTF8)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, s)
	}
	k, err := crypto.NewKeyring(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func confirmAPI(t testing.TB, url string) IssuerAPI {
	return IssuerAPI{
		BaseURL: url, MerchantID: "3f2c9a52", Timeout: 5 * time.Second, Keyring: keyring(t, merchKey, oldKey),
		Confirm: &Call{
			Path:      "/card/3ds_confirm",
			Body:      map[string]any{"card_id": "$card_id", "auth_id": "$reference", "auth_result": "$decision"},
			Decisions: map[relay.Action]any{relay.Approve: 2, relay.Reject: 3},
		},
		Lock: &Call{Path: "/card/update_status", Body: map[string]any{"card_id": "$card_id", "status": "LOCKED"}},
	}
}

// issuer is an Issuer with one merchant, acme.
func issuer(t testing.TB, url string, change func(*IssuerAPI)) *Issuer {
	t.Helper()
	api := confirmAPI(t, url)
	if change != nil {
		change(&api)
	}
	i, err := NewIssuer(map[string]IssuerAPI{"acme": api})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

func payload(t testing.TB, text string) map[string]any {
	t.Helper()
	p, err := relay.ParsePayload([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func issuerCall(t testing.TB) relay.IssuerCall {
	return relay.IssuerCall{
		Merchant: "acme", ChallengeID: "chl_01J8ZQ5X4N8K3T0V7B2M6C9R1D0a", CardID: "67890", UserID: "u-1",
		Reference: "4868798", Action: relay.Approve, Payload: payload(t, `{"card_id":67890,"reference_code":"4868798"}`),
	}
}

// seal and unseal are the issuer's side of the envelope, in code of their own.
func seal(key, plain string) (payload, mac string) {
	block, err := aes.NewCipher([]byte(key))
	if err != nil {
		panic(err)
	}
	pad := 16 - len(plain)%16
	text := append([]byte(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	iv := make([]byte, 16)
	rand.Read(iv)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(text, text)
	payload = base64.StdEncoding.EncodeToString(append(iv, text...))
	return payload, macOf(key, payload)
}

func macOf(key, text string) string {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil))
}

func unseal(key, payload, mac string) (string, error) {
	if macOf(key, payload) != mac {
		return "", errors.New("wrong HMAC")
	}
	raw, err := base64.StdEncoding.DecodeString(payload)
	if err != nil || len(raw) < 32 || len(raw)%16 != 0 {
		return "", errors.New("not an IV and blocks")
	}
	block, err := aes.NewCipher([]byte(key))
	if err != nil {
		return "", err
	}
	text := raw[16:]
	cipher.NewCBCDecrypter(block, raw[:16]).CryptBlocks(text, text)
	return string(text[:len(text)-int(text[len(text)-1])]), nil
}

func sealedAnswer(key, plain string) string {
	p, mac := seal(key, plain)
	text, err := json.Marshal(map[string]string{"encrypted_payload": p, "hmac": mac})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// serve starts a server that lives as long as the test.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// serveTLS is serve with a certificate that nobody knows.
func serveTLS(t testing.TB, h http.HandlerFunc, change func(*httptest.Server)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes are meant to fail
	if change != nil {
		change(s)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// hang answers nothing until the client has gone. The body is read, because only
// then does the server notice that.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// reset breaks the connection with a TCP RST.
func reset(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// tcp runs f on each connection of a bare server and returns its host:port.
func tcp(t testing.TB, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				f(conn)
			}()
		}
	}()
	return l.Addr().String()
}

func readAll(t testing.TB, r *http.Request) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func checkAttempt(t *testing.T, o relay.Outcome, verdict relay.Verdict, status int, errText string) {
	t.Helper()
	if o.Verdict != verdict || o.Attempt.StatusCode != status || o.Attempt.Error != errText {
		t.Errorf("verdict %d, status %d, error %q; want %d, %d, %q",
			o.Verdict, o.Attempt.StatusCode, o.Attempt.Error, verdict, status, errText)
	}
	if o.Attempt.Latency <= 0 && !strings.HasPrefix(errText, "not sent") {
		t.Error("no latency")
	}
}

// flood writes until the client has had enough.
func flood(conn net.Conn, first, then string) {
	_, err := io.WriteString(conn, first)
	for err == nil {
		_, err = io.WriteString(conn, then)
	}
}
