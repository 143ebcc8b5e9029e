package redisstore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest/redistest"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		url, kind string
		addrs     []string
		user, pw  string
		db        int
		tls       bool
		master    string
	}{
		{url: "redis://localhost", kind: "one", addrs: []string{"localhost:6379"}},
		{url: "redis://localhost:7000/3", kind: "one", addrs: []string{"localhost:7000"}, db: 3},
		{url: "redis://me:s%2Fcret@redis.example/0", kind: "one", addrs: []string{"redis.example:6379"}, user: "me", pw: "s/cret"},
		{url: "rediss://:pw@redis.example:6380/1", kind: "one", addrs: []string{"redis.example:6380"}, pw: "pw", db: 1, tls: true},
		{url: "redis://[::1]:7000", kind: "one", addrs: []string{"[::1]:7000"}},
		{url: "redis://[::1]", kind: "one", addrs: []string{"[::1]:6379"}},
		{url: "redis+cluster://a,b:7001,[::1]", kind: "cluster", addrs: []string{"a:6379", "b:7001", "[::1]:6379"}},
		{url: "rediss+cluster://me:pw@a", kind: "cluster", addrs: []string{"a:6379"}, user: "me", pw: "pw", tls: true},
		{url: "redis+sentinel://:pw@a,b:7001/the%20master", kind: "sentinel", addrs: []string{"a:26379", "b:7001"}, pw: "pw", master: "the master"},
	} {
		o, kind, err := options(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if !slices.Equal(o.Addrs, c.addrs) || o.Username != c.user || o.Password != c.pw || o.DB != c.db || (o.TLSConfig != nil) != c.tls || o.MasterName != c.master {
			t.Errorf("%s: addresses %v, user %q, password as wanted: %t, database %d, TLS %t, master %q", c.url, o.Addrs, o.Username, o.Password == c.pw, o.DB, o.TLSConfig != nil, o.MasterName)
		}
		client := kind(&o)
		_, cluster := client.(*redis.ClusterClient)
		if cluster != (c.kind == "cluster") {
			t.Errorf("%s: a %T", c.url, client)
		}
		if err := client.Close(); err != nil {
			t.Errorf("%s: Close: %v", c.url, err)
		}
	}
}

func TestOptionsRefuse(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"":                                   `must be redis://…, rediss://…, redis+sentinel://…/NAME, redis+cluster://… or "embedded"`,
		"localhost:6379":                     `must be redis://…, rediss://…, redis+sentinel://…/NAME, redis+cluster://… or "embedded"`,
		"http://:secret@localhost":           "is not a URL of Redis",
		"redis://:secret@local host":         "is not a URL of Redis",
		"redis://:secret@localhost/database": "is not a URL of Redis",
		"redis+sentinel://:secret@a,b":       "redis+sentinel:// needs the master's name as its path",
		"redis+other://:secret@a":            "unknown scheme",
		"redis://:secret@a,b":                "several hosts need redis+sentinel:// or redis+cluster://",
	} {
		_, err := Open(Options{URL: url, Partitions: 1})
		if err == nil {
			t.Errorf("%q was accepted", url)
			continue
		}
		if got := err.Error(); got != "redis.url: "+want || strings.Contains(got, "secret") {
			t.Errorf("%q: %q, want %q", url, got, want)
		}
	}
}

func TestEmbedded(t *testing.T) {
	t.Parallel()
	one, two := open(t, testOptions(t, Embedded, "a", nil)), open(t, testOptions(t, Embedded, "a", nil))
	ctx, u := t.Context(), relay.User{Merchant: "acme", ID: "one"}
	if err := one.IndexCard(ctx, u, "c"); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[*node]int{&one: 1, &two: 0} {
		if cards, err := n.Cards(ctx, u); err != nil || len(cards) != want {
			t.Errorf("Cards = %v, %v, want %d: each store has a Redis of its own", cards, err, want)
		}
	}
	plain := redis.NewClient(&redis.Options{Addr: one.rdb.(*redis.Client).Options().Addr})
	defer plain.Close()
	if err := plain.Ping(ctx).Err(); err == nil {
		t.Error("any process of this machine can read the embedded Redis")
	}
	// It forgets by itself.
	if err := one.rdb.Set(ctx, "short", "lived", 100*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	poll(t, "the key is gone", func() bool { return one.rdb.Exists(ctx, "short").Val() == 0 })
}

func TestNoGroup(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"NOGROUP No such key 'q' or consumer group 'relay' in XREADGROUP with GROUP option":            true,
		"-NOGROUP the consumer group this client was blocked on no longer exists":                      true,
		"UNBLOCKED the stream key no longer exists":                                                    true, // from Redis 7.2 on
		"LOADING Redis is loading the dataset in memory":                                               false,
		"UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)": false,
	} {
		if got := noGroup(errors.New(text)); got != want {
			t.Errorf("noGroup(%q) = %t", text, got)
		}
	}
	if noGroup(nil) {
		t.Error("noGroup(nil)")
	}
}

// TestOutageEnds: however long Redis was away, and however many have asked for
// it meanwhile, it is used within two seconds of being back.
func TestOutageEnds(t *testing.T) {
	t.Parallel()
	for what, way := range map[string]struct{ begin, end func(*redistest.Server) }{
		"refused": {(*redistest.Server).Kill, (*redistest.Server).Restart},
		"hanging": {(*redistest.Server).Stop, (*redistest.Server).Cont},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			w, n := world(t, server.URL)
			w.Lease(n, 0, core)
			way.begin(server)
			var asking sync.WaitGroup
			for range 3 * poolSize { // more than the pool has places, and the breaker needs
				asking.Go(func() {
					for range 4 {
						ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
						defer cancel()
						if err := n.Ping(ctx); !errors.Is(err, relay.ErrUnavailable) {
							t.Errorf("Ping: %v, want ErrUnavailable", err)
						}
						if _, err := n.Lease(ctx, 0, []relay.Lane{core}, time.Millisecond); err == nil {
							t.Error("Lease has an answer")
						}
					}
				})
			}
			asking.Wait()
			way.end(server)
			began := time.Now()
			poll(t, "commands work again", func() bool { return n.Ping(t.Context()) == nil })
			poll(t, "reads work again", func() bool {
				_, err := n.Lease(t.Context(), 0, []relay.Lane{core}, time.Millisecond)
				return err == nil
			})
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %s", took)
			} else {
				t.Logf("it took %s", took.Round(time.Millisecond))
			}
		})
	}
}
