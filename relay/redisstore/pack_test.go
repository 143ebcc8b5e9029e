package redisstore

import (
	"bytes"
	"fmt"
	"testing"
)

func BenchmarkPack(b *testing.B) {
	body := fmt.Sprintf(threeDS, uuid(), card(0), uuid(), uuid())
	short := packer.Replace(body)
	b.Logf("%d -> %d", len(body), len(short))
	b.Run("pack", func(b *testing.B) {
		for b.Loop() {
			packer.Replace(body)
		}
	})
	b.Run("unpack", func(b *testing.B) {
		for b.Loop() {
			unpacker.Replace(short)
		}
	})
}

// TestPack: whatever is packed comes back, and what an older version has written is
// read as it is.
func TestPack(t *testing.T) {
	t.Parallel()
	body := fmt.Sprintf(threeDS, uuid(), card(0), uuid(), uuid())
	for _, s := range []string{"", "{}", body, "\x01", "\x01\x01 \x01\x20x\x00\xff", body[:37] + "\x01" + body[37:]} {
		if got := string(unpacked(packed([]byte(s)))); got != s {
			t.Errorf("%q came back as %q", s, got)
		}
	}
	if got := len(packed([]byte(body))); got > len(body)*6/10 {
		t.Errorf("a body of %d bytes is packed into %d", len(body), got)
	}
	if n := len(recordPhrases) + 2*len(bodyNames); firstPhrase+n > 0xff {
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
		short := packed(b)
		if got := unpacked(short); !bytes.Equal(got, b) {
			t.Errorf("%q came back as %q", b, got)
		}
		if !bytes.Contains(b, []byte("\n")) && bytes.Contains(short, []byte("\n")) {
			t.Errorf("%q has an end of line packed", b)
		}
	})
}
