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
// without a page of the list needing a second read.
const sameInstant = 16

// listPages bounds how often a list reads on because what it read of a card was
// somebody else's: of a card with thousands of challenges that wait, those of a
// former owner hide at most as many as come after the first few hundred.
const listPages = 8

// listed is one index that a list is made of.
type listed struct {
	key  string
	kept int // how many of it are in the list
}

// Challenges reads the newest of the index of the user and of each card in one
// pipeline, and the records in a second. So it costs the same however many there
// are. It reads on only where those of a card's former owner have made it short.
func (s *Store) Challenges(ctx context.Context, q relay.ChallengeQuery) ([]relay.Challenge, error) {
	var list []relay.Challenge
	indexes := s.indexes(q)
	for page := 0; page < listPages && len(indexes) > 0; page++ {
		more, err := s.readOn(ctx, q, &indexes, page)
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
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

func (s *Store) indexes(q relay.ChallengeQuery) (all []*listed) {
	holders := []relay.Holder{{Merchant: q.User.Merchant, UserID: q.User.ID}}
	for _, card := range q.Cards {
		holders = append(holders, relay.Holder{Merchant: q.User.Merchant, CardID: card})
	}
	for _, h := range holders {
		p := h.Partition(s.Options.Partitions)
		all = append(all, &listed{key: s.keys.live(p, h)})
		if q.Ended {
			all = append(all, &listed{key: s.keys.ended(p, h, q.User.ID)})
		}
	}
	return all
}

// readOn reads one page of each index and leaves those that the list may need more
// of.
func (s *Store) readOn(ctx context.Context, q relay.ChallengeQuery, indexes *[]*listed, page int) ([]relay.Challenge, error) {
	size := q.Limit + sameInstant
	by := &redis.ZRangeBy{Min: "-inf", Max: "+inf", Offset: int64(page * size), Count: int64(size)}
	if !q.Before.IsZero() {
		by.Max = strconv.FormatInt(ms(q.Before), 10)
	}
	pipe := s.rdb.Pipeline()
	found := make([]*redis.StringSliceCmd, len(*indexes))
	for i, ix := range *indexes {
		found[i] = pipe.ZRevRangeByScore(ctx, ix.key, by)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, s.away(err)
	}
	var ids []string
	in := map[string]*listed{}
	for i, f := range found {
		for _, id := range idsOf(f.Val()) {
			ids = append(ids, id)
			in[id] = (*indexes)[i]
		}
	}
	list, err := s.Named(ctx, ids)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(c relay.Challenge) bool {
		return c.Owner() != q.User || !q.Before.IsZero() && !older(c, q)
	})
	for _, c := range list {
		in[c.ID].kept++
	}
	var left []*listed
	for i, ix := range *indexes {
		if len(found[i].Val()) == size && ix.kept < q.Limit {
			left = append(left, ix)
		}
	}
	*indexes = left
	return list, nil
}

// idsOf are the ids of an index's members.
func idsOf(members []string) []string {
	ids := make([]string, len(members))
	for i, m := range members {
		ids[i], _, _ = strings.Cut(m, " ")
	}
	return ids
}

// Named loads records; those that are forgotten are left out.
func (s *Store) Named(ctx context.Context, ids []string) ([]relay.Challenge, error) {
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
	members, err := s.rdb.ZRevRange(ctx, s.keys.live(h.Partition(s.Options.Partitions), h), 0, -1).Result()
	if err != nil {
		return nil, s.away(err)
	}
	list, err := s.Named(ctx, idsOf(members))
	return slices.DeleteFunc(list, func(c relay.Challenge) bool { return c.UserID != "" }), err
}

// lateMark stands behind what had ended when it came, which rang nobody; lateSought
// is among how many of late it is looked for.
const (
	lateMark   = " late"
	lateSought = 256
)

// Around counts by the indexes alone.
func (s *Store) Around(ctx context.Context, c relay.Challenge, within time.Duration) (relay.Crowd, relay.Devices, error) {
	h := c.Holder()
	p := h.Partition(s.Options.Partitions)
	live := s.keys.live(p, h)
	from, to := "("+strconv.FormatInt(ms(c.CreatedAt.Add(-within)), 10), strconv.FormatInt(ms(c.CreatedAt), 10)
	pipe := s.rdb.Pipeline()
	mute := pipe.Exists(ctx, s.keys.mute(p, h))
	lives := pipe.ZCount(ctx, live, from, to)
	endedKey := s.keys.ended(p, h, c.UserID)
	ended := pipe.ZCount(ctx, endedKey, from, to)
	recent := pipe.ZRevRangeByScore(ctx, endedKey, &redis.ZRangeBy{Min: from, Max: to, Count: lateSought})
	newer := pipe.ZRevRank(ctx, live, liveMember(c))
	newest := pipe.ZRevRange(ctx, live, 0, relay.CrowdSize) // c may be among them
	devices := s.askDevices(ctx, pipe, c.Owner())
	cmds, _ := pipe.Exec(ctx) // whose error is that of one of them
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && err != redis.Nil { // nil: it is not live any more
			return relay.Crowd{}, relay.Devices{}, s.away(err)
		}
	}
	late := 0
	for _, member := range recent.Val() {
		if strings.HasSuffix(member, lateMark) {
			late++
		}
	}
	others := slices.DeleteFunc(idsOf(newest.Val()), func(id string) bool { return id == c.ID })
	d, err := s.devices(c.Owner(), devices)
	return relay.Crowd{
		Muted: mute.Val() > 0, Recent: int(lives.Val()+ended.Val()) - late, Newer: int(newer.Val()),
		Others: others[:min(len(others), relay.CrowdSize)],
	}, d, err
}

// ForPush reads both in one pipeline.
func (s *Store) ForPush(ctx context.Context, u relay.User, id string) (relay.Devices, *relay.Challenge, error) {
	pipe := s.rdb.Pipeline()
	asked := s.askDevices(ctx, pipe, u)
	var record *redis.StringCmd
	if p, ok := relay.PartitionOf(id); ok && p < s.Options.Partitions {
		record = pipe.Get(ctx, s.keys.of(p, id))
	}
	if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
		return relay.Devices{}, nil, s.away(err)
	}
	d, err := s.devices(u, asked)
	if err != nil || record == nil || record.Err() == redis.Nil {
		return d, nil, err
	}
	if err := record.Err(); err != nil {
		return d, nil, s.away(err)
	}
	c, err := s.decodeChallenge(id, record.Val())
	return d, &c, err
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

// IndexCard adds to the user's set. What waits for it goes on also when Redis is out of
// memory.
func (s *Store) IndexCard(ctx context.Context, u relay.User, card string) error {
	key := s.keys.cards(u.Partition(s.Options.Partitions), u)
	b := newStep(key, "")
	b.insist(key)
	b.add("SADD", key, card)
	return s.commit(ctx, b)
}

// Cards of the user.
func (s *Store) Cards(ctx context.Context, u relay.User) ([]string, error) {
	cards, err := s.rdb.SMembers(ctx, s.keys.cards(u.Partition(s.Options.Partitions), u)).Result()
	if err != nil {
		return nil, s.away(err)
	}
	return cards, nil
}
