package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Timeline is the life of one challenge, from the webhook to what the issuer said.
type Timeline struct {
	Challenge View       `json:"challenge"`
	Event     *EventView `json:"event"` // null once it is forgotten
	Entries   []Entry    `json:"entries"`
}

// Entry is one thing that happened, or is to happen.
type Entry struct {
	At         time.Time `json:"at"`
	What       string    `json:"what"` // webhook, announced, revealed, decision, end, follow_up, or the kind of a delivery
	Detail     string    `json:"detail"`
	OK         *bool     `json:"ok"` // of an attempt; null for all else
	DeliveryID string    `json:"delivery_id,omitempty"`
}

// OperatorChallenge is any challenge, by id: ErrNotFound.
func (s *Service) OperatorChallenge(ctx context.Context, id string) (Challenge, error) {
	if !IsChallengeID(id) {
		return Challenge{}, ErrNotFound
	}
	c, err := s.store.Challenge(ctx, id)
	if err != nil {
		return Challenge{}, fmt.Errorf("load challenge: %w", err)
	}
	return c.At(s.store.Now()), nil
}

// Timeline of a challenge: ErrNotFound.
func (s *Service) Timeline(ctx context.Context, id string) (Timeline, error) {
	c, err := s.OperatorChallenge(ctx, id)
	if err != nil {
		return Timeline{}, err
	}
	t := Timeline{Challenge: c.OperatorView()}
	ev, err := s.EventRecord(ctx, c.EventID())
	if errors.Is(err, ErrNotFound) {
		t.Entries = c.entries(nil)
		return t, nil
	}
	if err != nil {
		return Timeline{}, err
	}
	t.Event = &ev
	deliveries, err := s.deliveriesOf(ctx, c.EventID())
	if err != nil {
		return Timeline{}, err
	}
	t.Entries = c.entries(deliveries)
	return t, nil
}

// entries is the pure part: all that a challenge and its deliveries tell, in order.
func (c Challenge) entries(deliveries []Delivery) []Entry {
	all := []Entry{{At: c.CreatedAt, What: "webhook", Detail: c.Type + " for " + string(c.Method)}}
	add := func(at time.Time, what, detail string) {
		if !at.IsZero() {
			all = append(all, Entry{At: at, What: what, Detail: detail})
		}
	}
	if c.Announced {
		detail := fmt.Sprintf("a push to each of %d devices", c.PushesOwed)
		if c.PushesOwed == 1 {
			detail = "a push to one device"
		}
		if c.Silence != "" {
			detail = "to no device: " + c.Silence
		}
		add(c.CreatedAt, "announced", detail)
	}
	add(c.RevealedAt, "revealed", "the code or link was shown")
	if d := c.Decision; d != nil {
		add(d.DecidedAt, "decision", d.describe())
	}
	for _, d := range deliveries {
		all = append(all, d.entries()...)
	}
	if c.Status.Final() {
		add(cmp.Or(c.EndedAt, c.ExpiresAt), "end", c.ending())
	}
	for i := range all {
		all[i].At = all[i].At.UTC().Truncate(time.Millisecond) // as challenges have it
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.rank(), b.rank())) })
	return all
}

// rank is the order of what happened in the same millisecond.
func (e Entry) rank() int {
	return slices.Index([]string{"webhook", "announced", string(KindPush), "revealed", "decision", string(KindConfirm), string(KindLock), "end", whatFollowUp, string(KindForward)}, e.What)
}

// whatFollowUp is a push that says that the challenge has ended.
const whatFollowUp = "follow_up"

func (d Decision) describe() string {
	text := string(d.Action)
	if d.Reason != "" {
		text += " (" + d.Reason + ")"
	}
	if d.Proof != nil {
		text += " with the passkey " + d.Proof.PasskeyID
	}
	switch {
	case d.Device.SubscriptionID != "":
		text += " on a notification of " + d.Device.SubscriptionID
	case d.Device.IP != "":
		text += " from " + d.Device.IP
	}
	return text
}

func (c Challenge) ending() string {
	switch {
	case c.Failure != nil:
		return string(c.Status) + ": " + c.Failure.Detail
	case c.Note != "":
		return string(c.Status) + ": " + c.Note
	}
	return string(c.Status)
}

// entries are the attempts of a delivery, and the next one.
func (d Delivery) entries() []Entry {
	var all []Entry
	to := d.Target
	if to == "" {
		to = "the issuer"
	}
	what := string(d.Kind)
	if d.Notice == NoticeEnded {
		what = whatFollowUp
	}
	for i, a := range d.Attempts {
		ok := i == len(d.Attempts)-1 && d.Status == DeliveryDelivered
		detail := "to " + to
		if a.StatusCode != 0 {
			detail += fmt.Sprintf(": %d after %d ms", a.StatusCode, a.Latency.Milliseconds())
		}
		if a.Error != "" {
			detail += ": " + a.Error
		}
		all = append(all, Entry{At: a.At, What: what, Detail: detail, OK: &ok, DeliveryID: d.ID})
	}
	switch {
	case !d.Next.IsZero():
		all = append(all, Entry{At: d.Next, What: what, Detail: "to " + to + ": will be tried again", DeliveryID: d.ID})
	case len(d.Attempts) == 0 || d.Status == DeliveryParked:
		all = append(all, Entry{At: d.CreatedAt, What: what, Detail: "to " + to + ": waits", DeliveryID: d.ID})
	}
	return all
}
