package crypto

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"
)

// keyed is HMAC-SHA256 (RFC 2104) under one key. It keeps states that have
// already absorbed the key: setting one up costs as much as a short message.
type keyed struct{ states sync.Pool }

func newKeyed(key []byte) *keyed {
	return &keyed{sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

// sum appends the 32-byte MAC of the concatenated parts to dst.
func (k *keyed) sum(dst []byte, parts ...[]byte) []byte {
	h := k.states.Get().(hash.Hash)
	defer k.states.Put(h)
	h.Reset()
	for _, part := range parts {
		h.Write(part)
	}
	return h.Sum(dst)
}

// subkey derives n bytes from key (HKDF-SHA256, RFC 5869, without salt). Labels
// must stay as they are: stored data depends on them.
func subkey(key []byte, label string, n int) ([]byte, error) {
	sub, err := hkdf.Key(sha256.New, key, nil, "approvalrelay/v1 "+label, n)
	if err != nil {
		return nil, fmt.Errorf("crypto: deriving the %s key: %w", label, err)
	}
	return sub, nil
}
