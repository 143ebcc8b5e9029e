package relay

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what happened; its labels have few values, none of them chosen
// by anybody outside.
type metrics struct {
	events     *prometheus.CounterVec
	challenges *prometheus.CounterVec
	deliveries *prometheus.CounterVec
	attempts   *prometheus.HistogramVec
	unrecorded prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_events_total", Help: "Authentic webhooks by what they were answered: accepted, duplicate or quarantined.",
		}, []string{"status"}),
		challenges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_challenge_transitions_total", Help: "Challenges by the status that they came to.",
		}, []string{"status"}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "relay_delivery_attempts_total", Help: "Attempts by kind (push, confirm, lock, forward) and what the delivery is after it.",
		}, []string{"kind", "status"}),
		attempts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "relay_delivery_attempt_duration_seconds", Help: "How long outside parties took to answer, by kind.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12),
		}, []string{"kind"}),
		unrecorded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relay_unrecorded_webhooks_total", Help: "Duplicate and refused webhooks without a record: too many at once, or the store was away.",
		}),
	}
	if r != nil {
		r.MustRegister(m.events, m.challenges, m.deliveries, m.attempts, m.unrecorded)
	}
	return m
}
