package redisstore

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// handover hands what a step owes at once to the node that makes the step, in the
// step's own script: a read of the lane, by this node, after it was added to. A loaded
// node's readers, one a partition, bring few entries each, and fall behind; they are
// for the rest, and for other nodes.
type handover struct {
	open func(relay.Lane) bool
	take func([]relay.Lease, error)

	mu    sync.RWMutex
	ended bool
	busy  sync.WaitGroup // scripts under way that may hand something over
}

// HandOver begins it.
func (s *Store) HandOver(open func(relay.Lane) bool, take func([]relay.Lease, error)) (stop func()) {
	h := &handover{open: open, take: take}
	s.hand.Store(h)
	return func() {
		h.mu.Lock()
		h.ended = true
		h.mu.Unlock()
		h.busy.Wait()
	}
}

var errAnswerLost = errors.New("a script may have run before, and its answer was lost")

// alsoHanded is how many older entries of a lane are handed over with the step's own,
// which they come before.
const alsoHanded = 4

// begin tells whether a script may hand something over; then done must be called.
func (h *handover) begin() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if !h.ended {
		h.busy.Add(1)
	}
	return !h.ended
}

// handedOver adds to a batch the reads of what it owes at once, and returns what is to
// be done with each of the script's results. A node whose heart does
// not beat is handed nothing: nobody would look for it there. written reads the reply:
// the challenge that was written, or nil, and whether the script may have run before,
// when its answer was lost.
func (s *Store) handedOver(b *batch, p int, written func(reply any) (known *relay.Challenge, again bool)) func(reply any, err error) {
	h := s.hand.Load()
	if h == nil || len(b.owes) == 0 || time.Since(s.heart.last()) >= nodeLife || !h.begin() {
		return nothing
	}
	count := map[relay.Lane]int{}
	for _, o := range b.owes {
		count[o.lane]++
	}
	reads := false
	for l, n := range count {
		if h.open(l) {
			reads = true
			b.add("XREADGROUP", s.keys.lane(p, l), group, s.Node, n+alsoHanded)
		}
	}
	owes := b.owes
	done := sync.OnceFunc(h.busy.Done)
	if !reads {
		done()
		return nothing
	}
	return func(reply any, err error) {
		defer done()
		if err != nil {
			h.take(nil, s.away(err))
			return
		}
		c, again := written(reply)
		if again {
			h.take(nil, errAnswerLost)
			return
		}
		for _, stream := range handed(reply) {
			lane := relay.Lane(strings.TrimPrefix(stream.Stream, s.keys.laneBase(p)))
			var leases []relay.Lease
			for _, m := range stream.Messages {
				raw, _ := m.Values["d"].(string)
				d, recorded, err := s.decodeOwed(raw, owes)
				if err == nil && !recorded {
					l := relay.Lease{Delivery: d, Partition: p, Entry: m.ID}
					if c != nil && c.ID == d.ChallengeID {
						l.Known = c
					}
					leases = append(leases, l)
					continue
				}
				// It is not this step's own, and what it needs may be another script.
				h.busy.Go(func() { h.take(s.leases(context.Background(), p, lane, []redis.XMessage{m}, nil), nil) })
			}
			h.take(leases, nil)
		}
	}
}

// decodeOwed is decodeEntry for what is most likely one of these.
func (s *Store) decodeOwed(raw string, owes []owedNow) (d relay.Delivery, recorded bool, err error) {
	for _, o := range owes {
		if o.raw == raw && raw != "" {
			return o.delivery, false, nil
		}
	}
	return s.decodeEntry(raw)
}

// asWritten is a challenge as it would be read after it was written with a version and
// an owner.
func asWritten(c relay.Challenge, version int, user string) *relay.Challenge {
	at := func(t time.Time) time.Time { return fromMillis(toMillis(t)) }
	c.Version, c.UserID, c.CreatedAt = version, user, relay.TimeOf(c.ID)
	c.OccurredAt, c.ExpiresAt, c.RevealedAt, c.EndedAt = at(c.OccurredAt), at(c.ExpiresAt), at(c.RevealedAt), at(c.EndedAt)
	return &c
}

// handed is what the scripts return at the end: the replies of XREADGROUP.
func handed(reply any) (streams []redis.XStream) {
	all, _ := reply.([]any)
	if len(all) == 0 {
		return nil
	}
	lanes, _ := all[len(all)-1].([]any)
	for _, l := range lanes {
		pair, _ := l.([]any)
		if len(pair) != 2 {
			continue
		}
		stream := redis.XStream{}
		stream.Stream, _ = pair[0].(string)
		entries, _ := pair[1].([]any)
		for _, e := range entries {
			var m redis.XMessage
			if pair, _ := e.([]any); len(pair) == 2 {
				m.ID, _ = pair[0].(string)
				if fields, _ := pair[1].([]any); len(fields) == 2 {
					m.Values = map[string]any{"d": fields[1]}
				}
			}
			stream.Messages = append(stream.Messages, m)
		}
		streams = append(streams, stream)
	}
	return streams
}
