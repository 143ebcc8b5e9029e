package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"sync"
	"time"
)

const (
	redisTimeout = 500 * time.Millisecond // of one command of the harness
	mendTime     = 20 * time.Second       // in which Redis must work after it was mended
	freezeTime   = 5 * time.Second
)

func redisFaults() []fault {
	row := func(kind string, do func(ctx context.Context, w *world, d time.Duration)) fault {
		return fault{kind, redisTrack, func(ctx context.Context, w *world, _ *rand.Rand, d time.Duration) {
			do(ctx, w, d)
			w.redisBack(kind)
		}}
	}
	return []fault{
		row("redis killed", func(ctx context.Context, w *world, d time.Duration) {
			w.redis.Kill()
			pause(ctx, d)
			w.redis.Restart()
		}),
		row("redis frozen", func(ctx context.Context, w *world, _ time.Duration) {
			w.redis.Stop()
			pause(ctx, freezeTime)
			w.redis.Cont()
		}),
		row("redis out of memory", func(ctx context.Context, w *world, d time.Duration) {
			w.mustRedis("CONFIG", "SET", "maxmemory", w.usedMemory()/2)
			if w.write() == nil {
				w.t.Error("Redis still took a write without memory: the fault is none")
			}
			pause(ctx, d)
			w.mustRedis("CONFIG", "SET", "maxmemory", 0)
		}),
		row("scripts flushed", func(_ context.Context, w *world, _ time.Duration) {
			w.mustRedis("SCRIPT", "FLUSH")
		}),
		row("groups gone", func(_ context.Context, w *world, _ time.Duration) { w.destroyGroups() }),
		row("disk full, fsync always", func(ctx context.Context, w *world, d time.Duration) {
			w.redis.DiskFull()
			if !until(mendTime, func() bool { return w.write() != nil && w.rdb.Ping(context.Background()).Err() != nil }) {
				w.t.Error("Redis with appendfsync always did not end on a full disk: the fault is none")
			}
			pause(ctx, d)
			w.redis.Restart() // its disk has room again
		}),
		row("disk full, fsync everysec", func(ctx context.Context, w *world, d time.Duration) {
			w.mustRedis("CONFIG", "SET", "appendfsync", "everysec")
			w.redis.DiskFull()
			if !until(mendTime, func() bool { return w.write() != nil }) {
				w.t.Error("Redis still wrote on a full disk: the fault is none")
			}
			pause(ctx, d)
			w.redis.DiskFree()
			until(mendTime, func() bool { return w.write() == nil }) // redisBack reports it
			w.mustRedis("CONFIG", "SET", "appendfsync", "always")
		}),
	}
}

// write tells whether Redis takes a write.
func (w *world) write() error {
	const key = "faults:probe" // outside the relay's prefix
	ctx := context.Background()
	if err := w.rdb.Set(ctx, key, "x", time.Minute).Err(); err != nil {
		return err
	}
	return w.rdb.Del(ctx, key).Err()
}

// mustRedis runs a command on a Redis that works, or soon will.
func (w *world) mustRedis(args ...any) any {
	var answer any
	var err error
	if !until(mendTime, func() bool {
		answer, err = w.rdb.Do(context.Background(), args...).Result()
		return err == nil
	}) {
		w.t.Errorf("%v: %v", args, err)
	}
	return answer
}

var usedMemory = regexp.MustCompile(`used_memory:(\d+)`)

func (w *world) usedMemory() int {
	found := usedMemory.FindStringSubmatch(fmt.Sprint(w.mustRedis("INFO", "memory")))
	if found == nil {
		w.t.Error("INFO memory does not say used_memory")
		return 0
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		w.t.Error(err)
	}
	return n
}

// destroyGroups takes the consumer groups, with what they know of entries under
// way, from all lanes.
func (w *world) destroyGroups() {
	ctx := context.Background()
	destroyed := 0
	for keys := w.rdb.ScanType(ctx, 0, "relay:{p*}:q:*", 1000, "stream").Iterator(); keys.Next(ctx); {
		groups, err := w.rdb.XInfoGroups(ctx, keys.Val()).Result()
		if err != nil {
			continue // the stream went away meanwhile
		}
		for _, g := range groups {
			if w.rdb.XGroupDestroy(ctx, keys.Val(), g.Name).Err() == nil {
				destroyed++
			}
		}
	}
	if destroyed == 0 {
		w.t.Error("there was no consumer group to destroy: the fault is none")
	}
}

// redisBack waits until Redis takes writes, and then measures how long each node
// needs that no fault of its own disturbs.
func (w *world) redisBack(kind string) {
	if !until(mendTime, func() bool { return w.write() == nil }) {
		w.t.Errorf("Redis does not take writes %s after it was mended (%s): %v", mendTime, kind, w.write())
		return
	}
	mended := time.Now()
	var wait sync.WaitGroup
	for _, n := range w.nodes {
		wait.Go(func() {
			epoch := n.epoch.Load()
			disturbed := func() bool { return epoch%2 == 1 || n.epoch.Load() != epoch }
			ok := until(time.Minute, func() bool { return disturbed() || n.ready() })
			switch took := time.Since(mended); {
			case disturbed():
			case !ok:
				w.t.Errorf("%s was not ready %s after %q had ended\n%s", n.name, took, kind, n.log.tail())
			default:
				w.report.recovered(kind, took)
			}
		})
	}
	wait.Wait()
}
