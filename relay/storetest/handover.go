package storetest

import (
	"testing"

	"approvalrelay/relay"
)

// handOver collects what is handed to a node, of lanes that are not closed.
type handOver struct {
	closed map[relay.Lane]bool
	leases []relay.Lease
	doubts int
}

func (h *handOver) taken() []relay.Lease {
	leases := h.leases
	h.leases = nil
	return leases
}

func testHandOver(t *testing.T, w *World) {
	h := handOver{closed: map[relay.Lane]bool{}}
	p, target := w.Event("c", "").Partition, relay.TargetLane("core")
	lanes := []relay.Lane{relay.LaneTasks, relay.LaneConfirm, target}
	w.nothing(w.a, "nobody has come", p, lanes...) // from now on the node is known, and its lanes have groups
	stop := w.a.HandOver(func(l relay.Lane) bool { return !h.closed[l] }, func(leases []relay.Lease, err error) {
		h.leases = append(h.leases, leases...)
		if err != nil {
			h.doubts++
		}
	})

	event := w.Event("c", "one")
	event.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", event.Event)}
	w.Arrive(w.a, event)
	forward := h.taken()
	if len(forward) != 1 || forward[0].Known != nil || forward[0].Partition != p {
		t.Fatalf("an event hands over %+v", forward)
	}
	equal(t, "the forward", forward[0].Delivery, event.Owe[0])
	w.nothing(w.a, "it was handed over", p, lanes...)
	w.Settle(w.a, forward[0], nil)
	equal(t, "doubts", h.doubts, 0)
	w.Arrive(w.a, event) // as when the answer was lost
	equal(t, "the same again hands over", len(h.taken()), 0)
	equal(t, "doubts about the same again", h.doubts, 1)

	c := w.Challenge("c", "one", "ref")
	w.Arrive(w.a, c)
	announce := h.taken()
	if len(announce) != 2 || announce[0].Delivery.Kind != relay.KindLearn || announce[1].Known == nil {
		t.Fatalf("a new card's challenge hands over %+v", announce)
	}
	w.Settle(w.a, announce[0], nil)
	announce = announce[1:]
	next := w.Load(w.a, c.Challenge.ID)
	equal(t, "the challenge", *announce[0].Known, next)
	next.Status = relay.Confirming
	confirm := w.Delivery(relay.KindConfirm, "", c.Event)
	confirm.ChallengeID = next.ID
	w.Commit(w.a, relay.Step{Partition: p, Settle: &announce[0], Challenge: &next, From: relay.Pending, Owe: []relay.Delivery{confirm}})
	handed := h.taken()
	if len(handed) != 1 || handed[0].Known == nil {
		t.Fatalf("a decision hands over %+v", handed)
	}
	equal(t, "the confirm", handed[0].Delivery, confirm)
	equal(t, "the decided challenge", *handed[0].Known, w.Load(w.a, next.ID))
	stale := relay.Step{Partition: p, Challenge: &next, From: relay.Pending, Owe: []relay.Delivery{confirm}}
	wantErr(t, "a lost race", w.a.Commit(t.Context(), stale), relay.ErrConflict)
	equal(t, "doubts after a lost race", h.doubts, 2)
	w.Settle(w.a, handed[0], nil)

	for _, end := range []func(){func() { h.closed[target] = true }, func() { h.closed[target] = false; stop() }} {
		end()
		late := w.Event("c", "one")
		late.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", late.Event)}
		w.Arrive(w.a, late)
		equal(t, "handed over at the end", len(h.taken()), 0)
		l := w.LeaseOne(w.a, p, target)
		equal(t, "what is read", l.Delivery, late.Owe[0])
		w.Settle(w.a, l, nil)
	}
}
