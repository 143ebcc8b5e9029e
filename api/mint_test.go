package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"maps"
	"math/big"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/golang-jwt/jwt/v5"
)

// mint makes the tokens of one configuration, good ones and such as differ from
// these in one thing.
type mint struct {
	t       *testing.T
	name    string
	options JWTOptions
	method  jwt.SigningMethod
	key     any
	other   any // a key of the same kind that nobody trusts
	header  map[string]any
}

// good is the token that passes; extra goes into its header.
func (m mint) good(extra ...map[string]any) string { return m.with(m.method, m.key, nil, extra...) }

func (m mint) claims(change jwt.MapClaims) string { return m.with(m.method, m.key, change) }

func (m mint) with(method jwt.SigningMethod, key any, change jwt.MapClaims, extra ...map[string]any) string {
	header := maps.Clone(m.header)
	for _, e := range extra {
		maps.Copy(header, e)
	}
	return sign(m.t, method, key, header, goodClaims(testClock, change))
}

// texts are the JSON of the good token's header and claims.
func (m mint) texts() (header, claims string) {
	h := map[string]any{"alg": m.method.Alg(), "typ": "JWT"}
	maps.Copy(h, m.header)
	return asJSON(m.t, h), asJSON(m.t, goodClaims(testClock))
}

// sign signs any two texts, as they are.
func (m mint) sign(header, claims string) string {
	return m.signParts(b64([]byte(header)), b64([]byte(claims)))
}

func (m mint) signParts(header, claims string) string {
	text := header + "." + claims
	sig, err := m.method.Sign(text, m.key)
	must(m.t, err)
	return text + "." + b64(sig)
}

// inHeader and inClaims sign the good texts with one replacement.
func (m mint) inHeader(old, new string) string {
	h, c := m.texts()
	return m.sign(m.replace(h, old, new), c)
}

func (m mint) inClaims(old, new string) string {
	h, c := m.texts()
	return m.sign(h, m.replace(c, old, new))
}

func (m mint) replace(text, old, new string) string {
	if !strings.Contains(text, old) {
		m.t.Fatalf("there is no %s in %s", old, text)
	}
	return strings.Replace(text, old, new, 1)
}

// signature replaces that of the good token.
func (m mint) signature(change func([]byte) []byte) string {
	good := m.good()
	text, sig := cutLast(good)
	raw, err := base64.RawURLEncoding.DecodeString(sig)
	must(m.t, err)
	return text + "." + b64(change(raw))
}

func cutLast(token string) (text, signature string) {
	i := strings.LastIndexByte(token, '.')
	return token[:i], token[i+1:]
}

// public is the key that verifies, as an attacker knows it; nil for a secret.
func (m mint) public() crypto.PublicKey {
	if s, ok := m.key.(crypto.Signer); ok {
		return s.Public()
	}
	return nil
}

// confused is a token whose HMAC was made with the public key in some form.
func (m mint) confused(method jwt.SigningMethod, form func(crypto.PublicKey) []byte) string {
	return m.with(method, form(m.public()), nil)
}

func asPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func (m mint) jwk(key any) map[string]any {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return rsaJWK(key, nil)
	case *ecdsa.PrivateKey:
		return ecJWK(key, nil)
	case ed25519.PrivateKey:
		return map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(key.Public().(ed25519.PublicKey))}
	}
	return map[string]any{"kty": "oct", "k": b64(key.([]byte))}
}

// certificate is a self-signed one of the untrusted key, as in x5c.
func (m mint) certificate() []string {
	key, ok := m.other.(crypto.Signer)
	if !ok {
		key = edKey
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(m.t, err)
	return []string{base64.StdEncoding.EncodeToString(der)}
}

// leakedRSA is a private key that its issuer publishes.
var leakedRSA, _ = rsa.GenerateKey(rand.Reader, 2048)

func publicDER(key crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	return der
}

func rawPublic(key crypto.PublicKey) []byte {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return key.N.Bytes()
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			panic(err)
		}
		return point
	}
	return key.(ed25519.PublicKey)
}

func utf16Of(s string) string {
	var out []byte
	for _, u := range utf16.Encode([]rune(s)) {
		out = binary.BigEndian.AppendUint16(out, u)
	}
	return string(out)
}
