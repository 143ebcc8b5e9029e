package redisstore

import (
	"context"

	"approvalrelay/relay"
)

// EraseEvent drops the records of an event. What is still owed because of it stays
// until it is settled, with our own events that it forwards; the indexes keep ids,
// which lead nowhere, until retention ends.
func (s *Store) EraseEvent(ctx context.Context, ev relay.Event) error {
	p, ok := relay.PartitionOf(ev.ID)
	if !ok || p >= s.Options.Partitions {
		return relay.ErrNotFound
	}
	later, err := s.History(ctx, ev.ID)
	if err != nil {
		return err
	}
	all := append(ev.Owed, later...)
	ids := make([]string, len(all))
	for i, o := range all {
		ids[i] = o.ID
	}
	attempted, err := s.Attempted(ctx, ids)
	if err != nil {
		return err
	}
	b := newStep(s.keys.of(p, ev.ID), "")
	b.add("DEL", s.keys.of(p, ev.ID))
	b.add("DEL", s.keys.of(p, relay.ChallengeOf(ev.ID)))
	for _, o := range all {
		d, ok := attempted[o.ID]
		if !ok || d.Status != relay.DeliveryDelivered && d.Status != relay.DeliveryDead {
			continue
		}
		b.add("DEL", s.keys.of(p, o.ID))
		b.add("ZREM", s.keys.dead(p), o.ID)
		if o.EventID != "" {
			b.add("DEL", s.keys.of(p, o.EventID))
		}
	}
	b.add("DEL", s.keys.history(p, ev.ID))
	return s.commit(ctx, b)
}

// EraseUser drops a user's indexes.
func (s *Store) EraseUser(ctx context.Context, u relay.User, cards []string) error {
	h := relay.Holder{Merchant: u.Merchant, UserID: u.ID}
	byPartition := map[int]*batch{}
	drop := func(p int, key string) {
		if byPartition[p] == nil {
			b := newStep(key, "")
			byPartition[p] = &b
		}
		byPartition[p].add("DEL", key)
	}
	for _, card := range cards {
		c := relay.Holder{Merchant: u.Merchant, CardID: card}
		p := c.Partition(s.Options.Partitions)
		drop(p, s.keys.ended(p, c, u.ID))
	}
	for p := range s.Options.Partitions {
		drop(p, s.keys.holder(p, h))
	}
	up := u.Partition(s.Options.Partitions)
	drop(up, s.keys.ended(up, h, u.ID))
	drop(up, s.keys.cards(up, u))
	drop(up, s.keys.noticesOf(up, u))
	for _, b := range byPartition {
		if err := s.commit(ctx, *b); err != nil {
			return err
		}
	}
	return nil
}
