package redisstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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

// enlist makes this node known before it is handed anything: what it holds when
// it dies is looked for among the nodes that once beat.
func (s *Store) enlist(ctx context.Context) error {
	if s.enlisted.Load() {
		return nil
	}
	if _, err := s.Beat(ctx); err != nil {
		return err
	}
	s.enlisted.Store(true)
	return nil
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

// noGroup tells whether a lane has no group: nobody has read it yet, or Redis has
// lost it, also while the reader was waiting.
func noGroup(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "NOGROUP") || strings.Contains(err.Error(), "stream key no longer exists"))
}

// makeGroups makes the groups that are missing, from the beginning: what was
// owed before they were made is delivered, too. It begins by deleting nothing,
// so that a node that starts when Redis is out of memory can still drain it.
func (s *Store) makeGroups(ctx context.Context, partition int, lanes []relay.Lane) error {
	due := s.keys.due(partition)
	for _, l := range lanes {
		stream := s.keys.lane(partition, l)
		b := batch{keys: []string{due, stream}}
		b.add("ZREM", due, "")
		b.args = append(b.args, "6", "XGROUP", "CREATE", stream, group, "0", "MKSTREAM")
		if err := s.commit(ctx, "", noGate, b); err != nil && !strings.Contains(err.Error(), "BUSYGROUP") {
			return err
		}
	}
	return nil
}

// leases decodes entries. One that cannot be read is logged and stays leased: it
// is somebody's work that this version must not throw away. One whose record is
// forgotten is dropped.
func (s *Store) leases(ctx context.Context, partition int, lane relay.Lane, entries []redis.XMessage, handed map[string]int) []relay.Lease {
	leases := make([]relay.Lease, 0, len(entries))
	var recorded []int // those whose record has the rest
	var ids []string
	for _, e := range entries {
		raw, _ := e.Values["d"].(string)
		d, isID, err := s.decodeEntry(raw)
		if err != nil {
			s.Log.Error("an entry of a lane cannot be read; it stays", "partition", partition, "lane", lane, "entry", e.ID, "error", err)
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
			s.Log.Error("the record of a delivery that is due cannot be read; it stays", "delivery_id", ids[i], "error", err)
			without[n] = true
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

// discard settles an entry whose delivery is forgotten.
func (s *Store) discard(ctx context.Context, lane relay.Lane, l relay.Lease) {
	stream := s.keys.lane(l.Partition, lane)
	b := batch{keys: []string{s.keys.due(l.Partition), stream}}
	b.add("XDEL", stream, l.Entry)
	b.add("HINCRBY", s.keys.owed(l.Partition), string(lane), -1)
	err := s.commit(ctx, "", ackGate(stream, l.Entry), b)
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

// Beat sets the clock, too: one measurement a second.
func (s *Store) Beat(ctx context.Context) ([]string, error) {
	if err := s.syncClock(ctx); err != nil {
		return nil, err
	}
	now := s.Now()
	if err := s.seen(ctx, now); err != nil {
		return nil, err
	}
	dead, err := s.rdb.ZRangeByScore(ctx, s.keys.nodes(), &redis.ZRangeBy{Min: "-inf", Max: strconv.FormatInt(ms(now.Add(-nodeLife)), 10)}).Result()
	if err != nil {
		return nil, s.away(err)
	}
	return dead, nil
}

// seen notes when this node was last seen. It deletes first, so that no node
// seems to die when Redis is out of memory.
func (s *Store) seen(ctx context.Context, at time.Time) error {
	key := s.keys.nodes()
	b := batch{keys: []string{key}}
	b.add("ZREM", key, s.Node)
	b.add("ZADD", key, ms(at), s.Node)
	return s.commit(ctx, "", noGate, b)
}

// Leave makes this node's heartbeat as old as a dead one's.
func (s *Store) Leave(ctx context.Context) error { return s.seen(ctx, s.Now().Add(-nodeLife)) }

// TakeOver claims what a dead node held. Only one node does at a time; the dead
// one is forgotten some time after nothing of it was found.
func (s *Store) TakeOver(ctx context.Context, node string, lanes []relay.Lane) ([]relay.Lease, error) {
	lock := s.keys.takeover(node)
	b := batch{keys: []string{lock}}
	b.overwrite(lock, "1\t"+s.Node, "PX", nodeLife.Milliseconds())
	err := s.commit(ctx, "0", noGate, b)
	if errors.Is(err, relay.ErrConflict) {
		return nil, nil // another node is at it
	}
	if err != nil {
		return nil, err
	}
	defer s.rdb.Del(context.WithoutCancel(ctx), lock)
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

// pending asks what a node holds of one partition, at most count of each lane.
func (s *Store) pending(ctx context.Context, partition int, node string, lanes []relay.Lane, count int64) ([]*redis.XPendingExtCmd, error) {
	pipe := s.rdb.Pipeline()
	pending := make([]*redis.XPendingExtCmd, len(lanes))
	for i, l := range lanes {
		pending[i] = pipe.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: s.keys.lane(partition, l), Group: group, Start: "-", End: "+", Count: count, Consumer: node})
	}
	pipe.Exec(ctx) // its error is the first one's, which may be but a lane that nobody has read
	for _, p := range pending {
		if err := p.Err(); err != nil && !noGroup(err) && err != redis.Nil {
			return nil, s.away(err)
		}
	}
	return pending, nil
}

// claim takes a dead node's entries of one partition.
func (s *Store) claim(ctx context.Context, partition int, node string, lanes []relay.Lane) ([]relay.Lease, error) {
	pending, err := s.pending(ctx, partition, node, lanes, 1000)
	if err != nil {
		return nil, err
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
		entries, err := s.rdb.XClaim(ctx, &redis.XClaimArgs{Stream: s.keys.lane(partition, l), Group: group, Consumer: s.Node, Messages: ids}).Result()
		if err != nil {
			return leases, s.away(err)
		}
		leases = append(leases, s.leases(ctx, partition, l, entries, handed)...)
	}
	return leases, nil
}

// forget removes a node that has been dead for long enough, unless it holds
// something in a lane that this node does not have: another one may, or this one
// after its next change of configuration.
func (s *Store) forget(ctx context.Context, node string, lanes []relay.Lane) error {
	last, err := s.rdb.ZScore(ctx, s.keys.nodes(), node).Result()
	if err != nil {
		return s.away(err)
	}
	if s.Now().Sub(time.UnixMilli(int64(last))) < nodeForget {
		return nil
	}
	known, err := s.Backlog(ctx)
	if err != nil {
		return err
	}
	for _, l := range lanes {
		known[l] = 0
	}
	lanes = slices.Collect(maps.Keys(known))
	for p := range s.Options.Partitions {
		pending, err := s.pending(ctx, p, node, lanes, 1)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(pending, func(c *redis.XPendingExtCmd) bool { return len(c.Val()) > 0 }) {
			return nil
		}
	}
	return s.unlist(ctx, node, lanes)
}

func (s *Store) unlist(ctx context.Context, node string, lanes []relay.Lane) error {
	pipe := s.rdb.Pipeline()
	for p := range s.Options.Partitions {
		for _, l := range lanes {
			pipe.XGroupDelConsumer(ctx, s.keys.lane(p, l), group, node)
		}
	}
	// A lane that is not there is no error, and a consumer that stays does no harm.
	pipe.Exec(ctx)
	if err := s.rdb.ZRem(ctx, s.keys.nodes(), node).Err(); err != nil {
		return s.away(err)
	}
	return nil
}
