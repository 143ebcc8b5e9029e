package storetest

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"approvalrelay/relay"
)

// Merchant is whose data the suite makes.
const Merchant = "acme"

// Life of the challenges that the suite makes.
const Life = 5 * time.Minute

// Clock is a clock that stands still until it is set forward.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now is the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance sets the clock forward.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// World is the data of one test, the nodes on it, and their clock.
type World struct {
	*Clock
	t    testing.TB
	open func(clock func() time.Time, node string) Backend
	a    Backend
}

// NewWorld opens the first node, "a". open opens nodes on the data of t.
func NewWorld(t testing.TB, open func(clock func() time.Time, node string) Backend) *World {
	w := &World{Clock: &Clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, t: t, open: open}
	w.a = w.Node("a")
	return w
}

// Node opens another node on the same data and clock.
func (w *World) Node(name string) Backend {
	w.t.Helper()
	return w.open(w.Now, name)
}

// Pass lets time pass for the nodes and for their data.
func (w *World) Pass(d time.Duration) {
	w.t.Helper()
	w.Advance(d)
	w.a.Age(w.t, d)
}

// ID is a new id in the form of the relay's own.
func (w *World) ID(prefix string, partition int) string {
	id := ulid.MustNew(ulid.Timestamp(w.Now()), rand.Reader)
	return prefix + id.String() + hex.EncodeToString([]byte{byte(partition)})
}

// Event is the arrival of an event that nobody has to act on. Without a card it
// belongs to the user.
func (w *World) Event(card, user string) relay.Arrival {
	p := relay.Holder{Merchant: Merchant, CardID: card, UserID: user}.Partition(w.a.Partitions())
	return relay.Arrival{
		Partition: p, Fingerprint: randomBytes(), Remember: 72 * time.Hour,
		Event: relay.Event{
			ID: w.ID("evt_", p), Type: "CARD_STATUS_CHANGE", Merchant: Merchant, Outcome: relay.OutcomeForwarded,
			CardID: card, UserID: user, ReceivedAt: w.Now(),
			Secret: relay.Secret{Body: []byte(`{"status":"LOCKED"}`), Envelope: []byte(`{"hmac":""}`)},
		},
	}
}

// Teaching is an event that teaches that the card is the user's.
func (w *World) Teaching(card, user string, at time.Time) relay.Arrival {
	a := w.Event(card, user)
	a.LearnAt = at
	return a
}

// Challenge is the arrival of a challenge that lives for Life.
func (w *World) Challenge(card, user, reference string) relay.Arrival {
	a := w.Event(card, user)
	a.Event.Type, a.Event.Outcome, a.Event.Secret = "CARD_3DS", relay.OutcomeChallenge, relay.Secret{}
	a.Challenge = &relay.Challenge{
		ID: "chl_" + a.Event.ID[4:], UserID: user, Named: user, Merchant: Merchant, Type: a.Event.Type, Kind: relay.ThreeDS,
		Method: relay.MethodApprove, Status: relay.Pending, CardID: card, Last4: "4242", Payee: "Sephora Digital", Country: "FR",
		Amount: "100.20", Currency: "USD", Reference: reference, OccurredAt: w.Now(), CreatedAt: w.Now(), ExpiresAt: w.Now().Add(Life),
		Secret: relay.Secret{Body: []byte(`{"amount":"100.20"}`)},
	}
	return a
}

// Delivery is one that is owed because of an event, now.
func (w *World) Delivery(kind relay.Kind, target string, ev relay.Event) relay.Delivery {
	p, _ := relay.PartitionOf(ev.ID)
	return relay.Delivery{
		ID: w.ID("dlv_", p), Kind: kind, Merchant: ev.Merchant, Target: target, EventID: ev.ID,
		Status: relay.DeliveryPending, CreatedAt: w.Now(),
	}
}

// Arrive stores an arrival that is no duplicate.
func (w *World) Arrive(b Backend, a relay.Arrival) relay.Arrived {
	w.t.Helper()
	got, err := b.Arrive(w.t.Context(), a)
	if err != nil || got.Duplicate || got.EventID != a.Event.ID {
		w.t.Fatalf("Arrive = %+v, %v, want the first of %s", got, err, a.Event.ID)
	}
	return got
}

// Load is the challenge as it is stored.
func (w *World) Load(b Backend, id string) relay.Challenge {
	w.t.Helper()
	c, err := b.Challenge(w.t.Context(), id)
	if err != nil {
		w.t.Fatalf("Challenge: %v", err)
	}
	return c
}

// End ends a challenge.
func (w *World) End(b Backend, id string, status relay.Status) {
	w.t.Helper()
	c := w.Load(b, id)
	from := c.Status
	c.Status, c.EndedAt, c.Secret = status, w.Now(), relay.Secret{}
	p, _ := relay.PartitionOf(id)
	w.Commit(b, relay.Step{Partition: p, Challenge: &c, From: from})
}

// Commit writes a step.
func (w *World) Commit(b Backend, st relay.Step) {
	w.t.Helper()
	if err := b.Commit(w.t.Context(), st); err != nil {
		w.t.Fatalf("Commit: %v", err)
	}
}

// emptyWait is how long Lease may look for what must not be there.
const emptyWait = 2 * time.Millisecond

// Lease is all that one read hands out at once.
func (w *World) Lease(b Backend, partition int, lanes ...relay.Lane) []relay.Lease {
	w.t.Helper()
	got, err := b.Lease(w.t.Context(), partition, lanes, emptyWait)
	if err != nil {
		w.t.Fatalf("Lease: %v", err)
	}
	return got
}

// LeaseOne is the only delivery that waits in the lanes.
func (w *World) LeaseOne(b Backend, partition int, lanes ...relay.Lane) relay.Lease {
	w.t.Helper()
	got := w.Lease(b, partition, lanes...)
	if len(got) != 1 {
		w.t.Fatalf("Lease(%v) handed out %d deliveries, want 1: %+v", lanes, len(got), got)
	}
	return got[0]
}

// Settle ends a lease; d is what becomes of the delivery, nil for no record.
func (w *World) Settle(b Backend, l relay.Lease, d *relay.Delivery, owe ...relay.Delivery) {
	w.t.Helper()
	w.Commit(b, relay.Step{Partition: l.Partition, Settle: &l, Delivery: d, Owe: owe})
}

// Tried is a leased delivery after one more attempt.
func (w *World) Tried(l relay.Lease, status relay.DeliveryStatus, next time.Time) *relay.Delivery {
	d := l.Delivery
	d.Status, d.Next, d.Tries = status, next, d.Tries+1
	d.Attempts = append(d.Attempts[:len(d.Attempts):len(d.Attempts)], relay.Attempt{At: w.Now(), StatusCode: 503, Latency: time.Millisecond})
	return &d
}

// Due moves what is due and returns when the next is.
func (w *World) Due(b Backend, partition int) time.Time {
	w.t.Helper()
	next, err := b.Due(w.t.Context(), partition)
	if err != nil {
		w.t.Fatalf("Due: %v", err)
	}
	return next
}

// owes fails unless the backlog is exactly this; lanes that owe nothing need not
// be named.
func (w *World) owes(b Backend, when string, want map[relay.Lane]int) {
	w.t.Helper()
	got, err := b.Backlog(w.t.Context())
	if err != nil {
		w.t.Fatalf("Backlog: %v", err)
	}
	for lane, n := range got {
		if n == 0 {
			delete(got, lane)
		}
	}
	if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
		w.t.Fatalf("%s: the backlog is %v, want %v", when, got, want)
	}
}

// nothing fails if any lane has something to hand out.
func (w *World) nothing(b Backend, when string, partition int, lanes ...relay.Lane) {
	w.t.Helper()
	if got := w.Lease(b, partition, lanes...); len(got) != 0 {
		w.t.Fatalf("%s: handed out %+v, want nothing", when, got)
	}
}

func randomBytes() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return b
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: error %v, want %v", what, got, want)
	}
}

// at names a case by its number.
func at(what string, i int) string { return fmt.Sprintf("%s %d", what, i) }
