package relay

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"
)

// How many webhooks that came to nothing get a record on each node: all that an
// honest issuer causes, and no more of a flood than Redis does not notice.
const (
	recordedPerSecond = 20
	recordedBurst     = 200
)

// recorder writes the records of duplicates and refusals beside the requests, so
// that what came to nothing costs them no round trip.
type recorder struct {
	limit *rate.Limiter
	queue chan Event
}

func newRecorder() *recorder {
	return &recorder{limit: rate.NewLimiter(recordedPerSecond, recordedBurst), queue: make(chan Event, recordedBurst)}
}

// Refused records a webhook that was not taken, and logs it: it is how an operator
// learns of a wrong secret, or of somebody who tries. Nothing that its sender wrote
// is kept but a type and a merchant that are names, and not numbers in disguise.
func (s *Service) Refused(ctx context.Context, merchant, typ, reason, remoteIP, requestID string) {
	if !plainName(typ) {
		typ = ""
	}
	if s.Merchants[merchant] == nil && !plainName(merchant) {
		merchant = ""
	}
	counted := merchant
	if s.Merchants[merchant] == nil {
		counted = ""
	}
	s.count.webhooks.WithLabelValues(counted, reason).Inc()
	id := s.record(Event{Type: typ, Merchant: merchant, Outcome: OutcomeRefused, Reason: reason, RemoteIP: remoteIP})
	s.log.LogAttrs(ctx, slog.LevelWarn, "webhook refused", given([]slog.Attr{slog.String("merchant", merchant), slog.String("code", reason), slog.String("remote_ip", remoteIP)},
		"type", typ, "event_id", id, "request_id", requestID)...)
}

// plainName tells a name, as CARD_3DS is one, from what could be a code or a card
// number.
func plainName(s string) bool {
	const maxDigits = 3
	digits := 0
	for _, c := range []byte(s) {
		if c >= '0' && c <= '9' {
			digits++
		}
	}
	return validType(s) && digits <= maxDigits
}

// repeated records that an event has come again, and returns the record's id.
func (s *Service) repeated(ev Event, first string) (id string) {
	return s.record(Event{
		Type: ev.Type, Merchant: ev.Merchant, Outcome: OutcomeDuplicate, Reason: "the same content as " + first,
		CardID: ev.CardID, UserID: ev.UserID, OccurredAt: ev.OccurredAt,
	})
}

// record returns "" for what gets no record.
func (s *Service) record(ev Event) (id string) {
	ev.ReceivedAt = s.store.Now().Truncate(time.Millisecond)
	ev.ID = newID(prefixEvent, rand.IntN(s.store.Partitions()), ev.ReceivedAt)
	if s.recorder.limit.Allow() {
		select {
		case s.recorder.queue <- ev:
			return ev.ID
		default: // the store is away, or slow
		}
	}
	s.count.unrecorded.Inc()
	return ""
}

// keepRecords writes what is recorded, until ctx ends.
func (s *Service) keepRecords(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-s.recorder.queue:
			if err := s.store.Record(ctx, ev); err != nil {
				s.count.unrecorded.Inc()
				s.log.Debug("a webhook that came to nothing is not recorded", "outcome", ev.Outcome, "error", err)
			}
		}
	}
}
