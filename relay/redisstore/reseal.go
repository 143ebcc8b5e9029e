package redisstore

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// After a rotation of storage.keys most of what older keys have sealed is gone or
// written anew within retention, but dead letters live for 30 days, and the root key
// and devices for ever. So one node at a time goes over all records and seals again,
// under the first key, what is under another. It changes nothing else of a record,
// not even what a newer version has put there.

const (
	resealEvery  = time.Hour
	resealTurn   = time.Minute // a node that has died loses its turn; the others look as often
	resealPasses = 3
	resealCount  = 128 // keys in one step; records have up to max_body
)

// Resealed is what one pass over all records has come to.
type Resealed struct {
	Swapped int // sealed again
	Raced   int // were written by somebody else meanwhile
	// These are left under another key than the first:
	Waiting int // queued deliveries, which are sealed again when they are tried
	Locked  int // under a key that is not configured, or damaged
	Newer   int // of a newer version
}

// Left is how many are not under the first key.
func (r Resealed) Left() int { return r.Waiting + r.Locked + r.Newer }

// KeepSealed runs a pass at once and every hour, by one of all nodes, until ctx
// ends. With a single key there is nothing to do.
func (s *Store) KeepSealed(ctx context.Context) {
	if s.vault.Keys() == 1 {
		return
	}
	for ctx.Err() == nil {
		if err := s.resealInTurn(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("records are not all sealed again under the first of storage.keys; trying again", "again_in", resealTurn, "error", err)
		}
		_ = rest(ctx, resealTurn) // the loop looks at ctx
	}
}

func (s *Store) turnKey() string { return s.keys.reseal(s.vault.Mark(), s.vault.Keys()) }

// resealInTurn runs passes if it is this node's turn, until one finds nothing to do.
func (s *Store) resealInTurn(ctx context.Context) error {
	key := s.turnKey()
	err := s.rdb.SetArgs(ctx, key, "0", redis.SetArgs{Mode: "NX", TTL: resealTurn}).Err()
	if err == redis.Nil { // another node's turn, or it has been
		if left, err := s.rdb.Get(ctx, key).Int(); err == nil {
			s.underOlder.Set(float64(left))
		}
		return nil
	}
	if err != nil {
		return s.away(err)
	}
	var last Resealed
	swapped := 0
	for range resealPasses {
		if last, err = s.Reseal(ctx); err != nil {
			return err
		}
		if swapped += last.Swapped; last.Swapped+last.Raced == 0 {
			break
		}
	}
	s.underOlder.Set(float64(last.Left()))
	s.tell(last, swapped)
	if err := s.rdb.Set(ctx, key, last.Left(), resealEvery).Err(); err != nil {
		return s.away(err)
	}
	return nil
}

func (s *Store) tell(last Resealed, swapped int) {
	if swapped > 0 {
		s.Log.Info("records were sealed again under the first of storage.keys", "resealed", swapped)
	}
	if last.Locked > 0 {
		s.Log.Error("records cannot be opened with any of storage.keys: put the key back that sealed them, if you still have it", "records", last.Locked)
	}
	switch {
	case last.Left() > 0:
		s.Log.Warn("keep all of storage.keys: records are left under others than the first", "in_queues", last.Waiting, "cannot_be_opened", last.Locked, "of_a_newer_version", last.Newer)
	case last.Swapped+last.Raced > 0:
		s.Log.Warn("keep all of storage.keys: while records were sealed again, others were written under an older key; do all nodes have the same storage.keys in the same order?")
	default:
		s.Log.Info("nothing in Redis needs any of storage.keys but the first: the others may be removed")
	}
}

// Reseal runs one pass. It uses one connection, and that for half of the time, so that
// requests hardly notice. It may miss records that move between the masters of a
// cluster meanwhile, and a failover may bring back what was sealed before: the next
// pass sees them, which is why two reports in a row are worth more than one.
func (s *Store) Reseal(ctx context.Context) (r Resealed, err error) {
	err = s.eachKey(ctx, func(ctx context.Context, names []string) error {
		if err := s.rdb.PExpire(ctx, s.turnKey(), resealTurn).Err(); err != nil {
			return s.away(err)
		}
		return s.resealKeys(ctx, names, &r)
	})
	if err == nil {
		err = s.eachQueued(ctx, func(entry string) {
			again, err := s.deliveryAgain(entry)
			switch {
			case err != nil:
				s.cannot(&r, "an entry of a queue", err)
			case again != "":
				r.Waiting++
			}
		})
	}
	return r, err
}

// eachKey visits the names of all keys, some at a time.
func (s *Store) eachKey(ctx context.Context, visit func(ctx context.Context, names []string) error) error {
	scan := func(ctx context.Context, c redis.Cmdable) error {
		for cursor := uint64(0); ; {
			began := time.Now()
			names, next, err := c.Scan(ctx, cursor, s.keys.prefix+":*", resealCount).Result()
			if err != nil {
				return s.away(err)
			}
			if err := visit(ctx, names); err != nil {
				return err
			}
			if next == 0 {
				return nil
			}
			cursor = next
			if err := rest(ctx, time.Since(began)); err != nil {
				return err
			}
		}
	}
	cluster, ok := s.rdb.(*redis.ClusterClient)
	if !ok {
		return scan(ctx, s.rdb)
	}
	var one sync.Mutex // the masters are visited at the same time
	return cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		one.Lock()
		defer one.Unlock()
		return scan(ctx, master)
	})
}

// eachQueued visits the entries that may have a sealed part: those of locks.
func (s *Store) eachQueued(ctx context.Context, visit func(entry string)) error {
	for p := range s.Options.Partitions {
		for from := "-"; ; {
			entries, err := s.rdb.XRangeN(ctx, s.keys.lane(p, relay.LaneLock), from, "+", resealCount).Result()
			if err != nil {
				return s.away(err)
			}
			for _, e := range entries {
				raw, _ := e.Values["d"].(string)
				visit(raw)
				from = "(" + e.ID
			}
			if len(entries) < resealCount {
				break
			}
		}
		due := s.rdb.ZScan(ctx, s.keys.due(p), 0, string(relay.LaneLock)+"\n*", resealCount).Iterator()
		for due.Next(ctx) { // members, each with its score after it
			_, entry, ok := strings.Cut(due.Val(), "\n")
			if ok {
				visit(entry)
			}
		}
		if err := due.Err(); err != nil {
			return s.away(err)
		}
	}
	return nil
}

// resealKeys looks at the records among some keys.
func (s *Store) resealKeys(ctx context.Context, names []string, r *Resealed) error {
	pipe := s.rdb.Pipeline()
	got := map[string]*redis.StringCmd{}
	for _, name := range names {
		if s.sealedRecord(name) {
			got[name] = pipe.Get(ctx, name)
		}
	}
	if len(got) == 0 {
		return nil
	}
	if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
		return s.away(err)
	}
	for name, cmd := range got {
		raw, err := cmd.Result()
		if err == redis.Nil {
			continue
		}
		if err != nil {
			return s.away(err)
		}
		again, err := s.recordAgain(name, raw)
		if err != nil {
			s.cannot(r, name, err)
			continue
		}
		if again == "" {
			continue
		}
		done, err := s.run(ctx, resealScript, []string{name}, raw, again)
		if err != nil {
			return err
		}
		if done == int64(1) {
			r.Swapped++
			s.resealed.Inc()
		} else {
			r.Raced++
		}
	}
	return nil
}

// cannot counts what stays as it is.
func (s *Store) cannot(r *Resealed, name string, err error) {
	if errors.Is(err, relay.ErrNewer) {
		r.Newer++
		return
	}
	r.Locked++
	s.Log.Debug("a record cannot be opened", "key", name, "error", err)
}

// inPartition is a key's name within its partition.
func (s *Store) inPartition(key string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(key, s.keys.prefix+":{p")
	if !ok {
		return "", false
	}
	_, name, ok = strings.Cut(rest, "}:")
	return name, ok
}

// sealedRecord tells whether a key's value may have a sealed part.
func (s *Store) sealedRecord(key string) bool {
	name, ok := s.inPartition(key)
	if !ok {
		return key == s.keys.root()
	}
	for _, prefix := range []string{"evt_", "chl_", "dlv_", devicesName, passkeysName} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// recordAgain is a record under the first key, or "" if it has nothing sealed under
// another.
func (s *Store) recordAgain(key, raw string) (string, error) {
	name, _ := s.inPartition(key)
	id, plain := name, 0 // up to where it is not sealed
	switch {
	case key == s.keys.root():
		id = key
	case strings.HasPrefix(name, devicesName):
		id, plain = name[len(devicesName):], strings.Index(raw, "\n")+1
	case strings.HasPrefix(name, passkeysName):
		plain = strings.Index(raw, "\n") + 1
	case strings.HasPrefix(name, "dlv_"):
		return s.deliveryAgain(raw)
	default:
		if strings.HasPrefix(name, "chl_") {
			plain = strings.Index(raw, "\n") + 1
		}
		j, _, ok := strings.Cut(raw[plain:], "\n")
		if !ok {
			return "", errCorrupt
		}
		if err := parse([]byte(j), &struct{}{}); err != nil {
			return "", err
		}
		plain += len(j) + 1
	}
	again, err := s.again(raw[plain:], id)
	if again == "" {
		return "", err
	}
	return raw[:plain] + again, nil
}

// deliveryAgain does so for a delivery's record, or an entry that holds one.
func (s *Store) deliveryAgain(raw string) (string, error) {
	if raw == "" || raw[0] < '0' || raw[0] > '9' { // an entry in words
		return "", nil
	}
	var d struct {
		ID     string `json:"id"`
		Sealed []byte `json:"s"`
	}
	if err := parse([]byte(raw), &d); err != nil {
		return "", err
	}
	again, err := s.again(string(d.Sealed), d.ID)
	if again == "" {
		return "", err
	}
	text := base64.StdEncoding.EncodeToString
	return strings.Replace(raw, text(d.Sealed), text([]byte(again)), 1), nil
}

// again seals under the first key; "" for what is, or for nothing.
func (s *Store) again(sealed, id string) (string, error) {
	if sealed == "" || strings.HasPrefix(sealed, s.vault.Mark()) {
		return "", nil
	}
	plain, err := s.vault.Open([]byte(sealed), id)
	if err != nil {
		return "", err
	}
	return string(s.vault.Seal(plain, id)), nil
}
