package faults

import (
	"context"
	"math/rand/v2"
	"time"
)

const clockSkew = 30 * time.Second

func nodeFaults() []fault {
	one := func(kind string, do func(ctx context.Context, n *node, d time.Duration)) fault {
		return fault{kind, nodeTrack, func(ctx context.Context, w *world, r *rand.Rand, d time.Duration) {
			w.nodes[r.IntN(len(w.nodes))].suffer(kind, func(n *node) { do(ctx, n, d) })
		}}
	}
	network := func(kind string, breakIt func(*proxy)) fault {
		return one(kind, func(ctx context.Context, n *node, d time.Duration) {
			breakIt(n.proxy)
			pause(ctx, d)
			n.proxy.pass()
		})
	}
	skewed := func(kind string, skew time.Duration) fault {
		return one(kind, func(ctx context.Context, n *node, d time.Duration) {
			n.term()
			if n.start(skew) {
				n.awaitReady(kind)
				pause(ctx, d)
				n.term()
			}
			n.start(0)
		})
	}
	return []fault{
		one("node killed", func(ctx context.Context, n *node, d time.Duration) {
			n.kill()
			pause(ctx, d)
			n.start(0)
		}),
		{"rolling restart", nodeTrack, func(_ context.Context, w *world, _ *rand.Rand, _ time.Duration) {
			for _, n := range w.nodes {
				n.suffer("rolling restart", func(n *node) {
					n.term()
					n.start(0)
				})
			}
		}},
		network("network cut", (*proxy).cut),
		network("network blackhole", (*proxy).blackhole),
		network("network slow", (*proxy).slow),
		skewed("clock ahead", clockSkew),
		skewed("clock behind", -clockSkew),
	}
}

// suffer lets do break and mend a node, waits until it is ready, and notes how
// long that took if Redis was well all the time.
func (n *node) suffer(kind string, do func(*node)) {
	n.epoch.Add(1)
	defer n.epoch.Add(1)
	do(n)
	mended, faults := time.Now(), n.w.redisBegun.Load()
	well := n.w.rdb == nil || n.w.write() == nil
	if n.awaitReady(kind) && well && n.w.redisBegun.Load() == faults {
		n.w.report.recovered(kind, time.Since(mended))
	}
}
