package redisstore

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func BenchmarkPack(b *testing.B) {
	body := fmt.Sprintf(threeDS, uuid(), card(0), uuid(), uuid())
	short := packedTight([]byte(body))
	b.Logf("%d -> %d", len(body), len(short))
	b.Run("pack", func(b *testing.B) {
		for b.Loop() {
			packedTight([]byte(body))
		}
	})
	b.Run("unpack", func(b *testing.B) {
		for b.Loop() {
			unpacked(short)
		}
	})
}

// TestPack: whatever is packed comes back, and what an older version has written is
// read as it is.
func TestPack(t *testing.T) {
	t.Parallel()
	body := fmt.Sprintf(threeDS, uuid(), card(0), uuid(), uuid())
	for _, s := range []string{"", "{}", body, "\x01", "\x01\x01 \x01\x20x\x00\xff", "0123456789abcde", "0123456789-_cdef", strings.Repeat("aZ", 1000) + "é", body[:37] + "\x01" + body[37:]} {
		checkPacking(t, []byte(s))
	}
	if got := len(packedTight([]byte(body))); got > len(body)*6/10 {
		t.Errorf("a body of %d bytes is packed into %d", len(body), got)
	}
	if n := len(recordPhrases) + 2*len(bodyNames); firstPhrase+n > runMark {
		t.Errorf("there are %d phrases, which is more than bytes", n)
	}
	for i, phrase := range recordPhrases[1:] {
		for _, longer := range recordPhrases[i+2:] {
			if len(phrase) < len(longer) && longer[:len(phrase)] == phrase {
				t.Errorf("%q hides %q", phrase, longer)
			}
		}
	}
}

// FuzzPack: packing loses nothing, and leaves no end of line in a JSON text.
func FuzzPack(f *testing.F) {
	f.Add([]byte(fmt.Sprintf(threeDS, uuid(), card(0), uuid(), uuid())))
	f.Add([]byte("\x01\x20\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkPacking(t, b)
		if again, ok := unpacked(b); ok && !bytes.Contains(b, []byte{phraseMark}) && !bytes.Equal(again, b) {
			t.Errorf("%q, which is not packed, was read as %q", b, again)
		}
	})
}

func checkPacking(t *testing.T, b []byte) {
	t.Helper()
	for what, short := range map[string][]byte{"packed": packed(b), "packed tight": packedTight(b)} {
		if got, ok := unpacked(short); !ok || !bytes.Equal(got, b) {
			t.Errorf("%q, %s, came back as %q, %t", b, what, got, ok)
		}
	}
	if !bytes.Contains(b, []byte("\n")) && bytes.Contains(packed(b), []byte("\n")) {
		t.Errorf("%q has an end of line packed", b)
	}
}
