package redistest_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"approvalrelay/relay/storetest/redistest"
)

// call sends one inline command and returns the first line of the answer.
func call(s *redistest.Server, limit time.Duration, command string) (string, error) {
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

func must(t *testing.T, s *redistest.Server, command, want string) {
	t.Helper()
	if got, err := call(s, 5*time.Second, command); err != nil || got != want {
		t.Fatalf("%s = %q, %v, want %q", command, got, err, want)
	}
}

func TestDataSurvivesKillAndRestart(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	must(t, s, "SET k v", "+OK")
	first := s.Pid
	s.Kill()
	if _, err := net.Dial("tcp", s.Addr); err == nil {
		t.Fatal("a killed server still listens")
	}
	s.Restart()
	if s.Pid == first {
		t.Fatal("Pid is still the killed process's")
	}
	must(t, s, "STRLEN k", ":1")
}

func TestStoppedServerDoesNotAnswerUntilContinued(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Stop()
	if _, err := call(s, 50*time.Millisecond, "PING"); !os.IsTimeout(err) {
		t.Fatalf("PING of a stopped server: %v, want a timeout", err)
	}
	s.Cont()
	must(t, s, "PING", "+PONG")
}

func TestArgumentsWin(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--maxmemory", "1", "--appendonly", "no")
	got, err := call(s, 5*time.Second, "SET k v")
	if err != nil || !strings.HasPrefix(got, "-OOM") {
		t.Fatalf("SET beyond maxmemory = %q, %v, want -OOM (noeviction)", got, err)
	}
}

// failed collects what a test would have failed with.
type failed struct {
	testing.TB
	said string
}

func (f *failed) Helper() {}
func (f *failed) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)
	panic(f)
}

func TestMissingBinaryFailsWithTheLineThatInstallsIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	f := &failed{TB: t}
	func() {
		defer func() { _ = recover() }()
		redistest.Start(f)
	}()
	if !strings.Contains(f.said, "apt-get install -y redis-server") {
		t.Fatalf("without the binary: %q", f.said)
	}
}
