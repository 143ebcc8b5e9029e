package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
)

// ErrSealed is the only error of [Vault.Open]: unknown version or key, another
// record's id, or altered bytes.
var ErrSealed = errors.New("crypto: sealed record cannot be opened: wrong key, wrong record or altered")

const (
	keyLen        = 32 // of storage and root keys, in bytes
	sealedVersion = 1
	keyIDLen      = 4
	headerLen     = 1 + keyIDLen
)

// Vault seals records at rest with AES-256-GCM (NIST SP 800-38D) under random
// 96-bit nonces; the package comment gives the limit that follows. The first key
// seals, all of them open. It redacts itself.
type Vault struct {
	Redacted
	keys []*storageKey
}

type storageKey struct {
	header []byte // version and key id: what every record sealed with it begins with
	aead   cipher.AEAD
}

// NewVault takes at least one key of 32 random bytes. It keeps no reference to
// them; errors do not quote them.
func NewVault(keys ...[]byte) (*Vault, error) {
	if len(keys) == 0 {
		return nil, errors.New("crypto: a vault needs at least one key")
	}
	v := &Vault{}
	for i, key := range keys {
		if len(key) != keyLen {
			return nil, fmt.Errorf("crypto: storage key %d has %d bytes: it must have %d", i+1, len(key), keyLen)
		}
		k, err := newStorageKey(key)
		if err != nil {
			return nil, err
		}
		v.keys = append(v.keys, k)
	}
	return v, nil
}

func newStorageKey(key []byte) (*storageKey, error) {
	id, err := subkey(key, "storage id", keyIDLen)
	if err != nil {
		return nil, err
	}
	enc, err := subkey(key, "storage", keyLen)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(enc)
	if err != nil {
		return nil, fmt.Errorf("crypto: storage cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("crypto: storage cipher: %w", err)
	}
	return &storageKey{append([]byte{sealedVersion}, id...), aead}, nil
}

// Seal encrypts plaintext for the record id, which must be given again to open
// it. The result is 1 version byte, 4 bytes of key id, 12 bytes of nonce, then
// ciphertext and 16-byte tag. The Vault must come from [NewVault].
func (v *Vault) Seal(plaintext []byte, id string) []byte {
	k := v.keys[0]
	out := make([]byte, headerLen, headerLen+len(plaintext)+k.aead.Overhead())
	copy(out, k.header)
	return k.aead.Seal(out, nil, plaintext, k.additional(id))
}

// Open returns the plaintext of what [Vault.Seal] made for the same id under any
// of the keys, or [ErrSealed].
func (v *Vault) Open(sealed []byte, id string) ([]byte, error) {
	// Key ids are short and not secret; two keys may share one by chance, so a
	// failure under the first is not yet the answer.
	for _, k := range v.keys {
		body, ok := bytes.CutPrefix(sealed, k.header)
		if !ok {
			continue
		}
		if plaintext, err := k.aead.Open(nil, nil, body, k.additional(id)); err == nil {
			return plaintext, nil
		}
	}
	return nil, ErrSealed
}

// Keys is how many keys there are.
func (v *Vault) Keys() int { return len(v.keys) }

// Mark is what everything begins with that the first key has sealed: version and
// key id, which are no secrets. What begins otherwise is under another key.
func (v *Vault) Mark() string { return string(v.keys[0].header) }

// additional binds a record to its header and id. The header has a fixed length,
// so the two cannot run into each other.
func (k *storageKey) additional(id string) []byte {
	return append(bytes.Clone(k.header), id...)
}
