package relay_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/push"
	"approvalrelay/relay"
	"approvalrelay/relay/storetest/redistest"
)

// dyingStore is a node's store that dies at one of the calls that an activation
// makes: before the call, or after it was carried out and before its answer.
// From then on nothing works.
type dyingStore struct {
	relay.Store
	calls atomic.Int32
	dies  int32 // at this call; 0: never
	late  bool  // after it
}

func (s *dyingStore) call(do func() error) error {
	n := s.calls.Add(1)
	if s.dies > 0 && (n > s.dies || n == s.dies && !s.late) {
		return relay.ErrUnavailable
	}
	err := do()
	if s.dies > 0 && n == s.dies {
		return relay.ErrUnavailable
	}
	return err
}

func (s *dyingStore) Devices(ctx context.Context, u relay.User) (d relay.Devices, err error) {
	err = s.call(func() (err error) { d, err = s.Store.Devices(ctx, u); return err })
	return d, err
}

func (s *dyingStore) SaveDevices(ctx context.Context, d relay.Devices, owe ...relay.Delivery) error {
	return s.call(func() error { return s.Store.SaveDevices(ctx, d, owe...) })
}

func (s *dyingStore) Endpoint(ctx context.Context, fingerprint []byte) (c relay.Claim, err error) {
	err = s.call(func() (err error) { c, err = s.Store.Endpoint(ctx, fingerprint); return err })
	return c, err
}

func (s *dyingStore) ClaimEndpoint(ctx context.Context, fingerprint []byte, c relay.Claim) error {
	return s.call(func() error { return s.Store.ClaimEndpoint(ctx, fingerprint, c) })
}

// owners are those of the users who have a browser active, by its endpoint.
func (h *harness) owners(n int, users ...relay.User) (active []string) {
	h.t.Helper()
	for _, u := range users {
		for _, s := range h.subscriptions(u) {
			if s.Push.Endpoint == endpoint(n).Endpoint && s.Active {
				active = append(active, u.ID)
			}
		}
	}
	return active
}

// A node that dies anywhere in an activation leaves nobody sharing an endpoint,
// and the same code sent again gives it to who has proved it last.
func TestActivationThatDiesHalfway(t *testing.T) {
	t.Parallel()
	h := newHarnessOn(t, redistest.Start(t).URL, nil)
	n, finished := 0, false
	for call := int32(1); !finished; call++ {
		if call > 50 {
			t.Fatal("it makes ever more calls")
		}
		for _, late := range []bool{false, true} {
			n++
			former, next := relay.User{Merchant: "acme", ID: fmt.Sprint("former-", n)}, relay.User{Merchant: "acme", ID: fmt.Sprint("next-", n)}
			h.device(former, n)
			id, code := h.subscribe(next, n)
			dying := &dyingStore{Store: h.store, dies: call, late: late}
			err := relay.New(h.options, dying, h.log).Activate(h.ctx, next, id, code)
			if finished = dying.calls.Load() < call; finished != (err == nil) {
				t.Fatalf("it died at call %d of %d: %v", call, dying.calls.Load(), err)
			}
			if active := h.owners(n, former, next); len(active) > 1 {
				t.Errorf("died at call %d (late %v): active for %v", call, late, active)
			}
			if err := h.Activate(h.ctx, next, id, code); err != nil {
				t.Errorf("died at call %d (late %v): the same code again: %v", call, late, err)
			}
			if active := h.owners(n, former, next); !slices.Equal(active, []string{next.ID}) {
				t.Errorf("died at call %d (late %v): in the end it is active for %v", call, late, active)
			}
		}
	}
	if n < 12 { // at least: devices, claim, two for the former, claim, two for the next
		t.Errorf("only %d deaths were tried", n)
	}
}

// Two users who prove the same browser at the same time never share it, and who
// proves it once more has it.
func TestTwoProveOneEndpointAtOnce(t *testing.T) {
	t.Parallel()
	h := newHarnessOn(t, redistest.Start(t).URL, nil)
	won := map[string]int{}
	for n := range 60 {
		users := []relay.User{{Merchant: "acme", ID: fmt.Sprint("a-", n)}, {Merchant: "acme", ID: fmt.Sprint("b-", n)}}
		if n%3 == 0 { // it is claimed already
			h.device(relay.User{Merchant: "acme", ID: fmt.Sprint("c-", n)}, n)
		}
		ids, codes := make([]string, 2), make([]string, 2)
		for i, u := range users {
			ids[i], codes[i] = h.subscribe(u, n)
		}
		if n%2 == 0 { // the first has it, and proves it again
			if err := h.Activate(h.ctx, users[0], ids[0], codes[0]); err != nil {
				t.Fatal(err)
			}
		}
		var all sync.WaitGroup
		start, errs := make(chan struct{}), make([]error, 2)
		for i, u := range users {
			all.Go(func() {
				<-start
				errs[i] = h.Activate(h.ctx, u, ids[i], codes[i])
			})
		}
		close(start)
		all.Wait()
		for _, err := range errs {
			if err != nil && !errors.Is(err, relay.ErrNotFound) {
				t.Fatalf("round %d: %v", n, err)
			}
		}
		active := h.owners(n, users...)
		if len(active) > 1 {
			t.Fatalf("round %d: it is active for %v", n, active)
		}
		won[strings.Join(active, "")[:min(1, len(active))]]++
		h.device(users[n%2], n)
		if active := h.owners(n, users...); !slices.Equal(active, []string{users[n%2].ID}) {
			t.Fatalf("round %d: proved once more by %s, it is active for %v", n, users[n%2].ID, active)
		}
	}
	t.Logf("it had, in how many rounds: %v", won)
}

// Five guesses, then a new subscription with a new id, and so a new code: and of
// these there are five in ten minutes.
func TestGuessingTheCode(t *testing.T) {
	h := newHarness(t, nil)
	var codes []string
	for range 5 {
		id, code := h.subscribe(anna, 1)
		for range 5 {
			refused(t, h.Activate(h.ctx, anna, id, "AAAAAAAA"), relay.CodeWrongCode)
		}
		refused(t, h.Activate(h.ctx, anna, id, code), relay.CodeNotFound)
		if slices.Contains(codes, code) {
			t.Errorf("the code %s comes again", code)
		}
		codes = append(codes, code)
	}
	_, _, err := h.Subscribe(h.ctx, anna, endpoint(1), "", "")
	refused(t, err, relay.CodeRateLimited)
	if len(h.subscriptions(anna)) != 0 {
		t.Error("there is something left to guess at")
	}
}

// A code proves one subscription of one user with the keys it was pushed to.
func TestCodeIsGoodForOneSubscription(t *testing.T) {
	h := newHarness(t, nil)
	mine, mineCode := h.subscribe(anna, 1)
	second, secondCode := h.subscribe(anna, 2)
	theirs, theirsCode := h.subscribe(berta, 1)
	for _, wrong := range []struct {
		u        relay.User
		id, code string
		want     relay.Code
	}{
		{anna, mine, secondCode, relay.CodeWrongCode},
		{anna, second, mineCode, relay.CodeWrongCode},
		{anna, mine, theirsCode, relay.CodeWrongCode}, // of the same endpoint
		{berta, theirs, mineCode, relay.CodeWrongCode},
		{anna, theirs, theirsCode, relay.CodeNotFound},
		{relay.User{Merchant: "other", ID: "anna"}, mine, mineCode, relay.CodeNotFound},
	} {
		refused(t, h.Activate(h.ctx, wrong.u, wrong.id, wrong.code), wrong.want)
	}
	// A wrong code takes the endpoint from nobody.
	if err := h.Activate(h.ctx, anna, mine, mineCode); err != nil {
		t.Fatal(err)
	}
	refused(t, h.Activate(h.ctx, berta, theirs, mineCode), relay.CodeWrongCode)
	if active := h.owners(1, anna, berta); !slices.Equal(active, []string{"anna"}) {
		t.Errorf("it is active for %v", active)
	}
	// An old code does not come back to life: after new keys, after it was taken
	// over, and under the id that follows.
	if err := h.Activate(h.ctx, berta, theirs, theirsCode); err != nil {
		t.Fatal(err)
	}
	refused(t, h.Activate(h.ctx, anna, mine, mineCode), relay.CodeNotFound)
	again, _ := h.subscribe(anna, 1)
	if again == mine {
		t.Error("an id was given out twice")
	}
	refused(t, h.Activate(h.ctx, anna, again, mineCode), relay.CodeWrongCode)
	if active := h.owners(1, anna, berta); !slices.Equal(active, []string{"berta"}) {
		t.Errorf("it is active for %v", active)
	}
}

// What the former owner is still owed for a browser that is somebody else's now is
// not sent, and the tokens that were sent to it are void.
func TestFormerOwnerGetsNothingMore(t *testing.T) {
	h := newHarness(t, nil)
	h.device(anna, 1)
	before := h.receive("CARD_3DS", purchase("c-1"))
	token := h.pusher.to(1)[0].Challenge.ActionToken
	h.pusher.will(func(p pushed) push.Result {
		if p.Challenge.ID == "" || p.Challenge.ID == before {
			return push.Result{Verdict: push.Delivered, StatusCode: 201}
		}
		return push.Result{Verdict: push.Retry, StatusCode: 503}
	})
	h.receive("CARD_3DS", purchase("c-2")) // is tried again later
	id, code := h.subscribe(berta, 1)
	h.store.holding(relay.KindPush)
	waiting := h.accepted("CARD_3DS", purchase("c-3")) // is owed, and not sent yet
	h.store.awaitSettled(t, relay.KindAnnounce, 3)
	if err := h.Activate(h.ctx, berta, id, code); err != nil {
		t.Fatal(err)
	}
	h.pusher.clear()
	h.pusher.will(nil)
	h.store.release()
	if _, err := h.Decide(h.ctx, anna, waiting, reject("")); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	h.pass(time.Minute)
	h.wantPushes(nil)
	if _, _, _, err := h.ActionUser(h.ctx, token); !errors.Is(err, crypto.ErrToken) {
		t.Errorf("a token that was sent to it is good for %s: %v", before, err)
	}
}

// A claim says whose an endpoint is, so it goes with the subscription, however
// that goes.
func TestClaimGoesWithItsSubscription(t *testing.T) {
	for name, tc := range map[string]func(h *harness, id string){
		"unsubscribed": func(h *harness, id string) {
			if err := h.Unsubscribe(h.ctx, anna, id); err != nil {
				h.t.Fatal(err)
			}
		},
		"revoked by the operator": func(h *harness, _ string) {
			if err := h.ForgetDevices(h.ctx, anna); err != nil {
				h.t.Fatal(err)
			}
		},
		"erased": func(h *harness, _ string) {
			if err := h.Erase(h.ctx, anna); err != nil {
				h.t.Fatal(err)
			}
		},
		"gone at its push service": func(h *harness, _ string) {
			h.pusher.will(func(pushed) push.Result { return push.Result{Verdict: push.Gone, StatusCode: 410} })
			h.receive("CARD_3DS", purchase("c-1"))
		},
		"the longest unused of too many": func(h *harness, _ string) {
			for n := range 3 {
				h.clock.Advance(time.Second)
				h.device(anna, 10+n)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, nil)
			id := h.device(anna, 1)
			root, err := h.store.Root(h.ctx)
			if err != nil {
				t.Fatal(err)
			}
			claim := func() relay.Claim {
				t.Helper()
				c, err := h.store.Endpoint(h.ctx, root.Fingerprint([]byte("endpoint"), []byte(endpoint(1).Endpoint)))
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			if c := claim(); c.User != anna || c.Subscription != id {
				t.Fatalf("the claim is %+v", c)
			}
			tc(h, id)
			h.quiet()
			if c := claim(); c.User != (relay.User{}) || c.Subscription != "" {
				t.Errorf("the claim is still %+v", c)
			}
			// A browser that comes back is proved as a new one.
			h.pusher.will(nil)
			again := h.device(anna, 1)
			if c := claim(); c.User != anna || c.Subscription != again {
				t.Errorf("the new claim is %+v", c)
			}
		})
	}
}

// Nobody can make the relay pester a device: five pushes about subscriptions in ten
// minutes, whoever asks for them, and by whatever means.
func TestPushesToOneEndpointAreFew(t *testing.T) {
	h := newHarness(t, nil)
	ask := func(u relay.User) error {
		_, _, err := h.Subscribe(h.ctx, u, endpoint(1), "", "")
		return err
	}
	id := h.device(anna, 1)
	for i, u := range []relay.User{berta, berta, {Merchant: "other", ID: "carla"}} {
		if err := ask(u); err != nil {
			t.Fatalf("push %d: %v", i+2, err)
		}
	}
	h.pass(4 * time.Minute)
	if err := h.TestPush(h.ctx, anna, id); err != nil {
		t.Fatal(err)
	}
	for _, u := range []relay.User{berta, {Merchant: "acme", ID: "dora"}} {
		err := ask(u)
		refused(t, err, relay.CodeRateLimited)
		if r, ok := errors.AsType[*relay.Refusal](err); !ok || r.After != 6*time.Minute {
			t.Errorf("refused until %v, want in 6 minutes", err)
		}
	}
	refused(t, h.TestPush(h.ctx, anna, id), relay.CodeRateLimited)
	if err := ask(anna); err != nil {
		t.Errorf("registering an active one again, which is no push: %v", err)
	}
	h.quiet()
	h.wantPushes(map[int]int{1: 4}) // the fifth was cleared by h.device
	if subs := h.subscriptions(relay.User{Merchant: "acme", ID: "dora"}); len(subs) != 0 {
		t.Errorf("what was refused is registered: %d", len(subs))
	}
	// Challenges are not held up.
	h.pusher.clear()
	h.receive("CARD_3DS", purchase("c-1"))
	h.wantPushes(map[int]int{1: 1})

	h.pass(6 * time.Minute)
	if err := h.TestPush(h.ctx, anna, id); err != nil {
		t.Errorf("ten minutes later: %v", err)
	}
}

// Nor can one user make it post to any number of made-up endpoints.
func TestPushesOfOneUserAreFew(t *testing.T) {
	h := newHarness(t, nil)
	went := 0
	for n := range 60 {
		if _, _, err := h.Subscribe(h.ctx, anna, endpoint(n), "", ""); err == nil {
			went++
		} else {
			refused(t, err, relay.CodeRateLimited)
		}
	}
	if went != 20 {
		t.Errorf("%d went, want 20", went)
	}
	h.quiet()
	if got := len(h.pusher.all()); got > 20 {
		t.Errorf("%d endpoints were pushed to", got)
	}
	if _, _, err := h.Subscribe(h.ctx, berta, endpoint(100), "", ""); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	if log := h.logs.String(); strings.Contains(log, endpoint(1).Endpoint) {
		t.Error("an endpoint stands in the log")
	}
}
