package redisstore

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/push"
	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// entry is one key of a dump.
type entry struct {
	kind   string // as TYPE says
	text   string // all of its content
	length int
	life   time.Duration // 0: for ever
}

// dump reads everything that is stored, by the keys' names without the prefix.
func (n node) dump(t testing.TB) map[string]entry {
	t.Helper()
	ctx, all := t.Context(), map[string]entry{}
	for _, name := range n.names(t) {
		kind, err := n.rdb.Type(ctx, name).Result()
		if err != nil {
			t.Fatal(err)
		}
		e := entry{kind: kind, life: max(0, n.rdb.PTTL(ctx, name).Val())}
		var text any
		switch kind {
		case "string":
			text, err = n.rdb.Get(ctx, name).Result()
			e.length = 1
		case "hash":
			var v map[string]string
			v, err = n.rdb.HGetAll(ctx, name).Result()
			text, e.length = v, len(v)
		case "set":
			var v []string
			v, err = n.rdb.SMembers(ctx, name).Result()
			text, e.length = v, len(v)
		case "zset":
			var v []redis.Z
			v, err = n.rdb.ZRangeWithScores(ctx, name, 0, -1).Result()
			text, e.length = v, len(v)
		case "list":
			var v []string
			v, err = n.rdb.LRange(ctx, name, 0, -1).Result()
			text, e.length = v, len(v)
		case "stream":
			var v []redis.XMessage
			v, err = n.rdb.XRange(ctx, name, "-", "+").Result()
			text, e.length = v, len(v)
		default:
			t.Fatalf("%s has the unexpected type %s", name, kind)
		}
		if err != nil {
			t.Fatal(err)
		}
		e.text = fmt.Sprint(text)
		all[strings.TrimPrefix(name, n.Prefix+":")] = e
	}
	return all
}

// day plays what happens to a card, its holder and a target, until nothing is
// owed any more, and returns the names of all that must be left.
func day(t *testing.T, w *storetest.World, n node) []string {
	t.Helper()
	ctx, u := t.Context(), relay.User{Merchant: storetest.Merchant, ID: "one"}
	h := relay.Holder{Merchant: u.Merchant, CardID: "c"}
	p, up := h.Partition(testPartitions), u.Partition(testPartitions)
	left := []string{"root", "nodes"}
	in := func(p int, names ...string) {
		for _, name := range names {
			left = append(left, fmt.Sprintf("{p%02d}:%s", p, name))
		}
	}
	arrive := func(a relay.Arrival) relay.Arrival {
		w.Arrive(n, a)
		if a.Challenge == nil { // else that has all of it
			in(p, a.Event.ID)
		}
		if a.Fingerprint != nil {
			in(p, strings.TrimPrefix(n.duplicates(a).now, n.keys.tag(p)))
		}
		if a.Challenge != nil {
			in(p, a.Challenge.ID)
		}
		for _, d := range a.Owe {
			in(p, d.ID)
		}
		return a
	}
	settle := func(l relay.Lease, status relay.DeliveryStatus) {
		d := w.Tried(l, status, time.Time{})
		if status == relay.DeliveryPending {
			d.Next = w.Now().Add(time.Second)
		}
		w.Settle(n, l, d)
	}
	inner := func() { // our own steps, without what they lead to
		for _, l := range w.Lease(n, p, relay.LaneTasks) {
			if l.Delivery.Kind == relay.KindLearn {
				if err := n.IndexCard(ctx, u, "c"); err != nil {
					t.Fatal(err)
				}
			}
			w.Settle(n, l, nil)
		}
	}

	if _, err := n.Root(ctx); err != nil {
		t.Fatal(err)
	}
	sub := relay.Subscription{ID: w.ID("sub_", up), Active: true}
	if err := n.SaveDevices(ctx, relay.Devices{User: u, List: []relay.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	stranger := relay.User{Merchant: u.Merchant, ID: "two"}
	if err := n.SaveDevices(ctx, relay.Devices{User: stranger, List: []relay.Subscription{{ID: sub.ID}}}); err != nil {
		t.Fatal(err)
	}
	fingerprint := []byte("0123456789abcdef0123456789abcdef")
	if err := n.ClaimEndpoint(ctx, fingerprint, relay.Claim{User: u, Subscription: sub.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.SpendNotice(ctx, fingerprint, u, relay.NoticeLimits{Window: time.Hour, PerEndpoint: 1, PerUser: 1}); err != nil {
		t.Fatal(err)
	}
	in(int(fingerprint[0])%testPartitions, "endpoint:31", "notices:"+base64.RawURLEncoding.EncodeToString(fingerprint[:16]))
	in(up, "notices:acme:u:one")
	in(up, "devices:acme:u:one", "cards:acme:u:one")
	in(stranger.Partition(testPartitions), "devices:acme:u:two")

	// An event that teaches the owner, and is forwarded at the second try.
	taught := w.Teaching("c", "one", w.Now())
	taught.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", taught.Event)}
	arrive(taught)
	inner()
	settle(w.LeaseOne(n, p, core), relay.DeliveryPending)
	w.Advance(time.Second)
	w.Due(n, p)
	settle(w.LeaseOne(n, p, core), relay.DeliveryDelivered)

	// A challenge that a newer one replaces, which is pushed, reported and locks.
	older := arrive(w.Challenge("c", "", "ref"))
	inner()
	newer := arrive(w.Challenge("c", "", "ref"))
	w.End(n, older.Challenge.ID, relay.Cancelled)
	announce := w.LeaseOne(n, p, relay.LaneTasks)
	owed := w.Delivery(relay.KindPush, sub.ID, newer.Event)
	w.Settle(n, announce, nil, owed)
	settle(w.LeaseOne(n, p, relay.LanePush), relay.DeliveryDelivered)
	lock := w.Delivery(relay.KindLock, "", newer.Event)
	c := w.Load(n, newer.Challenge.ID)
	c.Status, c.Secret = relay.Rejected, relay.Secret{}
	w.Commit(n, relay.Step{Partition: p, Challenge: &c, From: relay.Pending, Mute: time.Hour, Owe: []relay.Delivery{lock, {Kind: relay.KindEnded, ChallengeID: c.ID}}})
	settle(w.LeaseOne(n, p, relay.LaneLock), relay.DeliveryDelivered)
	inner()
	in(p, owed.ID, lock.ID, "mute:acme:c:c", "ended:acme:c:c:one")

	// One that expires, and one that had expired when it came.
	lapsed := arrive(w.Challenge("c", "", "other"))
	over := w.Challenge("c", "", "")
	over.Challenge.Status = relay.Expired
	arrive(over)
	inner()
	w.Advance(storetest.Life)
	w.Due(n, p) // also of those that ended before
	w.End(n, lapsed.Challenge.ID, relay.Expired)
	inner()

	// Dead letters: one is replayed, one dropped; a parked delivery goes out.
	quarantined := w.Event("c", "")
	quarantined.Fingerprint = nil
	quarantined.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", quarantined.Event)}
	arrive(quarantined)
	settle(w.LeaseOne(n, p, core), relay.DeliveryDead)
	if err := n.Replay(ctx, quarantined.Owe[0].ID); err != nil {
		t.Fatal(err)
	}
	again := w.LeaseOne(n, p, core)
	parked := *w.Tried(again, relay.DeliveryParked, time.Time{})
	if err := n.Park(ctx, "core", true, "it answered 410"); err != nil {
		t.Fatal(err)
	}
	w.Settle(n, again, &parked, parked)
	if err := n.Park(ctx, "core", false, ""); err != nil {
		t.Fatal(err)
	}
	settle(w.LeaseOne(n, p, core), relay.DeliveryDelivered)
	dropped := w.Event("c", "")
	dead := w.Delivery(relay.KindForward, "core", dropped.Event)
	dropped.Owe = []relay.Delivery{dead}
	arrive(dropped)
	settle(w.LeaseOne(n, p, core), relay.DeliveryDead)
	if err := n.Drop(ctx, dead.ID); err != nil {
		t.Fatal(err)
	}
	left = slices.DeleteFunc(left, func(name string) bool { return strings.HasSuffix(name, dead.ID) })

	in(p, "owner:acme:c:c", "owed", "count", "q:tasks", "q:push", "q:lock", "q:to:core")
	in(p, "ix:e:challenge", "ix:e:forwarded", "ix:t:CARD_STATUS_CHANGE", "ix:h:acme:c:c", "ix:h:acme:u:one",
		"ix:s:cancelled", "ix:s:rejected", "ix:s:expired", "ix:d:push", "ix:d:lock", "ix:d:to:core", "ix:o:"+c.ID[len("chl_"):])
	if up != p {
		in(up, "count")
	}
	return left
}

// lasting are the keys that have no limit to their life: they are bounded by the
// number of cards, users, targets and of what is owed.
func lasting(name string) bool {
	_, kind, ok := strings.Cut(name, "}:")
	if !ok {
		kind = name
	}
	for _, k := range []string{"owner:", "cards:", "devices:", "q:"} {
		if strings.HasPrefix(kind, k) {
			return true
		}
	}
	return slices.Contains([]string{"root", "nodes", "parked", "owed", "count", "due"}, kind)
}

func TestNothingIsLeftOver(t *testing.T) {
	for backend, url := range backends(t) {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			w, n := world(t, url)
			want := day(t, w, n)
			slices.Sort(want)
			want = slices.Compact(want) // some contents share a memory
			all := n.dump(t)
			if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, want) {
				t.Errorf("what is left:\n got %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
			}
			for name, e := range all {
				if e.kind == "stream" && e.length != 0 && strings.Contains(name, ":q:") {
					t.Errorf("%s still has %s", name, e.text)
				}
			}
			if backlog, err := n.Backlog(t.Context()); err != nil || len(backlog) != 3 || backlog[core]+backlog[relay.LanePush]+backlog[relay.LaneLock] != 0 {
				t.Errorf("the backlog is %v, %v, want zeros for core, push and lock", backlog, err)
			}
			n.checkPending(t, all)
			// All but the lasting has a limit to its life, also while it lives.
			w.Arrive(n, w.Challenge("d", "", ""))
			a := owing(w)
			w.Arrive(n, a)
			l := w.LeaseOne(n, a.Partition, core)
			w.Settle(n, l, w.Tried(l, relay.DeliveryDead, time.Time{}))
			for name, e := range n.dump(t) {
				pending := strings.HasSuffix(name, "devices:acme:u:two") // never activated
				if forever := e.life == 0; forever != (lasting(name) && !pending) {
					t.Errorf("%s lives for %s (0: for ever)", name, e.life)
				}
			}
			// When all retention is over, only what must last is left.
			for p := range testPartitions {
				w.Advance(storetest.Life)
				w.Due(n, p)
			}
			w.Pass(endpointLife)
			for name := range n.dump(t) {
				if !lasting(name) || strings.HasSuffix(name, "devices:acme:u:two") {
					t.Errorf("%s is left for ever", name)
				}
			}
		})
	}
}

// checkPending fails if an entry is still leased to anybody.
func (n node) checkPending(t *testing.T, all map[string]entry) {
	t.Helper()
	for name := range all {
		if !strings.Contains(name, ":q:") {
			continue
		}
		p, err := n.rdb.XPending(t.Context(), n.Prefix+":"+name, group).Result()
		if err != nil || p.Count != 0 {
			t.Errorf("%s: %+v is still leased, %v", name, p, err)
		}
	}
}

func TestNothingSecretIsInClear(t *testing.T) {
	t.Parallel()
	w, n := world(t, redistest.Start(t).URL)
	canaries := map[string]string{
		"code": "otp-canary-045435", "link": "https://acs.example/canary", "card number": "5425233430109903",
		"envelope": "envelope-canary", "endpoint": "https://push.example/canary", "p256dh": "BCanaryP256dhKey", "auth": "canaryAuthSecret",
	}
	body := fmt.Appendf(nil, `{"otp":%q,"auth_url":%q,"card_number":%q}`, canaries["code"], canaries["link"], canaries["card number"])
	secret := relay.Secret{Body: body, Envelope: []byte(canaries["envelope"])}

	a := w.Challenge("c", "one", "ref")
	a.Challenge.Secret, a.Event.Secret = secret, secret
	own := w.Event("c", "").Event
	own.Secret = secret
	a.Own = []relay.Event{own}
	lock := w.Delivery(relay.KindLock, "", a.Event)
	lock.Secret = secret
	later := w.Delivery(relay.KindLock, "", a.Event)
	later.Secret, later.Next = secret, w.Now().Add(time.Hour)
	a.Owe = []relay.Delivery{lock, later}
	w.Arrive(n, a)
	c := w.Load(n, a.Challenge.ID)
	c.Announced = true
	w.Commit(n, relay.Step{Partition: a.Partition, Challenge: &c, Owe: []relay.Delivery{lock}})
	l := w.Lease(n, a.Partition, relay.LaneLock)[0]
	w.Settle(n, l, w.Tried(l, relay.DeliveryDead, time.Time{}))
	u := relay.User{Merchant: storetest.Merchant, ID: "one"}
	sub := push.Subscription{Endpoint: canaries["endpoint"], P256dh: canaries["p256dh"], Auth: canaries["auth"]}
	if err := n.SaveDevices(t.Context(), relay.Devices{User: u, List: []relay.Subscription{{ID: "sub", Active: true, Push: sub}}}); err != nil {
		t.Fatal(err)
	}
	root, err := n.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.ClaimEndpoint(t.Context(), root.Fingerprint([]byte(sub.Endpoint)), relay.Claim{User: u, Subscription: "sub"}); err != nil {
		t.Fatal(err)
	}

	// All of it is there, for who has the key.
	if got := w.Load(n, c.ID); string(got.Secret.Body) != string(body) || string(got.Secret.Envelope) != canaries["envelope"] {
		t.Error("the challenge has lost its secret")
	}
	if d, err := n.Devices(t.Context(), u); err != nil || d.List[0].Push != sub {
		t.Error("the devices have lost their keys")
	}
	all := n.dump(t)
	if len(all) < 9 {
		t.Fatalf("only %d keys were searched", len(all))
	}
	for name, e := range all {
		for what, canary := range canaries {
			for _, form := range forms(canary) {
				if strings.Contains(name+e.text, form) {
					t.Errorf("%s holds the %s in clear", name, what)
				}
			}
		}
	}
}

// forms are the ways in which a text may stand in a record: as it is, in JSON,
// in hexadecimal, and in base64 at any offset.
func forms(text string) []string {
	all := []string{text, strings.Trim(strconv.Quote(text), `"`), hex.EncodeToString([]byte(text))}
	for shift, skip := range []int{0, 2, 3} { // characters that hold bits of what stands before
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			s := enc.EncodeToString(append(make([]byte, shift), text...))
			all = append(all, s[skip:len(s)-1]) // the last one may hold bits of what comes after
		}
	}
	return all
}

// TestEndedIsTrimmed: an index that is written again and again, and so never
// expires as a whole, still forgets.
func TestEndedIsTrimmed(t *testing.T) {
	t.Parallel()
	w, n := world(t, redistest.Start(t).URL)
	for what, end := range map[string]func(card string){
		"ended": func(card string) {
			a := w.Challenge(card, "one", "")
			w.Arrive(n, a)
			w.End(n, a.Challenge.ID, relay.Expired)
		},
		"expired on arrival": func(card string) {
			a := w.Challenge(card, "one", "")
			a.Challenge.Status = relay.Expired
			w.Arrive(n, a)
		},
	} {
		h := relay.Holder{Merchant: storetest.Merchant, CardID: what}
		for range 5 {
			end(what)
			w.Pass(testRetention.Challenges/2 + time.Hour)
		}
		end(what)
		key := n.keys.ended(h.Partition(testPartitions), h, "one")
		if life := n.rdb.PTTL(t.Context(), key).Val(); life <= 0 || life > testRetention.Challenges {
			t.Errorf("%s: the index lives for %s, want the retention", what, life)
		}
		got, err := n.rdb.ZCard(t.Context(), key).Result()
		if err != nil || got != 2 {
			t.Errorf("%s: the index holds %d, %v, want the 2 of the last %s", what, got, err, testRetention.Challenges)
		}
	}
}
