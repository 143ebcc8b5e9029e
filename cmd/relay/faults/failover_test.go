package faults

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest/redistest"
)

// Two nodes under load lose the master that holds some of their partitions, or
// all of them. With wait_replicas nothing that was acknowledged is lost.

func TestClusterFailover(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	w := failingOver(t, c.URL)
	partition := 3
	// Each master has one replica, so the promoted one acknowledges nothing until
	// it has one again: the old master comes back.
	w.failOver(partition, func() (promoted func() bool) {
		key := fmt.Sprintf("relay:{p%02d}:due", partition)
		old := c.MasterOf(key)
		old.Kill()
		return func() bool {
			if c.MasterOf(key) == old {
				return false
			}
			old.Restart()
			return true
		}
	})
}

func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	w := failingOver(t, s.URL)
	w.failOver(0, func() (promoted func() bool) {
		old := s.Master()
		old.Kill()
		return func() bool { return s.Master() != old }
	})
}

func failingOver(t *testing.T, url string) *world {
	t.Helper()
	w := newWorld(t, setup{nodes: 2, redisURL: url, waitReplicas: 1, ttl: 10 * time.Second, rate: 60, challengeRate: 6, seed: 1})
	for _, n := range w.nodes {
		if !n.start(0) || !n.awaitReady("its start") {
			t.FailNow()
		}
	}
	w.enrol(t.Context())
	return w
}

// failOver kills a master under load, and measures until a webhook of one of its
// partitions is acknowledged again. kill returns what tells that another master
// has taken its place.
func (w *world) failOver(partition int, kill func() (promoted func() bool)) {
	const before, after, limit = 3 * time.Second, 5 * time.Second, 30 * time.Second
	card := ""
	for n := 0; card == ""; n++ {
		if id := fmt.Sprintf("probe-%d", n); (relay.Holder{Merchant: "acme", CardID: id}).Partition(8) == partition {
			card = id
		}
	}
	ctx, stop := context.WithCancel(w.t.Context())
	defer stop()
	var load sync.WaitGroup
	begin := time.Now()
	load.Go(func() { w.load(ctx) })
	pause(ctx, before)

	const kind = "master killed"
	w.active.begin(kind)
	killed := time.Now()
	promoted := kill()
	if !until(limit, promoted) {
		w.t.Errorf("no other master has taken its place within %s", limit)
	}
	took := time.Since(killed)
	probes := 0
	if !until(limit, func() bool {
		probes++
		a, err := w.issuer.Post(ctx, w.nodes[0].base(), "PROBE", map[string]any{"card_id": card, "transaction_id": fmt.Sprint(probes)})
		return err == nil && a.Status == http.StatusOK
	}) {
		w.t.Errorf("webhooks of the dead master's partitions are not taken %s after it was replaced", limit)
	}
	w.t.Logf("another master after %.1fs, webhooks acknowledged again after %.1fs", took.Seconds(), time.Since(killed).Seconds())
	w.ledger.outage(killed, time.Now())
	w.active.end(kind)
	pause(ctx, after)
	stop()
	load.Wait()
	w.report.Load = seconds(time.Since(begin))
	w.finish()
}
