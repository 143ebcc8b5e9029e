package redisstore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

var growTo = flag.Int("growth", 100_000, "the largest size of BenchmarkGrowth and BenchmarkStartup; 1000000 takes 40 minutes and 4 GB")

// sizes are 1000 and so on, each ten times the one before.
func sizes() (all []int) {
	for n := 1000; n <= *growTo; n *= 10 {
		all = append(all, n)
	}
	return all
}

// things are what there may be many of, and how there come to be more of it.
var things = []struct {
	name  string
	sizes func() []int
	more  func(f *filler, from, to int)
	probe probe
}{
	{"live_challenges", sizes, (*filler).moreLive, anyone},
	{"challenges_of_a_card", sizes, (*filler).moreOfACard, probe{card: func(int) string { return "crowded" }, user: func(int) string { return user(0) }}},
	{"challenges_of_a_user", sizes, (*filler).moreOfAUser, probe{card: func(int) string { return "" }, user: func(int) string { return "crowded" }}},
	{"ended_of_a_card", sizes, (*filler).moreEnded, probe{card: func(int) string { return "crowded" }, user: func(int) string { return user(0) }}},
	{"cards_and_users", sizes, (*filler).moreCards, anyone},
	{"subscriptions", sizes, (*filler).moreSubscriptions, anyone},
	{"records", sizes, (*filler).moreRecords, anyone},
	{"dead_letters", sizes, (*filler).moreDead, anyone},
	{"targets", func() []int { return []int{1, 10, 100} }, (*filler).moreTargets, anyone},
}

// probe is whose challenges are looked at while there is more and more of something.
type probe struct{ card, user func(i int) string }

// anyone is one of some with a card of few challenges.
var anyone = probe{func(i int) string { return fmt.Sprint("probe-", i%probes) }, func(i int) string { return fmt.Sprint("probe-", i%probes) }}

const probes = 100

// BenchmarkGrowth measures what must not become slower however much there is: one call
// at a time, by the clock (ns/op) and by that of Redis (redis-µs/op). Each round of
// calls comes after one on another Redis that stays at the smallest size, so that a
// machine which is now quick and now slow does not count: "times" and "redis-times" are
// the medians of what the one took to what the other did. Where the sizes are the same
// they show how much is noise.
//
//	go test ./relay/redisstore -run '^$' -bench Growth -benchtime 3s -timeout 90m -args -growth 1000000
func BenchmarkGrowth(all *testing.B) {
	for _, thing := range things {
		sizes, had := thing.sizes(), 0
		var few, many *filler
		var servers []*redistest.Server
		for _, n := range sizes {
			all.Run(fmt.Sprintf("%s=%d", thing.name, n), func(b *testing.B) {
				if few == nil {
					servers = []*redistest.Server{unpersisted(all), unpersisted(all)} // for all sizes
					few, many = newFiller(all, servers[0], 16), newFiller(all, servers[1], 16)
					thing.more(few, 0, sizes[0])
				}
				few.t, many.t = b, b
				thing.more(many, had, n)
				had = n
				few.moved()
				many.moved()
				compare(b, few, many, thing.probe)
			})
		}
		for _, s := range servers {
			s.Kill() // its memory is wanted by the next
		}
	}
	for _, n := range []int{1, 16, 256} {
		all.Run(fmt.Sprintf("partitions=%d", n), func(b *testing.B) {
			few, many := newFiller(b, unpersisted(b), 1), newFiller(b, unpersisted(b), n)
			few.moreLive(0, 1000)
			many.moreLive(0, 1000)
			compare(b, few, many, anyone)
		})
	}
}

// BenchmarkStartup opens a store on what other nodes have left, and does what a node
// does until it is ready and has looked into every lane.
//
//	go test ./relay/redisstore -run '^$' -bench Startup -timeout 30m -args -growth 1000000
func BenchmarkStartup(b *testing.B) {
	f := newFiller(b, unpersisted(b), 16)
	f.moreRecords(0, *growTo)
	if _, err := f.Root(b.Context()); err != nil {
		b.Fatal(err)
	}
	lanes := []relay.Lane{relay.LaneTasks, relay.LanePush, relay.LaneConfirm, relay.LaneLock, relay.TargetLane("core")}
	b.Run(fmt.Sprintf("records=%d", *growTo), func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			o := f.Options
			o.Node, o.Clock = fmt.Sprint("node-", i), nil
			s, err := Open(o)
			if err != nil {
				b.Fatal(err)
			}
			if err := s.start(b.Context(), lanes); err != nil {
				b.Fatal(err)
			}
			s.Close()
		}
	})
}

// start is Service.Ready, the first heartbeat, and each partition's first read.
func (s *Store) start(ctx context.Context, lanes []relay.Lane) error {
	if err := s.Ping(ctx); err != nil {
		return err
	}
	if _, err := s.Root(ctx); err != nil {
		return err
	}
	if _, err := s.Beat(ctx); err != nil {
		return err
	}
	if _, err := s.Backlog(ctx); err != nil {
		return err
	}
	errs := make(chan error)
	for p := range s.Options.Partitions {
		go func() {
			_, due := s.Due(ctx, p)
			_, lease := s.Lease(ctx, p, lanes, time.Millisecond)
			errs <- errors.Join(due, lease)
		}()
	}
	var all error
	for range s.Options.Partitions {
		all = errors.Join(all, <-errs)
	}
	return all
}

// unpersisted is a Redis that writes no files: to write them anew, while they grow,
// would disturb what is measured.
func unpersisted(b *testing.B) *redistest.Server {
	return redistest.Start(b, "--appendonly", "no", "--enable-debug-command", "local", "--hz", "500") // hz: how soon it has moved its tables
}

// moved waits until Redis has moved its tables to their new size, which it does by and
// by, at everybody's cost.
func (f *filler) moved() {
	// Seldom: to be asked for it stops Redis for as long as it takes to look at all keys.
	const most, every = 90 * time.Second, 3 * time.Second
	for begun := time.Now(); ; {
		f.must(rest(f.t.Context(), every))
		stats, err := f.rdb.Do(f.t.Context(), "DEBUG", "HTSTATS", 0).Text()
		f.must(err)
		if !strings.Contains(stats, "rehashing target") {
			return
		}
		if time.Since(begun) > most {
			f.t.Fatal("Redis goes on moving its tables")
		}
	}
}

// operation is one that must not become slower.
type operation struct {
	name     string
	commands string // of Redis that it consists of
	prepare  func(i int)
	do       func(i int) error
	undo     func(i int)
}

// calls are made in a round.
const calls = 200

// compare measures each operation where there are few and where there are many.
func compare(b *testing.B, few, many *filler, who probe) {
	less := few.operations(who)
	for i, op := range many.operations(who) {
		b.Run(op.name, func(b *testing.B) {
			var clock, redis, times, redisTimes []float64
			for b.Loop() {
				c0, r0 := few.round(less[i])
				c, r := many.round(op)
				clock, redis = append(clock, c), append(redis, r)
				times, redisTimes = append(times, c/c0), append(redisTimes, r/r0)
			}
			b.ReportMetric(median(clock)*1000, "ns/op")
			b.ReportMetric(median(redis), "redis-µs/op")
			b.ReportMetric(median(times), "times")
			b.ReportMetric(median(redisTimes), "redis-times")
		})
	}
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// round is what a call took, in µs by the clock and by that of Redis: what the calls
// need is made before, and what they leave is removed, unmeasured.
func (f *filler) round(op operation) (clock, inRedis float64) {
	for i := range calls {
		op.prepare(i)
	}
	f.idle()
	before, began := f.spent(op.commands), time.Now()
	for i := range calls {
		f.must(op.do(i))
	}
	took := time.Since(began)
	spent := f.spent(op.commands) - before
	for i := range calls {
		op.undo(i)
	}
	return float64(took.Microseconds()) / calls, float64(spent.Microseconds()) / calls
}

// operations work on the challenges that a round has made, for the cardholders and
// cards of who.
func (f *filler) operations(who probe) []operation {
	for i := range probes {
		if c := who.card(i); c != "" {
			f.must(f.SetOwner(f.t.Context(), relay.Holder{Merchant: storetest.Merchant, CardID: c}, relay.Owner{UserID: who.user(i), At: f.w.Now()}))
		}
	}
	made := make([]relay.Arrival, calls)
	arrival := func(i int) {
		made[i] = realistic(f.w, who.card(i), who.user(i))
	}
	arrive := func(i int) error {
		_, err := f.node.Arrive(f.t.Context(), made[i])
		return err
	}
	waiting := func(i int) { arrival(i); f.must(arrive(i)) }
	lapsing := func(i int) {
		arrival(i)
		made[i].Challenge.ExpiresAt = f.w.Now().Add(time.Duration(i+1) * time.Millisecond)
		f.must(arrive(i))
	}
	decide := func(i int) error {
		c, err := f.Challenge(f.t.Context(), made[i].Challenge.ID)
		if err != nil {
			return err
		}
		return f.decided(c)
	}
	end := func(i int) { f.must(decide(i)) }
	nothing := func(int) {}
	return []operation{
		{"arrive", "evalsha", arrival, arrive, end},
		{"list", "smembers zrevrangebyscore get", waiting, func(i int) error { return f.list(who.user(i)) }, end},
		{"decide", "get evalsha", waiting, decide, nothing},
		{"sweep", "evalsha xreadgroup get", lapsing, func(i int) error {
			f.w.Advance(time.Millisecond)
			return f.sweep(made[i].Partition)
		}, nothing},
		{"figures", "hgetall xlen zcard", nothing, func(int) error { return f.figures() }, nothing},
	}
}

// figures are what nodes ask for every second, and operators.
func (f *filler) figures() error {
	_, counts := f.Counts(f.t.Context())
	_, backlog := f.Backlog(f.t.Context())
	return errors.Join(counts, backlog)
}

// list is the first page of what waits for a user.
func (f *filler) list(id string) error {
	u := relay.User{Merchant: storetest.Merchant, ID: id}
	cards, err := f.Cards(f.t.Context(), u)
	if err != nil {
		return err
	}
	list, err := f.node.Challenges(f.t.Context(), relay.ChallengeQuery{User: u, Cards: cards, Limit: 21})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("nothing waits for %s", id)
	}
	return err
}

// decided takes a cardholder's approval.
func (f *filler) decided(c relay.Challenge) error {
	next, err := c.Decide(relay.Decision{Action: relay.Approve}, false, false, f.w.Now())
	if err != nil {
		return err
	}
	p, _ := relay.PartitionOf(c.ID)
	return f.node.Commit(f.t.Context(), relay.Step{Partition: p, Challenge: &next, From: c.Status})
}

// sweep moves what is due and ends it.
func (f *filler) sweep(p int) error {
	if _, err := f.Due(f.t.Context(), p); err != nil {
		return err
	}
	leases, err := f.node.Lease(f.t.Context(), p, []relay.Lane{relay.LaneTasks}, time.Millisecond)
	if err != nil {
		return err
	}
	if len(leases) == 0 {
		return fmt.Errorf("nothing was due in partition %d", p)
	}
	for _, l := range leases {
		c, err := f.Challenge(f.t.Context(), l.Delivery.ChallengeID)
		if err != nil {
			return err
		}
		next := c.Expire(0, f.w.Now())
		if err := f.node.Commit(f.t.Context(), relay.Step{Partition: p, Settle: &l, Challenge: &next, From: c.Status}); err != nil {
			return err
		}
	}
	return nil
}

// spent is how long Redis has worked on some commands.
func (f *filler) spent(commands string) (sum time.Duration) {
	stats, err := f.rdb.Info(f.t.Context(), "commandstats").Result()
	f.must(err)
	for line := range strings.Lines(stats) {
		name, figures, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":")
		for _, wanted := range strings.Fields(commands) {
			var calls, usec int64
			if name == wanted {
				_, err := fmt.Sscanf(figures, "calls=%d,usec=%d", &calls, &usec)
				f.must(err)
			}
			sum += time.Duration(usec) * time.Microsecond
		}
	}
	return sum
}

// idle forgets the inner steps that wait: nobody is to be told of what fills Redis.
func (f *filler) idle() {
	for p := range f.Options.Partitions {
		key := f.keys.lane(p, relay.LaneTasks)
		f.must(f.rdb.XTrimMaxLen(f.t.Context(), key, 0).Err())
		f.must(f.makeGroups(f.t.Context(), p, []relay.Lane{relay.LaneTasks}))
	}
}

func (f *filler) must(err error) {
	if err != nil {
		f.t.Helper()
		f.t.Fatal(err)
	}
}

// between calls do for from to to-1.
func (f *filler) between(from, to int, do func(ctx context.Context, i int) error) {
	f.each(to-from, func(ctx context.Context, i int) error { return do(ctx, from+i) })
}

// longLived is a challenge that nothing ends while there is something to measure.
func (f *filler) longLived(card, user string) relay.Arrival {
	a := realistic(f.w, card, user)
	a.Challenge.ExpiresAt = f.w.Now().Add(20 * time.Hour)
	return a
}

func (f *filler) waiting(from, to int, card, user func(i int) string) {
	f.between(from, to, func(ctx context.Context, i int) error {
		_, err := f.node.Arrive(ctx, f.longLived(card(i), user(i)))
		return err
	})
}

func (f *filler) moreLive(from, to int) { f.waiting(from, to, card, user) }

func (f *filler) moreOfACard(from, to int) {
	f.waiting(from, to, func(int) string { return "crowded" }, func(int) string { return user(0) })
}

func (f *filler) moreOfAUser(from, to int) {
	f.waiting(from, to, func(int) string { return "" }, func(int) string { return "crowded" })
}

func (f *filler) moreEnded(from, to int) {
	f.between(from, to, func(ctx context.Context, i int) error {
		a := f.longLived("crowded", user(0))
		if _, err := f.node.Arrive(ctx, a); err != nil {
			return err
		}
		c := *a.Challenge
		c.Version = 1
		return f.decided(c)
	})
}

func (f *filler) moreCards(from, to int) {
	f.between(from, to, f.own)
}

func (f *filler) moreSubscriptions(from, to int) { f.between(from, to, f.subscribe) }

func (f *filler) moreRecords(from, to int) {
	f.between(from, to, func(ctx context.Context, i int) error { return f.forwarded(ctx, i%50_000, "core", true) })
	f.settle()
}

func (f *filler) moreDead(from, to int) {
	f.between(from, to, func(ctx context.Context, i int) error { return f.forwarded(ctx, i%50_000, "dead", true) })
	f.settle()
}

// moreTargets gives each a delivery in every partition.
func (f *filler) moreTargets(from, to int) {
	for t := from; t < to; t++ {
		target := fmt.Sprint("target-", t)
		f.between(0, 100, func(ctx context.Context, i int) error { return f.forwarded(ctx, i, target, true) })
	}
	f.settle()
}
