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
type stream struct{ conn net.Conn }

// takeOver answers with the headers and takes the connection from the server. The
// body is not chunked: it ends with the connection.
func takeOver(c *gin.Context) (stream, error) {
	h := c.Writer.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	h.Set("Transfer-Encoding", "identity")
	c.Status(http.StatusOK)
	c.Writer.Flush()
	conn, _, err := c.Writer.Hijack()
	return stream{conn}, err
}

func (st stream) write(text string) error {
	if err := st.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	_, err := io.WriteString(st.conn, text)
	return err
}

// drain reads until the client is gone: it has nothing to say.
func (st stream) drain() {
	var err error
	for b := make([]byte, 64); err == nil; {
		_, err = st.conn.Read(b)
	}
}

func (st stream) event(name string, data any) error {
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
	watch := s.service.Watch(id.User)
	var st stream
	end := func() {
		if st.conn != nil {
			_ = st.conn.Close()
		}
		watch.Close()
		leave()
	}
	goesOn := false
	defer func() {
		if !goesOn {
			end()
		}
	}()
	first, err := s.snapshot(c.Request.Context(), id.User)
	if err != nil {
		return err
	}
	if st, err = takeOver(c); err != nil {
		return err
	}
	if err := st.event("snapshot", first); err != nil {
		return nil // the client is gone, as in all that follows
	}
	goesOn = true
	route, request := c.FullPath(), requestID(c)
	go func() {
		defer end()
		s.run(st, id, watch, route, request)
	}()
	return nil
}

// run is a stream after its request, which no handler and no server looks after any
// more.
func (s *Server) run(st stream, id identity, watch *relay.Watch, route, request string) {
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(v, route, request)
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		st.drain()
	}()
	if s.follow(ctx, st, id, watch) {
		_ = st.event("bye", struct{}{})
	}
}

// follow writes until the stream must end; false means that the client is gone.
func (s *Server) follow(ctx context.Context, st stream, id identity, watch *relay.Watch) bool {
	end := time.Now().Add(s.auth.until(id))
	next := time.NewTimer(min(s.keepAlive, time.Until(end)))
	defer next.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return false
		case <-s.closing:
			return true
		case now := <-next.C:
			if !now.Before(end) {
				return true
			}
			err = st.write(": keep-alive\n\n")
			next.Reset(min(s.keepAlive, end.Sub(now)))
		case challenge := <-watch.Changed:
			err = s.sendChange(ctx, st, id.User, challenge)
		case <-watch.Missed:
			err = s.sendSnapshot(ctx, st, id.User)
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

func (s *Server) sendChange(ctx context.Context, st stream, u relay.User, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	ch, err := s.service.Get(ctx, u, id)
	if errors.Is(err, relay.ErrNotFound) {
		return nil
	}
	if err != nil {
		s.log.Warn("an event stream ends", "error", err)
		return errStreamStore
	}
	return st.event("challenge", ch.View())
}

func (s *Server) sendSnapshot(ctx context.Context, st stream, u relay.User) error {
	l, err := s.snapshot(ctx, u)
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
