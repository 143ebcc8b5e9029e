package redisstore

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// pendingLife outlives every activation, so that a user's devices of which none was
// ever activated do not stay. A list of none stays as long: its version tells those
// who read it before it was emptied that they are late.
const pendingLife = time.Hour

// saveOfUser swaps a record that holds something of a user, with what is owed because
// of it; more are the other commands of the step. One that nothing is kept in goes.
func (s *Store) saveOfUser(ctx context.Context, p int, key, id string, version int, v any, kept int, more batch, owe []relay.Delivery) error {
	b := newStep(key, strconv.Itoa(version))
	b.overwrite(key, s.encodeVersioned(id, version+1, v))
	if kept == 0 {
		b.add("PEXPIRE", key, pendingLife.Milliseconds())
	}
	b.keys, b.args = append(b.keys, more.keys...), append(b.args, more.args...)
	for _, o := range owe {
		s.addOwed(&b, p, o, true)
		s.note(&b, p, o)
	}
	return s.commit(ctx, b)
}

// ofUser decodes such a record into v, as it was read; version 0 is none.
func (s *Store) ofUser(what, id string, got *redis.StringCmd, v any) (version int, err error) {
	raw, err := got.Result()
	if err == redis.Nil {
		return 0, nil
	}
	if err != nil {
		return 0, s.away(err)
	}
	return s.decodeVersioned(what, id, raw, v)
}

// storedSubscription is a subscription's JSON, its times in milliseconds: of the last
// use how long that was after its creation, which as a rule its id carries.
type storedSubscription struct {
	relay.Subscription
	CreatedAt stamp `json:"cr,omitempty"` // 0: when its id was made
	UsedAfter int64 `json:"ua,omitempty"`
	UsedAt    stamp `json:"us,omitempty"` // of an older version; it stands for UsedAfter
	PendingAt stamp `json:"pe,omitempty"`
}

// stamp is a time in milliseconds. An older version wrote it as a text.
type stamp int64

func stampOf(t time.Time) stamp {
	if t.IsZero() {
		return 0
	}
	return stamp(ms(t))
}

func (s stamp) time() time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(s)).UTC()
}

func (s *stamp) UnmarshalJSON(b []byte) error {
	var t time.Time
	if b[0] != '"' {
		return json.Unmarshal(b, (*int64)(s))
	}
	err := t.UnmarshalJSON(b)
	*s = stampOf(t)
	return err
}

func storedSubscriptions(list []relay.Subscription) []storedSubscription {
	stored := make([]storedSubscription, len(list))
	for i, sub := range list {
		st := storedSubscription{Subscription: sub, CreatedAt: stampOf(sub.CreatedAt), PendingAt: stampOf(sub.PendingAt)}
		st.UsedAfter = int64(stampOf(sub.UsedAt) - st.CreatedAt)
		if st.CreatedAt == stampOf(relay.TimeOf(sub.ID)) {
			st.CreatedAt = 0
		}
		stored[i] = st
	}
	return stored
}

func subscriptions(stored []storedSubscription) []relay.Subscription {
	var list []relay.Subscription
	for _, st := range stored {
		if st.CreatedAt == 0 {
			st.CreatedAt = stampOf(relay.TimeOf(st.ID))
		}
		if st.UsedAt == 0 {
			st.UsedAt = st.CreatedAt + stamp(st.UsedAfter)
		}
		sub := st.Subscription
		sub.CreatedAt, sub.UsedAt, sub.PendingAt = st.CreatedAt.time(), st.UsedAt.time(), st.PendingAt.time()
		list = append(list, sub)
	}
	return list
}

// SaveDevices swaps a user's devices.
func (s *Store) SaveDevices(ctx context.Context, d relay.Devices, owe ...relay.Delivery) error {
	p, active := d.User.Partition(s.Options.Partitions), len(d.Active())
	var count batch
	if more := active - d.Were; more != 0 {
		count.add("HINCRBY", s.keys.count(p), countSubscriptions, more)
	}
	return s.saveOfUser(ctx, p, s.keys.devices(p, d.User), userHolder(d.User), d.Version, storedSubscriptions(d.List), active, count, owe)
}

// Devices of a user.
func (s *Store) Devices(ctx context.Context, u relay.User) (relay.Devices, error) {
	return s.devices(u, s.askDevices(ctx, s.rdb, u))
}

// askDevices reads a user's devices, alone or in a pipeline, and devices decodes them.
func (s *Store) askDevices(ctx context.Context, c redis.Cmdable, u relay.User) *redis.StringCmd {
	return c.Get(ctx, s.keys.devices(u.Partition(s.Options.Partitions), u))
}

func (s *Store) devices(u relay.User, got *redis.StringCmd) (d relay.Devices, err error) {
	var stored []storedSubscription
	d.User = u
	d.Version, err = s.ofUser("devices", userHolder(u), got, &stored)
	d.List = subscriptions(stored)
	d.Were = len(d.Active())
	return d, err
}

// storedPasskeys is what is sealed of a user's passkeys.
type storedPasskeys struct {
	List      []relay.Passkey  `json:"l,omitempty"`
	Enrolment *relay.Enrolment `json:"e,omitempty"`
}

// passkeysID binds the sealed record to its user; a user's devices have another.
func passkeysID(u relay.User) string { return passkeysName + userHolder(u) }

// SavePasskeys swaps a user's passkeys.
func (s *Store) SavePasskeys(ctx context.Context, k relay.Passkeys, owe ...relay.Delivery) error {
	p := k.User.Partition(s.Options.Partitions)
	return s.saveOfUser(ctx, p, s.keys.passkeys(p, k.User), passkeysID(k.User), k.Version, storedPasskeys{k.List, k.Enrolment}, len(k.List), batch{}, owe)
}

// Passkeys of a user.
func (s *Store) Passkeys(ctx context.Context, u relay.User) (relay.Passkeys, error) {
	var stored storedPasskeys
	version, err := s.ofUser("passkeys", passkeysID(u), s.rdb.Get(ctx, s.keys.passkeys(u.Partition(s.Options.Partitions), u)), &stored)
	return relay.Passkeys{User: u, Version: version, List: stored.List, Enrolment: stored.Enrolment}, err
}
