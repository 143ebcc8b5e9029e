package relay

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"approvalrelay/crypto"
	"approvalrelay/push"
)

// Page is one page of a list, newest first. Next continues it; "" at its end.
type Page struct {
	Challenges []Challenge
	Next       string
}

// List is the user's challenges: the pending and confirming ones, or all that
// retention still holds. A wrong cursor is a Refusal.
func (s *Service) List(ctx context.Context, u User, all bool, limit int, cursor string) (Page, error) {
	q := ChallengeQuery{User: u, Ended: all, Limit: limit + 1}
	if cursor != "" {
		var ok bool
		if q.Before, q.BeforeID, ok = parseCursor(cursor); !ok {
			return Page{}, Invalid("cursor", "This is not a cursor of this list; leave it out to begin again.")
		}
	}
	cards, err := s.store.Cards(ctx, u)
	if err != nil {
		return Page{}, fmt.Errorf("read the cards of the user: %w", err)
	}
	q.Cards = cards
	list, err := s.store.Challenges(ctx, q)
	if err != nil {
		return Page{}, fmt.Errorf("read the challenges of the user: %w", err)
	}
	var p Page
	if len(list) > limit {
		list = list[:limit]
		p.Next = formatCursor(list[limit-1])
	}
	now := s.store.Now()
	for _, c := range list {
		c = s.needing(c.At(now))
		if all || !c.Status.Final() {
			p.Challenges = append(p.Challenges, c)
		}
	}
	return p, nil
}

func formatCursor(c Challenge) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(c.CreatedAt.UnixMilli(), 36) + "." + c.ID))
}

func parseCursor(s string) (time.Time, string, bool) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return time.Time{}, "", false
	}
	at, id, ok := strings.Cut(string(b), ".")
	ms, err := strconv.ParseInt(at, 36, 64)
	if !ok || err != nil || !IsChallengeID(id) {
		return time.Time{}, "", false
	}
	return time.UnixMilli(ms), id, true
}

// Get is one challenge of the user: ErrNotFound for none and for somebody
// else's alike.
func (s *Service) Get(ctx context.Context, u User, id string) (Challenge, error) {
	if !IsChallengeID(id) {
		return Challenge{}, ErrNotFound
	}
	c, err := s.store.Challenge(ctx, id)
	if err != nil {
		return Challenge{}, fmt.Errorf("load challenge: %w", err)
	}
	if c.Owner() != u || u.ID == "" {
		return Challenge{}, ErrNotFound
	}
	return s.needing(c.At(s.store.Now())), nil
}

// confirmWait is how long an answer waits for the issuer to confirm.
const confirmWait = 3 * time.Second

// Decide takes the user's decision and waits up to 3 s for its outcome: the
// challenge is final then, else confirming. It refuses with a Refusal.
func (s *Service) Decide(ctx context.Context, u User, id string, d Decision) (c Challenge, err error) {
	ctx, span := s.begin(ctx, "decide", trace.SpanKindServer, "")
	defer func() { end(span, err, "challenge_id", c.ID, "merchant", c.Merchant, "status", string(c.Status)) }()
	watch := s.hub.watch(u) // before the decision, so that its outcome is not missed
	defer watch.Close()
	c, err = s.change(ctx, u, id, func(c Challenge, now time.Time) (Challenge, error) {
		m := s.Merchants[c.Merchant]
		return c.Decide(d, m != nil && m.Confirm, s.RequireShown, now)
	})
	if err != nil || c.Status != Confirming {
		return c, err
	}
	return s.awaitEnd(ctx, u, c, watch)
}

func (s *Service) awaitEnd(ctx context.Context, u User, c Challenge, watch *Watch) (Challenge, error) {
	limit := time.NewTimer(confirmWait)
	defer limit.Stop()
	for {
		select {
		case <-ctx.Done():
			return c, nil // decided and owed: only the outcome is still out
		case <-limit.C:
			return c, nil
		case id := <-watch.Changed:
			if id != c.ID {
				continue
			}
		case <-watch.Missed:
		}
		now, err := s.Get(ctx, u, c.ID)
		if err != nil {
			return c, nil // the decision stands; whoever asks again gets its outcome
		}
		if c = now; c.Status.Final() {
			return c, nil
		}
	}
}

// change swaps a challenge of the user.
func (s *Service) change(ctx context.Context, u User, id string, decide func(Challenge, time.Time) (Challenge, error)) (Challenge, error) {
	if !IsChallengeID(id) || u.ID == "" {
		return Challenge{}, ErrNotFound
	}
	return s.swap(ctx, id, func(c Challenge, now time.Time) (Challenge, error) {
		if c.Owner() != u {
			return c, ErrNotFound
		}
		return decide(s.needing(c), now)
	}, nil)
}

// Revealed is what a reveal answers: one of the two. It redacts itself.
type Revealed struct {
	crypto.Redacted
	OTP string
	URL string
}

// Reveal records that the code or link is read, and returns it.
func (s *Service) Reveal(ctx context.Context, u User, id string) (Revealed, error) {
	c, err := s.change(ctx, u, id, Challenge.Reveal)
	if err != nil {
		return Revealed{}, err
	}
	m := s.Merchants[c.Merchant]
	if m == nil {
		return Revealed{}, fmt.Errorf("reveal %s: its merchant is no longer configured", id)
	}
	f, err := secretFields(m, c)
	if err != nil {
		return Revealed{}, err
	}
	s.logReveal(ctx, c)
	if c.Method == MethodURL {
		return Revealed{URL: f.URL}, nil
	}
	return Revealed{OTP: f.OTP}, nil
}

// secretFields reads a live challenge's sealed body again.
func secretFields(m *Merchant, c Challenge) (Fields, error) {
	p, err := ParsePayload(c.Secret.Body)
	if err != nil {
		return Fields{}, fmt.Errorf("read the sealed body of challenge %s: %w", c.ID, err)
	}
	return m.Mapping.Read(p), nil
}

// Done says that the cardholder is finished with the code or link; it is wiped.
func (s *Service) Done(ctx context.Context, u User, id string) (Challenge, error) {
	return s.change(ctx, u, id, Challenge.Done)
}

// Watch watches the user's challenges on all nodes.
func (s *Service) Watch(u User) *Watch { return s.hub.watch(u) }

// ActionUser checks an action token: whose it is, and the challenge it is good
// for. It is void once the challenge has ended, and with its subscription.
func (s *Service) ActionUser(ctx context.Context, token string) (u User, challenge, subscription string, err error) {
	root, err := s.rootKey(ctx)
	if err != nil {
		return User{}, "", "", err
	}
	c, err := root.VerifyToken(token, s.store.Now())
	if err != nil {
		return User{}, "", "", err
	}
	u = User{Merchant: c.Merchant, ID: c.User}
	devices, err := s.store.Devices(ctx, u)
	if err != nil {
		return User{}, "", "", fmt.Errorf("read the user's devices: %w", err)
	}
	if d, ok := devices.Find(c.Subscription); !ok || !d.Active {
		return User{}, "", "", crypto.ErrToken
	}
	ch, err := s.Get(ctx, u, c.Challenge)
	if errors.Is(err, ErrNotFound) || err == nil && ch.Status.Final() {
		return User{}, "", "", crypto.ErrToken
	}
	return u, c.Challenge, c.Subscription, err
}

// ErrPushOff is the answer to everything about pushes where there are no keys.
var ErrPushOff = refuse(CodeNotConfigured, "Push is not configured here: the operator has set no push.vapid keys.")

// Subscribe registers a push subscription. A new or changed one is pending and
// is owed a push that carries its activation code: rate_limited beyond what one
// endpoint, or one user, may be owed of these. lang is what its notifications
// are written in, as push.Language knows it; empty if the device did not say.
func (s *Service) Subscribe(ctx context.Context, u User, p push.Subscription, label, lang string) (sub Subscription, created bool, err error) {
	if !s.Push.On {
		return Subscription{}, false, ErrPushOff
	}
	err = s.changeDevices(ctx, u, func(d Devices, now time.Time) (Devices, []Delivery, error) {
		partition := u.Partition(s.store.Partitions())
		d, sub, created = d.Add(p, label, lang, newID(prefixSubscription, partition, now), s.Push.MaxSubscriptions, now)
		if sub.Active {
			return d, nil, s.keepEndpoint(ctx, p)
		}
		return d, []Delivery{s.pushDelivery(u, sub.ID, NoticeActivation, now, activationTime)}, s.spendNotice(ctx, u, p)
	})
	return sub, created, err
}

// pushDelivery is a push that is about the subscription itself.
func (s *Service) pushDelivery(u User, sub string, n Notice, now time.Time, life time.Duration) Delivery {
	return Delivery{
		ID: newID(prefixDelivery, u.Partition(s.store.Partitions()), now), Kind: KindPush, Notice: n, Merchant: u.Merchant, UserID: u.ID,
		Target: sub, Status: DeliveryPending, CreatedAt: now, Deadline: now.Add(life),
	}
}

// changeDevices swaps a user's devices; a lost race is decided again. It owes the
// release of what is removed.
func (s *Service) changeDevices(ctx context.Context, u User, decide func(Devices, time.Time) (Devices, []Delivery, error)) error {
	return again("the user's devices changed", func() error {
		d, err := s.store.Devices(ctx, u)
		if err != nil {
			return fmt.Errorf("read the user's devices: %w", err)
		}
		now := s.store.Now().Truncate(time.Millisecond)
		next, owe, refusal := decide(d.Live(now), now)
		if refusal != nil && !errors.Is(refusal, errWrongCode) {
			return refusal
		}
		releases, err := s.releases(ctx, u, d, next)
		if err != nil {
			return err
		}
		// A wrong code is stored too: the try counts.
		if err := s.store.SaveDevices(ctx, next, append(owe, releases...)...); err != nil {
			return fmt.Errorf("store the user's devices: %w", err)
		}
		return refusal
	})
}

// Subscriptions of the user, pending ones included.
func (s *Service) Subscriptions(ctx context.Context, u User) ([]Subscription, error) {
	d, err := s.store.Devices(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("read the user's devices: %w", err)
	}
	return d.Live(s.store.Now()).List, nil
}

// Unsubscribe forgets a subscription; action tokens sent to it are void.
func (s *Service) Unsubscribe(ctx context.Context, u User, id string) error {
	err := s.changeDevices(ctx, u, func(d Devices, _ time.Time) (Devices, []Delivery, error) {
		d, ok := d.Remove(id)
		if !ok {
			return d, nil, ErrNotFound
		}
		return d, nil, nil
	})
	return err
}

// testLife is how long a test notification, or word of an ended challenge, is
// worth sending.
const testLife = 60 * time.Second

// TestPush owes a test notification to an active subscription.
func (s *Service) TestPush(ctx context.Context, u User, id string) error {
	if !s.Push.On {
		return ErrPushOff
	}
	err := s.changeDevices(ctx, u, func(d Devices, now time.Time) (Devices, []Delivery, error) {
		sub, ok := d.Find(id)
		switch {
		case !ok:
			return d, nil, ErrNotFound
		case !sub.Active:
			return d, nil, Invalid("id", "This subscription is not active yet; activate it with the code that was pushed to it.")
		}
		return d, []Delivery{s.pushDelivery(u, id, NoticeTest, now, testLife)}, s.spendNotice(ctx, u, sub.Push)
	})
	return err
}
