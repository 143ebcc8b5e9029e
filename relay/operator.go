package relay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The operator's calls: who owns a card, lost phones, dead letters, targets.

// CardOwner is who owns a card, by the operator's word or as learnt from events.
type CardOwner struct {
	Merchant string
	CardID   string // a card number is replaced by its token
	Owner
}

// holder names a card by the id the operator gave; one that is a card number
// becomes the token that stands for it everywhere.
func (s *Service) holder(ctx context.Context, merchant, card string) (Holder, error) {
	if _, ok := s.Merchants[merchant]; !ok {
		return Holder{}, ErrUnknownMerchant
	}
	id, ok := acceptCardID(card)
	if !ok {
		return Holder{}, Invalid("card_id", "A card's id has 1 to 256 bytes without control characters, and is not a masked card number.")
	}
	root, err := s.rootKey(ctx)
	if err != nil {
		return Holder{}, err
	}
	return Holder{Merchant: merchant, CardID: cardID(root, merchant, id)}, nil
}

// CardOwner of a card: ErrUnknownMerchant, ErrNotFound, or an invalid card_id.
func (s *Service) CardOwner(ctx context.Context, merchant, card string) (CardOwner, error) {
	h, err := s.holder(ctx, merchant, card)
	if err != nil {
		return CardOwner{}, err
	}
	o, err := s.store.Owner(ctx, h)
	if err != nil {
		return CardOwner{}, fmt.Errorf("read the card's owner: %w", err)
	}
	return CardOwner{h.Merchant, h.CardID, o}, nil
}

// AssignCard says whose a card is; it wins over what events teach. The card's
// challenges without an owner become the user's.
func (s *Service) AssignCard(ctx context.Context, merchant, card, user string) (CardOwner, error) {
	id, ok := acceptID(user)
	if !ok {
		return CardOwner{}, Invalid("user_id", "A user's id has 1 to 256 bytes without control characters.")
	}
	return s.setOwner(ctx, merchant, card, Owner{UserID: id, At: s.store.Now().Truncate(time.Millisecond), ByOperator: true})
}

// ReleaseCard forgets whose a card is; the next event that tells teaches it anew.
func (s *Service) ReleaseCard(ctx context.Context, merchant, card string) error {
	_, err := s.setOwner(ctx, merchant, card, Owner{})
	return err
}

func (s *Service) setOwner(ctx context.Context, merchant, card string, o Owner) (CardOwner, error) {
	h, err := s.holder(ctx, merchant, card)
	if err != nil {
		return CardOwner{}, err
	}
	if err := s.store.SetOwner(ctx, h, o); err != nil {
		return CardOwner{}, fmt.Errorf("store the card's owner: %w", err)
	}
	return CardOwner{h.Merchant, h.CardID, o}, nil
}

// Cancel withdraws a pending challenge; again, it changes nothing. One that is
// being confirmed or has ended otherwise is refused with already_decided.
func (s *Service) Cancel(ctx context.Context, id string) (Challenge, error) {
	if !IsChallengeID(id) {
		return Challenge{}, ErrNotFound
	}
	c, err := s.swap(ctx, id, func(c Challenge, now time.Time) (Challenge, error) {
		return c.At(now).Cancel("cancelled by the operator", now), nil
	}, nil)
	if err == nil && c.Status != Cancelled {
		err = refuse(CodeAlreadyDecided, "Only a pending challenge can be cancelled; this one is "+string(c.Status)+".")
	}
	return c, err
}

// ReplayEvent runs an event again through today's configuration. One out of
// quarantine arrives anew, under a new id, as if it had come when it first did:
// a challenge whose time is over rings nobody; one that still cannot be understood
// stays as it is. One that was forwarded is owed to today's targets, under its id.
// A challenge cannot be run again.
func (s *Service) ReplayEvent(ctx context.Context, id string) (Receipt, error) {
	ev, err := s.store.Event(ctx, id)
	if err != nil {
		return Receipt{}, fmt.Errorf("load event: %w", err)
	}
	m := s.Merchants[ev.Merchant]
	switch {
	case m == nil:
		return Receipt{}, ErrUnknownMerchant
	case ev.Outcome == OutcomeQuarantined:
		return s.release(ctx, m, ev)
	case ev.Outcome != OutcomeForwarded:
		return Receipt{}, Invalid("id", "Only what is in quarantine, or was forwarded, can be run again; this became a challenge, or is an event of the relay's own.")
	}
	partition, _ := PartitionOf(id)
	ev.ReceivedAt = s.store.Now() // of the new deliveries
	if err := s.store.Commit(ctx, Step{Partition: partition, Owe: s.forwards(ev, false)}); err != nil {
		return Receipt{}, fmt.Errorf("owe the event again: %w", err)
	}
	return Receipt{Status: Accepted, EventID: id}, nil
}

// release takes an event out of quarantine, and notes on its record what it became.
func (s *Service) release(ctx context.Context, m *Merchant, ev Event) (Receipt, error) {
	root, err := s.rootKey(ctx)
	if err != nil {
		return Receipt{}, err
	}
	w := Webhook{Merchant: ev.Merchant, Type: ev.Type, Raw: ev.Secret.Envelope}
	a := s.arrival(m, w, ev.Secret.Body, root, ev.ReceivedAt)
	if a.Event.Outcome == OutcomeQuarantined {
		return Receipt{Status: Quarantined, EventID: ev.ID}, nil
	}
	r, err := s.take(ctx, m, a)
	if err != nil {
		return r, err
	}
	ev.ReplayedAs = r.EventID
	partition, _ := PartitionOf(ev.ID)
	// Without this note it only looks as if it still had to be run: again, it is a
	// duplicate.
	if err := s.store.Commit(ctx, Step{Partition: partition, Own: []Event{ev}}); err != nil {
		s.log.Warn("an event out of quarantine is not marked", "event_id", ev.ID, "replayed_as", r.EventID, "error", err)
	}
	return r, nil
}

// Released is what became of all in quarantine.
type Released struct {
	Replayed    int `json:"replayed"`
	Quarantined int `json:"quarantined"` // that still cannot be understood
}

// ReplayQuarantine runs all that is in quarantine again, of one merchant or, for
// "", of all. After an error the rest is as it was: call it again.
func (s *Service) ReplayQuarantine(ctx context.Context, merchant string) (Released, error) {
	var n Released
	if _, err := s.merchants(merchant); err != nil {
		return n, err
	}
	q := EventQuery{Range: Range{Limit: wholePage}, Merchant: merchant, Outcome: OutcomeQuarantined}
	for {
		events, next, err := s.store.Events(ctx, q)
		if err != nil {
			return n, fmt.Errorf("list the quarantine: %w", err)
		}
		for _, ev := range events {
			m := s.Merchants[ev.Merchant]
			if m == nil || ev.ReplayedAs != "" {
				continue
			}
			r, err := s.release(ctx, m, ev)
			switch {
			case err != nil:
				return n, err
			case r.Status == Quarantined:
				n.Quarantined++
			default:
				n.Replayed++
			}
		}
		if q.Cursor = next; next == "" {
			return n, nil
		}
	}
}

// ForgetDevices removes all push subscriptions of a user, and with them their
// action tokens.
func (s *Service) ForgetDevices(ctx context.Context, u User) error {
	err := s.changeDevices(ctx, u, func(d Devices, _ time.Time) (Devices, []Delivery, error) {
		d.List = nil
		return d, nil, nil
	})
	return err
}

// Delivery by id: ErrNotFound if it was never attempted, or is forgotten.
func (s *Service) Delivery(ctx context.Context, id string) (Delivery, error) {
	d, err := s.store.Delivery(ctx, id)
	if err != nil {
		return Delivery{}, fmt.Errorf("load delivery: %w", err)
	}
	return d, nil
}

// Replay owes a dead letter again: ErrNotFound if it is none.
func (s *Service) Replay(ctx context.Context, id string) error {
	if err := s.store.Replay(ctx, id); err != nil {
		return fmt.Errorf("replay the delivery: %w", err)
	}
	return nil
}

// deadPage is how many dead letters of a partition are replayed at most in one call.
const deadPage = 10_000

// ReplayDead owes all dead letters again, or only those of one target, and
// returns how many. After an error the rest is still dead: call it again.
func (s *Service) ReplayDead(ctx context.Context, target string) (int, error) {
	if _, ok := s.target(target); target != "" && !ok {
		return 0, ErrNotFound
	}
	n := 0
	for p := range s.store.Partitions() {
		dead, err := s.store.DeadLetters(ctx, p, deadPage)
		if err != nil {
			return n, fmt.Errorf("list the dead letters: %w", err)
		}
		for _, d := range dead {
			if target != "" && (d.Kind != KindForward || d.Target != target) {
				continue
			}
			err := s.store.Replay(ctx, d.ID)
			if errors.Is(err, ErrNotFound) {
				continue // somebody else was faster
			}
			if err != nil {
				return n, fmt.Errorf("replay a dead letter: %w", err)
			}
			n++
		}
	}
	return n, nil
}

// PauseTarget keeps what is owed to a target until ResumeTarget: ErrNotFound if
// none has this name. All nodes follow within seconds.
func (s *Service) PauseTarget(ctx context.Context, name string) error {
	return s.park(ctx, name, true, "paused by the operator")
}

// ResumeTarget sends a paused or parked target what it is owed.
func (s *Service) ResumeTarget(ctx context.Context, name string) error {
	return s.park(ctx, name, false, "")
}

func (s *Service) park(ctx context.Context, name string, parked bool, why string) error {
	if _, ok := s.target(name); !ok {
		return ErrNotFound
	}
	if err := s.store.Park(ctx, name, parked, why); err != nil {
		return fmt.Errorf("change the target's state: %w", err)
	}
	return nil
}
