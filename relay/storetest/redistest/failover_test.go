package redistest_test

import (
	"strings"
	"testing"
	"time"

	"approvalrelay/relay/storetest/redistest"
)

// eventually asks until the answer begins so.
func eventually(t *testing.T, s *redistest.Server, command, want string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		got, err := call(s, time.Second, command)
		if err == nil && strings.HasPrefix(got, want) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s = %q, %v, want %s", command, got, err, want)
		case <-ticker.C:
		}
	}
}

func TestDiskFullWithEverysec(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	must(t, s, "SET before v", "+OK")
	s.DiskFull()
	must(t, s, "SET lost v", "+OK") // what DiskFull documents
	eventually(t, s, "SET k v", "-MISCONF Errors writing to the AOF file: File too large")
	if got, err := call(s, time.Second, `EVAL "return redis.call('SET', KEYS[1], 'v')" 1 k`); err != nil || !strings.HasPrefix(got, "-MISCONF") {
		t.Errorf("a script that writes = %q, %v, want -MISCONF", got, err)
	}
	must(t, s, "STRLEN before", ":1")
	s.DiskFree()
	eventually(t, s, "SET k v", "+OK")
	s.Kill()
	s.Restart()
	must(t, s, "STRLEN before", ":1")
	must(t, s, "STRLEN lost", ":1")
}

// TestKilledOnAFullDisk: what was acknowledged when the disk was full already,
// and Redis did not yet say so, is lost in a crash.
func TestKilledOnAFullDisk(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.DiskFull()
	must(t, s, "SET lost v", "+OK")
	s.Restart()
	must(t, s, "STRLEN lost", ":0")
	must(t, s, "SET k v", "+OK")
}

func TestDiskFullWithAlways(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, "--appendfsync", "always")
	must(t, s, "SET before v", "+OK")
	s.DiskFull()
	if got, err := call(s, 5*time.Second, "SET lost v"); err == nil {
		t.Errorf("SET on a full disk = %q, want no answer", got)
	}
	if got, err := call(s, 5*time.Second, "PING"); err == nil {
		t.Errorf("PING = %q, want it ended", got)
	}
	s.Restart()
	must(t, s, "STRLEN before", ":1")
	must(t, s, "STRLEN lost", ":0")
}

func TestClusterFailsOver(t *testing.T) {
	t.Parallel()
	start := time.Now()
	c := redistest.StartCluster(t)
	t.Logf("started in %s", time.Since(start))
	if m := c.Masters(); len(c.Nodes) != 6 || len(m) != 3 {
		t.Fatalf("%d nodes, %d masters, want 6 and 3", len(c.Nodes), len(m))
	}
	old := c.MasterOf("k")
	must(t, old, "SET k v", "+OK")
	eventually(t, old, "WAIT 1 1000", ":1")
	start = time.Now()
	old.Kill()
	for c.MasterOf("k") == old {
		eventually(t, c.Nodes[5], "PING", "+PONG")
	}
	eventually(t, c.MasterOf("k"), "STRLEN k", ":1")
	t.Logf("failed over in %s", time.Since(start))
	old.Restart()
	eventually(t, old, "ROLE", "*5") // a replica's answer has five parts, a master's three
}

func TestSentinelFailsOver(t *testing.T) {
	t.Parallel()
	start := time.Now()
	c := redistest.StartSentinel(t)
	t.Logf("started in %s", time.Since(start))
	old := c.Master()
	if old != c.Nodes[0] {
		t.Fatalf("the master is %s, want %s", old.Addr, c.Nodes[0].Addr)
	}
	must(t, old, "SET k v", "+OK")
	eventually(t, old, "WAIT 2 1000", ":2")
	start = time.Now()
	old.Kill()
	for c.Master() == old {
		eventually(t, c.Sentinels[0], "PING", "+PONG")
	}
	must(t, c.Master(), "STRLEN k", ":1")
	eventually(t, c.Master(), "SET k v", "+OK")
	t.Logf("failed over in %s", time.Since(start))
}
