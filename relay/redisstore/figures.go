package redisstore

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// Figures for the operator: how much room the records take, and what all nodes
// counted of late.

func (k keys) sample(at time.Time) string {
	return k.prefix + ":sample:" + strconv.FormatInt(at.Unix(), 10)
}

// AddSample adds to what other nodes counted in the same time.
func (s *Store) AddSample(ctx context.Context, at time.Time, figures map[string]float64) error {
	key := s.keys.sample(at.Truncate(relay.SampleEvery))
	b := newStep(key, "")
	for name, n := range figures {
		b.add("HINCRBYFLOAT", key, name, strconv.FormatFloat(n, 'g', -1, 64))
	}
	b.add("PEXPIRE", key, relay.SamplesKept.Milliseconds())
	return s.commit(ctx, b)
}

// Samples reads them all, in one pipeline.
func (s *Store) Samples(ctx context.Context) ([]relay.Sample, error) {
	last := s.Now().Truncate(relay.SampleEvery)
	pipe := s.rdb.Pipeline()
	var at []time.Time
	var got []*redis.MapStringStringCmd
	for t := last.Add(-relay.SamplesKept); !t.After(last); t = t.Add(relay.SampleEvery) {
		at, got = append(at, t), append(got, pipe.HGetAll(ctx, s.keys.sample(t)))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, s.away(err)
	}
	var samples []relay.Sample
	for i, g := range got {
		if len(g.Val()) == 0 {
			continue
		}
		sample := relay.Sample{At: at[i], Figures: make(map[string]float64, len(g.Val()))}
		for name, text := range g.Val() {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return nil, errCorrupt
			}
			sample.Figures[name] = n
		}
		samples = append(samples, sample)
	}
	return samples, nil
}

// weighed is how many of the newest records of each index are weighed.
const weighed = 3

// Sizes weighs a few of the newest records of each kind.
func (s *Store) Sizes(ctx context.Context, lanes []relay.Lane) (relay.Sizes, error) {
	z, err := s.memory(ctx)
	if err != nil {
		return z, err
	}
	same := func(id string) string { return id }
	outcome := func(os ...relay.EventOutcome) (of []func(p int) string) {
		for _, o := range os {
			of = append(of, func(p int) string { return s.keys.outcome(p, o) })
		}
		return of
	}
	var attempted []func(p int) string
	for _, l := range lanes {
		attempted = append(attempted, func(p int) string { return s.keys.attempted(p, l) })
	}
	for _, kind := range []struct {
		name    string
		indexes []func(p int) string
		record  func(id string) string
	}{
		{"events", outcome(relay.OutcomeForwarded, relay.OutcomeChallenge, relay.OutcomeQuarantined), same},
		{"challenges", outcome(relay.OutcomeChallenge), relay.ChallengeOf},
		{"deliveries", attempted, same},
	} {
		size, err := s.weigh(ctx, kind.indexes, kind.record)
		if err != nil {
			return z, err
		}
		size.Kind = kind.name
		z.Kinds = append(z.Kinds, size)
	}
	return z, nil
}

// weigh counts what some indexes hold, and weighs the newest.
func (s *Store) weigh(ctx context.Context, indexes []func(p int) string, record func(id string) string) (relay.Size, error) {
	var size relay.Size
	pipe := s.rdb.Pipeline()
	var counts []*redis.IntCmd
	var newest []*redis.XMessageSliceCmd
	for p := range s.Options.Partitions {
		for _, key := range indexes {
			counts = append(counts, pipe.XLen(ctx, key(p)))
			newest = append(newest, pipe.XRevRangeN(ctx, key(p), "+", "-", weighed))
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return size, s.away(err)
	}
	pipe = s.rdb.Pipeline()
	var bytes []*redis.IntCmd
	for i, c := range counts {
		size.Count += int(c.Val())
		for _, m := range newest[i].Val() {
			id, _ := m.Values["i"].(string)
			if p, ok := relay.PartitionOf(id); ok {
				bytes = append(bytes, pipe.MemoryUsage(ctx, s.keys.of(p, record(id))))
			}
		}
	}
	if len(bytes) == 0 {
		return size, nil
	}
	if _, err := pipe.Exec(ctx); err != nil && !refusedByRedis(err) {
		return size, s.away(err)
	}
	sum, n := int64(0), int64(0)
	for _, b := range bytes {
		if b.Err() == nil || b.Err() == redis.Nil { // forgotten, or part of its challenge's
			sum, n = sum+b.Val(), n+1
		}
	}
	if n > 0 {
		size.Bytes = sum / n * int64(size.Count)
	}
	return size, nil
}

// memory sums what all masters use and may use; 0 where one of them has no limit.
func (s *Store) memory(ctx context.Context) (relay.Sizes, error) {
	var mu sync.Mutex
	var z relay.Sizes
	unlimited := false
	one := func(ctx context.Context, c *redis.Client) error {
		info, err := c.Info(ctx, "memory").Result()
		if err != nil && !refusedByRedis(err) {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		most := infoNumber(info, "maxmemory")
		unlimited = unlimited || most == 0
		z.Used, z.Max = z.Used+infoNumber(info, "used_memory"), z.Max+most
		return nil
	}
	var err error
	switch c := s.rdb.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, one)
	case *redis.Client:
		err = one(ctx, c)
	}
	if unlimited {
		z.Max = 0
	}
	if err != nil {
		return z, s.away(err)
	}
	return z, nil
}

// refusedByRedis tells an answer that is an error, as of a command that a managed
// service or an embedded Redis does not have, from no answer.
func refusedByRedis(err error) bool {
	var answer redis.Error
	return errors.As(err, &answer)
}

// infoNumber is a field of INFO; 0 where it is hidden.
func infoNumber(info, field string) int64 {
	for line := range strings.Lines(info) {
		if text, ok := strings.CutPrefix(line, field+":"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64) // hidden by a managed service: 0
			return n
		}
	}
	return 0
}
