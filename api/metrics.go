package api

import (
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
)

// newRequestMetrics measures requests by route, not by path, which anybody
// chooses, and by the class of the answer.
func newRequestMetrics(r prometheus.Registerer) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "relay_http_request_duration_seconds", Help: "Requests by route, method and class of the answer; of a stream of events, until its snapshot is written.",
		Buckets: prometheus.ExponentialBucketsRange(0.0005, 10, 12),
	}, []string{"route", "method", "status"})
	if r != nil {
		r.MustRegister(h)
	}
	return h
}

// knownMethods bounds the label: a client may send any word.
var knownMethods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "DELETE": true, "OPTIONS": true}

func (s *Server) measure(c *gin.Context, start time.Time) {
	method := c.Request.Method
	if !knownMethods[method] {
		method = ""
	}
	s.requests.WithLabelValues(c.FullPath(), method, strconv.Itoa(c.Writer.Status()/100)+"xx").Observe(time.Since(start).Seconds())
}
