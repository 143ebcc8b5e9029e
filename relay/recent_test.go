package relay

import (
	"testing"
)

// No body stays in memory once each target of its event was tried.
func TestRecentEventsLeave(t *testing.T) {
	t.Parallel()
	s := New(Options{}, nil, nil)
	ev := Event{ID: "evt_1", Secret: Secret{Body: []byte("{}")}}
	s.remember(Arrival{Event: ev, Owe: []Delivery{{EventID: ev.ID}, {EventID: "evt_own"}, {EventID: ev.ID}}})
	s.remember(Arrival{Event: Event{ID: "evt_2"}, Owe: []Delivery{{EventID: "evt_own"}}})
	s.remember(Arrival{Event: Event{ID: "evt_3", Secret: Secret{Body: make([]byte, recentBody+1)}}, Owe: []Delivery{{EventID: "evt_3"}}})
	if n := s.recent.Len(); n != 1 {
		t.Fatalf("%d are remembered, want the one that is small and owed", n)
	}
	for range 2 {
		if got, err := s.event(t.Context(), ev.ID); err != nil || got.ID != ev.ID {
			t.Fatalf("event: %+v, %v", got, err)
		}
	}
	if n := s.recent.Len(); n != 0 {
		t.Errorf("%d are left after both attempts", n)
	}
}
