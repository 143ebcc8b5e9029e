package relay

import (
	"time"
)

// Kind says what a delivery owes.
type Kind string

// The kinds that go to outside parties, each with a record and attempts, and
// the inner ones, which are steps of ours that must survive a crash as well.
const (
	KindPush    Kind = "push"
	KindConfirm Kind = "confirm"
	KindLock    Kind = "lock"
	KindForward Kind = "forward"

	KindAnnounce Kind = "announce" // find the devices of a new challenge and owe each a push
	KindEnded    Kind = "ended"    // find the devices that must hear that it ended, or that it can only be rejected
	KindExpire   Kind = "expire"   // look at a challenge whose time is up
	KindLearn    Kind = "learn"    // index a card under its user, adopt its unassigned challenges
	KindRelease  Kind = "release"  // give up the claim of a subscription that is gone
)

// Inner tells whether the kind is a step of ours and no delivery to outside.
func (k Kind) Inner() bool {
	switch k {
	case KindAnnounce, KindEnded, KindExpire, KindLearn, KindRelease:
		return true
	}
	return false
}

// Lane is the queue that a delivery waits in. Each lane has its own
// concurrency, so that one slow outside party delays nobody else.
type Lane string

// The fixed lanes; each target has one of its own.
const (
	LaneTasks   Lane = "tasks"
	LanePush    Lane = "push"
	LaneConfirm Lane = "confirm"
	LaneLock    Lane = "lock"
)

// TargetLane is the lane of a downstream target.
func TargetLane(target string) Lane { return Lane("to:" + target) }

// DeliveryStatus is where a delivery stands.
type DeliveryStatus string

// The statuses. Parked: its target is paused, it goes out when that resumes.
const (
	DeliveryPending   DeliveryStatus = "pending"
	DeliveryDelivered DeliveryStatus = "delivered"
	DeliveryDead      DeliveryStatus = "dead"
	DeliveryParked    DeliveryStatus = "parked"
)

// Notice is what a push tells.
type Notice string

// The notices.
const (
	NoticeAnnounce   Notice = "announce"
	NoticeEnded      Notice = "ended"
	NoticeActivation Notice = "activation"
	NoticeTest       Notice = "test"
	NoticePasskey    Notice = "passkey" // one was registered
)

// Attempt is one try of a delivery. Response is the first 1 KiB of the answer,
// with codes and card numbers removed.
type Attempt struct {
	At         time.Time     `json:"at"`
	StatusCode int           `json:"status_code,omitempty"`
	Latency    time.Duration `json:"latency,omitempty"`
	Error      string        `json:"error,omitempty"`
	Response   string        `json:"response,omitempty"`
}

// Delivery is something owed. Its zero NextAttemptAt means now.
type Delivery struct {
	ID          string         `json:"id,omitempty"` // inner ones have none
	Kind        Kind           `json:"k"`
	Merchant    string         `json:"m,omitempty"`
	Target      string         `json:"t,omitempty"` // forward: the target's name; push, release: the subscription's id
	Notice      Notice         `json:"n,omitempty"`
	EventID     string         `json:"e,omitempty"`
	ChallengeID string         `json:"c,omitempty"`
	UserID      string         `json:"u,omitempty"`
	CardID      string         `json:"ca,omitempty"`
	Supersedes  []string       `json:"su,omitempty"` // announce: the pending challenges of the same card and reference
	Endpoint    []byte         `json:"ep,omitempty"` // release: the endpoint's fingerprint
	Status      DeliveryStatus `json:"st,omitempty"`
	CreatedAt   time.Time      `json:"cr,omitzero"`
	Next        time.Time      `json:"nx,omitzero"` // not before
	Deadline    time.Time      `json:"dl,omitzero"` // no attempt from here on
	Tries       int            `json:"tr,omitempty"`
	Attempts    []Attempt      `json:"at,omitempty"` // the last maxAttemptsKept
	Unclear     bool           `json:"uc,omitempty"` // the last attempt got no answer: it may have been taken
	Trace       string         `json:"tp,omitempty"` // the W3C traceparent of what caused it, if there are traces

	// Secret is sealed in the store: what a lock needs of the event when its
	// challenge, which held it, is over. Without code and link.
	Secret Secret `json:"-"`
}

// maxAttemptsKept bounds a delivery's record; a confirm may be tried every few
// seconds for ten minutes.
const maxAttemptsKept = 20

// Lane of the delivery.
func (d Delivery) Lane() Lane {
	switch d.Kind {
	case KindPush:
		return LanePush
	case KindConfirm:
		return LaneConfirm
	case KindLock:
		return LaneLock
	case KindForward:
		return TargetLane(d.Target)
	}
	return LaneTasks
}

// Verdict is what an attempt came to.
type Verdict int

// The verdicts. Refused: the other side will never take it (issuer's 4xx).
// Gone: it does not exist any more (410, or a push service's 404). Faulty: the
// request itself is wrong, which is ours to mend. Unclear: no answer in time,
// the other side may have taken it.
const (
	Delivered Verdict = iota
	TryAgain
	Unclear
	Refused
	Gone
	Faulty
)

// Outcome of one attempt.
type Outcome struct {
	Verdict    Verdict
	RetryAfter time.Duration // asked for by the other side; 0: not
	Attempt    Attempt
}

// Schedule is when to try again.
type Schedule struct {
	Retry      []time.Duration
	RepeatLast bool // for ever, or until the delivery's deadline
}

// maxRetryAfter bounds what the other side may ask for.
const maxRetryAfter = time.Hour

// lastChance is how long before its deadline a delivery is tried a last time,
// if the schedule would only come back after it.
const lastChance = time.Second

// After records an attempt and tells what becomes of the delivery: delivered,
// dead, or pending with the time of its next attempt. jitter is a random number
// in [0,1) that spreads each wait by ±20 %.
func (d Delivery) After(o Outcome, s Schedule, now time.Time, jitter float64) Delivery {
	d.Tries++
	d.Attempts = append(d.Attempts[:len(d.Attempts):len(d.Attempts)], o.Attempt)
	if n := len(d.Attempts); n > maxAttemptsKept {
		d.Attempts = d.Attempts[n-maxAttemptsKept:]
	}
	d.Next, d.Unclear = time.Time{}, o.Verdict == Unclear
	switch o.Verdict {
	case Delivered:
		d.Status = DeliveryDelivered
		return d
	case Refused, Gone, Faulty:
		d.Status = DeliveryDead
		return d
	}
	next, ok := s.next(d.Tries, o.RetryAfter, d.Deadline, now, jitter)
	if !ok {
		d.Status = DeliveryDead
		return d
	}
	d.Status, d.Next = DeliveryPending, next
	return d
}

// next is the time of the attempt after the n-th.
func (s Schedule) next(n int, retryAfter time.Duration, deadline, now time.Time, jitter float64) (time.Time, bool) {
	if n > len(s.Retry) && !s.RepeatLast || len(s.Retry) == 0 {
		return time.Time{}, false
	}
	wait := s.Retry[min(n, len(s.Retry))-1]
	wait = time.Duration(float64(wait) * (0.8 + 0.4*jitter))
	at := now.Add(max(wait, min(retryAfter, maxRetryAfter)))
	if deadline.IsZero() || at.Before(deadline) {
		return at, true
	}
	last := deadline.Add(-lastChance)
	return last, now.Before(last)
}
