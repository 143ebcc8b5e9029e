package relay

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// gauges are read from the store when somebody asks, and are absent while it is
// away.
type gauges struct {
	svc *Service
	mu  sync.Mutex
	at  time.Time
	now []prometheus.Metric
}

// gaugesFresh spares the store the second of two scrapers.
const (
	gaugesFresh = 2 * time.Second
	gaugesTime  = 3 * time.Second
)

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	depthDesc     = gauge("relay_queue_depth", "Deliveries that a lane owes: waiting, under way, or due later.", "lane")
	oldestDesc    = gauge("relay_queue_oldest_seconds", "How long the oldest has waited in a lane.", "lane")
	liveDesc      = gauge("relay_challenges", "Challenges that have not ended.", "status")
	devicesDesc   = gauge("relay_subscriptions", "Active push subscriptions.")
	lettersDesc   = gauge("relay_dead_letters", "Deliveries that were given up, and are kept.")
	retryingDesc  = gauge("relay_retrying_deliveries", "Deliveries that failed and are due again.")
	quarantDesc   = gauge("relay_quarantined", "Events in quarantine.")
	parkedDesc    = gauge("relay_target_parked", "Whether a target is paused.", "target")
	streamsDesc   = gauge("relay_event_streams", "Open streams of server-sent events on this node.")
	allGaugeDescs = []*prometheus.Desc{depthDesc, oldestDesc, liveDesc, devicesDesc, lettersDesc, retryingDesc, quarantDesc, parkedDesc, streamsDesc}
)

// Describe is of prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range allGaugeDescs {
		ch <- d
	}
}

// Collect is of prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.at) > gaugesFresh {
		ctx, cancel := context.WithTimeout(context.Background(), gaugesTime)
		defer cancel()
		var err error
		if g.now, err = g.read(ctx); err != nil {
			g.svc.log.Log(ctx, slog.LevelDebug, "the gauges cannot be read", "error", err)
		}
		g.at = time.Now()
	}
	for _, m := range g.now {
		ch <- m
	}
	ch <- prometheus.MustNewConstMetric(streamsDesc, prometheus.GaugeValue, float64(g.svc.hub.size()))
}

func (g *gauges) read(ctx context.Context) ([]prometheus.Metric, error) {
	s := g.svc
	lanes, err := s.store.Lanes(ctx, s.lanes())
	if err != nil {
		return nil, err
	}
	counts, err := s.store.Counts(ctx)
	if err != nil {
		return nil, err
	}
	parked, err := s.store.Parked(ctx)
	if err != nil {
		return nil, err
	}
	var all []prometheus.Metric
	add := func(d *prometheus.Desc, v float64, labels ...string) {
		all = append(all, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	now := s.store.Now()
	for _, l := range s.lanes() {
		st := lanes[l]
		add(depthDesc, float64(st.Waiting+st.Later), string(l))
		add(oldestDesc, st.age(now).Seconds(), string(l))
	}
	add(liveDesc, float64(counts.Challenges[Pending]), string(Pending))
	add(liveDesc, float64(counts.Challenges[Confirming]), string(Confirming))
	add(devicesDesc, float64(counts.Subscriptions))
	add(lettersDesc, float64(counts.DeadLetters))
	add(retryingDesc, float64(counts.Retrying))
	add(quarantDesc, float64(counts.Events[OutcomeQuarantined]))
	for _, t := range s.Targets {
		v := 0.0
		if _, is := parked[t.Name]; is {
			v = 1
		}
		add(parkedDesc, v, t.Name)
	}
	return all, nil
}
