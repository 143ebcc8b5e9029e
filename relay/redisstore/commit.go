package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"approvalrelay/relay"
)

// batch collects the commands of one script, and the keys they touch.
type batch struct {
	keys   []string
	args   []any
	renews []string  // indexes whose life it renews
	owes   []owedNow // what it owes at once
}

// owedNow is an entry of a lane; an inner step of the script's own has no text here.
type owedNow struct {
	lane     relay.Lane
	raw      string
	delivery relay.Delivery
}

// newBatch begins with what the script itself takes; there is room for as many commands,
// of four words on average.
func newBatch(commands int, keys []string, args ...any) batch {
	return batch{
		keys: append(make([]string, 0, len(keys)+commands), keys...),
		args: append(make([]any, 0, len(args)+6*commands), args...),
	}
}

const (
	arrivalCommands = 10
	stepCommands    = 6
)

// newStep begins a step that is made if a record has that version: "0" is none, and
// "" any; then the key is any of the step's partition.
func newStep(record, version string) batch {
	return newBatch(stepCommands, []string{record}, version, "0")
}

// gatedStep begins one that is made if a command does not answer 0.
func gatedStep(record, version, name, key string, words ...any) batch {
	b := newBatch(stepCommands, []string{record, key}, version, len(words)+1, name)
	b.args = append(b.args, words...)
	return b
}

// settledStep begins one that is made if it settles an entry that is still leased.
func settledStep(record, version, stream, entry string) batch {
	b := gatedStep(record, version, "XACK", stream, group, entry)
	b.add("XDEL", stream, entry)
	return b
}

// add appends a command.
func (b *batch) add(name, key string, words ...any) {
	b.keys = append(b.keys, key)
	b.args = append(append(b.args, len(words)+1, name), words...)
}

// insist adds a write that takes no room, and does nothing: a script that begins so is
// not refused when Redis is out of memory.
func (b *batch) insist(key string) { b.add("PEXPIRE", key, 1, "GT") }

// overwrite replaces a record, also when Redis is out of memory: what people decide must
// get through.
func (b *batch) overwrite(key string, value any, words ...any) {
	b.insist(key)
	b.add("SET", key, append([]any{value}, words...)...)
}

// deadLife and deadKept bound dead letters and parked deliveries, with the
// events that they need: they outlive retention, but not for ever.
const (
	deadLife = 30 * 24 * time.Hour
	deadKept = 10_000 // dead letters per partition
)

// Arrive runs the arrival script, once.
func (s *Store) Arrive(ctx context.Context, a relay.Arrival) (relay.Arrived, error) {
	b := s.arrivalBatch(a)
	then := s.handedOver(&b, a.Partition, func(reply any) (*relay.Challenge, bool) {
		got, err := arrived(reply, a.Event.ID)
		if v, _ := reply.([]any); err != nil || v[1] != int64(0) {
			return nil, err == nil && !got.Duplicate // but of itself
		}
		if c := a.Challenge; c != nil {
			return asWritten(*c, 1, got.UserID), false
		}
		return nil, false
	})
	res, err := s.runThen(ctx, then, arriveScript, b.keys, b.args...)
	if err != nil {
		return relay.Arrived{}, err
	}
	got, err := arrived(res, a.Event.ID)
	if err == nil && !got.Duplicate {
		s.renewal(b)
	}
	return got, err
}

// arrivalBatch is everything that an arrival writes.
func (s *Store) arrivalBatch(a relay.Arrival) batch {
	p, ev := a.Partition, a.Event
	h := relay.Holder{Merchant: ev.Merchant, CardID: ev.CardID}
	dup := s.duplicates(a)
	hasCard, learnAt, undated, learn := "", "", "", ""
	if ev.CardID != "" {
		hasCard = "1"
		learn = s.encodeEntry(relay.Delivery{Kind: relay.KindLearn, Merchant: ev.Merchant, UserID: ev.UserID, CardID: ev.CardID}, false)
		if !a.LearnAt.IsZero() {
			learnAt = strconv.FormatInt(ms(a.LearnAt), 10)
		}
		if a.Undated {
			undated = "1"
		}
	}
	args := []any{ev.ID, strconv.FormatInt(dup.remember.Milliseconds(), 10), hasCard, ev.UserID, learnAt, learn}
	args = append(args, s.arriveChallenge(a.Challenge, &h)...)
	args = append(args, s.keys.changes(), ev.Merchant, s.keys.ended(p, h, ""), undated, dup.content, dup.since, dup.until)
	b := newBatch(arrivalCommands, []string{dup.now, s.keys.owner(p, h), s.keys.of(p, challengeKey(a)), s.keys.live(p, h), s.keys.lane(p, relay.LaneTasks), s.keys.due(p), dup.older}, args...)
	if !s.inChallenge(a) {
		s.addEvent(&b, p, ev)
	}
	s.indexEvent(&b, p, ev)
	for _, own := range a.Own {
		s.addEvent(&b, p, own)
	}
	for _, d := range a.Owe {
		s.addOwed(&b, p, d, true)
		if d.ChallengeID != "" { // the event itself names those that forward it
			s.note(&b, p, d)
		}
	}
	switch c := a.Challenge; {
	case c == nil:
		s.indexHolders(&b, p, ev.ID, ev.Merchant, ev.CardID, ev.UserID, ev.ReceivedAt)
	case c.Status.Final():
		s.indexEnd(&b, p, *c)
	default:
		s.counted(&b, p, "", c.Status)
		b.owes = append(b.owes, owedNow{lane: relay.LaneTasks}) // its announcement, by the script
	}
	return b
}

func challengeKey(a relay.Arrival) string {
	if a.Challenge != nil {
		return a.Challenge.ID
	}
	return a.Event.ID
}

// arriveChallenge is the script's arguments about the challenge, and its holder.
// One that has expired already is only listed.
func (s *Store) arriveChallenge(c *relay.Challenge, h *relay.Holder) []any {
	if c == nil {
		return []any{"", "", "", "", "", ""}
	}
	*h = c.Holder()
	life := c.ExpiresAt.Sub(c.CreatedAt) + s.Retention.Challenges
	expires := strconv.FormatInt(ms(c.ExpiresAt), 10)
	if c.Status.Final() {
		life, expires = s.Retention.Challenges, ""
	}
	return []any{c.ID, s.challengeBody(*c), life.Milliseconds(), ms(c.CreatedAt), mark(c.Reference), expires}
}

func arrived(res any, id string) (relay.Arrived, error) {
	v, ok := res.([]any)
	if !ok || len(v) != 5 {
		return relay.Arrived{}, fmt.Errorf("arrival script: %w", errCorrupt)
	}
	first, _ := v[0].(string)
	dup, _ := v[1].(int64)
	user, _ := v[2].(string)
	learnt, _ := v[3].(int64)
	// A duplicate of itself: the connection broke after the script had run, and
	// the client ran it again.
	return relay.Arrived{EventID: first, Duplicate: dup == 1 && first != id, UserID: user, Learnt: learnt == 1}, nil
}

func (s *Store) addEvent(b *batch, p int, e relay.Event) {
	b.add("SET", s.keys.of(p, e.ID), s.encodeEvent(e), "PX", s.Retention.Events.Milliseconds())
}

// addOwed owes a delivery now or later. One that is fresh, which was not owed
// before, counts in its lane's backlog; inner steps never do.
func (s *Store) addOwed(b *batch, p int, d relay.Delivery, fresh bool) {
	if d.ID != "" && fresh {
		b.add("HINCRBY", s.keys.owed(p), string(d.Lane()), 1)
	}
	if d.Next.IsZero() {
		raw := s.encodeEntry(d, false)
		b.owes = append(b.owes, owedNow{d.Lane(), raw, d})
		b.add("XADD", s.keys.lane(p, d.Lane()), "*", "d", raw)
		return
	}
	s.addDue(b, p, d, false)
}

func (s *Store) addDue(b *batch, p int, d relay.Delivery, recorded bool) {
	b.add("ZADD", s.keys.due(p), ms(d.Next), s.dueMember(d, recorded))
}

func (s *Store) addEnded(b *batch, p int, c relay.Challenge) {
	s.rank(b, s.keys.ended(p, c.Holder(), c.UserID), c.ID, c.CreatedAt, s.Retention.Challenges)
}

// Commit runs one step.
func (s *Store) Commit(ctx context.Context, st relay.Step) error {
	p := st.Partition
	if st.Empty() && s.WaitReplicas == 0 {
		return nil
	}
	record, version := s.keys.due(p), ""
	if c := st.Challenge; c != nil {
		record, version = s.keys.of(p, c.ID), strconv.Itoa(c.Version)
	}
	var b batch
	if l := st.Settle; l != nil {
		b = settledStep(record, version, s.keys.lane(p, l.Delivery.Lane()), l.Entry)
		s.addSettled(&b, p, *l, st)
	} else {
		b = newStep(record, version)
	}
	if c := st.Challenge; c != nil {
		s.addChallenge(&b, p, *c)
		s.counted(&b, p, st.From, c.Status)
		if c.Status.Final() && !st.From.Final() {
			s.indexEnd(&b, p, *c)
		}
	}
	for _, own := range st.Own {
		s.addEvent(&b, p, own)
	}
	for _, d := range st.Owe {
		fresh := st.Settle == nil || d.ID != st.Settle.Delivery.ID
		s.addOwed(&b, p, d, fresh)
		if fresh {
			s.note(&b, p, d)
		}
	}
	if st.Mute > 0 && st.Challenge != nil {
		b.add("SET", s.keys.mute(p, st.Challenge.Holder()), "1", "PX", st.Mute.Milliseconds())
	}
	then := s.handedOver(&b, p, func(reply any) (*relay.Challenge, bool) {
		v, _ := reply.([]any)
		again := len(v) == 0 || v[0] != "ok" // as also after a lost race
		if c := st.Challenge; c != nil {
			return asWritten(*c, c.Version+1, c.UserID), again
		}
		return nil, again
	})
	return s.commitThen(ctx, b, then)
}

func (s *Store) commit(ctx context.Context, b batch) error { return s.commitThen(ctx, b, nothing) }

func (s *Store) commitThen(ctx context.Context, b batch, then func(reply any, err error)) error {
	res, err := s.runThen(ctx, then, commitScript, b.keys, b.args...)
	if err != nil {
		return err
	}
	v, _ := res.([]any)
	if len(v) != 2 {
		return fmt.Errorf("commit script: %w", errCorrupt)
	}
	switch v[0] {
	case "ok":
		s.renewal(b)
		return nil
	case "conflict":
		return relay.ErrConflict
	case "lost":
		return relay.ErrLostLease
	}
	return fmt.Errorf("commit script: %w", errCorrupt)
}

// addSettled writes what became of a leased delivery.
func (s *Store) addSettled(b *batch, p int, l relay.Lease, st relay.Step) {
	d := st.Delivery
	if l.Delivery.ID != "" && (d == nil || d.Status == relay.DeliveryDelivered || d.Status == relay.DeliveryDead) {
		b.add("HINCRBY", s.keys.owed(p), string(l.Delivery.Lane()), -1)
	}
	if len(l.Delivery.Attempts) > 0 {
		b.add("ZREM", s.keys.retrying(p), l.Delivery.ID)
	}
	if d == nil {
		if len(l.Delivery.Attempts) > 0 {
			b.add("DEL", s.keys.of(p, l.Delivery.ID))
		}
		return
	}
	life := s.Retention.Deliveries
	if len(l.Delivery.Attempts) == 0 && l.Delivery.Status != relay.DeliveryParked { // it has no record yet
		s.index(b, s.keys.attempted(p, d.Lane()), d.ID, life)
	}
	switch d.Status {
	case relay.DeliveryPending:
		s.addDue(b, p, *d, true)
		b.add("ZADD", s.keys.retrying(p), ms(d.Next), d.ID)
		b.add("PEXPIRE", s.keys.retrying(p), deadLife.Milliseconds())
		s.keepEvent(b, p, *d, life)
	case relay.DeliveryDead:
		life = deadLife
		now := s.Now()
		dead := s.keys.dead(p)
		b.add("ZADD", dead, ms(now), d.ID)
		b.add("ZREMRANGEBYSCORE", dead, "-inf", ms(now.Add(-deadLife)))
		b.add("ZREMRANGEBYRANK", dead, 0, -deadKept-1)
		b.add("PEXPIRE", dead, deadLife.Milliseconds())
		s.keepEvent(b, p, *d, life)
	case relay.DeliveryParked:
		life = deadLife
		s.keepEvent(b, p, *d, life)
	}
	b.add("SET", s.keys.of(p, d.ID), s.encodeDelivery(*d), "PX", life.Milliseconds())
}

// keepEvent lets an event live as long as a delivery that may still need it.
func (s *Store) keepEvent(b *batch, p int, d relay.Delivery, life time.Duration) {
	if d.Kind == relay.KindForward {
		b.add("PEXPIRE", s.keys.of(p, d.EventID), life.Milliseconds(), "GT")
	}
}

// addChallenge writes the next state, moves it between the indexes, and tells
// the watchers.
func (s *Store) addChallenge(b *batch, p int, c relay.Challenge) {
	c.Version++
	life := s.Retention.Challenges
	if c.Status.Final() {
		b.add("ZREM", s.keys.live(p, c.Holder()), liveMember(c))
		b.add("ZREM", s.keys.due(p), s.dueMember(relay.Delivery{Kind: relay.KindExpire, ChallengeID: c.ID}, false))
		s.addEnded(b, p, c)
	} else {
		life += max(0, c.ExpiresAt.Sub(s.Now()))
	}
	b.overwrite(s.keys.of(p, c.ID), s.encodeChallenge(c), "PX", life.Milliseconds())
	if c.UserID != "" {
		// Not a key: it is the same channel for all partitions.
		b.args = append(b.args, "3", "PUBLISH", s.keys.changes(), change(c.Owner(), c.ID))
	}
}
