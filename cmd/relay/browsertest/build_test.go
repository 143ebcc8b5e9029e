package browsertest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var shotsDir = flag.String("shots", "", "write screenshots of every state to this `directory`")

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	closeChromium()
	if dir, err := buildDir(); err == nil {
		_ = os.RemoveAll(dir) // only a temporary directory
	}
	os.Exit(code)
}

// buildDir holds what this test process makes; TestMain removes it.
var buildDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "relay-browsers") })

// program is the program, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "relay")
	if out, err := exec.Command("go", "build", "-o", path, "approvalrelay/cmd/relay").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build approvalrelay/cmd/relay: %w: %s", err, out)
	}
	return path, nil
})

// shortDir is a temporary directory of the test whose name leaves room for that
// of a socket, which may have 107 bytes. A browser may still write to it when it
// ends, so that it is removed without a complaint.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay-browser")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// browserPath finds a browser. A missing one fails the test: what was not tested
// in a browser must not look as if it had been.
func browserPath(t testing.TB, name, packages string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not in PATH, and this test needs a real browser. Install it:\n\tapt-get install -y --no-install-recommends %s", name, packages)
	}
	return path
}

// spawn starts a process from one thread that lives as long as this process:
// Linux kills a child with Pdeathsig when the thread that forked it ends.
func spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	done := make(chan error)
	spawner() <- func() { done <- cmd.Start() }
	return <-done
}

var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// until asks cond every 10 ms, and tells whether it became true within limit.
func until(limit time.Duration, cond func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			return false
		case <-tick.C:
		}
	}
	return true
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

func TestMissingBrowserFailsWithTheLineThatInstallsIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	f := &failed{TB: t}
	func() {
		defer func() { _ = recover() }()
		browserPath(f, "firefox-esr", firefoxPackages)
	}()
	if want := "apt-get install -y --no-install-recommends firefox-esr libnotify4"; !strings.Contains(f.said, want) {
		t.Errorf("without the browser: %q, want %q", f.said, want)
	}
}
