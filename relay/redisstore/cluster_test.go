package redisstore

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// callTime is what the API gives a call of the store at most.
const callTime = 1800 * time.Millisecond

// arriver sends events that owe a forward, one after the other, and notes what
// became of them.
type arriver struct {
	acknowledged []relay.Arrival
	refused      int
	longest      time.Duration // one call
	gap          time.Duration // between two that were acknowledged
}

// run until stop is closed.
func (a *arriver) run(t *testing.T, w *storetest.World, n node, card string, stop <-chan struct{}) {
	last := time.Now()
	for {
		select {
		case <-stop:
			return
		default:
		}
		next := w.Event(card, "")
		next.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", next.Event)}
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), callTime)
		got, err := n.Arrive(ctx, next)
		cancel()
		now := time.Now()
		a.longest = max(a.longest, now.Sub(begin))
		switch {
		case errors.Is(err, relay.ErrUnavailable):
			a.refused++
			rest(t.Context(), 5*time.Millisecond)
		case err != nil || got.Duplicate || got.EventID != next.Event.ID:
			t.Errorf("Arrive = %+v, %v", got, err)
			return
		default:
			a.acknowledged = append(a.acknowledged, next)
			a.gap = max(a.gap, now.Sub(last))
			last = now
		}
	}
}

// cards are one of each partition.
func cards(t *testing.T) [testPartitions]string {
	t.Helper()
	var found [testPartitions]string
	for c := 'a'; c <= 'z'; c++ {
		found[relay.Holder{Merchant: storetest.Merchant, CardID: string(c)}.Partition(testPartitions)] = string(c)
	}
	for p, c := range found {
		if c == "" {
			t.Fatalf("no card is in partition %d", p)
		}
	}
	return found
}

// failOver lets some goroutines for each partition send events while fail makes
// another server the master of what the first one's keys are on. Nothing that
// was acknowledged may be lost, and all goes on by itself.
func failOver(t *testing.T, url, prefix string, fail func(key string)) {
	w, n := world(t, url, func(o *Options) { o.Prefix = prefix })
	changed, resynced := make(chan string, 64), make(chan struct{}, 64)
	go n.Changes(t.Context(), func(_ relay.User, id string) { changed <- id }, func() { resynced <- struct{}{} })
	<-resynced

	// A reader waits all the while, as a worker does.
	cards := cards(t)
	const waiting = "waiting" // a target of its own
	leased := make(chan relay.Lease, 64)
	go func() {
		for t.Context().Err() == nil {
			got, err := n.Lease(t.Context(), 0, []relay.Lane{relay.TargetLane(waiting)}, time.Second)
			if err != nil {
				rest(t.Context(), 50*time.Millisecond)
			}
			for _, l := range got {
				leased <- l
			}
		}
	}()

	stop := make(chan struct{})
	const each = maxBatches + 2 // so that some travel together
	var arrivers [each * testPartitions]arriver
	var running sync.WaitGroup
	for i := range arrivers {
		running.Go(func() { arrivers[i].run(t, w, n, cards[i%testPartitions], stop) })
	}
	rest(t.Context(), 200*time.Millisecond)
	fail(n.keys.due(0))
	began := time.Now()
	poll(t, "arrivals of all partitions are acknowledged again", func() bool {
		for p := range testPartitions {
			ctx, cancel := context.WithTimeout(t.Context(), callTime)
			_, err := n.Arrive(ctx, w.Event(cards[p], ""))
			cancel()
			if err != nil {
				return false
			}
		}
		return true
	})
	t.Logf("all partitions answer %s after that", time.Since(began).Round(time.Millisecond))
	rest(t.Context(), 200*time.Millisecond)
	close(stop)
	running.Wait()

	refused := 0
	var kept [testPartitions][]relay.Arrival
	for i, a := range arrivers {
		p := i % testPartitions
		t.Logf("partition %d: %d acknowledged, %d refused, the longest gap %s, the longest call %s", p, len(a.acknowledged), a.refused, a.gap.Round(time.Millisecond), a.longest.Round(time.Millisecond))
		refused += a.refused
		if a.longest > 2*time.Second {
			t.Errorf("a call took %s: the ingress must answer within two seconds", a.longest)
		}
		kept[p] = append(kept[p], a.acknowledged...)
	}
	for p, all := range kept {
		checkKept(t, w, n, p, all)
	}
	if refused == 0 {
		t.Error("nothing was refused: the master did not fail")
	}

	// The reader and the subscriber have gone on.
	late := w.Event(cards[0], "")
	late.Owe = []relay.Delivery{w.Delivery(relay.KindForward, waiting, late.Event)}
	w.Arrive(n, late)
	if l := receive(t, leased); l.Delivery.ID != late.Owe[0].ID {
		t.Errorf("the reader is handed %s, want %s", l.Delivery.ID, late.Owe[0].ID)
	}
	poll(t, "changes are told again", func() bool {
		w.Arrive(n, w.Challenge(cards[0], "one", ""))
		select {
		case <-changed:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
	t.Logf("reads and changes go on %s after that", time.Since(began).Round(time.Millisecond))
	if len(resynced) == 0 {
		t.Error("no resync, although changes may have been missed")
	}
}

// checkKept fails unless every event can be read and what it owes is handed out.
func checkKept(t *testing.T, w *storetest.World, n node, p int, kept []relay.Arrival) {
	t.Helper()
	if len(kept) == 0 {
		t.Errorf("partition %d: nothing was acknowledged", p)
	}
	owed := map[string]bool{}
	for {
		var leases []relay.Lease
		poll(t, "the readers are connected again", func() bool {
			var err error
			leases, err = n.Lease(t.Context(), p, []relay.Lane{core}, 10*time.Millisecond)
			return err == nil
		})
		if len(leases) == 0 {
			break
		}
		for _, l := range leases {
			owed[l.Delivery.ID] = true
		}
	}
	for _, a := range kept {
		if _, err := n.Event(t.Context(), a.Event.ID); err != nil {
			t.Fatalf("%s was acknowledged, and cannot be read: %v", a.Event.ID, err)
		}
		if !owed[a.Owe[0].ID] {
			t.Fatalf("%s was acknowledged, and what it owes is not handed out", a.Event.ID)
		}
	}
}

// TestClusterFailsOver starts the dead master again when its replica has taken
// over: until then the new master has no replica to wait for.
func TestClusterFailsOver(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, noFsync...)
	// The subscription must be on the master that dies, too.
	prefix := t.Name()
	for k := newKeys(prefix); c.MasterOf(k.changes()) != c.MasterOf(k.due(0)); k = newKeys(prefix) {
		prefix += "x"
	}
	failOver(t, c.URL, prefix, func(key string) {
		old, began := c.MasterOf(key), time.Now()
		old.Kill()
		poll(t, "the replica is the master", func() bool { return c.MasterOf(key) != old })
		t.Logf("the cluster has failed over after %s", time.Since(began).Round(time.Millisecond))
		old.Restart()
	})
}

func TestSentinelFailsOver(t *testing.T) {
	t.Parallel()
	c := redistest.StartSentinel(t, noFsync...)
	failOver(t, c.URL, t.Name(), func(string) { c.Master().Kill() })
}

// TestSentinelHangs: the sentinel that the client listens to hangs when the
// master dies.
func TestSentinelHangs(t *testing.T) {
	t.Parallel()
	c := redistest.StartSentinel(t, noFsync...)
	_, n := world(t, c.URL)
	if err := n.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	var used *redistest.Server
	for _, s := range c.Sentinels {
		sentinel := redis.NewClient(&redis.Options{Addr: s.Addr})
		defer sentinel.Close()
		clients, err := sentinel.ClientList(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(clients, " sub=2 ") {
			used = s
		}
	}
	if used == nil {
		t.Fatal("the client listens to no sentinel")
	}
	used.Stop()
	c.Master().Kill()
	began := time.Now()
	poll(t, "Redis answers again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), callTime)
		defer cancel()
		return n.Ping(ctx) == nil
	})
	t.Logf("it answers %s after the failure", time.Since(began).Round(time.Millisecond))
}

// TestUnreplicatedDuplicate: what too few replicas have is not acknowledged when
// it comes again, although nothing is written then.
func TestUnreplicatedDuplicate(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, noFsync...)
	w, n := world(t, c.URL)
	a := w.Event("c", "")
	master := c.MasterOf(n.keys.due(a.Partition))
	var replica *redistest.Server
	for i, s := range c.Nodes[:3] {
		if s == master {
			replica = c.Nodes[3+i]
		}
	}
	replica.Stop()
	again := w.Event("c", "")
	again.Fingerprint = a.Fingerprint
	for i, next := range []relay.Arrival{a, again} {
		if got, err := n.Arrive(t.Context(), next); !errors.Is(err, relay.ErrUnavailable) {
			t.Errorf("arrival %d without the replica: %+v, %v, want ErrUnavailable", i+1, got, err)
		}
		if err := n.rdb.Get(t.Context(), n.keys.of(a.Partition, a.Event.ID)).Err(); err != nil {
			t.Fatalf("the master has not written it: %v", err)
		}
	}
	replica.Cont()
	var got relay.Arrived
	poll(t, "it is acknowledged", func() bool {
		var err error
		got, err = n.Arrive(t.Context(), again)
		return err == nil
	})
	if !got.Duplicate || got.EventID != a.Event.ID {
		t.Errorf("sent again: %+v, want a duplicate of %s", got, a.Event.ID)
	}
}
