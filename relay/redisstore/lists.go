package redisstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// sameInstant is how many challenges of one holder may share a millisecond
// without a page of the list losing one of them.
const sameInstant = 16

// Challenges reads the index of the user and of each card in one pipeline, and
// the records in a second.
func (s *Store) Challenges(ctx context.Context, q relay.ChallengeQuery) ([]relay.Challenge, error) {
	ids, err := s.challengeIDs(ctx, q)
	if err != nil {
		return nil, err
	}
	list, err := s.challenges(ctx, ids)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(c relay.Challenge) bool {
		return c.Owner() != q.User || !q.Before.IsZero() && !older(c, q)
	})
	slices.SortFunc(list, func(a, b relay.Challenge) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	// One that ended between the reads of the two indexes was found in both.
	list = slices.CompactFunc(list, func(a, b relay.Challenge) bool { return a.ID == b.ID })
	return list[:min(len(list), q.Limit)], nil
}

// older tells whether a challenge comes after the query's cursor.
func older(c relay.Challenge, q relay.ChallengeQuery) bool {
	return c.CreatedAt.Before(q.Before) || c.CreatedAt.Equal(q.Before) && c.ID < q.BeforeID
}

func (s *Store) challengeIDs(ctx context.Context, q relay.ChallengeQuery) ([]string, error) {
	newest := &redis.ZRangeBy{Min: "-inf", Max: "+inf", Count: int64(q.Limit + sameInstant)}
	if !q.Before.IsZero() {
		newest.Max = strconv.FormatInt(ms(q.Before), 10)
	}
	holders := []relay.Holder{{Merchant: q.User.Merchant, UserID: q.User.ID}}
	for _, card := range q.Cards {
		holders = append(holders, relay.Holder{Merchant: q.User.Merchant, CardID: card})
	}
	var found []*redis.StringSliceCmd
	pipe := s.rdb.Pipeline()
	for _, h := range holders {
		p := h.Partition(s.Options.Partitions)
		// All of them: an index of live ones is short, and those of a former
		// owner are among them.
		found = append(found, pipe.ZRange(ctx, s.keys.live(p, h), 0, -1))
		if q.Ended {
			found = append(found, pipe.ZRevRangeByScore(ctx, s.keys.ended(p, h, q.User.ID), newest))
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, s.away(err)
	}
	var ids []string
	for _, f := range found {
		for _, member := range f.Val() {
			id, _, _ := strings.Cut(member, " ")
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// challenges loads records; those that are forgotten are left out.
func (s *Store) challenges(ctx context.Context, ids []string) ([]relay.Challenge, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	raw, err := s.records(ctx, ids)
	if err != nil {
		return nil, err
	}
	list := make([]relay.Challenge, 0, len(ids))
	for i, id := range ids {
		if raw[i] == "" {
			continue
		}
		c, err := s.decodeChallenge(id, raw[i])
		lacks, err := s.lacks(id, err)
		if err != nil {
			return nil, err
		}
		if !lacks {
			list = append(list, c)
		}
	}
	return list, nil
}

// records loads by id, in one pipeline; "" stands for none.
func (s *Store) records(ctx context.Context, ids []string) ([]string, error) {
	pipe := s.rdb.Pipeline()
	got := make([]*redis.StringCmd, len(ids))
	for i, id := range ids {
		p, _ := relay.PartitionOf(id)
		got[i] = pipe.Get(ctx, s.keys.of(p, id))
	}
	if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
		return nil, s.away(err)
	}
	raw := make([]string, len(ids))
	for i, g := range got {
		if err := g.Err(); err != nil && err != redis.Nil {
			return nil, s.away(err)
		}
		raw[i] = g.Val()
	}
	return raw, nil
}

// Unassigned reads the live challenges of a card that have no owner.
func (s *Store) Unassigned(ctx context.Context, h relay.Holder) ([]relay.Challenge, error) {
	members, err := s.rdb.ZRange(ctx, s.keys.live(h.Partition(s.Options.Partitions), h), 0, -1).Result()
	if err != nil {
		return nil, s.away(err)
	}
	for i, m := range members {
		members[i], _, _ = strings.Cut(m, " ")
	}
	list, err := s.challenges(ctx, members)
	return slices.DeleteFunc(list, func(c relay.Challenge) bool { return c.UserID != "" }), err
}

// Recent counts by the indexes alone.
func (s *Store) Recent(ctx context.Context, c relay.Challenge, within time.Duration) (int, error) {
	h := c.Holder()
	p := h.Partition(s.Options.Partitions)
	from, to := "("+strconv.FormatInt(ms(c.CreatedAt.Add(-within)), 10), strconv.FormatInt(ms(c.CreatedAt), 10)
	pipe := s.rdb.Pipeline()
	live := pipe.ZCount(ctx, s.keys.live(p, h), from, to)
	ended := pipe.ZCount(ctx, s.keys.ended(p, h, c.UserID), from, to)
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, s.away(err)
	}
	return int(live.Val() + ended.Val()), nil
}

// Muted looks for the holder's mute.
func (s *Store) Muted(ctx context.Context, h relay.Holder) (bool, error) {
	n, err := s.rdb.Exists(ctx, s.keys.mute(h.Partition(s.Options.Partitions), h)).Result()
	if err != nil {
		return false, s.away(err)
	}
	return n > 0, nil
}

// Owner of a card.
func (s *Store) Owner(ctx context.Context, h relay.Holder) (relay.Owner, error) {
	v, err := s.rdb.HGetAll(ctx, s.keys.owner(h.Partition(s.Options.Partitions), h)).Result()
	if err != nil {
		return relay.Owner{}, s.away(err)
	}
	return ownerOf(v)
}

func ownerOf(v map[string]string) (relay.Owner, error) {
	if v["user"] == "" {
		return relay.Owner{}, relay.ErrNotFound
	}
	at, err := strconv.ParseInt(v["at"], 10, 64)
	if err != nil {
		return relay.Owner{}, errCorrupt
	}
	return relay.Owner{UserID: v["user"], At: time.UnixMilli(at), ByOperator: v["op"] != ""}, nil
}

// SetOwner by the operator. The card is in its user's set before it is theirs: one
// that is in the set of somebody else, too, does no harm there.
func (s *Store) SetOwner(ctx context.Context, h relay.Holder, o relay.Owner) error {
	p, learn := h.Partition(s.Options.Partitions), ""
	if o.UserID != "" {
		if err := s.IndexCard(ctx, relay.User{Merchant: h.Merchant, ID: o.UserID}, h.CardID); err != nil {
			return err
		}
		learn = s.encodeEntry(relay.Delivery{Kind: relay.KindLearn, Merchant: h.Merchant, UserID: o.UserID, CardID: h.CardID}, false)
	}
	_, err := s.run(ctx, assignScript, []string{s.keys.owner(p, h), s.keys.live(p, h), s.keys.lane(p, relay.LaneTasks)}, o.UserID, ms(o.At), learn)
	return err
}

// Owners of several cards, in one pipeline.
func (s *Store) Owners(ctx context.Context, cards []relay.Holder) ([]relay.Owner, error) {
	if len(cards) == 0 {
		return nil, nil
	}
	pipe := s.rdb.Pipeline()
	found := make([]*redis.MapStringStringCmd, len(cards))
	for i, h := range cards {
		found[i] = pipe.HGetAll(ctx, s.keys.owner(h.Partition(s.Options.Partitions), h))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, s.away(err)
	}
	owners := make([]relay.Owner, len(cards))
	for i, f := range found {
		o, err := ownerOf(f.Val())
		if err != nil && !errors.Is(err, relay.ErrNotFound) {
			return nil, err
		}
		owners[i] = o
	}
	return owners, nil
}

// IndexCard adds to the user's set. It deletes first, so that what waits for it
// goes on when Redis is out of memory.
func (s *Store) IndexCard(ctx context.Context, u relay.User, card string) error {
	var b batch
	key := s.keys.cards(u.Partition(s.Options.Partitions), u)
	b.add("SREM", key, card)
	b.add("SADD", key, card)
	return s.commit(ctx, "", noGate, b)
}

// Cards of the user.
func (s *Store) Cards(ctx context.Context, u relay.User) ([]string, error) {
	cards, err := s.rdb.SMembers(ctx, s.keys.cards(u.Partition(s.Options.Partitions), u)).Result()
	if err != nil {
		return nil, s.away(err)
	}
	return cards, nil
}

// endpointLife outlives any push service's subscription that is still used:
// apps register anew at every start.
const endpointLife = 400 * 24 * time.Hour

// ClaimEndpoint swaps who an endpoint belongs to.
func (s *Store) ClaimEndpoint(ctx context.Context, fingerprint []byte, u relay.User) (relay.User, error) {
	p := int(fingerprint[0]) % s.Options.Partitions
	former, err := s.rdb.SetArgs(ctx, s.keys.endpoint(p, fingerprint), u.Merchant+"\t"+u.ID, redis.SetArgs{Get: true, TTL: endpointLife}).Result()
	if err == redis.Nil {
		return relay.User{}, nil
	}
	if err != nil {
		return relay.User{}, s.away(err)
	}
	merchant, id, _ := strings.Cut(former, "\t")
	return relay.User{Merchant: merchant, ID: id}, nil
}
