package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"approvalrelay/crypto"
)

// Options is everything that the operator decides. The maps and slices are not
// changed after New.
type Options struct {
	Merchants    map[string]*Merchant
	Targets      []Target
	Lives        Lifetimes
	RequireShown bool
	StepUp       StepUpOptions
	Duplicates   time.Duration // how long the same content is a duplicate
	PublicURL    string
	Push         PushOptions
	Metrics      prometheus.Registerer // nil: nobody looks
	Tracer       trace.Tracer          // nil: there are no spans
	Retention    map[string]float64    // seconds by kind of record, for the operator to see
}

// PushOptions is what is pushed, and how often.
type PushOptions struct {
	On               bool // there are VAPID keys
	IncludeOTP       bool
	Minimal          bool // no amount and no payee on the lock screen
	ActionToken      bool
	MaxSubscriptions int
	CardCount        int // at most so many challenges of a card are pushed within CardWindow
	CardWindow       time.Duration
	MuteAfterReport  time.Duration
}

// Service is the shell around the domain's rules: load, decide, swap, owe. It is
// safe for concurrent use.
type Service struct {
	Options
	store    Store
	log      *slog.Logger
	root     atomic.Pointer[crypto.Root]
	hub      *hub
	recorder *recorder
	count    *metrics
	// recent spares the workers of this node a read for an event that has just
	// arrived here. An event leaves it when each of its targets was tried once, so
	// that no body stays in memory.
	recent *lru.Cache[string, *recentEvent]
}

// New makes a service on a store. Run it to see changes made by other nodes.
func New(o Options, store Store, log *slog.Logger) *Service {
	recent, err := lru.New[string, *recentEvent](recentEvents)
	if err != nil {
		panic(err) // only for a size below one
	}
	s := &Service{recent: recent, Options: o, store: store, log: log, hub: newHub(), recorder: newRecorder(), count: newMetrics(o)}
	if o.Metrics != nil {
		o.Metrics.MustRegister(&gauges{svc: s})
	}
	return s
}

// The memory for recent events: as many as a slow moment of a target lets wait,
// none of them large.
const (
	recentEvents = 8192
	recentBody   = 4 << 10
)

type recentEvent struct {
	Event
	left atomic.Int32 // targets that were not tried yet
}

// Run feeds the watchers with the changes of all nodes, and keeps records of what
// came to nothing, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	var records sync.WaitGroup
	defer records.Wait()
	records.Go(func() { s.keepRecords(ctx) })
	s.store.Changes(ctx, s.hub.publish, s.hub.resync)
}

// Ready tells whether the store answers, and can be read with the keys that were
// configured.
func (s *Service) Ready(ctx context.Context) error {
	if err := s.store.Ping(ctx); err != nil {
		return err
	}
	_, err := s.rootKey(ctx)
	return err
}

// rootKey is made in the store by the first node; it never changes, so one read
// is enough.
func (s *Service) rootKey(ctx context.Context) (crypto.Root, error) {
	if r := s.root.Load(); r != nil {
		return *r, nil
	}
	r, err := s.store.Root(ctx)
	if err != nil {
		return crypto.Root{}, fmt.Errorf("read the root key: %w", err)
	}
	s.root.Store(&r)
	return r, nil
}

// ReceiptStatus is what the issuer is told of its webhook.
type ReceiptStatus string

// The receipts.
const (
	Accepted    ReceiptStatus = "accepted"
	Duplicate   ReceiptStatus = "duplicate"
	Quarantined ReceiptStatus = "quarantined"
)

// Receipt answers one webhook.
type Receipt struct {
	Status  ReceiptStatus
	EventID string
}

// Webhook is one delivery of the issuer as it came.
type Webhook struct {
	Merchant string
	Type     string
	Payload  string // base64
	HMAC     string // hex
	Raw      []byte // the whole body, for targets that want it byte for byte
}

// Receive takes a webhook: it returns only when the store has it. Errors:
// ErrUnknownMerchant, crypto.ErrSignature, crypto.ErrMalformed, ErrUnavailable.
func (s *Service) Receive(ctx context.Context, w Webhook) (r Receipt, err error) {
	m, ok := s.Merchants[w.Merchant]
	if !ok {
		return Receipt{}, ErrUnknownMerchant
	}
	ctx, span := s.begin(ctx, "webhook", trace.SpanKindServer, "")
	defer func() { end(span, err, "merchant", m.Name, "event_id", r.EventID, "status", string(r.Status)) }()
	began := time.Now()
	body, err := m.Keyring.Open(w.Payload, w.HMAC)
	if err != nil {
		return Receipt{}, err
	}
	root, err := s.rootKey(ctx)
	if err != nil {
		return Receipt{}, err
	}
	a := s.arrival(m, w, body, root, s.store.Now())
	s.count.step(stepOpen, began)
	r, err = s.take(ctx, m, a)
	if err == nil {
		s.count.webhooks.WithLabelValues(m.Name, string(r.Status)).Inc()
	}
	return r, err
}

// take stores an arrival, and says what became of it.
func (s *Service) take(ctx context.Context, m *Merchant, a Arrival) (Receipt, error) {
	began := time.Now()
	got, err := s.arrive(ctx, a)
	if err != nil {
		return Receipt{}, fmt.Errorf("store the event: %w", err)
	}
	s.count.step(stepStore, began)
	if got.Learnt {
		// KindLearn does it, and surely. Done here as well, the card's challenges are
		// in their owner's list when the issuer has its answer, not moments later.
		if err := s.store.IndexCard(ctx, User{Merchant: m.Name, ID: got.UserID}, a.Event.CardID); err != nil {
			s.log.Warn("a new card is not in its owner's list yet", "event_id", got.EventID, "error", err)
		}
	}
	r := Receipt{Status: Accepted, EventID: got.EventID}
	switch {
	case a.Event.Outcome == OutcomeQuarantined: // also again
		r.Status = Quarantined
	case got.Duplicate:
		r.Status = Duplicate
	}
	record := r.EventID
	if got.Duplicate {
		record = s.repeated(a.Event, got.EventID)
	} else {
		s.remember(a)
	}
	if a.Challenge != nil && !got.Duplicate {
		s.count.challenges.WithLabelValues(string(a.Challenge.Status)).Inc()
	}
	s.logEvent(ctx, m, a, r, got.UserID, record)
	return r, nil
}

// duplicateShort is how long content is remembered that carries neither a
// reference nor a time: a second equal purchase must be payable.
const duplicateShort = 600 * time.Second

// arrival decides everything about a webhook before the store is asked once.
// received is when it first came.
func (s *Service) arrival(m *Merchant, w Webhook, body []byte, root crypto.Root, received time.Time) Arrival {
	now := s.store.Now().Truncate(time.Millisecond)
	r := Interpret(m, w.Type, body, s.Lives, received.Truncate(time.Millisecond))
	f := r.Fields
	ev := Event{Type: w.Type, Merchant: m.Name, UserID: f.UserID, CardID: cardID(root, m.Name, f.CardID), OccurredAt: f.Occurred, ReceivedAt: now}

	fingerprint := root.Fingerprint([]byte(m.Name), Canonical(r.Payload))
	if r.Quarantine != "" {
		// It is known as such only, so that it does not keep the real event out.
		fingerprint = root.Fingerprint([]byte("quarantine"), []byte(m.Name), body)
	}
	a := Arrival{Fingerprint: fingerprint, Remember: s.Duplicates}
	if f.Reference == "" && f.Occurred.IsZero() {
		a.Remember = min(a.Remember, duplicateShort)
	}
	a.Partition = partitionFor(s.store.Partitions(), m.Name, ev.CardID, ev.UserID, fingerprint)
	ev.ID = newID(prefixEvent, a.Partition, now)

	switch {
	case r.Quarantine != "":
		s.quarantine(&a, &ev, r, w, body)
	case r.Action:
		s.challenge(&a, &ev, m, r, w, body)
	default:
		ev.Outcome = OutcomeForwarded
		a.Owe = s.forwards(ev, false)
		ev.Owed = owed(a.Owe)
		ev.Secret = Secret{Body: body, Envelope: s.envelope(a.Owe, w.Raw)}
	}
	if r.Quarantine == "" && ev.CardID != "" && ev.UserID != "" && !f.Failed() {
		a.LearnAt, a.Undated = f.Occurred, f.Occurred.IsZero()
		if a.Undated {
			a.LearnAt = now
		}
	}
	a.Event = ev
	return a
}

// cardID keeps a full card number out of everything but sealed storage.
func cardID(root crypto.Root, merchant, id string) string {
	if LooksLikePAN(id) {
		return root.PANToken(merchant, withoutSeparators(id))
	}
	return id
}

func (s *Service) quarantine(a *Arrival, ev *Event, r Reading, w Webhook, body []byte) {
	ev.Outcome, ev.Reason = OutcomeQuarantined, r.Quarantine
	if !validType(ev.Type) {
		ev.Type = ""
	}
	ev.Fields = Describe(r.Payload, r.Fields.OTP, r.Fields.URL)
	ev.Secret = Secret{Body: body, Envelope: w.Raw}
	own := newOwnEvent("event.quarantined", ev.Merchant, quarantineRecord{
		ID: ev.ID, Type: ev.Type, Merchant: ev.Merchant, Outcome: ev.Outcome, Reason: ev.Reason, Fields: ev.Fields, ReceivedAt: ev.ReceivedAt.UTC(),
	}, a.Partition, ev.ReceivedAt)
	s.owe(&a.Owe, &a.Own, own)
}

// quarantineRecord is the data of relay.event.quarantined.
type quarantineRecord struct {
	ID         string       `json:"id"`
	Type       string       `json:"type"`
	Merchant   string       `json:"merchant"`
	Outcome    EventOutcome `json:"outcome"`
	Reason     string       `json:"reason"`
	Fields     []FieldShape `json:"fields"`
	ReceivedAt time.Time    `json:"received_at"`
}

func (s *Service) challenge(a *Arrival, ev *Event, m *Merchant, r Reading, w Webhook, body []byte) {
	ev.Outcome = OutcomeChallenge
	a.Owe = s.forwards(*ev, true)
	ev.Owed = owed(a.Owe)
	if len(a.Owe) > 0 {
		ev.Secret.Body = Canonical(WithoutCode(m.Mapping, r.Payload))
	}
	c := r.challenge(*ev, Secret{Body: body, Envelope: s.envelope(a.Owe, w.Raw)})
	c.StepUp = s.stepUp(c)
	if c.Status.Final() {
		c.Secret = Secret{}
		s.owe(&a.Owe, &a.Own, c.ownEvent(string(c.Status), a.Partition, ev.ReceivedAt))
	}
	a.Challenge = &c
}

// remember keeps an event for its first attempts, if it is small.
func (s *Service) remember(a Arrival) {
	r := &recentEvent{Event: a.Event}
	for _, d := range a.Owe {
		if d.EventID == r.ID {
			r.left.Add(1)
		}
	}
	if r.left.Load() > 0 && len(r.Secret.Body)+len(r.Secret.Envelope) <= recentBody {
		s.recent.Add(r.ID, r)
	}
}

// event reads an event that is to be forwarded.
func (s *Service) event(ctx context.Context, id string) (Event, error) {
	if r, ok := s.recent.Get(id); ok {
		if r.left.Add(-1) <= 0 {
			s.recent.Remove(id)
		}
		return r.Event, nil
	}
	return s.store.Event(ctx, id)
}

// forwards are the deliveries of an event to every target that wants it.
func (s *Service) forwards(ev Event, action bool) []Delivery {
	var owe []Delivery
	partition, _ := PartitionOf(ev.ID)
	for _, t := range s.Targets {
		if !t.Wants(ev.Merchant, ev.Type, action) {
			continue
		}
		owe = append(owe, Delivery{
			ID: newID(prefixDelivery, partition, ev.ReceivedAt), Kind: KindForward, Merchant: ev.Merchant, Target: t.Name,
			EventID: ev.ID, ChallengeID: ev.ChallengeID, Status: DeliveryPending, CreatedAt: ev.ReceivedAt,
		})
	}
	return owe
}

// envelope keeps the issuer's body only if one of the deliveries needs it.
func (s *Service) envelope(owe []Delivery, raw []byte) []byte {
	for _, d := range owe {
		if t, ok := s.target(d.Target); ok && t.Envelope {
			return raw
		}
	}
	return nil
}

func (s *Service) target(name string) (Target, bool) {
	for _, t := range s.Targets {
		if t.Name == name {
			return t, true
		}
	}
	return Target{}, false
}

// owe adds an event of our own, if any target wants it.
func (s *Service) owe(deliveries *[]Delivery, events *[]Event, own Event) {
	if f := s.forwards(own, false); len(f) > 0 {
		*deliveries = append(*deliveries, f...)
		*events = append(*events, own)
	}
}

// step is the atomic step that takes a challenge from one state to the next,
// with everything that is owed because of it.
func (s *Service) step(prev, next Challenge, now time.Time) Step {
	partition, _ := PartitionOf(next.ID)
	st := Step{Partition: partition, Challenge: &next, From: prev.Status}
	own := func(what string) { s.owe(&st.Owe, &st.Own, next.ownEvent(what, partition, now)) }
	if prev.Status != next.Status {
		if next.Status == Confirming {
			d := s.delivery(KindConfirm, next, now)
			d.Deadline = next.ExpiresAt
			st.Owe = append(st.Owe, d)
		}
		if next.Status.Final() {
			own(string(next.Status))
			if next.PushesOwed > 0 {
				st.Owe = append(st.Owe, Delivery{Kind: KindEnded, ChallengeID: next.ID})
			}
		}
	}
	if !prev.StepUp.Blocked() && next.StepUp.Blocked() && next.PushesOwed > 0 {
		st.Owe = append(st.Owe, Delivery{Kind: KindEnded, ChallengeID: next.ID})
	}
	// One that was not announced yet will be, to its owner.
	if prev.UserID == "" && next.UserID != "" && prev.Announced && next.Status == Pending {
		st.Owe = append(st.Owe, Delivery{Kind: KindAnnounce, ChallengeID: next.ID})
	}
	if d := next.Decision; prev.Decision == nil && d != nil && d.Reason == ReasonNotMe {
		own("reported")
		st.Mute = s.Push.MuteAfterReport
		if m := s.Merchants[next.Merchant]; m != nil && m.Lock {
			lock := s.delivery(KindLock, next, now)
			lock.Secret.Body = lockBody(m, prev.Secret.Body)
			st.Owe = append(st.Owe, lock)
		}
	}
	return st
}

// lockBody is what the lock's template may need of the event, without its code.
func lockBody(m *Merchant, body []byte) []byte {
	p, err := ParsePayload(body)
	if err != nil {
		return nil // it was understood when it arrived, so the store has lost it
	}
	return Canonical(WithoutCode(m.Mapping, p))
}

// delivery to the issuer about a challenge.
func (s *Service) delivery(k Kind, c Challenge, now time.Time) Delivery {
	partition, _ := PartitionOf(c.ID)
	return Delivery{
		ID: newID(prefixDelivery, partition, now), Kind: k, Merchant: c.Merchant, EventID: c.EventID(), ChallengeID: c.ID,
		UserID: c.UserID, CardID: c.CardID, Status: DeliveryPending, CreatedAt: now,
	}
}

// swapTries bounds how often a lost race is run again; each loss means that
// somebody else has moved the record on, which it allows a few times only.
const swapTries = 8

// again runs a swap anew for as long as somebody else was first (ErrConflict). what
// says in an error what happened too often.
func again(what string, swap func() error) error {
	for range swapTries {
		if err := swap(); !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("%s %d times at once: %w", what, swapTries, ErrUnavailable)
}

// swap loads a challenge, lets decide make its next state, and writes it with
// all that is owed; a lost race is decided again. complete may be nil.
func (s *Service) swap(ctx context.Context, id string, decide func(c Challenge, now time.Time) (Challenge, error), complete func(*Step)) (c Challenge, err error) {
	return s.swapFrom(ctx, id, nil, decide, complete)
}

// swapFrom is swap for who has just loaded the challenge: if it has changed since,
// that is a lost race. known may be nil.
func (s *Service) swapFrom(ctx context.Context, id string, known *Challenge, decide func(c Challenge, now time.Time) (Challenge, error), complete func(*Step)) (c Challenge, err error) {
	err = again("challenge "+id+" changed", func() (err error) {
		if known == nil {
			loaded, err := s.store.Challenge(ctx, id)
			if err != nil {
				return fmt.Errorf("load challenge %s: %w", id, err)
			}
			known = &loaded
		}
		prev := *known
		known = nil
		c, err = s.swapOnce(ctx, prev, decide, complete)
		return err
	})
	return c, err
}

// swapOnce is one try: ErrConflict if somebody else was first.
func (s *Service) swapOnce(ctx context.Context, prev Challenge, decide func(c Challenge, now time.Time) (Challenge, error), complete func(*Step)) (Challenge, error) {
	now := s.store.Now().Truncate(time.Millisecond)
	next, err := decide(prev, now)
	if err != nil {
		return prev, err
	}
	changed := !sameChallenge(prev, next)
	partition, _ := PartitionOf(prev.ID)
	st := Step{Partition: partition}
	if !changed && complete == nil {
		// An answer that was given before is given again only if it cannot be lost.
		return prev, s.store.Commit(ctx, st)
	}
	if changed {
		st = s.step(prev, next, now)
	}
	if complete != nil {
		complete(&st)
	}
	traced(ctx, st.Owe, prev.Trace)
	if err := s.store.Commit(ctx, st); err != nil {
		return Challenge{}, fmt.Errorf("store challenge %s: %w", prev.ID, err)
	}
	if changed {
		s.changed(ctx, prev, next, now)
	}
	return next, nil
}

// sameChallenge compares what the pure steps may change.
func sameChallenge(a, b Challenge) bool {
	return a.Status == b.Status && a.UserID == b.UserID && a.Decision == b.Decision && a.Failure == b.Failure &&
		a.RevealedAt.Equal(b.RevealedAt) && a.PushesOwed == b.PushesOwed && a.PushesFailed == b.PushesFailed && a.StepUp == b.StepUp && a.Announced == b.Announced && a.Silence == b.Silence && a.Tag == b.Tag
}
