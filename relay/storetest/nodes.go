package storetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"approvalrelay/relay"
)

var nodes = map[string]func(*testing.T, *World){
	"changes reach the other nodes":                   testChanges,
	"a waiting reader is woken":                       testLeaseWakes,
	"a waiting reader returns when its context ends":  testLeaseContext,
	"a reader without lanes waits, too":               testLeaseNoLanes,
	"a read is bounded, and hands out each once":      testLeaseCount,
	"a read is confined to its lanes and partition":   testLeaseLanes,
	"what a step owes is handed over in it":           testHandOver,
	"what a dead node held is taken over by one":      testTakeOver,
	"leaving hands over at once":                      testLeave,
	"a dead node is forgotten when nothing is left":   testForget,
	"what a lane's last reader held waits for a next": testTakeOverUnknownLane,
	"a node that died before its first beat is dead":  testDeadBeforeBeat,
	"the store has a clock of its own":                testOwnClock,
	"what got lost on its way to a node is found":     testMissed,
	"what is handed back goes to whoever comes":       testPostpone,
	"a lane that nobody reads is forgotten, in time":  testForgetLane,
}

// limit is how long a test waits for what must happen; it only ends what hangs.
const limit = 20 * time.Second

func testChanges(t *testing.T, w *World) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	type change struct {
		u  relay.User
		id string
	}
	changes, resyncs := make(chan change, 16), make(chan struct{}, 16)
	ended := make(chan struct{})
	b := w.Node("b")
	watch, stop := context.WithCancel(ctx)
	go func() {
		defer close(ended)
		b.Changes(watch, func(u relay.User, id string) { changes <- change{u, id} }, func() { resyncs <- struct{}{} })
	}()
	select {
	case <-resyncs:
	case <-ctx.Done():
		t.Fatal("no resync at the first subscription: what changed before it would be missed")
	}
	want := func(what, id string) {
		t.Helper()
		select {
		case got := <-changes:
			equal(t, what, got, change{user("one"), id})
		case <-ctx.Done():
			t.Fatalf("%s: nothing was told", what)
		}
	}
	w.Arrive(w.a, w.Challenge("nobody's", "", ""))
	w.Arrive(w.a, w.Event("c", "one"))
	a := w.Challenge("c", "one", "")
	w.Arrive(w.a, a)
	want("an arrival", a.Challenge.ID)
	w.End(w.a, a.Challenge.ID, relay.Approved)
	want("an end", a.Challenge.ID)
	stop()
	select {
	case <-ended:
	case <-time.After(limit):
		t.Fatal("Changes goes on although its context has ended")
	}
}

func testLeaseWakes(t *testing.T, w *World) {
	b := w.Node("b")
	p := card("c").Partition(w.a.Partitions())
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	got := make(chan relay.Lease)
	go func() {
		defer close(got)
		for ctx.Err() == nil {
			leases, err := b.Lease(ctx, p, []relay.Lane{relay.LaneTasks, core}, limit)
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("Lease: %v", err)
				}
				return
			}
			for _, l := range leases {
				select {
				case got <- l:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	for range 50 {
		a := w.Event("c", "")
		a.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", a.Event)}
		w.Arrive(w.a, a)
		select {
		case l := <-got:
			equal(t, "handed over", l.Delivery.ID, a.Owe[0].ID)
		case <-ctx.Done():
			t.Fatal("the reader was not woken")
		}
	}
	cancel()
	for range got {
		t.Error("handed over more than was owed")
	}
}

func testLeaseContext(t *testing.T, w *World) {
	w.nothing(w.a, "at first", 0, core)
	// Long enough to be waiting by then.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := w.a.Lease(ctx, 0, []relay.Lane{core}, time.Hour)
		done <- err
	}()
	select {
	case err := <-done:
		wantErr(t, "Lease", err, context.DeadlineExceeded)
	case <-time.After(limit):
		t.Fatal("the reader still waits")
	}
}

func testLeaseNoLanes(t *testing.T, w *World) {
	if got, err := w.a.Lease(t.Context(), 0, nil, time.Millisecond); err != nil || len(got) != 0 {
		t.Fatalf("Lease of no lanes = %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.a.Lease(ctx, 0, nil, time.Hour)
	wantErr(t, "Lease of no lanes, context ended", err, context.Canceled)
}

func testLeaseCount(t *testing.T, w *World) {
	const many = 200
	a := w.Event("c", "")
	for range many {
		a.Owe = append(a.Owe, w.Delivery(relay.KindForward, "core", a.Event))
	}
	w.Arrive(w.a, a)
	b := w.Node("b")
	var got []string
	for i := 0; len(got) < many; i++ {
		leases := w.Lease([]Backend{w.a, b}[i%2], a.Partition, core)
		if len(leases) == 0 || len(leases) == many {
			t.Fatalf("a read handed out %d of %d", len(leases), many)
		}
		for _, l := range leases {
			got = append(got, l.Delivery.ID)
		}
	}
	var want []string
	for _, d := range a.Owe {
		want = append(want, d.ID)
	}
	equal(t, "each once, in order", got, want)
}

func testLeaseLanes(t *testing.T, w *World) {
	a := w.Event("c", "")
	a.Owe = []relay.Delivery{
		w.Delivery(relay.KindForward, "core", a.Event), w.Delivery(relay.KindForward, "audit", a.Event), w.Delivery(relay.KindPush, "sub", a.Event),
	}
	w.Arrive(w.a, a)
	for p := range w.a.Partitions() {
		if p != a.Partition {
			w.nothing(w.a, "another partition", p, core, relay.LanePush)
		}
	}
	w.nothing(w.a, "other lanes", a.Partition, relay.LaneConfirm, relay.TargetLane("cor"))
	equal(t, "one lane", w.LeaseOne(w.a, a.Partition, core).Delivery.ID, a.Owe[0].ID)
	if got := w.Lease(w.a, a.Partition, core, relay.LanePush, relay.TargetLane("audit")); len(got) != 2 {
		t.Fatalf("the other lanes handed out %+v, want 2", got)
	}
}

// dead are the dead nodes that b sees.
func (w *World) dead(b Backend) []string {
	w.t.Helper()
	dead, err := b.Beat(w.t.Context())
	if err != nil {
		w.t.Fatalf("Beat: %v", err)
	}
	return append([]string{}, dead...)
}

// outlived are the dead nodes that b sees after a while, and after it has beaten
// for long enough itself.
func (w *World) outlived(b Backend) []string {
	w.t.Helper()
	w.Advance(time.Minute)
	for range 3 {
		w.dead(b)
		w.Advance(time.Second)
	}
	return w.dead(b)
}

// takeOver returns what b gets of a dead node's, by delivery id.
func (w *World) takeOver(b Backend, node string, lanes ...relay.Lane) map[string]relay.Lease {
	w.t.Helper()
	leases, err := b.TakeOver(w.t.Context(), node, lanes)
	if err != nil {
		w.t.Fatalf("TakeOver: %v", err)
	}
	byID := map[string]relay.Lease{}
	for _, l := range leases {
		byID[l.Delivery.ID] = l
	}
	if len(byID) != len(leases) {
		w.t.Fatalf("TakeOver handed one out twice: %+v", leases)
	}
	return byID
}

// held are deliveries that node a has leased, in several partitions; the first
// is at its second attempt, so that its record has to be loaded.
func (w *World) held() map[string]relay.Lease {
	w.t.Helper()
	held := map[string]relay.Lease{}
	for i := range 6 {
		l := w.forward(w.a, at("card", i))
		if i == 0 {
			w.Settle(w.a, l, w.Tried(l, relay.DeliveryPending, w.Now()))
			w.Due(w.a, l.Partition)
			l = w.LeaseOne(w.a, l.Partition, core)
		}
		held[l.Delivery.ID] = l
	}
	return held
}

func testTakeOver(t *testing.T, w *World) {
	b, c := w.Node("b"), w.Node("c")
	for _, n := range []Backend{w.a, b, c} {
		equal(t, "all live", w.dead(n), []string{})
	}
	held := w.held()
	for range 2 { // a does not beat any more
		w.Advance(time.Second)
		equal(t, "a late heart", w.dead(b), []string{})
		equal(t, "a late heart", w.dead(c), []string{})
	}
	w.Advance(time.Second)
	equal(t, "dead, as b sees it", w.dead(b), []string{"a"})
	equal(t, "dead, as c sees it", w.dead(c), []string{"a"})

	got := make(chan map[string]relay.Lease, 2)
	for _, n := range []Backend{b, c} {
		go func() {
			leases, err := n.TakeOver(t.Context(), "a", []relay.Lane{relay.LaneTasks, core})
			if err != nil {
				t.Errorf("TakeOver: %v", err)
			}
			byID := map[string]relay.Lease{}
			for _, l := range leases {
				byID[l.Delivery.ID] = l
			}
			got <- byID
		}()
	}
	taken := <-got
	for id, l := range <-got {
		if _, twice := taken[id]; twice {
			t.Fatalf("%s was taken over by two nodes", id)
		}
		taken[id] = l
	}
	equal(t, "how many were taken over", len(taken), len(held))
	for id, l := range taken {
		if l.Handed != 1 {
			t.Errorf("handed out %d times before, want 1", l.Handed)
		}
		want := held[id]
		want.Handed = 1
		equal(t, "what was taken over", l, want)
		w.Settle(b, l, w.Tried(l, relay.DeliveryDelivered, time.Time{}))
	}
	w.owes(b, "all settled", nil)
	for id := range held {
		late := held[id]
		wantErr(t, "the dead node comes back and settles", w.a.Commit(t.Context(), relay.Step{Partition: late.Partition, Settle: &late}), relay.ErrLostLease)
	}
}

func testLeave(t *testing.T, w *World) {
	b := w.Node("b")
	w.dead(w.a)
	held := w.held()
	names, all := []string{"a", "b", "c", "d"}, []Backend{w.a, b, w.Node("c"), w.Node("d")}
	for handed := range 3 {
		leaving, next := names[handed], all[handed+1]
		if err := all[handed].Leave(t.Context()); err != nil {
			t.Fatalf("Leave: %v", err)
		}
		if dead := w.dead(next); !slices.Contains(dead, leaving) {
			t.Fatalf("dead are %v, want %s among them at once", dead, leaving)
		}
		got := w.takeOver(next, leaving, core)
		equal(t, "how many were taken over", len(got), len(held))
		for _, l := range got {
			equal(t, "handed out before", l.Handed, handed+1)
		}
	}
}

func testForget(t *testing.T, w *World) {
	b := w.Node("b")
	w.dead(w.a)
	held := w.held()
	equal(t, "dead for long", w.outlived(b), []string{"a"})
	equal(t, "how many were taken over", len(w.takeOver(b, "a", core)), len(held))
	equal(t, "nothing more", len(w.takeOver(b, "a", core)), 0)
	equal(t, "forgotten", w.dead(b), []string{})
	// It was only stopped, and comes back.
	w.dead(w.a)
	l := w.forward(w.a, "card")
	equal(t, "dead again", w.outlived(b), []string{"a"})
	equal(t, "taken over again", len(w.takeOver(b, "a", core)), 1)
	w.Settle(w.a, l, nil)

	// One that has just died may be handed something in its last moment.
	if err := b.Leave(t.Context()); err != nil {
		t.Fatalf("Leave: %v", err)
	}
	w.takeOver(w.a, "b", core)
	w.takeOver(w.a, "b", core)
	equal(t, "not forgotten too soon", w.dead(w.a), []string{"b"})
}

func testTakeOverUnknownLane(t *testing.T, w *World) {
	b, c := w.Node("b"), w.Node("c")
	w.dead(w.a)
	held := w.held()
	for range 3 { // b's configuration has no target core
		equal(t, "not forgotten", w.outlived(b), []string{"a"})
		equal(t, "not b's", len(w.takeOver(b, "a", relay.LaneTasks, relay.LanePush)), 0)
	}
	equal(t, "c has the lane", len(w.takeOver(c, "a", core)), len(held))
}

func testDeadBeforeBeat(t *testing.T, w *World) {
	w.forward(w.a, "card") // a reads and dies
	b := w.Node("b")
	equal(t, "dead", w.outlived(b), []string{"a"})
	equal(t, "taken over", len(w.takeOver(b, "a", core)), 1)
}

func testOwnClock(t *testing.T, w *World) {
	b := w.open(nil, "clock")
	if err := b.Ping(t.Context()); err != nil {
		t.Fatalf("Ping: %v", err)
	}
	if off := time.Since(b.Now()).Abs(); off > time.Minute {
		t.Errorf("its clock is %s off this machine's, which it runs on", off)
	}
	if _, err := b.Challenge(canceled(), w.ID("chl_", 0)); !errors.Is(err, relay.ErrUnavailable) {
		t.Errorf("a call whose context has ended: %v, want ErrUnavailable", err)
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func testMissed(t *testing.T, w *World) {
	held := w.held()
	var got relay.Lease // the others got lost
	for _, got = range held {
		break
	}
	missed := func(b Backend, idle time.Duration) map[string]relay.Lease {
		t.Helper()
		leases, err := b.Missed(t.Context(), []relay.Lane{relay.LaneTasks, core}, idle, func(p int, lane relay.Lane, entry string) bool {
			return p == got.Partition && lane == core && entry == got.Entry
		})
		if err != nil {
			t.Fatalf("Missed: %v", err)
		}
		byID := map[string]relay.Lease{}
		for _, l := range leases {
			byID[l.Delivery.ID] = l
		}
		return byID
	}
	equal(t, "what another node missed", len(missed(w.Node("b"), 0)), 0)
	equal(t, "handed out only now", len(missed(w.a, time.Hour)), 0)
	want := maps.Clone(held)
	delete(want, got.Delivery.ID)
	equal(t, "missed", missed(w.a, 0), want)
	for _, l := range want {
		w.Settle(w.a, l, w.Tried(l, relay.DeliveryDelivered, time.Time{}))
	}
	equal(t, "nothing more", len(missed(w.a, 0)), 0)
}

func testPostpone(t *testing.T, w *World) {
	l := w.forward(w.a, "card")
	w.Settle(w.a, l, w.Tried(l, relay.DeliveryPending, w.Now()))
	w.Due(w.a, l.Partition)
	l = w.LeaseOne(w.a, l.Partition, core)
	if err := w.a.Postpone(t.Context(), l); err != nil {
		t.Fatalf("Postpone: %v", err)
	}
	wantErr(t, "handed back twice", w.a.Postpone(t.Context(), l), relay.ErrLostLease)
	wantErr(t, "settled after it", w.a.Commit(t.Context(), relay.Step{Partition: l.Partition, Settle: &l}), relay.ErrLostLease)
	w.owes(w.a, "it is still owed", map[relay.Lane]int{core: 1})
	w.nothing(w.a, "at once", l.Partition, core)
	w.Advance(time.Minute)
	b := w.Node("b")
	w.Due(b, l.Partition)
	again := w.LeaseOne(b, l.Partition, core)
	equal(t, "handed out again", again.Delivery, l.Delivery)
	w.Settle(b, again, w.Tried(again, relay.DeliveryDelivered, time.Time{}))
	w.owes(b, "settled", nil)
}

func testForgetLane(t *testing.T, w *World) {
	owe := func() relay.Arrival {
		a := w.Event("card", "")
		a.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", a.Event)}
		w.Arrive(w.a, a)
		return a
	}
	forget := func(want int) {
		t.Helper()
		if got, err := w.a.Forget(t.Context(), core); err != nil || got != want {
			t.Fatalf("Forget = %d, %v, want %d", got, err, want)
		}
	}
	owe()
	forget(0)
	w.owes(w.a, "younger than deliveries are kept", map[relay.Lane]int{core: 1})
	w.Advance(20 * 365 * 24 * time.Hour) // the entries have the time of the server, not of this clock
	forget(1)
	w.owes(w.a, "forgotten", nil)
	forget(0)
	// The target comes back.
	a := owe()
	equal(t, "what is owed again", w.LeaseOne(w.a, a.Partition, core).Delivery.ID, a.Owe[0].ID)
}
