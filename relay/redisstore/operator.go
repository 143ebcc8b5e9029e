package redisstore

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// DeadLetters of one partition, the newest first.
func (s *Store) DeadLetters(ctx context.Context, partition, limit int) ([]relay.Delivery, error) {
	ids, err := s.rdb.ZRevRange(ctx, s.keys.dead(partition), 0, int64(limit-1)).Result()
	if err != nil {
		return nil, s.away(err)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	raw, err := s.records(ctx, ids)
	if err != nil {
		return nil, err
	}
	list := make([]relay.Delivery, 0, len(ids))
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
			list = append(list, d)
		}
	}
	return list, nil
}

// Replay owes a dead letter again, with its attempts so far; its schedule begins
// anew.
func (s *Store) Replay(ctx context.Context, id string) error {
	d, err := s.Delivery(ctx, id)
	if err != nil {
		return err
	}
	p, _ := relay.PartitionOf(id)
	d.Status, d.Tries = relay.DeliveryPending, 0
	b := s.undead(p, id)
	b.add("SET", s.keys.of(p, id), s.encodeDelivery(d), "PX", s.Retention.Deliveries.Milliseconds())
	s.addOwed(&b, p, d, true)
	return found(s.commit(ctx, b))
}

// Drop forgets a dead letter.
func (s *Store) Drop(ctx context.Context, id string) error {
	p, ok := relay.PartitionOf(id)
	if !ok || p >= s.Options.Partitions {
		return relay.ErrNotFound
	}
	b := s.undead(p, id)
	b.add("DEL", s.keys.of(p, id))
	return found(s.commit(ctx, b))
}

// undead begins a step that is made if the delivery is a dead letter, which it then is
// no more.
func (s *Store) undead(p int, id string) batch {
	dead := s.keys.dead(p)
	return gatedStep(dead, "", "ZREM", dead, id)
}

// found says what it means when such a step was not made.
func found(err error) error {
	if err == relay.ErrLostLease {
		return relay.ErrNotFound
	}
	return err
}

// Park and resume targets: one that is gone is parked also when Redis is out of memory.
func (s *Store) Park(ctx context.Context, target string, parked bool, reason string) error {
	key := s.keys.parked()
	b := newStep(key, "")
	if parked {
		b.insist(key)
		b.add("HSET", key, target, reason)
	} else {
		b.add("HDEL", key, target)
	}
	return s.commit(ctx, b)
}

// Parked targets and why.
func (s *Store) Parked(ctx context.Context) (map[string]string, error) {
	m, err := s.rdb.HGetAll(ctx, s.keys.parked()).Result()
	if err != nil {
		return nil, s.away(err)
	}
	return m, nil
}

// Backlog sums the partitions' counters.
func (s *Store) Backlog(ctx context.Context) (map[relay.Lane]int, error) {
	pipe := s.rdb.Pipeline()
	got := make([]*redis.MapStringStringCmd, s.Options.Partitions)
	for p := range got {
		got[p] = pipe.HGetAll(ctx, s.keys.owed(p))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, s.away(err)
	}
	sum := map[relay.Lane]int{}
	for _, g := range got {
		for lane, n := range g.Val() {
			owed, err := strconv.Atoi(n)
			if err != nil {
				return nil, errCorrupt
			}
			sum[relay.Lane(lane)] += owed
		}
	}
	return sum, nil
}

func change(u relay.User, id string) string { return u.Merchant + "\t" + u.ID + "\t" + id }

// Changes subscribes once for the whole node, anew whenever the connection ends
// or nothing answers on it: a master that hangs, or whose machine has gone, ends
// no connection. Each new subscription may have missed something.
func (s *Store) Changes(ctx context.Context, fn func(relay.User, string), resync func()) {
	for ctx.Err() == nil {
		s.subscribe(ctx, fn, resync)
		_ = rest(ctx, 250*time.Millisecond) // the loop looks at ctx
	}
}

// subscribe returns when the subscription has ended.
func (s *Store) subscribe(ctx context.Context, fn func(relay.User, string), resync func()) {
	sub := s.readers.Subscribe(ctx, s.keys.changes())
	defer sub.Close()
	for asked := false; ctx.Err() == nil; {
		m, err := sub.ReceiveTimeout(ctx, time.Second)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() && !asked {
			asked, err = true, sub.Ping(ctx)
		} else {
			asked = false
		}
		if err != nil {
			return
		}
		switch m := m.(type) {
		case *redis.Subscription:
			resync()
		case *redis.Message:
			if f := strings.Split(m.Payload, "\t"); len(f) == 3 {
				fn(relay.User{Merchant: f[0], ID: f[1]}, f[2])
			}
		}
	}
}
