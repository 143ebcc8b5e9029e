// Package redistest runs a real redis-server for a test.
//
// Guarantees: the server listens on a loopback port of its own, keeps its data
// in the test's temporary directory, is ready when Start returns, and is gone
// when the test ends. A missing binary fails the test: what was not tested
// against Redis must not look as if it had been.
//
// Non-goals: Redis Sentinel, clusters of several nodes, servers that outlive the
// test, and cleaning up after a test process that is killed or times out: its
// servers stay.
package redistest

import (
	"bufio"
	"context"
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
)

const (
	binary    = "redis-server"
	readyTime = 10 * time.Second // with the append-only file of a test to load
	askEvery  = 5 * time.Millisecond
	portTries = 5 // another process may take a port that was just free
)

// Server is one redis-server. Its methods are for the test's goroutine.
type Server struct {
	Addr string // host:port
	URL  string // redis://host:port
	Pid  int    // of the process that runs now

	t      testing.TB
	dir    string
	args   []string
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start runs the redis-server found in PATH and waits until it answers. It
// persists as production should (appendonly yes, appendfsync everysec,
// maxmemory-policy noeviction); args come after these and win, for example
// "--maxmemory", "8mb".
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath(binary); err != nil {
		t.Fatalf("%s is not in PATH, and this test needs a real Redis. Install it:\n\tapt-get install -y redis-server", binary)
	}
	s := &Server{t: t, dir: t.TempDir(), args: args}
	t.Cleanup(s.Kill)
	var err error
	for range portTries {
		s.Addr = freeAddr(t)
		if err = s.run(); err == nil {
			s.URL = "redis://" + s.Addr
			return s
		}
		s.Kill()
	}
	t.Fatalf("start %s: %v", binary, err)
	return nil
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
// data; it returns when the data are loaded.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.run(); err != nil {
		s.t.Fatalf("restart %s: %v", binary, err)
	}
}

func (s *Server) signal(sig os.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Errorf("send %v to %s: %v", sig, binary, err)
	}
}

func (s *Server) run() error {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	log := filepath.Join(s.dir, "redis.log")
	s.cmd = exec.Command(binary, append([]string{
		"--bind", host, "--port", port, "--dir", s.dir, "--logfile", log, "--save", "",
		"--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
	}, s.args...)...)
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
	if err := s.waitReady(); err != nil {
		said, _ := os.ReadFile(log)
		return fmt.Errorf("%w; it logged:\n%s", err, said)
	}
	return nil
}

func (s *Server) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTime)
	defer cancel()
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		err := s.ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("it ended before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("it was not ready within %s: %w", readyTime, err)
		case <-ticker.C:
		}
	}
}

// ask tells whether this very process answers, and has loaded its data.
func (s *Server) ask(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "PING\r\nINFO server\r\n"); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || line != "+PONG\r\n" {
		return fmt.Errorf("PING: %q, %v", line, err)
	}
	head, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.Trim(head, "$\r\n"))
	if err != nil {
		return fmt.Errorf("INFO: %q", head)
	}
	info := make([]byte, n)
	if _, err := io.ReadFull(r, info); err != nil {
		return err
	}
	if !strings.Contains(string(info), fmt.Sprintf("process_id:%d\r\n", s.Pid)) {
		return errors.New("another server answers on this port")
	}
	return nil
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}
