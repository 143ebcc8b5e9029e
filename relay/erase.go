package relay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// CardsOf lists the cards that are a user's.
func (s *Service) CardsOf(ctx context.Context, u User) ([]CardOwner, error) {
	names, err := s.store.Cards(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("read the user's cards: %w", err)
	}
	return s.owned(ctx, u, names)
}

// owned are those of the named cards that are the user's.
func (s *Service) owned(ctx context.Context, u User, names []string) ([]CardOwner, error) {
	holders := make([]Holder, len(names))
	for i, card := range names {
		holders[i] = Holder{Merchant: u.Merchant, CardID: card}
	}
	owners, err := s.store.Owners(ctx, holders)
	if err != nil {
		return nil, fmt.Errorf("read the cards' owners: %w", err)
	}
	var cards []CardOwner
	for i, o := range owners {
		if o.UserID == u.ID { // else it was theirs once
			cards = append(cards, CardOwner{u.Merchant, names[i], o})
		}
	}
	return cards, nil
}

// Drop forgets a dead letter: ErrNotFound if it is none.
func (s *Service) Drop(ctx context.Context, id string) error {
	if err := s.store.Drop(ctx, id); err != nil {
		return fmt.Errorf("drop the delivery: %w", err)
	}
	return nil
}

// Erase forgets a user: devices, whose the cards are, and all records of the user
// and of the user's cards. What waits is withdrawn first; what is on its way to
// outside parties arrives. After an error some of it is left: call it again.
func (s *Service) Erase(ctx context.Context, u User) error {
	if err := s.ForgetDevices(ctx, u); err != nil {
		return err
	}
	if err := s.RemovePasskey(ctx, u, ""); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	names, err := s.store.Cards(ctx, u)
	if err != nil {
		return fmt.Errorf("read the user's cards: %w", err)
	}
	cards, err := s.owned(ctx, u, names)
	if err != nil {
		return err
	}
	if err := s.eraseRecords(ctx, u, cards); err != nil {
		return err
	}
	for _, c := range cards {
		if err := s.store.SetOwner(ctx, Holder{Merchant: u.Merchant, CardID: c.CardID}, Owner{}); err != nil {
			return fmt.Errorf("forget the card's owner: %w", err)
		}
	}
	if err := s.store.EraseUser(ctx, u, names); err != nil {
		return fmt.Errorf("forget the user: %w", err)
	}
	return nil
}

func (s *Service) eraseRecords(ctx context.Context, u User, cards []CardOwner) error {
	q := EventQuery{Range: Range{Limit: wholePage}, Holders: []Holder{{Merchant: u.Merchant, UserID: u.ID}}}
	for _, c := range cards {
		q.Holders = append(q.Holders, Holder{Merchant: c.Merchant, CardID: c.CardID})
	}
	for {
		events, next, err := s.store.Events(ctx, q)
		if err != nil {
			return fmt.Errorf("list the user's events: %w", err)
		}
		for _, ev := range events {
			if ev.UserID != "" && ev.UserID != u.ID {
				continue // the card's former owner's
			}
			if err := s.eraseEvent(ctx, ev); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		q.Cursor = next
	}
}

func (s *Service) eraseEvent(ctx context.Context, ev Event) error {
	if ev.Outcome == OutcomeChallenge {
		c, err := s.swap(ctx, ChallengeOf(ev.ID), func(c Challenge, now time.Time) (Challenge, error) {
			return c.At(now).Cancel("the cardholder was erased", now), nil
		}, nil)
		switch {
		case errors.Is(err, ErrNotFound):
		case err != nil:
			return err
		case c.Status == Confirming:
			return refuse(CodeAlreadyDecided, "A decision of this cardholder is on its way to the issuer, so that its challenge cannot be erased yet; erase again when it has ended.")
		}
	}
	if err := s.store.EraseEvent(ctx, ev); err != nil {
		return fmt.Errorf("forget event %s: %w", ev.ID, err)
	}
	return nil
}
