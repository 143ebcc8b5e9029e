package api

import (
	"errors"
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"approvalrelay/relay"
)

// Limit is a token bucket: calls per second in the long run, and how many may
// come at once.
type Limit struct {
	PerSecond float64
	Burst     int
}

// take returns nil, or a limited that says when the next call will pass. It does
// not reserve: reservations that are given back under load would cost tokens.
func take(l *rate.Limiter) error {
	if l.Allow() {
		return nil
	}
	return limited{time.Duration((1 - l.Tokens()) / float64(l.Limit()) * float64(time.Second))}
}

// maxUsers is how many users' limits are remembered: those seen last.
const maxUsers = 1 << 16

// userLimits is one bucket for each user.
type userLimits struct {
	limit Limit
	mu    sync.Mutex // two first calls of a user share one bucket
	seen  *lru.Cache[relay.User, *rate.Limiter]
}

func newUserLimits(l Limit) (*userLimits, error) {
	if l.PerSecond <= 0 || l.Burst < 1 {
		return nil, errors.New("api: UserLimit must be above zero")
	}
	seen, err := lru.New[relay.User, *rate.Limiter](maxUsers)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return &userLimits{limit: l, seen: seen}, nil
}

func (u *userLimits) take(user relay.User) error {
	u.mu.Lock()
	l, ok := u.seen.Get(user)
	if !ok {
		l = rate.NewLimiter(rate.Limit(u.limit.PerSecond), u.limit.Burst)
		u.seen.Add(user, l)
	}
	u.mu.Unlock()
	return take(l)
}

// maxStreams is how many event streams one user may have open on this node.
const maxStreams = 20

// streamCount counts the open event streams of each user, and of all.
type streamCount struct {
	mu   sync.Mutex
	open map[relay.User]int
	all  sync.WaitGroup
}

// enter counts a stream in, until leave is called.
func (s *streamCount) enter(u relay.User) (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[u] >= maxStreams {
		return nil, limited{time.Minute}
	}
	if s.open == nil {
		s.open = map[relay.User]int{}
	}
	s.open[u]++
	s.all.Add(1)
	return func() {
		defer s.all.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[u]--; s.open[u] == 0 {
			delete(s.open, u)
		}
	}, nil
}
