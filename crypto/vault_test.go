package crypto_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"approvalrelay/crypto"
)

var (
	rootKey  = []byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f")
	otherKey = bytes.Repeat([]byte{7}, 32)
)

func vault(t testing.TB, keys ...[]byte) *crypto.Vault {
	t.Helper()
	v, err := crypto.NewVault(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// The record was sealed by another implementation (Python's cryptography): the
// format must not drift, or records at rest are lost.
func TestVaultOpensAKnownRecord(t *testing.T) {
	t.Parallel()
	sealed, err := hex.DecodeString("01e423e6a16465666768696a6b6c6d6e6f94cc5c75a7a2b0f4caec143ba3b1923883a0fd96594ee2b95cc9d50a09a2fd29")
	if err != nil {
		t.Fatal(err)
	}
	v := vault(t, rootKey)
	if got, err := v.Open(sealed, "evt_1"); err != nil || string(got) != `{"otp":"045435"}` {
		t.Fatalf("%q, %v", got, err)
	}
	again := v.Seal([]byte(`{"otp":"045435"}`), "evt_1")
	if len(again) != len(sealed) || !bytes.Equal(again[:5], sealed[:5]) {
		t.Errorf("header and length changed: %x, was %x", again, sealed)
	}
	if bytes.Equal(again[5:17], v.Seal(nil, "")[5:17]) {
		t.Error("two records have the same nonce")
	}
}

func TestVaultRotation(t *testing.T) {
	t.Parallel()
	old, next := vault(t, rootKey), vault(t, otherKey)
	both := vault(t, otherKey, rootKey)
	for name, v := range map[string]*crypto.Vault{"old": old, "new": next} {
		if got, err := both.Open(v.Seal([]byte("x"), "id"), "id"); err != nil || string(got) != "x" {
			t.Errorf("sealed with the %s key: %q, %v", name, got, err)
		}
	}
	sealed := both.Seal([]byte("x"), "id")
	if _, err := next.Open(sealed, "id"); err != nil {
		t.Errorf("the first key does not seal: %v", err)
	}
	if _, err := old.Open(sealed, "id"); err != crypto.ErrSealed {
		t.Errorf("opened with a foreign key: %v", err)
	}
}

func TestVaultRefusesEveryTruncation(t *testing.T) {
	t.Parallel()
	v := vault(t, rootKey)
	sealed := v.Seal([]byte("some text"), "id")
	for n := range sealed {
		if _, err := v.Open(sealed[:n], "id"); err != crypto.ErrSealed {
			t.Errorf("first %d bytes: %v", n, err)
		}
	}
	if _, err := v.Open(append(sealed, 0), "id"); err != crypto.ErrSealed {
		t.Errorf("one byte more: %v", err)
	}
}

func TestStorageAndRootKeysMustHave32Bytes(t *testing.T) {
	t.Parallel()
	if _, err := crypto.NewVault(); err == nil {
		t.Error("a vault without keys was made")
	}
	for _, n := range []int{0, 16, 31, 33, 64} {
		if _, err := crypto.NewVault(rootKey, make([]byte, n)); err == nil {
			t.Errorf("a storage key of %d bytes was accepted", n)
		}
		if _, err := crypto.NewRoot(make([]byte, n)); err == nil {
			t.Errorf("a root key of %d bytes was accepted", n)
		}
	}
	a, b := crypto.GenerateKey(), crypto.GenerateKey()
	if len(a) != 32 || bytes.Equal(a, b) {
		t.Errorf("generated keys: %d bytes, equal %v", len(a), bytes.Equal(a, b))
	}
}

// TestVaultMark: what the first key has sealed is told from what another has, without
// opening it.
func TestVaultMark(t *testing.T) {
	t.Parallel()
	old, rotated := vault(t, rootKey), vault(t, otherKey, rootKey)
	if old.Keys() != 1 || rotated.Keys() != 2 {
		t.Errorf("%d and %d keys", old.Keys(), rotated.Keys())
	}
	before, after := old.Seal(payload400, "evt_1"), rotated.Seal(payload400, "evt_1")
	if !bytes.HasPrefix(before, []byte(old.Mark())) || bytes.HasPrefix(before, []byte(rotated.Mark())) || !bytes.HasPrefix(after, []byte(rotated.Mark())) {
		t.Errorf("sealed as %x and %x, the marks are %x and %x", before[:5], after[:5], old.Mark(), rotated.Mark())
	}
}

func FuzzVault(f *testing.F) {
	f.Add([]byte(`{"otp":"045435"}`), "evt_1", "evt_2", uint16(0), uint8(1))
	f.Add([]byte{}, "", "x", uint16(1), uint8(2))
	f.Add(payload400, "chl_1", "", uint16(20), uint8(0x80))
	v := vault(f, rootKey, otherKey)
	f.Fuzz(func(t *testing.T, plaintext []byte, id, other string, at uint16, flip uint8) {
		sealed := v.Seal(plaintext, id)
		got, err := v.Open(sealed, id)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("opened to %q, %v; want %q", got, err, plaintext)
		}
		if _, err := v.Open(sealed, other); id != other && err != crypto.ErrSealed {
			t.Fatalf("sealed for %q, opened as %q: %v", id, other, err)
		}
		sealed[int(at)%len(sealed)] ^= flip | 1
		if _, err := v.Open(sealed, id); err != crypto.ErrSealed {
			t.Fatalf("changed at %d: %v", int(at)%len(sealed), err)
		}
		if _, err := v.Open(plaintext, id); err != crypto.ErrSealed {
			t.Fatalf("arbitrary bytes: %v", err)
		}
	})
}
