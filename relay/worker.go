package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Worker runs what is owed: it reads every partition's lanes, hands each
// delivery to its handler, moves what becomes due, and takes over what dead
// nodes held. Any number of nodes may run one each on the same store.
type Worker struct {
	svc   *Service
	queue Queue
	out   Outside
	log   *slog.Logger

	lanes  map[Lane]*lane
	wake   []chan struct{} // per partition: something is due earlier than was known
	held   sync.Map        // heldEntry: what was handed to this node, until it is settled
	doubt  atomic.Int64    // when the last read failed, ns: what it would have brought may be lost
	active sync.WaitGroup  // deliveries under way
	work   context.Context // ends when deliveries under way must stop
	beatAt atomic.Int64    // the last heartbeat, ns
}

// Outside is whom the worker talks to. Pusher may be nil where pushes are off.
type Outside struct {
	Pusher     Pusher
	Issuer     Issuer
	Downstream Downstream
}

// heldEntry names a lease of this node.
type heldEntry struct {
	partition int
	lane      Lane
	entry     string
}

// lane bounds how many deliveries of one kind, or to one target, are under way. Those
// who make them stay when they have nothing to do: a goroutine for each delivery would
// spend a twentieth of a loaded node's time on growing its stack.
type lane struct {
	name     Lane
	slots    int
	waiting  atomic.Int64 // leased here, and not settled
	paused   atomic.Bool  // its target is parked
	shedding atomic.Bool  // beyond its target's backlog

	mu      sync.Mutex
	leases  []*Lease   // that nobody has begun
	some    *sync.Cond // there are some, or it is over
	idle    int        // who wait for some
	workers int
	over    bool
}

// add gives a lease to who is idle, to a new worker, or to the first who will be.
func (l *lane) add(lease *Lease, work func(*Lease)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leases = append(l.leases, lease)
	switch {
	case l.idle >= len(l.leases):
		l.some.Signal()
	case l.workers < l.slots:
		l.workers++
		go func() {
			for lease := l.next(); lease != nil; lease = l.next() {
				work(lease)
			}
		}()
	}
}

// next waits for a lease; nil says that it is over.
func (l *lane) next() *Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.leases) == 0 {
		if l.over {
			return nil
		}
		l.idle++
		l.some.Wait()
		l.idle--
	}
	lease := l.leases[0]
	l.leases = slices.Delete(l.leases, 0, 1)
	return lease
}

// end lets the workers go when nothing is left.
func (l *lane) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.some.Broadcast()
}

// The concurrency of the fixed lanes, on each node.
const (
	taskSlots    = 64
	pushSlots    = 64
	confirmSlots = 64
	lockSlots    = 8
)

// Timing of the loops. A reader blocks for long while all lanes are open; while
// one is full it comes back soon to look whether it has opened again.
const (
	leaseWait      = time.Second
	leaseWaitBusy  = 50 * time.Millisecond
	moverRest      = time.Second
	storeRetryRest = 250 * time.Millisecond
	maxHanded      = 5 // an entry whose holders died so often is poison
)

// NewWorker prepares a worker; Run runs it.
func NewWorker(svc *Service, queue Queue, out Outside, log *slog.Logger) *Worker {
	w := &Worker{svc: svc, queue: queue, out: out, log: log, lanes: map[Lane]*lane{}}
	add := func(name Lane, slots int) {
		l := &lane{name: name, slots: slots}
		l.some = sync.NewCond(&l.mu)
		w.lanes[name] = l
	}
	add(LaneTasks, taskSlots)
	add(LanePush, pushSlots)
	add(LaneConfirm, confirmSlots)
	add(LaneLock, lockSlots)
	for _, t := range svc.Targets {
		add(TargetLane(t.Name), t.Concurrency)
	}
	for range svc.store.Partitions() {
		w.wake = append(w.wake, make(chan struct{}, 1))
	}
	return w
}

// Run works until ctx ends, then lets what is under way finish until grace ends,
// and leaves the rest to the other nodes.
func (w *Worker) Run(ctx, grace context.Context) {
	w.work = grace
	stop := w.queue.HandOver(func(l Lane) bool { return ctx.Err() == nil && w.spare(l) }, w.handed)
	var loops sync.WaitGroup
	for p := range w.svc.store.Partitions() {
		loops.Go(func() { w.read(ctx, p) })
		loops.Go(func() { w.move(ctx, p) })
	}
	loops.Go(func() { w.watchTargets(ctx) })
	beating, rested := context.WithCancel(grace) // for as long as it holds anything
	defer rested()
	var beat sync.WaitGroup
	beat.Go(func() { w.beat(ctx, beating) })
	loops.Wait()
	stop()
	w.active.Wait()
	for _, l := range w.lanes {
		l.end()
	}
	rested()
	beat.Wait()
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := w.queue.Leave(leave); err != nil {
		w.log.Warn("could not sign off; the other nodes take over after the lease", "error", err)
	}
}

// read hands out one partition's deliveries. It never gives up, whatever the
// store answers.
func (w *Worker) read(ctx context.Context, partition int) {
	for ctx.Err() == nil {
		open, busy := w.open()
		wait := leaseWait
		if busy {
			wait = leaseWaitBusy
		}
		leases, err := w.queue.Lease(ctx, partition, open, wait)
		if err != nil {
			if ctx.Err() == nil {
				// The heartbeat says at a louder level that the store is away, once for
				// all loops.
				w.log.Debug("cannot read what is owed; trying again", "partition", partition, "error", err)
				w.doubt.Store(time.Now().UnixNano())
				rest(ctx, storeRetryRest)
			}
			continue
		}
		for _, l := range leases {
			w.start(l)
		}
	}
}

// open lists the lanes that take more; busy tells that one does not.
func (w *Worker) open() (open []Lane, busy bool) {
	open = make([]Lane, 0, len(w.lanes))
	for name, l := range w.lanes {
		switch {
		case l.paused.Load() && !l.shedding.Load(): // for long, as a rule: no reason to come back soon
		case l.waiting.Load() >= int64(l.slots):
			busy = true
		default:
			open = append(open, name)
		}
	}
	return open, busy
}

// spare tells whether this node takes what it owes itself without leaving it to all
// nodes: while not half of the lane's slots are taken.
func (w *Worker) spare(name Lane) bool {
	l := w.lanes[name]
	return l != nil && !l.paused.Load() && l.waiting.Load() < int64(l.slots+1)/2
}

// handed starts what this node's own steps have handed to it.
func (w *Worker) handed(leases []Lease, err error) {
	if err != nil {
		w.doubt.Store(time.Now().UnixNano())
	}
	for _, l := range leases {
		w.start(l)
	}
}

// start runs a lease when its lane has a free slot.
func (w *Worker) start(lease Lease) {
	l := w.lanes[lease.Delivery.Lane()]
	if l == nil {
		return // read from a lane we asked for, so this cannot be; it stays leased
	}
	if _, twice := w.held.LoadOrStore(heldEntry{lease.Partition, l.name, lease.Entry}, true); twice {
		return
	}
	if d := lease.Delivery; len(d.Attempts) == 0 && !d.CreatedAt.IsZero() && d.Status == DeliveryPending {
		w.svc.count.steps.WithLabelValues(stepHandover).Observe(max(0, w.svc.store.Now().Sub(d.CreatedAt).Seconds()))
	}
	l.waiting.Add(1)
	w.active.Add(1)
	l.add(&lease, func(lease *Lease) {
		defer w.active.Done()
		defer w.held.Delete(heldEntry{lease.Partition, l.name, lease.Entry})
		defer l.waiting.Add(-1)
		if w.work.Err() == nil {
			w.handle(w.work, l, *lease)
		}
	})
}

// handle runs one lease until it is settled. What this node cannot do is left to
// others, and tried again later.
func (w *Worker) handle(ctx context.Context, l *lane, lease Lease) {
	err := w.persist(ctx, lease.Delivery, func() error {
		this := lease
		lease.Known = nil // if the store is away meanwhile, it may have changed
		return w.safely(ctx, l, this)
	})
	if err == nil || ctx.Err() != nil {
		return
	}
	d := lease.Delivery
	w.log.Error("this node cannot make a delivery; it is left to others, and tried again later", "kind", d.Kind, "delivery_id", d.ID, "challenge_id", d.ChallengeID, "error", err)
	err = w.persist(ctx, d, func() error { return w.queue.Postpone(ctx, lease) })
	if err != nil && ctx.Err() == nil {
		w.log.Error("a delivery cannot be handed back; it waits until this node has gone", "kind", d.Kind, "delivery_id", d.ID, "error", err)
	}
}

// persist runs fn again while the store is away: nobody else can settle the
// delivery while our heart beats. A lease lost to another node is no error. When
// ctx ends the delivery stays leased and is taken over.
func (w *Worker) persist(ctx context.Context, d Delivery, fn func() error) error {
	for first := true; ; first = false {
		err := fn()
		if err == nil || errors.Is(err, ErrLostLease) || !errors.Is(err, ErrUnavailable) {
			if errors.Is(err, ErrLostLease) {
				return nil
			}
			return err
		}
		level := slog.LevelDebug
		if first {
			level = slog.LevelWarn
		}
		w.log.Log(ctx, level, "the store cannot settle a delivery; trying again", "kind", d.Kind, "delivery_id", d.ID, "challenge_id", d.ChallengeID, "error", err)
		rest(ctx, storeRetryRest)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// safely keeps one poisonous delivery from taking the node down.
func (w *Worker) safely(ctx context.Context, l *lane, lease Lease) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the worker panicked: %T", r) // whose text may hold anything
		}
	}()
	return w.dispatch(ctx, l, lease)
}

func (w *Worker) dispatch(ctx context.Context, l *lane, lease Lease) error {
	d := lease.Delivery
	if !d.Kind.Inner() {
		var span trace.Span
		ctx, span = w.svc.begin(ctx, string(d.Kind), trace.SpanKindClient, d.Trace)
		defer span.End()
	}
	switch {
	case lease.Handed > maxHanded:
		return w.bury(ctx, lease, "every node that tried it died")
	case l.shedding.Load() && d.Kind == KindForward:
		return w.bury(ctx, lease, "the target's backlog is beyond max_backlog")
	}
	switch d.Kind {
	case KindAnnounce:
		return w.announce(ctx, lease)
	case KindEnded:
		return w.tellEnded(ctx, lease)
	case KindExpire:
		return w.expire(ctx, lease)
	case KindLearn:
		return w.learn(ctx, lease)
	case KindRelease:
		return w.release(ctx, lease)
	case KindPush:
		return w.push(ctx, lease)
	case KindConfirm:
		return w.confirm(ctx, lease)
	case KindLock:
		return w.lock(ctx, lease)
	case KindForward:
		return w.forward(ctx, l, lease)
	}
	return fmt.Errorf("%w (this node does not know the kind %q)", ErrNewer, d.Kind)
}

// settle ends a lease in one step: its record, and whatever else the step owes.
func (w *Worker) settle(ctx context.Context, lease Lease, d Delivery, st Step) error {
	st.Partition, st.Settle = lease.Partition, &lease
	st.Delivery = record(d)
	traced(ctx, st.Owe, "")
	err := w.persist(ctx, d, func() error { return w.svc.store.Commit(ctx, st) })
	if err == nil {
		w.settled(ctx, lease, d)
	}
	return err
}

// record is what is kept of a settled delivery: nothing of a step of ours, nor
// of one that turned out to be pointless before it was tried.
func record(d Delivery) *Delivery {
	if d.Kind.Inner() || d.Status == DeliveryDead && d.Tries == 0 && d.Kind == KindPush {
		return nil
	}
	return &d
}

// settled counts and logs an attempt, and wakes the mover for the next one.
func (w *Worker) settled(ctx context.Context, lease Lease, d Delivery) {
	if d.Kind.Inner() {
		return
	}
	d.attempted(ctx)
	if d.Status == DeliveryPending && !d.Next.IsZero() {
		w.wakeMover(lease.Partition)
	}
	w.svc.count.settled(d, d.Tries > lease.Delivery.Tries)
	level := slog.LevelInfo
	switch {
	case record(d) == nil:
		level = slog.LevelDebug
	case d.Status == DeliveryDead && d.Kind == KindPush:
		level = slog.LevelWarn
	case d.Status == DeliveryDead:
		level = slog.LevelError
	}
	if !w.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("delivery_id", d.ID), slog.String("kind", string(d.Kind)), slog.String("status", string(d.Status)), slog.String("target", d.Target),
		slog.String("merchant", d.Merchant), slog.Int("attempt", d.Tries)}
	attrs = given(attrs, "event_id", d.EventID, "challenge_id", d.ChallengeID)
	if n := len(d.Attempts); n > 0 {
		last := d.Attempts[n-1]
		attrs = append(attrs, slog.Int("status_code", last.StatusCode), slog.Float64("latency_ms", float64(last.Latency.Microseconds())/1000))
		if last.Error != "" {
			attrs = append(attrs, slog.String("error", last.Error))
		}
	}
	w.log.LogAttrs(ctx, level, "delivery", attrs...)
}

// bury makes a dead letter of a delivery without another attempt. Inner ones
// have no record, so they are logged and gone.
func (w *Worker) bury(ctx context.Context, lease Lease, why string) error {
	d := lease.Delivery
	d.Status, d.Next = DeliveryDead, time.Time{}
	d.Attempts = append(d.Attempts, Attempt{At: w.svc.store.Now(), Error: why})
	if d.Kind.Inner() {
		w.log.Error("an inner step was given up", "kind", d.Kind, "challenge_id", d.ChallengeID, "why", why)
	}
	return w.settle(ctx, lease, d, Step{})
}

// move brings what is due back into its lane. It sleeps until the next is due,
// at most moverRest because another node may have owed something earlier.
func (w *Worker) move(ctx context.Context, partition int) {
	for ctx.Err() == nil {
		next, err := w.queue.Due(ctx, partition)
		wait := moverRest
		switch {
		case err != nil:
			if ctx.Err() == nil {
				w.log.Debug("cannot look for what is due; trying again", "partition", partition, "error", err)
			}
			wait = storeRetryRest
		case !next.IsZero():
			wait = min(moverRest, max(0, next.Sub(w.svc.store.Now())))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-w.wake[partition]:
		}
		timer.Stop()
	}
}

func (w *Worker) wakeMover(partition int) {
	select {
	case w.wake[partition] <- struct{}{}:
	default:
	}
}

// rest waits, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// jitter is a random number in [0,1).
func jitter() float64 { return rand.Float64() }
