package api

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// What the parser lets pass, and must not pass here (RFC 8725).

// maxKeyID bounds what is looked up in a key set.
const maxKeyID = 256

// checkHeader refuses a token that is not a plain signed one.
func checkHeader(h map[string]any) error {
	// We know no extensions, so all that are critical must be refused (RFC 7515,
	// section 4.1.11); an unencoded payload is none of a JWT (RFC 7797, section 7).
	for _, name := range []string{"crit", "b64"} {
		if _, ok := h[name]; ok {
			return errors.New("extensions")
		}
	}
	if v, ok := h["typ"]; ok {
		typ, _ := v.(string)
		switch strings.ToLower(typ) {
		case "jwt", "at+jwt", "application/at+jwt":
		default: // what the same issuer signs for another purpose, such as a logout, is no login
			return errors.New("another type")
		}
	}
	if v, ok := h["kid"]; ok {
		if kid, _ := v.(string); kid == "" || len(kid) > maxKeyID {
			return errors.New("no key id")
		}
	}
	return nil
}

// checkClaims refuses claims that are there and are not what RFC 7519 says they
// are. Those that must be there are the parser's.
func checkClaims(claims jwt.MapClaims) error {
	for _, name := range []string{"exp", "nbf", "iat"} {
		v, ok := claims[name]
		if _, date := numericDate(v); ok && !date && v != float64(0) { // some issuers write 0 for none
			return errors.New("no date")
		}
	}
	if _, err := claims.GetSubject(); err != nil {
		return err
	}
	// A security event, such as a logout, may come without a type (RFC 8417, section 4).
	if _, ok := claims["events"]; ok {
		return errors.New("a security event")
	}
	return nil
}

// endOfTime is the first second after the year 9999, which no date of ours can
// name.
const endOfTime = 253402300800

// numericDate reads a NumericDate (RFC 7519, section 2) to the second. Numbers that
// are no sensible date are none: what a float becomes that no integer can hold
// depends on the machine.
func numericDate(claim any) (time.Time, bool) {
	seconds, ok := claim.(float64)
	if !ok || seconds <= 0 || seconds >= endOfTime {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0), true
}

// unambiguous refuses a token of which another reader, who takes the first of two
// names or leaves bad text as it is, would read something else (RFC 7515, section
// 4, and RFC 7519, section 4). The parser has decoded both parts before.
func unambiguous(token string) error {
	parts := strings.Split(token, ".")
	for _, part := range parts[:2] {
		text, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			return err
		}
		if !utf8.Valid(text) {
			return errors.New("not UTF-8")
		}
		if err := uniqueNames(json.NewDecoder(strings.NewReader(string(text)))); err != nil {
			return err
		}
	}
	return nil
}

// uniqueNames reads one JSON value in which no object has two members of a name.
// The size of a token bounds its depth.
func uniqueNames(dec *json.Decoder) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if open == '{' {
			name, err := dec.Token()
			if err != nil {
				return err
			}
			if seen[name.(string)] { // the decoder lets nothing else stand there
				return errors.New("a name that stands twice")
			}
			seen[name.(string)] = true
		}
		if err := uniqueNames(dec); err != nil {
			return err
		}
	}
	_, err = dec.Token() // its end
	return err
}
