package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"approvalrelay/cmd/relay/sim"
)

// moodShare is how much of a party's messages a fault of it hits.
const moodShare = 0.7

// mood is how a party behaves while it has a fault.
type mood struct {
	mu   sync.Mutex
	r    *rand.Rand
	does sim.Behaviour
}

func (m *mood) next() sim.Behaviour {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.r.Float64() < moodShare {
		return m.does
	}
	return sim.Behaviour{}
}

// set gives a party a mood; nil: it behaves well again.
type set func(*world, *mood)

func setDownstream(which func(*world) *sim.Downstream) set {
	return func(w *world, m *mood) {
		if m == nil {
			which(w).Behave(nil)
			return
		}
		which(w).Behave(func(int, string) sim.Behaviour { return m.next() })
	}
}

func setIssuer(w *world, m *mood) {
	if m == nil {
		w.issuer.Behave(nil)
		return
	}
	w.issuer.Behave(func(int, string) sim.Behaviour { return m.next() })
}

func setPush(w *world, m *mood) { w.pushMood.Store(m) }

// pushBehaviour is the script of the push service. A subscription that has ended
// never comes back.
func (w *world) pushBehaviour(_ int, d *sim.Device) sim.Behaviour {
	if _, gone := w.gone.Load(d); gone {
		return sim.Behaviour{Status: http.StatusGone}
	}
	if m := w.pushMood.Load(); m != nil {
		return m.next()
	}
	return sim.Behaviour{}
}

func partyFaults() []fault {
	core := setDownstream(func(w *world) *sim.Downstream { return w.core })
	flaky := setDownstream(func(w *world) *sim.Downstream { return w.flaky })
	row := func(party string, set set, name string, does sim.Behaviour) fault {
		return fault{party + " " + name, partyTrack, func(ctx context.Context, w *world, r *rand.Rand, d time.Duration) {
			set(w, &mood{r: r, does: does})
			pause(ctx, d)
			set(w, nil)
		}}
	}
	var all []fault
	for _, p := range []struct {
		name string
		set  set
	}{{"core", core}, {"push", setPush}, {"issuer", setIssuer}} {
		all = append(all,
			row(p.name, p.set, "slow", sim.Behaviour{Delay: time.Second}),
			row(p.name, p.set, "500", sim.Behaviour{Status: http.StatusInternalServerError}),
			row(p.name, p.set, "429", sim.Behaviour{Status: http.StatusTooManyRequests, RetryAfter: "1"}),
			row(p.name, p.set, "reset", sim.Behaviour{Reset: true}),
			row(p.name, p.set, "half", sim.Behaviour{Half: true}),
			row(p.name, p.set, "hang", sim.Behaviour{Hang: true}))
	}
	parked := row("core", core, "410", sim.Behaviour{Status: http.StatusGone})
	park := parked.do
	parked.do = func(ctx context.Context, w *world, r *rand.Rand, d time.Duration) {
		park(ctx, w, r, d)
		w.resumeCore()
	}
	return append(all, parked,
		fault{"push 410 for a device", partyTrack, func(ctx context.Context, w *world, r *rand.Rand, d time.Duration) {
			w.endDevice(r)
			pause(ctx, d)
		}},
		row("issuer", setIssuer, "wrongly signed", sim.Behaviour{BadHMAC: true}),
		row("flaky", flaky, "500", sim.Behaviour{Status: http.StatusInternalServerError}),
		row("flaky", flaky, "hang", sim.Behaviour{Hang: true}))
}

// endDevice ends the subscription of a device that got a challenge before.
func (w *world) endDevice(r *rand.Rand) {
	all := w.push.Notifications()
	for range all {
		n := all[r.IntN(len(all))]
		_, activation := n.Payload["activation"]
		if _, gone := w.gone.Load(n.Device); gone || activation || n.Payload == nil || n.Device == nil {
			continue
		}
		w.ledger.deviceGone(n.Device)
		w.gone.Store(n.Device, true)
		return
	}
	w.t.Error("there is no device left whose subscription could end: the fault is none")
}

// resumeCore lets the target core go on that a 410 has parked. A node may park it
// once more: it had its 410 before, and could not reach Redis until now.
func (w *world) resumeCore() {
	why := "not tried"
	calm := 0
	resume := func() bool {
		calm++
		if parked, err := w.rdb.HExists(context.Background(), "relay:parked", "core").Result(); err != nil || parked {
			calm, why = 0, fmt.Sprintf("parked: %v, %v", parked, err)
			for _, n := range w.nodes {
				res, err := probe.Post(n.admin()+"/ops/v1/targets/core/resume", "application/json", nil)
				if err != nil {
					why = err.Error()
					continue
				}
				_ = res.Body.Close()
				why = res.Status
				break
			}
		}
		return calm == 25 // half a second
	}
	if !until(time.Minute, resume) {
		w.t.Errorf("the target core cannot be resumed: %s", why)
	}
}
