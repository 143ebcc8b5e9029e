package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"approvalrelay/relay"
)

// receipt answers a webhook.
type receipt struct {
	Status  relay.ReceiptStatus `json:"status"`
	EventID string              `json:"event_id"`
}

// webhook takes an event of the issuer.
func (s *Server) webhook(c *gin.Context) error {
	var w relay.Webhook
	err := s.receive(c, &w)
	if err != nil {
		s.service.Refused(c.Request.Context(), c.Param("merchant"), w.Type, string(refusal(err).Code), c.ClientIP(), requestID(c))
	}
	return err
}

// receive leaves in w what it has read of the envelope.
func (s *Server) receive(c *gin.Context, w *relay.Webhook) error {
	merchant := c.Param("merchant")
	if _, ok := s.service.Merchants[merchant]; !ok {
		return relay.ErrUnknownMerchant
	}
	if l, ok := s.webhooks[merchant]; ok {
		if err := take(l); err != nil {
			return err
		}
	}
	body, err := readBody(c, s.maxBody)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return err
		}
		return errMalformed // it broke off
	}
	*w, err = parseEnvelope(merchant, body)
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	select {
	case s.receiving <- struct{}{}:
		defer func() { <-s.receiving }()
	case <-ctx.Done():
		return relay.ErrUnavailable
	}
	r, err := s.service.Receive(ctx, *w)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, receipt{r.Status, r.EventID})
	return nil
}

// parseEnvelope reads the issuer's body. A missing hmac is a wrong one, and a type
// that is not a text is none, which the domain quarantines.
func parseEnvelope(merchant string, body []byte) (relay.Webhook, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return relay.Webhook{}, errMalformed
	}
	w := relay.Webhook{Merchant: merchant, Raw: body}
	var ok bool
	if w.Payload, ok = text(members["encrypted_payload"]); !ok {
		return relay.Webhook{}, errMalformed
	}
	w.HMAC, _ = text(members["hmac"])
	w.Type, _ = text(members["type"])
	return w, nil
}

// text is a JSON string; false for anything else.
func text(raw json.RawMessage) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	if plain := raw[1 : len(raw)-1]; bytes.IndexByte(plain, '\\') < 0 && utf8.Valid(plain) { // as all payloads are
		return string(plain), true
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}
