package relay_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"approvalrelay/relay"
	"approvalrelay/relay/redisstore"
)

// watchedStore is the store, and tells when the worker has come to rest.
type watchedStore struct {
	*redisstore.Store
	mu      sync.Mutex
	changed sync.Cond
	held    map[string]relay.Lease // handed out, and not settled
	handed  int                    // leases ever handed out
	dues    []int                  // per partition: looks for what is due
	reads   []int                  // per partition: reads that found nothing
	hold    func(relay.Lease) bool // nil, or which leases are kept aside for as long as it is set
	aside   []relay.Lease
	before  func(relay.Step)        // nil, or called before each commit
	lose    map[string]bool         // nil, or which writes have lost their answer
	settled map[relay.Kind]int      // how many deliveries of each kind were
	stored  map[string]relay.Status // what requests made of challenges
	unknown map[string]error        // challenges that cannot be loaded, and why
}

// A rested worker looks often, so that tests need not wait.
const (
	readWait = 5 * time.Millisecond
	dueWait  = 3 * time.Millisecond
)

func key(l relay.Lease) string { return fmt.Sprint(l.Partition, l.Delivery.Lane(), l.Entry) }

func (s *watchedStore) Lease(ctx context.Context, p int, lanes []relay.Lane, wait time.Duration) ([]relay.Lease, error) {
	leases, err := s.Store.Lease(ctx, p, lanes, min(wait, readWait))
	s.mu.Lock()
	defer s.mu.Unlock()
	leases = s.see(leases)
	if len(leases) == 0 && err == nil {
		s.reads[p]++
	}
	s.changed.Broadcast()
	return leases, err
}

func (s *watchedStore) HandOver(open func(relay.Lane) bool, take func([]relay.Lease, error)) (stop func()) {
	return s.Store.HandOver(open, func(leases []relay.Lease, err error) {
		s.mu.Lock()
		leases = s.see(leases)
		s.changed.Broadcast()
		s.mu.Unlock()
		take(leases, err)
	})
}

// see notes what is handed out, and puts aside what is to be held.
func (s *watchedStore) see(leases []relay.Lease) []relay.Lease {
	if s.hold == nil {
		leases, s.aside = append(leases, s.aside...), nil
	}
	leases = slices.DeleteFunc(leases, func(l relay.Lease) bool {
		if s.hold == nil || !s.hold(l) {
			return false
		}
		l.Known = nil // by then it may have changed
		s.aside = append(s.aside, l)
		return true
	})
	for _, l := range leases {
		s.held[key(l)] = l
		s.handed++
	}
	return leases
}

// holding keeps leases of a kind aside until release hands them out.
func (s *watchedStore) holding(k relay.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = func(l relay.Lease) bool { return l.Delivery.Kind == k }
}

func (s *watchedStore) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = nil
	s.wait(func() bool { return len(s.aside) == 0 })
}

func (s *watchedStore) Due(ctx context.Context, p int) (time.Time, error) {
	if _, err := s.Store.Due(ctx, p); err != nil {
		return time.Time{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dues[p]++
	s.changed.Broadcast()
	return s.Now().Add(dueWait), nil
}

func (s *watchedStore) Commit(ctx context.Context, st relay.Step) error {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		before(st)
	}
	err := s.Store.Commit(ctx, st)
	what := "a request"
	if st.Settle != nil {
		what = key(*st.Settle)
	}
	if s.loses(what) {
		return relay.ErrUnavailable
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.Settle != nil && (err == nil || errors.Is(err, relay.ErrLostLease)) {
		delete(s.held, key(*st.Settle))
		s.settled[st.Settle.Delivery.Kind]++
	}
	if st.Settle == nil && st.Challenge != nil && err == nil {
		s.stored[st.Challenge.ID] = st.Challenge.Status
	}
	s.changed.Broadcast()
	return err
}

func (s *watchedStore) Postpone(ctx context.Context, l relay.Lease) error {
	err := s.Store.Postpone(ctx, l)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.held, key(l))
	s.changed.Broadcast()
	return err
}

// unload makes a challenge one that cannot be loaded for a reason; nil makes it
// one that can.
func (s *watchedStore) unload(id string, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unknown[id] = why
}

func (s *watchedStore) Challenge(ctx context.Context, id string) (relay.Challenge, error) {
	s.mu.Lock()
	why := s.unknown[id]
	s.mu.Unlock()
	if why != nil {
		return relay.Challenge{}, why
	}
	return s.Store.Challenge(ctx, id)
}

func (s *watchedStore) Arrive(ctx context.Context, a relay.Arrival) (relay.Arrived, error) {
	got, err := s.Store.Arrive(ctx, a)
	if s.loses("arrival") {
		return relay.Arrived{}, relay.ErrUnavailable
	}
	return got, err
}

// losing makes the first answer to every write get lost from now on: of each
// delivery's settlement, of one request, and of one arrival.
func (s *watchedStore) losing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose = map[string]bool{}
}

func (s *watchedStore) loses(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lose == nil || s.lose[what] {
		return false
	}
	s.lose[what] = true
	return true
}

// first stops before the first commit that settles a delivery of a kind: it
// returns when that is reached, and the commit goes on when proceed is called.
func (s *watchedStore) first(k relay.Kind) (reached <-chan struct{}, proceed func()) {
	at, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = func(st relay.Step) {
		if st.Settle != nil && st.Settle.Delivery.Kind == k {
			once.Do(func() { close(at); <-goOn })
		}
	}
	return at, func() { close(goOn) }
}

// awaitSettled waits until so many deliveries of a kind were settled.
func (s *watchedStore) awaitSettled(t *testing.T, k relay.Kind, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wait(func() bool { return s.settled[k] >= n }) {
		t.Fatalf("%d deliveries of kind %s were settled, want %d", s.settled[k], k, n)
	}
}

// awaitStored waits until a request has stored a status of a challenge.
func (s *watchedStore) awaitStored(t *testing.T, id string, want relay.Status) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wait(func() bool { return s.stored[id] == want }) {
		t.Fatalf("no request has made it %s", want)
	}
}

// wait returns false if it takes too long. The mutex is held.
func (s *watchedStore) wait(until func() bool) bool {
	late := false
	timer := time.AfterFunc(20*time.Second, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.changed.Broadcast()
	})
	defer timer.Stop()
	for !until() {
		if late {
			return false
		}
		s.changed.Wait()
	}
	return true
}

// quiet waits until no lease is held and, after a look for what is due, every
// partition was read without finding anything. It returns what is stuck.
func (s *watchedStore) quiet() (stuck string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	const patience = 100
	for range patience {
		if !s.wait(func() bool { return len(s.held) == 0 }) {
			for _, l := range s.held {
				stuck += fmt.Sprintf("%s %s is held; ", l.Delivery.Kind, l.Delivery.ID)
			}
			return stuck
		}
		// The first look may have begun before; of the reads, another may have
		// made a lane's group instead of reading it.
		handed := s.handed
		due := slices.Clone(s.dues)
		looked := s.wait(func() bool { return s.handed != handed || beyond(s.dues, due, 2) })
		read := slices.Clone(s.reads)
		if !looked || !s.wait(func() bool { return s.handed != handed || beyond(s.reads, read, 3) }) {
			return fmt.Sprintf("it does not look any more: looks %v, reads %v", s.dues, s.reads)
		}
		if s.handed == handed {
			return ""
		}
	}
	return "there is always more"
}

func beyond(now, then []int, by int) bool {
	for i := range now {
		if now[i] < then[i]+by {
			return false
		}
	}
	return true
}
