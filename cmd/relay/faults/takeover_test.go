package faults

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"approvalrelay/cmd/relay/sim"
)

const (
	takeOverLimit = 7 * time.Second
	heldEach      = 6  // deliveries that the dying node holds in each lane to outside; no lane may be full
	swallowed     = 32 // challenges whose hand-over is lost with it
)

// arrivals are when the first message of each lane and id came after a moment.
type arrivals struct {
	mu    sync.Mutex
	since time.Time
	first map[string]map[string]time.Duration // lane → id → how long after
}

func (a *arrivals) came(lane, id string, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.since.IsZero() || at.Before(a.since) {
		return
	}
	if a.first[lane] == nil {
		a.first[lane] = map[string]time.Duration{}
	}
	if _, known := a.first[lane][id]; !known {
		a.first[lane][id] = at.Sub(a.since)
	}
}

func (a *arrivals) begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.since = time.Now()
}

func (a *arrivals) count(lane string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.first[lane])
}

// times are when those came that had to be taken over, in order: not at once.
func (a *arrivals) times(lane string) []time.Duration {
	const atOnce = time.Second
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Values(a.first[lane])), func(d time.Duration) bool { return d < atOnce })
}

// loseAnswers lets commands reach Redis, and no answer come back.
func (p *proxy) loseAnswers() {
	p.add(`{"name": "lost", "type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`)
}

// TestTakeOver kills a node that holds deliveries in every lane, and measures when
// another one makes them: forwards, pushes, confirms and locks that hang at the
// outside party, and inner steps whose hand-over from Redis is on its way.
func TestTakeOver(t *testing.T) {
	w := newWorld(t, setup{nodes: 2, ttl: time.Minute})
	dying, heir := w.nodes[0], w.nodes[1]
	w.patientNodes()
	if !dying.start(0) || !dying.awaitReady("its start") {
		t.FailNow()
	}
	device := w.push.Subscribe(w.pushURL)
	if !w.activate(t.Context(), 0, w.token("u1"), device) {
		t.Fatal("the device was not activated")
	}

	var hang atomic.Bool
	behave := func() sim.Behaviour { return sim.Behaviour{Hang: hang.Load()} }
	w.core.Behave(func(int, string) sim.Behaviour { return behave() })
	w.issuer.Behave(func(int, string) sim.Behaviour { return behave() })
	w.push.Behave(func(int, *sim.Device) sim.Behaviour { return behave() })
	got := &arrivals{first: map[string]map[string]time.Duration{}}
	w.core.OnRecord(func(d sim.Delivery) {
		if d.Type == transaction {
			got.came("core", d.ID, d.At)
		}
	})
	w.issuer.OnRecord(func(c sim.Call) {
		lane := "confirm"
		if c.Path == lockPath {
			lane = "lock"
		}
		got.came(lane, c.IdempotencyKey, c.At)
	})
	w.push.OnRecord(func(n sim.Notification) {
		c, _ := n.Payload["challenge"].(map[string]any)
		lane := "push"
		if text, _ := n.Payload["notification"].(map[string]any); strings.HasPrefix(fmt.Sprint(text["body"]), "Swallowed") {
			lane = "tasks"
		}
		if c["status"] == "pending" {
			got.came(lane, fmt.Sprint(c["id"]), n.At)
		}
	})

	hang.Store(true)
	w.hold(t)
	if !heir.start(0) || !heir.awaitReady("its start") {
		t.FailNow()
	}
	hang.Store(false)
	for n := range swallowed {
		w.mustPost(t, 1, "CARD_3DS", map[string]any{
			"card_id": fmt.Sprintf("swallowed-%d", n), "auth_id": fmt.Sprintf("S-%d", n), "merchant_name": "Swallowed", "amount": "1.00", "currency": "EUR",
		})
	}
	// What a step of a node owes is handed over in it, so what a dying node is to read
	// must be owed by others: here, to give challenges to who owns their card.
	dying.proxy.loseAnswers()
	for n := range swallowed {
		heir.assign(t, fmt.Sprintf("swallowed-%d", n), "u1")
	}
	dying.kill()
	got.begin()

	for _, lane := range []string{"core", "push", "confirm", "lock"} {
		if !until(2*takeOverLimit, func() bool { return got.count(lane) >= heldEach }) {
			t.Errorf("%s: %d of %d were taken over", lane, got.count(lane), heldEach)
		}
	}
	all := func() bool { return device.Count() >= 1+heldEach+swallowed }
	if !until(2*takeOverLimit, all) {
		t.Errorf("the device got %d pushes, want %d at least", device.Count(), 1+heldEach+swallowed)
	}
	for _, lane := range []string{"core", "push", "confirm", "lock", "tasks"} {
		times := got.times(lane)
		if len(times) == 0 {
			t.Errorf("%s: the dying node held nothing: nothing was proved", lane)
			continue
		}
		slowest := times[len(times)-1]
		t.Logf("%-8s %3d taken over, p50 %.1fs, slowest %.1fs", lane, len(times), times[len(times)/2].Seconds(), slowest.Seconds())
		if slowest > takeOverLimit {
			t.Errorf("%s: the slowest was taken over after %s, want within %s", lane, slowest, takeOverLimit)
		}
	}
}

// hold makes the first node hold deliveries in each lane to outside.
func (w *world) hold(t *testing.T) {
	t.Helper()
	for n := range heldEach {
		w.mustPost(t, 0, transaction, map[string]any{"card_id": "c", "transaction_id": fmt.Sprintf("T-%d", n)})
	}
	var challenges []string
	for n := range 2 * heldEach {
		user := "u1" // has a device: its push hangs
		if n >= heldEach {
			user = "u2"
		}
		id := w.mustPost(t, 0, "CARD_3DS", map[string]any{
			"card_id": fmt.Sprintf("c-%d", n), "user_id": user, "auth_id": fmt.Sprintf("A-%d", n), "merchant_name": "Shop", "amount": "1.00", "currency": "EUR",
		})
		challenges = append(challenges, "chl_"+strings.TrimPrefix(id, "evt_"))
	}
	for _, id := range challenges[heldEach:] {
		// Its confirm and its lock hang, and so does the answer, until the node dies.
		go func() {
			_, _, _ = w.call(t.Context(), 0, "POST", w.token("u2"), "/v1/challenges/"+id+"/reject", `{"reason":"not_me"}`)
		}()
	}
	for what, n := range map[string]func() int{"forwards": w.core.Count, "pushes": w.push.Count, "calls of the issuer": func() int { return w.issuer.Count() / 2 }} {
		if !until(takeOverLimit, func() bool { return n() >= heldEach }) {
			t.Fatalf("only %d %s hang", n(), what)
		}
	}
}

func (w *world) mustPost(t *testing.T, node int, typ string, payload map[string]any) string {
	t.Helper()
	a, err := w.issuer.Post(t.Context(), w.nodes[node].base(), typ, payload)
	id, _ := a.Body["event_id"].(string)
	if err != nil || a.Status != http.StatusOK || id == "" {
		t.Fatalf("%s: %d %s, %v", typ, a.Status, a.Raw, err)
	}
	return id
}

// assign says whose a card is.
func (n *node) assign(t *testing.T, card, user string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, n.admin()+"/ops/v1/merchants/acme/cards/"+card, strings.NewReader(`{"user_id":"`+user+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := probe.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatalf("assign a card: %s", res.Status)
	}
}

// patientNodes lets the nodes wait long for outside parties: what hangs is to be
// held until its node dies. Without events of our own no lane is full, so that
// readers wait in Redis and not in the node.
func (w *world) patientNodes() {
	for _, n := range w.nodes {
		text, err := os.ReadFile(n.config)
		if err != nil {
			w.t.Fatal(err)
		}
		for from, to := range map[string]string{"timeout: 2s": "timeout: 20s", "timeout: 1500ms": "timeout: 20s", `["*", "relay.*"]`: `["*"]`} {
			text = bytes.Replace(text, []byte(from), []byte(to), 1)
		}
		if err := os.WriteFile(n.config, text, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}
