package redisstore

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// TestEventInItsChallenge: an event that no target wants has no record beside its
// challenge's, and is found as if it had, for as long as events are kept.
func TestEventInItsChallenge(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	const short, long = 24 * time.Hour, 72 * time.Hour
	for _, c := range []struct {
		name               string
		events, challenges time.Duration
		wanted             bool
		records            int64
	}{
		{"as long", long, long, false, 0},
		{"shorter than challenges", short, long, false, 0},
		{"longer than challenges", long, short, false, 1},
		{"a target wants it", long, long, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, n := world(t, server.URL, func(o *Options) { o.Retention.Events, o.Retention.Challenges = c.events, c.challenges })
			a := w.Challenge("c", "one", "ref")
			a.Event.OccurredAt = a.Challenge.OccurredAt
			if c.wanted {
				a.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", a.Event)}
				a.Event.Owed = []relay.Owed{{ID: a.Owe[0].ID, Kind: relay.KindForward, Target: "core"}}
			}
			w.Arrive(n, a)
			if got := n.rdb.Exists(t.Context(), n.keys.of(a.Partition, a.Event.ID)).Val(); got != c.records {
				t.Errorf("it has %d records, want %d", got, c.records)
			}
			look := func(when string) {
				t.Helper()
				got, err := n.Event(t.Context(), a.Event.ID)
				if err != nil || !reflect.DeepEqual(got, a.Event) {
					t.Errorf("%s, by id:\n got %+v, %v\nwant %+v", when, got, err, a.Event)
				}
				for what, q := range map[string]relay.EventQuery{
					"of its outcome": {Outcome: relay.OutcomeChallenge},
					"of its card":    {Holders: []relay.Holder{{Merchant: storetest.Merchant, CardID: "c"}}},
				} {
					q.Limit = 9
					list, _, err := n.Events(t.Context(), q)
					if err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], a.Event) {
						t.Errorf("%s, %s: %+v, %v", when, what, list, err)
					}
				}
			}
			look("while it waits")
			w.End(n, a.Challenge.ID, relay.Rejected)
			look("when it has ended")
			w.Pass(c.events + time.Second)
			if _, err := n.Event(t.Context(), a.Event.ID); !errors.Is(err, relay.ErrNotFound) {
				t.Errorf("when events are forgotten: %v, want ErrNotFound", err)
			}
		})
	}
}
