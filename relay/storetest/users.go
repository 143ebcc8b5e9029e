package storetest

import (
	"errors"
	"testing"
	"time"

	"approvalrelay/crypto/passkey"
	"approvalrelay/push"
	"approvalrelay/relay"
)

var users = map[string]func(*testing.T, *World){
	"devices are swapped":                     testDevices,
	"of concurrent device changes one wins":   testDevicesRace,
	"a change of removed devices is stale":    testDevicesRemoved,
	"devices that are never activated go":     testDevicesPending,
	"an endpoint belongs to the last claimer": testEndpoint,
	"the root key is one and stays":           testRoot,
	"passkeys are swapped":                    testPasskeys,
	"a user without passkeys is forgotten":    testPasskeysRemoved,
}

// device is a subscription with everything that a browser sends.
func (w *World) device(active bool) relay.Subscription {
	return relay.Subscription{
		ID: w.ID("sub_", 0), Active: active, Label: "Phone", CreatedAt: w.Now(), UsedAt: w.Now(),
		Push: push.Subscription{Endpoint: "https://push.example/1", P256dh: "key", Auth: "auth"},
	}
}

func (w *World) devices(b Backend, u relay.User) relay.Devices {
	w.t.Helper()
	d, err := b.Devices(w.t.Context(), u)
	if err != nil {
		w.t.Fatalf("Devices: %v", err)
	}
	return d
}

func testDevices(t *testing.T, w *World) {
	ctx, b, u := t.Context(), w.Node("b"), user("one")
	d := w.devices(w.a, u)
	equal(t, "none", d, relay.Devices{User: u})
	p := u.Partition(w.a.Partitions())
	d.List = []relay.Subscription{w.device(true), w.device(false)}
	activation := w.Delivery(relay.KindPush, d.List[1].ID, relay.Event{ID: w.ID("evt_", p), Merchant: Merchant})
	if err := w.a.SaveDevices(ctx, d, activation); err != nil {
		t.Fatalf("SaveDevices: %v", err)
	}
	got := w.devices(b, u)
	equal(t, "the list", got.List, d.List)
	equal(t, "whose", got.User, u)
	w.owes(b, "the activation", map[relay.Lane]int{relay.LanePush: 1})
	equal(t, "the activation", w.LeaseOne(b, p, relay.LanePush).Delivery, activation)

	wantErr(t, "stale devices", b.SaveDevices(ctx, d, activation), relay.ErrConflict)
	w.owes(b, "stale devices owe nothing", map[relay.Lane]int{relay.LanePush: 1})
	w.nothing(b, "stale devices owe nothing", p, relay.LanePush)
	equal(t, "other users", w.devices(b, user("two")).List, []relay.Subscription(nil))
	equal(t, "other merchants", w.devices(b, relay.User{Merchant: "other", ID: "one"}).List, []relay.Subscription(nil))
	w.Pass(365 * 24 * time.Hour)
	equal(t, "active ones stay", len(w.devices(b, u).List), 2)
}

func testDevicesRace(t *testing.T, w *World) {
	nodes, u := []Backend{w.a, w.Node("b")}, user("one")
	for range 20 {
		before := w.devices(w.a, u)
		errs := make(chan error, 2)
		for _, n := range nodes {
			d := before
			d.List = []relay.Subscription{w.device(true)}
			go func() { errs <- n.SaveDevices(t.Context(), d) }()
		}
		one, two := <-errs, <-errs
		if one == nil {
			one, two = two, one
		}
		if two != nil || !errors.Is(one, relay.ErrConflict) {
			t.Fatalf("two changes: %v, %v; want one nil and one ErrConflict", one, two)
		}
	}
}

func testDevicesRemoved(t *testing.T, w *World) {
	ctx, u := t.Context(), user("one")
	save := func(list ...relay.Subscription) {
		t.Helper()
		d := w.devices(w.a, u)
		d.List = list
		if err := w.a.SaveDevices(ctx, d); err != nil {
			t.Fatalf("SaveDevices: %v", err)
		}
	}
	save(w.device(true))
	stale := w.devices(w.a, u)
	save()
	equal(t, "removed", len(w.devices(w.a, u).List), 0)
	save(w.device(true))
	wantErr(t, "a change of the removed ones", w.a.SaveDevices(ctx, stale), relay.ErrConflict)
}

func testDevicesPending(t *testing.T, w *World) {
	u := user("one")
	d := relay.Devices{User: u, List: []relay.Subscription{w.device(false)}}
	if err := w.a.SaveDevices(t.Context(), d); err != nil {
		t.Fatalf("SaveDevices: %v", err)
	}
	w.Pass(10 * time.Minute)
	equal(t, "while it may be activated", len(w.devices(w.a, u).List), 1)
	w.Pass(24 * time.Hour)
	equal(t, "a day later", w.devices(w.a, u), relay.Devices{User: u})
}

func testEndpoint(t *testing.T, w *World) {
	b := w.Node("b")
	one, two := randomBytes(), randomBytes()
	for i, step := range []struct {
		fingerprint []byte
		claims      relay.User
		former      relay.User
	}{
		{one, user("one"), relay.User{}},
		{one, user("one"), user("one")},
		{two, user("one"), relay.User{}},
		{one, relay.User{Merchant: "other", ID: "one"}, user("one")},
		{one, user("two"), relay.User{Merchant: "other", ID: "one"}},
		{two, user("two"), user("one")},
	} {
		got, err := []Backend{w.a, b}[i%2].ClaimEndpoint(t.Context(), step.fingerprint, step.claims)
		if err != nil {
			t.Fatalf("ClaimEndpoint: %v", err)
		}
		equal(t, at("the former owner at claim", i), got, step.former)
	}
}

func testRoot(t *testing.T, w *World) {
	want := []byte(nil)
	// Concurrently, so that no node finds it made.
	nodes := []Backend{w.a, w.Node("b"), w.Node("c")}
	prints := make(chan []byte, len(nodes))
	for _, n := range nodes {
		go func() {
			r, err := n.Root(t.Context())
			if err != nil {
				t.Errorf("Root: %v", err)
				prints <- nil
				return
			}
			prints <- r.Fingerprint([]byte("x"))
		}()
	}
	for range nodes {
		got := <-prints
		if want == nil {
			want = got
		}
		equal(t, "what a node derives", got, want)
	}
	w.Pass(10 * 365 * 24 * time.Hour)
	r, err := w.Node("d").Root(t.Context())
	if err != nil {
		t.Fatalf("Root: %v", err)
	}
	equal(t, "years later", r.Fingerprint([]byte("x")), want)
}

func (w *World) passkeys(b Backend, u relay.User) relay.Passkeys {
	w.t.Helper()
	p, err := b.Passkeys(w.t.Context(), u)
	if err != nil {
		w.t.Fatalf("Passkeys: %v", err)
	}
	return p
}

func testPasskeys(t *testing.T, w *World) {
	ctx, b, u := t.Context(), w.Node("b"), user("one")
	p := w.passkeys(w.a, u)
	equal(t, "none", p, relay.Passkeys{User: u})
	p.Enrolment = &relay.Enrolment{Challenge: []byte("challenge"), At: w.Now()}
	p.List = []relay.Passkey{{ID: w.ID("pky_", 0), Label: "Phone", CreatedAt: w.Now(), Credential: passkey.Credential{
		ID: []byte("id"), PublicKey: []byte("key"), SignCount: 7, Flags: 0x1d, Transports: []string{"internal"},
	}}}
	if err := w.a.SavePasskeys(ctx, p); err != nil {
		t.Fatalf("SavePasskeys: %v", err)
	}
	got := w.passkeys(b, u)
	equal(t, "the list", got.List, p.List)
	equal(t, "the enrolment", got.Enrolment, p.Enrolment)
	wantErr(t, "stale passkeys", b.SavePasskeys(ctx, p), relay.ErrConflict)
	equal(t, "other users", w.passkeys(b, user("two")).List, []relay.Passkey(nil))
	equal(t, "other merchants", w.passkeys(b, relay.User{Merchant: "other", ID: "one"}).List, []relay.Passkey(nil))
	equal(t, "devices", w.devices(b, u).List, []relay.Subscription(nil))
	w.Pass(365 * 24 * time.Hour)
	equal(t, "they stay", len(w.passkeys(b, u).List), 1)
}

func testPasskeysRemoved(t *testing.T, w *World) {
	ctx, u := t.Context(), user("one")
	p := w.passkeys(w.a, u)
	p.List = []relay.Passkey{{ID: w.ID("pky_", 0)}}
	if err := w.a.SavePasskeys(ctx, p); err != nil {
		t.Fatalf("SavePasskeys: %v", err)
	}
	before := w.passkeys(w.a, u)
	none := before
	none.List = nil
	if err := w.a.SavePasskeys(ctx, none); err != nil {
		t.Fatalf("SavePasskeys: %v", err)
	}
	wantErr(t, "a change of removed passkeys", w.a.SavePasskeys(ctx, before), relay.ErrConflict)
	w.Pass(2 * time.Hour)
	equal(t, "after two hours", w.passkeys(w.a, u), relay.Passkeys{User: u})
}
