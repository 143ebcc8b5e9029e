package relay

import (
	"context"
	"log/slog"
	"time"
)

// The log has one line for each event, each change of a challenge and each
// attempt, with the ids of their records; those of attempts are the worker's.

// given adds those of the pairs of name and value that have a value.
func given(attrs []slog.Attr, pairs ...string) []slog.Attr {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			attrs = append(attrs, slog.String(pairs[i], pairs[i+1]))
		}
	}
	return attrs
}

// logEvent logs what an arrival became. record is the id of its own record, which
// a duplicate may not have.
func (s *Service) logEvent(ctx context.Context, m *Merchant, a Arrival, r Receipt, user, record string) {
	ev := a.Event
	level := slog.LevelInfo
	if r.Status == Quarantined {
		level = slog.LevelWarn
	}
	if !s.log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs, slog.String("event_id", r.EventID), slog.String("merchant", ev.Merchant), slog.String("type", ev.Type),
		slog.String("status", string(r.Status)), slog.String("outcome", string(ev.Outcome)))
	if record != r.EventID {
		attrs = given(attrs, "record_id", record)
	}
	if a.Challenge != nil {
		attrs = append(attrs, slog.String("challenge_id", ChallengeOf(r.EventID)))
	}
	if user == "" {
		user = ev.UserID
	}
	attrs = given(attrs, "card_id", ev.CardID, "user_id", user, "reason", ev.Reason)
	if s.log.Enabled(ctx, slog.LevelDebug) {
		attrs = append(attrs, masked(m, a))
	}
	s.log.LogAttrs(ctx, level, "event received", attrs...)
}

// masked is what an arrival carried, without code, link and card numbers. Of what
// nobody could read no value is shown, but the names and types of its fields.
func masked(m *Merchant, a Arrival) slog.Attr {
	if a.Event.Outcome == OutcomeQuarantined {
		return slog.Any("fields", a.Event.Fields)
	}
	body := a.Event.Secret.Body
	if a.Challenge != nil && a.Challenge.Secret.Body != nil {
		body = a.Challenge.Secret.Body
	}
	p, err := ParsePayload(body)
	if err != nil {
		return slog.Attr{} // it has expired on arrival, and its body is gone
	}
	return slog.Any("payload", Mask(m.Mapping, p))
}

// logChange logs what became of a challenge, and at its decision what that is and
// where it came from.
func (s *Service) logChange(ctx context.Context, prev, next Challenge) {
	what, level := "challenge changed", slog.LevelInfo
	announced := prev.Announced != next.Announced || prev.PushesOwed != next.PushesOwed || prev.Silence != next.Silence
	switch {
	case prev.Status != next.Status || prev.UserID != next.UserID:
		if next.Status == Failed {
			level = slog.LevelWarn
		}
	case announced:
		what = "challenge announced"
		if next.Silence != "" {
			level = slog.LevelWarn
		}
	default:
		return
	}
	attrs := next.logged()
	if announced {
		attrs = append(given(attrs, "silence", next.Silence), slog.Int("devices", next.PushesOwed))
	}
	if d := next.Decision; d != nil && prev.Decision == nil {
		attrs = given(append(attrs, slog.String("action", string(d.Action))), "decision_reason", d.Reason, "subscription_id", d.Device.SubscriptionID, "ip", d.Device.IP)
	}
	if next.Failure != nil {
		attrs = append(attrs, slog.String("failure", string(next.Failure.Code)))
	}
	s.log.LogAttrs(ctx, level, what, given(attrs, "note", next.Note)...)
}

// logReveal logs that a code or link was read, each time.
func (s *Service) logReveal(ctx context.Context, c Challenge) {
	s.log.LogAttrs(ctx, slog.LevelInfo, "challenge revealed", append(c.logged(), slog.String("method", string(c.Method)))...)
}

func (c Challenge) logged() []slog.Attr {
	return given([]slog.Attr{slog.String("challenge_id", c.ID), slog.String("event_id", c.EventID()), slog.String("merchant", c.Merchant),
		slog.String("status", string(c.Status))}, "user_id", c.UserID, "card_id", c.CardID)
}

// changed logs and counts a step of a challenge.
func (s *Service) changed(ctx context.Context, prev, next Challenge, now time.Time) {
	s.logChange(ctx, prev, next)
	if prev.Status == next.Status {
		return
	}
	s.count.challenges.WithLabelValues(string(next.Status)).Inc()
	if d := next.Decision; d != nil && d.DecidedAt.Equal(now) {
		s.count.decisions.WithLabelValues(string(d.Action), d.Reason).Inc()
		s.count.decideDelay.Observe(now.Sub(next.CreatedAt).Seconds())
	}
}
