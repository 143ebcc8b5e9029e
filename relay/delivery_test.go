package relay

import (
	"testing"
	"time"
)

func TestSchedule(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	list := Schedule{Retry: []time.Duration{10 * time.Second, time.Minute}}
	repeat := Schedule{Retry: []time.Duration{time.Second, 8 * time.Second}, RepeatLast: true}
	for _, c := range []struct {
		name       string
		s          Schedule
		tries      int
		retryAfter time.Duration
		deadline   time.Duration // from now; 0 none
		jitter     float64
		want       time.Duration // from now; -1: given up
	}{
		{name: "first wait, middle of the jitter", s: list, tries: 1, jitter: 0.5, want: 10 * time.Second},
		{name: "least jitter", s: list, tries: 1, jitter: 0, want: 8 * time.Second},
		{name: "most jitter", s: list, tries: 2, jitter: 1, want: 72 * time.Second},
		{name: "list used up", s: list, tries: 3, jitter: 0.5, want: -1},
		{name: "last one repeats", s: repeat, tries: 30, jitter: 0.5, want: 8 * time.Second},
		{name: "asked for longer", s: list, tries: 1, retryAfter: 30 * time.Second, jitter: 0.5, want: 30 * time.Second},
		{name: "asked for shorter: our wait counts", s: list, tries: 2, retryAfter: time.Second, jitter: 0.5, want: time.Minute},
		{name: "asked for more than an hour", s: list, tries: 1, retryAfter: 24 * time.Hour, jitter: 0.5, want: time.Hour},
		{name: "beyond the deadline: one last try", s: repeat, tries: 9, deadline: 5 * time.Second, jitter: 0.5, want: 4 * time.Second},
		{name: "no time for a last try", s: repeat, tries: 9, deadline: 900 * time.Millisecond, jitter: 0.5, want: -1},
		{name: "no schedule", tries: 1, jitter: 0.5, want: -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var deadline time.Time
			if c.deadline != 0 {
				deadline = now.Add(c.deadline)
			}
			at, ok := c.s.next(c.tries, c.retryAfter, deadline, now, c.jitter)
			if ok != (c.want >= 0) || ok && at.Sub(now) != c.want {
				t.Fatalf("next = %v after now, %v; want %v", at.Sub(now), ok, c.want)
			}
		})
	}
}

func TestAfter(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	s := Schedule{Retry: []time.Duration{time.Second}, RepeatLast: true}
	for verdict, want := range map[Verdict]DeliveryStatus{
		Delivered: DeliveryDelivered, TryAgain: DeliveryPending, Unclear: DeliveryPending,
		Refused: DeliveryDead, Gone: DeliveryDead, Faulty: DeliveryDead,
	} {
		d := Delivery{Status: DeliveryPending}.After(Outcome{Verdict: verdict}, s, now, 0.5)
		if d.Status != want || d.Tries != 1 || len(d.Attempts) != 1 || (want == DeliveryPending) != !d.Next.IsZero() {
			t.Errorf("verdict %d: %+v; want status %s", verdict, d, want)
		}
	}
}

func TestAttemptsAreBoundedAndNotShared(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000)
	s := Schedule{Retry: []time.Duration{time.Second}, RepeatLast: true}
	var d Delivery
	for i := range 3 * maxAttemptsKept {
		before := d
		d = d.After(Outcome{Verdict: TryAgain, Attempt: Attempt{StatusCode: i}}, s, now, 0)
		other := before.After(Outcome{Verdict: TryAgain, Attempt: Attempt{StatusCode: -1}}, s, now, 0)
		if last := d.Attempts[len(d.Attempts)-1].StatusCode; last != i || other.Attempts[len(other.Attempts)-1].StatusCode != -1 {
			t.Fatalf("two next states of one delivery share their attempts")
		}
	}
	if len(d.Attempts) != maxAttemptsKept || d.Tries != 3*maxAttemptsKept {
		t.Fatalf("kept %d attempts of %d tries, want %d", len(d.Attempts), d.Tries, maxAttemptsKept)
	}
}
