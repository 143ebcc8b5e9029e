package redisstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest"
	"approvalrelay/relay/storetest/redistest"
)

// wire sees every round trip of a client.
type wire struct {
	mu      sync.Mutex
	trips   []string
	check   func(redis.Cmder)
	between func() // runs once, after the first command of a pipeline
}

func (w *wire) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (w *wire) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		w.saw(cmd)
		return next(ctx, cmd)
	}
}

func (w *wire) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		w.saw(cmds...)
		if between := w.between; between != nil {
			w.between = nil
			if err := next(ctx, cmds[:1]); err != nil {
				return err
			}
			between()
			cmds = cmds[1:]
		}
		return next(ctx, cmds)
	}
}

func (w *wire) saw(cmds ...redis.Cmder) {
	var names []string
	for _, c := range cmds {
		names = append(names, c.Name())
		if w.check != nil {
			w.check(c)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trips = append(w.trips, strings.Join(names, " "))
}

func (w *wire) reset() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	trips := w.trips
	w.trips = nil
	return trips
}

func TestAnArrivalIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w, n := world(t, server.URL)
	w.Arrive(n, w.Event("c", "one")) // loads the script
	if err := n.rdb.ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	var trips wire
	n.rdb.AddHook(&trips)

	event := w.Teaching("c", "one", w.Now())
	event.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", event.Event), w.Delivery(relay.KindForward, "audit", event.Event)}
	challenge := w.Challenge("c", "", "ref")
	challenge.Own = []relay.Event{w.Event("c", "").Event}
	challenge.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", challenge.Own[0])}
	expired := w.Challenge("c", "", "")
	expired.Challenge.Status = relay.Expired
	arrivals := []relay.Arrival{event, challenge, expired, w.Challenge("", "one", "")}
	for _, a := range arrivals {
		w.Arrive(n, a)
		if got := trips.reset(); !slices.Equal(got, []string{"evalsha"}) {
			t.Errorf("an arrival made the round trips %q, want one evalsha", got)
		}
	}
	stats, err := n.rdb.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("cmdstat_evalsha:calls=%d,", len(arrivals)); !strings.Contains(stats, want) || strings.Contains(stats, "cmdstat_eval:") {
		t.Errorf("Redis counted\n%s\nwant %s and no eval", stats, want)
	}
}

// TestListWhileItEnds ends a challenge between the reads of the two indexes.
func TestListWhileItEnds(t *testing.T) {
	t.Parallel()
	w, n := world(t, "redis://"+miniredis.RunT(t).Addr())
	other := w.Node("b")
	a := w.Challenge("", "one", "")
	w.Arrive(n, a)
	n.rdb.AddHook(&wire{between: func() { w.End(other, a.Challenge.ID, relay.Expired) }})
	list, err := n.Challenges(t.Context(), relay.ChallengeQuery{User: a.Challenge.Owner(), Ended: true, Limit: 10})
	if err != nil || len(list) != 1 || list[0].Status != relay.Expired {
		t.Errorf("Challenges = %d, %v, want the ended one, once", len(list), err)
	}
}

// TestScriptsStayInOneSlot runs the whole suite and looks at every script's
// keys, and at the arguments that a script uses as keys or parts of them.
func TestScriptsStayInOneSlot(t *testing.T) {
	url := "redis://" + miniredis.RunT(t).Addr()
	var seen sync.Map
	t.Run("suite", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T, clock func() time.Time, name string) storetest.Backend {
			n := open(t, testOptions(t, url, name, clock))
			n.rdb.AddHook(&wire{check: func(c redis.Cmder) {
				if name := c.Name(); name == "evalsha" {
					seen.Store(c.Args()[1], true)
					checkSlots(t, n.Prefix, c.Args())
				}
			}})
			return n
		})
	})
	for hash, name := range scriptNames {
		if _, ok := seen.Load(hash); !ok && name != "reseal" { // which has but one key, and is not in the suite
			t.Errorf("%s was never run", name)
		}
	}
}

// undeclared are arguments that the scripts document as used for keys that only
// they know.
func undeclared(sha string, args []any) []string {
	switch sha {
	case arriveScript.Hash():
		return []string{args[14].(string)}
	case dueScript.Hash():
		return []string{args[2].(string)}
	}
	return nil
}

func checkSlots(t *testing.T, prefix string, words []any) {
	n := words[2].(int)
	var keys []string
	for _, k := range words[3 : 3+n] {
		if shared, ok := k.(*string); ok {
			k = *shared
		}
		keys = append(keys, k.(string))
	}
	args := words[3+n:]
	extra := undeclared(words[1].(string), args)
	slots := map[int]bool{}
	for _, k := range append(slices.Clone(keys), extra...) {
		slots[keySlot(k)] = true
	}
	if len(slots) != 1 {
		t.Errorf("the keys of one script are in %d slots: %q, %q", len(slots), keys, extra)
	}
	for _, a := range args {
		if s, ok := a.(string); ok && strings.HasPrefix(s, prefix+":{p") && !slices.Contains(keys, s) && !slices.Contains(extra, s) {
			t.Errorf("the script uses the key %q, which is not declared", s)
		}
	}
}

// keySlot is the slot of a key: CRC16 (XMODEM) of its hash tag, as the Redis
// Cluster specification defines it.
func keySlot(key string) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			key = tag
		}
	}
	crc := uint16(0)
	for _, b := range []byte(key) {
		crc ^= uint16(b) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % 16384
}

func TestKeySlot(t *testing.T) {
	t.Parallel()
	// The first is the specification's own test vector, the rest Redis' answers.
	for key, want := range map[string]int{"123456789": 12739, "foo": 12182, "a{foo}b{bar}": 12182, "{}foo": 9500} {
		if got := keySlot(key); got != want {
			t.Errorf("keySlot(%q) = %d, want %d", key, got, want)
		}
	}
}

// BenchmarkArrive makes the arrivals beforehand; as many run at once as the
// connections allow.
func BenchmarkArrive(b *testing.B) {
	server := redistest.Start(b)
	for name, build := range map[string]func(*storetest.World) relay.Arrival{
		"event": func(w *storetest.World) relay.Arrival {
			a := w.Event(w.ID("", 0), "")
			a.Owe = []relay.Delivery{w.Delivery(relay.KindForward, "core", a.Event)}
			return a
		},
		"challenge": func(w *storetest.World) relay.Arrival { return realistic(w, w.ID("", 0), "") },
	} {
		b.Run(name, func(b *testing.B) {
			w, n := world(b, server.URL, func(o *Options) { o.Prefix = b.Name() + rand.Text() })
			arrivals := []relay.Arrival{}
			for range b.N {
				arrivals = append(arrivals, build(w))
			}
			var next atomic.Int64
			b.SetParallelism(poolSize)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := n.Arrive(b.Context(), arrivals[next.Add(1)-1]); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "arrivals/s")
		})
	}
}
