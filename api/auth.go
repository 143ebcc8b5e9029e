package api

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"

	"approvalrelay/relay"
)

// JWTOptions says which tokens are good. Exactly one of HS256Secret, PublicKey
// and JWKSURL must be given.
type JWTOptions struct {
	Issuer, Audience string // both must be given
	UserClaim        string
	MerchantClaim    string // "": all users are SingleMerchant's
	SingleMerchant   string
	Leeway           time.Duration

	HS256Secret Secret
	PublicKey   crypto.PublicKey // RSA of 2048 bits or more: RS256; P-256: ES256; Ed25519: EdDSA
	JWKSURL     string           // keys as above, each for the algorithm of its type

	Log *slog.Logger // told when the keys cannot be fetched
}

// maxLeeway is how far clocks may differ; an expired token must not live on it.
const maxLeeway = 5 * time.Minute

// Auth checks cardholders' tokens (RFC 7519). It is safe for concurrent use.
type Auth struct {
	parser        *jwt.Parser
	key           func(context.Context, *jwt.Token) (any, error)
	userClaim     string
	merchantClaim string
	merchant      string
	leeway        time.Duration
	now           func() time.Time
}

// NewAuth makes an Auth that tells expiry by now. With a JWKS URL it fetches the
// keys until ctx ends; that they cannot be fetched is no error: it goes on trying.
// Errors are mistakes of the options and never quote a secret.
func NewAuth(ctx context.Context, o JWTOptions, now func() time.Time) (*Auth, error) {
	switch {
	case o.Issuer == "" || o.Audience == "":
		return nil, errors.New("api: tokens need an issuer and an audience") // else the parser would not check them
	case o.UserClaim == "":
		return nil, errors.New("api: a claim must name the user")
	case o.Leeway < 0 || o.Leeway > maxLeeway:
		return nil, errors.New("api: a leeway is 0 to 5 minutes")
	case (o.MerchantClaim == "") == (o.SingleMerchant == ""):
		return nil, errors.New("api: tokens name their merchant, or there is a single one")
	}
	a := &Auth{userClaim: o.UserClaim, merchantClaim: o.MerchantClaim, merchant: o.SingleMerchant, leeway: o.Leeway, now: now}
	methods, err := a.setKey(ctx, o)
	if err != nil {
		return nil, err
	}
	a.parser = jwt.NewParser(jwt.WithValidMethods(methods), jwt.WithIssuer(o.Issuer), jwt.WithAudience(o.Audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(o.Leeway), jwt.WithTimeFunc(now), jwt.WithStrictDecoding())
	return a, nil
}

// setKey chooses where keys come from, and the algorithms that go with them.
func (a *Auth) setKey(ctx context.Context, o JWTOptions) (methods []string, err error) {
	given := 0
	if len(o.HS256Secret) > 0 {
		given++
		key := []byte(o.HS256Secret)
		a.key = func(context.Context, *jwt.Token) (any, error) { return key, nil }
		methods = []string{jwt.SigningMethodHS256.Alg()}
	}
	if o.PublicKey != nil {
		given++
		alg, ok := algorithmOf(o.PublicKey)
		if !ok {
			return nil, errors.New("api: the public key must be RSA of 2048 bits or more, ECDSA P-256 or Ed25519")
		}
		a.key = func(context.Context, *jwt.Token) (any, error) { return o.PublicKey, nil }
		methods = []string{alg}
	}
	if o.JWKSURL != "" {
		given++
		keys, err := newKeySet(ctx, o.JWKSURL, o.Log)
		if err != nil {
			return nil, err
		}
		a.key = keys.find
		methods = []string{jwt.SigningMethodRS256.Alg(), jwt.SigningMethodES256.Alg(), jwt.SigningMethodEdDSA.Alg()}
	}
	if given != 1 {
		return nil, errors.New("api: give exactly one of a secret, a public key and a JWKS URL to check tokens by")
	}
	return methods, nil
}

// algorithmOf is the one algorithm a key is used with; false for keys that are
// too weak or of another kind.
func algorithmOf(key any) (string, bool) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return jwt.SigningMethodRS256.Alg(), key.N.BitLen() >= 2048
	case *ecdsa.PublicKey:
		return jwt.SigningMethodES256.Alg(), key.Curve == elliptic.P256()
	case ed25519.PublicKey:
		return jwt.SigningMethodEdDSA.Alg(), len(key) == ed25519.PublicKeySize
	}
	return "", false
}

// identity is whom a token stands for.
type identity struct {
	User    relay.User
	Expires time.Time // of a JWT
	// AuthTime is when the user last proved who he is (OpenID Connect Core, section
	// 2): zero if the token does not say so in a way that can be believed.
	AuthTime time.Time
	// Of an action token: the one challenge it is good for, and the subscription
	// it was sent to.
	Challenge, Subscription string
}

// maxToken bounds a token in bytes; those of real logins are below 4 KiB.
const maxToken = 8 << 10

// maxUserID and what validUser refuses are the domain's own bounds on ids.
const maxUserID = 256

func validUser(id string) bool {
	return id != "" && len(id) <= maxUserID && !strings.ContainsFunc(id, unicode.IsControl)
}

// verify checks a JWT. Every error is errUnauthorized: a caller must not learn
// which check failed.
func (a *Auth) verify(ctx context.Context, token string) (identity, error) {
	claims := jwt.MapClaims{}
	_, err := a.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if err := errors.Join(checkHeader(t.Header), unambiguous(token)); err != nil {
			return nil, err
		}
		return a.key(ctx, t)
	})
	if err != nil || checkClaims(claims) != nil {
		return identity{}, errUnauthorized
	}
	user, _ := claims[a.userClaim].(string)
	merchant := a.merchant
	if a.merchantClaim != "" {
		merchant, _ = claims[a.merchantClaim].(string)
	}
	expires, err := claims.GetExpirationTime()
	// What no text can hold is read as U+FFFD, and would make two users one.
	if err != nil || expires == nil || !validUser(user) || strings.ContainsRune(user, unicode.ReplacementChar) || merchant == "" {
		return identity{}, errUnauthorized
	}
	id := identity{User: relay.User{Merchant: merchant, ID: user}, Expires: expires.Time}
	if at, ok := numericDate(claims["auth_time"]); ok && !at.After(a.now().Add(a.leeway)) {
		id.AuthTime = at
	}
	return id, nil
}

// until is how long an identity's stream may go on: to the token's expiry, or to
// the end of the leeway if it was already past it when it was taken.
func (a *Auth) until(id identity) time.Duration {
	left := id.Expires.Sub(a.now())
	if left <= 0 {
		left += a.leeway
	}
	return left
}

// bearer reads the token of a request (RFC 6750, section 2.1). A second header
// would leave it open which of the two a proxy has checked.
func bearer(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 || len(values[0]) > maxToken+len("Bearer ") {
		return "", errUnauthorized
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errUnauthorized
	}
	return token, nil
}

// actionPrefix begins action tokens; no JWT begins so, since the first bytes of
// one are those of a JSON object.
const actionPrefix = "rat_"

// authenticate tells whom a request comes from.
func (s *Server) authenticate(c *gin.Context) (identity, error) {
	token, err := bearer(c.Request)
	if err != nil {
		return identity{}, err
	}
	ctx := c.Request.Context()
	var id identity
	if strings.HasPrefix(token, actionPrefix) {
		id.User, id.Challenge, id.Subscription, err = s.service.ActionUser(ctx, token)
	} else {
		id, err = s.auth.verify(ctx, token)
	}
	if err != nil {
		return identity{}, fmt.Errorf("authenticate: %w", err)
	}
	if _, ok := s.service.Merchants[id.User.Merchant]; !ok {
		return identity{}, errUnauthorized
	}
	return id, nil
}

// user makes a handler for signed-in cardholders.
func (s *Server) user(handle func(*gin.Context, identity) error) gin.HandlerFunc {
	return s.authenticated(handle, func(*gin.Context, identity) bool { return false })
}

// device makes a handler that also takes the action token of the challenge that
// the path names.
func (s *Server) device(handle func(*gin.Context, identity) error) gin.HandlerFunc {
	return s.authenticated(handle, func(c *gin.Context, id identity) bool { return id.Challenge == c.Param("id") })
}

func (s *Server) authenticated(handle func(*gin.Context, identity) error, allowed func(*gin.Context, identity) bool) gin.HandlerFunc {
	return s.do(func(c *gin.Context) error {
		id, err := s.authenticate(c)
		if err != nil {
			return err
		}
		if id.Challenge != "" && !allowed(c, id) {
			return errUnauthorized
		}
		if err := s.users.take(id.User); err != nil {
			return err
		}
		return handle(c, id)
	})
}
