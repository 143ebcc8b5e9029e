package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"approvalrelay/relay"
)

// writeTime is how long a client may take to accept one event; a stuck one must
// not hold its stream for ever.
const writeTime = 10 * time.Second

// stream is one answer of server-sent events (WHATWG HTML, section 9.2), on the
// connection itself. What the server keeps of a request, buffers and a deep stack,
// would be most of what a stream takes that waits.
type stream struct {
	conn  net.Conn // nil until it is taken over
	user  relay.User
	watch *relay.Watch
	ends  time.Time
	leave func()
}

// takeOver answers with the headers and takes the connection from the server. The
// body is not chunked: it ends with the connection.
func (st *stream) takeOver(c *gin.Context) (err error) {
	h := c.Writer.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	h.Set("Transfer-Encoding", "identity")
	c.Status(http.StatusOK)
	c.Writer.Flush()
	st.conn, _, err = c.Writer.Hijack()
	return err
}

func (st *stream) end() {
	if st.conn != nil {
		_ = st.conn.Close() // the client may have been first
	}
	st.watch.Close()
	st.leave()
}

func (st *stream) write(text string) error {
	if err := st.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	_, err := io.WriteString(st.conn, text)
	return err
}

// drain reads until the client is gone: it has nothing to say.
func (st *stream) drain() {
	var err error
	for b := make([]byte, 64); err == nil; {
		_, err = st.conn.Read(b)
	}
}

func (st *stream) event(name string, data any) error {
	body, err := json.Marshal(data) // on one line
	if err != nil {
		return fmt.Errorf("encode the event %s: %w", name, err)
	}
	return st.write("event: " + name + "\ndata: " + string(body) + "\n\n")
}

// events streams the user's challenges: those that are pending at once, then
// each that changes. It ends when the token does, at shutdown, and when the store
// is away; clients connect again.
func (s *Server) events(c *gin.Context, id identity) error {
	leave, err := s.streams.enter(id.User)
	if err != nil {
		return err
	}
	// Watched before it is read, so that no change falls between the two.
	st := &stream{user: id.User, watch: s.service.Watch(id.User), ends: time.Now().Add(s.auth.until(id)), leave: leave}
	goesOn := false
	defer func() {
		if !goesOn {
			st.end()
		}
	}()
	first, err := s.snapshot(c.Request.Context(), id.User)
	if err != nil {
		return err
	}
	if err := st.takeOver(c); err != nil {
		return err
	}
	if err := st.event("snapshot", first); err != nil {
		return nil // the client is gone, as in all that follows
	}
	goesOn = true
	go s.run(st, c.FullPath(), requestID(c))
	return nil
}

// run is a stream after its request, which no handler and no server looks after any
// more. Here and in follow little stands on the stack: of one that has grown to 8 KiB
// for a change, the collector takes half back only while less than about 1.2 KiB of it
// is in use.
func (s *Server) run(st *stream, route, request string) {
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(v, route, request)
		}
	}()
	defer st.end()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		st.drain()
	}()
	if s.follow(ctx, st) {
		_ = st.event("bye", struct{}{})
	}
}

// follow writes until the stream must end; false means that the client is gone.
func (s *Server) follow(ctx context.Context, st *stream) bool {
	next := time.NewTimer(min(s.keepAlive, time.Until(st.ends)))
	defer next.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return false
		case <-s.closing:
			return true
		case now := <-next.C:
			if !now.Before(st.ends) {
				return true
			}
			err = st.write(": keep-alive\n\n")
			next.Reset(min(s.keepAlive, st.ends.Sub(now)))
		case challenge := <-st.watch.Changed:
			err = s.sendChange(ctx, st, challenge)
		case <-st.watch.Missed:
			err = s.sendSnapshot(ctx, st)
		}
		if errors.Is(err, errStreamStore) {
			return true
		}
		if err != nil {
			return false
		}
	}
}

// errStreamStore ends a stream that can no longer be told what changed.
var errStreamStore = errors.New("the store cannot be read")

func (s *Server) sendChange(ctx context.Context, st *stream, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	ch, err := s.service.Get(ctx, st.user, id)
	if errors.Is(err, relay.ErrNotFound) {
		return nil
	}
	if err != nil {
		s.log.Warn("an event stream ends", "error", err)
		return errStreamStore
	}
	return st.event("challenge", ch.View())
}

func (s *Server) sendSnapshot(ctx context.Context, st *stream) error {
	l, err := s.snapshot(ctx, st.user)
	if err != nil {
		s.log.Warn("an event stream ends", "error", err)
		return errStreamStore
	}
	return st.event("snapshot", l)
}

// snapshotView is the pending list, the newest 100 of it.
type snapshotView struct {
	Data []relay.View `json:"data"`
}

func (s *Server) snapshot(ctx context.Context, u relay.User) (snapshotView, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	p, err := s.service.List(ctx, u, false, maxLimit, "")
	if err != nil {
		return snapshotView{}, err
	}
	return snapshotView{page(p).Data}, nil
}
