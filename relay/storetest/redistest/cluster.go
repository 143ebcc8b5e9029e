package redistest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	masters  = 3
	allSlots = 16384
)

// Cluster is a Redis Cluster. Its methods are for the test's goroutine.
type Cluster struct {
	URL   string    // redis+cluster:// with all nodes
	Nodes []*Server // first the masters, then a replica of each, as they were at first

	t testing.TB
}

// StartCluster runs three masters with one replica each, and waits until every
// node says that the cluster is up and each master has its replica online. args
// are for every node, and win.
//
// It is set up as production should be, but for a shorter cluster-node-timeout
// of two seconds: cluster-require-full-coverage is off, since a script stays in
// one slot and two thirds of the cards need not wait for the failover of the
// others. Replicas do not migrate, so that a test knows who follows whom.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	var addrs []string
	for range 2 * masters {
		s := Start(t, append([]string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no",
			"--cluster-allow-replica-migration", "no", "--repl-diskless-sync-delay", "0",
		}, args...)...)
		c.Nodes = append(c.Nodes, s)
		addrs = append(addrs, s.Addr)
	}
	c.URL = "redis+cluster://" + strings.Join(addrs, ",")
	c.join()
	for i, replica := range c.Nodes[masters:] {
		replica.do("CLUSTER REPLICATE " + c.Nodes[i].do("CLUSTER MYID"))
	}
	c.wait(func(s *Server) error {
		nodes, err := s.call("CLUSTER NODES")
		if err != nil {
			return err
		}
		if strings.Count(nodes, "slave ") != masters || strings.Contains(nodes, "fail") {
			return fmt.Errorf("it knows these nodes:\n%s", nodes)
		}
		if slices.Contains(c.Nodes[:masters], s) {
			return s.hasReplicas(1)
		}
		return s.says("CLUSTER INFO", "cluster_state:ok")
	})
	c.wait(func(s *Server) error { return s.says("CLUSTER INFO", "cluster_state:ok") })
	return c
}

// join gives the masters their slots and makes all nodes known to each other.
func (c *Cluster) join() {
	c.t.Helper()
	for i, s := range c.Nodes {
		s.do("CLUSTER SET-CONFIG-EPOCH " + strconv.Itoa(i+1)) // else they would fight it out
		if i < masters {
			s.do(fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", i*allSlots/masters, (i+1)*allSlots/masters-1))
		}
		for _, other := range c.Nodes[:i] {
			s.do("CLUSTER MEET " + other.host() + " " + other.port() + " " + other.bus)
		}
	}
	c.wait(func(s *Server) error {
		nodes, err := s.call("CLUSTER NODES")
		if err == nil && (strings.Count(nodes, "master ") != len(c.Nodes) || strings.Contains(nodes, "handshake")) {
			err = fmt.Errorf("it knows these nodes:\n%s", nodes)
		}
		return err
	})
}

// wait until no node has anything to say against it.
func (c *Cluster) wait(ask func(*Server) error) {
	c.t.Helper()
	for _, s := range c.Nodes {
		if err := until(s.exited, func() error { return ask(s) }); err != nil {
			c.t.Fatalf("cluster node %s: %v", s.Addr, err)
		}
	}
}

// Masters are the servers that have slots, as the first node that answers has
// heard. One that has just died is still among them.
func (c *Cluster) Masters() []*Server {
	c.t.Helper()
	var found []*Server
	for _, line := range strings.Split(c.nodes(), "\n") {
		if s, slots := c.master(line); len(slots) > 0 {
			found = append(found, s)
		}
	}
	return found
}

// MasterOf is the server that has a key's slot, in the same sense.
func (c *Cluster) MasterOf(key string) *Server {
	c.t.Helper()
	answered := ""
	for _, s := range c.Nodes {
		if got, err := s.call("CLUSTER KEYSLOT " + key); err == nil {
			answered = got
			break
		}
	}
	slot, err := strconv.Atoi(answered)
	if err != nil {
		c.t.Fatalf("CLUSTER KEYSLOT %s: %q: no node answers", key, answered)
	}
	for _, line := range strings.Split(c.nodes(), "\n") {
		s, slots := c.master(line)
		for _, r := range slots {
			from, to, isRange := strings.Cut(r, "-")
			if !isRange {
				to = from
			}
			first, _ := strconv.Atoi(from)
			last, _ := strconv.Atoi(to)
			if first <= slot && slot <= last {
				return s
			}
		}
	}
	c.t.Fatalf("no master has slot %d of %s", slot, key)
	return nil
}

// nodes asks the first node that answers.
func (c *Cluster) nodes() string {
	c.t.Helper()
	err := errors.New("there is none")
	for _, s := range c.Nodes {
		if s.cmd == nil {
			continue
		}
		var got string
		if got, err = s.call("CLUSTER NODES"); err == nil {
			return got
		}
	}
	c.t.Fatalf("no node of the cluster answers: %v", err)
	return ""
}

// master reads a line of CLUSTER NODES: id, address@bus, flags, master's id,
// three numbers, the link's state, slots.
func (c *Cluster) master(line string) (*Server, []string) {
	f := strings.Fields(line)
	if len(f) < 9 || !strings.Contains(f[2], "master") {
		return nil, nil
	}
	addr, _, _ := strings.Cut(f[1], "@")
	for _, s := range c.Nodes {
		if s.Addr == addr {
			return s, f[8:]
		}
	}
	return nil, nil
}

// says fails unless the answer has this in it.
func (s *Server) says(command, want string) error {
	got, err := s.call(command)
	if err == nil && !strings.Contains(got, want) {
		err = fmt.Errorf("%s says not %s:\n%s", command, want, got)
	}
	return err
}

// hasReplicas fails unless so many follow without a gap.
func (s *Server) hasReplicas(n int) error {
	info, err := s.call("INFO replication")
	if err == nil && strings.Count(info, "state=online") != n {
		err = fmt.Errorf("not all %d replicas follow:\n%s", n, info)
	}
	return err
}
