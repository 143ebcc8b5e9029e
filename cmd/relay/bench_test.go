package main

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestBenchStreams: every cardholder's challenges come on the own stream, and all
// streams of a node share one subscription to Redis.
func TestBenchStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	c.cfg.Server.Listen, c.cfg.Server.AdminListen = c.node.Public, c.node.Admin
	load := benchLoad{kind: "stream", rate: 100, duration: 100 * time.Millisecond, connections: 4, users: 5}
	r, err := benchStreams(t.Context(), c.cfg, load)
	if err != nil {
		t.Fatal(err)
	}
	if r.Sent == 0 || r.Arrived != r.Sent || r.Errors+r.Lost+r.Foreign+r.Ended != 0 || r.Streams != load.users || r.Delivery == nil {
		t.Errorf("%+v", r)
	}
	var text strings.Builder
	if err := r.print(&text, false); err != nil || !strings.Contains(text.String(), "5 streams, 0 ended early, 0 events of somebody else") {
		t.Errorf("%s, %v", text.String(), err)
	}
}

func TestStreamsShareOneSubscription(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.start()
	c.cfg.Server.Listen = c.node.Public
	b := newStreamBench(c.cfg, benchLoad{connections: 4, users: 20}, "acme", []byte(merchantSecret))
	defer b.closeStreams()
	if err := b.openStreams(t.Context()); err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: w.redis.Addr})
	defer rdb.Close()
	subscribed, err := rdb.Do(t.Context(), "CLIENT", "LIST", "TYPE", "pubsub").Text()
	if n := strings.Count(subscribed, "\n"); err != nil || n != 1 {
		t.Errorf("%d subscriptions of one node with %d streams, %v", n, len(b.open), err)
	}
}
