package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"approvalrelay/crypto"
	"approvalrelay/push"
	"approvalrelay/relay"
)

// The codes that the domain does not know.
const (
	codeUnauthorized     relay.Code = "unauthorized"
	codeRecentLogin      relay.Code = "recent_login_required"
	codeForbidden        relay.Code = "forbidden"
	codeTooLarge         relay.Code = "too_large"
	codeMethodNotAllowed relay.Code = "method_not_allowed"
	codeInvalidSignature relay.Code = "invalid_signature"
	codeMalformed        relay.Code = "malformed_envelope"
	codeProfiling        relay.Code = "profile_running"
	codeInternal         relay.Code = "internal"
)

// statuses is the one map from a code to a status.
var statuses = map[relay.Code]int{
	relay.CodeNotFound:       http.StatusNotFound,
	relay.CodeAlreadyDecided: http.StatusConflict,
	relay.CodeExpired:        http.StatusConflict,
	relay.CodeWrongMethod:    http.StatusConflict,
	relay.CodeShownMismatch:  http.StatusConflict,
	relay.CodeWrongCode:      http.StatusConflict,
	relay.CodeCancelled:      http.StatusConflict,
	relay.CodeInvalidRequest: http.StatusBadRequest,
	relay.CodeNotConfigured:  http.StatusNotFound,
	relay.CodeUnknown:        http.StatusNotFound,
	relay.CodeRateLimited:    http.StatusTooManyRequests,
	relay.CodeUnavailable:    http.StatusServiceUnavailable,
	relay.CodeStepUpRequired: http.StatusForbidden,
	relay.CodeStepUpFailed:   http.StatusForbidden,
	relay.CodeStepUpBlocked:  http.StatusConflict,
	relay.CodeNoPasskey:      http.StatusConflict,

	codeUnauthorized:     http.StatusUnauthorized,
	codeRecentLogin:      http.StatusUnauthorized,
	codeForbidden:        http.StatusForbidden,
	codeTooLarge:         http.StatusRequestEntityTooLarge,
	codeMethodNotAllowed: http.StatusMethodNotAllowed,
	codeInvalidSignature: http.StatusUnauthorized,
	codeMalformed:        http.StatusBadRequest,
	codeProfiling:        http.StatusConflict,
	codeInternal:         http.StatusInternalServerError,
}

// Refusals without a cause of their own. errUnauthorized and errMalformed have
// one text each, so that an answer does not tell which check failed.
var (
	errUnauthorized = &relay.Refusal{Code: codeUnauthorized, Detail: "A valid bearer token is needed; sign in again."}
	errMalformed    = &relay.Refusal{Code: codeMalformed, Detail: "The envelope cannot be read; see the issuer's description of encrypted_payload."}
	errSignature    = &relay.Refusal{Code: codeInvalidSignature, Detail: "The hmac does not fit encrypted_payload under any secret of this merchant."}
	errNoRoute      = &relay.Refusal{Code: relay.CodeNotFound, Detail: "There is nothing at this path."}
	errNoMethod     = &relay.Refusal{Code: codeMethodNotAllowed, Detail: "This path does not take this method; the Allow header lists those it takes."}
	errForbidden    = &relay.Refusal{Code: codeForbidden, Detail: "The Host or Origin of this request is not one of this listener's own."}
	errTooLarge     = &relay.Refusal{Code: codeTooLarge, Detail: "The body is larger than this relay takes."}
	errInternal     = &relay.Refusal{Code: codeInternal, Detail: "Something went wrong here. It was logged under this request id."}
)

// limited is a request beyond a rate limit, and when to come again.
type limited struct{ after time.Duration }

func (limited) Error() string { return "rate limited" }

// retryUnavailable is what an issuer is asked to wait when the store is away.
const retryUnavailable = 5 * time.Second

// problem is the body of an error (RFC 9457). Its type is the default, about:blank:
// the code says more.
type problem struct {
	Type      string     `json:"type"`
	Title     string     `json:"title"`
	Status    int        `json:"status"`
	Detail    string     `json:"detail"`
	Code      relay.Code `json:"code"`
	Field     string     `json:"field,omitempty"` // of an invalid_request
	RequestID string     `json:"request_id"`
}

// refusal finds what to tell the caller; what is unknown stays untold.
func refusal(err error) *relay.Refusal {
	if r, ok := errors.AsType[*relay.Refusal](err); ok {
		return r
	}
	if l, ok := errors.AsType[limited](err); ok {
		return &relay.Refusal{Code: relay.CodeRateLimited, Detail: "Too many requests; the Retry-After header says when to come again.", After: l.after}
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errTooLarge
	}
	if e, ok := errors.AsType[*push.InvalidError](err); ok {
		return relay.Invalid(e.Field, e.Problem)
	}
	switch {
	case errors.Is(err, crypto.ErrSignature):
		return errSignature
	case errors.Is(err, crypto.ErrMalformed):
		return errMalformed
	case errors.Is(err, crypto.ErrToken):
		return errUnauthorized
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, relay.ErrNewer): // another node can
		return relay.ErrUnavailable
	}
	return errInternal
}

// fail answers with the problem that an error is.
func (s *Server) fail(c *gin.Context, err error) {
	r := refusal(err)
	status, ok := statuses[r.Code]
	if !ok {
		status, r = http.StatusInternalServerError, errInternal
	}
	if status >= http.StatusInternalServerError {
		_ = c.Error(err) // for logRequest; it returns what it was given
	}
	if r.Code == relay.CodeRateLimited {
		setRetryAfter(c.Writer.Header(), r.After)
	}
	writeProblem(c.Writer, r, status)
	c.Abort()
}

func writeProblem(w http.ResponseWriter, r *relay.Refusal, status int) {
	h := w.Header()
	switch status {
	case http.StatusUnauthorized:
		switch r.Code {
		case codeUnauthorized:
			h.Set("WWW-Authenticate", "Bearer")
		case codeRecentLogin:
			h.Set("WWW-Authenticate", insufficient)
		}
	case http.StatusServiceUnavailable:
		setRetryAfter(h, retryUnavailable)
	case http.StatusRequestEntityTooLarge:
		h.Set("Connection", "close") // rather than read the rest
	}
	detail := r.Detail
	if r.Field != "" {
		detail = r.Field + ": " + detail
	}
	body, err := json.Marshal(problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status,
		Detail: detail, Code: r.Code, Field: r.Field, RequestID: h.Get(requestIDHeader),
	})
	if err != nil {
		panic(fmt.Sprintf("encode a problem: %v", err)) // a plain struct of strings
	}
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever asked may be gone
}

// setRetryAfter writes whole seconds, at least one (RFC 9110, section 10.2.3).
func setRetryAfter(h http.Header, d time.Duration) {
	h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))))
}

// do makes a Gin handler of one that returns its error.
func (s *Server) do(handle func(*gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := handle(c); err != nil {
			s.fail(c, err)
		}
	}
}
