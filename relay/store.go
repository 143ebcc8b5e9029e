package relay

import (
	"context"
	"time"

	"approvalrelay/crypto"
)

// Store keeps the records. Every method is safe for concurrent use, on any
// number of nodes. Errors are ErrNotFound, ErrConflict, ErrLostLease where the
// method says so, and ErrNewer for a record that this version cannot read;
// everything else wraps ErrUnavailable, and then nothing is known about whether a
// write happened: all writes may be repeated.
type Store interface {
	// Now is the time by the store's clock, so that no node can decide after
	// expiry because its own clock is wrong.
	Now() time.Time
	// Partitions is how many there are; fixed for the life of the data.
	Partitions() int
	// Root is the key that fingerprints and tokens are derived from. It is made
	// by the first node that asks and is the same for all from then on.
	Root(ctx context.Context) (crypto.Root, error)

	// Arrive takes an event in one round trip, or tells that its content is known.
	Arrive(ctx context.Context, a Arrival) (Arrived, error)
	// Commit writes one step of one partition atomically. ErrConflict: the
	// challenge has changed; ErrLostLease: the delivery was settled elsewhere. An
	// empty step returns when what was read of the partition before is as safe as
	// what Commit writes.
	Commit(ctx context.Context, s Step) error

	// Record keeps what else became of a webhook: a duplicate or a refusal. Only
	// the newest few thousand are kept.
	Record(ctx context.Context, ev Event) error

	// Challenge and Event: ErrNotFound.
	Challenge(ctx context.Context, id string) (Challenge, error)
	Event(ctx context.Context, id string) (Event, error)
	// Challenges lists newest first, of all holders together.
	Challenges(ctx context.Context, q ChallengeQuery) ([]Challenge, error)
	// Unassigned lists the pending challenges of a card that have no owner, newest
	// first.
	Unassigned(ctx context.Context, h Holder) ([]Challenge, error)
	// Around reads in one round trip what surrounds a challenge, and the devices of its
	// owner; Recent counts those created within a time before it.
	Around(ctx context.Context, c Challenge, within time.Duration) (Crowd, Devices, error)
	// ForPush reads in one round trip a user's devices and a challenge: nil if it is
	// forgotten, or id is "".
	ForPush(ctx context.Context, u User, id string) (Devices, *Challenge, error)
	// Named loads challenges, in order; those that are forgotten, or that only a
	// newer version can read, are left out.
	Named(ctx context.Context, ids []string) ([]Challenge, error)

	// Owner of a card: ErrNotFound if unknown.
	Owner(ctx context.Context, h Holder) (Owner, error)
	// SetOwner is the operator's word: it wins over what events teach. An empty
	// UserID forgets the owner. It indexes the card under its user, and owes
	// KindLearn if the card has challenges that live.
	SetOwner(ctx context.Context, h Holder, o Owner) error
	// Owners of several cards; the zero Owner where there is none.
	Owners(ctx context.Context, cards []Holder) ([]Owner, error)
	// IndexCard and Cards: the set of cards in the user's own partition.
	IndexCard(ctx context.Context, u User, card string) error
	Cards(ctx context.Context, u User) ([]string, error)

	// Devices of a user; none is an empty value. SaveDevices writes them and
	// what is owed because of it: ErrConflict.
	Devices(ctx context.Context, u User) (Devices, error)
	SaveDevices(ctx context.Context, d Devices, owe ...Delivery) error
	// Endpoint is whose an endpoint is, the zero Claim if nobody's. ClaimEndpoint
	// swaps it, a Claim without a user releases it: ErrConflict. KeepEndpoint lets it
	// live on; it is forgotten after a few years.
	Endpoint(ctx context.Context, fingerprint []byte) (Claim, error)
	ClaimEndpoint(ctx context.Context, fingerprint []byte, c Claim) error
	KeepEndpoint(ctx context.Context, fingerprint []byte) error
	// SpendNotice counts a push about a subscription itself, unless its endpoint or
	// its user has had as many as may be: then it tells how long to wait.
	SpendNotice(ctx context.Context, fingerprint []byte, u User, l NoticeLimits) (wait time.Duration, err error)

	// Passkeys of a user; none is an empty value. SavePasskeys writes them and what is
	// owed because of it: ErrConflict.
	Passkeys(ctx context.Context, u User) (Passkeys, error)
	SavePasskeys(ctx context.Context, p Passkeys, owe ...Delivery) error

	// Delivery: ErrNotFound if it was never attempted, or is forgotten.
	Delivery(ctx context.Context, id string) (Delivery, error)
	// History names the deliveries that an event, or the challenge that it became,
	// has caused since it arrived, in order.
	History(ctx context.Context, eventID string) ([]Owed, error)
	// Attempted loads those of the deliveries that have a record, by id.
	Attempted(ctx context.Context, ids []string) (map[string]Delivery, error)
	// DeadLetters lists the newest first, at most limit of one partition.
	DeadLetters(ctx context.Context, partition, limit int) ([]Delivery, error)
	// Replay owes a dead delivery again; Drop forgets it. ErrNotFound if it is
	// not a dead letter.
	Replay(ctx context.Context, id string) error
	Drop(ctx context.Context, id string) error

	// Park pauses or resumes a target for all nodes; Parked names the paused.
	Park(ctx context.Context, target string, parked bool, reason string) error
	Parked(ctx context.Context) (map[string]string, error)
	// Events, Deliveries and AllChallenges list newest first, and return the cursor
	// of the next page, "" after the last: ErrCursor. A page may be short although
	// there are more.
	Events(ctx context.Context, q EventQuery) (list []Event, next string, err error)
	Deliveries(ctx context.Context, q DeliveryQuery) (list []Delivery, next string, err error)
	AllChallenges(ctx context.Context, q StatusQuery) (list []Challenge, next string, err error)
	// EraseEvent drops all records of an event: its own, its challenge's, and those of
	// the deliveries that it has caused. EraseUser drops what is left of a user
	// and of whose cards these were: to be called last.
	EraseEvent(ctx context.Context, ev Event) error
	EraseUser(ctx context.Context, u User, cards []string) error
	// Counts and Lanes for the operator's overview.
	Counts(ctx context.Context) (Counts, error)
	Lanes(ctx context.Context, lanes []Lane) (map[Lane]LaneState, error)
	// Sizes is how much room the records take; it is an estimate by samples.
	Sizes(ctx context.Context, lanes []Lane) (Sizes, error)
	// AddSample adds a node's figures to those of all nodes for the time that at is
	// in; Samples reads what is kept of them, oldest first.
	AddSample(ctx context.Context, at time.Time, figures map[string]float64) error
	Samples(ctx context.Context) ([]Sample, error)

	// Backlog is how many deliveries each lane owes: waiting, due later or under way.
	Backlog(ctx context.Context) (map[Lane]int, error)

	// Changes calls fn for every challenge that changed, on any node, until ctx
	// ends, and resync whenever changes may have been missed.
	Changes(ctx context.Context, fn func(u User, challengeID string), resync func())
	// Ping tells whether the store answers.
	Ping(ctx context.Context) error
}

// Queue hands out what is owed.
type Queue interface {
	// Lease waits at most wait for deliveries of the partition's lanes.
	Lease(ctx context.Context, partition int, lanes []Lane, wait time.Duration) ([]Lease, error)
	// HandOver lets this node be handed what its own steps owe at once without a read
	// of the lane, for lanes that open accepts then. take must not block; its error
	// says that something may have been handed over and lost on the way. When stop
	// returns neither is called any more. It is begun once.
	HandOver(open func(Lane) bool, take func([]Lease, error)) (stop func())
	// Due moves what has become due into its lanes and returns when the next is
	// due; the zero time if none is.
	Due(ctx context.Context, partition int) (next time.Time, err error)
	// Beat says that this node lives and returns the nodes that do not.
	Beat(ctx context.Context) (dead []string, err error)
	// TakeOver leases what a dead node held in the lanes.
	TakeOver(ctx context.Context, node string, lanes []Lane) ([]Lease, error)
	// Missed leases again what this node was handed at least idle ago and never
	// got, because the answer was lost on the way. held tells what it did get.
	Missed(ctx context.Context, lanes []Lane, idle time.Duration, held func(partition int, lane Lane, entry string) bool) ([]Lease, error)
	// Postpone hands back what this node cannot do: it is handed out again, to any
	// node, after a while. ErrLostLease.
	Postpone(ctx context.Context, l Lease) error
	// Forget drops what a lane has owed for longer than deliveries are kept, and
	// tells how much that was: of a target that no node knows any more.
	Forget(ctx context.Context, lane Lane) (dropped int, err error)
	// Leave says that this node is going: what it still holds may be taken over
	// at once.
	Leave(ctx context.Context) error
}

// Lease is a delivery handed out to this node. It has no time limit: it holds
// while the node's heart beats.
type Lease struct {
	Delivery  Delivery
	Partition int
	Entry     string // the stream entry
	Handed    int    // how many times the entry was handed out before, to nodes that died
	// Known is the delivery's challenge as the step has written it that handed the
	// lease over; else nil.
	Known *Challenge
}

// Arrival is everything that one webhook writes.
type Arrival struct {
	Partition int
	Event     Event
	// Fingerprint by which the same content is known again; nil for none.
	Fingerprint []byte
	Remember    time.Duration // how long the content is a duplicate
	Challenge   *Challenge
	// LearnAt is when the event happened, if it teaches that Event.UserID owns
	// Event.CardID; zero if it does not. Undated says that it is but when it arrived:
	// it may be old, and teaches only whose a card is that nobody is known to own.
	LearnAt time.Time
	Undated bool
	Owe     []Delivery
	Own     []Event // events of our own that the deliveries forward
}

// Arrived is what became of it.
type Arrived struct {
	EventID   string // of the first arrival, if it is a duplicate
	Duplicate bool
	UserID    string // the challenge's owner, as far as known
	Learnt    bool   // the card was not known to be the user's: KindLearn is owed
}

// Step is everything that one atomic step writes; all of it lives in one
// partition.
type Step struct {
	Partition int
	// Settle is the lease that the step ends, Delivery what becomes of it; nil
	// leaves no record behind, as for inner ones.
	Settle   *Lease
	Delivery *Delivery
	// Challenge is the next state; Version is that of the one it was decided on,
	// From that one's status.
	Challenge *Challenge
	From      Status
	Owe       []Delivery
	Own       []Event
	Mute      time.Duration // silences pushes for the challenge's holder
}

// Empty tells whether the step writes nothing.
func (s Step) Empty() bool {
	return s.Settle == nil && s.Challenge == nil && len(s.Owe) == 0 && len(s.Own) == 0
}

// ChallengeQuery selects challenges of one cardholder.
type ChallengeQuery struct {
	User     User
	Cards    []string
	Ended    bool      // with those that have ended
	Before   time.Time // zero: from the newest on
	BeforeID string    // of several created at Before
	Limit    int
}

// Owner of a card. ByOperator wins over what events teach.
type Owner struct {
	UserID     string
	At         time.Time
	ByOperator bool
}
