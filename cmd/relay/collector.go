package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A relay lives on little memory and allocates a lot: at Go's default it would collect
// many times a second, for a few megabytes each. So garbage may take as much as what
// lives, as by default, or garbageKept if that is more. GOGC, if it is set, is left
// alone; GOMEMLIMIT holds anyway.
const (
	garbageKept  = 32 << 20
	collectEvery = time.Second // how often the share is looked at: streams open by the thousand a second
)

// tuneCollector runs until ctx ends.
func tuneCollector(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(collectEvery)
	defer tick.Stop()
	lives := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	for set := 0; ; {
		metrics.Read(lives)
		sum := uint64(1)
		for _, s := range lives {
			sum += s.Value.Uint64()
		}
		if share := collectorShare(sum); share < set*9/10 || share > set*11/10 { // to set it stops everything for a moment
			debug.SetGCPercent(share)
			set = share
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// collectorShare is the garbage that may stand before a collection, in percent of what
// lives.
func collectorShare(lives uint64) int {
	const least, most = 100, 1000
	return int(min(most, max(least, 100*garbageKept/lives)))
}
