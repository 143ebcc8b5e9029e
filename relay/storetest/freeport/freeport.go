// Package freeport finds ports for servers of tests that must know theirs before they
// listen, and addresses where nobody listens.
//
// Guarantees: no port is given twice by a process, and none is among those that systems
// choose themselves, for a server on port 0 or for a client: whatever else runs, a port
// stays free until it is used, and is free again for a restart.
//
// Non-goals: servers that can listen on port 0, which should; keeping a port from a
// program that was told to take just that one.
package freeport

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
)

// Below what systems choose from (32768 and up on Linux, 49152 by RFC 6335, section 6),
// and above what browsers refuse to open (10080 is the last, Fetch, section 2.9).
const (
	lowest  = 20_000
	highest = 32_000
)

// given counts on from anywhere, as other processes may do the same.
var given atomic.Uint32

func init() { given.Store(rand.Uint32N(highest - lowest)) }

// Address is one on the loopback, as 127.0.0.1:PORT.
func Address(t testing.TB) string {
	t.Helper()
	for range highest - lowest {
		port := lowest + given.Add(1)%(highest-lowest)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(int(port)))
		if err != nil {
			continue // somebody has it
		}
		if err := l.Close(); err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		return l.Addr().String()
	}
	t.Fatalf("all ports from %d to %d are taken", lowest, highest)
	return ""
}

// Port is that of an Address.
func Port(t testing.TB) string {
	t.Helper()
	_, port, err := net.SplitHostPort(Address(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}
