package redisstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"approvalrelay/crypto"
	"approvalrelay/relay"
)

var errCorrupt = errors.New("the record is not in the form this version writes")

// packedMark begins a secret whose body is packed. It is a length that none is
// written as: a body of an older version, which was not packed, begins otherwise.
const packedMark = "\x80\x00"

// seal joins the two parts of a secret and seals them under the record's id.
func (s *Store) seal(id string, sec relay.Secret) []byte {
	if sec.Body == nil && sec.Envelope == nil {
		return nil
	}
	body := packedTight(sec.Body)
	plain := binary.AppendUvarint([]byte(packedMark), uint64(len(body)))
	plain = append(append(plain, body...), sec.Envelope...)
	return s.vault.Seal(plain, id)
}

func (s *Store) unseal(id string, sealed []byte) (relay.Secret, error) {
	if len(sealed) == 0 {
		return relay.Secret{}, nil
	}
	plain, err := s.vault.Open(sealed, id)
	if err != nil {
		return relay.Secret{}, fmt.Errorf("open the sealed part of %s (is its key still in storage.keys?): %w", id, err)
	}
	plain, isPacked := bytes.CutPrefix(plain, []byte(packedMark))
	n, w := binary.Uvarint(plain)
	if w <= 0 || n > uint64(len(plain)-w) {
		return relay.Secret{}, errCorrupt
	}
	sec := relay.Secret{Body: plain[w : w+int(n)]}
	if rest := plain[w+int(n):]; len(rest) > 0 {
		sec.Envelope = rest
	}
	ok := true
	if isPacked {
		sec.Body, ok = unpacked(sec.Body)
	}
	if !ok {
		return relay.Secret{}, errCorrupt
	}
	return sec, nil
}

// recordVersion stands before the JSON of every record and entry. It is raised
// when a node of the version before could misread what is written: such a node
// leaves it to others (relay.ErrNewer). New fields that it may overlook need no
// new version.
const recordVersion = 4

// mustJSON encodes our own records: plain structs of strings, numbers and times.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return append(strconv.AppendInt(nil, recordVersion, 10), b...)
}

// lacks tells whether a list must do without a record because of an error in reading
// it. No list shows what is sealed, so that one that cannot be opened is in it all the
// same; whatever acts on it reads it again, and fails.
func (s *Store) lacks(id string, err error) (bool, error) {
	switch {
	case errors.Is(err, relay.ErrNewer):
		s.Log.Warn("a list lacks a record that a newer version wrote", "id", id, "error", err)
		return true, nil
	case errors.Is(err, crypto.ErrSealed):
		s.Log.Error("a record is listed that cannot be opened", "id", id, "error", err)
		return false, nil
	}
	return err != nil, err
}

// parse decodes what mustJSON made.
func parse(b []byte, v any) error {
	digits := 0
	for digits < len(b) && b[digits] >= '0' && b[digits] <= '9' {
		digits++
	}
	version, err := strconv.Atoi(string(b[:digits]))
	if err != nil {
		return fmt.Errorf("%w: it has no version", errCorrupt)
	}
	if version > recordVersion {
		return fmt.Errorf("%w (its version is %d, this node knows %d)", relay.ErrNewer, version, recordVersion)
	}
	text, ok := unpacked(b[digits:])
	if !ok {
		return fmt.Errorf("%w: it is not packed as it should be", errCorrupt)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return nil
}

// body is packed JSON, a newline, and what is sealed; JSON has no raw newline.
func (s *Store) body(id string, v any, sec relay.Secret) []byte {
	return append(append(packed(mustJSON(v)), '\n'), s.seal(id, sec)...)
}

func (s *Store) decodeBody(id string, b []byte, v any) (relay.Secret, error) {
	j, sealed, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return relay.Secret{}, errCorrupt
	}
	if err := parse(j, v); err != nil {
		return relay.Secret{}, err
	}
	return s.unseal(id, sealed)
}

// storedChallenge is a challenge's JSON, its times in milliseconds: there are
// many that live at once, and each text of a time would take twice the room.
type storedChallenge struct {
	relay.Challenge
	OccurredAt int64 `json:"oc,omitempty"`
	ExpiresAt  int64 `json:"ex"`
	RevealedAt int64 `json:"rv,omitempty"`
	EndedAt    int64 `json:"en,omitempty"`
}

// toMillis and fromMillis keep the zero time.
func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return ms(t)
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func (s *Store) challengeBody(c relay.Challenge) []byte {
	return s.body(c.ID, storedChallenge{c, toMillis(c.OccurredAt), toMillis(c.ExpiresAt), toMillis(c.RevealedAt), toMillis(c.EndedAt)}, c.Secret)
}

func (s *Store) encodeChallenge(c relay.Challenge) []byte {
	head := strconv.Itoa(c.Version) + "\t" + c.UserID + "\n"
	return append([]byte(head), s.challengeBody(c)...)
}

func (s *Store) decodeChallenge(id, raw string) (relay.Challenge, error) {
	var stored storedChallenge
	head, rest, ok := strings.Cut(raw, "\n")
	version, user, ok2 := strings.Cut(head, "\t")
	n, err := strconv.Atoi(version)
	if !ok || !ok2 || err != nil {
		return stored.Challenge, fmt.Errorf("challenge %s: %w", id, errCorrupt)
	}
	secret, err := s.decodeBody(id, []byte(rest), &stored)
	if err != nil {
		err = fmt.Errorf("challenge %s: %w", id, err)
	}
	c := stored.Challenge
	c.OccurredAt, c.ExpiresAt, c.RevealedAt, c.EndedAt = fromMillis(stored.OccurredAt), fromMillis(stored.ExpiresAt), fromMillis(stored.RevealedAt), fromMillis(stored.EndedAt)
	c.Secret = secret
	c.ID, c.CreatedAt, c.Version, c.UserID = id, relay.TimeOf(id), n, user
	return c, err
}

func (s *Store) encodeEvent(e relay.Event) []byte { return s.body(e.ID, e, e.Secret) }

func (s *Store) decodeEvent(id, raw string) (relay.Event, error) {
	var e relay.Event
	sec, err := s.decodeBody(id, []byte(raw), &e)
	if err != nil {
		err = fmt.Errorf("event %s: %w", id, err)
	}
	e.ID, e.ReceivedAt, e.Secret = id, relay.TimeOf(id), sec
	return e, err
}

// sealedDelivery is a delivery's JSON; only a lock has a sealed part.
type sealedDelivery struct {
	relay.Delivery
	Sealed []byte `json:"s,omitempty"`
}

func (s *Store) encodeDelivery(d relay.Delivery) []byte {
	return mustJSON(sealedDelivery{Delivery: d, Sealed: s.seal(d.ID, d.Secret)})
}

func (s *Store) decodeDelivery(raw string) (relay.Delivery, error) {
	var d sealedDelivery
	if err := parse([]byte(raw), &d); err != nil {
		return d.Delivery, fmt.Errorf("delivery: %w", err)
	}
	sec, err := s.unseal(d.ID, d.Sealed)
	d.Secret = sec
	return d.Delivery, err
}

// encodeEntry is what stands in a stream, or in the set of what is due later:
// the delivery's id where a record has the rest, three short forms for the inner
// steps that every challenge needs, else the delivery itself.
func (s *Store) encodeEntry(d relay.Delivery, recorded bool) string {
	switch {
	case recorded:
		return d.ID
	case short(d.Kind):
		return strings.Join(append([]string{string(d.Kind), d.ChallengeID}, d.Supersedes...), " ")
	}
	return string(s.encodeDelivery(d))
}

// dueMember is what stands in the set of what is due later: the lane and the entry,
// but of a challenge's expiry, of which there are many, "x" and the challenge's id
// without its prefix; so short it takes half the room.
func (s *Store) dueMember(d relay.Delivery, recorded bool) string {
	if d.Kind == relay.KindExpire {
		return "x" + strings.TrimPrefix(d.ChallengeID, "chl_")
	}
	return string(d.Lane()) + "\n" + s.encodeEntry(d, recorded)
}

// decodeEntry returns recorded true if the entry is but the id of a record.
func (s *Store) decodeEntry(raw string) (d relay.Delivery, recorded bool, err error) {
	if raw != "" && raw[0] >= '0' && raw[0] <= '9' {
		d, err = s.decodeDelivery(raw)
		return d, false, err
	}
	f := strings.Fields(raw)
	switch {
	case len(f) == 0:
		return d, false, errCorrupt
	case len(f) == 1:
		return relay.Delivery{ID: raw}, true, nil
	}
	d = relay.Delivery{Kind: relay.Kind(f[0]), ChallengeID: f[1], Supersedes: append([]string(nil), f[2:]...)}
	if !short(d.Kind) {
		return d, false, fmt.Errorf("%w (this node does not know the step %q)", relay.ErrNewer, d.Kind)
	}
	return d, false, nil
}

// short tells whether an inner step is written as words: those that every
// challenge needs.
func short(k relay.Kind) bool {
	return k == relay.KindAnnounce || k == relay.KindExpire || k == relay.KindEnded
}

// encodeVersioned is a record of a user that is sealed whole: its version, by which
// it is swapped, a tab, a newline, and what is sealed under an id.
func (s *Store) encodeVersioned(id string, version int, v any) []byte {
	return append([]byte(strconv.Itoa(version)+"\t\n"), s.vault.Seal(packedTight(mustJSON(v)), id)...)
}

// decodeVersioned reads what encodeVersioned made into v; what is its name in errors.
func (s *Store) decodeVersioned(what, id, raw string, v any) (version int, err error) {
	head, sealed, ok := strings.Cut(raw, "\t\n")
	version, err = strconv.Atoi(head)
	if !ok || err != nil {
		return 0, errCorrupt
	}
	plain, err := s.vault.Open([]byte(sealed), id)
	if err != nil {
		return 0, fmt.Errorf("open the user's %s (is their key still in storage.keys?): %w", what, err)
	}
	if err := parse(plain, v); err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	return version, nil
}
