package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Timing of what a worker does beside its deliveries.
const (
	beatEvery   = time.Second
	readyBeats  = 5 * time.Second  // then the worker is not ready
	missedIdle  = time.Second      // longer than it takes from the store to start
	missedEvery = 30 * time.Second // as a rule; after a failed read for missedDoubt at every beat
	missedDoubt = 10 * time.Second
	sweepEvery  = 10 * time.Minute
)

// beat keeps this node's leases, takes over those of dead nodes, and looks for
// those whose hand-over was lost on the way. From the end of ctx on it only
// beats.
func (w *Worker) beat(ctx, beating context.Context) {
	looked := time.Now()
	var away time.Time // since when the store is; zero: it is not
	for beating.Err() == nil {
		dead, err := w.queue.Beat(beating)
		away = w.beaten(beating, away, err)
		if err != nil {
			rest(beating, storeRetryRest)
			continue
		}
		w.beatAt.Store(time.Now().UnixNano())
		if ctx.Err() != nil {
			rest(beating, beatEvery)
			continue
		}
		for _, node := range dead {
			w.takeOver(ctx, node)
		}
		doubtful := time.Since(time.Unix(0, w.doubt.Load())) < missedDoubt
		if doubtful || time.Since(looked) > missedEvery {
			looked = time.Now()
			w.missed(ctx)
		}
		rest(beating, beatEvery)
	}
}

// Ready tells whether the worker works: its heart beats, so that it is handed
// deliveries and keeps them.
func (w *Worker) Ready() error {
	last := w.beatAt.Load()
	if last == 0 {
		return errors.New("the worker has not begun yet")
	}
	if late := time.Since(time.Unix(0, last)); late > readyBeats {
		return fmt.Errorf("the worker's last heartbeat was %s ago", late.Round(time.Second))
	}
	return nil
}

// beaten says once that the store is away, for all loops, and once that it is
// back.
func (w *Worker) beaten(ctx context.Context, away time.Time, err error) time.Time {
	switch {
	case err != nil && ctx.Err() == nil && away.IsZero():
		w.log.Warn("the store is away: nothing is sent until it is back", "error", err)
		return time.Now()
	case err == nil && !away.IsZero():
		w.log.Info("the store is back", "after", time.Since(away).Round(time.Millisecond))
		return time.Time{}
	}
	return away
}

func (w *Worker) missed(ctx context.Context) {
	leases, err := w.queue.Missed(ctx, w.allLanes(), missedIdle, func(partition int, lane Lane, entry string) bool {
		_, held := w.held.Load(heldEntry{partition, lane, entry})
		return held
	})
	if err != nil && ctx.Err() == nil {
		w.log.Warn("cannot look for leases that were lost on the way; trying again", "error", err)
		w.doubt.Store(time.Now().UnixNano())
	}
	if len(leases) > 0 {
		w.log.Info("found leases that were lost on the way", "deliveries", len(leases))
	}
	for _, l := range leases {
		w.start(l)
	}
}

func (w *Worker) allLanes() []Lane { return slices.Collect(maps.Keys(w.lanes)) }

func (w *Worker) takeOver(ctx context.Context, node string) {
	leases, err := w.queue.TakeOver(ctx, node, w.allLanes())
	if err != nil {
		w.log.Warn("cannot take over from a dead node; trying again", "node", node, "error", err)
	}
	if len(leases) > 0 {
		w.log.Info("took over from a dead node", "node", node, "deliveries", len(leases))
	}
	for _, l := range leases {
		w.start(l)
	}
}

// watchTargets keeps the lanes' states: parked, or beyond their backlog.
func (w *Worker) watchTargets(ctx context.Context) {
	var swept time.Time
	for ; ctx.Err() == nil; rest(ctx, beatEvery) {
		parked, err := w.svc.store.Parked(ctx)
		if err != nil {
			continue // the beat says so already; the states stay as they were
		}
		backlog, err := w.svc.store.Backlog(ctx)
		if err != nil {
			continue
		}
		for _, t := range w.svc.Targets {
			l := w.lanes[TargetLane(t.Name)]
			_, is := parked[t.Name]
			l.paused.Store(is)
			over := backlog[l.name] > t.MaxBacklog
			if over && !l.shedding.Load() {
				w.log.Error("a target's backlog is beyond max_backlog; its oldest deliveries become dead letters", "target", t.Name, "backlog", backlog[l.name])
			}
			l.shedding.Store(over)
		}
		if time.Since(swept) > sweepEvery {
			swept = time.Now()
			w.sweep(ctx, backlog)
		}
	}
}

// sweep forgets what is owed to targets that are configured no more. Not at once:
// while an update is under way other nodes may know a target that this one does
// not.
func (w *Worker) sweep(ctx context.Context, backlog map[Lane]int) {
	for l, owed := range backlog {
		if w.lanes[l] != nil {
			continue
		}
		dropped, err := w.queue.Forget(ctx, l)
		switch {
		case err != nil && ctx.Err() == nil:
			w.log.Warn("cannot look through the deliveries of a target that is not configured; trying again", "lane", l, "error", err)
		case dropped > 0:
			w.log.Error("deliveries of a target that is not configured were dropped: retention.deliveries is over", "lane", l, "dropped", dropped)
		case owed > 0:
			w.log.Warn("deliveries of a target that is not configured here wait for it until retention.deliveries is over", "lane", l, "owed", owed)
		}
	}
}
