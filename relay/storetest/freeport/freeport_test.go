package freeport

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"
)

// TestPorts: none twice, none that the system gives to others, and all can be used.
func TestPorts(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	var from, to int
	if _, err := fmt.Sscan(string(raw), &from, &to); err != nil {
		t.Fatal(err)
	}
	given := map[string]bool{}
	for range 200 {
		port := Port(t)
		n, err := strconv.Atoi(port)
		if err != nil || given[port] || n >= from && n <= to {
			t.Fatalf("port %s: given before: %v; the system's are %d to %d", port, given[port], from, to)
		}
		given[port] = true
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
}
