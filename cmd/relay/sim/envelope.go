package sim

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
)

// envelopeKey is one merchant's secret: AES-CBC with PKCS#7 under a random IV,
// base64 of IV and ciphertext, HMAC-SHA256 over that text under the same key.
type envelopeKey struct {
	block cipher.Block
	mac   []byte
}

func newEnvelopeKey(secret []byte) (envelopeKey, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return envelopeKey{}, errors.New("the secret must have 16, 24 or 32 bytes")
	}
	return envelopeKey{block, bytes.Clone(secret)}, nil
}

func (k envelopeKey) seal(plaintext []byte) (payload, mac string) {
	padding := aes.BlockSize - len(plaintext)%aes.BlockSize
	sealed := make([]byte, aes.BlockSize, aes.BlockSize+len(plaintext)+padding)
	rand.Read(sealed)
	sealed = append(sealed, plaintext...)
	sealed = append(sealed, bytes.Repeat([]byte{byte(padding)}, padding)...)
	blocks := sealed[aes.BlockSize:]
	cipher.NewCBCEncrypter(k.block, sealed[:aes.BlockSize]).CryptBlocks(blocks, blocks)
	payload = base64.StdEncoding.EncodeToString(sealed)
	return payload, hex.EncodeToString(k.sum(payload))
}

func (k envelopeKey) sum(payload string) []byte {
	mac := hmac.New(sha256.New, k.mac)
	mac.Write([]byte(payload))
	return mac.Sum(nil)
}

var (
	errHMAC      = errors.New("HMAC is missing, not hexadecimal or wrong")
	errMalformed = errors.New("encrypted_payload is not base64 of an IV and padded blocks")
)

// open checks the HMAC before it looks at anything else.
func (k envelopeKey) open(payload, mac string) ([]byte, error) {
	given, err := hex.DecodeString(mac)
	if err != nil || !hmac.Equal(given, k.sum(payload)) {
		return nil, errHMAC
	}
	sealed, err := base64.StdEncoding.Strict().DecodeString(payload)
	if err != nil || len(sealed) < 2*aes.BlockSize || len(sealed)%aes.BlockSize != 0 {
		return nil, errMalformed
	}
	blocks := sealed[aes.BlockSize:]
	cipher.NewCBCDecrypter(k.block, sealed[:aes.BlockSize]).CryptBlocks(blocks, blocks)
	padding := int(blocks[len(blocks)-1])
	if padding < 1 || padding > aes.BlockSize {
		return nil, errMalformed
	}
	plaintext, tail := blocks[:len(blocks)-padding], blocks[len(blocks)-padding:]
	if !bytes.Equal(tail, bytes.Repeat([]byte{byte(padding)}, padding)) {
		return nil, errMalformed
	}
	return plaintext, nil
}
