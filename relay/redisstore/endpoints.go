package redisstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// endpointLife outlives any subscription that is still used: apps register anew at
// every start, which keeps it.
const endpointLife = 1000 * 24 * time.Hour

func (s *Store) endpointKey(fingerprint []byte) string {
	return s.keys.endpoint(s.endpointPartition(fingerprint), fingerprint)
}

func (s *Store) endpointPartition(fingerprint []byte) int {
	return int(fingerprint[0]) % s.Options.Partitions
}

// Endpoint is whose an endpoint is.
func (s *Store) Endpoint(ctx context.Context, fingerprint []byte) (relay.Claim, error) {
	raw, err := s.rdb.Get(ctx, s.endpointKey(fingerprint)).Result()
	if err == redis.Nil {
		return relay.Claim{}, nil
	}
	if err != nil {
		return relay.Claim{}, s.away(err)
	}
	f := strings.Split(raw, "\t")
	if len(f) == 2 { // of a version that compared nothing
		return relay.Claim{User: relay.User{Merchant: f[0], ID: f[1]}}, nil
	}
	version, err := strconv.Atoi(f[0])
	if err != nil || len(f) != 4 {
		return relay.Claim{}, fmt.Errorf("claim of an endpoint: %w", errCorrupt)
	}
	return relay.Claim{Version: version, User: relay.User{Merchant: f[1], ID: f[2]}, Subscription: f[3]}, nil
}

// ClaimEndpoint swaps it. What is released stays for a while without a name, as an
// empty list of devices does: its version tells those who read it before.
func (s *Store) ClaimEndpoint(ctx context.Context, fingerprint []byte, c relay.Claim) error {
	life := endpointLife
	if c.User.ID == "" {
		life = pendingLife
	}
	key := s.endpointKey(fingerprint)
	b := batch{keys: []string{key}}
	b.overwrite(key, fmt.Sprintf("%d\t%s\t%s\t%s", c.Version+1, c.User.Merchant, c.User.ID, c.Subscription), "PX", life.Milliseconds())
	return s.commit(ctx, strconv.Itoa(c.Version), noGate, b)
}

// KeepEndpoint begins its life anew.
func (s *Store) KeepEndpoint(ctx context.Context, fingerprint []byte) error {
	if err := s.rdb.PExpire(ctx, s.endpointKey(fingerprint), endpointLife).Err(); err != nil {
		return s.away(err)
	}
	return nil
}

// SpendNotice adds to both counts before it reads them: of those who come at once
// none can overlook another, so that there are never too many. What was refused is
// taken back.
func (s *Store) SpendNotice(ctx context.Context, fingerprint []byte, u relay.User, l relay.NoticeLimits) (time.Duration, error) {
	now, member := s.Now(), rand.Text()
	type count struct {
		key    string
		limit  int
		n      *redis.IntCmd
		oldest *redis.ZSliceCmd
	}
	counts := []count{
		{key: s.keys.notices(s.endpointPartition(fingerprint), fingerprint), limit: l.PerEndpoint},
		{key: s.keys.noticesOf(u.Partition(s.Options.Partitions), u), limit: l.PerUser},
	}
	pipe := s.rdb.Pipeline()
	for i := range counts {
		c := &counts[i]
		pipe.ZRemRangeByScore(ctx, c.key, "-inf", strconv.FormatInt(ms(now.Add(-l.Window)), 10))
		pipe.ZAdd(ctx, c.key, redis.Z{Score: float64(ms(now)), Member: member})
		pipe.PExpire(ctx, c.key, l.Window)
		c.n = pipe.ZCard(ctx, c.key)
		c.oldest = pipe.ZRangeWithScores(ctx, c.key, 0, 0)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, s.away(err)
	}
	var wait time.Duration
	for _, c := range counts {
		if int(c.n.Val()) > c.limit && len(c.oldest.Val()) > 0 {
			free := time.UnixMilli(int64(c.oldest.Val()[0].Score)).Add(l.Window)
			wait = max(wait, free.Sub(now), time.Millisecond)
		}
	}
	if wait == 0 {
		return 0, nil
	}
	pipe = s.rdb.Pipeline()
	for _, c := range counts {
		pipe.ZRem(ctx, c.key, member)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, s.away(err)
	}
	return wait, nil
}
