package redisstore

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// Events by the narrowest index that the query allows. Duplicates and refusals
// are in their own streams whatever they are about.
func (s *Store) Events(ctx context.Context, q relay.EventQuery) ([]relay.Event, string, error) {
	m, err := s.merge(s.eventSources(q), q.Range)
	if err != nil {
		return nil, "", err
	}
	return page(ctx, m, q.Limit, func(items []item) (map[string]relay.Event, error) { return s.events(ctx, items) }, q.Match)
}

func (s *Store) eventSources(q relay.EventQuery) []source {
	var sources []source
	of := func(outcomes ...relay.EventOutcome) {
		for _, o := range outcomes {
			sources = append(sources, s.streams(func(p int) string { return s.keys.outcome(p, o) })...)
		}
	}
	switch q.Outcome {
	case relay.OutcomeDuplicate, relay.OutcomeRefused, relay.OutcomeQuarantined: // of which there are few
		of(q.Outcome)
		return sources
	case "":
		of(endlessOutcomes...)
	}
	switch {
	case q.Holders != nil:
		for _, h := range q.Holders {
			p := h.Partition(s.Options.Partitions)
			sources = append(sources, &scored{key: s.keys.live(p, h), prefix: "evt_"})
			if h.CardID != "" {
				sources = append(sources, &scored{key: s.keys.holder(p, h)})
			} else { // a user's events are with their cards
				sources = append(sources, s.everywhere(func(p int) source { return &scored{key: s.keys.holder(p, h)} })...)
			}
		}
	case q.Type != "":
		sources = append(sources, s.streams(func(p int) string { return s.keys.typed(p, q.Type) })...)
		if q.Action {
			of(relay.OutcomeChallenge)
		}
	case q.Outcome != "":
		of(q.Outcome)
	default:
		of(relay.OutcomeChallenge, relay.OutcomeForwarded, relay.OutcomeQuarantined)
	}
	return sources
}

// events loads records, but for those that the index holds itself.
func (s *Store) events(ctx context.Context, items []item) (map[string]relay.Event, error) {
	found := make(map[string]relay.Event, len(items))
	var ids []string
	for _, it := range items {
		if it.values["d"] == nil {
			ids = append(ids, it.id)
			continue
		}
		e, err := s.inlineEvent(it.values)
		if err != nil && !errors.Is(err, relay.ErrNewer) {
			return nil, err
		}
		if err == nil {
			found[it.id] = e
		}
	}
	records, err := s.eventRecords(ctx, ids)
	for id, e := range records {
		found[id] = e
	}
	return found, err
}

// Deliveries: what is dead or tried again by its own index, what waits in its
// lane, all else by what was attempted.
func (s *Store) Deliveries(ctx context.Context, q relay.DeliveryQuery) ([]relay.Delivery, string, error) {
	m, err := s.merge(s.deliverySources(q), q.Range)
	if err != nil {
		return nil, "", err
	}
	return page(ctx, m, q.Limit, func(items []item) (map[string]relay.Delivery, error) {
		found, err := s.deliveries(ctx, items)
		if q.Status == relay.DeliveryParked { // whatever waits for a paused target, tried or not
			for id, d := range found {
				d.Status = relay.DeliveryParked
				found[id] = d
			}
		}
		return found, err
	}, q.Match)
}

func (s *Store) deliverySources(q relay.DeliveryQuery) []source {
	var sources []source
	waiting := func() {
		for _, l := range q.Lanes {
			sources = append(sources, s.everywhere(func(p int) source { return s.stream(p, s.keys.lane(p, l), "") })...)
		}
	}
	switch q.Status {
	case relay.DeliveryDead:
		return s.everywhere(func(p int) source { return &scored{key: s.keys.dead(p)} })
	case relay.DeliveryParked:
		waiting()
	case relay.DeliveryPending:
		waiting()
		sources = append(sources, s.everywhere(func(p int) source { return &scored{key: s.keys.retrying(p)} })...)
	default:
		for _, l := range q.Lanes {
			sources = append(sources, s.streams(func(p int) string { return s.keys.attempted(p, l) })...)
		}
	}
	return sources
}

// deliveries loads records, and reads those out of their lanes that have none.
func (s *Store) deliveries(ctx context.Context, items []item) (map[string]relay.Delivery, error) {
	found := make(map[string]relay.Delivery, len(items))
	var ids []string
	for i := range items {
		it := &items[i]
		entry, ok := it.values["d"].(string)
		if !ok {
			ids = append(ids, it.id)
			continue
		}
		d, recorded, err := s.decodeEntry(entry)
		if err != nil || d.Kind.Inner() {
			continue // of another version, or a step of ours
		}
		if it.id = d.ID; recorded {
			ids = append(ids, d.ID)
		} else {
			found[d.ID] = d
		}
	}
	attempted, err := s.Attempted(ctx, ids)
	for id, d := range attempted {
		found[id] = d
	}
	return found, err
}

// longestLife of a challenge that has not ended; see challenges.max_ttl.
const longestLife = 24 * time.Hour

// AllChallenges: those that live are among the events of late, those that have
// ended in an index by their end.
func (s *Store) AllChallenges(ctx context.Context, q relay.StatusQuery) ([]relay.Challenge, string, error) {
	var sources []source
	if q.Status != "" && q.Status.Final() {
		sources = s.streams(func(p int) string { return s.keys.status(p, q.Status) })
	} else {
		sources = s.streams(func(p int) string { return s.keys.outcome(p, relay.OutcomeChallenge) })
		if from := s.Now().Add(-longestLife); q.Status != "" && q.Since.Before(from) {
			q.Since = from
		}
	}
	m, err := s.merge(sources, q.Range)
	if err != nil {
		return nil, "", err
	}
	load := func(items []item) (map[string]relay.Challenge, error) {
		ids := make([]string, len(items))
		for i := range items {
			ids[i] = "chl_" + items[i].id[len("chl_"):]
			items[i].id = ids[i]
		}
		list, err := s.Named(ctx, ids)
		found := make(map[string]relay.Challenge, len(list))
		for _, c := range list {
			found[c.ID] = c
		}
		return found, err
	}
	return page(ctx, m, q.Limit, load, func(c relay.Challenge) bool {
		return (q.Merchant == "" || c.Merchant == q.Merchant) && (q.Status == "" || c.Status == q.Status)
	})
}

const countSubscriptions = "subscriptions"

// Counts reads the counters and the lengths of the indexes, in one pipeline.
func (s *Store) Counts(ctx context.Context) (relay.Counts, error) {
	c := relay.Counts{Challenges: map[relay.Status]int{}, Events: map[relay.EventOutcome]int{}}
	pipe := s.rdb.Pipeline()
	var add []func() error
	number := func(into func(n int), cmd *redis.IntCmd) {
		add = append(add, func() error { into(int(cmd.Val())); return cmd.Err() })
	}
	for p := range s.Options.Partitions {
		counters := pipe.HGetAll(ctx, s.keys.count(p))
		add = append(add, func() error { return addCounters(&c, counters.Val()) })
		for _, o := range []relay.EventOutcome{relay.OutcomeChallenge, relay.OutcomeForwarded, relay.OutcomeQuarantined, relay.OutcomeDuplicate, relay.OutcomeRefused} {
			number(func(n int) { c.Events[o] += n }, pipe.XLen(ctx, s.keys.outcome(p, o)))
		}
		for _, st := range []relay.Status{relay.Approved, relay.Rejected, relay.Completed, relay.Expired, relay.Failed, relay.Cancelled} {
			number(func(n int) { c.Challenges[st] += n }, pipe.XLen(ctx, s.keys.status(p, st)))
		}
		number(func(n int) { c.DeadLetters += n }, pipe.ZCard(ctx, s.keys.dead(p)))
		number(func(n int) { c.Retrying += n }, pipe.ZCard(ctx, s.keys.retrying(p)))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return c, s.away(err)
	}
	for _, f := range add {
		if err := f(); err != nil {
			return c, err
		}
	}
	return c, nil
}

func addCounters(c *relay.Counts, counters map[string]string) error {
	for name, value := range counters {
		n, err := strconv.Atoi(value)
		if err != nil {
			return errCorrupt
		}
		if name == countSubscriptions {
			c.Subscriptions += n
		} else {
			c.Challenges[relay.Status(name)] += n
		}
	}
	return nil
}

// Lanes looks at every lane of every partition, in one pipeline.
func (s *Store) Lanes(ctx context.Context, lanes []relay.Lane) (map[relay.Lane]relay.LaneState, error) {
	type state struct {
		lane  relay.Lane
		len   *redis.IntCmd
		first *redis.XMessageSliceCmd
	}
	pipe := s.rdb.Pipeline()
	var states []state
	owed := make([]*redis.MapStringStringCmd, s.Options.Partitions)
	for p := range s.Options.Partitions {
		owed[p] = pipe.HGetAll(ctx, s.keys.owed(p))
		for _, l := range lanes {
			key := s.keys.lane(p, l)
			states = append(states, state{l, pipe.XLen(ctx, key), pipe.XRangeN(ctx, key, "-", "+", 1)})
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, s.away(err)
	}
	all := map[relay.Lane]relay.LaneState{}
	for _, st := range states {
		q := all[st.lane]
		q.Waiting += int(st.len.Val())
		if first := st.first.Val(); len(first) > 0 {
			ms, _, err := splitID(first[0].ID)
			if err != nil {
				return nil, err
			}
			if t := time.UnixMilli(ms); q.Oldest.IsZero() || t.Before(q.Oldest) {
				q.Oldest = t
			}
		}
		all[st.lane] = q
	}
	for _, o := range owed {
		for lane, n := range o.Val() {
			owes, err := strconv.Atoi(n)
			if err != nil {
				return nil, errCorrupt
			}
			q := all[relay.Lane(lane)]
			q.Later += owes
			all[relay.Lane(lane)] = q
		}
	}
	for l, q := range all {
		if l != relay.LaneTasks { // the counters are of all that is owed, but for steps of ours
			q.Later = max(0, q.Later-q.Waiting)
			all[l] = q
		}
	}
	return all, nil
}
