package faults

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// proxy is the network between one node and Redis.
type proxy struct {
	t    testing.TB
	toxi *toxiproxy.Proxy
}

// newProxy listens before upstream, a host:port, and lets everything pass.
func newProxy(t testing.TB, name, upstream string) *proxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	var err error
	for range 20 {
		// Below the ports that outgoing connections get: one of these could take
		// the port while the network is cut.
		p := &proxy{t: t, toxi: toxiproxy.NewProxy(server, name, fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(20000)), upstream)}
		if err = p.toxi.Start(); err == nil {
			t.Cleanup(p.toxi.Stop)
			return p
		}
	}
	t.Fatalf("start a proxy: %v", err)
	return nil
}

func (p *proxy) addr() string { return p.toxi.Listen }

// pass ends whatever is wrong with the network. Connections whose bytes vanished
// are closed.
func (p *proxy) pass() {
	p.toxi.Toxics.ResetToxics(p.t.Context())
	if p.toxi.Enabled {
		return
	}
	if err := p.toxi.Start(); err != nil {
		p.t.Errorf("proxy: listen again: %v", err)
	}
}

// cut closes all connections and refuses new ones.
func (p *proxy) cut() { p.toxi.Stop() }

// blackhole keeps connections, and takes new ones, but no byte arrives.
func (p *proxy) blackhole() {
	p.add(`{"name": "up", "type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`)
	p.add(`{"name": "down", "type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`)
}

// slow delays each answer by 0 to 200 ms.
func (p *proxy) slow() {
	p.add(`{"name": "slow", "type": "latency", "stream": "downstream", "attributes": {"latency": 100, "jitter": 100}}`)
}

func (p *proxy) add(toxic string) {
	if _, err := p.toxi.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		p.t.Errorf("proxy: %v", err)
	}
}

// TestHarnessProxy: each state of the network is what its name says.
func TestHarnessProxy(t *testing.T) {
	t.Parallel()
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = echo.Close() })
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn) }() // until the peer has enough
		}
	}()
	p := newProxy(t, "echo", echo.Addr().String())
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", p.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	conn := dial()
	if err := ask(conn); err != nil {
		t.Fatalf("pass: %v", err)
	}
	p.slow()
	if err := ask(conn); err != nil {
		t.Errorf("slow: %v", err)
	}
	p.pass()
	p.blackhole()
	if err := ask(conn); !timedOut(err) {
		t.Errorf("blackhole: an old connection got %v", err)
	}
	fresh := dial()
	if err := ask(fresh); !timedOut(err) {
		t.Errorf("blackhole: a new connection got %v", err)
	}
	p.pass()
	for _, c := range []net.Conn{conn, fresh} {
		if err := ask(c); err == nil || timedOut(err) {
			t.Errorf("a connection whose bytes vanished got %v, not its end", err)
		}
	}
	conn = dial()
	if err := ask(conn); err != nil {
		t.Errorf("after the blackhole: %v", err)
	}
	p.cut()
	if err := ask(conn); err == nil || timedOut(err) {
		t.Errorf("cut: an old connection got %v", err)
	}
	if _, err := net.Dial("tcp", p.addr()); err == nil {
		t.Error("cut: a new connection was taken")
	}
	p.pass()
	if err := ask(dial()); err != nil {
		t.Errorf("after the cut: %v", err)
	}
}

// ask sends a byte and waits for it to come back.
func ask(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
