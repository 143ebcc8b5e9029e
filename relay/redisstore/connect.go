package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// go-redis would write to stderr beside our log, whatever that is set to, what
// every call that fails returns to us as well.
func init() { logging.Disable() }

// Embedded is the URL of a Redis inside this process: nothing survives it.
const Embedded = "embedded"

// Timeouts of one command. Together they stay under the two seconds in which an
// ingress must have answered.
const (
	dialTimeout    = 500 * time.Millisecond
	commandTimeout = 1500 * time.Millisecond
	poolSize       = 16 // faster than more on few cores: less to switch between
)

// clusterAge is how old a client's picture of a cluster may be. Nothing else
// tells it that a master has died: a dead one redirects nobody.
const clusterAge = time.Second

// sentinelSearch is how long a client looks for the master. It outlasts that the
// sentinel it knows hangs: it asks that one in vain twice over, each time with
// one repetition, before it asks the others. Callers do not wait so long.
const sentinelSearch = 6*commandTimeout + dialTimeout

// connect opens two clients: one for commands, and one for the blocking reads,
// which would starve it of connections.
func connect(rawURL string, partitions int) (commands, readers redis.UniversalClient, closeEmbedded func(), err error) {
	closeEmbedded = func() {}
	if rawURL == Embedded {
		rawURL, closeEmbedded, err = startEmbedded()
		if err != nil {
			return nil, nil, nil, err
		}
	}
	o, kind, err := options(rawURL)
	if err != nil {
		closeEmbedded()
		return nil, nil, nil, err
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = dialTimeout, commandTimeout, commandTimeout, commandTimeout
	// The client's own repetitions would hold the pool's places for seconds
	// after Redis is back.
	o.DialerRetries = 1
	o.ContextTimeoutEnabled = true
	o.MaxRetries, o.MinRetryBackoff, o.MaxRetryBackoff = 1, 8*time.Millisecond, 64*time.Millisecond
	o.PoolSize = poolSize
	commands = kind(&o)
	r := o
	r.PoolSize, r.MaxRetries = partitions+2, -1
	return commands, kind(&r), closeEmbedded, nil
}

// options reads redis://, rediss://, redis+sentinel://host,host/NAME and
// redis+cluster://host,host. Errors never quote the URL: it carries a password.
func options(rawURL string) (redis.UniversalOptions, func(*redis.UniversalOptions) redis.UniversalClient, error) {
	var o redis.UniversalOptions
	fail := func(why string) (redis.UniversalOptions, func(*redis.UniversalOptions) redis.UniversalClient, error) {
		return o, nil, errors.New("redis.url: " + why)
	}
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		return fail(`must be redis://…, rediss://…, redis+sentinel://…/NAME, redis+cluster://… or "embedded"`)
	}
	base, kind, _ := strings.Cut(scheme, "+")
	hosts, rest, _ := strings.Cut(rest, "/")
	userinfo := ""
	if i := strings.LastIndex(hosts, "@"); i >= 0 {
		userinfo, hosts = hosts[:i+1], hosts[i+1:]
	}
	list := strings.Split(hosts, ",")
	if kind == "" && len(list) > 1 {
		return fail("several hosts need redis+sentinel:// or redis+cluster://")
	}
	path := rest
	if kind == "sentinel" {
		path = "" // the master's name, no database
	}
	one, err := redis.ParseURL(base + "://" + userinfo + list[0] + "/" + path)
	if err != nil {
		return fail("is not a URL of Redis")
	}
	o.Username, o.Password, o.DB, o.TLSConfig = one.Username, one.Password, one.DB, one.TLSConfig
	port := ":6379"
	if kind == "sentinel" {
		port = ":26379"
	}
	for _, h := range list {
		if !strings.Contains(h, ":") || strings.HasSuffix(h, "]") {
			h += port
		}
		o.Addrs = append(o.Addrs, h)
	}
	switch kind {
	case "":
		return o, func(o *redis.UniversalOptions) redis.UniversalClient { return redis.NewClient(o.Simple()) }, nil
	case "cluster":
		return o, newCluster, nil
	case "sentinel":
		name, err := url.PathUnescape(strings.Trim(rest, "/"))
		if err != nil || name == "" {
			return fail("redis+sentinel:// needs the master's name as its path")
		}
		o.MasterName = name
		o.SentinelUsername, o.SentinelPassword = o.Username, o.Password
		return o, newSentinel, nil
	}
	return fail("unknown scheme")
}

// newCluster leaves repetitions to the cluster's client: those of the node's
// would multiply with them.
func newCluster(o *redis.UniversalOptions) redis.UniversalClient {
	c := o.Cluster()
	c.MaxRetries, c.ClusterStateReloadInterval = -1, clusterAge
	return redis.NewClusterClient(c)
}

// newSentinel bounds a connection's attempt apart from the whole search, which
// is what the client's own timeout is about.
func newSentinel(o *redis.UniversalOptions) redis.UniversalClient {
	f := o.Failover()
	f.Dialer = redis.NewDialer(&redis.Options{DialTimeout: o.DialTimeout, TLSConfig: o.TLSConfig})
	f.DialTimeout = sentinelSearch
	return redis.NewFailoverClient(f)
}

// startEmbedded runs miniredis on loopback under a password of its own. It
// expires keys only when told, so a ticker tells it.
func startEmbedded() (string, func(), error) {
	m := miniredis.NewMiniRedis()
	password := rand.Text()
	m.RequireAuth(password)
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		return "", nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		const tick = time.Second
		t := time.NewTicker(tick)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				m.FastForward(tick)
			}
		}
	}()
	return "redis://:" + password + "@" + m.Addr(), func() { cancel(); m.Close() }, nil
}
