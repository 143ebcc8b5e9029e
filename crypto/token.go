package crypto

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// ErrToken is the only error of [Root.VerifyToken]: malformed, too long, wrongly
// signed or expired.
var ErrToken = errors.New("crypto: invalid or expired action token")

const (
	tokenPrefix = "rat_"
	maxTokenLen = 1024
)

// Claims is what an action token is good for: one challenge of one user of one
// merchant, from one push subscription, until Expires. Texts must be valid UTF-8.
type Claims struct {
	Merchant     string    `json:"m"`
	User         string    `json:"u"`
	Challenge    string    `json:"c"`
	Subscription string    `json:"s"`
	Expires      time.Time `json:"e"` // kept to the millisecond, in UTC
}

// tokenClaims is Claims as they stand in a token. Its Expires hides the embedded
// one: milliseconds since 1970 are shorter than RFC 3339, and room in a push is scarce.
type tokenClaims struct {
	Claims
	Expires int64 `json:"e"`
}

// SignToken returns an action token: "rat_", the claims as JSON in base64url, ".",
// and in base64url the HMAC-SHA256 of all before the dot. Claims are signed, not
// hidden. A token of more than 1 KiB will not verify: the four texts together
// should stay below 600 bytes.
func (r Root) SignToken(c Claims) string {
	claims, err := json.Marshal(tokenClaims{c, c.Expires.UnixMilli()})
	if err != nil {
		panic(err) // strings and an integer always marshal
	}
	signed := tokenPrefix + base64.RawURLEncoding.EncodeToString(claims)
	return signed + "." + r.tokenMAC(signed)
}

// VerifyToken returns the claims of a token made by [Root.SignToken] under the same
// root key that has not expired: from Expires on it is refused. Whether the
// claims fit the request is the caller's to check. The error is [ErrToken].
func (r Root) VerifyToken(token string, now time.Time) (Claims, error) {
	if len(token) > maxTokenLen {
		return Claims{}, ErrToken
	}
	signed, mac, _ := strings.Cut(token, ".")
	// Comparing the text, not decoded bytes, leaves exactly one valid spelling.
	if subtle.ConstantTimeCompare([]byte(mac), []byte(r.tokenMAC(signed))) != 1 {
		return Claims{}, ErrToken
	}
	claims, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(signed, tokenPrefix))
	if err != nil {
		return Claims{}, ErrToken
	}
	var c tokenClaims
	if json.Unmarshal(claims, &c) != nil {
		return Claims{}, ErrToken
	}
	c.Claims.Expires = time.UnixMilli(c.Expires).UTC()
	if !now.Before(c.Claims.Expires) {
		return Claims{}, ErrToken
	}
	return c.Claims, nil
}

func (r Root) tokenMAC(signed string) string {
	return base64.RawURLEncoding.EncodeToString(r.keys.token.sum(nil, []byte(signed)))
}
