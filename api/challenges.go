package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"unicode"

	"github.com/gin-gonic/gin"

	"approvalrelay/relay"
)

const (
	defaultLimit = 50
	maxLimit     = 100
)

// list is one page of anything.
type list[T any] struct {
	Data []T     `json:"data"`
	Next *string `json:"next_cursor"`
}

func (s *Server) listChallenges(c *gin.Context, id identity) error {
	all := false
	switch c.Query("status") {
	case "", "pending":
	case "all":
		all = true
	default:
		return relay.Invalid("status", "It must be pending or all.")
	}
	limit, err := limitOf(c)
	if err != nil {
		return err
	}
	p, err := s.service.List(c.Request.Context(), id.User, all, limit, c.Query("cursor"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, page(p))
	return nil
}

func page(p relay.Page) list[relay.View] { return listOf(p.Challenges, p.Next, relay.Challenge.View) }

func (s *Server) getChallenge(c *gin.Context, id identity) error {
	ch, err := s.service.Get(c.Request.Context(), id.User, c.Param("id"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, ch.View())
	return nil
}

func (s *Server) approve(c *gin.Context, id identity) error {
	var body struct {
		Shown   *relay.Shown    `json:"shown"`
		Passkey json.RawMessage `json:"passkey"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	d := relay.Decision{Action: relay.Approve, Shown: body.Shown}
	if len(body.Passkey) > 0 {
		proof, err := s.service.ProveStepUp(c.Request.Context(), id.User, c.Param("id"), body.Passkey)
		if err != nil {
			return err
		}
		d.Proof = proof
	}
	return s.decide(c, id, d)
}

func (s *Server) reject(c *gin.Context, id identity) error {
	var body struct {
		Reason *string `json:"reason"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	d := relay.Decision{Action: relay.Reject}
	if body.Reason != nil {
		if d.Reason = *body.Reason; d.Reason != "cancelled" && d.Reason != relay.ReasonNotMe {
			return relay.Invalid("reason", "It must be cancelled or not_me.")
		}
	}
	return s.decide(c, id, d)
}

// decide answers 200 with the outcome, or 202 while the issuer has not said.
func (s *Server) decide(c *gin.Context, id identity, d relay.Decision) error {
	d.Device = relay.Device{SubscriptionID: id.Subscription, IP: c.ClientIP(), UserAgent: printable(c.Request.UserAgent())}
	ch, err := s.service.Decide(c.Request.Context(), id.User, c.Param("id"), d)
	if err != nil {
		return err
	}
	status := http.StatusAccepted
	if ch.Status.Final() {
		status = http.StatusOK
	}
	c.JSON(status, ch.View())
	return nil
}

// maxUserAgent is how much of a User-Agent is kept for the operator.
const maxUserAgent = 200

// printable makes one line of at most 200 characters of a header.
func printable(s string) string {
	n := 0
	return strings.Map(func(r rune) rune {
		if n >= maxUserAgent || !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		n++
		return r
	}, s)
}

// revealed is the answer to a reveal: one of the two.
type revealed struct {
	OTP string `json:"otp,omitempty"`
	URL string `json:"action_url,omitempty"`
}

func (s *Server) reveal(c *gin.Context, id identity) error {
	r, err := s.service.Reveal(c.Request.Context(), id.User, c.Param("id"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, revealed{r.OTP, r.URL})
	return nil
}

func (s *Server) done(c *gin.Context, id identity) error {
	ch, err := s.service.Done(c.Request.Context(), id.User, c.Param("id"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, ch.View())
	return nil
}
