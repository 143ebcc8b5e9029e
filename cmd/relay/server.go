package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// headerTimeout is how long any server of ours waits for the head of a request.
const headerTimeout = 5 * time.Second

// limits bound slow and silent clients. What lasts longer on purpose, event streams
// and imports, sets deadlines of its own.
type limits struct{ header, read, write, idle time.Duration }

var (
	publicLimits = limits{header: headerTimeout, read: 15 * time.Second, write: 30 * time.Second, idle: 2 * time.Minute}
	// A replay of many thousand dead letters is answered when it is done.
	adminLimits = limits{header: headerTimeout, read: 15 * time.Second, write: 10 * time.Minute, idle: 2 * time.Minute}
)

// maxHeader leaves room for the largest token that is taken.
const maxHeader = 16 << 10

// silence is how long a connection may have sent nothing when a server ends.
const silence = 500 * time.Millisecond

// server is one that can end although somebody holds connections on which no request
// has come yet, as browsers do to be quick later: net/http's waits five seconds for
// each (go.dev/issue/22682), which is more than server.shutdown_timeout may be.
type server struct {
	*http.Server
	silent sync.Map // net.Conn
}

// newServer speaks HTTP/1.1 in clear behind whatever ends TLS, and nothing else: with
// no HTTP/2 there are no streams, windows and header tables to bound.
func newServer(h http.Handler, l limits, log *slog.Logger) *server {
	only := &http.Protocols{}
	only.SetHTTP1(true)
	s := &server{Server: &http.Server{
		Handler: h, ReadHeaderTimeout: l.header, ReadTimeout: l.read, WriteTimeout: l.write, IdleTimeout: l.idle, MaxHeaderBytes: maxHeader, Protocols: only,
		DisableGeneralOptionsHandler: true, // it would answer OPTIONS * past our frame
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	s.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.silent.Store(conn, nil)
		} else {
			s.silent.Delete(conn)
		}
	}
	return s
}

// Shutdown is that of http.Server, but for silent connections.
func (s *server) Shutdown(ctx context.Context) error {
	cut := time.AfterFunc(silence, func() {
		s.silent.Range(func(conn, _ any) bool {
			_ = conn.(net.Conn).Close() // it may have gone
			return true
		})
	})
	defer cut.Stop()
	return s.Server.Shutdown(ctx)
}
