// Package redisstore keeps the relay's records in Redis 7 and hands out what is
// owed: it implements relay.Store and relay.Queue.
//
// Guarantees. An arrival is one round trip and one script; every other change of
// a challenge is a compare-and-swap of its version, written in one script with
// everything that is owed because of it. Scripts that come while others are under way
// travel together (batch.go), and what a step owes at once is handed to its own node
// with its answer (handover.go). Every key of one partition carries one hash tag, so
// each script stays in one slot of a cluster. What is owed survives
// this process: it is a stream entry, or a member of the sorted set of what is
// due later, until a settlement removes it. Event bodies, codes and subscription
// keys are sealed (crypto.Vault) with their record's id; what an older key has sealed
// is sealed again under the first one in the background (reseal.go).
//
// Everything has a bounded life: records, duplicate memory and indexes by TTL or
// trimming; card owners, devices and dead letters by count.
//
// Non-goals: commands newer than Redis 7.0, exactly-once delivery, and keeping
// anything when Redis itself loses it (see the README on AOF and noeviction).
//
// # Keys
//
// {pNN} is the partition. H is "merchant:c:card" or "merchant:u:user".
//
//	prefix:{pNN}:evt_…            an event: packed JSON, newline, sealed body; none if its challenge says it all
//	prefix:{pNN}:chl_…            a challenge: version, tab, owner, newline, packed JSON, newline, sealed body
//	prefix:{pNN}:dlv_…            a delivery that was attempted: JSON
//	prefix:{pNN}:dup:NN           hash: a content's fingerprint, the event that first had it without evt_; dup:short:NN of what is remembered briefly
//	prefix:{pNN}:dup:NN:older     the one before
//	prefix:{pNN}:owner:H          hash: user, at (ms), op ("1" if set by the operator)
//	prefix:{pNN}:live:H           sorted set by creation: "chl_… MARK" of what is pending or confirming
//	prefix:{pNN}:ended:H:USER     sorted set by creation: "chl_…" of what has ended, "chl_… late" of what had when it came
//	prefix:{pNN}:mute:H           pushes are silenced
//	prefix:{pNN}:due              sorted set by time: lane, newline, entry; of a challenge's expiry "x", its id without chl_
//	prefix:{pNN}:dead             sorted set by time: dead letters
//	prefix:{pNN}:owed             hash: how many deliveries each lane owes
//	prefix:{pNN}:count            hash: how many challenges are pending and confirming, how many subscriptions active
//	prefix:{pNN}:retrying         sorted set by next attempt: deliveries that failed before
//	prefix:{pNN}:ix:e:OUTCOME     stream: events; of duplicate and refused ones the record itself
//	prefix:{pNN}:ix:t:TYPE        stream: events
//	prefix:{pNN}:ix:h:H           sorted set by arrival: a card's or a user's events; of challenges those that have ended
//	prefix:{pNN}:ix:s:STATUS      stream: challenges that have ended
//	prefix:{pNN}:ix:d:LANE        stream: deliveries that were attempted
//	prefix:{pNN}:ix:o:ID          list: the deliveries that an event, or its challenge, has caused since it arrived
//	prefix:{pNN}:q:LANE           stream of a lane; its group is "relay"
//	prefix:{pNN}:devices:H        a user's subscriptions: version, tab, newline, sealed packed JSON
//	prefix:{pNN}:passkeys:H       a user's passkeys: version, tab, newline, sealed packed JSON
//	prefix:{pNN}:cards:H          set of a user's cards
//	prefix:{pNN}:endpoint:NN      hash: an endpoint's fingerprint, whose it is: version, merchant, user, subscription, when it is forgotten (s), tabs between
//	prefix:{pNN}:notices:FINGERPRINT   sorted set by time: pushes about subscriptions to this endpoint, of late
//	prefix:{pNN}:notices:H        the same, by user
//	prefix:root                   the root key, sealed
//	prefix:nodes                  sorted set of nodes by their last heartbeat (ms), negative if they left
//	prefix:takeover:NODE          lock, tab, who takes over from a dead node
//	prefix:sample:SECONDS         hash: what all nodes counted in ten seconds
//	prefix:parked                 hash: target, reason
//	prefix:reseal:MARK:N          whose turn it is to seal again under the first of N keys; then how many records were left
//	prefix:changes                channel: merchant, tab, user, tab, challenge
package redisstore
