package relay

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// figures are the metrics that all nodes add up in the store, as samples, by the
// label that tells them apart; "" for none.
var figures = map[string]string{
	nameWebhooks: "outcome", nameChallenges: "status", nameAttempts: "target",
	nameForwards: "target", namePushDelay: "", nameConfirmDelay: "", nameDecideDelay: "",
}

// totals reads the watched metrics: "name label", for a histogram "name label
// bound" with how many were within the bound, and +Inf for all.
func totals(families []*dto.MetricFamily) map[string]float64 {
	sum := map[string]float64{}
	for _, f := range families {
		label := figures[f.GetName()]
		for _, m := range f.GetMetric() {
			name := f.GetName() + " " + labelOf(m, label)
			if f.GetName() == nameAttempts {
				if labelOf(m, "kind") != string(KindForward) {
					continue
				}
				name += " " + labelOf(m, "status")
			}
			if h := m.GetHistogram(); h != nil {
				for _, b := range h.GetBucket() {
					sum[name+" "+strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64)] += float64(b.GetCumulativeCount())
				}
				sum[name+" +Inf"] += float64(h.GetSampleCount())
				continue
			}
			sum[name] += m.GetCounter().GetValue()
		}
	}
	return sum
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// Sample adds what this node counts to the samples of all nodes, until ctx ends.
func (s *Service) Sample(ctx context.Context) {
	last := map[string]float64{}
	for first := true; ctx.Err() == nil; first = false {
		now := s.store.Now()
		families, err := s.count.sampled.Gather()
		if err != nil {
			s.log.Warn("the metrics cannot be read", "error", err)
		}
		all, more := totals(families), map[string]float64{}
		for name, n := range all {
			if d := n - last[name]; d > 0 && !first {
				more[name] = d
			}
		}
		// What cannot be added now is added with the next one.
		if len(more) == 0 || s.store.AddSample(ctx, now, more) == nil {
			last = all
		}
		rest(ctx, SampleEvery)
	}
}

// Stats is the operator's overview.
type Stats struct {
	At            time.Time            `json:"at"`
	Merchants     []string             `json:"merchants"`
	Challenges    map[Status]int       `json:"challenges"`
	Events        map[EventOutcome]int `json:"events"`
	Subscriptions int                  `json:"subscriptions"`
	DeadLetters   int                  `json:"dead_letters"`
	Retrying      int                  `json:"retrying"`
	Lanes         []LaneStats          `json:"lanes"`
	Targets       []TargetStats        `json:"targets"`
	WindowSeconds float64              `json:"window_seconds"`
	Latency       map[string]Quantiles `json:"latency"`
	Series        []Point              `json:"series"`
	Memory        MemoryStats          `json:"memory"`
	Retention     map[string]float64   `json:"retention"`
}

// LaneStats is what one lane owes.
type LaneStats struct {
	Lane    Lane     `json:"lane"`
	Waiting int      `json:"waiting"`
	Later   int      `json:"later"`
	Oldest  *float64 `json:"oldest_seconds"`
}

// TargetStats is how one target did within the window.
type TargetStats struct {
	Name      string   `json:"name"`
	Status    string   `json:"status"` // active or paused
	Reason    *string  `json:"reason"`
	Waiting   int      `json:"waiting"`
	Later     int      `json:"later"`
	Oldest    *float64 `json:"oldest_seconds"`
	Attempts  int      `json:"attempts"`
	Delivered int      `json:"delivered"`
	Success   *float64 `json:"success"` // null without attempts
	P50       *float64 `json:"p50_ms"`
	P99       *float64 `json:"p99_ms"`
}

// Quantiles of what a histogram saw; null where it saw nothing.
type Quantiles struct {
	Count int      `json:"count"`
	P50   *float64 `json:"p50_ms"`
	P99   *float64 `json:"p99_ms"`
}

// Point is what all nodes counted in SampleEvery.
type Point struct {
	At         time.Time `json:"at"`
	Events     int       `json:"events"`
	Refused    int       `json:"refused"`
	Challenges int       `json:"challenges"`
	Approved   int       `json:"approved"`
	Rejected   int       `json:"rejected"`
	Completed  int       `json:"completed"`
	Expired    int       `json:"expired"`
	Failed     int       `json:"failed"`
	PushP50    *float64  `json:"push_p50_ms"`
	PushP99    *float64  `json:"push_p99_ms"`
	ConfirmP50 *float64  `json:"confirm_p50_ms"`
	ConfirmP99 *float64  `json:"confirm_p99_ms"`
}

// MemoryStats is Redis' memory and an estimate of what takes it.
type MemoryStats struct {
	Used  int64  `json:"used_bytes"`
	Max   *int64 `json:"max_bytes"` // null without a limit
	Kinds []Size `json:"kinds"`
	// FullInDays is when Redis is full if events go on coming as in the window;
	// null if it never is, because retention ends before, or if it has no limit.
	FullInDays *float64 `json:"full_in_days"`
}

// fullIn estimates FullInDays: each event brings as many bytes as those that are
// kept, with all that they have caused.
func (m MemoryStats) fullIn(kept, came int, window, retention time.Duration) *float64 {
	bytes := int64(0)
	for _, k := range m.Kinds {
		bytes += k.Bytes
	}
	if m.Max == nil || kept == 0 || came == 0 {
		return nil
	}
	const day = 24 * time.Hour
	perDay := float64(bytes) / float64(kept) * float64(came) * float64(day) / float64(window)
	room := float64(*m.Max - m.Used)
	if perDay*float64(retention)/float64(day)-float64(bytes) <= room {
		return nil
	}
	days := max(0, room/perDay)
	return &days
}

// Stats reads the overview.
func (s *Service) Stats(ctx context.Context) (Stats, error) {
	fail := func(what string, err error) (Stats, error) { return Stats{}, fmt.Errorf("read the %s: %w", what, err) }
	merchants, err := s.merchants("")
	if err != nil {
		return fail("merchants", err)
	}
	counts, err := s.store.Counts(ctx)
	if err != nil {
		return fail("counters", err)
	}
	lanes, err := s.store.Lanes(ctx, s.lanes())
	if err != nil {
		return fail("lanes", err)
	}
	parked, err := s.store.Parked(ctx)
	if err != nil {
		return fail("paused targets", err)
	}
	samples, err := s.store.Samples(ctx)
	if err != nil {
		return fail("samples", err)
	}
	sizes, err := s.store.Sizes(ctx, s.lanes())
	if err != nil {
		return fail("sizes", err)
	}
	now := s.store.Now()
	all := Sample{Figures: map[string]float64{}}
	st := Stats{
		At: now.UTC(), Merchants: merchants, Challenges: counts.Challenges, Events: counts.Events, Subscriptions: counts.Subscriptions,
		DeadLetters: counts.DeadLetters, Retrying: counts.Retrying, WindowSeconds: SamplesKept.Seconds(), Series: []Point{},
		Memory: MemoryStats{Used: sizes.Used, Kinds: sizes.Kinds}, Retention: s.Retention,
	}
	if sizes.Max > 0 {
		st.Memory.Max = &sizes.Max
	}
	for _, sample := range samples {
		st.Series = append(st.Series, sample.point())
		for name, n := range sample.Figures {
			all.Figures[name] += n
		}
	}
	came := 0
	for _, p := range st.Series {
		came += p.Events
	}
	kept := counts.Events[OutcomeForwarded] + counts.Events[OutcomeChallenge] + counts.Events[OutcomeQuarantined]
	st.Memory.FullInDays = st.Memory.fullIn(kept, came, SamplesKept, time.Duration(s.Retention["events_seconds"]*float64(time.Second)))
	st.Latency = map[string]Quantiles{"push": all.quantiles(namePushDelay + " "), "confirm": all.quantiles(nameConfirmDelay + " "), "decision": all.quantiles(nameDecideDelay + " ")}
	for _, l := range s.lanes() {
		st.Lanes = append(st.Lanes, LaneStats{l, lanes[l].Waiting, lanes[l].Later, lanes[l].oldest(now)})
	}
	for _, t := range s.Targets {
		st.Targets = append(st.Targets, all.target(t.Name, lanes[TargetLane(t.Name)], parked, now))
	}
	return st, nil
}

func (l LaneState) oldest(now time.Time) *float64 {
	if l.Oldest.IsZero() {
		return nil
	}
	age := l.age(now).Seconds()
	return &age
}

func (s Sample) target(name string, l LaneState, parked map[string]string, now time.Time) TargetStats {
	t := TargetStats{Name: name, Status: "active", Waiting: l.Waiting, Later: l.Later, Oldest: l.oldest(now)}
	if why, is := parked[name]; is {
		t.Status, t.Reason = "paused", &why
	}
	prefix := nameAttempts + " " + name + " "
	for figure, n := range s.Figures {
		if status, ok := strings.CutPrefix(figure, prefix); ok {
			t.Attempts += int(n)
			if status == string(DeliveryDelivered) {
				t.Delivered += int(n)
			}
		}
	}
	if t.Attempts > 0 {
		share := float64(t.Delivered) / float64(t.Attempts)
		t.Success = &share
	}
	q := s.quantiles(nameForwards + " " + name)
	t.P50, t.P99 = q.P50, q.P99
	return t
}

func (s Sample) point() Point {
	status := func(st Status) int { return int(s.Figures[nameChallenges+" "+string(st)]) }
	p := Point{At: s.At.UTC(), Challenges: status(Pending), Approved: status(Approved), Rejected: status(Rejected), Completed: status(Completed),
		Expired: status(Expired), Failed: status(Failed)}
	for figure, n := range s.Figures {
		switch outcome, ok := strings.CutPrefix(figure, nameWebhooks+" "); {
		case !ok:
		case outcome == string(Accepted) || outcome == string(Duplicate) || outcome == string(Quarantined):
			p.Events += int(n)
		default:
			p.Refused += int(n)
		}
	}
	push, confirm := s.quantiles(namePushDelay+" "), s.quantiles(nameConfirmDelay+" ")
	p.PushP50, p.PushP99, p.ConfirmP50, p.ConfirmP99 = push.P50, push.P99, confirm.P50, confirm.P99
	return p
}

// quantiles of a histogram, in milliseconds, as Prometheus' histogram_quantile
// does: linear within a bucket, and the highest bound for what is beyond it.
func (s Sample) quantiles(histogram string) Quantiles {
	type bucket struct{ bound, count float64 }
	var buckets []bucket
	for figure, n := range s.Figures {
		if text, ok := strings.CutPrefix(figure, histogram+" "); ok {
			if bound, err := strconv.ParseFloat(text, 64); err == nil {
				buckets = append(buckets, bucket{bound, n})
			}
		}
	}
	slices.SortFunc(buckets, func(a, b bucket) int { return cmp.Compare(a.bound, b.bound) })
	if len(buckets) == 0 || buckets[len(buckets)-1].count == 0 {
		return Quantiles{}
	}
	total := buckets[len(buckets)-1].count
	at := func(q float64) *float64 {
		low, below := 0.0, 0.0
		for _, b := range buckets {
			if b.count >= q*total {
				ms := low
				if !math.IsInf(b.bound, 1) && b.count > below {
					ms = low + (b.bound-low)*(q*total-below)/(b.count-below)
				}
				ms = math.Round(ms*1e5) / 100
				return &ms
			}
			low, below = b.bound, b.count
		}
		return nil
	}
	return Quantiles{int(total), at(0.5), at(0.99)}
}
