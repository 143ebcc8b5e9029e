package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/push"
)

// The schedules that are not configured. A push is worth sending only while its
// challenge lives, so its deadline ends it; a lock is worth a day.
var (
	pushSchedule = Schedule{Retry: []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second}, RepeatLast: true}
	lockSchedule = Schedule{Retry: []time.Duration{500 * time.Millisecond, 2 * time.Second, 10 * time.Second, 30 * time.Second, 2 * time.Minute,
		10 * time.Minute, 30 * time.Minute, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour}}
)

// push sends one push. What has become pointless, because the subscription is
// gone or the challenge is over, is settled without an attempt.
func (w *Worker) push(ctx context.Context, lease Lease) error {
	d := lease.Delivery
	u := User{Merchant: d.Merchant, ID: d.UserID}
	devices, c, err := w.svc.store.ForPush(ctx, u, d.ChallengeID)
	if err != nil {
		return fmt.Errorf("read the owner's devices and the challenge: %w", err)
	}
	sub, ok := devices.Find(d.Target)
	if !ok || !sub.Active && d.Notice != NoticeActivation { // new keys are owed their activation only
		return w.pushEnded(ctx, lease, w.dropped(d, "the subscription is gone"))
	}
	msg, why, err := w.message(ctx, d, c, u, sub)
	if err != nil {
		return err
	}
	if why != "" {
		return w.settle(ctx, lease, w.dropped(d, why), Step{})
	}
	at := w.svc.store.Now()
	res := w.out.Pusher.Send(ctx, sub.Push, msg)
	o := pushOutcome(res, at)
	if o.Verdict == Gone {
		if err := w.persist(ctx, d, func() error { return w.forget(ctx, u, sub.ID) }); err != nil {
			return err
		}
	}
	return w.pushEnded(ctx, lease, d.After(o, pushSchedule, w.svc.store.Now(), jitter()))
}

// dropped ends a delivery that nobody needs any more.
func (w *Worker) dropped(d Delivery, why string) Delivery {
	d.Status = DeliveryDead
	d.Attempts = append(d.Attempts, Attempt{At: w.svc.store.Now(), Error: "not sent: " + why})
	return d
}

// forget removes a subscription that its push service does not know any more.
func (w *Worker) forget(ctx context.Context, u User, id string) error {
	err := w.svc.Unsubscribe(ctx, u, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// pushEnded settles a push. A device whose first attempt failed counts as not
// reached, although it is tried again: when that is so for all of them the team
// must hear it while there is time to send a message by other means.
func (w *Worker) pushEnded(ctx context.Context, lease Lease, d Delivery) error {
	if d.Status == DeliveryDelivered || d.Notice != NoticeAnnounce || lease.Delivery.Tries > 0 {
		return w.settle(ctx, lease, d, Step{})
	}
	return w.swapRecord(ctx, lease, d, nil, func(c Challenge, now time.Time) (Challenge, func(*Step)) {
		next := c
		next.PushesFailed++
		return next, func(st *Step) {
			if next.PushesFailed >= next.PushesOwed && next.At(now).Status == Pending {
				w.svc.owe(&st.Owe, &st.Own, next.ownEvent("unreachable", st.Partition, now))
			}
		}
	})
}

func pushOutcome(r push.Result, at time.Time) Outcome {
	o := Outcome{RetryAfter: r.RetryAfter, Attempt: Attempt{At: at, StatusCode: r.StatusCode, Latency: r.Latency, Response: ScrubText(r.Response)}}
	if r.Err != nil {
		o.Attempt.Error = r.Err.Error()
	}
	switch r.Verdict {
	case push.Delivered:
		o.Verdict = Delivered
	case push.Gone:
		o.Verdict = Gone
	case push.Fault:
		o.Verdict = Faulty
	default:
		o.Verdict = TryAgain
	}
	return o
}

// message is what a push says, or why it is pointless. known is the challenge that it
// is about, if there is one.
func (w *Worker) message(ctx context.Context, d Delivery, known *Challenge, u User, sub Subscription) (m push.Message, why string, err error) {
	now := w.svc.store.Now()
	apple := sub.Push.Apple()
	switch d.Notice {
	case NoticeTest, NoticeActivation, NoticePasskey:
		if !now.Before(d.Deadline) {
			return m, "it is too late", nil
		}
		m = push.Message{TTL: d.Deadline.Sub(now), Urgency: "high", Payload: push.TestPayload(sub.Lang, w.svc.PublicURL, apple)}
		switch d.Notice {
		case NoticePasskey:
			m.Payload = push.PasskeyPayload(sub.Lang, w.svc.PublicURL, apple)
		case NoticeActivation:
			root, err := w.svc.rootKey(ctx)
			if err != nil {
				return m, "", err
			}
			m.Payload = push.ActivationPayload(sub.ID, activationCode(root, u, sub), sub.Lang, w.svc.PublicURL, apple)
		}
		return m, "", nil
	}
	if known == nil {
		return m, "the challenge is forgotten", nil
	}
	c := known.At(now)
	if d.Notice == NoticeAnnounce && c.Status != Pending {
		return m, "the challenge has ended", nil
	}
	n := w.notice(c, sub.Lang)
	m = push.Message{Urgency: "high", Topic: push.Topic(c.tag()), TTL: testLife}
	switch {
	case d.Notice != NoticeEnded:
	case c.Status == Pending: // of what is not over, devices are told in this way only that
		n.Phase = push.Blocked
	default:
		n.Phase = push.Ended
		m.Payload = n.Payload(apple)
		return m, "", nil
	}
	if why, err := w.outdated(ctx, d, c); why != "" || err != nil {
		return m, why, err
	}
	if err := w.live(ctx, &n, c, u, sub); err != nil {
		return m, "", err
	}
	m.TTL, m.Payload = c.ExpiresAt.Sub(now), n.Payload(apple)
	return m, "", nil
}

func (w *Worker) notice(c Challenge, lang string) push.Notice {
	return push.Notice{
		Phase: push.Announce, ChallengeID: c.ID, Tag: c.Tag, Kind: string(c.Kind), Method: string(c.Method), Status: string(c.Status),
		Amount: c.Amount, Currency: c.Currency, Payee: c.Payee, Last4: c.Last4, Wallet: c.Wallet,
		ExpiresAt: c.ExpiresAt, PublicURL: w.svc.PublicURL, Minimal: w.svc.Push.Minimal, Lang: lang, StepUp: c.StepUp != nil,
	}
}

// live adds what only an announcement carries: the token that lets the worker of
// this one device answer, and the code where the operator wants it.
func (w *Worker) live(ctx context.Context, n *push.Notice, c Challenge, u User, sub Subscription) error {
	if w.svc.Push.ActionToken {
		root, err := w.svc.rootKey(ctx)
		if err != nil {
			return err
		}
		n.ActionToken = root.SignToken(crypto.Claims{Merchant: u.Merchant, User: u.ID, Challenge: c.ID, Subscription: sub.ID, Expires: c.ExpiresAt})
	}
	if m := w.svc.Merchants[c.Merchant]; w.svc.Push.IncludeOTP && c.Method == MethodOTP && m != nil {
		f, err := secretFields(m, c)
		if err != nil {
			return err
		}
		n.OTP = f.OTP
	}
	return nil
}

// confirm tells the issuer the decision. An attempt ends with the challenge's
// life, so that what is told to the cardholder then stays true.
func (w *Worker) confirm(ctx context.Context, lease Lease) error {
	d := lease.Delivery
	c, err := w.subject(ctx, lease)
	if errors.Is(err, ErrNotFound) || err == nil && c.Status != Confirming {
		return w.settle(ctx, lease, w.dropped(d, "the challenge has ended"), Step{})
	}
	if err != nil {
		return fmt.Errorf("load the challenge to confirm: %w", err)
	}
	link(ctx, c.Trace)
	o := Outcome{Verdict: Refused}
	now := w.svc.store.Now()
	if left := c.ExpiresAt.Sub(now); left > 0 {
		o = w.askIssuer(ctx, w.out.Issuer.Confirm, c, d, c.Secret.Body, left)
		d = d.After(o, w.retryOf(c.Merchant), w.svc.store.Now(), jitter())
	} else {
		d.Status = DeliveryDead
	}
	if d.Status == DeliveryPending {
		return w.settle(ctx, lease, d, Step{})
	}
	failure := confirmFailure(d, o)
	return w.swapRecord(ctx, lease, d, &c, func(c Challenge, now time.Time) (Challenge, func(*Step)) {
		return c.Confirmed(failure, now), nothingElse
	})
}

func (w *Worker) retryOf(merchant string) Schedule {
	if m := w.svc.Merchants[merchant]; m != nil {
		return m.Retry
	}
	return Schedule{}
}

// confirmFailure is why a confirm ended without the issuer's yes; nil for yes.
func confirmFailure(d Delivery, o Outcome) *Failure {
	switch {
	case d.Status == DeliveryDelivered:
		return nil
	case d.Unclear:
		return &Failure{Code: FailureUnknown, Detail: "The issuer did not answer in time; it may have taken the decision."}
	case o.Verdict == Refused && len(d.Attempts) > 0 && o.Attempt.StatusCode != 0:
		return &Failure{Code: IssuerRefused, Detail: fmt.Sprintf("The issuer refused the decision with status %d.", o.Attempt.StatusCode)}
	}
	return &Failure{Code: IssuerUnreachable, Detail: "The issuer could not be reached before the challenge expired."}
}

// askIssuer makes one attempt of a confirm or lock.
func (w *Worker) askIssuer(ctx context.Context, ask func(context.Context, IssuerCall) Outcome, c Challenge, d Delivery, body []byte, left time.Duration) Outcome {
	at := w.svc.store.Now()
	fail := func(why string) Outcome {
		return Outcome{Verdict: Faulty, Attempt: Attempt{At: at, Error: why}}
	}
	m := w.svc.Merchants[c.Merchant]
	if m == nil {
		return fail("the merchant is no longer configured")
	}
	p, err := ParsePayload(body)
	if err != nil {
		return fail("the event's body can no longer be read")
	}
	f := m.Mapping.Read(p)
	call := IssuerCall{Merchant: c.Merchant, ChallengeID: c.ID, CardID: f.CardID, UserID: c.UserID, Reference: f.Reference, Payload: p}
	if c.Decision != nil {
		call.Action = c.Decision.Action
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	o := ask(ctx, call)
	o.Attempt.At = at
	o.Attempt.Response = ScrubText(o.Attempt.Response, f.OTP, f.URL)
	return o
}

// lockTime bounds one attempt to lock a card beside the issuer's own timeout.
const lockTime = time.Minute

// lock asks the issuer to lock a card whose holder said "not me".
func (w *Worker) lock(ctx context.Context, lease Lease) error {
	d := lease.Delivery
	c, err := w.svc.store.Challenge(ctx, d.ChallengeID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("load the challenge to lock for: %w", err)
	}
	link(ctx, c.Trace)
	c.ID, c.Merchant, c.UserID = d.ChallengeID, d.Merchant, d.UserID
	o := w.askIssuer(ctx, w.out.Issuer.Lock, c, d, d.Secret.Body, lockTime)
	return w.settle(ctx, lease, d.After(o, lockSchedule, w.svc.store.Now(), jitter()), Step{})
}

// forward posts an event to a target. A target that answers 410 is parked: its
// deliveries are kept until it is resumed.
func (w *Worker) forward(ctx context.Context, l *lane, lease Lease) error {
	d := lease.Delivery
	t, ok := w.svc.target(d.Target)
	if !ok {
		return w.bury(ctx, lease, "its target is no longer configured")
	}
	if l.paused.Load() {
		return w.park(ctx, lease, d)
	}
	ev, err := w.svc.event(ctx, d.EventID)
	if errors.Is(err, ErrNotFound) {
		return w.bury(ctx, lease, "the event is no longer stored (retention.events)")
	}
	if err != nil {
		return fmt.Errorf("load the event to forward: %w", err)
	}
	msg, secrets, err := w.outgoing(ctx, t, ev, d)
	if err != nil {
		return err
	}
	if t.Envelope && msg.Envelope == nil {
		return w.bury(ctx, lease, "the issuer's envelope is no longer stored: its challenge has ended")
	}
	at := w.svc.store.Now()
	o := w.out.Downstream.Forward(ctx, t.Name, msg)
	o.Attempt.At = at
	o.Attempt.Response = ScrubText(o.Attempt.Response, secrets...)
	if t.IncludeOTP && ev.Outcome == OutcomeChallenge && secrets == nil {
		o.Attempt.Response = "" // an earlier attempt told it the code, which is no longer here to be scrubbed
	}
	d = d.After(o, t.Schedule, w.svc.store.Now(), jitter())
	if o.Verdict == Gone {
		l.paused.Store(true)
		w.log.Error("a target answered 410 and is parked; resume it when it is back", "target", t.Name, "event_id", d.EventID, "type", ev.Type)
		if err := w.persist(ctx, d, func() error {
			return w.svc.store.Park(ctx, t.Name, true, "it answered 410 Gone")
		}); err != nil {
			return err
		}
		return w.park(ctx, lease, d)
	}
	return w.settle(ctx, lease, d, Step{})
}

// park puts a delivery back into its lane, which nobody reads until the target
// is resumed.
func (w *Worker) park(ctx context.Context, lease Lease, d Delivery) error {
	d.Status, d.Next = DeliveryParked, time.Time{}
	return w.settle(ctx, lease, d, Step{Owe: []Delivery{d}})
}

// outgoing is the message for a target, and the values that must not be stored
// from its answer. Targets with include_otp get the whole body of an
// action-requiring event while its challenge lives.
func (w *Worker) outgoing(ctx context.Context, t Target, ev Event, d Delivery) (m Message, secrets []string, err error) {
	m = Message{EventID: ev.ID, Type: ev.Type, Merchant: ev.Merchant, OccurredAt: ev.OccurredAt, ReceivedAt: ev.ReceivedAt,
		Data: ev.Secret.Body, Envelope: ev.Secret.Envelope, Attempt: d.Tries + 1, Traceparent: traceparent(ctx)}
	if ev.Outcome != OutcomeChallenge {
		return m, nil, nil
	}
	c, err := w.svc.store.Challenge(ctx, ChallengeOf(ev.ID))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return m, nil, fmt.Errorf("load the challenge of the event: %w", err)
	}
	merchant := w.svc.Merchants[ev.Merchant]
	if err != nil || c.Secret.Body == nil || merchant == nil {
		return m, nil, nil // over: what is left of the event is without its code
	}
	if f, err := secretFields(merchant, c); err == nil {
		secrets = []string{f.OTP, f.URL}
	}
	if t.IncludeOTP {
		m.Data, m.Envelope = c.Secret.Body, c.Secret.Envelope
	}
	return m, secrets, nil
}
