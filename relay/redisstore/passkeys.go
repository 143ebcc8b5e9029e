package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"approvalrelay/relay"
)

// storedPasskeys is what is sealed of a user's passkeys.
type storedPasskeys struct {
	List      []relay.Passkey  `json:"l,omitempty"`
	Enrolment *relay.Enrolment `json:"e,omitempty"`
}

// SavePasskeys swaps a user's passkeys. Like devices, a record of none stays for as
// long as somebody may have read an earlier one.
func (s *Store) SavePasskeys(ctx context.Context, p relay.Passkeys) error {
	part := p.User.Partition(s.Options.Partitions)
	key := s.keys.passkeys(part, p.User)
	b := batch{keys: []string{key}}
	sealed := s.vault.Seal(mustJSON(storedPasskeys{p.List, p.Enrolment}), passkeysID(p.User))
	b.overwrite(key, append([]byte(strconv.Itoa(p.Version+1)+"\t\n"), sealed...))
	if len(p.List) == 0 {
		b.add("PEXPIRE", key, pendingLife.Milliseconds())
	}
	return s.commit(ctx, strconv.Itoa(p.Version), noGate, b)
}

// passkeysID binds the sealed record to its user; a user's devices have another.
func passkeysID(u relay.User) string { return "passkeys:" + userHolder(u) }

// Passkeys of a user.
func (s *Store) Passkeys(ctx context.Context, u relay.User) (relay.Passkeys, error) {
	p := relay.Passkeys{User: u}
	raw, err := s.rdb.Get(ctx, s.keys.passkeys(u.Partition(s.Options.Partitions), u)).Result()
	if err == redis.Nil {
		return p, nil
	}
	if err != nil {
		return p, s.away(err)
	}
	head, sealed, ok := strings.Cut(raw, "\t\n")
	n, err := strconv.Atoi(head)
	if !ok || err != nil {
		return p, errCorrupt
	}
	plain, err := s.vault.Open([]byte(sealed), passkeysID(u))
	if err != nil {
		return p, fmt.Errorf("open the user's passkeys (is their key still in storage.keys?): %w", err)
	}
	var stored storedPasskeys
	if err := parse(plain, &stored); err != nil {
		return p, fmt.Errorf("passkeys: %w", err)
	}
	p.Version, p.List, p.Enrolment = n, stored.List, stored.Enrolment
	return p, nil
}
