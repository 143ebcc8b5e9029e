package relay

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// CrowdSize is how many challenges of a holder are looked at to decide about one:
// those that are on its cardholder's screen are among the newest.
const CrowdSize = 32

// Crowd is what surrounds a challenge: it decides whether that one rings, and on
// which notification.
type Crowd struct {
	Muted  bool     // pushes for its holder are silenced
	Recent int      // challenges of its holder and owner created within a time before it, itself included, without those that had ended when they came
	Newer  int      // live challenges of its holder created after it
	Others []string // the holder's newest live challenges without it, newest first: at most CrowdSize
}

// Why a challenge is listed and not pushed.
const (
	silenceNoOwner = "nobody knows whose the card is"
	silencePushOff = "there are no push.vapid keys"
	silenceMuted   = "pushes are muted, because the cardholder reported fraud (push.mute_after_report)"
	silenceRecent  = "the card has had too many challenges of late (push.per_card_limit)"
	silenceOld     = "the card has newer challenges that wait, as many as may ring (push.per_card_limit)"
	silenceLike    = "a newer challenge like it has rung already"
)

// plan is what was read to decide about an announcement: whom to ring, or that
// nobody may be rung.
type plan struct {
	owner   string // that it was made for
	devices Devices
	tag     string // of the notification that it takes over; "": one of its own
	silence string // why it is listed and not pushed; "" if it may be pushed
	quiet   bool   // that is on purpose: nobody has to be told by other means
}

// plan reads the devices and the crowd, and other challenges only if there are any
// that this one may share a notification with.
func (w *Worker) plan(ctx context.Context, c Challenge) (plan, error) {
	p := plan{owner: c.UserID}
	switch {
	case c.Status != Pending:
		return p, nil
	case c.UserID == "":
		p.silence = silenceNoOwner
		return p, nil
	case !w.svc.Push.On:
		p.silence = silencePushOff
	}
	crowd, devices, err := w.svc.store.Around(ctx, c, w.svc.Push.CardWindow)
	if err != nil {
		return p, fmt.Errorf("read what surrounds the challenge: %w", err)
	}
	p.devices = devices
	switch why := w.svc.Push.silence(c, crowd); {
	case why != "":
		p.silence, p.quiet = why, true
	case p.silence == "":
		others, err := w.svc.others(ctx, crowd)
		if err != nil {
			return p, err
		}
		now := w.svc.store.Now()
		if p.tag = sharedTag(c, others, now); overtaken(c, p.tag, others, now) {
			p.silence, p.quiet = silenceLike, true
		}
	}
	return p, nil
}

// others are the challenges around one, without those that are forgotten.
func (s *Service) others(ctx context.Context, crowd Crowd) ([]Challenge, error) {
	if len(crowd.Others) == 0 {
		return nil, nil
	}
	list, err := s.store.Named(ctx, crowd.Others)
	if err != nil {
		return nil, fmt.Errorf("read the holder's other challenges: %w", err)
	}
	return list, nil
}

// silence is why a challenge may not ring, "" if it may. One that has waited for
// its owner is not held against what came while nobody could be rung: of these
// the newest ring, for they are what the cardholder is waiting for, if anything.
func (o PushOptions) silence(c Challenge, crowd Crowd) string {
	waited := c.Announced && c.Silence == silenceNoOwner
	switch {
	case crowd.Muted:
		return silenceMuted
	case waited && crowd.Newer >= o.CardCount:
		return silenceOld
	case !waited && crowd.Recent > o.CardCount:
		return silenceRecent
	}
	return ""
}

// like tells whether another challenge asks the cardholder the same: nobody could
// tell their notifications apart. One without an owner is about to get c's.
func (c Challenge) like(o Challenge) bool {
	return c.Holder() == o.Holder() && (c.UserID == o.UserID || o.UserID == "") && c.Kind == o.Kind && c.Method == o.Method && c.Currency == o.Currency &&
		c.Payee == o.Payee && (c.Amount == o.Amount || SameAmount(c.Amount, o.Amount))
}

// tag names the notification that the challenge is on.
func (c Challenge) tag() string {
	if c.Tag != "" {
		return c.Tag
	}
	return c.ID
}

// rings tells whether the challenge has a notification that waits for an answer.
func (c Challenge) rings(now time.Time) bool {
	return c.PushesOwed > 0 && c.At(now).Status == Pending
}

// sharedTag is the tag of the notification that c takes over from one like it, ""
// if there is none. Of several that are announced at the same time, as when their
// card gets its owner, all choose the oldest's.
func sharedTag(c Challenge, others []Challenge, now time.Time) string {
	tag, oldest := "", c.ID
	for _, o := range others {
		switch {
		case !c.like(o) || o.At(now).Status != Pending:
		case o.rings(now):
			if tag == "" { // the newest's, and all have the same
				tag = o.tag()
			}
		case !o.Announced || o.Silence == silenceNoOwner:
			oldest = min(oldest, o.ID)
		}
	}
	if tag == "" {
		tag = oldest
	}
	if tag == c.ID {
		return ""
	}
	return tag
}

// overtaken tells whether the notification that c would be on, or is, already says
// what a newer challenge asks, which still waits.
func overtaken(c Challenge, tag string, others []Challenge, now time.Time) bool {
	if tag == "" {
		tag = c.ID
	}
	return slices.ContainsFunc(others, func(o Challenge) bool {
		return o.CreatedAt.After(c.CreatedAt) && o.UserID == c.UserID && o.tag() == tag && o.rings(now)
	})
}

// outdated tells why an announcement that was owed a while ago may not ring any
// more; "" if it may. What is sent at once was planned a moment before.
func (w *Worker) outdated(ctx context.Context, d Delivery, c Challenge) (string, error) {
	if now := w.svc.store.Now(); d.Tries == 0 && now.Sub(d.CreatedAt) < planLife {
		return "", nil
	}
	crowd, _, err := w.svc.store.Around(ctx, c, w.svc.Push.CardWindow)
	if err != nil {
		return "", fmt.Errorf("read what surrounds the challenge: %w", err)
	}
	if crowd.Muted {
		return silenceMuted, nil
	}
	taken, err := w.takenOver(ctx, c, crowd)
	if taken {
		return silenceLike, err
	}
	return "", err
}

// planLife is how long a plan holds without another look.
const planLife = time.Second

// takenOver tells whether a newer challenge is on c's notification.
func (w *Worker) takenOver(ctx context.Context, c Challenge, crowd Crowd) (bool, error) {
	others, err := w.svc.others(ctx, crowd)
	return err == nil && overtaken(c, c.tag(), others, w.svc.store.Now()), err
}
