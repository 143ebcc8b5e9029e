package relay

import (
	"crypto/rand"
	"encoding/hex"
	"hash/fnv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// An id is a prefix, a ULID (48 bits of time, 80 random ones) and two hex
// digits that name the partition its record lives in, so that a record is found
// by its id alone: "chl_01J8ZQ5X4N8K3T0V7B2M6C9R1D0a".
const (
	prefixEvent        = "evt_"
	prefixChallenge    = "chl_"
	prefixDelivery     = "dlv_"
	prefixSubscription = "sub_"
	prefixPasskey      = "pky_"
	idLength           = 4 + ulid.EncodedSize + 2
	timePart           = 10 // characters of a ULID that are its time
)

func newID(prefix string, partition int, now time.Time) string {
	id := ulid.MustNew(ulid.Timestamp(now), rand.Reader)
	return prefix + id.String() + hex.EncodeToString([]byte{byte(partition)})
}

// PartitionOf returns the partition that an id carries, and false for what is
// not an id of ours.
func PartitionOf(id string) (int, bool) {
	if len(id) != idLength {
		return 0, false
	}
	if _, err := ulid.ParseStrict(id[4 : 4+ulid.EncodedSize]); err != nil {
		return 0, false
	}
	b, err := hex.DecodeString(id[idLength-2:])
	if err != nil {
		return 0, false
	}
	return int(b[0]), true
}

// TimeOf is when an id of ours was made, to the millisecond; the zero time for
// what is none.
func TimeOf(id string) time.Time {
	if _, ok := PartitionOf(id); !ok {
		return time.Time{}
	}
	return ulid.MustParse(id[4 : 4+ulid.EncodedSize]).Timestamp().UTC()
}

// TimePart is what follows the prefix in the ids that are made at a time: of two
// ids without their prefixes the later one is the greater, as text.
func TimePart(t time.Time) string {
	var id ulid.ULID
	_ = id.SetTime(ulid.Timestamp(t)) // which fits until the year 10889
	return id.String()[:timePart]
}

// ChallengeOf and eventOf: a challenge and the event it came from share all but
// the prefix, so neither record has to name the other.
func ChallengeOf(eventID string) string {
	return prefixChallenge + strings.TrimPrefix(eventID, prefixEvent)
}

func eventOf(challengeID string) string { return prefixEvent + challengeID[len(prefixChallenge):] }

// IsChallengeID tells whether a string has the form of a challenge's id.
func IsChallengeID(id string) bool {
	_, ok := PartitionOf(id)
	return ok && strings.HasPrefix(id, prefixChallenge)
}

// partitionFor is told by content alone, so that a retry of the issuer meets
// its first delivery: by the card, else the user, else the content itself.
func partitionFor(partitions int, merchant, card, user string, digest []byte) int {
	h := fnv.New64a()
	h.Write([]byte(merchant))
	switch {
	case card != "":
		h.Write([]byte("\x00c" + card))
	case user != "":
		h.Write([]byte("\x00u" + user))
	default:
		h.Write([]byte("\x00d"))
		h.Write(digest)
	}
	return int(h.Sum64() % uint64(partitions))
}

// Holder is what challenges are indexed by: a card, or a user where there is no
// card. Always within one merchant.
type Holder struct {
	Merchant string
	CardID   string
	UserID   string
}

// User names one cardholder of one merchant.
type User struct {
	Merchant string
	ID       string
}

// Partition of a user's own records: subscriptions and the set of cards.
func (u User) Partition(partitions int) int {
	return partitionFor(partitions, u.Merchant, "", u.ID, nil)
}

// Partition of the holder's challenges.
func (h Holder) Partition(partitions int) int {
	return partitionFor(partitions, h.Merchant, h.CardID, h.UserID, nil)
}
