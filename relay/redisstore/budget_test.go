package redisstore

import (
	"context"
	"net"
	"testing"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/budget"
)

// allocations of one operation, up to the client's connection; see package budget.
var allocations = map[string]float64{
	"an event arrives":     106,
	"a challenge arrives":  84,
	"a forward is settled": 35,
	"a challenge is moved": 50,
}

// answers stands for Redis: every command has the same answer, and is not sent.
type answers struct{ value any }

func (answers) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (a answers) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		cmd.(*redis.Cmd).SetVal(a.value)
		return nil
	}
}

func (answers) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func TestBudget(t *testing.T) {
	store := func(answer any) (*storetest.World, *Store) {
		const nowhere = "redis://127.0.0.1:1"
		w, _ := world(t, nowhere) // whose own store is watched, which allocates
		s, err := Open(testOptions(t, nowhere, "b", w.Now))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		s.rdb.AddHook(answers{answer})
		return w, s
	}
	arrives := func(operation string, build func(*storetest.World) relay.Arrival) {
		w, n := store([]any{"evt_first", int64(0), "one", int64(0), []any{}})
		a := build(w)
		budget.Allocations(t, allocations, operation, func() {
			if _, err := n.Arrive(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		})
	}
	arrives("an event arrives", func(w *storetest.World) relay.Arrival {
		a := w.Teaching("c", "one", w.Now())
		a.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", a.Event)}
		return a
	})
	arrives("a challenge arrives", func(w *storetest.World) relay.Arrival { return realistic(w, "c", "one") })

	w, n := store([]any{"ok", []any{}})
	commits := func(operation string, st relay.Step) {
		budget.Allocations(t, allocations, operation, func() {
			if err := n.Commit(t.Context(), st); err != nil {
				t.Fatal(err)
			}
		})
	}
	ev := w.Event("c", "one")
	l := relay.Lease{Delivery: w.Delivery(relay.KindForward, "core", ev.Event), Partition: ev.Partition, Entry: "1-0"}
	commits("a forward is settled", relay.Step{Partition: l.Partition, Settle: &l, Delivery: w.Tried(l, relay.DeliveryDelivered, w.Now())})
	c := realistic(w, "c", "one").Challenge
	c.Status = relay.Confirming
	p, _ := relay.PartitionOf(c.ID)
	commits("a challenge is moved", relay.Step{Partition: p, Challenge: c, From: relay.Pending})
}
