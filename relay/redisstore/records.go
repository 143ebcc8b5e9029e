package redisstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// The indexes that an operator's questions are answered by. What there is much of
// goes into streams, which take a third of what a sorted set takes; what there is
// little of under each key does not. They hold ids; only of duplicates and
// refusals, which have no other record, they hold the record itself.

const (
	// endlessKept bounds in each partition what anybody can cause without limit.
	endlessKept = 1000
	// holderKept bounds what is found by one card, or one user, in a partition. Few
	// ever come near it, so it is seen to once in a while.
	holderKept  = 1000
	boundOnceIn = 16
	// historyKept bounds the deliveries that are found by one event.
	historyKept = 200
)

func (k keys) outcome(p int, o relay.EventOutcome) string { return k.tag(p) + "ix:e:" + string(o) }
func (k keys) typed(p int, typ string) string             { return k.tag(p) + "ix:t:" + typ }
func (k keys) holder(p int, h relay.Holder) string        { return k.tag(p) + "ix:h:" + holder(h) }
func (k keys) attempted(p int, l relay.Lane) string       { return k.tag(p) + "ix:d:" + string(l) }
func (k keys) status(p int, s relay.Status) string        { return k.tag(p) + "ix:s:" + string(s) }
func (k keys) history(p int, id string) string            { return k.tag(p) + "ix:o:" + id[len("evt_"):] }
func (k keys) retrying(p int) string                      { return k.tag(p) + "retrying" }
func (k keys) count(p int) string                         { return k.tag(p) + "count" }

// renewEvery is how often a node renews the life of a stream that it adds to all the
// time. Until it does, one that Redis has lost meanwhile has no end.
const renewEvery = time.Minute

// maxRenewed bounds the memory for what was renewed.
const maxRenewed = 10_000

// index adds an id to a stream. Once in a while it removes what is older than life, and
// lets the stream live on.
func (s *Store) index(b *batch, key, id string, life time.Duration) {
	now := s.Now()
	if at, ok := s.renewed.Get(key); ok && now.Sub(at).Abs() < renewEvery {
		b.add("XADD", key, "*", "i", id)
		return
	}
	b.add("XADD", key, "MINID", ms(now.Add(-life)), "*", "i", id)
	b.add("PEXPIRE", key, (life + renewEvery).Milliseconds())
	b.renews = append(b.renews, key)
}

// rank adds an id to a sorted set, and removes what is older than life.
func (s *Store) rank(b *batch, key, id string, at time.Time, life time.Duration) {
	b.add("RANK", key, ms(at), id, ms(s.Now().Add(-life)), life.Milliseconds())
}

// renewal notes that a batch has been run.
func (s *Store) renewal(b batch) {
	for _, key := range b.renews {
		s.renewed.Add(key, s.Now())
	}
}

// indexEvent makes a webhook's record findable. Those of our own are found by
// their challenge.
func (s *Store) indexEvent(b *batch, p int, e relay.Event) {
	s.index(b, s.keys.outcome(p, e.Outcome), e.ID, s.Retention.Events)
	if e.Type != "" && e.Outcome != relay.OutcomeChallenge { // which have a type or two
		s.index(b, s.keys.typed(p, e.Type), e.ID, s.Retention.Events)
	}
}

// indexHolders makes an event findable by its card and its user. One that is a
// challenge comes here when it ends: until then it is among its holder's live
// ones, and takes no more room than it must.
func (s *Store) indexHolders(b *batch, p int, id, merchant, card, user string, at time.Time) {
	life := s.Retention.Events
	for _, h := range []relay.Holder{{Merchant: merchant, CardID: card}, {Merchant: merchant, UserID: user}} {
		if h.CardID == "" && h.UserID == "" {
			continue
		}
		key := s.keys.holder(p, h)
		s.rank(b, key, id, at, life)
		if rand.N(boundOnceIn) == 0 {
			b.add("ZREMRANGEBYRANK", key, 0, -holderKept-1)
		}
	}
}

// indexEnd makes a challenge that has ended findable by its end and its holders.
func (s *Store) indexEnd(b *batch, p int, c relay.Challenge) {
	s.index(b, s.keys.status(p, c.Status), c.ID, s.Retention.Challenges)
	s.indexHolders(b, p, c.EventID(), c.Merchant, c.CardID, c.UserID, c.CreatedAt)
}

// note adds a delivery to what its event, or its challenge, has caused.
func (s *Store) note(b *batch, p int, d relay.Delivery) {
	if d.Kind.Inner() || d.EventID == "" && d.ChallengeID == "" {
		return
	}
	o := relay.Owed{ID: d.ID, Kind: d.Kind, Target: d.Target}
	of := d.ChallengeID
	if of == "" {
		of = d.EventID
	} else if d.EventID[len("evt_"):] != of[len("chl_"):] {
		o.EventID = d.EventID
	}
	key := s.keys.history(p, of)
	b.add("RPUSH", key, mustJSON(o))
	if rand.N(boundOnceIn) == 0 {
		b.add("LTRIM", key, -historyKept, -1)
	}
	b.add("PEXPIRE", key, max(s.Retention.Events, s.Retention.Challenges).Milliseconds())
}

// History of an event.
func (s *Store) History(ctx context.Context, eventID string) ([]relay.Owed, error) {
	p, ok := relay.PartitionOf(eventID)
	if !ok || p >= s.Options.Partitions {
		return nil, relay.ErrNotFound
	}
	raw, err := s.rdb.LRange(ctx, s.keys.history(p, eventID), 0, -1).Result()
	if err != nil {
		return nil, s.away(err)
	}
	all := make([]relay.Owed, len(raw))
	for i, r := range raw {
		if err := parse([]byte(r), &all[i]); err != nil {
			return nil, fmt.Errorf("history of %s: %w", eventID, err)
		}
	}
	return all, nil
}

// Attempted loads delivery records.
func (s *Store) Attempted(ctx context.Context, ids []string) (map[string]relay.Delivery, error) {
	raw, err := s.records(ctx, ids)
	if err != nil {
		return nil, err
	}
	found := make(map[string]relay.Delivery, len(ids))
	for i, r := range raw {
		if r == "" {
			continue
		}
		d, err := s.decodeDelivery(r)
		lacks, err := s.lacks(ids[i], err)
		if err != nil {
			return nil, err
		}
		if !lacks {
			found[d.ID] = d
		}
	}
	return found, nil
}

// Record keeps a duplicate or a refusal.
func (s *Store) Record(ctx context.Context, e relay.Event) error {
	p, ok := relay.PartitionOf(e.ID)
	if !ok || p >= s.Options.Partitions {
		return relay.ErrNotFound
	}
	key := s.keys.outcome(p, e.Outcome)
	b := newStep(key, "")
	b.add("XADD", key, "MAXLEN", "~", endlessKept, "*", "i", e.ID, "d", mustJSON(e))
	b.add("PEXPIRE", key, s.Retention.Events.Milliseconds())
	return s.commit(ctx, b)
}

// endless looks for the record of a duplicate or a refusal by its id: near the
// time that the id carries.
func (s *Store) endless(ctx context.Context, id string) (relay.Event, error) {
	const around = 10 * time.Second // a node's clock against that of Redis, and how long a record waits to be written
	p, ok := relay.PartitionOf(id)
	if !ok || p >= s.Options.Partitions {
		return relay.Event{}, relay.ErrNotFound
	}
	at := relay.TimeOf(id)
	from, to := strconv.FormatInt(ms(at.Add(-around)), 10), strconv.FormatInt(ms(at.Add(around)), 10)
	pipe := s.rdb.Pipeline()
	var found []*redis.XMessageSliceCmd
	for _, o := range endlessOutcomes {
		found = append(found, pipe.XRange(ctx, s.keys.outcome(p, o), from, to))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return relay.Event{}, s.away(err)
	}
	for _, f := range found {
		for _, m := range f.Val() {
			if m.Values["i"] == id {
				return s.inlineEvent(m.Values)
			}
		}
	}
	return relay.Event{}, relay.ErrNotFound
}

var endlessOutcomes = []relay.EventOutcome{relay.OutcomeDuplicate, relay.OutcomeRefused}

func (s *Store) inlineEvent(values map[string]any) (e relay.Event, err error) {
	e.ID, _ = values["i"].(string)
	e.ReceivedAt = relay.TimeOf(e.ID)
	raw, _ := values["d"].(string)
	err = parse([]byte(raw), &e)
	return e, err
}

// counted moves a challenge from one status to the next in the counters.
func (s *Store) counted(b *batch, p int, from, to relay.Status) {
	if from == to {
		return
	}
	if from != "" && !from.Final() {
		b.add("HINCRBY", s.keys.count(p), string(from), -1)
	}
	if !to.Final() {
		b.add("HINCRBY", s.keys.count(p), string(to), 1)
	}
}
