package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// Encoding says how the text of a merchant's secret stands for key bytes.
type Encoding string

// The encodings in use by issuers.
const (
	UTF8   Encoding = "utf8"   // the characters are the key bytes
	Hex    Encoding = "hex"    // either case
	Base64 Encoding = "base64" // RFC 4648 section 4, padded
)

// Secret is one merchant key, used for both AES and HMAC as the issuer's scheme
// wants. It redacts itself. The zero Secret is refused by [NewKeyring].
type Secret struct {
	Redacted
	key *merchantKey
}

type merchantKey struct {
	block cipher.Block
	mac   *keyed
}

// ParseSecret decodes value. The result must have 16, 24 or 32 bytes (AES-128,
// -192, -256). Errors say what is wrong and never quote value or enc, which a
// slip in the configuration may have swapped.
func ParseSecret(value string, enc Encoding) (Secret, error) {
	var key []byte
	ok := true
	switch enc {
	case UTF8:
		key = []byte(value)
	case Hex:
		var err error
		// The decoder's error quotes a character of the secret.
		key, err = hex.DecodeString(value)
		ok = err == nil
	case Base64:
		key, ok = decodeBase64([]byte(value))
	default:
		return Secret{}, errors.New("crypto: unknown encoding of a secret: use utf8, hex or base64")
	}
	if !ok {
		return Secret{}, fmt.Errorf("crypto: secret is not valid %s: check its encoding setting and stray spaces or newlines", enc)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return Secret{}, fmt.Errorf("crypto: secret has %d bytes when read as %s: it must have 16, 24 or 32", len(key), enc)
	}
	return Secret{key: &merchantKey{block, newKeyed(key)}}, nil
}

var strictBase64 = base64.StdEncoding.Strict()

// decodeBase64 accepts the one canonical encoding only: standard alphabet,
// padded, zero trailing bits, and no newlines, which Go's decoder would skip.
func decodeBase64(text []byte) ([]byte, bool) {
	if bytes.ContainsAny(text, "\r\n") {
		return nil, false
	}
	out := make([]byte, strictBase64.DecodedLen(len(text)))
	n, err := strictBase64.Decode(out, text)
	return out[:n], err == nil
}
