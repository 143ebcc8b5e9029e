package relay_test

import (
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/proto"

	"approvalrelay/relay"
)

// tally is what the store holds of one kind of key: fields, members and entries
// are counted as items.
type tally struct{ keys, items, bytes int }

type tallies map[string]tally

func (ts tallies) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(ts)) {
		fmt.Fprintf(&b, "%-24s %6d keys %7d items %9d bytes\n", k, ts[k].keys, ts[k].items, ts[k].bytes)
	}
	return b.String()
}

// The kinds of redisstore's documentation, and those that grow by design for
// longer than a week: what a dead letter keeps alive.
const (
	deadDelivery = "dlv_ of a dead letter"
	deadEvent    = "evt_ of a dead letter"
)

var keyKinds = regexp.MustCompile(`^relay:(?:(root|nodes|parked|takeover:)|\{p0[01]\}:(?:(evt_|chl_|dlv_)\w{28}$|(dup:|owner:|live:|ended:|mute:|q:|devices:|cards:|endpoint:|notices:|ix:[ehtdso]:)|(due|dead|owed|count|retrying)$))`)

// unlimited are the kinds without a TTL: bounded by count, or by what is owed.
var unlimited = map[string]bool{"root": true, "nodes": true, "owner:": true, "cards:": true, "devices:": true, "q:": true, "due": true, "owed": true, "count": true}

// kind of a key; a test that meets an unknown one fails.
func (w *week) kind(key string) string {
	m := keyKinds.FindStringSubmatch(key)
	if m == nil {
		w.t.Errorf("nobody knows the key %s", key)
		return "unknown"
	}
	kind, ttl := m[1]+m[2]+m[3]+m[4], w.server.TTL(key)
	if ttl == 0 && !unlimited[kind] {
		w.t.Errorf("%s stays for ever", key)
	}
	// A challenge's life comes on top of retention, at most ten minutes.
	longest := map[string]time.Duration{"endpoint:": endpointLife, "dup:": 2 * retention, "dead": deadLife, "retrying": deadLife, "dlv_": deadLife, "evt_": deadLife}[kind]
	if longest == 0 {
		longest = retention + 10*time.Minute
	}
	if ttl > longest {
		w.t.Errorf("%s stays for %v", key, ttl)
	}
	if ttl > retention && (kind == "dlv_" || kind == "evt_") {
		kind += " of a dead letter"
	}
	return kind
}

func (w *week) tally() tallies {
	ts := tallies{}
	for _, key := range w.server.Keys() {
		kind := w.kind(key)
		t := ts[kind]
		items, bytes := w.size(key)
		t.keys, t.items, t.bytes = t.keys+1, t.items+items, t.bytes+len(key)+bytes
		ts[kind] = t
	}
	return ts
}

func (w *week) size(key string) (items, bytes int) {
	w.t.Helper()
	var parts []string
	var err error
	switch typ := w.server.Type(key); typ {
	case "string":
		parts = make([]string, 1)
		parts[0], err = w.server.Get(key)
	case "hash":
		parts, err = w.server.HKeys(key)
		for _, f := range parts {
			bytes += len(w.server.HGet(key, f))
		}
	case "set":
		parts, err = w.server.Members(key)
	case "list":
		parts, err = w.server.List(key)
	case "zset":
		parts, err = w.server.ZMembers(key)
		bytes = 8 * len(parts)
	case "stream":
		entries, e := w.server.Stream(key)
		for _, entry := range entries {
			parts = append(parts, entry.ID+strings.Join(entry.Values, ""))
		}
		err = e
	default:
		w.t.Fatalf("%s is a %s", key, typ)
	}
	w.must(err)
	for _, p := range parts {
		bytes += len(p)
	}
	return len(parts), bytes
}

// checkBounds: what has no TTL is bounded by the number of cards, users and
// browsers, and each dead letter keeps its record and at most one event.
func (w *week) checkBounds(ts tallies) {
	w.t.Helper()
	for _, b := range []struct {
		kind  string
		most  int
		count int
	}{
		{"owner: keys", len(w.cards), ts["owner:"].keys},
		{"cards: members", len(w.cards) + lost*(holders-1), ts["cards:"].items}, // a lost card stays in the lists of its former owners
		{"devices: keys", holders + loiterers, ts["devices:"].keys},
		{"endpoint: keys", 3 * holders, ts["endpoint:"].keys},
		{deadEvent, ts["dead"].items, ts[deadEvent].keys},
		{deadDelivery, ts["dead"].items, ts[deadDelivery].keys},
		{"root", 1, ts["root"].keys},
		{"q: keys", 2 * len(weekLanes), ts["q:"].keys},
	} {
		if b.count > b.most {
			w.t.Errorf("there are %d %s, want at most %d", b.count, b.kind, b.most)
		}
	}
}

// checkGrowth compares with an earlier day. A kind of which nothing were
// forgotten would have grown by a third a day. The slack is for where in its
// round of forty events a day ends, and for what has to be of few.
func (ts tallies) checkGrowth(t *testing.T, day int, earlier tallies) {
	t.Helper()
	byCount := []string{"owner:", "cards:", "devices:", "endpoint:", "dead", deadDelivery, deadEvent} // see checkBounds
	for kind, now := range ts {
		then := earlier[kind]
		if slices.Contains(byCount, kind) {
			continue
		}
		if grown(now.keys, then.keys, 12) || grown(now.items, then.items, 12) || grown(now.bytes, then.bytes, 12*256) {
			t.Errorf("on day %d there is more of %s than before: %+v, was %+v", day, kind, now, then)
		}
	}
}

func grown(now, then, slack int) bool { return now > then+then/10+slack }

// memory is what the process holds, after so many events.
type memory struct{ events, heap, goroutines int }

func (w *week) memory() memory {
	runtime.GC()
	runtime.GC() // what finalizers let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{w.events, int(m.HeapAlloc), runtime.NumGoroutine()}
}

// checkMemory compares the process with itself on an earlier day. The Redis in it
// keeps a number for every key it ever had, and the dead letters: some 800 bytes
// an event. A mebibyte is for what the runtime and the connections keep.
func (w *week) checkMemory(before memory) {
	w.t.Helper()
	w.checkHeld()
	now := w.memory()
	w.t.Logf("memory was %+v, is %+v", before, now)
	if most := before.heap + (now.events-before.events)*1536 + 1<<20; now.heap > most {
		w.t.Errorf("the heap has grown from %d to %d bytes, want at most %d", before.heap, now.heap, most)
	}
	if now.goroutines > before.goroutines+5 {
		w.t.Errorf("there are %d goroutines, there were %d", now.goroutines, before.goroutines)
	}
}

// checkHeld: what the service keeps in memory is gone when nothing is owed.
func (w *week) checkHeld() {
	w.t.Helper()
	if recent, watched := w.Held(); recent > 0 || watched > 0 {
		w.t.Errorf("the service still holds %d events, and %d users are watched by nobody", recent, watched)
	}
}

// checkVariety: all that may leave something behind has happened.
func (w *week) checkVariety() {
	w.t.Helper()
	for _, what := range []string{
		"accepted", "duplicate", "quarantined", "core answers 500", "lock answers 500", "push", "push answers 410", "push answers 503", "taken over",
		"relay.event.quarantined", "relay.challenge.created", "relay.challenge.unreachable", "relay.challenge.reported",
		"relay.challenge.approved", "relay.challenge.rejected", "relay.challenge.completed", "relay.challenge.expired",
		"relay.challenge.failed", "relay.challenge.cancelled",
	} {
		if w.seen[what] < 3 {
			w.t.Errorf("%q was seen %d times in a week: this proves nothing", what, w.seen[what])
		}
	}
	w.t.Logf("%d events: %v", w.events, w.seen)
}

// checkLeft names every key that may stay when nothing has happened for as long
// as anything is kept.
func (w *week) checkLeft() {
	w.t.Helper()
	w.checkHeld()
	redis, err := proto.Dial(w.server.Addr())
	w.must(err)
	defer redis.Close()
	ts := w.tally()
	w.t.Logf("left:\n%s", ts)
	w.checkBounds(ts)
	for _, key := range w.server.Keys() {
		if !w.mayStay(redis, key) {
			items, bytes := w.size(key)
			w.t.Errorf("left is %s: %d items, %d bytes, ttl %v", key, items, bytes, w.server.TTL(key))
		}
	}
}

func (w *week) mayStay(redis *proto.Client, key string) bool {
	kind := w.kind(key)
	_, id, _ := strings.Cut(key, kind)
	switch kind {
	case "root":
		return true
	case "nodes":
		nodes, err := w.server.ZMembers(key)
		return err == nil && slices.Equal(nodes, []string{"lives"})
	case "owner:":
		return w.cards[id]
	case "cards:":
		return w.users[id]
	case "devices:":
		merchant, user, _ := strings.Cut(id, ":u:")
		return len(w.active[relay.User{Merchant: merchant, ID: user}]) > 0
	case "endpoint:": // for endpointLife; counted by checkBounds
		return true
	case "owed":
		fields, err := w.server.HKeys(key)
		return err == nil && !slices.ContainsFunc(fields, func(f string) bool { return w.server.HGet(key, f) != "0" })
	case "count": // the active subscriptions of users whose partition it is, and no challenge that lives
		active := 0
		for u, subs := range w.active {
			if strings.Contains(key, fmt.Sprintf("{p%02d}", u.Partition(2))) {
				active += len(subs)
			}
		}
		counted := w.server.HGet(key, "subscriptions")
		live := w.server.HGet(key, "pending") + w.server.HGet(key, "confirming")
		return (counted == strconv.Itoa(active) || active == 0 && counted == "") && strings.Trim(live, "0") == ""
	case "q:":
		return w.idle(redis, key)
	}
	return false
}

// idle tells whether a lane is empty, and known to the living node only.
func (w *week) idle(redis *proto.Client, key string) bool {
	entries, err := w.server.Stream(key)
	if err != nil || len(entries) > 0 {
		return false
	}
	consumers, err := redis.Do("XINFO", "CONSUMERS", key, "relay")
	w.must(err)
	pending, err := redis.Do("XPENDING", key, "relay")
	w.must(err)
	if strings.Contains(consumers, "mortal") || !strings.HasPrefix(pending, "*4\r\n:0\r\n") {
		w.t.Errorf("%s: consumers %q, pending %q", key, consumers, pending)
		return false
	}
	return true
}
