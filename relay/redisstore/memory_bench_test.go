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
	make func(f *filler, ctx context.Context, i int) error
	less func(f *filler, ctx context.Context, i int) error // what makes the same without the thing
}{
	{"pending challenge", 1228, (*filler).challenge, nil},
	{"duplicate memory", 120, known, unknown},
	{"subscription", 600, (*filler).subscribe, nil},
	{"forwarded event", 0, unknown, nil},
	{"card of a cardholder", 0, func(f *filler, ctx context.Context, i int) error { return f.own(ctx, 1_000_000+i) }, nil}, // beside those that have an owner
}

func known(f *filler, ctx context.Context, i int) error   { return f.forwarded(ctx, i, "core", true) }
func unknown(f *filler, ctx context.Context, i int) error { return f.forwarded(ctx, i, "core", false) }

// BenchmarkMemory reports how much room things take in Redis: with 5,000 of each in a
// partition, as of contents that came once a second for a day.
//
//	go test ./relay/redisstore -run '^$' -bench Memory -benchtime 1x
func BenchmarkMemory(b *testing.B) {
	for _, r := range room {
		b.Run(strings.ReplaceAll(r.of, " ", "_"), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(weigh(b, 4, 20_000, r.make, r.less)), "bytes")
			}
		})
	}
}

// TestMemory has fewer partitions, and as many of each in one.
func TestMemory(t *testing.T) {
	for _, r := range room {
		if got := weigh(t, 1, 5_000, r.make, r.less); r.most > 0 && got > r.most {
			t.Errorf("a %s takes %d bytes, want at most %d", r.of, got, r.most)
		}
	}
}

// weigh fills a new Redis, and tells what one of many takes.
func weigh(t testing.TB, partitions, many int, one, less func(*filler, context.Context, int) error) int {
	t.Helper()
	bytes := 0
	for sign, one := range map[int]func(*filler, context.Context, int) error{1: one, -1: less} {
		if one == nil {
			continue
		}
		f := newFiller(t, redistest.Start(t), partitions)
		f.each(many, f.own)
		before, kinds := f.usedMemory(), f.memoryByKind(t)
		f.each(many, func(ctx context.Context, i int) error { return one(f, ctx, i) })
		f.settle()
		bytes += sign * (f.usedMemory() - before)
		for kind, n := range f.memoryByKind(t) {
			if d := (n - kinds[kind]) / many; d != 0 {
				t.Logf("%+d × %d %s", sign, d, kind)
			}
		}
	}
	return bytes / many
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
		ID: w.ID("sub_", p), Active: true, Label: "Anna's new phone", Lang: "en", CreatedAt: w.Now(), UsedAt: w.Now().Add(1000 * time.Hour),
		Push: push.Subscription{Endpoint: "https://fcm.googleapis.com/fcm/send/" + text(8) + ":APA91b" + text(101), P256dh: "B" + text(65)[1:], Auth: text(16)},
	}
}

// filler fills a Redis by the store's own calls, many at once.
type filler struct {
	node
	w *storetest.World
	t testing.TB
}

func newFiller(t testing.TB, server *redistest.Server, partitions int) *filler {
	w, n := world(t, server.URL, func(o *Options) { o.Prefix, o.Partitions = "relay", partitions })
	w.Advance(time.Since(w.Now())) // streams are trimmed by the store's clock
	return &filler{n, w, t}
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

// own makes a user known as the owner of a card.
func (f *filler) own(ctx context.Context, i int) error {
	return f.SetOwner(ctx, relay.Holder{Merchant: storetest.Merchant, CardID: card(i)}, relay.Owner{UserID: user(i), At: f.w.Now(), ByOperator: true})
}

// challenge makes one wait.
func (f *filler) challenge(ctx context.Context, i int) error {
	a := realistic(f.w, card(i), user(i))
	a.Fingerprint = nil
	_, err := f.node.Arrive(ctx, a)
	return err
}

// forwarded owes an event to a target.
func (f *filler) forwarded(ctx context.Context, i int, target string, known bool) error {
	a := f.w.Event(card(i), user(i))
	a.Event.Secret = relay.Secret{Body: fmt.Appendf(nil, threeDS, uuid(), card(i), uuid(), uuid())}
	a.Owe = []relay.Delivery{f.w.Delivery(relay.KindForward, target, a.Event)}
	a.Event.Owed = []relay.Owed{{ID: a.Owe[0].ID, Kind: relay.KindForward, Target: target}}
	if !known {
		a.Fingerprint = nil
	}
	_, err := f.node.Arrive(ctx, a)
	return err
}

// subscribe makes a subscription of a user active.
func (f *filler) subscribe(ctx context.Context, i int) error {
	u := relay.User{Merchant: storetest.Merchant, ID: user(i)}
	sub, fingerprint := chrome(f.w, u.Partition(f.Options.Partitions)), make([]byte, 32)
	rand.Read(fingerprint)
	if err := f.SaveDevices(ctx, relay.Devices{User: u, List: []relay.Subscription{sub}}); err != nil {
		return err
	}
	return f.ClaimEndpoint(ctx, fingerprint, relay.Claim{User: u, Subscription: sub.ID})
}

// settle does what a worker does until nothing waits: a challenge is announced to
// nobody, a delivery arrives, but for those to the target "dead".
func (f *filler) settle() {
	lanes := []relay.Lane{relay.LaneTasks}
	owed, err := f.Backlog(f.t.Context())
	f.must(err)
	for l := range owed {
		lanes = append(lanes, l)
	}
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
		if d.Target == "dead" {
			d.Status = relay.DeliveryDead
		}
		d.Attempts = []relay.Attempt{{At: f.w.Now(), StatusCode: 200, Latency: 3 * time.Millisecond}}
		st.Delivery = &d
	}
	return f.node.Commit(f.t.Context(), st)
}

// usedMemory is what Redis holds, apart from buffers, when it has moved its tables to
// their new size.
func (f *filler) usedMemory() (used int) {
	f.t.Helper()
	poll(f.t, "Redis is at rest", func() bool {
		f.must(rest(f.t.Context(), 100*time.Millisecond))
		info, err := f.rdb.Info(f.t.Context(), "memory").Result()
		f.must(err)
		last := used
		used = int(infoNumber(info, "used_memory") - infoNumber(info, "mem_clients_normal") - infoNumber(info, "mem_aof_buffer"))
		return used == last
	})
	return used
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
