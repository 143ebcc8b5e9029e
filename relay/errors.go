package relay

import (
	"errors"
	"time"
)

// Code names a refusal as the contract does; api maps each to one HTTP status.
type Code string

// The refusals of the domain.
const (
	CodeNotFound       Code = "not_found"
	CodeAlreadyDecided Code = "already_decided"
	CodeExpired        Code = "expired"
	CodeWrongMethod    Code = "wrong_method"
	CodeShownMismatch  Code = "shown_mismatch"
	CodeInvalidRequest Code = "invalid_request"
	CodeWrongCode      Code = "wrong_code"
	CodeCancelled      Code = "cancelled"
	CodeNotConfigured  Code = "not_configured"
	CodeUnknown        Code = "unknown_merchant"
	CodeRateLimited    Code = "rate_limited"
	CodeUnavailable    Code = "store_unavailable"
	CodeStepUpRequired Code = "step_up_required"
	CodeStepUpFailed   Code = "step_up_failed"
	CodeStepUpBlocked  Code = "step_up_blocked"
	CodeNoPasskey      Code = "no_passkey"
)

// Refusal is an answer to a request that cannot be granted: a code for
// programs, and a sentence that says what is wrong and what to do. It never
// carries a secret.
type Refusal struct {
	Code   Code
	Detail string
	Field  string        // the offending field of an invalid_request
	After  time.Duration // of a rate_limited: when to come again
}

func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Detail }

// Is makes errors.Is compare refusals by their code.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Code == r.Code
}

func refuse(code Code, detail string) *Refusal { return &Refusal{Code: code, Detail: detail} }

// Invalid is a refusal that names the field of the request that is wrong.
func Invalid(field, detail string) *Refusal {
	return &Refusal{Code: CodeInvalidRequest, Field: field, Detail: detail}
}

// Sentinels. ErrNotFound has one text for "none" and "somebody else's", so that
// an answer does not tell which.
var (
	ErrNotFound        = refuse(CodeNotFound, "There is no such resource for you.")
	ErrUnknownMerchant = refuse(CodeUnknown, "No merchant of this name is configured here; check the webhook URL.")

	// ErrUnavailable means that the store could not take or answer the request
	// in time. Nothing is known about whether the write happened; all writes may
	// be repeated.
	ErrUnavailable = refuse(CodeUnavailable, "The store cannot be reached at the moment; try again.")

	// ErrConflict means that a record changed since it was read: load it and
	// decide again.
	ErrConflict = errors.New("the record has changed since it was read")

	// ErrLostLease means that the delivery has been settled by somebody else.
	ErrLostLease = errors.New("the lease was settled by another worker")

	// ErrNewer means that a newer version of the relay wrote the record, in a form
	// that this one does not know. It is left to the nodes that do.
	ErrNewer = errors.New("a newer version of the relay wrote this; update this node, too")
)
