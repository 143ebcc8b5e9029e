package redisstore

import (
	"context"
	"sync"
	"time"
)

// clock is Redis' clock, as this node has measured it.
type clock struct {
	mu     sync.Mutex
	offset time.Duration // to ours
	error  time.Duration // at most, when it was measured; half of the round trip
	at     time.Time     // zero: never
}

// A measurement is replaced by one that is as exact, or by any when it is old:
// a slow network must not make a good clock worse, and clocks drift slowly.
const (
	goodError = 25 * time.Millisecond
	clockLife = time.Minute
)

func (c *clock) set(offset, error time.Duration, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || error <= max(goodError, c.error) || now.Sub(c.at) > clockLife {
		c.offset, c.error, c.at = offset, error, now
	}
}

func (c *clock) get() (offset time.Duration, measured bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset, !c.at.IsZero()
}

// Now is Redis' time, as far as the heartbeats measured it.
func (s *Store) Now() time.Time {
	if s.Clock != nil {
		return s.Clock()
	}
	offset, _ := s.clock.get()
	return time.Now().Add(offset)
}

// measured returns when Redis' clock is known. Whoever decides by the clock has
// loaded something before, and so cannot decide by a clock that was never set.
func (s *Store) measured(ctx context.Context) error {
	if _, ok := s.clock.get(); ok {
		return nil
	}
	return s.syncClock(ctx)
}

// syncClock measures the offset to Redis' clock.
func (s *Store) syncClock(ctx context.Context) error {
	before := time.Now()
	t, err := s.rdb.Time(ctx).Result()
	if err != nil {
		return s.away(err)
	}
	half := time.Since(before) / 2
	s.clock.set(t.Sub(before.Add(half)), half, before)
	return nil
}

// Skew is how far Redis' clock is ahead of this machine's. Now corrects it.
func (s *Store) Skew(ctx context.Context) (time.Duration, error) {
	if err := s.measured(ctx); err != nil {
		return 0, err
	}
	offset, _ := s.clock.get()
	return offset, nil
}
