package redisstore

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"approvalrelay/crypto"
	"approvalrelay/relay"
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

// TestUnreadableWorkStays: what this version or this node's keys cannot read
// stays leased, and is read by the next node that can.
func TestUnreadableWorkStays(t *testing.T) {
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
	if !strings.Contains(log.String(), "it stays") {
		t.Errorf("it logged %q, want that the delivery stays", log.String())
	}
	if err := blind.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	taken, err := n.TakeOver(t.Context(), "other keys", []relay.Lane{relay.LaneLock})
	if err != nil || len(taken) != 1 || string(taken[0].Delivery.Secret.Body) != `{"card_id":"1"}` || len(taken[0].Delivery.Attempts) != 1 {
		t.Errorf("a node with the key took over %+v, %v, want the delivery with its attempt and its secret", taken, err)
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
