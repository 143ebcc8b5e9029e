package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"approvalrelay/api"
	"approvalrelay/configs"
	"approvalrelay/push"
	"approvalrelay/relay"
	"approvalrelay/relay/redisstore"
)

// node is one running relay: listeners, service and worker.
type node struct {
	Public, Admin string // addresses

	embed   embedding
	cfg     *configs.Config
	log     *slog.Logger
	level   *slog.LevelVar // of log
	store   *redisstore.Store
	service *relay.Service
	api     *api.Server
	metrics *prometheus.Registry
	spans   *sdktrace.TracerProvider // nil: there are none
	servers []*server
	closers []func()

	worker   *relay.Worker
	stopWork context.CancelFunc // takes no more work
	endWork  context.CancelFunc // ends what is under way
	work     sync.WaitGroup
	failed   chan error
}

// embedding is what a larger program, such as the demo, gives its node.
type embedding struct {
	public, admin net.Listener                          // bound already, instead of the configured addresses
	mount         func(admin http.Handler) http.Handler // what stands in front of the admin handler
}

// startNode starts a relay and returns when it listens. Redis need not be there.
// Stop it by stop. level is that of log; in may be nil.
func startNode(ctx context.Context, cfg *configs.Config, log *slog.Logger, level *slog.LevelVar, in *embedding) (*node, error) {
	n := &node{cfg: cfg, log: log, level: level, failed: make(chan error, 2)}
	if in != nil {
		n.embed = *in
	}
	if err := n.assemble(ctx); err != nil {
		n.close(ctx)
		return nil, err
	}
	if err := n.listen(); err != nil {
		n.close(ctx)
		return nil, err
	}
	return n, nil
}

func (n *node) assemble(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		host = "relay"
	}
	name := host + "-" + rand.Text()[:12]
	n.metrics = newRegistry()
	if n.store, err = openStore(n.cfg, name, n.log, n.metrics); err != nil {
		return err
	}
	n.closers = append(n.closers, func() {
		if err := n.store.Close(); err != nil {
			n.log.Warn("close Redis", "error", err)
		}
	})
	options, err := domainOptions(n.cfg)
	if err != nil {
		return err
	}
	options.Metrics = n.metrics
	if n.spans, err = newSpans(ctx, n.cfg.Tracing, name, n.log); err != nil {
		return err
	}
	if n.spans != nil {
		options.Tracer = n.spans.Tracer("approvalrelay")
	}
	n.service = relay.New(options, n.store, n.log)
	policy, err := push.NewPolicy(n.cfg.Push.EndpointHosts, n.cfg.Push.AllowPrivateNetworks)
	if err != nil {
		return fmt.Errorf("push.endpoint_hosts: %w", err)
	}
	out, err := n.outside(options, policy)
	if err != nil {
		return err
	}
	if err := n.newAPI(ctx, policy); err != nil {
		return err
	}
	n.worker = relay.NewWorker(n.service, n.store, out, n.log)
	n.startWork(ctx)
	return nil
}

func (n *node) outside(options relay.Options, policy *push.Policy) (out relay.Outside, err error) {
	pusher, err := newPusher(n.cfg, policy, n.log)
	if err != nil {
		return out, err
	}
	if pusher != nil {
		n.closers = append(n.closers, pusher.Close)
		out.Pusher = pusher
	}
	downstream, err := newDownstream(n.cfg)
	if err != nil {
		return out, err
	}
	n.closers = append(n.closers, downstream.Close)
	issuer, err := newIssuer(n.cfg, options.Merchants)
	if err != nil {
		return out, err
	}
	n.closers = append(n.closers, issuer.Close)
	out.Downstream, out.Issuer = downstream, issuer
	return out, nil
}

func (n *node) newAPI(ctx context.Context, policy *push.Policy) error {
	auth, err := newAuth(ctx, n.cfg, n.log)
	if err != nil {
		return err
	}
	limits := map[string]api.Limit{}
	for name, m := range n.cfg.Merchants {
		limits[name] = api.Limit{PerSecond: m.RateLimit.PerSecond, Burst: m.RateLimit.Burst}
	}
	n.api, err = api.New(api.Options{
		Service: n.service, Log: n.log, LogLevel: n.level, MaxBody: n.cfg.Server.MaxBody, TrustedProxies: n.cfg.Server.TrustedProxies, CORSOrigins: n.cfg.Server.CORSOrigins,
		WebhookLimits: limits, UserLimit: api.Limit{PerSecond: n.cfg.Auth.RateLimit.PerSecond, Burst: n.cfg.Auth.RateLimit.Burst},
		Auth: auth, PushPolicy: policy, VAPIDPublicKey: n.cfg.Push.VAPID.PublicKey,
		Metrics: promhttp.HandlerFor(n.metrics, promhttp.HandlerOpts{}), AdminToken: api.Secret(n.cfg.Admin.Token.Reveal()), AdminHosts: adminHosts(n.cfg.Server.AdminListen),
		Ready: n.ready, Brand: brand(n.cfg.App), Registry: n.metrics,
	})
	return err
}

// ready tells whether requests find their store, and deliveries a worker.
func (n *node) ready(ctx context.Context) error {
	if err := n.service.Ready(ctx); err != nil {
		return err
	}
	return n.worker.Ready()
}

// startWork runs what goes on without requests, until stopWork.
func (n *node) startWork(ctx context.Context) {
	grace, endWork := context.WithCancel(context.WithoutCancel(ctx))
	ctx, n.stopWork = context.WithCancel(grace)
	n.endWork = endWork
	n.work.Go(func() { n.service.Run(ctx) })
	n.work.Go(func() { n.worker.Run(ctx, grace) })
	n.work.Go(func() { n.service.Sample(ctx) })
	n.work.Go(func() { n.watchRedis(ctx) })
	n.work.Go(func() { n.store.KeepSealed(ctx) })
	n.work.Go(func() { tuneCollector(ctx) })
}

// How often Redis is looked at: whether it answers, and how it is set up.
const (
	redisUpEvery     = time.Second
	redisPolicyEvery = time.Minute
)

// watchRedis tells whether Redis answers, and what in its set-up would lose what
// was acknowledged: in metrics, and in the log whenever that changes.
func (n *node) watchRedis(ctx context.Context) {
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		n.metrics.MustRegister(g)
		return g
	}
	up := gauge("relay_redis_up", "Whether Redis answers.")
	wrong := gauge("relay_redis_policy_faults", "How many settings of Redis may lose what was acknowledged; 0 is right.")
	if n.cfg.Redis.Embedded() {
		n.log.Warn("redis.url is embedded: nothing survives a restart; use a real Redis for anything but trying out")
		up.Set(1)
		return
	}
	var looked time.Time
	var known []string
	for tick := time.NewTicker(redisUpEvery); ; {
		if err := n.store.Ping(ctx); err != nil {
			up.Set(0)
		} else if up.Set(1); time.Since(looked) > redisPolicyEvery {
			looked = time.Now()
			if faults, err := n.store.Policy(ctx); err != nil {
				n.log.Debug("how Redis is set up cannot be read", "error", err)
			} else {
				wrong.Set(float64(len(faults)))
				for _, f := range faults {
					if !slices.Contains(known, f) {
						n.log.Warn("Redis is set up so that it may lose what was acknowledged: " + f)
					}
				}
				known = faults
			}
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "relay_build_info", Help: "Which build runs: always 1.", ConstLabels: prometheus.Labels{"version": version(), "go_version": runtime.Version()},
	})
	build.Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build)
	return r
}

func (n *node) listen() error {
	admin := n.api.Admin()
	if n.embed.mount != nil {
		admin = n.embed.mount(admin)
	}
	for _, l := range []struct {
		name, addr string
		ln         net.Listener
		handler    http.Handler
		limits     limits
		bound      *string
	}{
		{"server.listen", n.cfg.Server.Listen, n.embed.public, n.api.Public(), publicLimits, &n.Public},
		{"server.admin_listen", n.cfg.Server.AdminListen, n.embed.admin, admin, adminLimits, &n.Admin},
	} {
		ln := l.ln
		if ln == nil {
			var err error
			if ln, err = net.Listen("tcp", l.addr); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
		}
		*l.bound = ln.Addr().String()
		srv := newServer(l.handler, l.limits, n.log)
		n.servers = append(n.servers, srv)
		go func() {
			if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				n.failed <- fmt.Errorf("%s: %w", l.name, err)
			}
		}()
	}
	n.log.Info("relay is up", "public", n.Public, "admin", n.Admin, "version", version())
	return nil
}

// stop takes no more requests, finishes what is in flight within
// server.shutdown_timeout, and closes everything.
func (n *node) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.Server.ShutdownTimeout)
	defer cancel()
	n.api.Shutdown()
	var errs []error
	for _, s := range n.servers {
		if err := s.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("requests were still in flight after server.shutdown_timeout: %w", err))
			_ = s.Close()
		}
	}
	if err := n.api.Wait(ctx); err != nil {
		errs = append(errs, fmt.Errorf("event streams were still open after server.shutdown_timeout: %w", err))
	}
	defer context.AfterFunc(ctx, n.endWork)()
	n.close(ctx)
	n.log.Info("relay is down")
	return errors.Join(errs...)
}

// close ends all work, then sends the spans that are left until ctx ends.
func (n *node) close(ctx context.Context) {
	if n.stopWork != nil {
		n.stopWork()
		n.work.Wait()
		n.endWork()
	}
	for i := len(n.closers) - 1; i >= 0; i-- {
		n.closers[i]()
	}
	if n.spans != nil {
		if err := n.spans.Shutdown(ctx); err != nil {
			n.log.Warn("the last spans were not sent", "error", err)
		}
	}
}
