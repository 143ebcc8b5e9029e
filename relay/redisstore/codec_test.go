package redisstore

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/crypto"
	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// TestRecordsAreBoundToTheirIDs moves sealed parts to where they do not belong,
// as a writer in Redis could, and damages records.
func TestRecordsAreBoundToTheirIDs(t *testing.T) {
	t.Parallel()
	w, n := world(t, redistest.Start(t).URL)
	mine, his := w.Challenge("c", "one", ""), w.Challenge("c", "two", "")
	w.Arrive(n, mine)
	w.Arrive(n, his)
	ctx := t.Context()
	from, to := n.keys.of(his.Partition, his.Challenge.ID), n.keys.of(mine.Partition, mine.Challenge.ID)
	raw, err := n.rdb.Get(ctx, to).Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.rdb.Copy(ctx, from, to, 0, true).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Challenge(ctx, mine.Challenge.ID); !errors.Is(err, crypto.ErrSealed) {
		t.Errorf("another challenge's record: %v, want ErrSealed", err)
	}
	head, rest, _ := strings.Cut(raw, "\n")
	for what, bad := range map[string]string{"empty": "", "without a head": rest, "cut": raw[:len(head)+1], "no JSON": head + "\n{\n", "no version": "x\tone\n" + rest} {
		if err := n.rdb.Set(ctx, to, bad, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Challenge(ctx, mine.Challenge.ID); !errors.Is(err, errCorrupt) {
			t.Errorf("a record that is %s: %v, want errCorrupt", what, err)
		}
	}
}

// TestUnreadableWorkIsPutBack: what this node's keys cannot read is left to the
// nodes that can.
func TestUnreadableWorkIsPutBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, n := world(t, server.URL)
	a := w.Event("c", "")
	a.Owe = []relay.Delivery{w.Delivery(relay.KindLock, "", a.Event)}
	a.Owe[0].Secret.Body = []byte(`{"card_id":"1"}`)
	w.Arrive(n, a)
	l := w.LeaseOne(n, a.Partition, relay.LaneLock)
	w.Settle(n, l, w.Tried(l, relay.DeliveryPending, w.Now()))
	w.Due(n, a.Partition)

	var log bytes.Buffer
	o := testOptions(t, server.URL, "other keys", w.Now)
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	var err error
	if o.Vault, err = crypto.NewVault(bytes.Repeat([]byte{8}, 32)); err != nil {
		t.Fatal(err)
	}
	blind := open(t, o)
	if got := w.Lease(blind, a.Partition, relay.LaneLock); len(got) != 0 {
		t.Fatalf("handed out %+v without its key", got)
	}
	if !strings.Contains(log.String(), "left to others") || !strings.Contains(log.String(), "storage.keys") {
		t.Errorf("it logged %q, want what happens, and what to do", log.String())
	}
	w.Advance(postponed)
	w.Due(n, a.Partition)
	got := w.LeaseOne(n, a.Partition, relay.LaneLock)
	if string(got.Delivery.Secret.Body) != `{"card_id":"1"}` || len(got.Delivery.Attempts) != 1 {
		t.Errorf("a node with the key got %+v, want the delivery with its attempt and its secret", got)
	}
	w.Settle(n, got, nil)
	if owed, err := n.Backlog(t.Context()); err != nil || owed[relay.LaneLock] != 0 {
		t.Errorf("the backlog is %v, %v, want none", owed, err)
	}
}

// TestNewerRecords: every form of a newer version is told from a damaged one, and
// work in it is put back.
func TestNewerRecords(t *testing.T) {
	t.Parallel()
	w, n := world(t, redistest.Start(t).URL)
	ctx := t.Context()
	a := w.Challenge("c", "one", "")
	w.Arrive(n, a)
	newer := strconv.Itoa(recordVersion + 1)
	set := func(id, value string) {
		t.Helper()
		if err := n.rdb.Set(ctx, n.keys.of(a.Partition, id), value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	dlv := w.ID("dlv_", a.Partition)
	set(a.Challenge.ID, "1\tone\n"+newer+"[]\n")
	set(a.Event.ID, newer+`{"id":7}`+"\n")
	set(dlv, newer+`{}`)
	_, ofChallenge := n.Challenge(ctx, a.Challenge.ID)
	_, ofEvent := n.Event(ctx, a.Event.ID)
	_, ofDelivery := n.Delivery(ctx, dlv)
	u := relay.User{Merchant: storetest.Merchant, ID: "one"}
	sealed := n.vault.Seal([]byte(newer+"{}"), userHolder(u))
	if err := n.rdb.Set(ctx, n.keys.devices(u.Partition(testPartitions), u), "1\t\n"+string(sealed), 0).Err(); err != nil {
		t.Fatal(err)
	}
	_, ofDevices := n.Devices(ctx, u)
	for what, err := range map[string]error{"challenge": ofChallenge, "event": ofEvent, "delivery": ofDelivery, "devices": ofDevices} {
		if !errors.Is(err, relay.ErrNewer) || errors.Is(err, errCorrupt) {
			t.Errorf("%s: %v, want ErrNewer", what, err)
		}
	}
	if list, err := n.Challenges(ctx, relay.ChallengeQuery{User: u, Cards: []string{"c"}, Limit: 9}); err != nil || len(list) != 0 {
		t.Errorf("a list with a newer one = %v, %v, want it without", list, err)
	}

	stream := n.keys.lane(a.Partition, core)
	entries := []string{newer + `{"id":"x"}`, "renew " + a.Challenge.ID, dlv}
	for _, e := range entries {
		if err := n.rdb.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: []string{"d", e}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.Lease(n, a.Partition, core); len(got) != 0 {
		t.Fatalf("handed out %+v, want nothing", got)
	}
	if left, err := n.rdb.XLen(ctx, stream).Result(); err != nil || left != 0 {
		t.Errorf("%d entries are still leased to this node, %v", left, err)
	}
	for _, e := range entries {
		at, err := n.rdb.ZScore(ctx, n.keys.due(a.Partition), string(core)+"\n"+e).Result()
		if err != nil || int64(at) != ms(w.Now().Add(postponed)) {
			t.Errorf("%q is due at %v, %v, want as it was, in %s", e, at, err, postponed)
		}
	}
}

// TestRootNeedsItsKey: a node with other keys must not make a second root.
func TestRootNeedsItsKey(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	_, n := world(t, server.URL)
	if _, err := n.Root(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := testOptions(t, server.URL, "b", nil)
	var err error
	if o.Vault, err = crypto.NewVault(bytes.Repeat([]byte{8}, 32)); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, o).Root(t.Context()); !errors.Is(err, crypto.ErrSealed) || !strings.Contains(err.Error(), "storage.keys") {
		t.Errorf("Root under another key: %v, want ErrSealed and what to do", err)
	}
	if o.Vault, err = crypto.NewVault(bytes.Repeat([]byte{8}, 32), bytes.Repeat([]byte{7}, 32)); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, o).Root(t.Context()); err != nil {
		t.Errorf("Root after a rotation of the keys: %v", err)
	}
}

// TestOlderRecords: what the version before has written is read.
func TestOlderRecords(t *testing.T) {
	t.Parallel()
	w, n := world(t, redistest.Start(t).URL)
	ctx, at := t.Context(), w.Now()
	set := func(key string, value []byte) {
		t.Helper()
		if err := n.rdb.Set(ctx, key, value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	u := relay.User{Merchant: storetest.Merchant, ID: "one"}
	p := u.Partition(testPartitions)
	devices := fmt.Sprintf(`3[{"id":"sub_1","a":true,"cr":%q,"us":%q,"p":{"endpoint":"https://push.example/1"}}]`, at.Format(time.RFC3339Nano), at.Add(time.Hour).Format(time.RFC3339Nano))
	set(n.keys.devices(p, u), append([]byte("7\t\n"), n.vault.Seal([]byte(devices), userHolder(u))...))
	d, err := n.Devices(ctx, u)
	if err != nil || d.Version != 7 || len(d.List) != 1 || !d.List[0].CreatedAt.Equal(at) || !d.List[0].UsedAt.Equal(at.Add(time.Hour)) || d.List[0].Push.Endpoint != "https://push.example/1" {
		t.Errorf("devices: %+v, %v", d, err)
	}
	const body = "{\"otp\":\"\x01 \"}"
	id := w.ID("evt_", p)
	set(n.keys.of(p, id), append([]byte(`3{"ty":"CARD_3DS","m":"acme","o":"quarantined"}`+"\n"), n.vault.Seal(append([]byte{byte(len(body))}, body...), id)...))
	e, err := n.Event(ctx, id)
	if err != nil || e.Type != "CARD_3DS" || e.Outcome != relay.OutcomeQuarantined || string(e.Secret.Body) != body {
		t.Errorf("event: %+v, %v, its body %q", e, err, e.Secret.Body)
	}
	fingerprint := []byte("0123456789abcdef0123456789abcdef")
	old := n.keys.endpoint(n.endpointPartition(fingerprint), fingerprint)
	set(old, []byte("5\tacme\tone\tsub_1"))
	c, err := n.Endpoint(ctx, fingerprint)
	if err != nil || c.User != u || c.Subscription != "sub_1" {
		t.Errorf("claim: %+v, %v", c, err)
	}
	c.User.ID = "two"
	if err := n.ClaimEndpoint(ctx, fingerprint, c); err != nil {
		t.Errorf("claim it: %v", err)
	}
	if got, err := n.Endpoint(ctx, fingerprint); err != nil || got.User.ID != "two" || n.rdb.Exists(ctx, old).Val() != 0 {
		t.Errorf("the next claim: %+v, %v, want it alone", got, err)
	}
}

// TestClaimsAreTrimmed: a hash that is written again and again, and so never expires as
// a whole, still forgets.
func TestClaimsAreTrimmed(t *testing.T) {
	t.Parallel()
	w, n := world(t, redistest.Start(t).URL)
	const many = 50
	claim := func(i int) {
		t.Helper()
		c := relay.Claim{User: relay.User{Merchant: storetest.Merchant, ID: "one"}, Subscription: "sub"}
		if err := n.ClaimEndpoint(t.Context(), fmt.Appendf(nil, "same%012d%016d", i, 0), c); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		for i := range many {
			claim(i)
		}
		w.Pass(endpointLife - time.Hour)
		claim(many) // lives on, and the hash with it
		w.Pass(2 * time.Hour)
	}
	for i := range many {
		claim(many + 1 + i)
	}
	fingerprint := []byte("same")
	left := n.rdb.HLen(t.Context(), n.keys.endpoints(n.endpointPartition(fingerprint), fingerprint)).Val()
	if left > many+2 {
		t.Errorf("%d claims are left, want the last %d", left, many+1)
	}
}
