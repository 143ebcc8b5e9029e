package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// buildDir holds the programs of this test process; TestMain removes it.
var buildDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "relay-faults") })

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := buildDir(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// binary is the program as it is.
var binary = sync.OnceValues(func() (string, error) { return build("relay") })

// skewVariable is how many seconds the clock of skewedBinary is ahead.
const skewVariable = "RELAY_FAULTS_CLOCK_SKEW"

// skewedBinary is the program on a standard library whose time.Now is off by
// skewVariable, so that the program itself needs no hook for it. Timers and
// time.Since are not touched: a wrong clock still runs at the right speed.
var skewedBinary = sync.OnceValues(func() (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", fmt.Errorf("skew the clock: %w", err)
	}
	patched, err := skewed(string(source))
	if err != nil {
		return "", fmt.Errorf("skew the clock: %s: %w", original, err)
	}
	replacement := filepath.Join(dir, "time.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: replacement}})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	for name, data := range map[string][]byte{replacement: []byte(patched), file: overlay} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return "", err
		}
	}
	return build("relay-skewed", "-overlay", file)
})

func skewed(source string) (string, error) {
	for _, change := range []struct{ old, new string }{
		{"import (\n", "import (\n\t\"syscall\"\n"},
		{"func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n", "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec += skew\n"},
	} {
		if n := strings.Count(source, change.old); n != 1 {
			return "", fmt.Errorf("want %q once, found it %d times; this Go version needs another patch", change.old, n)
		}
		source = strings.Replace(source, change.old, change.new, 1)
	}
	return source + `
var skew = func() int64 {
	text, _ := syscall.Getenv("` + skewVariable + `")
	seconds, _ := atoi(text)
	return int64(seconds)
}()
`, nil
}

func build(name string, flags ...string) (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	args := append(append([]string{"build", "-o", path}, flags...), "approvalrelay/cmd/relay")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return path, nil
}

// spawn starts a process from one thread that lives as long as this process:
// Linux kills a child with Pdeathsig when the thread that forked it ends.
func spawn(cmd *exec.Cmd) error {
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
