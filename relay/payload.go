package relay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	maxDepth  = 32
	maxShapes = 100
)

// ParsePayload reads a decrypted body: one JSON object (RFC 8259) and nothing
// after it, nested at most 32 deep. Numbers stay json.Number, because ids may
// not fit a float64. The error never quotes the content.
func ParsePayload(body []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		// The text of a syntax error quotes a character; its offset does not.
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, fmt.Errorf("the payload is not valid JSON near byte %d", syntax.Offset)
		}
		return nil, errors.New("the payload is not valid JSON: it ends too early")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("the payload has something after its JSON value")
	}
	p, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the payload is a JSON %s, not an object", jsonType(v))
	}
	if !nestedAtMost(p, maxDepth) {
		return nil, fmt.Errorf("the payload is nested deeper than %d levels", maxDepth)
	}
	return p, nil
}

func nestedAtMost(v any, levels int) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			if !nestedAtMost(e, levels-1) {
				return false
			}
		}
		return levels > 0
	case []any:
		for _, e := range v {
			if !nestedAtMost(e, levels-1) {
				return false
			}
		}
		return levels > 0
	}
	return true
}

// Canonical is the payload as bytes that are equal when the contents are: keys
// sorted, no white space, number literals as they came. p is what ParsePayload
// returned or a copy made of it; anything that JSON cannot hold panics.
func Canonical(p map[string]any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(p); err != nil {
		panic("relay: Canonical was given what ParsePayload cannot return")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// FieldShape is a field of a payload without its value: the dotted path, with
// [] for the elements of an array, and the JSON type.
type FieldShape struct {
	Path string `json:"path"`
	Type string `json:"type"`
}

// Describe lists the names and types of a payload's fields, sorted by path and
// at most 100, for operators who must not see the values. Names that look like
// values themselves, or hold one of the secrets, are masked.
func Describe(p map[string]any, secrets ...string) []FieldShape {
	seen := make(map[FieldShape]bool)
	describe(p, "", seen, secrets)
	shapes := make([]FieldShape, 0, len(seen))
	for s := range seen {
		shapes = append(shapes, s)
	}
	slices.SortFunc(shapes, func(a, b FieldShape) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return strings.Compare(a.Type, b.Type)
	})
	return shapes[:min(len(shapes), maxShapes)]
}

func describe(v any, path string, seen map[FieldShape]bool, secrets []string) {
	if path != "" {
		seen[FieldShape{path, jsonType(v)}] = true
	}
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			describe(e, joinPath(path, safeName(k, secrets)), seen, secrets)
		}
	case []any:
		for _, e := range v {
			describe(e, path+"[]", seen, secrets)
		}
	}
}

// safeName masks a key that is data: long, or with a secret or the digits of a code,
// an id or a card number in it.
func safeName(key string, secrets []string) string {
	digits := 0
	for _, c := range []byte(key) {
		if c < '0' || c > '9' {
			digits = 0
			continue
		}
		if digits++; digits == 4 {
			return removed
		}
	}
	if len(key) > 64 || ScrubText(key, secrets...) != key {
		return removed
	}
	return key
}

func joinPath(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func jsonType(v any) string {
	switch v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case nil:
		return "null"
	}
	return "number"
}
