package redisstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"approvalrelay/crypto"
	"approvalrelay/relay"
)

//go:embed scripts/*.lua
var sources embed.FS

// scriptNames are those of all scripts, by their hashes.
var scriptNames = map[string]string{}

var (
	arriveScript = script("arrive", "commands")
	commitScript = script("commit", "commands")
	groupScript  = script("group")
	dueScript    = script("due")
	retireScript = script("retire")
	unlistScript = script("unlist")
	forgetScript = script("forget")
	assignScript = script("assign")
	claimScript  = script("claim")
	resealScript = script("reseal")
)

// script reads a script, which others may begin.
func script(name string, begin ...string) *redis.Script {
	text := ""
	for _, part := range append(begin, name) {
		b, err := sources.ReadFile("scripts/" + part + ".lua")
		if err != nil {
			panic(err) // there is no such file
		}
		text += string(b)
	}
	s := redis.NewScript(text)
	scriptNames[s.Hash()] = name
	return s
}

// Options of a store.
type Options struct {
	URL          string // or Embedded
	Prefix       string
	Partitions   int
	WaitReplicas int
	Retention    Retention
	Vault        *crypto.Vault
	Node         string // a name that no other process ever has
	// Clock replaces the store's clock; only tests set it.
	Clock   func() time.Time
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: nobody looks
}

// Retention is how long records are kept after their last change.
type Retention struct {
	Challenges, Events, Deliveries time.Duration
}

// Store implements relay.Store and relay.Queue.
type Store struct {
	Options
	keys    keys
	rdb     redis.UniversalClient
	readers redis.UniversalClient
	vault   *crypto.Vault
	clock   clock
	heart   heart
	queues  sync.Map // of calls, by their master's name
	hand    atomic.Pointer[handover]
	renewed *lru.Cache[string, time.Time] // when the life of an index was
	stop    func()

	resealed   prometheus.Counter
	underOlder prometheus.Gauge
}

var (
	_ relay.Store = (*Store)(nil)
	_ relay.Queue = (*Store)(nil)
)

// Open prepares a store. It does not need Redis to be there: every call tries
// anew. An error is a fault of the options.
func Open(o Options) (*Store, error) {
	rdb, readers, stop, err := connect(o.URL, o.Partitions)
	if err != nil {
		return nil, err
	}
	renewed, err := lru.New[string, time.Time](maxRenewed)
	if err != nil {
		panic(err) // only for a size below one
	}
	s := &Store{Options: o, renewed: renewed, keys: newKeys(o.Prefix), rdb: rdb, readers: readers, vault: o.Vault, stop: stop,
		resealed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relay_resealed_records_total", Help: "Records that were sealed again under the first of storage.keys.",
		}),
		underOlder: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "relay_older_key_records", Help: "Records that the last pass left under another key than the first of storage.keys; 0 as well while there is but one key.",
		})}
	if o.Metrics != nil {
		s.measure(o.Metrics)
	}
	return s, nil
}

// Close ends all connections, and the embedded Redis.
func (s *Store) Close() error {
	err := errors.Join(s.readers.Close(), s.rdb.Close())
	s.stop()
	return err
}

// Partitions of the data.
func (s *Store) Partitions() int { return s.Options.Partitions }

// Ping tells whether Redis answers, and sets the clock by it.
func (s *Store) Ping(ctx context.Context) error { return s.syncClock(ctx) }

// away classifies an error of Redis, once.
func (s *Store) away(err error) error {
	if errors.Is(err, redis.Nil) {
		return relay.ErrNotFound
	}
	return fmt.Errorf("%w (redis: %w)", relay.ErrUnavailable, err)
}

// Root reads the root key; the first node to ask makes it.
func (s *Store) Root(ctx context.Context) (crypto.Root, error) {
	if err := s.measured(ctx); err != nil {
		return crypto.Root{}, err
	}
	key := s.keys.root()
	sealed, err := s.rdb.Get(ctx, key).Bytes()
	if err == redis.Nil {
		fresh := s.vault.Seal(crypto.GenerateKey(), key)
		err = s.commit(ctx, gatedStep(key, "", "SETNX", key, fresh))
		if err != nil && !errors.Is(err, relay.ErrLostLease) { // another node was first
			return crypto.Root{}, err
		}
		sealed, err = s.rdb.Get(ctx, key).Bytes()
	}
	if err != nil {
		return crypto.Root{}, s.away(err)
	}
	if s.WaitReplicas > 0 { // another node's may not be there yet
		if err := s.commit(ctx, newStep(key, "")); err != nil {
			return crypto.Root{}, err
		}
	}
	plain, err := s.vault.Open(sealed, key)
	if err != nil {
		return crypto.Root{}, fmt.Errorf("open the root key (is the key that sealed it still in storage.keys?): %w", err)
	}
	return crypto.NewRoot(plain)
}

// Challenge by id.
func (s *Store) Challenge(ctx context.Context, id string) (relay.Challenge, error) {
	raw, err := s.record(ctx, id)
	if err != nil {
		return relay.Challenge{}, err
	}
	return s.decodeChallenge(id, raw)
}

// Delivery by id.
func (s *Store) Delivery(ctx context.Context, id string) (relay.Delivery, error) {
	raw, err := s.record(ctx, id)
	if err != nil {
		return relay.Delivery{}, err
	}
	return s.decodeDelivery(raw)
}

func (s *Store) record(ctx context.Context, id string) (string, error) {
	p, ok := relay.PartitionOf(id)
	if !ok || p >= s.Options.Partitions {
		return "", relay.ErrNotFound
	}
	if err := s.measured(ctx); err != nil {
		return "", err
	}
	raw, err := s.rdb.Get(ctx, s.keys.of(p, id)).Result()
	if err != nil {
		return "", s.away(err)
	}
	return raw, nil
}

func ms(t time.Time) int64 { return t.UnixMilli() }
