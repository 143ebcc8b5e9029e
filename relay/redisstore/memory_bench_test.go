package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/push"
	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// room is what one of a thing may take in Redis, in bytes: all its keys, its entries
// in indexes and queues, and its share of Redis' own tables.
var room = []struct {
	of   string
	most int // 0: it is only reported
	fill func(*filler)
	less func(*filler) // what the same would take without the thing
}{
	{"pending challenge", 1228, func(f *filler) { f.challenges(false) }, nil},
	{"duplicate memory", 120, func(f *filler) { f.events(true) }, func(f *filler) { f.events(false) }},
	{"subscription", 600, (*filler).subscriptions, nil},
	{"forwarded event", 0, func(f *filler) { f.events(false) }, nil},
	{"card of a cardholder", 0, (*filler).own, func(*filler) {}},
}

// measured is how many of a thing are weighed: so many that what is there once does
// not count.
const measured = 20_000

// BenchmarkMemory reports how much room things take in Redis.
//
//	go test ./relay/redisstore -run '^$' -bench Memory -benchtime 1x
func BenchmarkMemory(b *testing.B) {
	for _, r := range room {
		b.Run(strings.ReplaceAll(r.of, " ", "_"), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(weigh(b, r.fill, r.less)), "bytes")
			}
		})
	}
}

func TestMemory(t *testing.T) {
	for _, r := range room {
		if got := weigh(t, r.fill, r.less); r.most > 0 && got > r.most {
			t.Errorf("a %s takes %d bytes, want at most %d", r.of, got, r.most)
		}
	}
}

// weigh fills a new Redis, and tells what one of many takes.
func weigh(t testing.TB, fill, less func(*filler)) int {
	t.Helper()
	bytes := 0
	for sign, fill := range map[int]func(*filler){1: fill, -1: less} {
		if fill == nil {
			continue
		}
		f := newFiller(t, redistest.Start(t), 16, measured)
		if sign == 1 && less == nil {
			f.own()
		}
		before, kinds := f.usedMemory(t), f.memoryByKind(t)
		fill(f)
		f.settle()
		bytes += sign * (f.usedMemory(t) - before)
		for kind, n := range f.memoryByKind(t) {
			if d := (n - kinds[kind]) / measured; d != 0 {
				t.Logf("%+d × %d %s", sign, d, kind)
			}
		}
	}
	return bytes / measured
}

// threeDS is a body as issuers send it when the cardholder has to approve.
const threeDS = `{"eventId":"%s","uid":"1048576","userBankcardId":"%s",` +
	`"cardNo":"532959******4242","verificationType":"OUT_OF_BAND","authId":"%s",` +
	`"transactionAmount":"100.20","transactionCurrency":"USD","merchantName":"Sephora Digital SAS",` +
	`"merchantCountry":"FR","transactionTime":1767323045000,"expirationTime":1767323345000,` +
	`"acsTransId":"%s","deviceChannel":"BROWSER"}`

// uuid is a random one.
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// realistic makes a challenge as the service would.
func realistic(w *storetest.World, card, user string) relay.Arrival {
	reference := uuid()
	a := w.Challenge(card, user, reference)
	a.Challenge.Payee = "Sephora Digital SAS"
	a.Challenge.Secret.Body = fmt.Appendf(nil, threeDS, uuid(), card, reference, uuid())
	return a
}

// chrome is a subscription as Chrome makes it.
func chrome(w *storetest.World, p int) relay.Subscription {
	text := func(n int) string {
		b := make([]byte, n)
		rand.Read(b)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	return relay.Subscription{
		ID: w.ID("sub_", p), Active: true, Label: "Chrome on Android", Lang: "en", CreatedAt: w.Now(), UsedAt: w.Now(),
		Push: push.Subscription{Endpoint: "https://fcm.googleapis.com/fcm/send/" + text(8) + ":APA91b" + text(101), P256dh: text(65), Auth: text(16)},
	}
}

// filler fills a Redis by the store's own calls, many at once.
type filler struct {
	node
	w    *storetest.World
	t    testing.TB
	many int
}

func newFiller(t testing.TB, server *redistest.Server, partitions, many int) *filler {
	w, n := world(t, server.URL, func(o *Options) { o.Prefix, o.Partitions = "relay", partitions })
	w.Advance(time.Since(w.Now())) // streams are trimmed by the store's clock
	return &filler{n, w, t, many}
}

// writers is how many calls are under way at once while Redis is filled.
const writers = 32

// each calls do for 0 to many-1, and leaves what is wrong to the test.
func (f *filler) each(many int, do func(ctx context.Context, i int) error) {
	f.t.Helper()
	var all sync.WaitGroup
	for at := range writers {
		all.Go(func() {
			for i := at; i < many; i += writers {
				if err := do(f.t.Context(), i); err != nil {
					f.t.Error(err)
					return
				}
			}
		})
	}
	if all.Wait(); f.t.Failed() {
		f.t.FailNow()
	}
}

func card(i int) string { return strconv.Itoa(700_000_000 + i) }
func user(i int) string { return strconv.Itoa(1_000_000 + i) }

// own makes the users known as the owners of their cards.
func (f *filler) own() {
	f.each(f.many, func(ctx context.Context, i int) error {
		return f.SetOwner(ctx, relay.Holder{Merchant: storetest.Merchant, CardID: card(i)}, relay.Owner{UserID: user(i), At: f.w.Now(), ByOperator: true})
	})
}

func (f *filler) challenges(known bool) {
	f.each(f.many, func(ctx context.Context, i int) error {
		a := realistic(f.w, card(i), user(i))
		if !known {
			a.Fingerprint = nil
		}
		_, err := f.node.Arrive(ctx, a)
		return err
	})
}

func (f *filler) events(known bool) {
	f.each(f.many, func(ctx context.Context, i int) error {
		a := f.w.Event(card(i), user(i))
		a.Event.Secret = relay.Secret{Body: fmt.Appendf(nil, threeDS, uuid(), card(i), uuid(), uuid())}
		a.Owe = []relay.Delivery{f.w.Delivery(relay.KindForward, "core", a.Event)}
		a.Event.Owed = []relay.Owed{{ID: a.Owe[0].ID, Kind: relay.KindForward, Target: "core"}}
		if !known {
			a.Fingerprint = nil
		}
		_, err := f.node.Arrive(ctx, a)
		return err
	})
}

func (f *filler) subscriptions() {
	f.each(f.many, func(ctx context.Context, i int) error {
		u := relay.User{Merchant: storetest.Merchant, ID: user(i)}
		sub, fingerprint := chrome(f.w, u.Partition(f.Options.Partitions)), make([]byte, 32)
		rand.Read(fingerprint)
		if err := f.SaveDevices(ctx, relay.Devices{User: u, List: []relay.Subscription{sub}}); err != nil {
			return err
		}
		return f.ClaimEndpoint(ctx, fingerprint, relay.Claim{User: u, Subscription: sub.ID})
	})
}

// settle does what a worker does until nothing waits: a challenge is announced to
// nobody, a delivery arrives.
func (f *filler) settle() {
	lanes := []relay.Lane{relay.LaneTasks, relay.TargetLane("core")}
	var all sync.WaitGroup
	for p := range f.Options.Partitions {
		all.Go(func() {
			for {
				leases, err := f.node.Lease(f.t.Context(), p, lanes, time.Millisecond)
				if err != nil {
					f.t.Error(err)
				}
				if len(leases) == 0 {
					return
				}
				for _, l := range leases {
					if err := f.settleOne(l); err != nil {
						f.t.Error(err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	f.trimmed()
}

func (f *filler) settleOne(l relay.Lease) error {
	st := relay.Step{Partition: l.Partition, Settle: &l}
	switch l.Delivery.Kind {
	case relay.KindAnnounce:
		c, err := f.Challenge(f.t.Context(), l.Delivery.ChallengeID)
		if err != nil {
			return err
		}
		c.Announced, c.Silence = true, "the cardholder has no active device"
		st.Challenge, st.From = &c, c.Status
	case relay.KindForward:
		d := l.Delivery
		d.Status, d.Tries = relay.DeliveryDelivered, 1
		d.Attempts = []relay.Attempt{{At: f.w.Now(), StatusCode: 200, Latency: 3 * time.Millisecond}}
		st.Delivery = &d
	}
	return f.node.Commit(f.t.Context(), st)
}

// trimmed waits until Redis has moved its tables to their new size, and gives back
// what its buffers for clients have taken.
func (f *filler) trimmed() {
	f.t.Helper()
	last := 0
	poll(f.t, "Redis is at rest", func() bool {
		used := f.usedMemory(f.t)
		still := used == last
		last = used
		time.Sleep(50 * time.Millisecond)
		return still
	})
}

func (n node) usedMemory(t testing.TB) int {
	t.Helper()
	info, err := n.rdb.Info(t.Context(), "memory").Result()
	if err != nil {
		t.Fatal(err)
	}
	return int(infoNumber(info, "used_memory"))
}

// memoryByKind sums MEMORY USAGE over keys of a kind, such as "chl_" or "live:".
func (n node) memoryByKind(t testing.TB) map[string]int {
	t.Helper()
	ctx, sum := context.Background(), map[string]int{}
	names := n.names(t)
	for from := 0; from < len(names); from += 1000 {
		part := names[from:min(from+1000, len(names))]
		pipe := n.rdb.Pipeline()
		for _, name := range part {
			pipe.MemoryUsage(ctx, name, 0)
		}
		cmds, err := pipe.Exec(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range cmds {
			_, kind, _ := strings.Cut(part[i], "}:")
			if end := strings.IndexAny(kind, "_:"); end >= 0 {
				kind = kind[:end+1]
			}
			sum[kind] += int(c.(*redis.IntCmd).Val())
		}
	}
	return sum
}
