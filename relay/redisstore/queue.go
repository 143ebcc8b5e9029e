package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

const (
	leaseCount = 64  // entries of each lane in one read
	dueCount   = 128 // moved in one script
)

// readGrace is how much longer than its wait a read may take. It is short, so
// that a reader whose connection has died goes on soon after Redis is back.
const readGrace = 750 * time.Millisecond

// postponed is when an entry that this node cannot read is handed out again.
const postponed = 10 * time.Second

// Lease reads the lanes of one partition, waiting until any has something.
func (s *Store) Lease(ctx context.Context, partition int, lanes []relay.Lane, wait time.Duration) ([]relay.Lease, error) {
	if len(lanes) == 0 {
		return nil, rest(ctx, wait)
	}
	if err := s.enlist(ctx); err != nil {
		return nil, err
	}
	streams := make([]string, 0, 2*len(lanes))
	for _, l := range lanes {
		streams = append(streams, s.keys.lane(partition, l))
	}
	for range lanes {
		streams = append(streams, ">")
	}
	read := &redis.XReadGroupArgs{Group: group, Consumer: s.Node, Streams: streams, Count: leaseCount, Block: wait}
	got, err := s.blockingRead(ctx, read)
	if noGroup(err) {
		if err := s.makeGroups(ctx, partition, lanes); err != nil {
			return nil, err
		}
		got, err = s.blockingRead(ctx, read)
	}
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, s.away(err)
	}
	var leases []relay.Lease
	for _, stream := range got {
		lane := relay.Lane(strings.TrimPrefix(stream.Stream, s.keys.laneBase(partition)))
		leases = append(leases, s.leases(ctx, partition, lane, stream.Messages, nil)...)
	}
	return leases, nil
}

// blockingRead returns when ctx ends although the connection still blocks; what
// it reads then stays leased to this node, and is taken over.
func (s *Store) blockingRead(ctx context.Context, a *redis.XReadGroupArgs) ([]redis.XStream, error) {
	type answer struct {
		streams []redis.XStream
		err     error
	}
	done := make(chan answer, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.Block+readGrace)
		defer cancel()
		streams, err := s.readers.XReadGroup(ctx, a).Result()
		done <- answer{streams, err}
	}()
	select {
	case r := <-done:
		return r.streams, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// noGroup tells whether a lane has no group: nobody has read it yet, or Redis has
// lost it, also while the reader was waiting.
func noGroup(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "NOGROUP") || strings.Contains(err.Error(), "stream key no longer exists"))
}

// makeGroups makes the groups that are missing, from the beginning: what was
// owed before they were made is delivered, too.
func (s *Store) makeGroups(ctx context.Context, partition int, lanes []relay.Lane) error {
	for _, l := range lanes {
		_, err := s.run(ctx, groupScript, []string{s.keys.lane(partition, l)}, group)
		if err != nil && !strings.Contains(err.Error(), "BUSYGROUP") {
			return err
		}
	}
	return nil
}

// leases decodes entries. One that cannot be read is put back: it is work that
// another version, or a node with other keys, can do. One whose record is
// forgotten is dropped.
func (s *Store) leases(ctx context.Context, partition int, lane relay.Lane, entries []redis.XMessage, handed map[string]int) []relay.Lease {
	leases := make([]relay.Lease, 0, len(entries))
	var recorded []int // those whose record has the rest
	var ids []string
	for _, e := range entries {
		raw, _ := e.Values["d"].(string)
		d, isID, err := s.decodeEntry(raw)
		if err != nil {
			s.putBack(ctx, partition, lane, e.ID, raw, err)
			continue
		}
		if isID {
			recorded = append(recorded, len(leases))
			ids = append(ids, d.ID)
		}
		leases = append(leases, relay.Lease{Delivery: d, Partition: partition, Entry: e.ID, Handed: handed[e.ID]})
	}
	if len(ids) == 0 {
		return leases
	}
	return s.fill(ctx, lane, leases, recorded, ids)
}

// fill loads the records of retried deliveries.
func (s *Store) fill(ctx context.Context, lane relay.Lane, leases []relay.Lease, at []int, ids []string) []relay.Lease {
	raw, err := s.persistentRecords(ctx, ids)
	if err != nil {
		return nil // shut down: they stay leased and are taken over
	}
	without := map[int]bool{}
	for i, n := range at {
		if raw[i] == "" {
			s.Log.Error("a delivery that is due is forgotten: retention.deliveries is over", "delivery_id", ids[i])
			without[n] = true
			s.discard(ctx, lane, leases[n])
			continue
		}
		d, err := s.decodeDelivery(raw[i])
		if err != nil {
			without[n] = true
			s.putBack(ctx, leases[n].Partition, lane, leases[n].Entry, ids[i], err)
			continue
		}
		leases[n].Delivery = d
	}
	kept := leases[:0]
	for n, l := range leases {
		if !without[n] {
			kept = append(kept, l)
		}
	}
	return kept
}

// persistentRecords goes on trying: the entries are leased already.
func (s *Store) persistentRecords(ctx context.Context, ids []string) ([]string, error) {
	for {
		raw, err := s.records(ctx, ids)
		if err == nil {
			return raw, nil
		}
		s.Log.Warn("cannot load deliveries that are due; trying again", "error", err)
		if err := rest(ctx, 250*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// rest waits, or returns why ctx ended.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return ctx.Err()
}

// putBack leaves an entry to other nodes for a while, and says why.
func (s *Store) putBack(ctx context.Context, partition int, lane relay.Lane, entry, raw string, why error) {
	s.Log.Error("this node cannot read what is owed; it is left to others, and tried again later", "lane", lane, "entry", entry, "again_in", postponed, "error", why)
	if err := s.postpone(ctx, partition, lane, entry, raw); err != nil && !errors.Is(err, relay.ErrLostLease) {
		s.Log.Warn("cannot put an entry back; it is tried again when this node has gone", "lane", lane, "entry", entry, "error", err)
	}
}

// Postpone hands a lease back; it is handed out again after a while.
func (s *Store) Postpone(ctx context.Context, l relay.Lease) error {
	return s.postpone(ctx, l.Partition, l.Delivery.Lane(), l.Entry, s.encodeEntry(l.Delivery, false))
}

func (s *Store) postpone(ctx context.Context, partition int, lane relay.Lane, entry, raw string) error {
	stream, due := s.keys.lane(partition, lane), s.keys.due(partition)
	b := settledStep(due, "", stream, entry)
	b.add("ZADD", due, ms(s.Now().Add(postponed)), string(lane)+"\n"+raw)
	return s.commit(ctx, b)
}

// discard settles an entry whose delivery is forgotten.
func (s *Store) discard(ctx context.Context, lane relay.Lane, l relay.Lease) {
	b := settledStep(s.keys.due(l.Partition), "", s.keys.lane(l.Partition, lane), l.Entry)
	b.add("HINCRBY", s.keys.owed(l.Partition), string(lane), -1)
	b.add("ZREM", s.keys.retrying(l.Partition), l.Delivery.ID)
	err := s.commit(ctx, b)
	if err != nil && !errors.Is(err, relay.ErrLostLease) {
		s.Log.Warn("cannot remove an entry; it stays", "lane", lane, "entry", l.Entry, "error", err)
	}
}

// Due moves what is due by the store's clock.
func (s *Store) Due(ctx context.Context, partition int) (time.Time, error) {
	for {
		res, err := s.run(ctx, dueScript, []string{s.keys.due(partition)}, ms(s.Now()), dueCount, s.keys.laneBase(partition))
		if err != nil {
			return time.Time{}, err
		}
		v, ok := res.([]any)
		if !ok || len(v) != 2 {
			return time.Time{}, fmt.Errorf("due script: %w", errCorrupt)
		}
		if moved, _ := v[0].(int64); moved == dueCount {
			continue
		}
		next, _ := v[1].(string)
		if next == "" {
			return time.Time{}, nil
		}
		at, err := strconv.ParseFloat(next, 64)
		if err != nil {
			return time.Time{}, fmt.Errorf("due script: %w: %w", errCorrupt, err)
		}
		return time.UnixMilli(int64(at)), nil
	}
}

// Forget trims a lane, by the time at which each entry was added.
func (s *Store) Forget(ctx context.Context, lane relay.Lane) (int, error) {
	before, sum := ms(s.Now().Add(-s.Retention.Deliveries)), 0
	for p := range s.Options.Partitions {
		res, err := s.run(ctx, forgetScript, []string{s.keys.lane(p, lane), s.keys.owed(p)}, before, string(lane))
		if err != nil {
			return sum, err
		}
		n, _ := res.(int64)
		sum += int(n)
	}
	return sum, nil
}
