package relay

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what happened; its labels have few values, none of them chosen
// by anybody outside.
type metrics struct {
	webhooks     *prometheus.CounterVec
	unrecorded   prometheus.Counter
	challenges   *prometheus.CounterVec
	decisions    *prometheus.CounterVec
	stepUps      *prometheus.CounterVec
	attempts     *prometheus.CounterVec
	dead         *prometheus.CounterVec
	steps        *prometheus.HistogramVec
	forwards     *prometheus.HistogramVec
	pushDelay    prometheus.Histogram
	confirmDelay prometheus.Histogram
	decideDelay  prometheus.Histogram

	sampled *prometheus.Registry // those that Sample reads
}

// The steps of which the duration is measured.
const (
	stepOpen     = "open"     // HMAC, decryption, reading
	stepStore    = "store"    // the arrival's round trip
	stepHandover = "handover" // from being owed to being handed to a worker, first attempts only
)

// What a step-up came to.
const (
	stepUpPassed = "passed"
	stepUpFailed = "failed"
)

// The names that totals reads, too.
const (
	nameWebhooks     = "relay_webhooks_total"
	nameChallenges   = "relay_challenge_transitions_total"
	nameAttempts     = "relay_delivery_attempts_total"
	nameForwards     = "relay_forward_duration_seconds"
	namePushDelay    = "relay_push_delay_seconds"
	nameConfirmDelay = "relay_confirm_delay_seconds"
	nameDecideDelay  = "relay_decision_delay_seconds"
)

var (
	fast = prometheus.ExponentialBucketsRange(0.0001, 10, 16) // of our own steps
	slow = prometheus.ExponentialBucketsRange(0.001, 30, 18)  // of outside parties
	long = prometheus.ExponentialBucketsRange(0.5, 600, 14)   // of people
)

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
}

// newMetrics makes what has a known label at once, with 0: an alarm must see the
// first one of a kind as an increase.
func newMetrics(o Options) *metrics {
	m := &metrics{
		webhooks: counter(nameWebhooks, "Webhooks by what they were answered: accepted, duplicate, quarantined, or the code of the refusal.", "merchant", "outcome"),
		unrecorded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "relay_unrecorded_webhooks_total", Help: "Duplicate and refused webhooks without a record: too many at once, or the store was away.",
		}),
		challenges:   counter(nameChallenges, "Challenges by the status that they came to.", "status"),
		decisions:    counter("relay_decisions_total", "Decisions of cardholders.", "action", "reason"),
		stepUps:      counter("relay_step_ups_total", "Passkey assertions by whether they were good.", "result"),
		attempts:     counter(nameAttempts, "Attempts by kind (push, confirm, lock, forward), target of a forward, and what the delivery is after it.", "kind", "target", "status"),
		dead:         counter("relay_dead_letters_total", "Deliveries that were given up.", "kind", "target"),
		steps:        histogram("relay_step_duration_seconds", "How long each step took: open, store, handover, or the answer of an outside party by kind.", fast, "step"),
		forwards:     histogram(nameForwards, "How long targets took to answer.", slow, "target"),
		pushDelay:    plainHistogram(namePushDelay, "From a challenge's arrival to a push service that took its announcement.", slow),
		confirmDelay: plainHistogram(nameConfirmDelay, "From a decision to the issuer's confirmation.", slow),
		decideDelay:  plainHistogram(nameDecideDelay, "From a challenge's arrival to its decision.", long),
	}
	for name := range o.Merchants {
		for _, outcome := range []ReceiptStatus{Accepted, Duplicate, Quarantined} {
			m.webhooks.WithLabelValues(name, string(outcome))
		}
	}
	for _, s := range allStatuses {
		m.challenges.WithLabelValues(string(s))
	}
	for _, result := range []string{stepUpPassed, stepUpFailed} {
		m.stepUps.WithLabelValues(result)
	}
	for _, k := range []Kind{KindPush, KindConfirm, KindLock} {
		m.dead.WithLabelValues(string(k), "")
	}
	for _, t := range o.Targets {
		m.dead.WithLabelValues(string(KindForward), t.Name)
		m.forwards.WithLabelValues(t.Name)
	}
	m.sampled = prometheus.NewRegistry()
	m.sampled.MustRegister(m.webhooks, m.challenges, m.attempts, m.forwards, m.pushDelay, m.confirmDelay, m.decideDelay)
	if o.Metrics != nil {
		o.Metrics.MustRegister(m.webhooks, m.unrecorded, m.challenges, m.decisions, m.stepUps, m.attempts, m.dead, m.steps, m.forwards, m.pushDelay, m.confirmDelay, m.decideDelay)
	}
	return m
}

func plainHistogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
}

// step measures since a moment.
func (m *metrics) step(name string, since time.Time) {
	m.steps.WithLabelValues(name).Observe(time.Since(since).Seconds())
}

// settled counts what became of a delivery. One that is put back, given up or
// pointless was not attempted; its last attempt is an earlier one's.
func (m *metrics) settled(d Delivery, attempted bool) {
	if d.Status == DeliveryDead && record(d) != nil {
		m.dead.WithLabelValues(string(d.Kind), targetLabel(d)).Inc()
	}
	if attempted {
		m.attempted(d)
	}
}

func targetLabel(d Delivery) string {
	if d.Kind == KindForward {
		return d.Target
	}
	return ""
}

// attempted counts and measures an attempt, by what the delivery is after it.
func (m *metrics) attempted(d Delivery) {
	target := targetLabel(d)
	m.attempts.WithLabelValues(string(d.Kind), target, string(d.Status)).Inc()
	last := d.Attempts[len(d.Attempts)-1]
	if last.Latency == 0 {
		return // it could not be sent at all
	}
	m.steps.WithLabelValues(string(d.Kind)).Observe(last.Latency.Seconds())
	answered := last.At.Add(last.Latency)
	switch {
	case d.Kind == KindForward:
		m.forwards.WithLabelValues(target).Observe(last.Latency.Seconds())
	case d.Status != DeliveryDelivered:
	case d.Kind == KindConfirm:
		m.confirmDelay.Observe(answered.Sub(d.CreatedAt).Seconds())
	case d.Kind == KindPush && d.Notice == NoticeAnnounce:
		m.pushDelay.Observe(answered.Sub(TimeOf(d.ChallengeID)).Seconds())
	}
}
