package relay

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestIDs(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for partition := range 256 {
		id := newID(prefixEvent, partition, testNow)
		if got, ok := PartitionOf(id); !ok || got != partition || seen[id] || len(id) != idLength {
			t.Fatalf("id %s: partition %d, %v; want %d", id, got, ok, partition)
		}
		seen[id] = true
		c := ChallengeOf(id)
		if got, ok := PartitionOf(c); !ok || got != partition || eventOf(c) != id || !IsChallengeID(c) || IsChallengeID(id) {
			t.Fatalf("challenge %s of event %s, and back %s", c, id, eventOf(c))
		}
	}
}

func TestPartitionOfRefuses(t *testing.T) {
	t.Parallel()
	good := newID(prefixChallenge, 7, testNow)
	for name, id := range map[string]string{
		"nothing":             "",
		"too short":           good[:len(good)-1],
		"too long":            good + "0",
		"no hex digits":       good[:len(good)-2] + "zz",
		"no ULID":             good[:4] + strings.Repeat("!", 26) + "07",
		"a ULID out of range": good[:4] + "8" + good[5:],
		"a letter it has not": good[:10] + "U" + good[11:],
	} {
		if p, ok := PartitionOf(id); ok || IsChallengeID(id) {
			t.Errorf("%s: %q is taken for an id in partition %d", name, id, p)
		}
	}
}

// The partition is fixed for the life of the data: these values must never
// change.
func TestPartitionForStays(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		merchant, card, user string
		digest               []byte
		want                 int
	}{
		{merchant: "acme", card: "67890", want: 10},
		{merchant: "acme", card: "67890", user: "u1", digest: []byte("x"), want: 10}, // the card decides
		{merchant: "acme", user: "67890", want: 4},
		{merchant: "other", card: "67890", want: 8},
		{merchant: "acme", digest: []byte("content"), want: 12},
	} {
		if got := partitionFor(16, tc.merchant, tc.card, tc.user, tc.digest); got != tc.want {
			t.Errorf("partitionFor(%q, %q, %q, %q) = %d, want %d", tc.merchant, tc.card, tc.user, tc.digest, got, tc.want)
		}
	}
}

func TestPartitionForModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.IntRange(1, 256).Draw(t, "partitions")
		text := rapid.String()
		merchant, card, user := text.Draw(t, "merchant"), text.Draw(t, "card"), text.Draw(t, "user")
		p := partitionFor(partitions, merchant, card, user, nil)
		if p < 0 || p >= partitions {
			t.Fatalf("partition %d of %d", p, partitions)
		}
		if h := (Holder{merchant, card, user}).Partition(partitions); h != p {
			t.Fatalf("a holder is in %d, its event in %d", h, p)
		}
		if u := (User{merchant, user}).Partition(partitions); card == "" && u != p {
			t.Fatalf("a user is in %d, the event that names it in %d", u, p)
		}
	})
}
