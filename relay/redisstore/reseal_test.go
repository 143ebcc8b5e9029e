package redisstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"approvalrelay/crypto"
	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// under opens a node on the data of t whose storage keys are made of these bytes.
func under(t *testing.T, url string, w *storetest.World, keys ...byte) (node, *bytes.Buffer) {
	t.Helper()
	var all [][]byte
	for _, k := range keys {
		all = append(all, bytes.Repeat([]byte{k}, 32))
	}
	o := testOptions(t, url, fmt.Sprint("under ", keys), w.Now)
	log := &bytes.Buffer{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	var err error
	if o.Vault, err = crypto.NewVault(all...); err != nil {
		t.Fatal(err)
	}
	return open(t, o), log
}

// The keys of these tests, by the byte that they are made of. testOptions has oldKey.
const (
	oldKey byte = 7
	newKey byte = 8
)

// sealedData is one of everything that is sealed.
type sealedData struct {
	w         *storetest.World
	event     relay.Arrival
	pending   relay.Arrival
	devices   relay.Devices
	dead      relay.Delivery
	retried   relay.Delivery
	waiting   relay.Arrival
	postponed relay.Arrival
	print     []byte
}

func sealEverything(t *testing.T, w *storetest.World, n node) *sealedData {
	t.Helper()
	ctx := t.Context()
	d := &sealedData{w: w, event: w.Event("c-event", ""), pending: w.Challenge("c-pending", "u", "R-1")}
	w.Arrive(n, d.event)
	w.Arrive(n, d.pending)
	lock := func(card string) relay.Arrival {
		a := w.Event(card, "")
		a.Owe = []relay.Delivery{w.Delivery(relay.KindLock, "", a.Event)}
		a.Owe[0].Secret.Body = []byte(`{"card_id":"` + card + `"}`)
		w.Arrive(n, a)
		return a
	}
	tried := func(card string, status relay.DeliveryStatus) relay.Delivery {
		a := lock(card)
		l := w.LeaseOne(n, a.Partition, relay.LaneLock)
		w.Settle(n, l, w.Tried(l, status, w.Now().Add(time.Hour)))
		return a.Owe[0]
	}
	d.dead, d.retried = tried("c-dead", relay.DeliveryDead), tried("c-retried", relay.DeliveryPending)
	d.postponed = lock("c-postponed")
	if err := n.Postpone(ctx, w.LeaseOne(n, d.postponed.Partition, relay.LaneLock)); err != nil {
		t.Fatal(err)
	}
	d.waiting = lock("c-waiting")
	d.devices = relay.Devices{User: relay.User{Merchant: storetest.Merchant, ID: "u"}, List: []relay.Subscription{{ID: "sub_1", Label: "phone"}}}
	if err := n.SaveDevices(ctx, d.devices); err != nil {
		t.Fatal(err)
	}
	if err := n.SavePasskeys(ctx, relay.Passkeys{User: d.devices.User, List: []relay.Passkey{{ID: "pky_1", Label: "phone"}}}); err != nil {
		t.Fatal(err)
	}
	d.print = fingerprint(t, n)
	return d
}

// fingerprint tells root keys apart.
func fingerprint(t *testing.T, n node) []byte {
	t.Helper()
	root, err := n.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return root.Fingerprint([]byte("x"))
}

// opens fails unless everything opens with the node's keys, and is what it was.
func (d *sealedData) opens(t *testing.T, n node) {
	t.Helper()
	ctx := t.Context()
	if got := fingerprint(t, n); !bytes.Equal(got, d.print) {
		t.Error("the root key is another one")
	}
	e, err := n.Event(ctx, d.event.Event.ID)
	if err != nil || string(e.Secret.Body) != string(d.event.Event.Secret.Body) || string(e.Secret.Envelope) != string(d.event.Event.Secret.Envelope) {
		t.Errorf("event: %v", err)
	}
	c, err := n.Challenge(ctx, d.pending.Challenge.ID)
	if err != nil || string(c.Secret.Body) != string(d.pending.Challenge.Secret.Body) || c.Version != 1 || c.Reference != "R-1" || c.UserID != "u" {
		t.Errorf("challenge: %+v, %v", c, err)
	}
	devices, err := n.Devices(ctx, d.devices.User)
	if err != nil || devices.Version != 1 || len(devices.List) != 1 || devices.List[0].Label != "phone" {
		t.Errorf("devices: %+v, %v", devices, err)
	}
	passkeys, err := n.Passkeys(ctx, d.devices.User)
	if err != nil || passkeys.Version != 1 || len(passkeys.List) != 1 || passkeys.List[0].Label != "phone" {
		t.Errorf("passkeys: %+v, %v", passkeys, err)
	}
	for card, want := range map[string]relay.Delivery{"c-dead": d.dead, "c-retried": d.retried} {
		got, err := n.Delivery(ctx, want.ID)
		if err != nil || string(got.Secret.Body) != `{"card_id":"`+card+`"}` || len(got.Attempts) != 1 {
			t.Errorf("%s: %+v, %v", card, got, err)
		}
	}
}

// TestReseal seals everything there is under one key, rotates, and then does without
// that key. What waits in a queue is left to its next attempt.
func TestReseal(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{
		"embedded": "redis://" + miniredis.RunT(t).Addr(), "redis": redistest.Start(t).URL, "cluster": redistest.StartCluster(t, noFsync...).URL,
	} {
		t.Run(name, func(t *testing.T) {
			w, n := world(t, url)
			d := sealEverything(t, w, n)
			both, log := under(t, url, w, newKey, oldKey)
			d.opens(t, both)
			before := lives(t, n)
			for pass, want := range []Resealed{{Swapped: 11, Waiting: 2}, {Waiting: 2}} {
				got, err := both.Reseal(t.Context())
				if err != nil || got != want {
					t.Fatalf("pass %d: %+v, %v, want %+v", pass+1, got, err, want)
				}
			}
			if got := value(t, both.resealed); got != 11 {
				t.Errorf("%v records were counted, want 11", got)
			}
			after := lives(t, n)
			if len(before) != len(after) {
				t.Errorf("there were %d keys, and are %d", len(before), len(after))
			}
			for key, had := range before {
				if has := after[key]; (had < 0) != (has < 0) || has > had || had-has > 20*time.Second {
					t.Errorf("%s had %v to live, has %v", key, had, has)
				}
			}
			if err := both.resealInTurn(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), "keep all of storage.keys") || !strings.Contains(log.String(), "in_queues=2") || value(t, both.underOlder) != 2 {
				t.Errorf("it logged %s, and shows %v left", log, value(t, both.underOlder))
			}

			w.Advance(postponed)
			w.Due(both, d.postponed.Partition)
			for _, a := range []relay.Arrival{d.postponed, d.waiting} {
				l := w.LeaseOne(both, a.Partition, relay.LaneLock)
				w.Settle(both, l, w.Tried(l, relay.DeliveryPending, w.Now().Add(time.Hour)))
			}
			if err := both.rdb.Del(t.Context(), both.turnKey()).Err(); err != nil { // an hour passes
				t.Fatal(err)
			}
			if err := both.resealInTurn(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), "the others may be removed") || value(t, both.underOlder) != 0 {
				t.Errorf("it logged %s", log)
			}
			only, _ := under(t, url, w, newKey)
			d.opens(t, only)
			if err := only.Replay(t.Context(), d.dead.ID); err != nil {
				t.Errorf("replay of a dead letter: %v", err)
			}
		})
	}
}

// lives of all keys but the turn's; negative is for ever.
func lives(t *testing.T, n node) map[string]time.Duration {
	t.Helper()
	all := map[string]time.Duration{}
	for _, name := range n.names(t) {
		if strings.Contains(name, ":reseal:") {
			continue
		}
		left, err := n.rdb.PTTL(t.Context(), name).Result()
		if err != nil {
			t.Fatal(err)
		}
		all[name] = left
	}
	return all
}

// TestResealUnderTraffic: while challenges change all the time, by nodes with the
// old order of keys and with the new one, what was written last is what is read.
func TestResealUnderTraffic(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"redis": redistest.Start(t).URL, "cluster": redistest.StartCluster(t, noFsync...).URL} {
		t.Run(name, func(t *testing.T) {
			w, n := world(t, url)
			old, _ := under(t, url, w, oldKey, newKey)
			fresh, _ := under(t, url, w, newKey, oldKey)
			ctx, stop := context.WithCancel(t.Context())
			var passes sync.WaitGroup
			var sum Resealed
			passes.Go(func() {
				for ctx.Err() == nil {
					r, err := fresh.Reseal(ctx)
					if err != nil && ctx.Err() == nil {
						t.Errorf("Reseal: %v", err)
						return
					}
					sum.Swapped, sum.Raced, sum.Locked = sum.Swapped+r.Swapped, sum.Raced+r.Raced, sum.Locked+r.Locked
				}
			})
			var writers sync.WaitGroup
			for i := range 4 {
				writers.Go(func() {
					a := w.Challenge(fmt.Sprint("c-", i), "u", "")
					if _, err := n.Arrive(t.Context(), a); err != nil {
						t.Errorf("Arrive: %v", err)
						return
					}
					for round := 1; round <= 150; round++ {
						on := []node{old, fresh}[round%2]
						c, err := on.Challenge(t.Context(), a.Challenge.ID)
						if err != nil || c.Version != round || c.Note != note(round) {
							t.Errorf("round %d: version %d, %q, %v", round, c.Version, c.Note, err)
							return
						}
						c.Note = note(round + 1)
						if err := old.Commit(t.Context(), relay.Step{Partition: a.Partition, Challenge: &c, From: c.Status}); err != nil {
							t.Errorf("Commit: %v", err)
							return
						}
					}
				})
			}
			writers.Wait()
			stop()
			passes.Wait()
			if sum.Swapped == 0 || sum.Locked != 0 {
				t.Errorf("all in all %+v: nothing was proved", sum)
			}
			t.Logf("%+v", sum)
		})
	}
}

func note(round int) string {
	if round == 1 {
		return ""
	}
	return fmt.Sprint("round ", round)
}

// TestResealIsFinishedByAnother: a node that dies in its turn keeps it for a minute
// only, and what it has left is done by the next.
func TestResealIsFinishedByAnother(t *testing.T) {
	t.Parallel()
	url := redistest.Start(t).URL
	w, n := world(t, url)
	d := sealEverything(t, w, n)
	first, _ := under(t, url, w, newKey, oldKey)
	ctx, die := context.WithCancel(t.Context())
	first.rdb.AddHook(&dying{die: die, when: func() bool { return value(t, first.resealed) == 3 }})
	if err := first.resealInTurn(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("it ended by %v, want its death", err)
	}
	if got := value(t, first.resealed); got != 3 {
		t.Fatalf("it died after %v records, want 3", got)
	}
	second, log := under(t, url, w, newKey, oldKey)
	if err := second.resealInTurn(t.Context()); err != nil || value(t, second.resealed) != 0 {
		t.Fatalf("out of turn: %v, %v records", err, value(t, second.resealed))
	}
	left, err := second.rdb.PTTL(t.Context(), second.turnKey()).Result()
	if err != nil || left <= 0 || left > resealTurn {
		t.Fatalf("the turn lasts %v, %v", left, err)
	}
	second.Age(t, resealTurn)
	if err := second.resealInTurn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := value(t, second.resealed); got != 8 || !strings.Contains(log.String(), "resealed=8") {
		t.Errorf("the next did %v records, want the other 8: %s", got, log)
	}
	only, _ := under(t, url, w, newKey)
	d.opens(t, only)
}

// dying ends a context instead of a record's swap.
type dying struct {
	when func() bool
	die  context.CancelFunc
}

func (h *dying) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *dying) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *dying) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if nameOf(cmd) == "reseal" && h.when() {
			h.die()
			return ctx.Err()
		}
		return next(ctx, cmd)
	}
}

// TestKeyRemovedTooEarly: what its key is missing for is said, and keeps nobody from
// all else; with the key back it is there again.
func TestKeyRemovedTooEarly(t *testing.T) {
	t.Parallel()
	url := redistest.Start(t).URL
	w, n := world(t, url)
	d := sealEverything(t, w, n)
	early, log := under(t, url, w, newKey)
	ctx := t.Context()
	says := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, crypto.ErrSealed) || !strings.Contains(err.Error(), "still in storage.keys?") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := early.Root(ctx)
	says("root", err)
	_, err = early.Event(ctx, d.event.Event.ID)
	says("event", err)
	_, err = early.Challenge(ctx, d.pending.Challenge.ID)
	says("challenge", err)
	_, err = early.Devices(ctx, d.devices.User)
	says("devices", err)
	says("replay", early.Replay(ctx, d.dead.ID))

	readable := w.Challenge("c-pending", "u", "R-2")
	w.Arrive(early, readable)
	mine, err := early.Challenges(ctx, relay.ChallengeQuery{User: d.devices.User, Cards: []string{"c-pending"}, Limit: 10})
	if err != nil || len(mine) != 2 {
		t.Errorf("the user's list: %d, %v, want both", len(mine), err)
	}
	all, _, err := early.AllChallenges(ctx, relay.StatusQuery{Range: relay.Range{Limit: 10}})
	if err != nil || len(all) != 2 {
		t.Errorf("the operator's list: %d, %v, want both", len(all), err)
	}
	events, _, err := early.Events(ctx, relay.EventQuery{Range: relay.Range{Limit: 100}})
	if err != nil || len(events) != 7 {
		t.Errorf("events: %d, %v, want 7", len(events), err)
	}
	dead, err := early.DeadLetters(ctx, partition(t, d.dead.ID), 10)
	if err != nil || len(dead) != 1 || dead[0].ID != d.dead.ID {
		t.Errorf("dead letters: %+v, %v", dead, err)
	}
	found, err := early.Attempted(ctx, []string{d.dead.ID, d.retried.ID})
	if err != nil || len(found) != 2 {
		t.Errorf("attempted: %+v, %v", found, err)
	}
	if !strings.Contains(log.String(), "cannot be opened") || !strings.Contains(log.String(), d.dead.ID) || strings.Contains(log.String(), "card_id") {
		t.Errorf("it logged %s", log)
	}

	// A third key instead of the first: told apart from what waits, and left alone.
	third, log := under(t, url, w, 9, newKey)
	if err := third.resealInTurn(ctx); err != nil {
		t.Fatal(err)
	}
	if got := value(t, third.underOlder); got != 13 || !strings.Contains(log.String(), "put the key back") || strings.Contains(log.String(), "may be removed") {
		t.Errorf("%v are left: %s", got, log)
	}
	back, _ := under(t, url, w, 9, newKey, oldKey)
	d.opens(t, back)
	if r, err := back.Reseal(ctx); err != nil || r.Locked != 0 || r.Swapped != 11 {
		t.Errorf("with the key back: %+v, %v", r, err)
	}
	d.opens(t, back)
}

// TestResealLeavesTheUnknown: what a newer version has written stays byte for byte.
func TestResealLeavesTheUnknown(t *testing.T) {
	t.Parallel()
	url := redistest.Start(t).URL
	w, n := world(t, url)
	ctx := t.Context()
	a := w.Event("c", "")
	w.Arrive(n, a)
	key := n.keys.of(a.Partition, a.Event.ID)
	raw, err := n.rdb.Get(ctx, key).Result()
	if err != nil {
		t.Fatal(err)
	}
	fresh, _ := under(t, url, w, newKey, oldKey)
	swap := func(record string) (Resealed, string) {
		t.Helper()
		if err := n.rdb.Set(ctx, key, record, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		r, err := fresh.Reseal(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return r, n.rdb.Get(ctx, key).Val()
	}
	newer := fmt.Sprint(recordVersion+1, raw[1:])
	if r, got := swap(newer); r != (Resealed{Newer: 1}) || got != newer {
		t.Errorf("a newer version's record: %+v, changed %v", r, got != newer)
	}
	unknown := strings.Replace(raw, "{", `{"unknown":"field",`, 1)
	if r, got := swap(unknown); r != (Resealed{Swapped: 1}) || !strings.Contains(got, `"unknown":"field"`) || got == unknown {
		t.Errorf("a record with a field more: %+v, %q", r, got)
	}
}

func partition(t *testing.T, id string) int {
	t.Helper()
	p, ok := relay.PartitionOf(id)
	if !ok {
		t.Fatalf("%s has no partition", id)
	}
	return p
}

// value of a counter or gauge.
func value(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	m := families[0].GetMetric()[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}
