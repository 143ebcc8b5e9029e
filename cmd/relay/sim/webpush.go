package sim

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"
)

// maxVAPIDLife is how far ahead a VAPID token may expire (RFC 8292, section 2).
const maxVAPIDLife = 24 * time.Hour

// verifyVAPID checks an Authorization header as RFC 8292 has it. wantKey "" takes
// the key that the header itself names.
func verifyVAPID(authorization, wantKey, audience string, now time.Time) error {
	scheme, rest, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "vapid") {
		return errors.New("scheme is not vapid")
	}
	parameters := make(map[string]string)
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := parameters[name]; twice {
			return fmt.Errorf("parameter %q twice", name)
		}
		parameters[name] = value
	}
	if wantKey != "" && parameters["k"] != wantKey {
		return errors.New("k is not the key of the subscription")
	}
	point, err := base64.RawURLEncoding.DecodeString(parameters["k"])
	if err != nil {
		return errors.New("k is not base64url without padding")
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return errors.New("k is not an uncompressed P-256 point")
	}
	claims, err := verifyES256(parameters["t"], key)
	if err != nil {
		return err
	}
	return checkVAPIDClaims(claims, audience, now)
}

// verifyES256 checks a JWT (RFC 7519) signed with ES256 (RFC 7518, section 3.4)
// and returns its claims.
func verifyES256(token string, key *ecdsa.PublicKey) ([]byte, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("t is not a JWT")
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			return nil, errors.New("t is not base64url without padding")
		}
	}
	var header struct{ Alg string }
	if json.Unmarshal(decoded[0], &header) != nil || header.Alg != "ES256" {
		return nil, errors.New("alg of t is not ES256")
	}
	signature := decoded[2]
	if len(signature) != 64 {
		return nil, errors.New("signature of t is not 64 bytes")
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	if !ecdsa.Verify(key, digest[:], r, s) {
		return nil, errors.New("signature of t is wrong")
	}
	return decoded[1], nil
}

func checkVAPIDClaims(claims []byte, audience string, now time.Time) error {
	var c struct {
		Aud, Sub string
		Exp      float64
	}
	if err := json.Unmarshal(claims, &c); err != nil {
		return errors.New("claims of t are malformed")
	}
	life := c.Exp - float64(now.UnixNano())/1e9
	switch {
	case c.Aud != audience:
		return fmt.Errorf("aud is %q, not %q", c.Aud, audience)
	case life <= 0:
		return errors.New("exp is missing or has passed")
	case life > maxVAPIDLife.Seconds():
		return errors.New("exp is more than 24 hours away")
	case !isContact(c.Sub):
		return errors.New("sub is neither a mailto nor an https URI")
	}
	return nil
}

// isContact also refuses mailto:mailto:, which Apple answers with 403.
func isContact(sub string) bool {
	u, err := url.Parse(sub)
	if err != nil {
		return false
	}
	local, domain, at := strings.Cut(u.Opaque, "@")
	return u.Scheme == "https" && u.Host != "" ||
		u.Scheme == "mailto" && at && local != "" && domain != "" && !strings.Contains(local, ":")
}

// decrypt opens a message of RFC 8291: one aes128gcm record (RFC 8188) under
// keys derived from the sender's key, the device's key and its auth secret.
func (d *Device) decrypt(body []byte) ([]byte, error) {
	const fixed = 16 + 4 + 1 // salt, record size, length of the key id
	if len(body) < fixed || len(body) < fixed+int(body[20]) {
		return nil, errors.New("shorter than its header")
	}
	salt, recordSize := body[:16], binary.BigEndian.Uint32(body[16:20])
	senderKey, record := body[fixed:fixed+int(body[20])], body[fixed+int(body[20]):]
	if uint64(len(record)) > uint64(recordSize) || recordSize < 18 {
		return nil, errors.New("not a single record of the declared size")
	}
	sender, err := ecdh.P256().NewPublicKey(senderKey)
	if err != nil {
		return nil, errors.New("key id is not an uncompressed P-256 point")
	}
	aead, nonce, err := d.contentKey(sender, salt)
	if err != nil {
		return nil, err
	}
	// The first record's sequence number is zero, so the nonce stays as derived.
	padded, err := aead.Open(nil, nonce, record, nil)
	if err != nil {
		return nil, errors.New("does not decrypt under this subscription's keys")
	}
	end := len(padded)
	for end > 0 && padded[end-1] == 0 {
		end--
	}
	if end == 0 || padded[end-1] != 2 {
		return nil, errors.New("the last record's padding delimiter is not 2")
	}
	return padded[:end-1], nil
}

// contentKey is RFC 8291, section 3.4.
func (d *Device) contentKey(sender *ecdh.PublicKey, salt []byte) (cipher.AEAD, []byte, error) {
	shared, err := d.private.ECDH(sender)
	if err != nil {
		return nil, nil, fmt.Errorf("ECDH: %w", err)
	}
	info := "WebPush: info\x00" + string(d.private.PublicKey().Bytes()) + string(sender.Bytes())
	ikm, err := hkdf.Key(sha256.New, shared, d.auth, info, 32)
	if err != nil {
		return nil, nil, fmt.Errorf("HKDF: %w", err)
	}
	key, err := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: aes128gcm\x00", 16)
	if err != nil {
		return nil, nil, fmt.Errorf("HKDF: %w", err)
	}
	nonce, err := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return nil, nil, fmt.Errorf("HKDF: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, fmt.Errorf("AES: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	return aead, nonce, err
}
