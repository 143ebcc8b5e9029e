package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"approvalrelay/relay"
)

// recentLogin is how long ago a cardholder may have signed in (the token's
// auth_time) to change passkeys: whoever finds an open session cannot make one of
// their own.
const recentLogin = 5 * time.Minute

var errRecentLogin = &relay.Refusal{Code: codeRecentLogin, Detail: "To add or remove a passkey the cardholder must have signed in within the last five minutes (the token's auth_time); sign in again."}

// insufficient is the challenge of RFC 9470, section 3.
var insufficient = `Bearer error="insufficient_user_authentication", error_description="A recent sign-in is needed", max_age=` + strconv.Itoa(int(recentLogin/time.Second))

// recent makes a handler for cardholders who signed in a moment ago.
func (s *Server) recent(handle func(*gin.Context, identity) error) gin.HandlerFunc {
	return s.user(func(c *gin.Context, id identity) error {
		if id.AuthTime.IsZero() || s.auth.now().Sub(id.AuthTime) > recentLogin+s.auth.leeway {
			return errRecentLogin
		}
		return handle(c, id)
	})
}

// passkeyView shows a passkey.
type passkeyView struct {
	ID         string     `json:"id"`
	Label      *string    `json:"label"`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
}

func viewPasskey(k relay.Passkey) passkeyView {
	v := passkeyView{ID: k.ID, CreatedAt: k.CreatedAt.UTC()}
	if k.Label != "" {
		v.Label = &k.Label
	}
	if !k.UsedAt.IsZero() {
		at := k.UsedAt.UTC()
		v.LastUsedAt = &at
	}
	return v
}

// options is what a browser's navigator.credentials takes.
type options struct {
	PublicKey json.RawMessage `json:"publicKey"`
	Shown     *relay.Shown    `json:"shown,omitempty"` // what is signed with it
}

func (s *Server) listPasskeys(c *gin.Context, id identity) error { return s.showPasskeys(c, id.User) }

func (s *Server) showPasskeys(c *gin.Context, u relay.User) error {
	list, err := s.service.Passkeys(c.Request.Context(), u)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, listOf(list, "", viewPasskey))
	return nil
}

func (s *Server) enrolPasskey(c *gin.Context, id identity) error {
	if err := decode(c, &struct{}{}); err != nil {
		return err
	}
	creation, err := s.service.EnrolPasskey(c.Request.Context(), id.User)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, options{PublicKey: creation})
	return nil
}

func (s *Server) addPasskey(c *gin.Context, id identity) error {
	var body struct {
		Label   string          `json:"label"`
		Passkey json.RawMessage `json:"passkey"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	if !validLabel(body.Label) {
		return errLabel
	}
	if len(body.Passkey) == 0 {
		return relay.Invalid("passkey", "It is missing: what navigator.credentials.create answered, as JSON.")
	}
	k, err := s.service.AddPasskey(c.Request.Context(), id.User, body.Passkey, body.Label)
	if err != nil {
		return err
	}
	c.JSON(http.StatusCreated, viewPasskey(k))
	return nil
}

func (s *Server) removePasskey(c *gin.Context, id identity) error {
	return s.forgetPasskey(c, id.User)
}

// forgetPasskey forgets the one that the path names, or all.
func (s *Server) forgetPasskey(c *gin.Context, u relay.User) error {
	if err := s.service.RemovePasskey(c.Request.Context(), u, c.Param("id")); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}

// stepUp begins the confirmation of an approval.
func (s *Server) stepUp(c *gin.Context, id identity) error {
	if err := decode(c, &struct{}{}); err != nil {
		return err
	}
	o, err := s.service.OfferStepUp(c.Request.Context(), id.User, c.Param("id"))
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, options{o.Options, &o.Shown})
	return nil
}

var errLabel = relay.Invalid("label", "It must be at most 100 printable characters.")

func validLabel(label string) bool {
	return utf8.RuneCountInString(label) <= maxLabel && !strings.ContainsFunc(label, func(r rune) bool { return !unicode.IsPrint(r) })
}
