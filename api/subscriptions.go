package api

import (
	"net/http"
	"regexp"
	"time"

	"github.com/gin-gonic/gin"

	"approvalrelay/push"
	"approvalrelay/relay"
)

// maxLang is as much room as RFC 5646, section 4.4.1, asks for.
const maxLang = 35

// languageTag is the shape of a BCP 47 tag.
var languageTag = regexp.MustCompile(`^[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*$`)

// maxLabel is the length of a device's name in characters.
const maxLabel = 100

// pushKey is public: the app needs it before it can subscribe.
func (s *Server) pushKey(c *gin.Context) error {
	if s.vapidKey == "" {
		return relay.ErrPushOff
	}
	c.JSON(http.StatusOK, struct {
		Key string `json:"public_key"`
	}{s.vapidKey})
	return nil
}

// subscriptionView shows a subscription; never its endpoint, whose path is a
// secret, nor its keys.
type subscriptionView struct {
	ID         string    `json:"id"`
	Status     string    `json:"status"`
	Label      *string   `json:"label"`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at"`
	Host       string    `json:"endpoint_host"`
}

func viewSubscription(sub relay.Subscription) subscriptionView {
	v := subscriptionView{ID: sub.ID, Status: "pending", CreatedAt: sub.CreatedAt.UTC(), LastUsedAt: sub.UsedAt.UTC(), Host: sub.Push.Host()}
	if sub.Active {
		v.Status = "active"
	}
	if sub.Label != "" {
		v.Label = &sub.Label
	}
	return v
}

// subscribe takes PushSubscription.toJSON() (W3C Push API), a label and a
// language.
func (s *Server) subscribe(c *gin.Context, id identity) error {
	if s.vapidKey == "" {
		return relay.ErrPushOff
	}
	var body struct {
		Endpoint string `json:"endpoint"`
		Keys     struct {
			P256dh string `json:"p256dh"`
			Auth   string `json:"auth"`
		} `json:"keys"`
		Label string `json:"label"`
		Lang  string `json:"lang"`
	}
	if err := decodeLoosely(c, &body); err != nil {
		return err
	}
	if !validLabel(body.Label) {
		return errLabel
	}
	if body.Lang != "" {
		if len(body.Lang) > maxLang || !languageTag.MatchString(body.Lang) {
			return relay.Invalid("lang", "It must be a language tag (BCP 47) of at most 35 characters, such as de or pt-BR.")
		}
		body.Lang = push.Language(body.Lang)
	}
	p, err := s.policy.Parse(body.Endpoint, body.Keys.P256dh, body.Keys.Auth)
	if err != nil {
		return err
	}
	sub, created, err := s.service.Subscribe(c.Request.Context(), id.User, p, body.Label, body.Lang)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	c.JSON(status, viewSubscription(sub))
	return nil
}

func (s *Server) listSubscriptions(c *gin.Context, id identity) error {
	return s.showDevices(c, id.User)
}

func (s *Server) showDevices(c *gin.Context, u relay.User) error {
	subs, err := s.service.Subscriptions(c.Request.Context(), u)
	if err != nil {
		return err
	}
	c.JSON(http.StatusOK, listOf(subs, "", viewSubscription))
	return nil
}

func (s *Server) unsubscribe(c *gin.Context, id identity) error {
	if err := s.service.Unsubscribe(c.Request.Context(), id.User, c.Param("id")); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}

func (s *Server) activate(c *gin.Context, id identity) error {
	var body struct {
		Code string `json:"code"`
	}
	if err := decode(c, &body); err != nil {
		return err
	}
	if body.Code == "" {
		return relay.Invalid("code", "It is missing: the code that was pushed to the device.")
	}
	if err := s.service.Activate(c.Request.Context(), id.User, c.Param("id"), body.Code); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}

func (s *Server) testPush(c *gin.Context, id identity) error {
	if err := s.service.TestPush(c.Request.Context(), id.User, c.Param("id")); err != nil {
		return err
	}
	return accepted(c)
}

// accepted says that something is owed, and will be done.
func accepted(c *gin.Context) error {
	c.JSON(http.StatusAccepted, struct {
		Status string `json:"status"`
	}{"accepted"})
	return nil
}
