package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

var core = relay.TargetLane("core")

// owing is an event that owes one forward to core.
func owing(w *storetest.World) relay.Arrival {
	a := w.Event("c", "")
	a.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", a.Event)}
	return a
}

// TestLostGroups loses the groups of the lanes in every way that Redis has, and
// reads on.
func TestLostGroups(t *testing.T) {
	t.Parallel()
	ways := map[string]func(ctx context.Context, n node, stream string) error{
		"flushed": func(ctx context.Context, n node, _ string) error { return n.rdb.FlushAll(ctx).Err() },
		"deleted": func(ctx context.Context, n node, stream string) error { return n.rdb.Del(ctx, stream).Err() },
		"group destroyed": func(ctx context.Context, n node, stream string) error {
			return n.rdb.XGroupDestroy(ctx, stream, group).Err()
		},
	}
	for backend, url := range map[string]string{"embedded": "redis://" + miniredis.RunT(t).Addr(), "redis": redistest.Start(t).URL} {
		for way, lose := range ways {
			t.Run(backend+"/"+way, func(t *testing.T) { // one after the other: they flush
				w, n := world(t, url)
				first := owing(w)
				w.Arrive(n, first)
				stream := n.keys.lane(first.Partition, core)
				w.Settle(n, w.LeaseOne(n, first.Partition, core), nil)
				if err := lose(t.Context(), n, stream); err != nil {
					t.Fatal(err)
				}
				second := owing(w)
				w.Arrive(n, second)
				if got := w.LeaseOne(n, second.Partition, core); got.Delivery.ID != second.Owe[0].ID {
					t.Errorf("handed out %s, want what was owed before there was a group, %s", got.Delivery.ID, second.Owe[0].ID)
				}
			})
			t.Run(backend+"/"+way+" under a waiting reader", func(t *testing.T) {
				w, n := world(t, url)
				a := owing(w)
				if got := w.Lease(n, a.Partition, core); len(got) != 0 {
					t.Fatalf("handed out %+v at first", got)
				}
				got := make(chan relay.Lease)
				go readOn(t, n, a.Partition, got)
				poll(t, "the reader waits", func() bool { return blocked(t, n) })
				if err := lose(t.Context(), n, n.keys.lane(a.Partition, core)); err != nil {
					t.Fatal(err)
				}
				w.Arrive(n, a)
				if l := receive(t, got); l.Delivery.ID != a.Owe[0].ID {
					t.Errorf("handed out %s, want %s", l.Delivery.ID, a.Owe[0].ID)
				}
			})
		}
	}
}

// readOn reads as the worker does, until the test ends.
func readOn(t *testing.T, n node, partition int, got chan<- relay.Lease) {
	for t.Context().Err() == nil {
		leases, err := n.Lease(t.Context(), partition, []relay.Lane{core}, time.Second)
		if err != nil && !errors.Is(err, relay.ErrUnavailable) && t.Context().Err() == nil {
			t.Errorf("Lease: %v", err)
			return
		}
		for _, l := range leases {
			select {
			case got <- l:
			case <-t.Context().Done():
				return
			}
		}
	}
}

// receive waits for a lease that must come.
func receive(t *testing.T, got <-chan relay.Lease) relay.Lease {
	t.Helper()
	select {
	case l := <-got:
		return l
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is handed out any more")
	}
	return relay.Lease{}
}

// blocked tells whether a reader waits in Redis; the embedded one does not tell.
func blocked(t *testing.T, n node) bool {
	info, err := n.rdb.Info(t.Context(), "clients").Result()
	if err != nil {
		t.Fatal(err)
	}
	var count int
	for line := range strings.Lines(info) {
		if _, err := fmt.Sscanf(line, "blocked_clients:%d", &count); err == nil {
			return count > 0
		}
	}
	return true
}

func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, n := world(t, server.URL)
	c := w.Challenge("c", "one", "")
	w.Arrive(n, c)
	a := owing(w)
	w.Arrive(n, a)
	held := w.LeaseOne(n, a.Partition, core)

	resyncs, got := make(chan struct{}, 16), make(chan relay.Lease)
	go n.Changes(t.Context(), func(relay.User, string) {}, func() { resyncs <- struct{}{} })
	resync := func(when string) {
		t.Helper()
		select {
		case <-resyncs:
		case <-time.After(20 * time.Second):
			t.Fatalf("no resync %s", when)
		}
	}
	resync("at first")
	go readOn(t, n, a.Partition, got)
	server.Kill()
	unknown := owing(w) // it may have been written: the answer does not say so
	if _, err := n.Arrive(t.Context(), unknown); !errors.Is(err, relay.ErrUnavailable) {
		t.Errorf("Arrive without Redis: %v, want ErrUnavailable", err)
	}
	server.Restart()
	resync("after the restart, when changes may have been missed")
	poll(t, "Redis answers again", func() bool { return n.Ping(t.Context()) == nil })

	if got := w.Load(n, c.Challenge.ID); got.Status != relay.Pending {
		t.Errorf("the challenge is %s after the restart, want pending", got.Status)
	}
	next := owing(w)
	w.Arrive(n, next)
	l := receive(t, got)
	if l.Delivery.ID == unknown.Owe[0].ID {
		l = receive(t, got)
	}
	if l.Delivery.ID != next.Owe[0].ID {
		t.Errorf("handed out %s after the restart, want %s", l.Delivery.ID, next.Owe[0].ID)
	}
	w.Settle(n, held, w.Tried(held, relay.DeliveryDelivered, time.Time{}))
}

func TestRedisHangs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, n := world(t, server.URL)
	w.Arrive(n, owing(w))
	a := owing(w)
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := n.Arrive(ctx, a); !errors.Is(err, relay.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Arrive at a hanging Redis: %v, want ErrUnavailable and the deadline", err)
	}
	server.Cont()
	// Redis may have run it after all; the issuer sends it again.
	again := w.Event("c", "")
	again.Fingerprint = a.Fingerprint
	if got, err := n.Arrive(t.Context(), again); err != nil || got.EventID != a.Event.ID && got.EventID != again.Event.ID {
		t.Errorf("sent again: %+v, %v", got, err)
	}
}

func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	w, n := world(t, redistest.Start(t).URL)
	c := w.Challenge("c", "", "")
	a := owing(w)
	later := owing(w)
	later.Owe[0].Next = w.Now().Add(time.Second)
	dead := owing(w)
	for _, a := range []relay.Arrival{c, a, later, dead} {
		w.Arrive(n, a)
	}
	leases := w.Lease(n, a.Partition, core)
	w.Settle(n, leases[1], w.Tried(leases[1], relay.DeliveryDead, time.Time{}))
	announce := w.LeaseOne(n, c.Partition, relay.LaneTasks)
	if _, err := n.Root(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}

	for what, a := range map[string]relay.Arrival{"event": owing(w), "challenge": w.Challenge("c", "", ""), "teaching": w.Teaching("c", "one", w.Now())} {
		for _, fingerprint := range [][]byte{a.Fingerprint, nil} {
			a.Fingerprint = fingerprint
			if _, err := n.Arrive(t.Context(), a); !errors.Is(err, relay.ErrUnavailable) {
				t.Errorf("Arrive of a %s without memory: %v, want ErrUnavailable", what, err)
			}
			if _, err := n.Event(t.Context(), a.Event.ID); !errors.Is(err, relay.ErrNotFound) {
				t.Errorf("a refused %s has left its event: %v", what, err)
			}
		}
	}
	// What was sent is settled, whatever it leads to.
	w.Settle(n, leases[0], w.Tried(leases[0], relay.DeliveryPending, w.Now().Add(time.Second)))
	next := w.Load(n, c.Challenge.ID)
	next.Announced = true
	w.Commit(n, relay.Step{Partition: announce.Partition, Settle: &announce, Challenge: &next, Owe: []relay.Delivery{w.Delivery(relay.KindPush, "sub", c.Event)}})
	w.Advance(time.Second)
	w.Due(n, a.Partition)
	if err := n.Replay(t.Context(), leases[1].Delivery.ID); err != nil {
		t.Errorf("Replay without memory: %v", err)
	}
	if got := w.Lease(n, a.Partition, core, relay.LanePush); len(got) != 4 {
		t.Errorf("%d deliveries are handed out, want a retry, one later, a replay and a push", len(got))
	}
	// What people decide gets through, too.
	for _, status := range []relay.Status{relay.Confirming, relay.Approved} {
		w.End(n, c.Challenge.ID, status)
	}
	u := relay.User{Merchant: storetest.Merchant, ID: "one"}
	if err := n.SaveDevices(t.Context(), relay.Devices{User: u, List: []relay.Subscription{{ID: "sub", Active: true}}}); err != nil {
		t.Errorf("SaveDevices without memory: %v", err)
	}
	if err := n.IndexCard(t.Context(), u, "c"); err != nil {
		t.Errorf("IndexCard without memory: %v", err)
	}
	if err := n.Park(t.Context(), "core", true, "gone"); err != nil {
		t.Errorf("Park without memory: %v", err)
	}
	// And nodes start, live and die as always.
	b := w.Node("b")
	if _, err := b.Root(t.Context()); err != nil {
		t.Errorf("Root without memory: %v", err)
	}
	w.Lease(b, a.Partition, relay.TargetLane("new"))
	if err := n.Leave(t.Context()); err != nil {
		t.Errorf("Leave without memory: %v", err)
	}
	if dead, err := b.Beat(t.Context()); err != nil || len(dead) != 1 {
		t.Errorf("Beat without memory = %v, %v, want the node that left", dead, err)
	}
	if taken, err := b.TakeOver(t.Context(), "a", []relay.Lane{core, relay.LanePush}); err != nil || len(taken) != 4 {
		t.Errorf("TakeOver without memory = %d, %v, want 4", len(taken), err)
	}

	if err := n.rdb.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	w.Arrive(n, owing(w))
}

func TestWaitReplicas(t *testing.T) {
	t.Parallel()
	server, cluster := redistest.Start(t, "--repl-diskless-sync-delay", "0"), startCluster(t)
	one := func(o *Options) { o.WaitReplicas = 1 }
	for name, url := range map[string]string{"redis": server.URL, "cluster": cluster} {
		t.Run(name+" without a replica", func(t *testing.T) {
			w, n := world(t, url, one)
			if _, err := n.Arrive(t.Context(), w.Event("c", "")); !errors.Is(err, relay.ErrUnavailable) {
				t.Errorf("Arrive: %v, want ErrUnavailable", err)
			}
		})
	}
	t.Run("with a replica", func(t *testing.T) {
		host, port, err := net.SplitHostPort(server.Addr)
		if err != nil {
			t.Fatal(err)
		}
		replica := redistest.Start(t, "--replicaof", host+" "+port)
		c := redis.NewClient(&redis.Options{Addr: replica.Addr})
		defer c.Close()
		master := redis.NewClient(&redis.Options{Addr: server.Addr})
		defer master.Close()
		poll(t, "the replica follows", func() bool {
			info, err := master.Info(t.Context(), "replication").Result()
			return err == nil && strings.Contains(info, "state=online")
		})
		w, n := world(t, server.URL, one)
		a := owing(w)
		w.Arrive(n, a)
		if err := c.Get(t.Context(), n.keys.of(a.Partition, a.Event.ID)).Err(); err != nil {
			t.Errorf("acknowledged, but the replica has no event: %v", err)
		}
		w.Settle(n, w.LeaseOne(n, a.Partition, core), nil)
	})
}
