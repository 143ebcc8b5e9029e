package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"approvalrelay/relay/storetest/freeport"
	"approvalrelay/relay/storetest/redistest"
)

// nodesRun is how long each load lasts: so long that starting it does not count.
const nodesRun = 8 * time.Second

// nodesLoads are loads of relay bench. The rate is for each relay, since a busy
// process does more at once, and so needs less for each; a full load is for one.
var nodesLoads = []struct {
	name string
	kind string // "": none
	rate int    // webhooks a second; 0: as many as it takes
	full bool
}{
	{name: "idle"},
	{"events", "event", 200, false},
	{"challenges", "challenge", 40, false},
	{"events-full", "event", 0, true},
	{"challenges-full", "challenge", 200, true},
}

// BenchmarkNodes measures what one webhook costs in CPU time, of the relays and of
// Redis, with more and more processes; a challenge is pushed and approved. On one
// machine these compete, so throughput would only show its cores; but while the
// cost of a webhook does not grow, what each process can do adds up.
//
//	go test ./cmd/relay/faults -run '^$' -bench Nodes -benchtime 1x
func BenchmarkNodes(b *testing.B) {
	for _, masters := range []int{1, 3} {
		for _, relays := range []int{1, 2, 4} {
			for _, load := range nodesLoads {
				if load.full && relays > 1 {
					continue
				}
				b.Run(fmt.Sprintf("masters=%d/relays=%d/%s", masters, relays, load.name), func(b *testing.B) {
					f := newFleet(b, masters, relays)
					for b.Loop() {
						if load.kind == "" {
							f.idle(b)
						} else {
							f.bench(b, load.kind, load.rate*relays, load.full)
						}
					}
					b.ReportMetric(0, "ns/op") // says nothing here
				})
			}
		}
	}
}

// fleet is some relays as relay bench configures them, on Redis without a proxy.
type fleet struct {
	*world
	masters, replicas []*redistest.Server
}

func newFleet(b *testing.B, masters, relays int) *fleet {
	f := &fleet{world: &world{t: b, dir: keptDir(b)}}
	if masters == 1 {
		server := redistest.Start(b)
		f.redisURL, f.masters = server.URL, []*redistest.Server{server}
	} else {
		cluster := redistest.StartCluster(b)
		f.redisURL, f.masters, f.replicas = cluster.URL, cluster.Nodes[:masters], cluster.Nodes[masters:]
	}
	yaml := f.run("bench", "--print-config")
	for fixed, ours := range map[string]string{
		`listen: "127.0.0.1:18080"`: `listen: "127.0.0.1:0"`, `"127.0.0.1:18081"`: `"127.0.0.1:0"`,
		`"redis://127.0.0.1:6379/0"`: "%q", "127.0.0.1:18083": freeport.Address(b), "127.0.0.1:18084": freeport.Address(b),
		"level: warn": "level: info", // the default, as a relay in production
	} {
		if !strings.Contains(yaml, fixed) {
			b.Fatalf("relay bench --print-config prints no %s", fixed)
		}
		yaml = strings.ReplaceAll(yaml, fixed, ours)
	}
	for i := range relays {
		f.addNode(fmt.Sprintf("node%d", i+1), yaml)
	}
	for _, n := range f.nodes {
		if !n.start(0) || !n.awaitReady("its start") {
			b.FailNow()
		}
	}
	pause(b.Context(), 2*time.Second) // what a start costs is over
	return f
}

// run runs a command of the program, and returns what it prints.
func (f *fleet) run(args ...string) string {
	f.t.Helper()
	path, err := binary()
	if err != nil {
		f.t.Fatal(err)
	}
	out, err := exec.CommandContext(f.t.Context(), path, args...).Output()
	if err != nil {
		f.t.Fatalf("relay %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// bench loads all nodes, and reports what a webhook costs; of a full load also what
// it leaves in Redis: less would not outweigh what is there once.
func (f *fleet) bench(b *testing.B, kind string, rate int, full bool) {
	args := []string{
		"bench", "--json", "--config", f.nodes[0].config, "--kind", kind, "--rate", strconv.Itoa(rate), "--duration", nodesRun.String(),
		"--approve=" + strconv.FormatBool(kind == "challenge"), "--users", "16", // few, so that the registration of their devices does not count
	}
	for _, n := range f.nodes {
		args = append(args, "--server", n.at.Load().Public)
	}
	before, kept := f.used(), f.kept()
	text := f.run(args...)
	after := f.used()
	var out struct {
		Relay []struct {
			Accepted, Errors, Lost, Faults int
			AcceptedPS                     float64            `json:"accepted_per_second"`
			DeliveredPS                    float64            `json:"accepted_and_delivered_per_second"`
			Delivery                       map[string]float64 `json:"webhook_to_delivery_ms"`
		}
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil || len(out.Relay) != 1 || out.Relay[0].Accepted == 0 {
		b.Fatalf("relay bench prints %s: %v", text, err)
	}
	r := out.Relay[0]
	if r.Errors+r.Faults > 0 {
		b.Errorf("not all went well: %s", text)
	}
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(r.Accepted) }
	b.ReportMetric(each(after.relays-before.relays), "relay-µs/webhook")
	b.ReportMetric(each(after.masters-before.masters), "redis-µs/webhook")
	if f.replicas != nil {
		b.ReportMetric(each(after.replicas-before.replicas), "replica-µs/webhook")
	}
	b.ReportMetric(r.AcceptedPS, "accepted/s")
	b.ReportMetric(r.DeliveredPS, "delivered/s")
	b.ReportMetric(r.Delivery["p99"], "p99-ms")
	b.ReportMetric(float64(r.Lost), "lost")
	if full {
		b.ReportMetric(float64(f.kept()-kept)/float64(r.Accepted), "redis-B/webhook")
	}
}

// idle reports what nodes without work cost in a second, all together.
func (f *fleet) idle(b *testing.B) {
	before, start := f.used(), time.Now()
	pause(b.Context(), nodesRun)
	after, took := f.used(), time.Since(start).Seconds()
	b.ReportMetric((after.relays-before.relays).Seconds()*1000/took, "relay-ms/s")
	b.ReportMetric((after.masters-before.masters).Seconds()*1000/took, "redis-ms/s")
}

// cpu is what processes have used, user and system.
type cpu struct{ relays, masters, replicas time.Duration }

func (f *fleet) used() cpu {
	var c cpu
	for _, n := range f.nodes {
		c.relays += f.cpuTime(n.proc.cmd.Process.Pid)
	}
	for _, s := range f.masters {
		c.masters += f.cpuTime(s.Pid)
	}
	for _, s := range f.replicas {
		c.replicas += f.cpuTime(s.Pid)
	}
	return c
}

// cpuTime reads the clock that clock_getcpuclockid(3) names: /proc counts in
// hundredths of a second, in which an idle process does nothing.
func (f *fleet) cpuTime(pid int) time.Duration {
	f.t.Helper()
	const sched = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &t); err != nil {
		f.t.Fatalf("the CPU time of process %d: %v", pid, err)
	}
	return time.Duration(t.Nano())
}

// kept is the memory of all masters, without what belongs to connections and files.
func (f *fleet) kept() int {
	f.t.Helper()
	sum := 0
	for _, s := range f.masters {
		rdb := redis.NewClient(&redis.Options{Addr: s.Addr})
		info, err := rdb.Info(f.t.Context(), "memory").Result()
		if err = errors.Join(err, rdb.Close()); err != nil {
			f.t.Fatal(err)
		}
		for line := range strings.Lines(info) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			n, _ := strconv.Atoi(value) // those that are named are numbers
			switch {
			case name == "used_memory":
				sum += n
			case slices.Contains([]string{"mem_clients_normal", "mem_aof_buffer", "mem_total_replication_buffers", "mem_cluster_links"}, name):
				sum -= n
			}
		}
	}
	return sum
}
