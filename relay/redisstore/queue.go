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

// nodeLife is how long a node is believed to live after its last heartbeat;
// nodeForget is how long its leases are still looked for afterwards, because
// Redis may have handed it something in its last moment.
const (
	nodeLife   = 3 * time.Second
	nodeForget = 15 * time.Second
)

// Lease reads the lanes of one partition, waiting until any has something.
func (s *Store) Lease(ctx context.Context, partition int, lanes []relay.Lane, wait time.Duration) ([]relay.Lease, error) {
	if len(lanes) == 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		return nil, ctx.Err()
	}
	streams := make([]string, 0, 2*len(lanes))
	for _, l := range lanes {
		streams = append(streams, s.keys.lane(partition, l))
	}
	for range lanes {
		streams = append(streams, ">")
	}
	got, err := s.blockingRead(ctx, &redis.XReadGroupArgs{Group: group, Consumer: s.Node, Streams: streams, Count: leaseCount, Block: wait})
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case err != nil && strings.Contains(err.Error(), "NOGROUP"):
		return nil, s.makeGroups(ctx, partition, lanes)
	case err != nil:
		return nil, s.away(err)
	}
	var leases []relay.Lease
	for _, stream := range got {
		leases = append(leases, s.leases(ctx, partition, stream.Stream, stream.Messages, nil)...)
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
		streams, err := s.readers.XReadGroup(context.WithoutCancel(ctx), a).Result()
		done <- answer{streams, err}
	}()
	select {
	case r := <-done:
		return r.streams, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// makeGroups makes the groups that are missing, from the beginning: what was
// owed before they were made is delivered, too.
func (s *Store) makeGroups(ctx context.Context, partition int, lanes []relay.Lane) error {
	for _, l := range lanes {
		err := s.rdb.XGroupCreateMkStream(ctx, s.keys.lane(partition, l), group, "0").Err()
		if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
			return s.away(err)
		}
	}
	return nil
}

// leases decodes entries. One whose record is forgotten, or that cannot be read,
// is logged and stays leased: it is somebody's work that this version must not
// throw away.
func (s *Store) leases(ctx context.Context, partition int, stream string, entries []redis.XMessage, handed map[string]int) []relay.Lease {
	leases := make([]relay.Lease, 0, len(entries))
	var recorded []int // those whose record has the rest
	var ids []string
	for _, e := range entries {
		raw, _ := e.Values["d"].(string)
		d, isID, err := s.decodeEntry(raw)
		if err != nil {
			s.Log.Error("an entry of a stream cannot be read; it stays", "stream", stream, "entry", e.ID, "error", err)
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
	return s.fill(ctx, stream, leases, recorded, ids)
}

// fill loads the records of retried deliveries.
func (s *Store) fill(ctx context.Context, stream string, leases []relay.Lease, at []int, ids []string) []relay.Lease {
	raw, err := s.persistentRecords(ctx, ids)
	if err != nil {
		return nil // shut down: they stay leased and are taken over
	}
	bad := map[int]bool{}
	for i, n := range at {
		d, err := s.decodeDelivery(raw[i])
		if err != nil {
			s.Log.Error("a delivery that is due has no readable record", "delivery_id", ids[i], "error", err)
			bad[n] = true
			s.discard(ctx, stream, leases[n].Entry)
			continue
		}
		leases[n].Delivery = d
	}
	kept := leases[:0]
	for n, l := range leases {
		if !bad[n] {
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
		timer := time.NewTimer(250 * time.Millisecond)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

// discard removes an entry whose delivery is forgotten: its retention is over.
func (s *Store) discard(ctx context.Context, stream, entry string) {
	pipe := s.rdb.Pipeline()
	pipe.XAck(ctx, stream, group, entry)
	pipe.XDel(ctx, stream, entry)
	if _, err := pipe.Exec(ctx); err != nil {
		s.Log.Warn("cannot remove an entry", "stream", stream, "error", err)
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

// Beat sets the clock, too: one measurement a second.
func (s *Store) Beat(ctx context.Context) ([]string, error) {
	if err := s.syncClock(ctx); err != nil {
		return nil, err
	}
	now := s.Now()
	pipe := s.rdb.Pipeline()
	pipe.ZAdd(ctx, s.keys.nodes(), redis.Z{Score: float64(ms(now)), Member: s.Node})
	dead := pipe.ZRangeByScore(ctx, s.keys.nodes(), &redis.ZRangeBy{Min: "-inf", Max: strconv.FormatInt(ms(now.Add(-nodeLife)), 10)})
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, s.away(err)
	}
	return dead.Val(), nil
}

// Leave makes this node's heartbeat as old as a dead one's.
func (s *Store) Leave(ctx context.Context) error {
	gone := s.Now().Add(-nodeLife)
	if err := s.rdb.ZAdd(ctx, s.keys.nodes(), redis.Z{Score: float64(ms(gone)), Member: s.Node}).Err(); err != nil {
		return s.away(err)
	}
	return nil
}

// TakeOver claims what a dead node held. Only one node does at a time; the dead
// one is forgotten some time after nothing of it was found.
func (s *Store) TakeOver(ctx context.Context, node string, lanes []relay.Lane) ([]relay.Lease, error) {
	mine, err := s.rdb.SetNX(ctx, s.keys.takeover(node), s.Node, nodeLife).Result()
	if err != nil {
		return nil, s.away(err)
	}
	if !mine {
		return nil, nil
	}
	defer s.rdb.Del(context.WithoutCancel(ctx), s.keys.takeover(node))
	var leases []relay.Lease
	for p := range s.Options.Partitions {
		got, err := s.claim(ctx, p, node, lanes)
		leases = append(leases, got...)
		if err != nil {
			return leases, err
		}
	}
	if len(leases) == 0 {
		return nil, s.forget(ctx, node, lanes)
	}
	return leases, nil
}

// claim takes a dead node's entries of one partition.
func (s *Store) claim(ctx context.Context, partition int, node string, lanes []relay.Lane) ([]relay.Lease, error) {
	pending := make([]*redis.XPendingExtCmd, len(lanes))
	pipe := s.rdb.Pipeline()
	for i, l := range lanes {
		pending[i] = pipe.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: s.keys.lane(partition, l), Group: group, Start: "-", End: "+", Count: 1000, Consumer: node})
	}
	if _, err := pipe.Exec(ctx); err != nil && !strings.Contains(err.Error(), "NOGROUP") && err != redis.Nil {
		return nil, s.away(err)
	}
	var leases []relay.Lease
	for i, l := range lanes {
		var ids []string
		handed := map[string]int{}
		for _, e := range pending[i].Val() {
			ids = append(ids, e.ID)
			handed[e.ID] = int(e.RetryCount)
		}
		if len(ids) == 0 {
			continue
		}
		stream := s.keys.lane(partition, l)
		entries, err := s.rdb.XClaim(ctx, &redis.XClaimArgs{Stream: stream, Group: group, Consumer: s.Node, Messages: ids}).Result()
		if err != nil {
			return leases, s.away(err)
		}
		leases = append(leases, s.leases(ctx, partition, stream, entries, handed)...)
	}
	return leases, nil
}

// forget removes a node that has been dead for long enough.
func (s *Store) forget(ctx context.Context, node string, lanes []relay.Lane) error {
	last, err := s.rdb.ZScore(ctx, s.keys.nodes(), node).Result()
	if err != nil {
		return s.away(err)
	}
	if s.Now().Sub(time.UnixMilli(int64(last))) < nodeForget {
		return nil
	}
	pipe := s.rdb.Pipeline()
	for p := range s.Options.Partitions {
		for _, l := range lanes {
			pipe.XGroupDelConsumer(ctx, s.keys.lane(p, l), group, node)
		}
	}
	pipe.ZRem(ctx, s.keys.nodes(), node)
	if _, err := pipe.Exec(ctx); err != nil && !strings.Contains(err.Error(), "NOGROUP") {
		return s.away(err)
	}
	return nil
}
