package faults

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay/storetest/redistest"
)

// As the nodes are configured.
const (
	partitions = 8
	prefix     = "relay:"
	scanCount  = 1000
)

// lanes are all that the nodes read.
var lanes = []string{"tasks", "push", "confirm", "lock", "to:core", "to:flaky"}

func inPartition(p int, key string) string { return fmt.Sprintf("%s{p%02d}:%s", prefix, p, key) }

// dial opens Redis itself, past all proxies.
func (w *world) dial() (redis.UniversalClient, error) {
	if hosts, ok := strings.CutPrefix(w.redisURL, "redis+cluster://"); ok {
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: strings.Split(strings.TrimSuffix(hosts, "/"), ",")}), nil
	}
	if rest, ok := strings.CutPrefix(w.redisURL, "redis+sentinel://"); ok {
		hosts, name, _ := strings.Cut(rest, "/")
		return redis.NewFailoverClient(&redis.FailoverOptions{SentinelAddrs: strings.Split(hosts, ","), MasterName: name}), nil
	}
	o, err := redis.ParseURL(w.redisURL)
	if err != nil {
		return nil, err
	}
	return redis.NewClient(o), nil
}

// keyspace is the whole key space compared with what may be left when everything
// has ended: the table in redisstore's documentation, key by key.
type keyspace struct {
	mu       sync.Mutex
	nodes    int             // that run
	dead     map[string]bool // dead letters that are accounted for
	breaches breaches
	keys     int
}

// scan looks at every key of every master.
func (k *keyspace) scan(ctx context.Context, rdb redis.UniversalClient) error {
	if cluster, ok := rdb.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, k.scanOne)
	}
	return k.scanOne(ctx, rdb.(*redis.Client))
}

func (k *keyspace) scanOne(ctx context.Context, rdb *redis.Client) error {
	for cursor := uint64(0); ; {
		keys, next, err := rdb.Scan(ctx, cursor, "", scanCount).Result()
		if err != nil {
			return fmt.Errorf("scan the keys: %w", err)
		}
		pipe := rdb.Pipeline()
		var judges []func() string
		for _, key := range keys {
			judges = append(judges, k.look(ctx, pipe, key))
		}
		_, err = pipe.Exec(ctx)
		if err != nil && err != redis.Nil {
			return fmt.Errorf("look at the keys: %w", err)
		}
		k.mu.Lock()
		for i, judge := range judges {
			if what := judge(); what != "" {
				k.breaches.add("left in Redis", "%s: %s", keys[i], what)
			}
		}
		k.keys += len(keys)
		k.mu.Unlock()
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// record matches keys that retention ends, forever those that stay by count.
var (
	ours    = regexp.MustCompile(`^\{p(\d\d)\}:(.+)$`)
	record  = regexp.MustCompile(`^(evt_|chl_|dlv_|dup:|ended:|mute:|endpoint:|notices:|ix:[ehtdso]:)`)
	forever = regexp.MustCompile(`^(owner:|devices:|passkeys:|cards:)`)
)

func fine() string { return "" }

// look asks what must be known of a key; the function it returns judges the
// answer: "" if the key may be there.
func (k *keyspace) look(ctx context.Context, pipe redis.Pipeliner, key string) func() string {
	name, ok := strings.CutPrefix(key, prefix)
	switch {
	case strings.HasPrefix(key, "faults:"): // the harness's own, to see whether Redis writes
		return fine
	case !ok:
		return func() string { return "not a key of the relay" }
	}
	if m := ours.FindStringSubmatch(name); m != nil {
		if p, _ := strconv.Atoi(m[1]); p >= partitions {
			return func() string { return "there is no such partition" }
		}
		return k.lookInside(ctx, pipe, key, m[2])
	}
	if strings.HasPrefix(name, "sample:") {
		return k.ends(ctx, pipe, key)
	}
	switch name {
	case "root":
		return fine
	case "nodes":
		n := pipe.ZRange(ctx, key, 0, -1)
		return func() string {
			if len(n.Val()) > k.nodes {
				return fmt.Sprintf("%d nodes run, it lists %q", k.nodes, n.Val())
			}
			return ""
		}
	}
	return func() string { return "must not be there" } // parked, takeover locks, and what is in no table
}

// ends judges a key that retention must end.
func (k *keyspace) ends(ctx context.Context, pipe redis.Pipeliner, key string) func() string {
	ttl := pipe.PTTL(ctx, key)
	return func() string {
		if ttl.Val() == -1 {
			return "has no end"
		}
		return ""
	}
}

func (k *keyspace) lookInside(ctx context.Context, pipe redis.Pipeliner, key, name string) func() string {
	switch {
	case record.MatchString(name):
		return k.ends(ctx, pipe, key)
	case forever.MatchString(name):
		return fine
	case name == "owed":
		owed := pipe.HGetAll(ctx, key)
		return func() string {
			for _, n := range owed.Val() {
				if n != "0" {
					return fmt.Sprintf("counts %v", owed.Val())
				}
			}
			return ""
		}
	case name == "count":
		live := pipe.HMGet(ctx, key, "pending", "confirming")
		return func() string {
			for _, n := range live.Val() {
				if n != nil && n != "0" {
					return fmt.Sprintf("counts %v challenges that are pending and confirming", live.Val())
				}
			}
			return ""
		}
	case name == "dead":
		letters := pipe.ZRange(ctx, key, 0, -1)
		return func() string {
			for _, id := range letters.Val() {
				if !k.dead[id] {
					return id + " is not accounted for"
				}
			}
			return ""
		}
	case name == "due":
		due := pipe.ZRange(ctx, key, 0, 2)
		return func() string { return fmt.Sprintf("holds %q …", due.Val()) }
	case strings.HasPrefix(name, "q:"):
		entries, groups := pipe.XLen(ctx, key), pipe.XInfoGroups(ctx, key)
		return func() string {
			for _, g := range groups.Val() {
				if g.Pending != 0 {
					return fmt.Sprintf("%d entries are leased in group %s", g.Pending, g.Name)
				}
			}
			if entries.Val() != 0 {
				return fmt.Sprintf("%d entries", entries.Val())
			}
			return ""
		}
	}
	return func() string { return "must not be there" } // live lists, and what is in no table
}

// owing says what Redis still owes, "" for nothing. It is quick, to be asked
// often.
func (w *world) owing(ctx context.Context, rdb redis.UniversalClient) (string, error) {
	type figure struct {
		what  string
		count func() int64
	}
	pipe := rdb.Pipeline()
	var figures []figure
	for p := range partitions {
		for _, lane := range lanes {
			n := pipe.XLen(ctx, inPartition(p, "q:"+lane))
			figures = append(figures, figure{lane + " entries", n.Val})
		}
		due := pipe.ZCard(ctx, inPartition(p, "due"))
		owed := pipe.HVals(ctx, inPartition(p, "owed"))
		figures = append(figures, figure{"due later", due.Val}, figure{"deliveries owed", func() (sum int64) {
			for _, v := range owed.Val() {
				n, _ := strconv.ParseInt(v, 10, 64)
				sum += max(n, -n)
			}
			return sum
		}})
	}
	nodes := pipe.ZCard(ctx, prefix+"nodes")
	figures = append(figures, figure{"nodes that are no more", func() int64 { return max(0, nodes.Val()-int64(len(w.nodes))) }})
	if _, err := pipe.Exec(ctx); err != nil {
		return "", fmt.Errorf("ask Redis what is owed: %w", err)
	}
	sums := map[string]int64{}
	for _, f := range figures {
		if n := f.count(); n != 0 {
			sums[f.what] += n
		}
	}
	if len(sums) == 0 {
		return "", nil
	}
	return fmt.Sprint(sums), nil
}

// TestKeyspaceFindsWhatIsLeft: each rule of the table, broken.
func TestKeyspaceFindsWhatIsLeft(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = rdb.Close() })
	run := func(commands ...[]any) {
		t.Helper()
		for _, c := range commands {
			if err := rdb.Do(t.Context(), c...).Err(); err != nil {
				t.Fatalf("%v: %v", c, err)
			}
		}
	}
	group := func(p int) []any {
		return []any{"XGROUP", "CREATE", inPartition(p, "q:push"), "relay", "0", "MKSTREAM"}
	}
	run(
		[]any{"SET", "relay:root", "x"}, []any{"ZADD", "relay:nodes", 1, "a"},
		[]any{"SET", inPartition(0, "evt_1"), "x", "PX", 60000}, []any{"SET", inPartition(0, "dup:1"), "x", "PX", 60000},
		[]any{"HSET", inPartition(0, "owner:acme:c:1"), "user", "u"}, []any{"SADD", inPartition(0, "cards:acme:u:1"), "c"},
		[]any{"HSET", inPartition(0, "owed"), "push", 0}, []any{"ZADD", inPartition(0, "dead"), 1, "dlv_known"}, group(0),
	)
	look := func() breaches {
		t.Helper()
		k := keyspace{nodes: 1, dead: map[string]bool{"dlv_known": true}, breaches: breaches{}}
		if err := k.scan(t.Context(), rdb); err != nil {
			t.Fatal(err)
		}
		return k.breaches
	}
	if b := look(); len(b) != 0 {
		t.Fatalf("what may be left was found wrong: %v", b)
	}
	leased := []any{"XREADGROUP", "GROUP", "relay", "n", "STREAMS", inPartition(2, "q:push"), ">"}
	for name, c := range map[string][][]any{
		"relay:{p01}:chl_1":         {{"SET", inPartition(1, "chl_1"), "x"}},
		"relay:{p01}:mute:acme:c:1": {{"SET", inPartition(1, "mute:acme:c:1"), "x"}},
		"relay:{p01}:live:acme:c:1": {{"ZADD", inPartition(1, "live:acme:c:1"), 1, "x"}},
		"relay:{p01}:due":           {{"ZADD", inPartition(1, "due"), 1, "x"}},
		"relay:{p01}:dead":          {{"ZADD", inPartition(1, "dead"), 1, "dlv_stray"}},
		"relay:{p01}:owed":          {{"HSET", inPartition(1, "owed"), "push", -1}},
		"relay:{p01}:q:push":        {{"XADD", inPartition(1, "q:push"), "*", "d", "x"}},
		"relay:{p02}:q:push":        {group(2), {"XADD", inPartition(2, "q:push"), "1-1", "d", "x"}, leased, {"XDEL", inPartition(2, "q:push"), "1-1"}},
		"relay:{p09}:evt_1":         {{"SET", "relay:{p09}:evt_1", "x", "PX", 60000}},
		"relay:{p01}:other":         {{"SET", inPartition(1, "other"), "x"}},
		"relay:parked":              {{"HSET", "relay:parked", "core", "x"}},
		"relay:takeover:n":          {{"SET", "relay:takeover:n", "x"}},
		"relay:nodes":               {{"ZADD", "relay:nodes", 2, "b"}},
		"stray":                     {{"SET", "stray", "x"}},
	} {
		run(c...)
		if b := look()["left in Redis"]; len(b) != 1 || !strings.HasPrefix(b[0], name+": ") {
			t.Errorf("%s: found %q", name, b)
		}
		if name == "relay:nodes" {
			run([]any{"ZREM", name, "b"})
		} else {
			run([]any{"DEL", name})
		}
	}
}
