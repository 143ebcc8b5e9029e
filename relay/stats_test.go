package relay

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

func near(a *float64, b float64) bool { return a != nil && math.Abs(*a-b) < 0.011 }

// TestQuantiles: as histogram_quantile does.
func TestQuantiles(t *testing.T) {
	t.Parallel()
	s := Sample{Figures: map[string]float64{"h  0.1": 50, "h  0.2": 90, "h  1": 100, "h  +Inf": 100, "other  0.1": 7, "hh  0.1": 9}}
	if q := s.quantiles("h "); q.Count != 100 || !near(q.P50, 100) || !near(q.P99, 920) {
		t.Errorf("%d, %v, %v", q.Count, *q.P50, *q.P99)
	}
	if q := (Sample{Figures: map[string]float64{"h  0.1": 0, "h  +Inf": 10}}).quantiles("h "); !near(q.P50, 100) {
		t.Errorf("beyond the highest bound: %v, want that", *q.P50)
	}
	if q := s.quantiles("nothing "); q.Count != 0 || q.P50 != nil || q.P99 != nil {
		t.Errorf("of nothing: %+v", q)
	}
}

// TestTotalsOfMetrics: what a node counts comes back as the figures of the
// overview.
func TestTotalsOfMetrics(t *testing.T) {
	t.Parallel()
	m := newMetrics(Options{Merchants: map[string]*Merchant{"acme": {}, "other": {}}, Targets: []Target{{Name: "core"}, {Name: "core2"}}})
	for merchant, n := range map[string]float64{"acme": 3, "other": 4} {
		m.webhooks.WithLabelValues(merchant, "accepted").Add(n)
	}
	m.webhooks.WithLabelValues("", "unknown_merchant").Inc()
	m.webhooks.WithLabelValues("acme", "invalid_signature").Inc()
	m.challenges.WithLabelValues("pending").Add(2)
	m.challenges.WithLabelValues("approved").Inc()
	attempt := func(target string, status DeliveryStatus, latency time.Duration) {
		m.attempted(Delivery{Kind: KindForward, Target: target, Status: status, Attempts: []Attempt{{Latency: latency}}})
	}
	for range 9 {
		attempt("core", DeliveryDelivered, 10*time.Millisecond)
	}
	attempt("core", DeliveryPending, 10*time.Millisecond)
	attempt("core2", DeliveryDead, time.Second)
	m.attempted(Delivery{Kind: KindPush, Status: DeliveryDelivered, Notice: NoticeAnnounce, ChallengeID: newID(prefixChallenge, 0, time.Now()),
		Attempts: []Attempt{{At: time.Now(), Latency: 5 * time.Millisecond}}})
	families, err := m.sampled.Gather()
	if err != nil {
		t.Fatal(err)
	}
	s := Sample{At: time.Now(), Figures: totals(families)}
	if p := s.point(); p.Events != 7 || p.Refused != 2 || p.Challenges != 2 || p.Approved != 1 || p.PushP50 == nil || p.ConfirmP50 != nil {
		t.Errorf("%+v", p)
	}
	core := s.target("core", LaneState{Waiting: 2}, map[string]string{"core2": "it answered 410"}, time.Now())
	if core.Attempts != 10 || core.Delivered != 9 || !near(core.Success, 0.9) || core.Status != "active" || core.Waiting != 2 || core.P50 == nil || *core.P50 > 30 {
		t.Errorf("%+v", core)
	}
	other := s.target("core2", LaneState{}, map[string]string{"core2": "it answered 410"}, time.Now())
	if other.Attempts != 1 || other.Delivered != 0 || other.Status != "paused" || *other.Reason != "it answered 410" {
		t.Errorf("%+v", other)
	}
	if none := s.target("core3", LaneState{}, nil, time.Now()); none.Success != nil || none.P50 != nil {
		t.Errorf("%+v", none)
	}
}

func TestFullIn(t *testing.T) {
	t.Parallel()
	limit := int64(2_000_000)
	m := MemoryStats{Used: 1_000_000, Max: &limit, Kinds: []Size{{Bytes: 500_000}, {Bytes: 500_000}}}
	const day = 24 * time.Hour
	for _, c := range []struct {
		name       string
		kept, came int
		retention  time.Duration
		want       float64 // negative: never
	}{
		{"2,000 bytes each, 250 a day: 500 KB", 500, 250, 10 * day, 2},
		{"retention ends before", 500, 250, 3 * day, -1},
		{"nothing comes", 500, 0, 10 * day, -1},
		{"nothing is kept", 0, 250, 10 * day, -1},
	} {
		got := m.fullIn(c.kept, c.came, day, c.retention)
		if c.want < 0 && got != nil || c.want >= 0 && !near(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	m.Max = nil
	if got := m.fullIn(500, 250, day, 10*day); got != nil {
		t.Errorf("without a limit: %v", *got)
	}
}

// TestTimelineEntries: in order, also of what happened in the same millisecond.
func TestTimelineEntries(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c := Challenge{Type: "CARD_3DS", Method: MethodApprove, Status: Failed, CreatedAt: at, EndedAt: at.Add(2 * time.Second), Announced: true, PushesOwed: 2,
		Decision: &Decision{Action: Reject, Reason: ReasonNotMe, DecidedAt: at.Add(time.Second), Device: Device{SubscriptionID: "sub_1"}},
		Failure:  &Failure{Code: IssuerRefused, Detail: "The issuer refused the decision with status 422."}}
	entries := c.entries([]Delivery{
		{ID: "d1", Kind: KindPush, Target: "sub_1", Status: DeliveryDelivered, Attempts: []Attempt{{At: at.Add(300 * time.Microsecond), StatusCode: 429}, {At: at.Add(time.Second + time.Microsecond), StatusCode: 201}}},
		{ID: "d2", Kind: KindConfirm, Status: DeliveryDead, Attempts: []Attempt{{At: at.Add(time.Second + 2*time.Microsecond), StatusCode: 422, Latency: 7 * time.Millisecond}}},
		{ID: "d3", Kind: KindLock, Status: DeliveryPending, Next: at.Add(time.Minute), Attempts: []Attempt{{At: at.Add(2 * time.Second), Error: "no connection"}}},
		{ID: "d4", Kind: KindForward, Target: "core", Status: DeliveryParked, CreatedAt: at.Add(3 * time.Second)},
		{ID: "d5", Kind: KindPush, Target: "sub_2", Notice: NoticeEnded, Status: DeliveryDelivered, Attempts: []Attempt{{At: at.Add(2 * time.Second), StatusCode: 201}}},
	})
	type line struct {
		what, detail string
		ok           bool
	}
	want := []line{
		{"webhook", "CARD_3DS for approve", false},
		{"announced", "a push to each of 2 devices", false},
		{"push", "to sub_1: 429 after 0 ms", false},
		{"push", "to sub_1: 201 after 0 ms", true},
		{"decision", "reject (not_me) on a notification of sub_1", false},
		{"confirm", "to the issuer: 422 after 7 ms", false},
		{"lock", "to the issuer: no connection", false},
		{"end", "failed: The issuer refused the decision with status 422.", false},
		{"follow_up", "to sub_2: 201 after 0 ms", true},
		{"forward", "to core: waits", false},
		{"lock", "to the issuer: will be tried again", false},
	}
	if len(entries) != len(want) {
		t.Fatalf("%d entries, want %d: %+v", len(entries), len(want), entries)
	}
	for i, e := range entries {
		if got := (line{e.What, e.Detail, e.OK != nil && *e.OK}); got != want[i] {
			t.Errorf("entry %d is %+v, want %+v", i, got, want[i])
		}
	}
	silent := Challenge{CreatedAt: at, Announced: true, Silence: "the cardholder has no active device"}.entries(nil)
	if len(silent) != 2 || silent[1].Detail != "to no device: the cardholder has no active device" {
		t.Errorf("%+v", silent)
	}
	if _, err := json.Marshal(entries); err != nil {
		t.Error(err)
	}
}
