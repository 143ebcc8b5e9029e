package faults

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	shutdownTimeout = 5 * time.Second
	termTime        = shutdownTimeout + 3*time.Second // what SIGTERM may take in all
	upTime          = 20 * time.Second                // to listen; Redis need not be there
)

// node is one relay: a configuration, a proxy before Redis, and the process that
// runs now. start, kill and term are for one goroutine at a time; the rest may be
// called from any.
type node struct {
	w      *world
	name   string
	config string // file
	proxy  *proxy // nil: straight to Redis
	log    *nodeLog

	at    atomic.Pointer[address]
	epoch atomic.Int64 // odd while a fault of this node is on
	proc  *process
}

type address struct{ Public, Admin string }

// process is one run of the program.
type process struct {
	cmd      *exec.Cmd
	expected atomic.Bool   // whether it is meant to end
	ended    chan struct{} // closed when it has ended and its log is read
}

// addNode makes a node of a configuration that lacks the URL of Redis.
func (w *world) addNode(name, yaml string) {
	w.t.Helper()
	n := &node{w: w, name: name, config: filepath.Join(w.dir, name+".yaml")}
	url := w.redisURL
	if w.redis != nil {
		n.proxy = newProxy(w.t, name, w.redis.Addr)
		url = "redis://" + n.proxy.addr()
	}
	if err := os.WriteFile(n.config, fmt.Appendf(nil, yaml, url), 0o600); err != nil {
		w.t.Fatal(err)
	}
	n.log = newNodeLog(w.t, filepath.Join(w.dir, name+".log"), w.canaries)
	n.at.Store(&address{"127.0.0.1:1", "127.0.0.1:1"})
	w.t.Cleanup(n.kill)
	w.nodes = append(w.nodes, n)
}

// base is the URL of the public listener, of the last process if there is none.
func (n *node) base() string { return "http://" + n.at.Load().Public }

// admin is the URL of the admin listener.
func (n *node) admin() string { return "http://" + n.at.Load().Admin }

// start runs the program, with a clock that is skew off, and returns when it
// listens. A failure is reported, and false.
func (n *node) start(skew time.Duration) bool {
	program := binary
	if skew != 0 {
		program = skewedBinary
	}
	path, err := program()
	if err != nil {
		n.w.t.Error(err)
		return false
	}
	p := &process{cmd: exec.Command(path, "serve", "--config", n.config), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), skewVariable+"="+strconv.Itoa(int(skew.Seconds())))
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		n.w.t.Error(err)
		return false
	}
	if err := spawn(p.cmd); err != nil {
		n.w.t.Error(err)
		return false
	}
	n.proc = p
	up := make(chan address, 1)
	go n.watch(p, stderr, up)
	select {
	case a := <-up:
		n.at.Store(&a)
		return true
	case <-p.ended:
	case <-time.After(upTime):
		n.w.t.Errorf("%s did not start within %s", n.name, upTime)
	}
	return false
}

// watch reads the log of a process to its end.
func (n *node) watch(p *process, stderr io.Reader, up chan<- address) {
	defer close(p.ended)
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			n.log.line(line)
			var said struct {
				Msg string
				address
			}
			if json.Unmarshal(line, &said) == nil && said.Msg == "relay is up" {
				up <- said.address
			}
		}
		if err != nil {
			break
		}
	}
	if err := p.cmd.Wait(); !p.expected.Load() {
		n.w.t.Errorf("%s ended by itself: %v\n%s", n.name, err, n.log.tail())
	}
}

// kill ends the process as a crash does (SIGKILL), if one runs.
func (n *node) kill() {
	if n.proc == nil {
		return
	}
	n.proc.expected.Store(true)
	_ = n.proc.cmd.Process.Kill() // it may have ended
	<-n.proc.ended
}

// term ends the process with SIGTERM: it must exit with 0, in time.
func (n *node) term() {
	n.proc.expected.Store(true)
	if err := n.proc.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.w.t.Errorf("%s: SIGTERM: %v", n.name, err)
	}
	sent := time.Now()
	select {
	case <-n.proc.ended:
		n.w.report.recovered("exit after SIGTERM", time.Since(sent))
		if code := n.proc.cmd.ProcessState.ExitCode(); code != 0 {
			n.w.t.Errorf("%s exited with %d after SIGTERM, faults on: %v\n%s", n.name, code, n.w.active.names(), n.log.tail())
		}
	case <-time.After(termTime):
		n.w.t.Errorf("%s still ran %s after SIGTERM, faults on: %v\n%s", n.name, termTime, n.w.active.names(), n.log.tail())
		n.kill()
	}
}

var probe = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (n *node) ready() bool {
	res, err := probe.Get(n.admin() + "/readyz")
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// awaitReady waits until the node is ready, in whatever state Redis is now.
func (n *node) awaitReady(after string) bool {
	const limit = 40 * time.Second // a fault of Redis may be on, and must be mended first
	if until(limit, n.ready) {
		return true
	}
	n.w.t.Errorf("%s was not ready %s after %s, faults on: %v\n%s", n.name, limit, after, n.w.active.names(), n.log.tail())
	return false
}

// nodeLog takes the log of all processes of a node: to a file, searched for what
// must not be in it.
type nodeLog struct {
	t        testing.TB
	canaries []string

	mu     sync.Mutex
	file   *os.File
	levels map[string]int
	found  map[string]bool // canaries
	last   []string
}

// tailLines is how much of a log is shown when something went wrong.
const tailLines = 15

func newNodeLog(t testing.TB, path string, canaries []string) *nodeLog {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	l := &nodeLog{t: t, canaries: canaries, file: file, levels: map[string]int{}, found: map[string]bool{}}
	t.Cleanup(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *nodeLog) line(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := string(line)
	for _, c := range l.canaries {
		if !l.found[c] && strings.Contains(text, c) {
			l.found[c] = true
			l.t.Errorf("%s holds the secret %q: %s", l.file.Name(), c, text)
		}
	}
	var record struct{ Level string }
	if json.Unmarshal(line, &record) != nil {
		record.Level = "no JSON"
	}
	l.levels[record.Level]++
	if l.last = append(l.last, text); len(l.last) > tailLines {
		l.last = l.last[1:]
	}
	if _, err := l.file.Write(line); err != nil {
		l.t.Errorf("keep a log: %v", err)
	}
}

// tail is where the log is and how it ends.
func (l *nodeLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Name() + " ends with:\n" + strings.Join(l.last, "")
}

// forget empties the tail.
func (l *nodeLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = nil
}

// byLevel is how many lines of each level there are.
func (l *nodeLog) byLevel() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.levels)
}

// keptDir is a directory that is only removed if the test succeeds.
func keptDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay-faults-run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the configurations and logs of the nodes are kept in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestHarnessClock: a node with a skewed clock is off by that much, and works.
func TestHarnessClock(t *testing.T) {
	w := newWorld(t, setup{nodes: 1, ttl: 25 * time.Second})
	n := w.nodes[0]
	for _, skew := range []time.Duration{0, 30 * time.Second, -30 * time.Second} {
		if !n.start(skew) || !n.awaitReady("its start") {
			t.FailNow()
		}
		var line struct{ Time time.Time }
		first, _, _ := strings.Cut(strings.SplitN(n.log.tail(), "\n", 2)[1], "\n")
		if err := json.Unmarshal([]byte(first), &line); err != nil {
			t.Fatalf("%v in %q", err, first)
		}
		if off := (time.Until(line.Time) - skew).Abs(); off > 5*time.Second {
			t.Errorf("with a skew of %s the log says %s, and it is %s", skew, line.Time, time.Now())
		}
		n.term()
		n.log.forget()
	}
}
