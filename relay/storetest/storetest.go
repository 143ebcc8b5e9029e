// Package storetest is the conformance suite that every store of the relay
// passes: what relay.Store and relay.Queue promise, proved on any backend by the
// same tests.
//
// Guarantees: each test has data of its own, so tests run in parallel on one
// server; time is a clock that the tests set; nothing is skipped.
//
// Non-goals: how a store lays out its data, what it does when its server fails,
// and how fast it is. Those are proved next to the store.
package storetest

import (
	"testing"
	"time"

	"approvalrelay/relay"
)

// Backend is a store under test, as one node sees it.
type Backend interface {
	relay.Store
	relay.Queue
	// Age makes all data d older, for whatever the store forgets by itself after
	// a while: the suite cannot wait for it.
	Age(t testing.TB, d time.Duration)
}

// Run runs the suite. open opens one node on the data of t: nodes opened with the
// same t share their data, no others do. A nil clock is the store's own. It
// closes the node when t ends, and fails t if it cannot be opened.
func Run(t *testing.T, open func(t *testing.T, clock func() time.Time, node string) Backend) {
	for _, group := range []map[string]func(*testing.T, *World){arrivals, owners, steps, deliveries, lists, users, nodes, records} {
		for name, test := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, NewWorld(t, func(clock func() time.Time, node string) Backend { return open(t, clock, node) }))
			})
		}
	}
}
