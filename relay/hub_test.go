package relay

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// drain takes what a watcher has been told so far.
func drain(w *Watch) (changed []string, missed bool) {
	for {
		select {
		case id := <-w.Changed:
			changed = append(changed, id)
		case <-w.Missed:
			missed = true
		default:
			return changed, missed
		}
	}
}

func TestHubTellsTheUserOnly(t *testing.T) {
	t.Parallel()
	h := newHub()
	u := User{"acme", "u1"}
	phone, laptop := h.watch(u), h.watch(u)
	other, sameID := h.watch(User{"acme", "u2"}), h.watch(User{"other", "u1"})
	h.publish(u, "chl_1")
	h.publish(u, "chl_2")
	for _, w := range []*Watch{phone, laptop} {
		if got, missed := drain(w); !slices.Equal(got, []string{"chl_1", "chl_2"}) || missed {
			t.Errorf("told %v, missed %v", got, missed)
		}
	}
	for _, w := range []*Watch{other, sameID} {
		if got, missed := drain(w); len(got) != 0 || missed {
			t.Errorf("somebody else is told %v, missed %v", got, missed)
		}
	}
	h.resync()
	for _, w := range []*Watch{phone, laptop, other, sameID} {
		if got, missed := drain(w); len(got) != 0 || !missed {
			t.Errorf("after a resync: %v, missed %v", got, missed)
		}
	}
}

func TestHubDoesNotWaitForTheSlow(t *testing.T) {
	t.Parallel()
	h := newHub()
	u := User{"acme", "u1"}
	slow := h.watch(u)
	for i := range watchBuffer {
		h.publish(u, fmt.Sprint(i))
	}
	quick := h.watch(u)
	for range 3 {
		h.publish(u, "more")
	}
	if got, missed := drain(quick); len(got) != 3 || missed {
		t.Errorf("the quick one is told %v, missed %v", got, missed)
	}
	if got, missed := drain(slow); len(got) != watchBuffer || !missed {
		t.Errorf("the slow one got %d changes, missed %v; want %d, and that it missed some", len(got), missed, watchBuffer)
	}
}

func TestHubForgetsWatchers(t *testing.T) {
	t.Parallel()
	h := newHub()
	u := User{"acme", "u1"}
	gone, stays := h.watch(u), h.watch(u)
	gone.Close()
	gone.Close() // twice does no harm
	h.publish(u, "chl_1")
	if got, missed := drain(gone); len(got) != 0 || missed {
		t.Errorf("a closed watch is told %v, missed %v", got, missed)
	}
	if got, _ := drain(stays); len(got) != 1 {
		t.Errorf("the other one is told %v", got)
	}
	stays.Close()
	if len(h.watchers) != 0 {
		t.Errorf("%d users are still watched", len(h.watchers))
	}
}

func TestHubConcurrently(t *testing.T) {
	t.Parallel()
	h := newHub()
	var all sync.WaitGroup
	for i := range 8 {
		u := User{"acme", fmt.Sprint(i % 2)}
		all.Go(func() {
			for range 200 {
				w := h.watch(u)
				h.publish(u, "chl_1")
				if got, missed := drain(w); len(got) == 0 && !missed {
					t.Error("a watcher was not told what came after it began")
				}
				h.resync()
				w.Close()
			}
		})
	}
	all.Wait()
	if len(h.watchers) != 0 {
		t.Errorf("%d users are still watched", len(h.watchers))
	}
}
