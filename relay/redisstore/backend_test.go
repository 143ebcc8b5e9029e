package redisstore

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"approvalrelay/crypto"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

const testPartitions = 4

var testRetention = Retention{Challenges: 72 * time.Hour, Events: 72 * time.Hour, Deliveries: 72 * time.Hour}

// node is a store as the suite wants it.
type node struct{ *Store }

var _ storetest.Backend = node{}

// testOptions of a store on the data of t. Where there are replicas, it waits
// for one.
func testOptions(t testing.TB, url, name string, clock func() time.Time) Options {
	t.Helper()
	vault, err := crypto.NewVault(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	replicas := 0
	if strings.HasPrefix(url, "redis+") {
		replicas = 1
	}
	return Options{
		URL: url, Prefix: t.Name(), Partitions: testPartitions, Retention: testRetention, WaitReplicas: replicas,
		Vault: vault, Node: name, Clock: clock, Log: slog.New(slog.DiscardHandler),
	}
}

func open(t testing.TB, o Options) node {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	guard := &slotGuard{prefix: o.Prefix}
	guard.watch(s.rdb)
	guard.watch(s.readers)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for _, v := range guard.violations() {
			t.Errorf("it touches two slots in one command: %s", v)
		}
	})
	return node{s}
}

// on opens nodes on the Redis at a URL, each test's data under a prefix.
func on(url string) func(t *testing.T, clock func() time.Time, name string) storetest.Backend {
	return func(t *testing.T, clock func() time.Time, name string) storetest.Backend {
		t.Helper()
		return open(t, testOptions(t, url, name, clock))
	}
}

// world is a world of one test, and its first node.
func world(t testing.TB, url string, change ...func(*Options)) (*storetest.World, node) {
	t.Helper()
	var first *node
	w := storetest.NewWorld(t, func(clock func() time.Time, name string) storetest.Backend {
		o := testOptions(t, url, name, clock)
		for _, c := range change {
			c(&o)
		}
		n := open(t, o)
		if first == nil {
			first = &n
		}
		return n
	})
	return w, *first
}

// startCluster starts a cluster of one node, which has no replica.
func startCluster(t testing.TB) string {
	t.Helper()
	s := redistest.Start(t, "--cluster-enabled", "yes")
	c := redis.NewClient(&redis.Options{Addr: s.Addr})
	defer c.Close()
	if err := c.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	poll(t, "the cluster is up", func() bool {
		info, err := c.ClusterInfo(t.Context()).Result()
		return err == nil && bytes.Contains([]byte(info), []byte("cluster_state:ok"))
	})
	return "redis+cluster://" + s.Addr
}

// poll waits for what another process has to do.
func poll(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("it never came to pass that %s", what)
		case <-ticker.C:
		}
	}
}

// noFsync is for servers whose replicas a test waits for: on a disk that others
// use as well, an fsync may take longer than a replica is waited for.
var noFsync = []string{"--appendfsync", "no"}

// backends starts every kind of Redis that the store must work on.
func backends(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"embedded": "redis://" + miniredis.RunT(t).Addr(),
		"redis":    redistest.Start(t).URL,
		"cluster":  redistest.StartCluster(t, noFsync...).URL,
		"sentinel": redistest.StartSentinel(t, noFsync...).URL,
	}
}

// names are the keys of the store's data, in any order.
func (n node) names(t testing.TB) []string {
	t.Helper()
	var mu sync.Mutex
	var names []string
	scan := func(ctx context.Context, c *redis.Client) error {
		it := c.Scan(ctx, 0, n.Prefix+":*", 1000).Iterator()
		for it.Next(ctx) {
			mu.Lock()
			names = append(names, it.Val())
			mu.Unlock()
		}
		return it.Err()
	}
	ctx := context.Background() // also for cleanups
	var err error
	switch c := n.rdb.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, scan)
	case *redis.Client:
		err = scan(ctx, c)
	}
	if err != nil {
		t.Fatalf("SCAN: %v", err)
	}
	return names
}

// Age shortens what every key has left to live: neither Redis' clock nor
// miniredis' standstill can be set forward for one test alone.
func (n node) Age(t testing.TB, d time.Duration) {
	t.Helper()
	ctx := t.Context()
	for _, name := range n.names(t) {
		left, err := n.rdb.PTTL(ctx, name).Result()
		switch {
		case err != nil:
		case left < 0: // it has no limit, or is gone
		case left <= d:
			err = n.rdb.Del(ctx, name).Err()
		default:
			err = n.rdb.PExpire(ctx, name, left-d).Err()
		}
		if err != nil {
			t.Fatalf("age %s: %v", name, err)
		}
	}
}
