package redisstore

import (
	"context"
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
	b := batch{keys: []string{key}}
	b.overwrite(key, s.encodeVersioned(id, version+1, v))
	if kept == 0 {
		b.add("PEXPIRE", key, pendingLife.Milliseconds())
	}
	b.keys, b.args = append(b.keys, more.keys...), append(b.args, more.args...)
	for _, o := range owe {
		s.addOwed(&b, p, o, true)
		s.note(&b, p, o)
	}
	return s.commit(ctx, strconv.Itoa(version), noGate, b)
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

// SaveDevices swaps a user's devices.
func (s *Store) SaveDevices(ctx context.Context, d relay.Devices, owe ...relay.Delivery) error {
	p, active := d.User.Partition(s.Options.Partitions), len(d.Active())
	var count batch
	if more := active - d.Were; more != 0 {
		count.add("HINCRBY", s.keys.count(p), countSubscriptions, more)
	}
	return s.saveOfUser(ctx, p, s.keys.devices(p, d.User), userHolder(d.User), d.Version, d.List, active, count, owe)
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
	d.User = u
	d.Version, err = s.ofUser("devices", userHolder(u), got, &d.List)
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
