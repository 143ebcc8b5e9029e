package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"approvalrelay/relay"
)

// The operator's lists: what came, what was sent, and the challenges.

// limitOf reads how many a page may hold.
func limitOf(c *gin.Context) (int, error) {
	q := c.Query("limit")
	if q == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(q)
	if err != nil || n < 1 || n > maxLimit {
		return 0, relay.Invalid("limit", "It must be a number from 1 to 100.")
	}
	return n, nil
}

func timeOf(c *gin.Context, field string) (time.Time, error) {
	q := c.Query(field)
	if q == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, q)
	if err != nil {
		return t, relay.Invalid(field, "It must be a time as in RFC 3339: 2026-01-31T12:00:00Z.")
	}
	return t, nil
}

// rangeOf reads which part of a list is wanted.
func rangeOf(c *gin.Context) (r relay.Range, err error) {
	if r.Limit, err = limitOf(c); err != nil {
		return r, err
	}
	if r.Since, err = timeOf(c, "since"); err != nil {
		return r, err
	}
	r.Until, err = timeOf(c, "until")
	r.Cursor = c.Query("cursor")
	return r, err
}

func listOf[V, T any](all []T, next string, view func(T) V) list[V] {
	l := list[V]{Data: make([]V, 0, len(all))}
	for _, one := range all {
		l.Data = append(l.Data, view(one))
	}
	if next != "" {
		l.Next = &next
	}
	return l
}

func (s *Server) listEvents(c *gin.Context) error {
	r, err := rangeOf(c)
	if err != nil {
		return err
	}
	events, next, err := s.service.Events(c.Request.Context(), relay.EventFilter{
		Range: r, Merchant: c.Query("merchant"), Type: c.Query("type"), CardID: c.Query("card_id"), UserID: c.Query("user_id"),
		Outcome: relay.EventOutcome(c.Query("outcome")),
	})
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, listOf(events, next, func(v relay.EventView) relay.EventView { return v }))
	return nil
}

func (s *Server) listDeliveries(c *gin.Context) error {
	r, err := rangeOf(c)
	if err != nil {
		return err
	}
	deliveries, next, err := s.service.Deliveries(c.Request.Context(), relay.DeliveryFilter{
		Range: r, Kind: relay.Kind(c.Query("kind")), Target: c.Query("target"), Status: relay.DeliveryStatus(c.Query("status")), EventID: c.Query("event_id"),
	})
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, listOf(deliveries, next, relay.Delivery.View))
	return nil
}

func (s *Server) listAllChallenges(c *gin.Context) error {
	r, err := rangeOf(c)
	if err != nil {
		return err
	}
	challenges, next, err := s.service.OperatorChallenges(c.Request.Context(), relay.ChallengeFilter{
		Range: r, Merchant: c.Query("merchant"), UserID: c.Query("user_id"), Status: relay.Status(c.Query("status")),
	})
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, listOf(challenges, next, relay.Challenge.OperatorView))
	return nil
}

func (s *Server) operatorChallenge(c *gin.Context) error {
	ch, err := s.service.OperatorChallenge(c.Request.Context(), c.Param("id"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, ch.OperatorView())
	return nil
}

func (s *Server) stats(c *gin.Context) error {
	st, err := s.service.Stats(c.Request.Context())
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, st)
	return nil
}

func (s *Server) timeline(c *gin.Context) error {
	t, err := s.service.Timeline(c.Request.Context(), c.Param("id"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, t)
	return nil
}

func (s *Server) dropDelivery(c *gin.Context) error {
	if err := s.service.Drop(c.Request.Context(), c.Param("id")); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}

func (s *Server) userCards(c *gin.Context, u relay.User) error {
	cards, err := s.service.CardsOf(c.Request.Context(), u)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, listOf(cards, "", viewCard))
	return nil
}

func (s *Server) forgetDevice(c *gin.Context, u relay.User) error {
	if err := s.service.Unsubscribe(c.Request.Context(), u, c.Param("id")); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}

func (s *Server) erase(c *gin.Context, u relay.User) error {
	if err := s.service.Erase(c.Request.Context(), u); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}
