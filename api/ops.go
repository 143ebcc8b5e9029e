package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"approvalrelay/relay"
)

// adminHosts cleans the names that the admin listener goes by. One that is no
// address, such as 0.0.0.0, is none: browsers take it for this machine.
func adminHosts(names []string) []string {
	hosts := make([]string, 0, len(names))
	for _, name := range names {
		name = strings.ToLower(hostname(name))
		if ip, err := netip.ParseAddr(name); name == "" || err == nil && ip.IsUnspecified() {
			continue
		}
		hosts = append(hosts, name)
	}
	return hosts
}

// hostname is a host without its port and brackets.
func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

// ownHost refuses requests that come under a foreign name, which is how a web
// page reaches a private listener past the same-origin policy (DNS rebinding),
// and those that come from a page of another origin.
func (s *Server) ownHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.knownHost(r) || !s.knownOrigin(r) {
			s.log.LogAttrs(r.Context(), slog.LevelWarn, "request under a foreign Host or Origin refused",
				slog.String("remote_ip", hostname(r.RemoteAddr)), slog.String("request_id", w.Header().Get(requestIDHeader)))
			writeProblem(w, errForbidden, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) knownHost(r *http.Request) bool {
	host := strings.ToLower(hostname(r.Host))
	if loopback(host) || slices.Contains(s.adminHosts, host) {
		return true
	}
	// The very address that the connection came in on: probes and scrapers use
	// it, and no name can be rebound to it.
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && net.ParseIP(host) != nil && hostname(local.String()) == host
}

func (s *Server) knownOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	u, err := url.Parse(origins[0])
	if len(origins) > 1 || err != nil || u.Host == "" {
		return false
	}
	// Another port of this machine is another origin, whoever listens there. A
	// proxy in front may have changed the Host, so its name counts as well.
	host := strings.ToLower(u.Hostname())
	own := strings.EqualFold(u.Host, r.Host) || loopback(host) && loopback(hostname(r.Host)) && port(u.Host) == port(r.Host)
	return own || !loopback(host) && slices.Contains(s.adminHosts, host)
}

func port(hostport string) string {
	_, p, _ := net.SplitHostPort(hostport)
	return p
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// operator lets only the operator through.
func (s *Server) operator(c *gin.Context) error {
	if s.adminToken == nil {
		// The configuration wants a token unless the listener is on loopback.
		if !loopback(hostname(c.Request.RemoteAddr)) {
			return errUnauthorized
		}
		return nil
	}
	token, err := bearer(c.Request)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(sum[:], s.adminToken[:]) != 1 {
		return errUnauthorized
	}
	return nil
}

// health is the answer of the probes.
type health struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

func (s *Server) healthz(c *gin.Context) { c.JSON(http.StatusOK, health{Status: "ok"}) }

func (s *Server) readyz(c *gin.Context) {
	if err := s.ready(c.Request.Context()); err != nil {
		c.JSON(http.StatusServiceUnavailable, health{"unavailable", err.Error()})
		return
	}
	c.JSON(http.StatusOK, health{Status: "ok"})
}

// cardView is who owns a card.
type cardView struct {
	Merchant   string    `json:"merchant"`
	CardID     string    `json:"card_id"`
	UserID     string    `json:"user_id"`
	AssignedBy string    `json:"assigned_by"` // operator or event
	AssignedAt time.Time `json:"assigned_at"`
}

func viewCard(o relay.CardOwner) cardView {
	v := cardView{o.Merchant, o.CardID, o.UserID, "event", o.At.UTC()}
	if o.ByOperator {
		v.AssignedBy = "operator"
	}
	return v
}

func (s *Server) assignCard(c *gin.Context) error {
	var body struct {
		UserID string `json:"user_id"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	o, err := s.service.AssignCard(c.Request.Context(), c.Param("merchant"), c.Param("card"), body.UserID)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, viewCard(o))
	return nil
}

func (s *Server) cardOwner(c *gin.Context) error {
	o, err := s.service.CardOwner(c.Request.Context(), c.Param("merchant"), c.Param("card"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, viewCard(o))
	return nil
}

func (s *Server) releaseCard(c *gin.Context) error {
	if err := s.service.ReleaseCard(c.Request.Context(), c.Param("merchant"), c.Param("card")); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}

// ofUser makes a handler about the cardholder that the path names.
func (s *Server) ofUser(handle func(*gin.Context, relay.User) error) gin.HandlerFunc {
	return s.do(func(c *gin.Context) error {
		u := relay.User{Merchant: c.Param("merchant"), ID: c.Param("user")}
		if _, ok := s.service.Merchants[u.Merchant]; !ok {
			return relay.ErrUnknownMerchant
		}
		if !validUser(u.ID) {
			return relay.Invalid("user_id", "A user's id has 1 to 256 bytes without control characters.")
		}
		return handle(c, u)
	})
}

func (s *Server) forgetDevices(c *gin.Context, u relay.User) error {
	if err := s.service.ForgetDevices(c.Request.Context(), u); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}

func (s *Server) cancel(c *gin.Context) error {
	ch, err := s.service.Cancel(c.Request.Context(), c.Param("id"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, ch.OperatorView())
	return nil
}

func (s *Server) event(c *gin.Context) error {
	ev, err := s.service.EventRecord(c.Request.Context(), c.Param("id"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, ev)
	return nil
}

func (s *Server) replayEvent(c *gin.Context) error {
	r, err := s.service.ReplayEvent(c.Request.Context(), c.Param("id"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, receipt{r.Status, r.EventID})
	return nil
}

func (s *Server) replayQuarantine(c *gin.Context) error {
	n, err := s.service.ReplayQuarantine(c.Request.Context(), c.Query("merchant"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, n)
	return nil
}

func (s *Server) delivery(c *gin.Context) error {
	d, err := s.service.Delivery(c.Request.Context(), c.Param("id"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, d.View())
	return nil
}

func (s *Server) replay(c *gin.Context) error {
	if err := s.service.Replay(c.Request.Context(), c.Param("id")); err != nil {
		return err
	}
	return accepted(c)
}

func (s *Server) replayDead(c *gin.Context) error {
	n, err := s.service.ReplayDead(c.Request.Context(), c.Query("target"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusAccepted, struct {
		Replayed int `json:"replayed"`
	}{n})
	return nil
}

// targetView is the state of a target after pause or resume.
type targetView struct {
	Name   string `json:"name"`
	Status string `json:"status"`
}

func (s *Server) pause(c *gin.Context) error {
	if err := s.service.PauseTarget(c.Request.Context(), c.Param("name")); err != nil {
		return err
	}
	c.JSON(http.StatusOK, targetView{c.Param("name"), "paused"})
	return nil
}

func (s *Server) resume(c *gin.Context) error {
	if err := s.service.ResumeTarget(c.Request.Context(), c.Param("name")); err != nil {
		return err
	}
	c.JSON(http.StatusOK, targetView{c.Param("name"), "active"})
	return nil
}
