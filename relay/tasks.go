package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// announce tells the devices of a challenge's owner about it: it owes one push
// to each, and says so at once if there is none. A challenge without an owner
// waits until its card gets one. The older challenge that it replaces is
// withdrawn first.
func (w *Worker) announce(ctx context.Context, lease Lease) error {
	d := lease.Delivery
	if err := w.supersede(ctx, d); err != nil {
		return err
	}
	c, err := w.subject(ctx, lease)
	if errors.Is(err, ErrNotFound) {
		return w.settle(ctx, lease, d, Step{})
	}
	if err != nil {
		return fmt.Errorf("load the challenge to announce: %w", err)
	}
	ctx, span := w.svc.begin(ctx, string(KindAnnounce), trace.SpanKindInternal, c.Trace)
	defer end(span, nil, "challenge_id", c.ID, "event_id", c.EventID(), "merchant", c.Merchant, "type", c.Type)
	plan, err := w.plan(ctx, c)
	if err != nil {
		return err
	}
	return w.swapRecord(ctx, lease, d, &c, func(c Challenge, now time.Time) (Challenge, func(*Step)) {
		return w.announced(c, plan, now)
	})
}

// subject is the challenge that a delivery is about. What was handed over with the
// lease is good for the first try: whether it has changed since, its version tells.
func (w *Worker) subject(ctx context.Context, lease Lease) (Challenge, error) {
	if lease.Known != nil {
		return *lease.Known, nil
	}
	return w.svc.store.Challenge(ctx, lease.Delivery.ChallengeID)
}

// announced is the pure part: the challenge as announced, and what that owes.
// One that got its owner since the plan was made is planned again.
func (w *Worker) announced(c Challenge, p plan, now time.Time) (Challenge, func(*Step)) {
	if c.UserID != p.owner {
		return c, func(st *Step) { st.Owe = append(st.Owe, Delivery{Kind: KindAnnounce, ChallengeID: c.ID}) }
	}
	next := c
	first := !c.Announced
	next.Announced = true
	var owe []Delivery
	pending := c.At(now).Status == Pending
	if pending && p.silence == "" {
		for _, sub := range p.devices.Active() {
			d := w.svc.delivery(KindPush, c, now)
			d.Notice, d.Target, d.Deadline = NoticeAnnounce, sub.ID, c.ExpiresAt
			owe = append(owe, d)
		}
	}
	next.PushesOwed += len(owe)
	switch {
	case len(owe) > 0:
		next.Silence, next.Tag = "", p.tag
	case !pending:
		next.Silence = "it had ended before anybody could be told"
	case p.silence == "":
		next.Silence = "the cardholder has no active device"
	default:
		next.Silence = p.silence
	}
	return next, func(st *Step) {
		st.Owe = append(st.Owe, owe...)
		if first {
			w.svc.owe(&st.Owe, &st.Own, c.ownEvent("created", st.Partition, now))
		}
		if len(owe) == 0 && pending && !p.quiet {
			w.svc.owe(&st.Owe, &st.Own, next.ownEvent("unreachable", st.Partition, now))
		}
	}
}

// supersede leaves one of all challenges with one card and reference: the newest.
func (w *Worker) supersede(ctx context.Context, d Delivery) error {
	for _, id := range d.Supersedes {
		if err := w.replace(ctx, id, d.ChallengeID); err != nil {
			return err
		}
	}
	return nil
}

// replace withdraws the older of two challenges.
func (w *Worker) replace(ctx context.Context, olderID, newerID string) error {
	older, err := w.svc.store.Challenge(ctx, olderID)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load the superseded challenge: %w", err)
	}
	newer, err := w.svc.store.Challenge(ctx, newerID)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load the superseding challenge: %w", err)
	}
	lost := older.ID
	if !newer.Supersedes(older) {
		lost = newer.ID
	}
	_, err = w.svc.swap(ctx, lost, func(c Challenge, now time.Time) (Challenge, error) { return c.Cancel("superseded", now), nil }, nil)
	return err
}

// swapRecord settles a delivery, or an inner step, together with the challenge that
// it is about; a lost race is decided again. known is the challenge if it has just
// been loaded, or nil.
func (w *Worker) swapRecord(ctx context.Context, lease Lease, d Delivery, known *Challenge, decide func(Challenge, time.Time) (Challenge, func(*Step))) error {
	var complete func(*Step)
	err := w.persist(ctx, d, func() error {
		first := known
		known = nil // the store was away: by then it may have changed
		_, err := w.svc.swapFrom(ctx, d.ChallengeID, first, func(c Challenge, now time.Time) (next Challenge, err error) {
			next, complete = decide(c, now)
			return next, nil
		}, func(st *Step) {
			st.Partition, st.Settle = lease.Partition, &lease
			st.Delivery = record(d)
			complete(st)
		})
		return err
	})
	if errors.Is(err, ErrNotFound) { // forgotten: only the lease is left
		return w.settle(ctx, lease, d, Step{})
	}
	if err == nil {
		w.settled(ctx, lease, d)
	}
	return err
}

func nothingElse(*Step) {}

// tellEnded owes every device of the owner a word that the challenge has ended, or
// can only be rejected, so that no stale notification stays. The one that decided
// knows already, unless the decision came to nothing: its page may be closed by
// then. A notification that a newer challenge has taken over stays as it is, for
// that one still waits.
func (w *Worker) tellEnded(ctx context.Context, lease Lease) error {
	c, err := w.svc.store.Challenge(ctx, lease.Delivery.ChallengeID)
	if errors.Is(err, ErrNotFound) {
		return w.settle(ctx, lease, lease.Delivery, Step{})
	}
	if err != nil {
		return fmt.Errorf("load the ended challenge: %w", err)
	}
	ctx, span := w.svc.begin(ctx, string(KindEnded), trace.SpanKindInternal, c.Trace)
	defer end(span, nil, "challenge_id", c.ID, "event_id", c.EventID(), "merchant", c.Merchant, "status", string(c.Status))
	crowd, devices, err := w.svc.store.Around(ctx, c, w.svc.Push.CardWindow)
	if err != nil {
		return fmt.Errorf("read what surrounds the challenge: %w", err)
	}
	taken, err := w.takenOver(ctx, c, crowd)
	if err != nil {
		return err
	}
	if taken {
		return w.settle(ctx, lease, lease.Delivery, Step{})
	}
	var st Step
	now := w.svc.store.Now()
	for _, sub := range devices.Active() {
		if c.Decision != nil && c.Decision.Device.SubscriptionID == sub.ID && c.Status != Failed {
			continue
		}
		d := w.svc.delivery(KindPush, c, now)
		d.Notice, d.Target, d.Deadline = NoticeEnded, sub.ID, now.Add(testLife)
		st.Owe = append(st.Owe, d)
	}
	return w.settle(ctx, lease, lease.Delivery, st)
}

// confirmGrace is how long after its expiry a challenge may still be confirming,
// for the attempt under way to tell how it ended.
const confirmGrace = 2 * time.Second

// expire ends a challenge whose time is up, or looks again when it will be.
func (w *Worker) expire(ctx context.Context, lease Lease) error {
	return w.swapRecord(ctx, lease, lease.Delivery, nil, func(c Challenge, now time.Time) (Challenge, func(*Step)) {
		next := c.Expire(confirmGrace, now)
		if next.Status.Final() {
			return next, nothingElse
		}
		again := c.ExpiresAt
		if c.Status == Confirming {
			again = again.Add(confirmGrace)
		}
		return next, func(st *Step) {
			st.Owe = append(st.Owe, Delivery{Kind: KindExpire, ChallengeID: c.ID, Next: again})
		}
	})
}

// learn indexes a card under its owner and gives the owner the card's pending
// challenges that have none.
func (w *Worker) learn(ctx context.Context, lease Lease) error {
	d := lease.Delivery
	u := User{Merchant: d.Merchant, ID: d.UserID}
	if err := w.svc.store.IndexCard(ctx, u, d.CardID); err != nil {
		return fmt.Errorf("index the card under its user: %w", err)
	}
	h := Holder{Merchant: d.Merchant, CardID: d.CardID}
	waiting, err := w.svc.store.Unassigned(ctx, h)
	if err != nil {
		return fmt.Errorf("list the card's unassigned challenges: %w", err)
	}
	if len(waiting) > 0 {
		// The owner as it is now: the lesson may have been overtaken.
		owner, err := w.svc.store.Owner(ctx, h)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("read the card's owner: %w", err)
		}
		for _, c := range waiting {
			_, err := w.svc.swap(ctx, c.ID, func(c Challenge, _ time.Time) (Challenge, error) {
				if c.Status.Final() {
					return c, nil
				}
				return c.Assign(owner.UserID), nil
			}, nil)
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
	}
	return w.settle(ctx, lease, d, Step{})
}
