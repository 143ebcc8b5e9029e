package redistest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// watched is the name under which the sentinels know the master.
const watched = "main"

// Sentinel is a master with its replicas under sentinels. Its methods are for
// the test's goroutine.
type Sentinel struct {
	URL       string    // redis+sentinel:// with all sentinels
	Nodes     []*Server // first the master, as it was at first, then its replicas
	Sentinels []*Server

	t testing.TB
}

// StartSentinel runs a master, two replicas and three sentinels of which two
// must agree. It waits until the replicas follow and every sentinel knows the
// replicas and the other sentinels. args are for the master and the replicas,
// and win.
//
// A master is down after a second and a half without an answer; production
// takes five and more.
func StartSentinel(t testing.TB, args ...string) *Sentinel {
	t.Helper()
	c := &Sentinel{t: t}
	args = append([]string{"--repl-diskless-sync-delay", "0"}, args...)
	master := Start(t, args...)
	c.Nodes = append(c.Nodes, master)
	for range 2 {
		c.Nodes = append(c.Nodes, Start(t, append(args[:len(args):len(args)], "--replicaof", master.host()+" "+master.port())...))
	}
	c.wait(master, func() error { return master.hasReplicas(2) })
	var addrs []string
	for range 3 {
		s := start(t, func(s *Server) []string { return []string{s.sentinelConf(master), "--sentinel"} })
		c.Sentinels = append(c.Sentinels, s)
		addrs = append(addrs, s.Addr)
	}
	c.URL = "redis+sentinel://" + strings.Join(addrs, ",") + "/" + watched
	for _, s := range c.Sentinels {
		c.wait(s, func() error { return s.says("INFO sentinel", "status=ok,address="+master.Addr+",slaves=2,sentinels=3") })
	}
	return c
}

func (c *Sentinel) wait(s *Server, ask func() error) {
	c.t.Helper()
	if err := until(s.exited, ask); err != nil {
		c.t.Fatalf("%s: %v", s.Addr, err)
	}
}

// sentinelConf writes the file that a sentinel needs, and keeps its state in: it
// is written anew at no restart.
func (s *Server) sentinelConf(master *Server) string {
	path := filepath.Join(s.dir, "sentinel-"+s.port()+".conf")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	conf := fmt.Sprintf(`bind %s
port %s
dir %s
logfile %s
sentinel monitor %[5]s %s %s 2
sentinel down-after-milliseconds %[5]s 1500
sentinel failover-timeout %[5]s 4000
sentinel parallel-syncs %[5]s 2
`, s.host(), s.port(), s.dir, s.log(), watched, master.host(), master.port())
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		s.t.Fatalf("write a sentinel's configuration: %v", err)
	}
	return path
}

// Master is the server that the first sentinel that answers takes for the
// master. One that has just died still is it.
func (c *Sentinel) Master() *Server {
	c.t.Helper()
	err := errors.New("none runs")
	for _, s := range c.Sentinels {
		if s.cmd == nil {
			continue
		}
		var got string
		if got, err = s.call("SENTINEL GET-MASTER-ADDR-BY-NAME " + watched); err != nil {
			continue
		}
		for _, n := range c.Nodes {
			if n.host()+"\n"+n.port() == got {
				return n
			}
		}
		err = fmt.Errorf("none of our servers: %q", got)
	}
	c.t.Fatalf("no sentinel names the master: %v", err)
	return nil
}
