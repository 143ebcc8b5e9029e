package redisstore

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// handover hands what a step owes at once to the node that makes the step, in the
// step's own script: a read of the lane, by this node, after it was added to. So an
// idle node need not be woken for it, which takes longer than all else that Redis does
// for a webhook.
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
// be done with the script's last result; nil if there is none. A node whose heart does
// not beat is handed nothing: nobody would look for it there.
func (s *Store) handedOver(b *batch, p int) func(reply any, err error) {
	h := s.hand.Load()
	if h == nil || len(b.owes) == 0 || time.Since(s.heart.last()) >= nodeLife || !h.begin() {
		return nil
	}
	count := map[relay.Lane]int{}
	for _, l := range b.owes {
		count[l]++
	}
	var lanes []relay.Lane
	for l, n := range count {
		if h.open(l) {
			lanes = append(lanes, l)
			key := s.keys.lane(p, l)
			b.keys = append(b.keys, key)
			b.args = append(b.args, 9, "XREADGROUP", "GROUP", group, s.Node, "COUNT", n, "STREAMS", key, ">")
		}
	}
	done := sync.OnceFunc(h.busy.Done)
	if len(lanes) == 0 {
		done()
		return nil
	}
	return func(reply any, err error) {
		defer done()
		if err != nil {
			h.take(nil, s.away(err))
			return
		}
		for _, stream := range handed(reply) {
			lane := relay.Lane(strings.TrimPrefix(stream.Stream, s.keys.laneBase(p)))
			var leases []relay.Lease
			for _, m := range stream.Messages {
				raw, _ := m.Values["d"].(string)
				d, recorded, err := s.decodeEntry(raw)
				if err == nil && !recorded {
					leases = append(leases, relay.Lease{Delivery: d, Partition: p, Entry: m.ID})
					continue
				}
				// It is not this step's own, and what it needs may be another script.
				h.busy.Go(func() { h.take(s.leases(context.Background(), p, lane, []redis.XMessage{m}, nil), nil) })
			}
			h.take(leases, nil)
		}
	}
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
