package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// maxBody bounds every request and answer that is read, in bytes.
const maxBody = 1 << 20

// Behaviour is how a party takes one message. The zero value: as it should.
type Behaviour struct {
	Status     int           // answered instead of success; a message with a fault is refused all the same
	Delay      time.Duration // before anything else happens; the message is recorded at once
	Hang       bool          // never answers: holds the request until its context ends
	Reset      bool          // breaks the connection (TCP RST) instead of answering
	Half       bool          // the answer begins, with its status and part of its body, and breaks off
	BadHMAC    bool          // Issuer only: the answer is signed wrongly
	RetryAfter string        // the Retry-After header of the answer, as it is
}

// Script decides how a party behaves. The zero value behaves well.
type Script[A any] struct {
	mu     sync.Mutex
	n      int
	decide func(n int, about A) Behaviour
}

// Behave asks f about every further message. n counts all messages of this
// party from 1 in the order they arrive; about is the path (Issuer), the device,
// nil where there is none (PushService), or the webhook-id (Downstream). f may
// be called from several goroutines at once; nil ends it.
func (s *Script[A]) Behave(f func(n int, about A) Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.decide = f
}

func (s *Script[A]) next(about A) Behaviour {
	s.mu.Lock()
	s.n++
	n, decide := s.n, s.decide
	s.mu.Unlock()
	if decide == nil {
		return Behaviour{}
	}
	return decide(n, about)
}

// answered is the status that the sender will see, 0 for none; half an answer
// shows it.
func (b Behaviour) answered(err error, success int) int {
	var f *fault
	switch {
	case b.Hang || b.Reset:
		return 0
	case errors.As(err, &f):
		return f.status
	case b.Status != 0:
		return b.Status
	}
	return success
}

// play returns when the answer, which has this status, is to be written, after
// setting its headers. When there must be none, or but half of it, it aborts the
// handler (http.ErrAbortHandler): a plain return would send an empty 200.
func (b Behaviour) play(w http.ResponseWriter, r *http.Request, status int) {
	if b.Delay > 0 {
		timer := time.NewTimer(b.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if b.Hang {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	if b.Reset {
		reset(w)
		panic(http.ErrAbortHandler)
	}
	if b.RetryAfter != "" {
		w.Header().Set("Retry-After", b.RetryAfter)
	}
	if b.Half {
		half(w, status)
		panic(http.ErrAbortHandler)
	}
}

// half begins an answer that promises more than it brings.
func half(w http.ResponseWriter, status int) {
	const begun = `{"encrypted_payload":"`
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(4*len(begun)))
	w.WriteHeader(status)
	// The sender may have gone. Flushed, because the abort drops what is buffered.
	_, _ = io.WriteString(w, begun)
	_ = http.NewResponseController(w).Flush()
}

// reset closes the connection so that the peer sees RST rather than EOF. A
// connection that cannot be taken over (HTTP/2) is left to the abort.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	raw := conn
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok {
		raw = wrapped.NetConn()
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		// A failure only makes it a FIN instead of an RST.
		_ = tcp.SetLinger(0)
	}
	_ = raw.Close()
}

// fault is why a message is refused, and with which status.
type fault struct {
	status int
	text   string
}

func (f *fault) Error() string { return f.text }

func refuse(status int, format string, args ...any) error {
	return &fault{status, fmt.Sprintf(format, args...)}
}

// faultText is the Fault of a record: empty when err is nil.
func faultText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// readBody reads a POST body whole. Reading on to its end is also what lets
// net/http notice that the client has gone, which Hang relies on.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Method != http.MethodPost {
		return nil, refuse(http.StatusMethodNotAllowed, "method is %s, not POST", r.Method)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, refuse(http.StatusRequestEntityTooLarge, "body cannot be read or is over %d bytes", maxBody)
	}
	return body, nil
}

// object decodes exactly one JSON object, numbers as json.Number.
func object(data []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var o map[string]any
	if err := decoder.Decode(&o); err != nil {
		return nil, errors.New("not a JSON object")
	}
	if _, err := decoder.Token(); err != io.EOF || o == nil {
		return nil, errors.New("not exactly one JSON object")
	}
	return o, nil
}
