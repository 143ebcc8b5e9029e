package redisstore

import (
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"strconv"

	"approvalrelay/relay"
)

const group = "relay"

const (
	devicesName  = "devices:"
	passkeysName = "passkeys:"
)

// keys names every key; see the package documentation.
type keys struct {
	prefix string
	tags   []string // what the keys of each partition begin with
}

const maxPartitions = 256 // as many as an id can name

func newKeys(prefix string) keys {
	k := keys{prefix, make([]string, maxPartitions)}
	for p := range k.tags {
		k.tags[p] = fmt.Sprintf("%s:{p%02d}:", prefix, p)
	}
	return k
}

func (k keys) tag(partition int) string { return k.tags[partition] }

func (k keys) of(partition int, id string) string { return k.tag(partition) + id }

func (k keys) owner(p int, h relay.Holder) string { return k.tag(p) + "owner:" + holder(h) }
func (k keys) live(p int, h relay.Holder) string  { return k.tag(p) + "live:" + holder(h) }
func (k keys) mute(p int, h relay.Holder) string  { return k.tag(p) + "mute:" + holder(h) }

func (k keys) ended(p int, h relay.Holder, user string) string {
	return k.tag(p) + "ended:" + holder(h) + ":" + user
}

func (k keys) due(p int) string                    { return k.tag(p) + "due" }
func (k keys) dead(p int) string                   { return k.tag(p) + "dead" }
func (k keys) owed(p int) string                   { return k.tag(p) + "owed" }
func (k keys) laneBase(p int) string               { return k.tag(p) + "q:" }
func (k keys) lane(p int, l relay.Lane) string     { return k.laneBase(p) + string(l) }
func (k keys) devices(p int, u relay.User) string  { return k.tag(p) + devicesName + userHolder(u) }
func (k keys) passkeys(p int, u relay.User) string { return k.tag(p) + passkeysName + userHolder(u) }
func (k keys) cards(p int, u relay.User) string    { return k.tag(p) + "cards:" + userHolder(u) }
func (k keys) endpoint(p int, fingerprint []byte) string {
	return k.tag(p) + "endpoint:" + base64.RawURLEncoding.EncodeToString(fingerprint[:16])
}
func (k keys) notices(p int, fingerprint []byte) string {
	return k.tag(p) + "notices:" + base64.RawURLEncoding.EncodeToString(fingerprint[:16])
}
func (k keys) noticesOf(p int, u relay.User) string { return k.tag(p) + "notices:" + userHolder(u) }

func (k keys) root() string                { return k.prefix + ":root" }
func (k keys) nodes() string               { return k.prefix + ":nodes" }
func (k keys) takeover(node string) string { return k.prefix + ":takeover:" + node }
func (k keys) parked() string              { return k.prefix + ":parked" }
func (k keys) changes() string             { return k.prefix + ":changes" }

// reseal has the mark of the first storage key and the number of keys in its name:
// when these change, a pass begins at once.
func (k keys) reseal(mark string, n int) string {
	return fmt.Sprintf("%s:reseal:%x:%d", k.prefix, mark, n)
}

func holder(h relay.Holder) string {
	if h.CardID != "" {
		return h.Merchant + ":c:" + h.CardID
	}
	return h.Merchant + ":u:" + h.UserID
}

func userHolder(u relay.User) string { return holder(relay.Holder{Merchant: u.Merchant, UserID: u.ID}) }

// mark tells apart the references of one card's live challenges; "-" is none.
func mark(reference string) string {
	if reference == "" {
		return "-"
	}
	h := fnv.New64a()
	h.Write([]byte(reference))
	return strconv.FormatUint(h.Sum64(), 36)
}

func liveMember(c relay.Challenge) string { return c.ID + " " + mark(c.Reference) }
