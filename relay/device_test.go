package relay

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"approvalrelay/push"
)

func endpoint(n int, key string) push.Subscription {
	return push.Subscription{Endpoint: fmt.Sprintf("https://push.example/%d", n), P256dh: "p" + key, Auth: "a" + key}
}

func ids(d Devices) (list []string) {
	for _, s := range d.List {
		list = append(list, s.ID)
	}
	return list
}

func TestAddAndActivate(t *testing.T) {
	t.Parallel()
	d, s, created := Devices{}.Add(endpoint(1, "k"), "Phone", "", "sub_1", 10, testNow)
	if !created || s.ID != "sub_1" || s.Active || s.Label != "Phone" || !s.PendingAt.Equal(testNow) || len(d.Active()) != 0 {
		t.Fatalf("a new subscription is %+v; want it pending", s)
	}
	if _, err := d.Activate("sub_2", true, testNow); err != ErrNotFound {
		t.Errorf("activating what is not there: %v", err)
	}
	later := testNow.Add(time.Minute)
	d, err := d.Activate("sub_1", true, later)
	if s, _ := d.Find("sub_1"); err != nil || !s.Active || !s.UsedAt.Equal(later) || len(d.Active()) != 1 {
		t.Fatalf("activated: %+v, %v", s, err)
	}

	// The same endpoint keeps its id and stays active, whatever id is offered.
	d, s, created = d.Add(endpoint(1, "k"), "", "", "sub_9", 10, later)
	if created || s.ID != "sub_1" || !s.Active || s.Label != "Phone" || len(d.List) != 1 {
		t.Errorf("the same again: %+v, created %v", s, created)
	}
	d, s, _ = d.Add(endpoint(1, "k"), "Work phone", "", "sub_9", 10, later)
	if s.Label != "Work phone" {
		t.Errorf("label %q, want the new one", s.Label)
	}
	// With new keys somebody has to prove it anew.
	d, s, created = d.Add(endpoint(1, "other"), "", "", "sub_9", 10, later)
	if created || s.ID != "sub_1" || s.Active || !s.PendingAt.Equal(later) || len(d.Active()) != 0 {
		t.Errorf("new keys: %+v, created %v; want the same id, pending", s, created)
	}
}

func TestWrongCodes(t *testing.T) {
	t.Parallel()
	d, _, _ := Devices{}.Add(endpoint(1, "k"), "", "", "sub_1", 10, testNow)
	for try := range activationTries {
		if len(d.List) != 1 {
			t.Fatalf("gone after %d wrong codes, want %d", try, activationTries)
		}
		before := d
		var err error
		if d, err = d.Activate("sub_1", false, testNow); refusalCode(err) != CodeWrongCode || len(d.Active()) != 0 {
			t.Fatalf("a wrong code: %v, %d active", err, len(d.Active()))
		}
		if s := before.List[0]; s.Tries != try {
			t.Fatal("a step changed the value it was called on")
		}
	}
	if _, err := d.Activate("sub_1", true, testNow); err != ErrNotFound {
		t.Errorf("the right code after %d wrong ones: %v, want it gone", activationTries, err)
	}

	// The tries of an active one are not counted: it cannot be guessed away.
	d, _, _ = Devices{}.Add(endpoint(1, "k"), "", "", "sub_1", 10, testNow)
	d, _ = d.Activate("sub_1", true, testNow)
	for range 2 * activationTries {
		d, _ = d.Activate("sub_1", false, testNow)
	}
	if len(d.Active()) != 1 {
		t.Error("wrong codes removed an active subscription")
	}
}

func TestPendingLapse(t *testing.T) {
	t.Parallel()
	d, _, _ := Devices{}.Add(endpoint(1, "k"), "", "", "sub_1", 10, testNow)
	d, _, _ = d.Add(endpoint(2, "k"), "", "", "sub_2", 10, testNow)
	d, _ = d.Activate("sub_2", true, testNow)
	if got := ids(d.Live(testNow.Add(activationTime - time.Millisecond))); len(got) != 2 {
		t.Errorf("before its time is up: %v", got)
	}
	if got := ids(d.Live(testNow.Add(activationTime))); !slices.Equal(got, []string{"sub_2"}) {
		t.Errorf("after %v: %v, want only what was activated", activationTime, got)
	}
}

func TestLongestUnusedGoes(t *testing.T) {
	t.Parallel()
	d := Devices{}
	for i := range 3 {
		d, _, _ = d.Add(endpoint(i, "k"), "", "", fmt.Sprintf("sub_%d", i), 3, testNow.Add(time.Duration(i)*time.Second))
	}
	d, _, _ = d.Add(endpoint(0, "k"), "", "", "", 3, testNow.Add(time.Minute)) // used again
	before := slices.Clone(d.List)
	next, _, created := d.Add(endpoint(9, "k"), "", "", "sub_9", 3, testNow.Add(time.Hour))
	if got := ids(next); !created || !slices.Equal(got, []string{"sub_0", "sub_2", "sub_9"}) {
		t.Errorf("left are %v, want sub_1 gone", got)
	}
	if !reflect.DeepEqual(d.List, before) {
		t.Error("Add changed the value it was called on")
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	d, _, _ := Devices{}.Add(endpoint(1, "k"), "", "", "sub_1", 10, testNow)
	d, _, _ = d.Add(endpoint(2, "k"), "", "", "sub_2", 10, testNow)
	next, ok := d.Remove("sub_1")
	if got := ids(next); !ok || !slices.Equal(got, []string{"sub_2"}) || len(d.List) != 2 {
		t.Errorf("removed %v, left %v, before %v", ok, got, ids(d))
	}
	if _, ok := next.Remove("sub_1"); ok {
		t.Error("removed twice")
	}
}

// Whatever users do: ids and endpoints stay unique, nobody has more than the
// limit, and only who knew the code is active with the keys it was pushed to.
func TestDevicesModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(t, "limit")
		d, now, last := Devices{User: User{"acme", "u1"}}, testNow, 0
		proved := map[string]push.Subscription{}
		anID := func(t *rapid.T) string { return fmt.Sprintf("sub_%d", rapid.IntRange(1, max(1, last)).Draw(t, "id")) }
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				p := endpoint(rapid.IntRange(1, 6).Draw(t, "endpoint"), rapid.SampledFrom([]string{"k", "l"}).Draw(t, "keys"))
				last++
				var s Subscription
				d, s, _ = d.Add(p, "", "", fmt.Sprintf("sub_%d", last), limit, now)
				if found, ok := d.Find(s.ID); !ok || found != s || s.Push != p || !s.UsedAt.Equal(now) {
					t.Fatalf("added %+v, found %+v", s, found)
				}
			},
			"activate": func(t *rapid.T) {
				id, right := anID(t), rapid.Bool().Draw(t, "right")
				s, known := d.Find(id)
				var err error
				if d, err = d.Activate(id, right, now); (err == nil) != (known && right) {
					t.Fatalf("activated %s (known %v, right %v): %v", id, known, right, err)
				}
				if err == nil {
					proved[id] = s.Push
				}
			},
			"remove": func(t *rapid.T) { d, _ = d.Remove(anID(t)) },
			"wait": func(t *rapid.T) {
				now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, activationTime}).Draw(t, "for"))
			},
			"live": func(*rapid.T) { d = d.Live(now) },
			"": func(t *rapid.T) {
				seen := map[string]bool{}
				for _, s := range d.List {
					if seen[s.ID] || seen[s.Push.Endpoint] {
						t.Fatalf("%s or its endpoint is there twice", s.ID)
					}
					seen[s.ID], seen[s.Push.Endpoint] = true, true
					if s.Active && proved[s.ID] != s.Push {
						t.Fatalf("%s is active, but nobody proved these keys", s.ID)
					}
					if s.Tries >= activationTries {
						t.Fatalf("%s had %d tries", s.ID, s.Tries)
					}
				}
				if len(d.List) > limit {
					t.Fatalf("%d subscriptions, limit %d", len(d.List), limit)
				}
			},
		})
	})
}

func TestLanguageOfADevice(t *testing.T) {
	t.Parallel()
	d, s, _ := Devices{}.Add(endpoint(1, "k"), "", "de", "sub_1", 10, testNow)
	d, _ = d.Activate("sub_1", true, testNow)
	for _, step := range []struct{ named, want string }{{"", "de"}, {"fr", "fr"}, {"", "fr"}} {
		if d, s, _ = d.Add(endpoint(1, "k"), "", step.named, "sub_2", 10, testNow); s.Lang != step.want || s.ID != "sub_1" || !s.Active {
			t.Errorf("named %q: %+v, want %s and nothing else changed", step.named, s, step.want)
		}
	}
}
