package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
)

// The only errors of [Keyring.Open], returned as they are, without wrapping.
var (
	// ErrSignature: the HMAC is missing, not hex, or not made with any secret of
	// the keyring. The payload is not authentic.
	ErrSignature = errors.New("crypto: wrong or missing HMAC of an envelope")
	// ErrMalformed: the HMAC is right, but the payload is not strict base64, not
	// an IV and a whole number of blocks, or badly padded. It is one error for
	// all, so that an answer tells nothing about the plaintext.
	ErrMalformed = errors.New("crypto: malformed envelope")
)

// Keyring opens and seals the issuer's envelopes: AES-CBC (NIST SP 800-38A) with
// PKCS#7 padding (RFC 5652 section 6.3) under a random IV, written as base64 of
// IV and ciphertext; HMAC-SHA256 over that text. The first secret seals, all of
// them open, so a secret can be rotated without downtime. It redacts itself.
type Keyring struct {
	Redacted
	keys []*merchantKey
}

// NewKeyring takes at least one secret, each made by [ParseSecret].
func NewKeyring(secrets ...Secret) (*Keyring, error) {
	if len(secrets) == 0 {
		return nil, errors.New("crypto: a keyring needs at least one secret")
	}
	k := &Keyring{}
	for i, s := range secrets {
		if s.key == nil {
			return nil, fmt.Errorf("crypto: secret %d of the keyring is empty: make it with ParseSecret", i+1)
		}
		k.keys = append(k.keys, s.key)
	}
	return k, nil
}

// Open verifies mac (64 hex digits, either case) over the text of payload
// (base64) and returns the plaintext, which may be empty. The error is
// [ErrSignature] or [ErrMalformed]. The caller bounds the size of payload.
func (k *Keyring) Open(payload, mac string) ([]byte, error) {
	text := []byte(payload)
	key := k.match(text, mac)
	if key == nil {
		return nil, ErrSignature
	}
	buf, ok := decodeBase64(text)
	// PKCS#7 always adds at least one byte, so even no plaintext is one block.
	if !ok || len(buf) < 2*aes.BlockSize || len(buf)%aes.BlockSize != 0 {
		return nil, ErrMalformed
	}
	iv, body := buf[:aes.BlockSize], buf[aes.BlockSize:]
	cipher.NewCBCDecrypter(key.block, iv).CryptBlocks(body, body)
	n, ok := unpaddedLen(body)
	if !ok {
		return nil, ErrMalformed
	}
	return body[:n], nil
}

// match returns the key under which mac is the MAC of text, or nil. It always
// tries all keys, so that time does not tell which one is in use.
func (k *Keyring) match(text []byte, mac string) *merchantKey {
	var claimed, sum [sha256.Size]byte
	if len(mac) != hex.EncodedLen(len(claimed)) {
		return nil
	}
	if _, err := hex.Decode(claimed[:], []byte(mac)); err != nil {
		return nil
	}
	found := -1
	for i, key := range k.keys {
		equal := subtle.ConstantTimeCompare(key.mac.sum(sum[:0], text), claimed[:])
		found = subtle.ConstantTimeSelect(equal, i, found)
	}
	if found < 0 {
		return nil
	}
	return k.keys[found]
}

// unpaddedLen returns the length of body without its PKCS#7 padding, and whether
// the padding is right. It reads the whole last block whatever the padding says:
// time tells nothing but the result.
func unpaddedLen(body []byte) (int, bool) {
	last := body[len(body)-aes.BlockSize:]
	pad := last[aes.BlockSize-1]
	good := subtle.ConstantTimeLessOrEq(1, int(pad)) & subtle.ConstantTimeLessOrEq(int(pad), aes.BlockSize)
	for i, b := range last {
		isText := 1 ^ subtle.ConstantTimeLessOrEq(aes.BlockSize-i, int(pad))
		good &= isText | subtle.ConstantTimeByteEq(b, pad)
	}
	return len(body) - int(pad), good == 1
}

// Seal encrypts plaintext with the first secret under a fresh random IV and
// returns the base64 payload and its HMAC in lower-case hex. The only error is a
// Keyring that was not made by [NewKeyring].
func (k *Keyring) Seal(plaintext []byte) (payload, mac string, err error) {
	if len(k.keys) == 0 {
		return "", "", errors.New("crypto: the keyring holds no secret to seal with: make it with NewKeyring")
	}
	key := k.keys[0]
	pad := aes.BlockSize - len(plaintext)%aes.BlockSize
	buf := make([]byte, aes.BlockSize+len(plaintext)+pad)
	iv, body := buf[:aes.BlockSize], buf[aes.BlockSize:]
	rand.Read(iv) // never fails: it ends the program instead
	for i := copy(body, plaintext); i < len(body); i++ {
		body[i] = byte(pad)
	}
	cipher.NewCBCEncrypter(key.block, iv).CryptBlocks(body, body)
	text := strictBase64.AppendEncode(nil, buf)
	return string(text), hex.EncodeToString(key.mac.sum(nil, text)), nil
}
