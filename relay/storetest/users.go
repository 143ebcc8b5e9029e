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
	"devices are swapped":                    testDevices,
	"of concurrent device changes one wins":  testDevicesRace,
	"a change of removed devices is stale":   testDevicesRemoved,
	"devices that are never activated go":    testDevicesPending,
	"an endpoint's claim is swapped":         testEndpoint,
	"of concurrent claims one wins":          testEndpointRace,
	"a claim that was released is stale":     testEndpointReleased,
	"a claim that is kept lives on":          testEndpointKept,
	"pushes about subscriptions are counted": testNotices,
	"of concurrent pushes never too many go": testNoticesRace,
	"the root key is one and stays":          testRoot,
	"passkeys are swapped":                   testPasskeys,
	"a user without passkeys is forgotten":   testPasskeysRemoved,
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

func (w *World) claim(b Backend, fingerprint []byte) relay.Claim {
	w.t.Helper()
	c, err := b.Endpoint(w.t.Context(), fingerprint)
	if err != nil {
		w.t.Fatalf("Endpoint: %v", err)
	}
	return c
}

func testEndpoint(t *testing.T, w *World) {
	ctx, b := t.Context(), w.Node("b")
	one, two := randomBytes(), randomBytes()
	equal(t, "at first", w.claim(w.a, one), relay.Claim{})
	for i, c := range []relay.Claim{
		{User: user("one"), Subscription: "sub_1"},
		{User: user("one"), Subscription: "sub_1"},
		{User: relay.User{Merchant: "other", ID: "one"}, Subscription: "sub_2"},
		{User: user("two"), Subscription: "sub_3"},
	} {
		c.Version = i
		if err := w.a.ClaimEndpoint(ctx, one, c); err != nil {
			t.Fatalf("ClaimEndpoint: %v", err)
		}
		wantErr(t, at("the same claim again", i), b.ClaimEndpoint(ctx, one, c), relay.ErrConflict)
		c.Version++
		equal(t, at("the claim", i), w.claim(b, one), c)
	}
	equal(t, "another endpoint's", w.claim(w.a, two), relay.Claim{})
	w.Pass(365 * 24 * time.Hour)
	equal(t, "a year later", w.claim(w.a, one).User, user("two"))
}

func testEndpointRace(t *testing.T, w *World) {
	nodes, fingerprint := []Backend{w.a, w.Node("b")}, randomBytes()
	for range 20 {
		was := w.claim(w.a, fingerprint)
		errs := make(chan error, 2)
		for i, n := range nodes {
			next := relay.Claim{Version: was.Version, User: user(at("user", i)), Subscription: "sub"}
			go func() { errs <- n.ClaimEndpoint(t.Context(), fingerprint, next) }()
		}
		one, two := <-errs, <-errs
		if one == nil {
			one, two = two, one
		}
		if two != nil || !errors.Is(one, relay.ErrConflict) {
			t.Fatalf("two claims: %v, %v; want one nil and one ErrConflict", one, two)
		}
	}
}

// testEndpointReleased: who has read a claim before it was given up, and given
// out again, is late.
func testEndpointReleased(t *testing.T, w *World) {
	ctx, fingerprint := t.Context(), randomBytes()
	claim := func(c relay.Claim) {
		t.Helper()
		c.Version = w.claim(w.a, fingerprint).Version
		if err := w.a.ClaimEndpoint(ctx, fingerprint, c); err != nil {
			t.Fatalf("ClaimEndpoint: %v", err)
		}
	}
	claim(relay.Claim{User: user("one"), Subscription: "sub_1"})
	stale := w.claim(w.a, fingerprint)
	claim(relay.Claim{})
	equal(t, "whose it is when released", w.claim(w.a, fingerprint).User, relay.User{})
	claim(relay.Claim{User: user("two"), Subscription: "sub_2"})
	wantErr(t, "a claim on what was released", w.a.ClaimEndpoint(ctx, fingerprint, stale), relay.ErrConflict)
	claim(relay.Claim{})
	w.Pass(24 * time.Hour)
	equal(t, "a day later", w.claim(w.a, fingerprint), relay.Claim{})
}

func testEndpointKept(t *testing.T, w *World) {
	ctx, kept, left := t.Context(), randomBytes(), randomBytes()
	for _, fingerprint := range [][]byte{kept, left} {
		if err := w.a.ClaimEndpoint(ctx, fingerprint, relay.Claim{User: user("one"), Subscription: "sub"}); err != nil {
			t.Fatalf("ClaimEndpoint: %v", err)
		}
	}
	const years = 5
	for range years {
		w.Pass(365 * 24 * time.Hour)
		if err := w.a.KeepEndpoint(ctx, kept); err != nil {
			t.Fatalf("KeepEndpoint: %v", err)
		}
	}
	equal(t, "the one that is kept", w.claim(w.a, kept).User, user("one"))
	equal(t, "the other", w.claim(w.a, left), relay.Claim{})
	if err := w.a.KeepEndpoint(ctx, left); err != nil {
		t.Errorf("KeepEndpoint of none: %v", err)
	}
}

func (w *World) spend(b Backend, fingerprint []byte, u relay.User, l relay.NoticeLimits) time.Duration {
	w.t.Helper()
	wait, err := b.SpendNotice(w.t.Context(), fingerprint, u, l)
	if err != nil {
		w.t.Fatalf("SpendNotice: %v", err)
	}
	return wait
}

func testNotices(t *testing.T, w *World) {
	l := relay.NoticeLimits{Window: 10 * time.Minute, PerEndpoint: 2, PerUser: 3}
	one, two, three, b := randomBytes(), randomBytes(), randomBytes(), w.Node("b")
	spend := func(what string, fingerprint []byte, u string, want time.Duration) {
		t.Helper()
		w.Pass(time.Second)
		equal(t, what, w.spend(b, fingerprint, user(u), l), want)
	}
	spend("the endpoint's first", one, "anna", 0)
	spend("its second, of another user", one, "berta", 0)
	for i := range 4 {
		spend("its third", one, "carla", 10*time.Minute-time.Duration(2+i)*time.Second)
	}
	spend("the user's second", two, "anna", 0)
	spend("the user's third", two, "anna", 0)
	spend("beyond both", two, "anna", 10*time.Minute-2*time.Second) // the later of the two
	spend("the user's fourth", three, "anna", 10*time.Minute-9*time.Second)
	spend("what was refused does not count", three, "carla", 0)
	w.Pass(10*time.Minute - 11*time.Second)
	spend("the endpoint's first is over", one, "carla", 0)
	spend("its second, too", one, "carla", 0)
	w.Pass(24 * time.Hour)
	for range 2 {
		spend("a day later", one, "anna", 0)
	}
}

func testNoticesRace(t *testing.T, w *World) {
	nodes := []Backend{w.a, w.Node("b")}
	l := relay.NoticeLimits{Window: 10 * time.Minute, PerEndpoint: 5, PerUser: 20}
	fingerprint, waits := randomBytes(), make(chan time.Duration, 40)
	for i := range cap(waits) {
		go func() {
			wait, err := nodes[i%2].SpendNotice(t.Context(), fingerprint, user(at("user", i)), l)
			if err != nil {
				t.Errorf("SpendNotice: %v", err)
			}
			waits <- wait
		}()
	}
	went := 0
	for range cap(waits) {
		if <-waits == 0 {
			went++
		}
	}
	if went > 5 {
		t.Errorf("%d of %d went, want at most 5", went, cap(waits))
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
