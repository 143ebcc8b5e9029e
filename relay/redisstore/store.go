package redisstore

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"approvalrelay/crypto"
	"approvalrelay/relay"
)

var (
	//go:embed scripts/arrive.lua
	arriveLua string
	//go:embed scripts/commit.lua
	commitLua string
	//go:embed scripts/due.lua
	dueLua string
	//go:embed scripts/retire.lua
	retireLua string
	//go:embed scripts/unlist.lua
	unlistLua string
	//go:embed scripts/forget.lua
	forgetLua string
	//go:embed scripts/assign.lua
	assignLua string
	//go:embed scripts/claim.lua
	claimLua string
	//go:embed scripts/reseal.lua
	resealLua string

	arriveScript = redis.NewScript(arriveLua)
	commitScript = redis.NewScript(commitLua)
	dueScript    = redis.NewScript(dueLua)
	retireScript = redis.NewScript(retireLua)
	unlistScript = redis.NewScript(unlistLua)
	forgetScript = redis.NewScript(forgetLua)
	assignScript = redis.NewScript(assignLua)
	claimScript  = redis.NewScript(claimLua)
	resealScript = redis.NewScript(resealLua)
)

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
	s := &Store{Options: o, keys: keys{o.Prefix}, rdb: rdb, readers: readers, vault: o.Vault, stop: stop,
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
		err = s.commit(ctx, "", []any{"3", "SETNX", key, fresh}, batch{keys: []string{key}})
		if err != nil && !errors.Is(err, relay.ErrLostLease) { // another node was first
			return crypto.Root{}, err
		}
		sealed, err = s.rdb.Get(ctx, key).Bytes()
	}
	if err != nil {
		return crypto.Root{}, s.away(err)
	}
	if s.WaitReplicas > 0 { // another node's may not be there yet
		if err := s.commit(ctx, "", noGate, batch{keys: []string{key}}); err != nil {
			return crypto.Root{}, err
		}
	}
	plain, err := s.vault.Open(sealed, key)
	if err != nil {
		return crypto.Root{}, fmt.Errorf("open the root key (is the key that sealed it still in storage.keys?): %w", err)
	}
	return crypto.NewRoot(plain)
}

// run runs a script, and waits for the replicas if asked to.
func (s *Store) run(ctx context.Context, script *redis.Script, keys []string, args ...any) (any, error) {
	if s.WaitReplicas == 0 {
		v, err := script.Run(ctx, s.rdb, keys, args...).Result()
		if err != nil {
			return nil, s.away(err)
		}
		return v, nil
	}
	v, err := s.runAndWait(ctx, script.EvalSha, keys, args...)
	if cluster, ok := s.rdb.(*redis.ClusterClient); ok && elsewhere(err) {
		// To visit the masters is what loads at once where they are. The script
		// may run twice by this, as by the client's own repetitions elsewhere.
		if err = cluster.ForEachMaster(ctx, func(context.Context, *redis.Client) error { return nil }); err == nil {
			v, err = s.runAndWait(ctx, script.EvalSha, keys, args...)
		}
	}
	if redis.HasErrorPrefix(err, "NOSCRIPT") { // a pipeline cannot fall back by itself
		v, err = s.runAndWait(ctx, script.Eval, keys, args...)
	}
	if err != nil {
		return nil, s.away(err)
	}
	return v, nil
}

// replicaWait bounds WAIT, so that the ingress still answers in time.
const replicaWait = time.Second

// errReplicas says that the write is done, but not where it must be.
var errReplicas = errors.New("too few of redis.wait_replicas have the write")

// runAndWait keeps both on one connection, which is what WAIT is about: a
// pipeline on a cluster would send it to any node, for it names no key. WAIT is
// about all that the master had written before, so that who asks again, and is
// told what an earlier call wrote, waits for that as well.
func (s *Store) runAndWait(ctx context.Context, eval func(context.Context, redis.Scripter, []string, ...any) *redis.Cmd, keys []string, args ...any) (any, error) {
	pipe := s.rdb.Pipeline()
	if cluster, ok := s.rdb.(*redis.ClusterClient); ok {
		master, err := cluster.MasterForKey(ctx, keys[0])
		if err != nil {
			return nil, err
		}
		pipe = master.Pipeline()
	}
	done := eval(ctx, pipe, keys, args...)
	replicas := pipe.Do(ctx, "WAIT", s.WaitReplicas, replicaWait.Milliseconds())
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	if n, err := replicas.Int(); err != nil || n < s.WaitReplicas {
		return nil, fmt.Errorf("%w: %d of %d", errReplicas, n, s.WaitReplicas)
	}
	return done.Result()
}

// elsewhere tells whether another node may be the master by now: this one says
// so, or does not answer.
func elsewhere(err error) bool {
	var answer redis.Error
	switch {
	case err == nil, errors.Is(err, errReplicas):
		return false
	case errors.As(err, &answer):
		return redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "READONLY") || redis.HasErrorPrefix(err, "UNBLOCKED")
	}
	return true
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
