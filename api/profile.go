package api

import (
	"context"
	"net/http"
	"net/http/pprof"
	"runtime"
	"sync"

	"github.com/gin-gonic/gin"

	"approvalrelay/relay"
)

var errProfiling = &relay.Refusal{Code: codeProfiling, Detail: "This node is taking a profile already; try again when that has ended."}

// routeProfiles mounts Go's profiles for the operator. net/http/pprof also mounts
// itself on http.DefaultServeMux, which no listener of ours serves. Profiles hold no
// values. The full dump of goroutines shows the words of arguments, in which strings
// and slices are addresses; no function of ours takes a key as an array. The command
// line is harmless, too: no flag takes a secret.
func (s *Server) routeProfiles(e *gin.Engine) {
	redirect(e, "/debug/pprof", "/debug/pprof/")
	g := e.Group("/debug/pprof", s.do(s.operator))
	g.GET("/", gin.WrapF(pprof.Index))
	g.GET("/cmdline", gin.WrapF(pprof.Cmdline))
	g.GET("/symbol", gin.WrapF(pprof.Symbol))
	for _, name := range []string{"allocs", "goroutine", "heap", "threadcreate"} {
		g.GET("/"+name, gin.WrapH(pprof.Handler(name)))
	}
	g.GET("/profile", s.alone(pprof.Profile))
	g.GET("/trace", s.alone(pprof.Trace))
	g.GET("/mutex", s.alone(contention("mutex", func() (stop func()) {
		before := runtime.SetMutexProfileFraction(1)
		return func() { runtime.SetMutexProfileFraction(before) }
	})))
	g.GET("/block", s.alone(contention("block", func() (stop func()) {
		runtime.SetBlockProfileRate(10_000) // about one event for each 10 µs of waiting: every one would slow the node down
		return func() { runtime.SetBlockProfileRate(0) }
	})))
}

// profiling is held while a profile is taken over some time: the runtime's profilers
// and their rates are the process', and each would measure the other.
var profiling sync.Mutex

// alone refuses a second profile beside the first. The end of the server ends it
// early, so that http.Server.Shutdown need not wait.
func (s *Server) alone(take http.HandlerFunc) gin.HandlerFunc {
	return s.do(func(c *gin.Context) error {
		if !profiling.TryLock() {
			return errProfiling
		}
		defer profiling.Unlock()
		ctx, cancel := context.WithCancel(c.Request.Context())
		defer cancel()
		go func() {
			select {
			case <-s.closing:
				cancel()
			case <-ctx.Done():
			}
		}()
		take(c.Writer, c.Request.WithContext(ctx))
		return nil
	})
}

// contention serves a profile that is empty unless the runtime is told to collect
// it, which costs time: it is told for the time of the request only, and before that
// there is nothing to show. So there is always a time, 10 s unless one is given, and
// no text form (debug=1, as the index links to it), which Go has not for a time.
func contention(name string, collect func() (stop func())) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if query.Get("seconds") == "" {
			query.Set("seconds", "10")
		}
		query.Del("debug")
		r.URL.RawQuery = query.Encode()
		defer collect()()
		pprof.Handler(name).ServeHTTP(w, r)
	}
}
