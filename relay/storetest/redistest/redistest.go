// Package redistest runs real Redis servers for a test: one alone (Start), a
// cluster (StartCluster), or a master under sentinels (StartSentinel). Any of
// them can crash, hang or run out of disk.
//
// Guarantees: the servers listen on loopback ports of their own, keep their data
// in the test's temporary directory, are ready when the call returns, and are
// gone when the test ends. A missing binary fails the test: what was not tested
// against Redis must not look as if it had been.
//
// Non-goals: servers that outlive the test, and cleaning up after a test process
// that is killed or times out: its servers stay. It runs on Linux.
package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"approvalrelay/relay/storetest/freeport"
)

const (
	binary    = "redis-server"
	readyTime = 20 * time.Second // with the append-only file of a test to load
	askTime   = time.Second
	askEvery  = 5 * time.Millisecond
)

// Server is one redis-server. Its methods are for the test's goroutine.
type Server struct {
	Addr string // host:port
	URL  string // redis://host:port
	Pid  int    // of the process that runs now

	t      testing.TB
	dir    string
	bus    string                   // port of the cluster's bus, if it is a cluster's node
	argv   func(s *Server) []string // made when Addr is known
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start runs the redis-server found in PATH and waits until it answers. It
// persists as production should (appendonly yes, appendfsync everysec,
// maxmemory-policy noeviction); args come after these and win, for example
// "--maxmemory", "8mb".
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, func(s *Server) []string {
		return append([]string{
			"--bind", s.host(), "--port", s.port(), "--cluster-port", s.bus, "--dir", s.dir, "--logfile", s.log(), "--save", "",
			"--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
		}, args...)
	})
}

func start(t testing.TB, argv func(s *Server) []string) *Server {
	t.Helper()
	if _, err := exec.LookPath(binary); err != nil {
		t.Fatalf("%s is not in PATH, and this test needs a real Redis. Install it:\n\tapt-get install -y redis-server", binary)
	}
	s := &Server{t: t, dir: t.TempDir(), argv: argv}
	t.Cleanup(s.Kill)
	s.Addr, s.bus = freeport.Address(t), freeport.Port(t)
	if err := s.run(); err != nil {
		t.Fatalf("start %s: %v", binary, err)
	}
	s.URL = "redis://" + s.Addr
	return s
}

// Kill ends the server as a crash does (SIGKILL). What it had written to its
// append-only file is there after Restart.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	s.signal(syscall.SIGKILL)
	<-s.exited
	s.cmd = nil
}

// Stop freezes the server (SIGSTOP): connections stay open and nobody answers.
func (s *Server) Stop() { s.signal(syscall.SIGSTOP) }

// Cont lets a stopped server go on (SIGCONT).
func (s *Server) Cont() { s.signal(syscall.SIGCONT) }

// Restart kills the server if it runs and starts it again on the same port and
// data; it returns when the data are loaded. Its disk has room again.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.run(); err != nil {
		s.t.Fatalf("restart %s: %v", binary, err)
	}
}

// DiskFull makes the server's writes to its files fail from now on, as on a full
// disk (with EFBIG in the place of ENOSPC). What Redis 7.0 does then:
//
//   - With appendfsync everysec, the first write is answered as if all was well,
//     although it is only in memory: the append-only file is written before the
//     answer is sent, but that it failed is only noted. From then on Redis
//     answers writes, those of scripts too, with -MISCONF. Reads go on. It
//     tries again every second, and recovers by itself when there is room.
//   - With appendfsync always it exits at the first write, which is not answered.
func (s *Server) DiskFull() { s.limitFiles(0) }

// DiskFree ends what DiskFull began.
func (s *Server) DiskFree() { s.limitFiles(unix.RLIM_INFINITY) }

// limitFiles sets the soft limit alone, which may be raised again.
func (s *Server) limitFiles(size uint64) {
	s.t.Helper()
	if err := unix.Prlimit(s.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}, nil); err != nil {
		s.t.Fatalf("limit the files of %s: %v", binary, err)
	}
}

func (s *Server) signal(sig os.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Errorf("send %v to %s: %v", sig, binary, err)
	}
}

func (s *Server) host() string { host, _, _ := net.SplitHostPort(s.Addr); return host }
func (s *Server) port() string { _, port, _ := net.SplitHostPort(s.Addr); return port }
func (s *Server) log() string  { return filepath.Join(s.dir, "redis.log") }

// run starts the process. The shell, which exec replaces, lets it ignore the
// signal that would end it at the limit of DiskFull.
func (s *Server) run() error {
	s.cmd = exec.Command("sh", append([]string{"-c", `trap "" XFSZ; exec "$0" "$@"`, binary}, s.argv(s)...)...)
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return err
	}
	s.Pid = s.cmd.Process.Pid
	cmd, exited := s.cmd, make(chan struct{})
	s.exited = exited
	go func() {
		defer close(exited)
		cmd.Wait() // how it ended does not matter: that it did is seen
	}()
	if err := until(s.exited, s.ready); err != nil {
		said, _ := os.ReadFile(s.log())
		return fmt.Errorf("%w; it logged:\n%s", err, said)
	}
	return nil
}

// ready tells whether this very process answers, and has loaded its data.
func (s *Server) ready() error {
	if pong, err := s.call("PING"); err != nil || pong != "PONG" {
		return fmt.Errorf("PING: %q, %w", pong, err)
	}
	info, err := s.call("INFO server")
	if err != nil {
		return err
	}
	if !strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", s.Pid)) {
		return errors.New("another server answers on this port")
	}
	return nil
}

// until asks again and again until there is no error. It gives up when ended is
// closed, and after readyTime.
func until(ended <-chan struct{}, ask func() error) error {
	timeout := time.After(readyTime)
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return errors.New("it ended before it was ready")
		case <-timeout:
			return fmt.Errorf("it was not ready within %s: %w", readyTime, err)
		case <-ticker.C:
		}
	}
}

// call sends one command of words without spaces. An array is answered as its
// elements' lines.
func (s *Server) call(command string) (string, error) {
	conn, err := net.DialTimeout("tcp", s.Addr, askTime)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(askTime)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		return "", err
	}
	return answer(bufio.NewReader(conn))
}

// do is call for commands that a healthy server must accept.
func (s *Server) do(command string) string {
	s.t.Helper()
	got, err := s.call(command)
	if err != nil {
		s.t.Fatalf("%s at %s: %v", command, s.Addr, err)
	}
	return got
}

// answer reads one value of RESP2.
func answer(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := line[0], strings.TrimRight(line[1:], "\r\n")
	switch kind {
	case '+', ':':
		return rest, nil
	case '-':
		return "", errors.New(rest)
	}
	n, err := strconv.Atoi(rest)
	if err != nil {
		return "", fmt.Errorf("not an answer of Redis: %q", line)
	}
	if kind == '$' {
		text := make([]byte, max(n, 0)+len("\r\n"))
		_, err := io.ReadFull(r, text)
		return string(text[:max(n, 0)]), err
	}
	lines := make([]string, max(n, 0))
	for i := range lines {
		if lines[i], err = answer(r); err != nil {
			return "", err
		}
	}
	return strings.Join(lines, "\n"), nil
}
