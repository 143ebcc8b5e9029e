package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"approvalrelay/relay"
)

// reader reads one stream of server-sent events.
type reader struct {
	t     testing.TB
	resp  *http.Response
	lines *bufio.Scanner
}

func (b *bed) stream(token string) reader {
	b.t.Helper()
	return openStream(b.t, b.public, token)
}

func openStream(t testing.TB, from *httptest.Server, token string) reader {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", from.URL+"/v1/events", nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := from.Client().Do(req)
	must(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	return reader{t, resp, bufio.NewScanner(resp.Body)}
}

// line reads the next line that is not empty; false at the end.
func (r reader) line() (string, bool) {
	r.t.Helper()
	stop := time.AfterFunc(patience, func() { _ = r.resp.Body.Close() })
	defer stop.Stop()
	for r.lines.Scan() {
		if text := r.lines.Text(); text != "" {
			return text, true
		}
	}
	return "", false
}

// next reads the next event, which must have this name, and returns its data.
func (r reader) next(name string) string {
	r.t.Helper()
	event, _ := r.line()
	data, _ := r.line()
	if event != "event: "+name {
		r.t.Fatalf("%q %q, want the event %s", event, data, name)
	}
	return strings.TrimPrefix(data, "data: ")
}

func (r reader) challenge() relay.View {
	r.t.Helper()
	var v relay.View
	must(r.t, json.Unmarshal([]byte(r.next("challenge")), &v))
	return v
}

func (r reader) snapshot() []relay.View {
	r.t.Helper()
	var v snapshotView
	must(r.t, json.Unmarshal([]byte(r.next("snapshot")), &v))
	return v.Data
}

// ends reads the bye, after which nothing comes.
func (r reader) ends() {
	r.t.Helper()
	r.next("bye")
	if line, more := r.line(); more {
		r.t.Fatalf("%q after the bye", line)
	}
}

func TestStreamSnapshotAndChanges(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	first := b.challenge("acme", "CARD_3DS", nil)
	st := b.stream(b.token())
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "X-Accel-Buffering": "no", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := st.resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if st.resp.TransferEncoding != nil || !st.resp.Close {
		t.Errorf("transfer encoding %v, close %v", st.resp.TransferEncoding, st.resp.Close)
	}
	if snapshot := st.snapshot(); len(snapshot) != 1 || snapshot[0].ID != first {
		t.Fatalf("snapshot %+v", snapshot)
	}
	b.challenge("acme", "CARD_3DS", map[string]any{"user_id": "999", "card_id": "other card"}) // somebody else's: not seen
	second := b.challenge("acme", "CARD_3DS", nil)
	// The worker's announcement is a change as well.
	for v := st.challenge(); v.ID != second; v = st.challenge() {
		if v.ID != first {
			t.Fatalf("an event about %s", v.ID)
		}
	}
	b.post("/v1/challenges/"+second+"/reject", "").status(200)
	for v := st.challenge(); v.ID != second || v.Status != relay.Rejected; v = st.challenge() {
		if v.Status.Final() {
			t.Fatalf("%+v", v)
		}
	}
}

func TestStreamOfNothingIsAnEmptyList(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	if data := b.stream(b.token()).next("snapshot"); data != `{"data":[]}` {
		t.Errorf("snapshot %s", data)
	}
}

func TestStreamEndsWithBye(t *testing.T) {
	t.Parallel()
	t.Run("at shutdown", func(t *testing.T) {
		t.Parallel()
		b := newBed(t)
		st := b.stream(b.token())
		st.snapshot()
		b.server.Shutdown()
		b.server.Shutdown()
		st.ends()
	})
	t.Run("at the token's expiry", func(t *testing.T) {
		t.Parallel()
		b := newBed(t)
		st := b.stream(b.token(jwt.MapClaims{"exp": b.clock.Now().Add(2 * time.Second).Unix()}))
		st.snapshot()
		st.ends()
	})
	t.Run("when the store is away", func(t *testing.T) {
		t.Parallel()
		b := newBed(t)
		id := b.challenge("acme", "CARD_3DS", nil)
		st := b.stream(b.token())
		st.snapshot()
		// One that is not the user's, or no more, is passed over.
		if err := b.server.sendChange(t.Context(), &stream{user: relay.User{Merchant: "acme", ID: "666"}}, id); err != nil {
			t.Errorf("%v", err)
		}
		must(t, b.store.Close())
		// A change that can no longer be read.
		if err := b.server.sendChange(t.Context(), &stream{user: user12345}, id); err != errStreamStore {
			t.Errorf("%v", err)
		}
		if err := b.server.sendSnapshot(t.Context(), &stream{user: user12345}); err != errStreamStore {
			t.Errorf("%v", err)
		}
	})
}

func TestStreamKeepsAlivePastTheServersTimeouts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.server.keepAlive = 300 * time.Millisecond
	front := httptest.NewUnstartedServer(b.server.Public())
	front.Config.ReadTimeout, front.Config.WriteTimeout = 500*time.Millisecond, 500*time.Millisecond
	front.Start()
	defer front.Close()
	defer b.server.Shutdown()
	st := openStream(t, front, b.token())
	st.snapshot()
	for range 4 { // well beyond both timeouts
		if line, _ := st.line(); line != ": keep-alive" {
			t.Fatalf("%q", line)
		}
	}
}

func TestStreamsOfOneUserAreBounded(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var open []reader
	for range maxStreams {
		st := b.stream(b.token())
		st.snapshot()
		open = append(open, st)
	}
	b.get("/v1/events").problem(429, "rate_limited")
	b.stream(b.token(jwt.MapClaims{"sub": "somebody else"})).snapshot()
	must(t, open[0].resp.Body.Close())
	// The place is free when the server has noticed.
	limit := time.Now().Add(patience)
	for time.Now().Before(limit) {
		leave, err := b.server.streams.enter(user12345)
		if err == nil {
			leave()
			return
		}
	}
	t.Error("the place of a stream that was left is never free again")
}

func TestMissedChangesBringAFreshSnapshot(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	st := b.stream(b.token())
	st.snapshot()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	// Each new subscription to the store may have missed something before it.
	running.Go(func() { b.service.Run(ctx) })
	if got := st.snapshot(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	cancel()
	running.Wait()
}

// TestStreamOverHTTP10: as nginx asks by default. Whatever else such a client sends
// does not end its stream.
func TestStreamOverHTTP10(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	conn, err := net.Dial("tcp", b.public.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /v1/events HTTP/1.0\r\nAuthorization: Bearer "+b.token()+"\r\n\r\n"+strings.Repeat("more ", 100))
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	st := reader{t, resp, bufio.NewScanner(resp.Body)}
	st.snapshot()
	_, err = io.WriteString(conn, strings.Repeat("and more ", 100))
	must(t, err)
	if id := b.challenge("acme", "CARD_3DS", nil); st.challenge().ID != id {
		t.Error("a change of another challenge came")
	}
}

// TestWaitForStreams: a server that is shut down knows nothing of them, so that the
// process would end before they have said bye.
func TestWaitForStreams(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	st := b.stream(b.token())
	st.snapshot()
	must(t, b.public.Config.Shutdown(t.Context()))
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.server.Wait(late); !errors.Is(err, context.Canceled) {
		t.Errorf("an open stream was not waited for: %v", err)
	}
	b.server.Shutdown()
	must(t, b.server.Wait(t.Context()))
	st.ends()
}

type faultyConn struct{ net.Conn }

func (faultyConn) Write([]byte) (int, error) { panic("at the disco") }

// TestStreamThatPanics: it is beyond the recovery of handlers, and must not take the
// process with it.
func TestStreamThatPanics(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ours, theirs := net.Pipe()
	left := false
	st := &stream{conn: faultyConn{ours}, user: user12345, watch: b.service.Watch(user12345), ends: time.Now().Add(time.Hour), leave: func() { left = true }}
	b.server.Shutdown()
	b.server.run(st, "/v1/events", "req-1")
	if _, err := theirs.Read(make([]byte, 1)); err != io.EOF || !left {
		t.Errorf("%v at the other end; its place is free: %v", err, left)
	}
	if log := b.log.String(); !strings.Contains(log, `"panic":"string"`) || !strings.Contains(log, "req-1") || strings.Contains(log, "disco") {
		t.Errorf("logged %s", log)
	}
}
