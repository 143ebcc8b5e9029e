package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
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

// endpointParts is how many hashes of each partition share the claims: there is one
// for each subscription, and a key of its own takes twice the room.
const endpointParts = 128

func (k keys) endpoints(p int, fingerprint []byte) string {
	return fmt.Sprintf("%sendpoint:%02x", k.tag(p), fingerprint[1]%endpointParts)
}

// claimKeys are where a claim is, and where an older version kept it.
func (s *Store) claimKeys(fingerprint []byte) []string {
	p := s.endpointPartition(fingerprint)
	return []string{s.keys.endpoints(p, fingerprint), s.keys.endpoint(p, fingerprint)}
}

func (s *Store) endpointPartition(fingerprint []byte) int {
	return int(fingerprint[0]) % s.Options.Partitions
}

// Endpoint is whose an endpoint is.
func (s *Store) Endpoint(ctx context.Context, fingerprint []byte) (relay.Claim, error) {
	keys := s.claimKeys(fingerprint)
	pipe := s.rdb.Pipeline()
	now, before := pipe.HGet(ctx, keys[0], string(fingerprint[:16])), pipe.Get(ctx, keys[1])
	if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
		return relay.Claim{}, s.away(err)
	}
	f := strings.Split(now.Val(), "\t")
	if now.Err() == redis.Nil {
		if f = strings.Split(before.Val(), "\t"); len(f) == 4 {
			return relay.Claim{User: relay.User{Merchant: f[1], ID: f[2]}, Subscription: f[3]}, nil
		}
		return relay.Claim{}, nil
	}
	version, err := strconv.Atoi(f[0])
	if err != nil || len(f) != 5 {
		return relay.Claim{}, fmt.Errorf("claim of an endpoint: %w", errCorrupt)
	}
	forgotten, err := strconv.ParseInt(f[4], 10, 64)
	if err != nil {
		return relay.Claim{}, fmt.Errorf("claim of an endpoint: %w", errCorrupt)
	}
	if forgotten <= s.Now().Unix() {
		return relay.Claim{}, nil
	}
	return relay.Claim{Version: version, User: relay.User{Merchant: f[1], ID: f[2]}, Subscription: f[3]}, nil
}

// ClaimEndpoint swaps it. What is released stays for a while without a name, as an
// empty list of devices does: its version tells those who read it before.
func (s *Store) ClaimEndpoint(ctx context.Context, fingerprint []byte, c relay.Claim) error {
	life, now := endpointLife, s.Now()
	if c.User.ID == "" {
		life = pendingLife
	}
	claim := fmt.Sprintf("%d\t%s\t%s\t%s\t%d", c.Version+1, c.User.Merchant, c.User.ID, c.Subscription, now.Add(life).Unix())
	done, err := s.run(ctx, claimScript, s.claimKeys(fingerprint), fingerprint[:16], c.Version, claim, now.Unix(), endpointLife.Milliseconds())
	if err != nil {
		return err
	}
	if done != int64(1) {
		return relay.ErrConflict
	}
	return nil
}

// KeepEndpoint begins its life anew. Who claims it meanwhile does so as well.
func (s *Store) KeepEndpoint(ctx context.Context, fingerprint []byte) error {
	c, err := s.Endpoint(ctx, fingerprint)
	if err != nil || c.User.ID == "" {
		return err
	}
	if err := s.ClaimEndpoint(ctx, fingerprint, c); err != nil && !errors.Is(err, relay.ErrConflict) {
		return err
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
