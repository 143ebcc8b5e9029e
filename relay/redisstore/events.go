package redisstore

import (
	"context"
	"errors"

	"approvalrelay/crypto"
	"approvalrelay/relay"
)

// inChallenge tells whether an event needs no record of its own: its challenge's says
// everything about it, and lives as long. There are many that wait at once, and no
// target wants most of them.
func (s *Store) inChallenge(a relay.Arrival) bool {
	e := a.Event
	return a.Challenge != nil && len(e.Owed) == 0 && e.Secret.Body == nil && e.Secret.Envelope == nil && s.Retention.Events <= s.Retention.Challenges
}

// eventOf reads an event out of its challenge's record.
func (s *Store) eventOf(id, raw string) (relay.Event, error) {
	c, err := s.decodeChallenge(relay.ChallengeOf(id), raw)
	if err != nil && !errors.Is(err, crypto.ErrSealed) { // nothing of it is sealed
		return relay.Event{}, err
	}
	e := relay.Event{
		ID: id, Type: c.Type, Merchant: c.Merchant, Outcome: relay.OutcomeChallenge,
		CardID: c.CardID, UserID: c.Named, OccurredAt: c.OccurredAt, ReceivedAt: c.CreatedAt,
	}
	if s.Now().Sub(e.ReceivedAt) > s.Retention.Events {
		return relay.Event{}, relay.ErrNotFound
	}
	return e, nil
}

// Event by id.
func (s *Store) Event(ctx context.Context, id string) (relay.Event, error) {
	for _, from := range []struct {
		id   string
		read func(id, raw string) (relay.Event, error)
	}{{id, s.decodeEvent}, {relay.ChallengeOf(id), s.eventOf}} {
		raw, err := s.record(ctx, from.id)
		if err == nil {
			return from.read(id, raw)
		}
		if !errors.Is(err, relay.ErrNotFound) {
			return relay.Event{}, err
		}
	}
	return s.endless(ctx, id)
}

// eventRecords loads those of the events that have a record, or a challenge's.
func (s *Store) eventRecords(ctx context.Context, ids []string) (map[string]relay.Event, error) {
	raw, err := s.records(ctx, ids)
	if err != nil {
		return nil, err
	}
	var without []string
	for i, id := range ids {
		if raw[i] == "" {
			without = append(without, relay.ChallengeOf(id))
		}
	}
	challenges, err := s.records(ctx, without)
	if err != nil {
		return nil, err
	}
	found := make(map[string]relay.Event, len(ids))
	for i, id := range ids {
		read, record := s.decodeEvent, raw[i]
		if record == "" {
			read, record, challenges = s.eventOf, challenges[0], challenges[1:]
		}
		if record == "" {
			continue
		}
		e, err := read(id, record)
		lacks, err := s.lacks(id, err)
		if err != nil && !errors.Is(err, relay.ErrNotFound) {
			return nil, err
		}
		if err == nil && !lacks {
			found[id] = e
		}
	}
	return found, nil
}
