package api

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"
)

const requestIDHeader = "X-Request-Id"

// frame gives every answer, also one to a preflight or a wrong path, its request
// id and security headers. The app's handler replaces those it needs otherwise.
func frame(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(requestIDHeader)
		if !validRequestID(id) {
			id = rand.Text()
		}
		h := w.Header()
		h.Set(requestIDHeader, id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// validRequestID bounds what a caller can put into our logs.
func validRequestID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

func requestID(c *gin.Context) string { return c.Writer.Header().Get(requestIDHeader) }

// logRequest writes one line per request: the route, never the path, which holds
// ids and on wrong paths anything.
func (s *Server) logRequest(c *gin.Context) {
	start := time.Now()
	c.Next()
	s.measure(c, start)
	status := c.Writer.Status()
	level := slog.LevelDebug
	switch {
	case status == http.StatusInternalServerError:
		level = slog.LevelError
	case status > http.StatusInternalServerError:
		level = slog.LevelWarn
	}
	ctx := c.Request.Context()
	if !s.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("method", c.Request.Method), slog.String("route", c.FullPath()), slog.Int("status", status),
		slog.Duration("duration", time.Since(start)), slog.String("request_id", requestID(c))}
	if e := c.Errors.Last(); e != nil {
		attrs = append(attrs, slog.String("error", e.Error()))
	}
	s.log.LogAttrs(ctx, level, "request", attrs...)
}

// recoverPanic answers 500 and logs where it happened.
func (s *Server) recoverPanic(c *gin.Context) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v == http.ErrAbortHandler {
			panic(v)
		}
		what := s.logPanic(v, c.FullPath(), requestID(c))
		c.Abort()
		if !c.Writer.Written() {
			s.fail(c, fmt.Errorf("panic: %s", what))
		}
	}()
	c.Next()
}

// logPanic says what has panicked. A panic's value may quote the request, so only
// its type is kept, and the text of Go's own errors.
func (s *Server) logPanic(v any, route, request string) (what string) {
	what = fmt.Sprintf("%T", v)
	if err, ok := v.(runtime.Error); ok {
		what = err.Error()
	}
	s.log.Error("a handler panicked", "panic", what, "route", route, "request_id", request, "stack", string(debug.Stack()))
	return what
}
