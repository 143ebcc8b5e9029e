package redisstore

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// place is where an item stands in a list that runs over many indexes, newest
// first: by time (ms), then by tie, which each index gives out in its own order.
// It never changes, so a page begins exactly where the one before has ended.
type place struct {
	at  int64
	tie string
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.at, q.at), strings.Compare(p.tie, q.tie))
}

func (p place) zero() bool { return p == place{} }

// cursor is a place as the outside has it.
func (p place) cursor() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(p.at, 10) + " " + p.tie))
}

// maxTie is longer than any tie: a lane's name has at most a target's 64 letters.
const maxTie = 128

func placeOf(cursor string) (place, error) {
	if cursor == "" {
		return place{}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	ms, tie, ok := strings.Cut(string(raw), " ")
	at, err2 := strconv.ParseInt(ms, 10, 64)
	if err != nil || err2 != nil || !ok || at < 0 || len(tie) > maxTie {
		return place{}, relay.ErrCursor
	}
	return place{at, tie}, nil
}

// item is one entry of an index.
type item struct {
	place
	id     string
	values map[string]any // of a stream's entry
}

// source is one index, read from the newest on. ask queues a read of about n items
// that are older than before, the zero place for all; the function that it returns
// gives them, newest first, and whether that was the last.
type source interface {
	ask(ctx context.Context, pipe redis.Pipeliner, before place, since int64, n int) func() (items []item, last bool, err error)
}

// stream is an index stream. Its own ids give the order; two streams may give out
// the same one, so that its name counts as well.
type stream struct {
	key       string
	partition int
	name      string // among those of the partition
	from      string // continues after this id; "": not read yet
	idField   string // which field holds the id; "": none does
}

func (s *stream) ask(ctx context.Context, pipe redis.Pipeliner, before place, since int64, n int) func() ([]item, bool, error) {
	newest, oldest := "+", "-"
	switch {
	case s.from != "":
		newest = "(" + s.from
	case !before.zero():
		newest = strconv.FormatInt(before.at, 10)
	}
	if since > 0 {
		oldest = strconv.FormatInt(since, 10)
	}
	got := pipe.XRevRangeN(ctx, s.key, newest, oldest, int64(n))
	return func() ([]item, bool, error) {
		entries, err := got.Result()
		if err != nil {
			return nil, false, err
		}
		items := make([]item, 0, len(entries))
		for _, e := range entries {
			s.from = e.ID
			ms, order, err := splitID(e.ID)
			if err != nil {
				return nil, false, err
			}
			id, _ := e.Values[s.idField].(string)
			it := item{place{ms, fmt.Sprintf("%016x%02x%s", order, s.partition, s.name)}, id, e.Values}
			if before.zero() || it.compare(before) < 0 {
				items = append(items, it)
			}
		}
		return items, len(entries) < n, nil
	}
}

// splitID reads a stream entry's id: its time in ms, and its order within that.
func splitID(id string) (ms int64, order uint64, err error) {
	at, seq, _ := strings.Cut(id, "-")
	ms, err = strconv.ParseInt(at, 10, 64)
	order, err2 := strconv.ParseUint(seq, 10, 64)
	if err != nil || err2 != nil {
		return 0, 0, errCorrupt
	}
	return ms, order, nil
}

// scored is an index by a time in a sorted set. A member is an id, after which a
// space and more may stand.
type scored struct {
	key    string
	prefix string // what the id begins with instead of its own, "" for that
	skip   int64
}

func (s *scored) ask(ctx context.Context, pipe redis.Pipeliner, before place, since int64, n int) func() ([]item, bool, error) {
	by := &redis.ZRangeBy{Min: "-inf", Max: "+inf", Offset: s.skip, Count: int64(n)}
	if since > 0 {
		by.Min = strconv.FormatInt(since, 10)
	}
	if !before.zero() {
		by.Max = strconv.FormatInt(before.at, 10)
	}
	got := pipe.ZRevRangeByScoreWithScores(ctx, s.key, by)
	return func() ([]item, bool, error) {
		var items []item
		for _, z := range got.Val() {
			member, _ := z.Member.(string)
			id, _, _ := strings.Cut(member, " ")
			if s.prefix != "" {
				id = s.prefix + id[len(s.prefix):]
			}
			it := item{place: place{int64(z.Score), id}, id: id}
			if before.zero() || it.compare(before) < 0 {
				items = append(items, it)
			}
		}
		s.skip += int64(len(got.Val()))
		return items, len(got.Val()) < n, got.Err()
	}
}

// Reading of pages: the indexes are asked in chunks, and at most so many records
// are looked at for one page, so that a filter that fits hardly anything ends, too.
const (
	chunkLeast = 8
	chunkMost  = 256
	lookedAt   = 4000
)

// merge reads many sources as one, newest first.
type merge struct {
	store   *Store
	sources []source
	heads   [][]item // read, and not given out
	ended   []bool
	before  place
	since   int64
	chunk   int
	given   place // of what was given out last: two indexes may have the same, and one may shift meanwhile
}

func (s *Store) merge(sources []source, r relay.Range) (*merge, error) {
	before, err := placeOf(r.Cursor)
	if err != nil {
		return nil, err
	}
	if until := ms(r.Until); !r.Until.IsZero() && (before.zero() || until < before.at) {
		before = place{until, ""} // nothing of that moment itself: the empty tie comes before all
	}
	m := &merge{store: s, sources: sources, heads: make([][]item, len(sources)), ended: make([]bool, len(sources)), before: before,
		chunk: min(chunkMost, max(chunkLeast, 2*r.Limit/max(1, len(sources))))}
	if !r.Since.IsZero() {
		m.since = ms(r.Since)
	}
	return m, nil
}

// next gives out at least one and at most n items; none at the end.
func (m *merge) next(ctx context.Context, n int) ([]item, error) {
	var out []item
	for len(out) < n {
		if err := m.fill(ctx); err != nil {
			return nil, err
		}
		newest := -1
		for i, head := range m.heads {
			if len(head) > 0 && (newest < 0 || head[0].compare(m.heads[newest][0].place) > 0) {
				newest = i
			}
		}
		if newest < 0 {
			break
		}
		it := m.heads[newest][0]
		m.heads[newest] = m.heads[newest][1:]
		if m.given.zero() || it.compare(m.given) < 0 {
			out, m.given = append(out, it), it.place
		}
		if len(m.heads[newest]) == 0 && !m.ended[newest] && len(out) > n/2 {
			break // it will do; the next call asks this source again
		}
	}
	return out, nil
}

// fill asks every source of which nothing is known that comes next.
func (m *merge) fill(ctx context.Context) error {
	for {
		pipe := m.store.rdb.Pipeline()
		asked := map[int]func() ([]item, bool, error){}
		for i, src := range m.sources {
			if len(m.heads[i]) == 0 && !m.ended[i] {
				asked[i] = src.ask(ctx, pipe, m.before, m.since, m.chunk)
			}
		}
		if len(asked) == 0 {
			return nil
		}
		if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return m.store.away(err)
		}
		for i, answer := range asked {
			items, last, err := answer()
			if err != nil {
				return m.store.away(err)
			}
			m.heads[i], m.ended[i] = items, last
		}
		m.chunk = min(chunkMost, 2*m.chunk)
	}
}

// page collects what load makes of the items and want takes, until it is full.
// load may leave out items; what it returns is in their order.
func page[T any](ctx context.Context, m *merge, limit int, load func([]item) (map[string]T, error), want func(T) bool) (list []T, next string, err error) {
	looked := 0
	var last place
	for {
		items, err := m.next(ctx, limit+1)
		if err != nil || len(items) == 0 {
			return list, "", err
		}
		records, err := load(items)
		if err != nil {
			return nil, "", err
		}
		for _, it := range items {
			if r, ok := records[it.id]; ok && want(r) {
				if len(list) == limit {
					return list, last.cursor(), nil
				}
				list = append(list, r)
			}
			last = it.place
		}
		if looked += len(items); looked >= lookedAt {
			return list, last.cursor(), nil
		}
	}
}

// everywhere makes a source for each partition.
func (s *Store) everywhere(one func(p int) source) []source {
	all := make([]source, 0, s.Options.Partitions)
	for p := range s.Options.Partitions {
		all = append(all, one(p))
	}
	return all
}

func (s *Store) streams(key func(p int) string) []source {
	return s.everywhere(func(p int) source { return s.stream(p, key(p), "i") })
}

func (s *Store) stream(p int, key, idField string) *stream {
	return &stream{key: key, partition: p, name: key[len(s.keys.tag(p)):], idField: idField}
}
