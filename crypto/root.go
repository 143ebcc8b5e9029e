package crypto

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
)

// Root derives everything keyed that the relay makes for itself, each kind under
// a subkey of its own. Results are the same for the same root key for ever, on
// every node. It redacts itself. The zero Root panics when used.
type Root struct {
	Redacted
	keys *rootKeys
}

type rootKeys struct{ fingerprint, pan, activation, token *keyed }

// NewRoot takes 32 random bytes. It keeps no reference to key; errors do not
// quote it.
func NewRoot(key []byte) (Root, error) {
	if len(key) != keyLen {
		return Root{}, fmt.Errorf("crypto: root key has %d bytes: it must have %d", len(key), keyLen)
	}
	keys := &rootKeys{}
	for _, k := range []struct {
		label string
		to    **keyed
	}{
		{"fingerprint", &keys.fingerprint},
		{"pan", &keys.pan},
		{"activation", &keys.activation},
		{"token", &keys.token},
	} {
		sub, err := subkey(key, k.label, keyLen)
		if err != nil {
			return Root{}, err
		}
		*k.to = newKeyed(sub)
	}
	return Root{keys: keys}, nil
}

// GenerateKey returns 32 random bytes, good for [NewRoot] and [NewVault].
func GenerateKey() []byte {
	key := make([]byte, keyLen)
	rand.Read(key) // never fails: it ends the program instead
	return key
}

// Fingerprint returns 32 bytes that are equal for equal parts and tell nothing
// about them without the key. Parts are kept apart: ("ab", "c") and ("a", "bc")
// differ.
func (r Root) Fingerprint(parts ...[]byte) []byte {
	return r.keys.fingerprint.sum(nil, framed(parts))
}

var (
	lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	// Without 0 and O, 1 and I. It has 32 characters, so every code is equally likely.
	readableBase32 = base32.NewEncoding("23456789ABCDEFGHJKLMNPQRSTUVWXYZ").WithPadding(base32.NoPadding)
)

// PANToken returns what stands for a full card number outside sealed storage:
// "pan_" and 26 characters of a-z and 2-7 (128 bits). It is keyed because card
// numbers are few enough to be tried one by one against a plain hash (PCI DSS
// 4.0.1, requirement 3.5.1.1). Merchants get different tokens for one card.
func (r Root) PANToken(merchant, pan string) string {
	sum := r.keys.pan.sum(nil, framed([]string{merchant, pan}))
	return "pan_" + lowerBase32.EncodeToString(sum[:16])
}

// Activation returns a code of 8 characters (40 bits) that people can read out.
// Give it something that is never used twice among parts, limit the tries, and
// compare in constant time.
func (r Root) Activation(parts ...string) string {
	sum := r.keys.activation.sum(nil, framed(parts))
	return readableBase32.EncodeToString(sum[:5])
}

// framed joins parts, each after its length, so that no two lists of parts make
// the same bytes.
func framed[T string | []byte](parts []T) []byte {
	var out []byte
	for _, part := range parts {
		out = binary.BigEndian.AppendUint64(out, uint64(len(part)))
		out = append(out, part...)
	}
	return out
}
