package redisstore

import (
	"encoding/binary"
	"strconv"
	"time"

	"approvalrelay/relay"
)

// The duplicate memory. There is one for each event of days, so that a key of its own
// with a time to live, which takes 180 bytes, is too much. Contents share hashes, by
// their fingerprints: dupParts in each partition, which take turns, so that only one
// at a time is full and forgotten. A hash that has been filled for as long as contents
// are remembered becomes the older one, and is looked into for as long again. So each
// content is remembered as long as it must be, and takes room up to twice as long.
//
// The arrival script tells when that is, and not this node, so that two nodes whose
// clocks differ look into the same hashes.
//
// They are many, so that each is small: Redis looks through one of up to 512 entries from
// its beginning, and takes half as much room again for one of more.
const dupParts = 1024

// briefly is up to when a content is remembered for a short time only, with others of
// that kind.
const briefly = time.Hour

func (k keys) duplicates(p, part int, remember time.Duration) string {
	kind := ""
	if remember <= briefly {
		kind = "short:"
	}
	return k.tag(p) + "dup:" + kind + strconv.Itoa(part)
}

// memory is what the arrival script needs to know of a content's duplicates.
type memory struct {
	now, older string // keys
	content    []byte // fingerprint
	remember   time.Duration
	since      string // the time part of the oldest id that is remembered
	until      string // that of when a hash is full that begins now
}

func (s *Store) duplicates(a relay.Arrival) memory {
	if a.Fingerprint == nil {
		due := s.keys.due(a.Partition) // any key of the slot
		return memory{now: due, older: due}
	}
	part, at := int(binary.BigEndian.Uint16(a.Fingerprint))%dupParts, s.Now()
	now := s.keys.duplicates(a.Partition, part, a.Remember)
	turn := time.Duration(part) * a.Remember / dupParts
	full := a.Remember - (time.Duration(at.UnixNano())-turn)%a.Remember
	return memory{
		now: now, older: now + ":older", content: a.Fingerprint[:16], remember: a.Remember,
		since: relay.TimePart(at.Add(-a.Remember)), until: relay.TimePart(at.Add(full)),
	}
}
