package forward

import (
	"encoding/json"
	"regexp"
	"strings"

	"approvalrelay/relay"
)

// A placeholder is a $ and a name. Only payload is followed by a path; inside of
// a longer text the path ends where a word does.
var (
	wholePlaceholder  = regexp.MustCompile(`^\$(?:payload(?:\.[^.\s$]+)+|[A-Za-z_]\w*)$`)
	insidePlaceholder = regexp.MustCompile(`\$(?:payload(?:\.[\w-]+)+|[A-Za-z_]\w*)`)
)

// fill returns a copy of a template with the placeholders in its values
// replaced. One that is the whole value becomes what lookup returns, with its
// JSON type; one inside of a longer text becomes text. Names of members stay.
func fill(template any, lookup func(placeholder string) any) any {
	switch t := template.(type) {
	case map[string]any:
		filled := make(map[string]any, len(t))
		for name, v := range t {
			filled[name] = fill(v, lookup)
		}
		return filled
	case []any:
		filled := make([]any, len(t))
		for i, v := range t {
			filled[i] = fill(v, lookup)
		}
		return filled
	case string:
		if wholePlaceholder.MatchString(t) {
			return lookup(t)
		}
		return insidePlaceholder.ReplaceAllStringFunc(t, func(p string) string { return asText(lookup(p)) })
	}
	return template
}

// asText writes a JSON value inside of a text: null is nothing, objects and
// arrays are their JSON.
func asText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return string(v)
	}
	text, _ := json.Marshal(v) // a part of a payload, which came as JSON
	return string(text)
}

const payloadPrefix = "$payload."

// lookup finds what the placeholders stand for in one call. What the event does
// not have is null.
func (api *issuerAPI) lookup(c relay.IssuerCall, decision any) func(string) any {
	return func(placeholder string) any {
		switch placeholder {
		case "$card_id":
			return api.id("card_id", c.CardID, c.Payload)
		case "$user_id":
			return api.id("user_id", c.UserID, c.Payload)
		case "$reference":
			return api.id("reference", c.Reference, c.Payload)
		case "$challenge_id":
			return c.ChallengeID
		case "$decision":
			return decision
		}
		path := strings.TrimPrefix(placeholder, payloadPrefix)
		for _, root := range roots(c.Payload) {
			if v := valueAt(root, path); v != nil {
				return v
			}
		}
		return nil
	}
}

// id gives an id back as the issuer wrote it: as the number it is at the place
// that the mapping reads it from, else as a string. One that is not there, such
// as a user known from another event, is a string; "" is null.
func (api *issuerAPI) id(field, id string, payload map[string]any) any {
	if id == "" {
		return nil
	}
	for _, root := range roots(payload) {
		for _, path := range api.mapping[field] {
			v := valueAt(root, path)
			if !reads(v, id) {
				continue
			}
			if number, ok := v.(json.Number); ok {
				return number
			}
			return id
		}
	}
	return id
}

// reads tells whether the domain reads id out of v: it trims strings and writes
// 6.789e4 as 67890.
func reads(v any, id string) bool {
	return relay.Mapping{"user_id": {"v"}}.Read(map[string]any{"v": v}).UserID == id
}

// roots are where paths begin, as in relay.Mapping.Read: in an object named
// data, then at the top.
func roots(payload map[string]any) []map[string]any {
	if data, ok := payload["data"].(map[string]any); ok {
		return []map[string]any{data, payload}
	}
	return []map[string]any{payload}
}

// valueAt follows a dotted path through objects; nil if it leads nowhere.
func valueAt(object map[string]any, path string) any {
	for {
		key, rest, more := strings.Cut(path, ".")
		if !more {
			return object[key]
		}
		next, ok := object[key].(map[string]any)
		if !ok {
			return nil
		}
		object, path = next, rest
	}
}
