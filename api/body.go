package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"approvalrelay/relay"
)

// maxCallBody bounds the body of every call but the webhooks.
const maxCallBody = 8 << 10

// readBody reads at most limit bytes; beyond it the error is a
// *http.MaxBytesError.
func readBody(c *gin.Context, limit int64) ([]byte, error) {
	if c.Request.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	var b bytes.Buffer
	b.Grow(int(max(0, c.Request.ContentLength)) + bytes.MinRead) // it looks for the end in that much room
	_, err := b.ReadFrom(http.MaxBytesReader(c.Writer, c.Request.Body, limit))
	return b.Bytes(), err
}

// decode reads a JSON object into v and refuses fields that v does not have. An
// empty body leaves v as it is.
func decode(c *gin.Context, v any) error {
	return decodeBody(c, v, (*json.Decoder).DisallowUnknownFields)
}

// decodeLoosely ignores fields that v does not have: browsers may add some.
func decodeLoosely(c *gin.Context, v any) error {
	return decodeBody(c, v, func(*json.Decoder) {})
}

func decodeBody(c *gin.Context, v any, set func(*json.Decoder)) error {
	body, err := readBody(c, maxCallBody)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return err
		}
		return relay.Invalid("body", "The body broke off.")
	}
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return nil
	}
	if body[0] != '{' {
		return errNotObject
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	set(dec)
	if err := dec.Decode(v); err != nil {
		return invalidJSON(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errNotObject
	}
	return nil
}

var errNotObject = relay.Invalid("body", "The body must be one JSON object.")

// maxFieldName bounds how much of a caller's own field name is quoted back.
const maxFieldName = 64

// invalidJSON names the field that could not be read.
func invalidJSON(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return relay.Invalid(wrong.Field, "This is a JSON "+wrong.Value+", which it must not be.")
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name = strings.Trim(name, `"`)
		return relay.Invalid(name[:min(len(name), maxFieldName)], "There is no such field here.")
	}
	return errNotObject
}
