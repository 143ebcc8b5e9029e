package redisstore

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// nodeLife is how long a node is believed to live after its last heartbeat;
// nodeForget is how long its leases are still looked for afterwards, because
// Redis may have handed it something in its last moment.
const (
	nodeLife   = 3 * time.Second
	nodeForget = 15 * time.Second
)

// heart is what this node remembers of its own heartbeats. When Redis was away
// nobody could beat, so who did not is judged by the time in which this node
// could: that counts, however often it is interrupted.
type heart struct {
	mu    sync.Mutex
	beats []time.Time // the last ones, oldest first, by Redis' clock
	at    time.Time   // the last one, by ours
}

const (
	steady = 2 * time.Second // between two beats: Redis was there all the time
	heard  = time.Minute     // beats are remembered
)

func (h *heart) beat(at, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.beats) > 0 && now.Sub(h.beats[0]) > heard {
		h.beats = h.beats[1:]
	}
	h.beats, h.at = append(h.beats, now), at
}

// outlives tells whether a node that last beat then would have beaten again.
func (h *heart) outlives(then time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	var could time.Duration
	for i := 1; i < len(h.beats); i++ {
		from, to := h.beats[i-1], h.beats[i]
		if from.Before(then) {
			from = then
		}
		if to.After(from) && h.beats[i].Sub(h.beats[i-1]) <= steady {
			could += to.Sub(from)
		}
	}
	return could >= nodeLife
}

func (h *heart) last() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

// enlist makes this node known before it is handed anything: what it holds when
// it dies is looked for among the nodes that once beat. One that could not beat
// for a while may have been forgotten.
func (s *Store) enlist(ctx context.Context) error {
	if time.Since(s.heart.last()) < nodeLife {
		return nil
	}
	_, err := s.Beat(ctx)
	return err
}

// Beat sets the clock, too: one measurement a second.
func (s *Store) Beat(ctx context.Context) ([]string, error) {
	if err := s.syncClock(ctx); err != nil {
		return nil, err
	}
	at, now := time.Now(), s.Now()
	if err := s.seen(ctx, float64(ms(now))); err != nil {
		return nil, err
	}
	s.heart.beat(at, now)
	late, err := s.rdb.ZRangeByScoreWithScores(ctx, s.keys.nodes(), &redis.ZRangeBy{Min: "-inf", Max: strconv.FormatInt(ms(now.Add(-nodeLife)), 10)}).Result()
	if err != nil {
		return nil, s.away(err)
	}
	var dead []string
	for _, z := range late {
		if last, left := lastSeen(z.Score); left || s.heart.outlives(last) {
			dead = append(dead, z.Member.(string))
		}
	}
	return dead, nil
}

// lastSeen reads a node's score: the time of its last beat, negative if it was a
// farewell.
func lastSeen(score float64) (at time.Time, left bool) {
	if score < 0 {
		return time.UnixMilli(int64(-score)), true
	}
	return time.UnixMilli(int64(score)), false
}

// seen notes a node's score: no node may seem to die when Redis is out of memory.
func (s *Store) seen(ctx context.Context, score float64) error {
	key := s.keys.nodes()
	b := newStep(key, "")
	b.insist(key)
	b.add("ZADD", key, score, s.Node)
	return s.commit(ctx, b)
}

// Leave says farewell: nobody need wait for this node's next beat.
func (s *Store) Leave(ctx context.Context) error { return s.seen(ctx, -float64(ms(s.Now()))) }

func nobodyHolds(int, relay.Lane, string) bool { return false }

// TakeOver claims what a dead node held. Only one node does at a time; the dead
// one is forgotten some time after nothing of it was found.
func (s *Store) TakeOver(ctx context.Context, node string, lanes []relay.Lane) ([]relay.Lease, error) {
	lock := s.keys.takeover(node)
	b := newStep(lock, "0")
	b.overwrite(lock, "1\t"+s.Node, "PX", nodeLife.Milliseconds())
	err := s.commit(ctx, b)
	if errors.Is(err, relay.ErrConflict) {
		return nil, nil // another node is at it
	}
	if err != nil {
		return nil, err
	}
	defer s.rdb.Del(context.WithoutCancel(ctx), lock)
	var leases []relay.Lease
	for p := range s.Options.Partitions {
		got, err := s.claim(ctx, p, node, lanes, 0, nobodyHolds)
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

// Missed claims anew what was handed to this node and never arrived.
func (s *Store) Missed(ctx context.Context, lanes []relay.Lane, idle time.Duration, held func(int, relay.Lane, string) bool) ([]relay.Lease, error) {
	var leases []relay.Lease
	for p := range s.Options.Partitions {
		got, err := s.claim(ctx, p, s.Node, lanes, idle, held)
		leases = append(leases, got...)
		if err != nil {
			return leases, err
		}
	}
	for i := range leases {
		leases[i].Handed = 0 // nobody has died of it
	}
	return leases, nil
}

// claimCount bounds how many entries of a lane are claimed at once.
const claimCount = 1000

// pending asks what a node holds of one partition, at most count of each lane,
// and only what was handed to it that long ago.
func (s *Store) pending(ctx context.Context, partition int, node string, lanes []relay.Lane, idle time.Duration, count int64) ([]*redis.XPendingExtCmd, error) {
	pipe := s.rdb.Pipeline()
	pending := make([]*redis.XPendingExtCmd, len(lanes))
	for i, l := range lanes {
		pending[i] = pipe.XPendingExt(ctx, &redis.XPendingExtArgs{Stream: s.keys.lane(partition, l), Group: group, Idle: idle, Start: "-", End: "+", Count: count, Consumer: node})
	}
	pipe.Exec(ctx) // its error is the first one's, which may be but a lane that nobody has read
	for _, p := range pending {
		if err := p.Err(); err != nil && !noGroup(err) && err != redis.Nil {
			return nil, s.away(err)
		}
	}
	return pending, nil
}

// claim takes a node's entries of one partition, but for those that are held.
func (s *Store) claim(ctx context.Context, partition int, node string, lanes []relay.Lane, idle time.Duration, held func(int, relay.Lane, string) bool) ([]relay.Lease, error) {
	pending, err := s.pending(ctx, partition, node, lanes, idle, claimCount)
	if err != nil {
		return nil, err
	}
	var leases []relay.Lease
	for i, l := range lanes {
		var ids []string
		handed := map[string]int{}
		for _, e := range pending[i].Val() {
			if held(partition, l, e.ID) {
				continue
			}
			ids = append(ids, e.ID)
			handed[e.ID] = int(e.RetryCount)
		}
		if len(ids) == 0 {
			continue
		}
		entries, err := s.rdb.XClaim(ctx, &redis.XClaimArgs{Stream: s.keys.lane(partition, l), Group: group, Consumer: s.Node, MinIdle: idle, Messages: ids}).Result()
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
	score, err := s.rdb.ZScore(ctx, s.keys.nodes(), node).Result()
	if err == redis.Nil {
		return nil // another node was quicker
	}
	if err != nil {
		return s.away(err)
	}
	if last, _ := lastSeen(score); s.Now().Sub(last) < nodeForget {
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
		pending, err := s.pending(ctx, p, node, lanes, 0, 1)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(pending, func(c *redis.XPendingExtCmd) bool { return len(c.Val()) > 0 }) {
			return nil
		}
	}
	return s.unlist(ctx, node, lanes, score)
}

// unlist removes the node from the groups, too. One that comes back in this very
// moment stays: what it is handed would be lost with it.
func (s *Store) unlist(ctx context.Context, node string, lanes []relay.Lane, score float64) error {
	for p := range s.Options.Partitions {
		for _, l := range lanes {
			gone, err := s.run(ctx, retireScript, []string{s.keys.lane(p, l)}, group, node)
			if err != nil {
				return err
			}
			if gone == int64(0) {
				return nil
			}
		}
	}
	_, err := s.run(ctx, unlistScript, []string{s.keys.nodes()}, node, strconv.FormatFloat(score, 'f', -1, 64))
	return err
}
