package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// What the operator looks up: records of webhooks, deliveries, challenges.

// EventFilter selects records of webhooks; an empty field selects all.
type EventFilter struct {
	Range
	Merchant, Type, CardID, UserID string
	Outcome                        EventOutcome
}

// Events lists the records of webhooks, masked: an invalid field is refused. A
// user's are those that name the user, and those of the user's cards.
func (s *Service) Events(ctx context.Context, f EventFilter) (list []EventView, next string, err error) {
	if err := oneOf("outcome", f.Outcome, knownOutcomes); err != nil {
		return nil, "", err
	}
	q := EventQuery{Range: f.Range, Merchant: f.Merchant, Type: f.Type, Outcome: f.Outcome}
	for _, m := range s.Merchants {
		_, action := m.Actions[f.Type]
		q.Action = q.Action || action
	}
	if q.Holders, q.UserID, err = s.holders(ctx, f); err != nil {
		return nil, "", err
	}
	events, next, err := s.store.Events(ctx, q)
	if err != nil {
		return nil, "", fmt.Errorf("list the events: %w", err)
	}
	list, err = s.viewEvents(ctx, events)
	return list, next, err
}

// holders are whose events a filter selects; nil for everybody's.
func (s *Service) holders(ctx context.Context, f EventFilter) (holders []Holder, userID string, err error) {
	merchants, err := s.merchants(f.Merchant)
	if err != nil || f.CardID == "" && f.UserID == "" {
		return nil, "", err
	}
	for _, m := range merchants {
		if f.CardID != "" {
			h, err := s.holder(ctx, m, f.CardID)
			if err != nil {
				return nil, "", err
			}
			holders = append(holders, h)
			continue
		}
		u := User{Merchant: m, ID: f.UserID}
		holders = append(holders, Holder{Merchant: m, UserID: u.ID})
		cards, err := s.store.Cards(ctx, u)
		if err != nil {
			return nil, "", fmt.Errorf("read the user's cards: %w", err)
		}
		for _, c := range cards {
			holders = append(holders, Holder{Merchant: m, CardID: c})
		}
	}
	if f.CardID != "" {
		userID = f.UserID
	}
	return holders, userID, nil
}

// merchants are the names that a filter selects, in order.
func (s *Service) merchants(only string) ([]string, error) {
	if only != "" {
		if s.Merchants[only] == nil {
			return nil, ErrUnknownMerchant
		}
		return []string{only}, nil
	}
	var all []string
	for name := range s.Merchants {
		all = append(all, name)
	}
	slices.Sort(all)
	return all, nil
}

// EventRecord is what is kept of a webhook: ErrNotFound. Its payload is masked;
// that of a challenge is there while the challenge lives.
func (s *Service) EventRecord(ctx context.Context, id string) (EventView, error) {
	ev, err := s.store.Event(ctx, id)
	if err != nil {
		return EventView{}, fmt.Errorf("load event: %w", err)
	}
	views, err := s.viewEvents(ctx, []Event{ev})
	if err != nil {
		return EventView{}, err
	}
	return views[0], nil
}

// viewEvents masks events. The bodies of challenges are with these.
func (s *Service) viewEvents(ctx context.Context, events []Event) ([]EventView, error) {
	views := make([]EventView, 0, len(events))
	for _, ev := range events {
		body := ev.Secret.Body
		if ev.Outcome == OutcomeChallenge {
			c, err := s.store.Challenge(ctx, ChallengeOf(ev.ID))
			if err != nil && !errors.Is(err, ErrNotFound) {
				return nil, fmt.Errorf("load the event's challenge: %w", err)
			}
			if c.Secret.Body != nil {
				body = c.Secret.Body
			}
		}
		m := s.Merchants[ev.Merchant]
		if m == nil || body == nil || ev.Outcome == OutcomeQuarantined { // of what nobody could read, no value may be shown
			views = append(views, ev.View(nil))
			continue
		}
		p, err := ParsePayload(body)
		if err != nil {
			return nil, fmt.Errorf("read the body of event %s: %w", ev.ID, err)
		}
		views = append(views, ev.View(Mask(m.Mapping, p)))
	}
	return views, nil
}

// DeliveryFilter selects deliveries; an empty field selects all.
type DeliveryFilter struct {
	Range
	Kind    Kind
	Target  string
	Status  DeliveryStatus
	EventID string // or a challenge's id
}

// Deliveries lists what was, and is, owed to outside parties: an invalid field is
// refused. Those of one event are all on one page.
func (s *Service) Deliveries(ctx context.Context, f DeliveryFilter) (list []Delivery, next string, err error) {
	if err := errors.Join(oneOf("kind", f.Kind, knownKinds), oneOf("status", f.Status, knownStatuses)); err != nil {
		return nil, "", err
	}
	q := DeliveryQuery{Range: f.Range, Kind: f.Kind, Target: f.Target, Status: f.Status}
	if f.EventID != "" {
		list, err := s.deliveriesOf(ctx, f.EventID)
		return slices.DeleteFunc(list, func(d Delivery) bool { return !q.Match(d) }), "", err
	}
	if q.Lanes, err = s.lanesOf(ctx, f); err != nil {
		return nil, "", err
	}
	if list, next, err = s.store.Deliveries(ctx, q); err != nil {
		return nil, "", fmt.Errorf("list the deliveries: %w", err)
	}
	return list, next, nil
}

// lanesOf are where what a filter selects may be.
func (s *Service) lanesOf(ctx context.Context, f DeliveryFilter) ([]Lane, error) {
	parked, err := s.store.Parked(ctx)
	if err != nil {
		return nil, fmt.Errorf("read which targets are paused: %w", err)
	}
	var lanes []Lane
	add := func(k Kind, l Lane) {
		if f.Kind == "" || f.Kind == k {
			lanes = append(lanes, l)
		}
	}
	_, ours := s.target(f.Target)
	if !ours && f.Status != DeliveryParked {
		add(KindPush, LanePush)
		add(KindConfirm, LaneConfirm)
		add(KindLock, LaneLock)
	}
	for _, t := range s.Targets {
		_, paused := parked[t.Name]
		switch {
		case ours && t.Name != f.Target:
		case f.Status == DeliveryParked && !paused, f.Status == DeliveryPending && paused:
		default:
			add(KindForward, TargetLane(t.Name))
		}
	}
	return lanes, nil
}

// lanes are all that this node works on.
func (s *Service) lanes() []Lane {
	all := []Lane{LaneTasks, LanePush, LaneConfirm, LaneLock}
	for _, t := range s.Targets {
		all = append(all, TargetLane(t.Name))
	}
	return all
}

// deliveriesOf are those that one event has caused, in order; with those of its
// challenge, and of our own events about that.
func (s *Service) deliveriesOf(ctx context.Context, id string) ([]Delivery, error) {
	if IsChallengeID(id) {
		id = eventOf(id)
	}
	ev, err := s.store.Event(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("load event: %w", err)
	}
	of := id
	if ev.ChallengeID != "" {
		of = eventOf(ev.ChallengeID)
	}
	later, err := s.store.History(ctx, of)
	if err != nil {
		return nil, fmt.Errorf("read what the event has caused: %w", err)
	}
	if of != id {
		later = slices.DeleteFunc(later, func(o Owed) bool { return o.EventID != id })
	}
	all := append(ev.Owed, later...)
	ids := make([]string, len(all))
	for i, o := range all {
		ids[i] = o.ID
	}
	attempted, err := s.store.Attempted(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("load the event's deliveries: %w", err)
	}
	ended, err := s.over(ctx, ev)
	if err != nil {
		return nil, err
	}
	list := make([]Delivery, 0, len(all))
	for _, o := range all {
		if d, ok := attempted[o.ID]; ok {
			list = append(list, d)
			continue
		}
		list = append(list, o.unattempted(ev, ended))
	}
	return list, nil
}

// over tells whether an event became a challenge that has ended.
func (s *Service) over(ctx context.Context, ev Event) (bool, error) {
	if ev.Outcome != OutcomeChallenge {
		return false, nil
	}
	c, err := s.store.Challenge(ctx, ChallengeOf(ev.ID))
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, fmt.Errorf("load the event's challenge: %w", err)
	}
	return err == nil && c.At(s.store.Now()).Status.Final(), nil
}

// unattempted is a delivery of which there is no record: it waits for its first
// attempt, or, being a push, it became pointless before that.
func (o Owed) unattempted(ev Event, ended bool) Delivery {
	d := Delivery{ID: o.ID, Kind: o.Kind, Target: o.Target, Merchant: ev.Merchant, EventID: o.EventID, Status: DeliveryPending, CreatedAt: TimeOf(o.ID)}
	if d.EventID == "" {
		d.EventID = ev.ID
	}
	if ev.Outcome == OutcomeChallenge {
		d.ChallengeID = ChallengeOf(ev.ID)
	}
	if ended && o.Kind == KindPush {
		d.Status, d.Attempts = DeliveryDead, []Attempt{{At: d.CreatedAt, Error: "not sent: it had become pointless"}}
	}
	return d
}

// ChallengeFilter selects challenges; an empty field selects all.
type ChallengeFilter struct {
	Range
	Merchant, UserID string
	Status           Status
}

// OperatorChallenges lists challenges: an invalid field is refused. Without a
// user those that have ended are in the order of their end.
func (s *Service) OperatorChallenges(ctx context.Context, f ChallengeFilter) (list []Challenge, next string, err error) {
	if err := oneOf("status", f.Status, allStatuses); err != nil {
		return nil, "", err
	}
	merchants, err := s.merchants(f.Merchant)
	if err != nil {
		return nil, "", err
	}
	if f.UserID == "" {
		if list, next, err = s.store.AllChallenges(ctx, StatusQuery{Range: f.Range, Merchant: f.Merchant, Status: f.Status}); err != nil {
			return nil, "", fmt.Errorf("list the challenges: %w", err)
		}
		return list, next, nil
	}
	if len(merchants) > 1 {
		return nil, "", Invalid("merchant", "Several merchants are configured, and each has users of its own: name one.")
	}
	for next = f.Cursor; ; {
		p, err := s.List(ctx, User{Merchant: merchants[0], ID: f.UserID}, true, f.Limit, next)
		if err != nil {
			return nil, "", err
		}
		for _, c := range p.Challenges {
			if f.Status == "" || c.Status == f.Status {
				list = append(list, c)
			}
		}
		if next = p.Next; next == "" || len(list) > 0 {
			return list, next, nil
		}
	}
}
