package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// slotGuard looks at every command that is sent, on any backend, for keys of two
// slots. A cluster refuses only those of a script's KEYS; those that a script
// makes of its arguments it would look for in the wrong place.
type slotGuard struct {
	prefix string

	mu    sync.Mutex
	found []string
}

// watch a client; that of a cluster by its nodes' clients, since the store uses
// these directly as well.
func (g *slotGuard) watch(c redis.UniversalClient) {
	if cluster, ok := c.(*redis.ClusterClient); ok {
		cluster.OnNewNode(func(n *redis.Client) { n.AddHook(g) })
		return
	}
	c.AddHook(g)
}

func (g *slotGuard) DialHook(next redis.DialHook) redis.DialHook { return next }

func (g *slotGuard) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		g.check(cmd)
		return next(ctx, cmd)
	}
}

func (g *slotGuard) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			g.check(cmd)
		}
		return next(ctx, cmds)
	}
}

// check the command's words, as they are sent. The channel of changes is no key.
func (g *slotGuard) check(cmd redis.Cmder) {
	var tags []string
	for _, word := range cmd.Args() {
		key := fmt.Sprint(word)
		if b, ok := word.([]byte); ok {
			key = string(b)
		}
		if strings.HasPrefix(key, g.prefix+":") && key != g.prefix+":changes" && !slices.Contains(tags, hashTag(key)) {
			tags = append(tags, hashTag(key))
		}
	}
	if len(tags) > 1 {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.found = append(g.found, fmt.Sprintf("%s with %q", cmd.Name(), tags))
	}
}

func (g *slotGuard) violations() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.found)
}

// hashTag is what a cluster chooses the slot by.
func hashTag(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

func TestSlotGuard(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	const script = "return 1"
	for what, c := range map[string]struct {
		run  func(redis.Cmdable) error
		want int
	}{
		"a script's KEYS": {func(c redis.Cmdable) error { return c.Eval(ctx, script, []string{"p:{a}:x", "p:{b}:x"}).Err() }, 1},
		"a script's ARGV": {func(c redis.Cmdable) error {
			return c.Eval(ctx, script, []string{"p:{a}:x"}, "SET", []byte("p:{b}:x")).Err()
		}, 1},
		"a key without a tag": {func(c redis.Cmdable) error { return c.Eval(ctx, script, []string{"p:{a}:x"}, "p:nodes").Err() }, 1},
		"a plain command":     {func(c redis.Cmdable) error { return c.MGet(ctx, "p:root", "p:nodes").Err() }, 1},
		"within a pipeline": {func(c redis.Cmdable) error {
			_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error { return p.MGet(ctx, "p:{a}:x", "p:{b}:x").Err() })
			return err
		}, 1},
		"a pipeline over slots": {func(c redis.Cmdable) error {
			_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error { p.Get(ctx, "p:{a}:x"); p.Get(ctx, "p:{b}:x"); return nil })
			if err == redis.Nil {
				err = nil
			}
			return err
		}, 0},
		"one slot":                {func(c redis.Cmdable) error { return c.MGet(ctx, "p:{a}:x", "p:{a}:y").Err() }, 0},
		"a channel":               {func(c redis.Cmdable) error { return c.Eval(ctx, script, []string{"p:{a}:x"}, "p:changes").Err() }, 0},
		"what is not the store's": {func(c redis.Cmdable) error { return c.MGet(ctx, "p:{a}:x", "q:{b}:x").Err() }, 0},
	} {
		t.Run(what, func(t *testing.T) {
			client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
			defer client.Close()
			guard := &slotGuard{prefix: "p"}
			guard.watch(client)
			if err := c.run(client); err != nil {
				t.Fatal(err)
			}
			if got := guard.violations(); len(got) != c.want {
				t.Errorf("it found %q, want %d", got, c.want)
			}
		})
	}
}

// TestSlotGuardOnCluster: the guard sees what the store sends to a node by that
// node's own client.
func TestSlotGuardOnCluster(t *testing.T) {
	t.Parallel()
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{strings.TrimPrefix(startCluster(t), "redis+cluster://")}})
	defer c.Close()
	guard := &slotGuard{prefix: "p"}
	guard.watch(c)
	master, err := c.MasterForKey(t.Context(), "p:{a}:x")
	if err != nil {
		t.Fatal(err)
	}
	for _, pipe := range []redis.Pipeliner{master.Pipeline(), c.Pipeline()} {
		pipe.Eval(t.Context(), "return 1", []string{"p:{a}:x"}, "p:{b}:x")
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Eval(t.Context(), "return 1", []string{"p:{a}:x"}, "p:{b}:x").Err(); err != nil {
		t.Fatal(err)
	}
	if got := guard.violations(); len(got) != 3 {
		t.Errorf("it found %q, want three", got)
	}
}
