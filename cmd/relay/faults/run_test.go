package faults

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	duration   = flag.Duration("duration", 40*time.Second, "how long there is load and damage")
	seed       = flag.Uint64("seed", 0, "of the schedule and the load; 0: a random one")
	rate       = flag.Float64("rate", 60, "events a second")
	challenges = flag.Float64("challenges", 6, "challenges a second")
	jsonFile   = flag.String("report", "", "a `FILE` for the report as JSON")
)

// shortRun is up to when the schedule is dense, so that every kind of damage to
// Redis and to the nodes fits in.
const shortRun = 2 * time.Minute

// occasion is one fault of the schedule.
type occasion struct {
	fault
	at, length time.Duration // at is from the begin of the run
	seed       uint64        // of what the fault chooses
}

func (o occasion) String() string {
	return fmt.Sprintf("%7.1fs %-5s %-26s for %.1fs", o.at.Seconds(), o.track, o.kind, o.length.Seconds())
}

// pace is how long faults and the gaps between them are.
type pace struct{ shortest, longest, gapMin, gapMax time.Duration }

func paceOf(total time.Duration) pace {
	if total <= shortRun {
		return pace{time.Second, 3 * time.Second, 300 * time.Millisecond, time.Second}
	}
	return pace{2 * time.Second, 8 * time.Second, time.Second, 4 * time.Second}
}

// schedule plans one track: every kind comes once before any comes again.
func schedule(kinds []fault, total time.Duration, r *rand.Rand) []occasion {
	p := paceOf(total)
	var plan []occasion
	var bag []fault
	at := between(r, p.gapMin, p.gapMax)
	for at < total {
		if len(bag) == 0 {
			bag = slices.Clone(kinds)
			r.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		o := occasion{bag[0], at, between(r, p.shortest, p.longest), r.Uint64()}
		bag = bag[1:]
		plan = append(plan, o)
		at += o.length + between(r, p.gapMin, p.gapMax)
	}
	return plan
}

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)+1))
}

// play runs the schedule of a track. What mends slowly delays the rest; what is
// still to come at the end is left out, except for the first round of kinds.
func (w *world) play(ctx context.Context, plan []occasion, kinds int, total time.Duration, begin time.Time) {
	for i, o := range plan {
		if i >= kinds && time.Since(begin) >= total {
			return
		}
		pause(ctx, max(paceOf(total).gapMin, time.Until(begin.Add(o.at))))
		if ctx.Err() != nil {
			return
		}
		w.happen(ctx, o)
	}
}

func (w *world) happen(ctx context.Context, o occasion) {
	if o.track == redisTrack {
		w.redisBegun.Add(1)
		from := time.Now()
		defer func() { w.ledger.outage(from, time.Now()) }()
	}
	w.active.begin(o.kind)
	defer w.active.end(o.kind)
	o.do(ctx, w, rand.New(rand.NewPCG(o.seed, 0)), o.length)
}

// TestFaults is the run.
func TestFaults(t *testing.T) {
	for _, program := range []func() (string, error){binary, skewedBinary} {
		// Before the load: a compiler beside it would spoil every figure.
		if _, err := program(); err != nil {
			t.Fatal(err)
		}
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	ttl := 20 * time.Second
	if *duration > shortRun {
		ttl = 40 * time.Second
	}
	t.Logf("repeat this run with: -args -duration %s -seed %d -rate %g -challenges %g", *duration, *seed, *rate, *challenges)
	w := newWorld(t, setup{nodes: 3, ttl: ttl, rate: *rate, challengeRate: *challenges, seed: *seed})
	for _, n := range w.nodes {
		if !n.start(0) || !n.awaitReady("its start") {
			t.FailNow()
		}
	}
	w.enrol(t.Context())
	w.suffer()
	w.resumeCore()
	w.finish()
}

// suffer is load and damage, until the schedule is done and all is mended.
func (w *world) suffer() {
	ctx, stop := context.WithCancel(w.t.Context())
	defer stop()
	var load, tracks sync.WaitGroup
	load.Go(func() { w.load(ctx) })
	begin := time.Now()
	for i, kinds := range [][]fault{redisFaults(), nodeFaults(), partyFaults()} {
		plan := schedule(kinds, *duration, rand.New(rand.NewPCG(w.seed, uint64(i))))
		var lines []string
		for _, o := range plan {
			lines = append(lines, o.String())
		}
		w.t.Logf("the plan of a track:\n%s", strings.Join(lines, "\n"))
		first := len(kinds)
		if kinds[0].track == partyTrack { // too many for a short run
			first = 0
		}
		tracks.Go(func() {
			whole := false
			defer func() {
				if !whole { // a t.Fatal: nothing can be learnt from the rest
					stop()
				}
			}()
			w.play(ctx, plan, first, *duration, begin)
			whole = true
		})
	}
	tracks.Wait()
	pause(ctx, time.Until(begin.Add(*duration)))
	stop()
	load.Wait()
	w.report.Load = seconds(time.Since(begin))
}

// finish waits for all that is owed, checks, and prints the report.
func (w *world) finish() {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(w.t.Context(), w.ttl+time.Minute)
	defer cancel()
	if err := w.drain(ctx); err != nil {
		w.t.Errorf("something is still owed %s after the end: %v", time.Since(begin), err)
	}
	w.report.Drain = seconds(time.Since(begin))
	for _, n := range w.nodes {
		w.report.Logs[n.name] = n.log.byLevel()
	}
	w.check()
	w.report.complete(w)
	w.t.Log(w.report)
	if *jsonFile == "" {
		return
	}
	data, err := json.MarshalIndent(w.report, "", "  ")
	if err == nil {
		err = os.WriteFile(*jsonFile, append(data, '\n'), 0o600)
	}
	if err != nil {
		w.t.Errorf("the report: %v", err)
	}
}

// report is what a run found. Times are in seconds.
type report struct {
	Seed                  uint64
	Load, Drain           seconds
	Events, Acknowledged  int
	Challenges, Decisions int
	DeadLetters, Lost     int
	Duplicates            map[string]int // by lane
	Faults                map[string]int // by kind
	Recovery              map[string]*recovery
	WorstAnswer           map[string]seconds        // of the ingress, by kind of fault
	Logs                  map[string]map[string]int // lines by node and level

	mu sync.Mutex
}

// seconds is a duration that JSON has as a number of seconds.
type seconds time.Duration

func (s seconds) String() string { return fmt.Sprintf("%.2fs", time.Duration(s).Seconds()) }

func (s seconds) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", time.Duration(s).Seconds()), nil
}

// recovery is how long nodes needed after a kind of fault was mended.
type recovery struct {
	N             int
	P50, P99, Max seconds

	all []time.Duration
}

func newReport() *report {
	return &report{Recovery: map[string]*recovery{}, WorstAnswer: map[string]seconds{}, Logs: map[string]map[string]int{}}
}

func (r *report) recovered(kind string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Recovery[kind] == nil {
		r.Recovery[kind] = &recovery{}
	}
	r.Recovery[kind].all = append(r.Recovery[kind].all, took)
}

func (r *report) complete(w *world) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := w.ledger.summary()
	r.Seed, r.Faults = w.seed, w.active.happened()
	r.Events, r.Acknowledged, r.Challenges, r.Decisions = s.Events, s.Acknowledged, s.Challenges, s.Decisions
	r.DeadLetters, r.Lost, r.Duplicates = s.DeadLetters, s.Lost, s.Duplicates
	for kind, worst := range s.WorstAnswer {
		r.WorstAnswer[kind] = seconds(worst)
	}
	for _, k := range r.Recovery {
		slices.Sort(k.all)
		last := len(k.all) - 1
		k.N, k.P50, k.P99, k.Max = len(k.all), seconds(k.all[last/2]), seconds(k.all[last*99/100]), seconds(k.all[last])
	}
}

func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: load for %s, drained in %s\n", r.Seed, r.Load, r.Drain)
	fmt.Fprintf(&b, "events %d, acknowledged %d, challenges %d, decisions %d, dead letters %d, lost %d\n",
		r.Events, r.Acknowledged, r.Challenges, r.Decisions, r.DeadLetters, r.Lost)
	fmt.Fprintf(&b, "duplicates by lane %v\nlog lines %v\n", r.Duplicates, r.Logs)
	fmt.Fprintf(&b, "%-28s %5s %9s   %s\n", "fault", "times", "ingress", "ready again after: n, p50, p99, max")
	kinds := maps.Clone(r.Faults)
	for kind := range r.WorstAnswer {
		kinds[kind] += 0
	}
	for kind := range r.Recovery {
		kinds[kind] += 0
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		name := kind
		if name == "" {
			name = "(none)"
		}
		fmt.Fprintf(&b, "%-28s %5d", name, kinds[kind])
		if worst, ok := r.WorstAnswer[kind]; ok {
			fmt.Fprintf(&b, " %9s", worst)
		} else {
			fmt.Fprintf(&b, " %9s", "-")
		}
		if k := r.Recovery[kind]; k != nil {
			fmt.Fprintf(&b, "   %d, %s, %s, %s", k.N, k.P50, k.P99, k.Max)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// TestHarnessSchedule: the same seed, the same plan; every kind before any again.
func TestHarnessSchedule(t *testing.T) {
	t.Parallel()
	for _, total := range []time.Duration{45 * time.Second, 10 * time.Minute} {
		for _, kinds := range [][]fault{redisFaults(), nodeFaults(), partyFaults()} {
			plan := schedule(kinds, total, rand.New(rand.NewPCG(7, 0)))
			again := schedule(kinds, total, rand.New(rand.NewPCG(7, 0)))
			if fmt.Sprint(plan) != fmt.Sprint(again) {
				t.Errorf("%s: two plans of one seed differ", kinds[0].track)
			}
			if kinds[0].track != partyTrack && len(plan) < len(kinds) {
				t.Errorf("%s: %d faults in %s do not hold all %d kinds", kinds[0].track, len(plan), total, len(kinds))
			}
			for round := range slices.Chunk(plan, len(kinds)) {
				seen := map[string]bool{}
				for _, o := range round {
					if seen[o.kind] {
						t.Errorf("%s comes twice in one round", o.kind)
					}
					seen[o.kind] = true
				}
			}
		}
	}
}
