package redisstore

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// BenchmarkLookups asks what an operator asks, with a million records in Redis.
//
//	go test ./relay/redisstore -run '^$' -bench Lookups -timeout 30m
func BenchmarkLookups(b *testing.B) {
	const many, cards, writers = 1_000_000, 50_000, 32
	o := testOptions(b, redistest.Start(b).URL, "bench", nil)
	o.Partitions = 16
	n := open(b, o)
	w := storetest.NewWorld(b, func(func() time.Time, string) storetest.Backend { return n })
	w.Advance(time.Since(w.Now())) // indexes are trimmed by the store's clock
	types := []string{"CARD_STATUS_CHANGE", "CARD_RECHARGE_RESULT", "TRANSACTION_CREATED"}
	var all sync.WaitGroup
	for at := range writers {
		all.Go(func() {
			for i := at; i < many; i += writers {
				a := w.Event(fmt.Sprint("card-", i%cards), fmt.Sprint("user-", i%cards))
				a.Fingerprint = nil
				switch {
				case i%1000 == 0:
					a.Event.Type = "CARD_CLOSE_RESULT"
				case i%997 == 0:
					a.Event.Outcome = relay.OutcomeQuarantined
				default:
					a.Event.Type = types[i%len(types)]
				}
				if _, err := n.Arrive(b.Context(), a); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	page := relay.Range{Limit: 50}
	middle, next, err := n.Events(b.Context(), relay.EventQuery{Range: relay.Range{Limit: 50, Until: time.Now().Add(-30 * time.Second)}})
	if err != nil || len(middle) == 0 {
		b.Fatalf("%d events half a minute ago, %v", len(middle), err)
	}
	card := []relay.Holder{{Merchant: storetest.Merchant, CardID: "card-7"}}
	user := []relay.Holder{{Merchant: storetest.Merchant, UserID: "user-7"}}
	for name, q := range map[string]relay.EventQuery{
		"all": {Range: page}, "next page, in the middle": {Range: relay.Range{Limit: 50, Cursor: next}},
		"card": {Range: page, Holders: card}, "user": {Range: page, Holders: user},
		"rare type": {Range: page, Type: "CARD_CLOSE_RESULT"}, "quarantined": {Range: page, Outcome: relay.OutcomeQuarantined},
	} {
		b.Run("events/"+name, func(b *testing.B) {
			for b.Loop() {
				if list, _, err := n.Events(b.Context(), q); err != nil || len(list) == 0 {
					b.Fatalf("%d events, %v", len(list), err)
				}
			}
		})
	}
	lanes := []relay.Lane{relay.LaneTasks, relay.LanePush, relay.LaneConfirm, relay.LaneLock, relay.TargetLane("core")}
	for name, ask := range map[string]func() error{
		"counts": func() error { _, err := n.Counts(b.Context()); return err },
		"lanes":  func() error { _, err := n.Lanes(b.Context(), lanes); return err },
		"sizes":  func() error { _, err := n.Sizes(b.Context(), lanes); return err },
		"by id":  func() error { _, err := n.Event(b.Context(), middle[0].ID); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
