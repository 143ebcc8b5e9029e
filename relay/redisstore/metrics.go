package redisstore

import (
	"context"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// meter measures every round trip of the commands' client. The blocking reads
// have a client of their own, which is not measured: they wait on purpose.
type meter struct{ calls *prometheus.HistogramVec }

// measure is for metrics; without it nobody looks.
func (s *Store) measure(r prometheus.Registerer) {
	m := meter{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "relay_redis_call_duration_seconds", Help: "Round trips to Redis, by script, command or pipeline.",
		Buckets: prometheus.ExponentialBucketsRange(0.0001, 2, 12),
	}, []string{"command"})}
	r.MustRegister(m.calls, s.resealed, s.underOlder)
	s.rdb.AddHook(m)
}

// nameOf is one of few: a script's own name, or the command's.
func nameOf(cmd redis.Cmder) string {
	if args := cmd.Args(); cmd.Name() == "evalsha" && len(args) > 1 {
		if hash, ok := args[1].(string); ok && scriptNames[hash] != "" {
			return scriptNames[hash]
		}
	}
	return cmd.Name()
}

// DialHook is of redis.Hook.
func (m meter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

// ProcessHook is of redis.Hook.
func (m meter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		began := time.Now()
		err := next(ctx, cmd)
		m.calls.WithLabelValues(nameOf(cmd)).Observe(time.Since(began).Seconds())
		return err
	}
}

// ProcessPipelineHook is of redis.Hook.
func (m meter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		began := time.Now()
		err := next(ctx, cmds)
		m.calls.WithLabelValues("pipeline").Observe(time.Since(began).Seconds())
		return err
	}
}
