package faults

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"approvalrelay/cmd/relay/sim"
)

// BenchmarkIngressBesideHungParties measures what a downstream target, or a push
// service, that never answers does to the ingress: the three states take turns.
//
//	go test ./cmd/relay/faults -run '^$' -bench Ingress -benchtime 3x
func BenchmarkIngressBesideHungParties(b *testing.B) {
	w := newWorld(b, setup{nodes: 1, ttl: time.Minute})
	if !w.nodes[0].start(0) || !w.nodes[0].awaitReady("its start") {
		b.FailNow()
	}
	w.core.Keep(keep)
	w.push.Keep(keep)
	if !w.activate(b.Context(), 0, w.token("u1"), w.push.Subscribe(w.pushURL)) {
		b.Fatal("the device was not activated")
	}
	hang := sim.Behaviour{Hang: true}
	states := []struct {
		name string
		set  func()
	}{
		{"calm", func() {}},
		{"core-hangs", func() { w.core.Behave(func(int, string) sim.Behaviour { return hang }) }},
		{"push-hangs", func() { w.push.Behave(func(int, *sim.Device) sim.Behaviour { return hang }) }},
	}
	answers := make([][]time.Duration, len(states))
	sent := 0
	for b.Loop() {
		for i, s := range states {
			s.set()
			answers[i] = append(answers[i], w.postSteadily(b, &sent)...)
			w.core.Behave(nil)
			w.push.Behave(w.pushBehaviour)
			w.settleCore(b)
		}
	}
	p99 := func(i int) float64 {
		slices.Sort(answers[i])
		return float64(answers[i][len(answers[i])*99/100].Microseconds()) / 1000
	}
	for i, s := range states {
		b.ReportMetric(p99(i), s.name+"-p99-ms")
	}
	b.ReportMetric(p99(1)/p99(0), "core-hangs-ratio")
	b.ReportMetric(p99(2)/p99(0), "push-hangs-ratio")
	b.ReportMetric(0, "ns/op") // says nothing here
}

// postSteadily sends 200 webhooks a second for five seconds, every fourth a
// challenge, and returns how long each waited for its answer.
func (w *world) postSteadily(b *testing.B, sent *int) []time.Duration {
	b.Helper()
	const n, each = 1000, 5 * time.Millisecond
	answers := make([]time.Duration, n)
	var all sync.WaitGroup
	start := time.Now()
	for i := range n {
		due := start.Add(time.Duration(i) * each)
		pause(b.Context(), time.Until(due))
		*sent++
		typ, payload := transaction, map[string]any{"card_id": fmt.Sprint("c-", i%100), "transaction_id": fmt.Sprint("T-", *sent)}
		if i%4 == 0 {
			typ = "CARD_3DS"
			payload = map[string]any{"card_id": fmt.Sprint("p-", i%100), "user_id": "u1", "auth_id": fmt.Sprint("A-", *sent), "merchant_name": "Shop", "amount": "1.00", "currency": "EUR"}
		}
		all.Go(func() {
			a, err := w.issuer.Post(context.WithoutCancel(b.Context()), w.nodes[0].base(), typ, payload)
			if err != nil || a.Status != 200 {
				b.Errorf("%s: %d %v", typ, a.Status, err)
			}
			answers[i] = time.Since(due)
		})
	}
	all.Wait()
	return answers
}

// settleCore waits until nothing more comes to core, so that a state does not
// measure what the one before has left.
func (w *world) settleCore(b *testing.B) {
	b.Helper()
	last, since := -1, time.Now()
	if !until(2*time.Minute, func() bool {
		if n := w.core.Count() + w.push.Count(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 3*time.Second
	}) {
		b.Fatal("it never comes to rest")
	}
}
