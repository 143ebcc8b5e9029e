package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/cors"
	"golang.org/x/time/rate"

	"approvalrelay/api/web"
	"approvalrelay/push"
	"approvalrelay/relay"
)

// Options is what a Server is made of. All of Service, Log, LogLevel, Auth, MaxBody
// and UserLimit must be given.
type Options struct {
	Service  *relay.Service
	Log      *slog.Logger
	LogLevel *slog.LevelVar // of Log
	Auth     *Auth

	MaxBody        int64                 // bytes of a webhook
	TrustedProxies []netip.Prefix        // whose X-Forwarded-For is believed
	CORSOrigins    []string              // exact
	Brand          web.Brand             // of the cardholder app; its Origins are CORSOrigins
	Registry       prometheus.Registerer // nil: nobody looks at how long requests take
	WebhookLimits  map[string]Limit
	UserLimit      Limit

	PushPolicy     *push.Policy
	VAPIDPublicKey string // base64url; "": push is off

	AdminToken Secret       // empty: ops calls are open to loopback clients only
	AdminHosts []string     // names, beside loopback ones, that the admin listener goes by
	Metrics    http.Handler // nil: no /metrics
	// Ready says why the process is not ready; nil asks the store only.
	Ready func(context.Context) error
}

// Server holds the two handlers of the relay.
type Server struct {
	service  *relay.Service
	log      *slog.Logger
	logLevel *slog.LevelVar
	auth     *Auth

	maxBody   int64
	webhooks  map[string]*rate.Limiter
	receiving chan struct{} // one element for each webhook being opened and stored
	users     *userLimits
	streams   streamCount

	policy   *push.Policy
	vapidKey string

	adminToken *[sha256.Size]byte // of its hash; nil: none is needed
	adminHosts []string
	metrics    http.Handler
	requests   *prometheus.HistogramVec
	ready      func(context.Context) error

	openapi   []byte
	related   []byte // /.well-known/webauthn; nil: there is none
	keepAlive time.Duration
	closing   chan struct{}
	shutdown  func()

	publicRoutes *gin.Engine
	public       http.Handler
	admin        http.Handler
}

// The bounds on time. An issuer must be told of a store that is away within two
// seconds; a decision waits three for the issuer by itself.
const (
	webhookTime = 1900 * time.Millisecond
	callTime    = 5 * time.Second
)

// maxReceiving bounds the webhooks that are being opened and stored: the processor's
// time for their cryptography, and memory for what it yields. A body is read before, so
// that slow senders take no place; max_body and the server's timeouts bound these.
const maxReceiving = 256

// setMode silences Gin's own printing. It is a global of that package.
var setMode = sync.OnceFunc(func() { gin.SetMode(gin.ReleaseMode) })

// New makes a server. Errors are mistakes of the options.
func New(o Options) (*Server, error) {
	setMode()
	switch {
	case o.Service == nil || o.Log == nil || o.LogLevel == nil || o.Auth == nil:
		return nil, errors.New("api: Service, Log, LogLevel and Auth must be given")
	case o.MaxBody <= 0:
		return nil, errors.New("api: MaxBody must be above zero")
	case o.VAPIDPublicKey != "" && o.PushPolicy == nil:
		return nil, errors.New("api: a VAPID key needs a PushPolicy")
	}
	users, err := newUserLimits(o.UserLimit)
	if err != nil {
		return nil, err
	}
	document, err := openAPI()
	if err != nil {
		return nil, err
	}
	s := &Server{
		service: o.Service, log: o.Log, logLevel: o.LogLevel, auth: o.Auth,
		maxBody: o.MaxBody, webhooks: map[string]*rate.Limiter{}, receiving: make(chan struct{}, maxReceiving), users: users,
		policy: o.PushPolicy, vapidKey: o.VAPIDPublicKey,
		adminHosts: adminHosts(o.AdminHosts), metrics: o.Metrics, ready: o.Ready,
		requests: newRequestMetrics(o.Registry), openapi: document, keepAlive: 15 * time.Second, closing: make(chan struct{}),
	}
	for merchant, l := range o.WebhookLimits {
		s.webhooks[merchant] = rate.NewLimiter(rate.Limit(l.PerSecond), l.Burst)
	}
	if len(o.AdminToken) > 0 {
		sum := sha256.Sum256(o.AdminToken)
		s.adminToken = &sum
	}
	if p := o.Service.StepUp.Party; p != nil {
		if s.related, err = p.RelatedOrigins(); err != nil {
			return nil, fmt.Errorf("api: %w", err)
		}
	}
	if s.ready == nil {
		s.ready = o.Service.Ready
	}
	s.shutdown = sync.OnceFunc(func() { close(s.closing) })

	if s.publicRoutes, err = s.engine(o.TrustedProxies); err != nil {
		return nil, err
	}
	admin, err := s.engine(nil)
	if err != nil {
		return nil, err
	}
	admin.UseRawPath = true // a card's id may hold a slash
	o.Brand.Origins = o.CORSOrigins
	app, err := web.Handler(o.Brand)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	console, err := web.Console()
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	s.routePublic(s.publicRoutes)
	routeFiles(s.publicRoutes, "/app", app)
	redirect(s.publicRoutes, "/", "/app/")
	routeFiles(admin, "/console", console)
	s.routeAdmin(admin)
	s.public = frame(crossOrigin(o.CORSOrigins, s.publicRoutes))
	s.admin = frame(s.ownHost(admin))
	return s, nil
}

// Public is the handler of the public listener.
func (s *Server) Public() http.Handler { return s.public }

// Admin is the handler of the admin listener.
func (s *Server) Admin() http.Handler { return s.admin }

// Shutdown ends all event streams with a bye. It may be called more than once.
func (s *Server) Shutdown() { s.shutdown() }

// Wait returns when all event streams have ended, or with ctx. http.Server.Shutdown
// does not wait for them, and must have returned: after it no stream begins.
func (s *Server) Wait(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.streams.all.Wait()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// engine is a router without Gin's redirects and its own words.
func (s *Server) engine(proxies []netip.Prefix) (*gin.Engine, error) {
	e := gin.New()
	e.RedirectTrailingSlash = false
	e.HandleMethodNotAllowed = true
	// Proxies overwrite or extend X-Forwarded-For; X-Real-IP they may pass on as
	// the client wrote it.
	e.RemoteIPHeaders = []string{"X-Forwarded-For"}
	trusted := make([]string, len(proxies))
	for i, p := range proxies {
		trusted[i] = p.String()
	}
	if err := e.SetTrustedProxies(trusted); err != nil {
		return nil, fmt.Errorf("api: trusted proxies: %w", err)
	}
	e.Use(s.logRequest, s.recoverPanic)
	e.NoRoute(s.do(func(*gin.Context) error { return errNoRoute }))
	e.NoMethod(s.do(func(*gin.Context) error { return errNoMethod }))
	return e, nil
}

func (s *Server) routePublic(e *gin.Engine) {
	e.POST("/webhooks/:merchant", within(webhookTime), s.do(s.webhook))
	e.GET("/openapi.json", s.document)
	if s.related != nil {
		e.GET("/.well-known/webauthn", func(c *gin.Context) { c.Data(http.StatusOK, "application/json", s.related) })
	}

	v1 := e.Group("/v1", within(callTime))
	v1.GET("/challenges", s.user(s.listChallenges))
	v1.GET("/challenges/:id", s.device(s.getChallenge))
	v1.POST("/challenges/:id/approve", s.device(s.approve))
	v1.POST("/challenges/:id/reject", s.device(s.reject))
	v1.POST("/challenges/:id/reveal", s.device(s.reveal))
	v1.POST("/challenges/:id/done", s.device(s.done))
	v1.POST("/challenges/:id/step-up", s.device(s.stepUp))
	v1.GET("/passkeys", s.user(s.listPasskeys))
	v1.POST("/passkeys/options", s.recent(s.enrolPasskey))
	v1.POST("/passkeys", s.recent(s.addPasskey))
	v1.DELETE("/passkeys/:id", s.recent(s.removePasskey))
	v1.GET("/push/key", s.do(s.pushKey))
	v1.POST("/push/subscriptions", s.user(s.subscribe))
	v1.GET("/push/subscriptions", s.user(s.listSubscriptions))
	v1.DELETE("/push/subscriptions/:id", s.user(s.unsubscribe))
	v1.POST("/push/subscriptions/:id/activate", s.user(s.activate))
	v1.POST("/push/subscriptions/:id/test", s.user(s.testPush))
	e.GET("/v1/events", s.user(s.events)) // lasts longer than a call
}

// routeFiles serves static files under a path and a slash.
func routeFiles(e *gin.Engine, path string, files http.Handler) {
	redirect(e, path, path+"/")
	serve := gin.WrapH(http.StripPrefix(path, files))
	e.GET(path+"/*file", serve)
	e.HEAD(path+"/*file", serve)
}

func redirect(e *gin.Engine, from, to string) {
	send := func(c *gin.Context) { c.Redirect(http.StatusFound, to) }
	e.GET(from, send)
	e.HEAD(from, send)
}

func (s *Server) routeAdmin(e *gin.Engine) {
	e.GET("/healthz", s.healthz)
	e.GET("/readyz", within(webhookTime), s.readyz)
	if s.metrics != nil {
		e.GET("/metrics", gin.WrapH(s.metrics))
	}
	s.routeProfiles(e)
	ops := e.Group("/ops/v1", s.do(s.operator), s.logAction)
	// Thousands of dead letters take longer than a call may.
	ops.POST("/deadletters/replay", s.do(s.replayDead))
	ops.POST("/quarantine/replay", s.do(s.replayQuarantine))
	ops.DELETE("/merchants/:merchant/users/:user", s.ofUser(s.erase))
	ops.POST("/merchants/:merchant/:import", s.do(s.importCards)) // Gin takes the colon of cards:import for a parameter

	ops.Use(within(callTime))
	ops.PUT("/merchants/:merchant/cards/:card", s.do(s.assignCard))
	ops.GET("/merchants/:merchant/cards/:card", s.do(s.cardOwner))
	ops.DELETE("/merchants/:merchant/cards/:card", s.do(s.releaseCard))
	ops.GET("/merchants/:merchant/users/:user/subscriptions", s.ofUser(s.showDevices))
	ops.DELETE("/merchants/:merchant/users/:user/subscriptions", s.ofUser(s.forgetDevices))
	ops.DELETE("/merchants/:merchant/users/:user/subscriptions/:id", s.ofUser(s.forgetDevice))
	ops.GET("/merchants/:merchant/users/:user/passkeys", s.ofUser(s.showPasskeys))
	ops.DELETE("/merchants/:merchant/users/:user/passkeys", s.ofUser(s.forgetPasskey))
	ops.DELETE("/merchants/:merchant/users/:user/passkeys/:id", s.ofUser(s.forgetPasskey))
	ops.GET("/merchants/:merchant/users/:user/cards", s.ofUser(s.userCards))
	ops.GET("/challenges", s.do(s.listAllChallenges))
	ops.GET("/challenges/:id", s.do(s.operatorChallenge))
	ops.GET("/challenges/:id/timeline", s.do(s.timeline))
	ops.POST("/challenges/:id/cancel", s.do(s.cancel))
	ops.GET("/stats", s.do(s.stats))
	ops.GET("/log", s.do(s.getLogLevel))
	ops.PUT("/log", s.do(s.setLogLevel))
	ops.GET("/events", s.do(s.listEvents))
	ops.GET("/events/:id", s.do(s.event))
	ops.POST("/events/:id/replay", s.do(s.replayEvent))
	ops.GET("/deliveries", s.do(s.listDeliveries))
	ops.GET("/deliveries/:id", s.do(s.delivery))
	ops.DELETE("/deliveries/:id", s.do(s.dropDelivery))
	ops.POST("/deliveries/:id/replay", s.do(s.replay))
	ops.POST("/targets/:name/pause", s.do(s.pause))
	ops.POST("/targets/:name/resume", s.do(s.resume))
}

// within bounds a request's context, and with it every call of the store.
func within(d time.Duration) gin.HandlerFunc {
	return func(c *gin.Context) {
		ctx, cancel := context.WithTimeout(c.Request.Context(), d)
		defer cancel()
		c.Request = c.Request.WithContext(ctx)
		c.Next()
	}
}

// shared tells what the frontends of other origins may read: the API, and the
// module that calls it for them.
func shared(path string) bool {
	return strings.HasPrefix(path, "/v1/") || path == "/openapi.json" || path == "/app/relay.js"
}

// crossOrigin lets the frontends of these origins read what is shared. No origin
// is ever matched by a pattern.
func crossOrigin(origins []string, next http.Handler) http.Handler {
	withCORS := cors.New(cors.Options{
		AllowOriginFunc: func(origin string) bool { return slices.Contains(origins, origin) },
		AllowedMethods:  []string{http.MethodGet, http.MethodPost, http.MethodDelete},
		AllowedHeaders:  []string{"Authorization", "Content-Type", requestIDHeader},
		ExposedHeaders:  []string{requestIDHeader, "Retry-After", "Date"}, // Date: how far the browser's clock is off
		MaxAge:          600,
	}).Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if shared(r.URL.Path) {
			withCORS.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
