package relay_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"approvalrelay/push"
	"approvalrelay/relay"
)

func withTargets(targets ...relay.Target) func(*relay.Options) {
	return func(o *relay.Options) { o.Targets = append(o.Targets, targets...) }
}

func codes(name string) relay.Target {
	t := target(name, "CARD_3DS")
	t.IncludeOTP = true
	return t
}

// no is a target that is not well.
func no(verdict relay.Verdict, status int) func(forwarded) relay.Outcome {
	return func(forwarded) relay.Outcome {
		return relay.Outcome{Verdict: verdict, Attempt: relay.Attempt{StatusCode: status}}
	}
}

func TestWhoGetsWhat(t *testing.T) {
	envelope := target("envelope", "TRANSACTION_CREATED")
	envelope.Envelope = true
	elsewhere := target("elsewhere", "*", "CARD_3DS")
	elsewhere.Merchants = []string{"other"}
	h := newHarness(t, withTargets(target("all", "*"), target("plain", "CARD_3DS"), codes("codes"), envelope, elsewhere))
	body := payload("card_id", "c-1", "user_id", "anna", "otp", code, "text", "Your code is "+code)
	id := h.receive("CARD_3DS", body)
	event := strings.Replace(id, "chl_", "evt_", 1)
	h.receive("TRANSACTION_CREATED", payload("card_id", "c-1", "amount", 5, "time", "10:30"))

	for name, want := range map[string][]string{
		"all": {"TRANSACTION_CREATED"}, "plain": {"CARD_3DS"}, "codes": {"CARD_3DS"}, "envelope": {"TRANSACTION_CREATED"},
		"own": {"relay.challenge.created", "relay.challenge.unreachable"}, "elsewhere": nil,
	} {
		var got []string
		for _, f := range h.downstream.to(name) {
			got = append(got, f.Type)
			if f.Merchant != "acme" || f.Attempt != 1 || f.Type == "CARD_3DS" && f.EventID != event {
				t.Errorf("%s got %+v", name, f)
			}
			if name == "envelope" && !strings.HasPrefix(f.Envelope, `{"raw":`) || f.Type == "CARD_3DS" && f.Envelope != "" {
				t.Errorf("%s got the envelope %q", name, f.Envelope)
			}
			if holds := strings.Contains(f.Data, code); holds != (name == "codes") {
				t.Errorf("%s got the code: %v", name, holds)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s got %v, want %v", name, got, want)
		}
	}
	if got, want := h.downstream.to("plain")[0].Data, `{"card_id":"c-1","text":"Your code is [removed]","user_id":"anna"}`; got != want {
		t.Errorf("without its code it is %s, want %s", got, want)
	}
	if got := h.downstream.to("all")[0].Data; got != `{"amount":5,"card_id":"c-1","time":"10:30"}` {
		t.Errorf("any other event is %s", got)
	}
	if ev, err := h.store.Event(h.ctx, event); err != nil || strings.Contains(string(ev.Secret.Body), code) {
		t.Errorf("the event's record holds the code: %v", err)
	}
}

func TestRetryThenDeadLetter(t *testing.T) {
	h := newHarness(t, withTargets(target("all", "*")))
	h.downstream.will(no(relay.TryAgain, 500))
	h.receive("TRANSACTION_CREATED", payload("card_id", "c-1"))
	for _, wait := range []time.Duration{3 * time.Second, 3 * time.Second, 20 * time.Second, 17 * time.Second, 24 * time.Hour} {
		h.pass(wait)
	}
	got := h.downstream.to("all")
	if len(got) != 3 {
		t.Fatalf("%d attempts, want the first and one for each wait of the list", len(got))
	}
	for i, f := range got {
		if f.Attempt != i+1 || f.EventID != got[0].EventID || f.Data != got[0].Data {
			t.Errorf("attempt %d is %+v", i+1, f)
		}
	}
	dead := h.deadLetters()
	if len(dead) != 1 || dead[0].Kind != relay.KindForward || dead[0].Target != "all" || len(dead[0].Attempts) != 3 {
		t.Fatalf("the dead letters are %+v", dead)
	}

	h.downstream.will(nil)
	if err := h.Replay(h.ctx, dead[0].ID); err != nil {
		t.Fatal(err)
	}
	h.quiet()
	if got := h.downstream.to("all"); len(got) != 4 || got[3].EventID != got[0].EventID {
		t.Errorf("after the replay: %d attempts", len(got))
	}
	if left := h.deadLetters(); len(left) != 0 {
		t.Errorf("dead letters are left: %+v", left)
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	h := newHarness(t, withTargets(target("all", "*")))
	h.downstream.will(func(forwarded) relay.Outcome {
		return relay.Outcome{Verdict: relay.TryAgain, RetryAfter: 2 * time.Minute, Attempt: relay.Attempt{StatusCode: 503}}
	})
	h.receive("TRANSACTION_CREATED", payload("card_id", "c-1"))
	h.pass(119 * time.Second)
	if got := h.downstream.to("all"); len(got) != 1 {
		t.Errorf("%d attempts before it asked to be tried again", len(got))
	}
	h.pass(2 * time.Second)
	if got := h.downstream.to("all"); len(got) != 2 {
		t.Errorf("%d attempts after it", len(got))
	}
}

func TestGoneTargetIsParked(t *testing.T) {
	h := newHarness(t, withTargets(target("gone", "*"), target("fine", "*")))
	h.downstream.will(func(f forwarded) relay.Outcome {
		if f.Target == "gone" {
			return relay.Outcome{Verdict: relay.Gone, Attempt: relay.Attempt{StatusCode: 410}}
		}
		return relay.Outcome{Attempt: relay.Attempt{StatusCode: 200}}
	})
	for _, card := range []string{"c-1", "c-2", "c-3"} {
		h.receive("TRANSACTION_CREATED", payload("card_id", card))
	}
	h.pass(24 * time.Hour)
	if got := h.downstream.to("fine"); len(got) != 3 {
		t.Errorf("the other target got %d events, want 3", len(got))
	}
	if dead := h.deadLetters(); len(dead) != 0 {
		t.Errorf("what is parked became a dead letter: %+v", dead)
	}
	if parked, err := h.store.Parked(h.ctx); err != nil || parked["gone"] == "" {
		t.Errorf("parked are %v, %v", parked, err)
	}
	if backlog, err := h.store.Backlog(h.ctx); err != nil || backlog[relay.TargetLane("gone")] != 3 || backlog[relay.TargetLane("fine")] != 0 {
		t.Errorf("the backlog is %v, %v", backlog, err)
	}

	h.downstream.clear()
	all := make(chan struct{})
	seen := map[string]bool{}
	h.downstream.will(func(f forwarded) relay.Outcome {
		h.downstream.mu.Lock()
		defer h.downstream.mu.Unlock()
		if seen[f.EventID] = true; len(seen) == 3 {
			close(all)
		}
		return relay.Outcome{Attempt: relay.Attempt{StatusCode: 200}}
	})
	if err := h.store.Park(h.ctx, "gone", false, ""); err != nil {
		t.Fatal(err)
	}
	within(t, all)
	h.quiet()
	if got := h.downstream.to("gone"); len(got) != 3 {
		t.Errorf("%d deliveries after it was resumed, want 3", len(got))
	}
	if backlog, err := h.store.Backlog(h.ctx); err != nil || backlog[relay.TargetLane("gone")] != 0 {
		t.Errorf("the backlog is %v, %v", backlog, err)
	}
}

func TestSlowTargetDelaysNobody(t *testing.T) {
	h := newHarness(t, withTargets(target("slow", "*", "CARD_3DS"), target("quick", "*", "CARD_3DS")))
	h.device(anna, 1)
	release := make(chan struct{})
	quick, pushedAll := make(chan struct{}, 64), make(chan struct{}, 64)
	h.downstream.will(func(f forwarded) relay.Outcome {
		switch f.Target {
		case "slow":
			<-release
		case "quick":
			quick <- struct{}{}
		}
		return relay.Outcome{Attempt: relay.Attempt{StatusCode: 200}}
	})
	h.pusher.will(func(pushed) push.Result { pushedAll <- struct{}{}; return push.Result{StatusCode: 201} })
	const events = 20 // many more than the slow one takes at once
	for i := range events {
		h.accepted("CARD_3DS", purchase(fmt.Sprintf("c-%d", i)))
	}
	for range events {
		within(t, quick)
		within(t, pushedAll)
	}
	if got := h.downstream.to("slow"); len(got) > 4 {
		t.Errorf("the slow target has %d at once, its concurrency is 4", len(got))
	}
	close(release)
	h.quiet()
	if got := h.downstream.to("slow"); len(got) != events {
		t.Errorf("the slow target got %d of %d", len(got), events)
	}
}

func TestBacklogBecomesDeadLetters(t *testing.T) {
	slow := target("slow", "*")
	slow.Concurrency, slow.MaxBacklog = 1, 3
	h := newHarness(t, withTargets(slow))
	alarmed := h.logs.next("beyond max_backlog")
	release := make(chan struct{})
	h.downstream.will(func(forwarded) relay.Outcome {
		<-release
		return relay.Outcome{Attempt: relay.Attempt{StatusCode: 200}}
	})
	for i := range 8 {
		h.accepted("TRANSACTION_CREATED", payload("card_id", fmt.Sprint(i)))
	}
	within(t, alarmed)
	close(release)
	h.quiet()
	delivered, dead := h.downstream.to("slow"), h.deadLetters()
	if len(delivered)+len(dead) != 8 || len(dead) < 4 {
		t.Errorf("%d delivered and %d dead of 8, with room for 3", len(delivered), len(dead))
	}
}

// The code lives as long as its challenge: an attempt after that is without it,
// and it is scrubbed from whatever a target answers.
func TestCodeEndsWithItsChallenge(t *testing.T) {
	sealed := codes("sealed")
	sealed.Envelope = true
	h := newHarness(t, withTargets(codes("codes"), sealed))
	h.downstream.will(func(f forwarded) relay.Outcome {
		if f.Target == "own" {
			return relay.Outcome{}
		}
		return relay.Outcome{Verdict: relay.TryAgain, Attempt: relay.Attempt{StatusCode: 500, Response: "cannot take " + code + " of " + pan}}
	})
	id := h.receive("CARD_3DS", payload("card_id", "c-1", "user_id", "anna", "otp", code))
	if first := h.downstream.to("codes"); len(first) != 1 || !strings.Contains(first[0].Data, code) {
		t.Fatalf("the first attempt is %d, with the code: want one", len(first))
	}
	if first := h.downstream.to("sealed"); len(first) != 1 || first[0].Envelope == "" {
		t.Fatalf("the first envelope is missing")
	}
	if _, err := h.Done(h.ctx, anna, id); err != nil {
		t.Fatal(err)
	}
	h.downstream.clear()
	h.pass(10 * time.Second)
	again := h.downstream.to("codes")
	if len(again) != 1 || strings.Contains(again[0].Data, code) || !strings.Contains(again[0].Data, "c-1") {
		t.Errorf("after its end it goes out as %+v", again)
	}
	if got := h.downstream.to("sealed"); len(got) != 0 {
		t.Errorf("the envelope, which holds the code, goes out after the end: %+v", got)
	}
	h.pass(time.Hour)
	dead := h.deadLetters()
	if len(dead) != 2 {
		t.Fatalf("%d dead letters, want 2", len(dead))
	}
	for _, d := range dead {
		if first := d.Attempts[0].Response; !strings.Contains(first, "cannot take") {
			t.Errorf("%s keeps nothing of the answer: %q", d.Target, first)
		}
		for _, a := range d.Attempts {
			if strings.Contains(a.Response, code) || strings.Contains(a.Response, pan) {
				t.Errorf("%s keeps the answer %q", d.Target, a.Response)
			}
		}
	}
}

func TestNothingIsLeftOfAnEndedChallenge(t *testing.T) {
	h := newHarness(t, nil)
	id := h.receive("CARD_3DS", payload("card_id", "c-1", "user_id", "anna", "otp", code))
	h.pass(time.Hour)
	if c := h.wantStatus(id, relay.Expired); c.Secret.Body != nil {
		t.Error("its body was kept")
	}
	ev, err := h.store.Event(h.ctx, strings.Replace(id, "chl_", "evt_", 1))
	if err != nil && !errors.Is(err, relay.ErrNotFound) || strings.Contains(string(ev.Secret.Body), code) {
		t.Errorf("the event's record: %v, with the code %v", err, strings.Contains(string(ev.Secret.Body), code))
	}
}
