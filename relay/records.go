package relay

import (
	"slices"
	"strings"
	"time"
)

// The records that an operator looks through, and how they are selected.

// Range bounds a list: newest first, from Since (inclusive) to Until (exclusive),
// where the zero time is no bound. Cursor is what an earlier page returned as
// next; what arrives meanwhile neither shifts nor repeats anything.
type Range struct {
	Since, Until time.Time
	Limit        int
	Cursor       string
}

// wholePage is how much is read at once of a list that is gone through whole.
const wholePage = 100

// ErrCursor refuses a cursor that no list has returned.
var ErrCursor = Invalid("cursor", "It is not a cursor that this list has returned; leave it out to begin with the newest.")

// EventQuery selects records of webhooks; a zero field selects all. Events of our
// own are not among them.
type EventQuery struct {
	Range
	Merchant string
	Type     string
	Action   bool // the type is action-requiring
	Outcome  EventOutcome
	Holders  []Holder // cards and users, any of them; nil: all
	UserID   string   // beside Holders that are cards
}

// Match tells whether an event is selected, apart from the bounds.
func (q EventQuery) Match(ev Event) bool {
	return (q.Merchant == "" || ev.Merchant == q.Merchant) && (q.Type == "" || ev.Type == q.Type) && (q.Outcome == "" || ev.Outcome == q.Outcome) && (q.UserID == "" || ev.UserID == q.UserID) &&
		(q.Holders == nil || slices.ContainsFunc(q.Holders, func(h Holder) bool {
			return h.Merchant == ev.Merchant && (h.CardID != "" && h.CardID == ev.CardID || h.UserID != "" && h.UserID == ev.UserID)
		}))
}

// DeliveryQuery selects deliveries; a zero field selects all. Without a status
// those are listed that were attempted.
type DeliveryQuery struct {
	Range
	Kind   Kind
	Target string // a target's name, or a subscription's id
	Status DeliveryStatus
	Lanes  []Lane // that may hold them; of the service
}

// Match tells whether a delivery is selected, apart from the bounds.
func (q DeliveryQuery) Match(d Delivery) bool {
	return (q.Kind == "" || d.Kind == q.Kind) && (q.Target == "" || d.Target == q.Target) && (q.Status == "" || d.Status == q.Status)
}

// StatusQuery selects challenges by where they stand; none selects all.
type StatusQuery struct {
	Range
	Merchant string
	Status   Status
}

// Owed names a delivery that an event, or the challenge that it became, has
// caused.
type Owed struct {
	ID      string `json:"i"`
	Kind    Kind   `json:"k"`
	Target  string `json:"t,omitempty"`
	EventID string `json:"e,omitempty"` // of an event of our own about the challenge
}

func owed(forwards []Delivery) []Owed {
	var all []Owed
	for _, d := range forwards {
		all = append(all, Owed{ID: d.ID, Kind: d.Kind, Target: d.Target})
	}
	return all
}

// Counts are how many there are of what an operator has an eye on.
type Counts struct {
	Challenges    map[Status]int       // live: by status now; ended: within retention
	Events        map[EventOutcome]int // within retention; refused and duplicate ones as far as kept
	DeadLetters   int
	Retrying      int // deliveries that failed and are due again
	Subscriptions int // active ones
}

// age of the longest waiting one; 0 if none waits.
func (l LaneState) age(now time.Time) time.Duration {
	if l.Oldest.IsZero() {
		return 0
	}
	return max(0, now.Sub(l.Oldest))
}

// Sizes is what Redis holds.
type Sizes struct {
	Used, Max int64 // bytes; Max 0: no limit
	Kinds     []Size
}

// Size of one kind of record.
type Size struct {
	Kind  string `json:"kind"`
	Count int    `json:"count"`
	Bytes int64  `json:"bytes"`
}

// Sample is what all nodes together counted in SampleEvery from At on.
type Sample struct {
	At      time.Time
	Figures map[string]float64
}

// SampleEvery is how long a sample is, SamplesKept how far back they go.
const (
	SampleEvery = 10 * time.Second
	SamplesKept = time.Hour
)

// LaneState is what one lane owes.
type LaneState struct {
	Waiting int       // now
	Later   int       // after a failed attempt
	Oldest  time.Time // since when the longest waiting one is in its lane; zero: none
}

// knownOutcomes and so on are what a filter may name.
var (
	knownOutcomes = []EventOutcome{OutcomeChallenge, OutcomeForwarded, OutcomeDuplicate, OutcomeQuarantined, OutcomeRefused}
	knownKinds    = []Kind{KindPush, KindConfirm, KindLock, KindForward}
	knownStatuses = []DeliveryStatus{DeliveryPending, DeliveryDelivered, DeliveryDead, DeliveryParked}
	allStatuses   = []Status{Pending, Confirming, Approved, Rejected, Completed, Expired, Failed, Cancelled}
)

// oneOf refuses what is not among the known values of a filter.
func oneOf[T ~string](field string, value T, known []T) error {
	if value == "" || slices.Contains(known, value) {
		return nil
	}
	names := make([]string, len(known))
	for i, k := range known {
		names[i] = string(k)
	}
	return Invalid(field, "It must be one of "+strings.Join(names, ", ")+".")
}
