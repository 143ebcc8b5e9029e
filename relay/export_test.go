package relay

import (
	"context"
	"time"
)

// Once does what the loops of Run do, one after the other in the caller's
// goroutine, until waiting says that the lanes are empty, or nothing in them is
// handed out. It returns when the next is due; the zero time if nothing is. The
// states of targets are not watched.
func (w *Worker) Once(ctx context.Context, waiting func() bool) (next time.Time, err error) {
	for {
		if next, err = w.due(ctx); err != nil || !waiting() {
			return next, err
		}
		handled := 0
		for p := range w.svc.store.Partitions() {
			leases, err := w.queue.Lease(ctx, p, w.names(), time.Millisecond)
			if err != nil {
				return time.Time{}, err
			}
			handled += w.handleAll(ctx, leases)
		}
		if handled == 0 {
			return next, nil
		}
	}
}

// due moves what is due in all partitions.
func (w *Worker) due(ctx context.Context) (first time.Time, err error) {
	for p := range w.svc.store.Partitions() {
		next, err := w.queue.Due(ctx, p)
		if err != nil {
			return time.Time{}, err
		}
		if first.IsZero() || !next.IsZero() && next.Before(first) {
			first = next
		}
	}
	return first, nil
}

// BeatOnce is one heartbeat: it takes over from dead nodes, and returns how much.
func (w *Worker) BeatOnce(ctx context.Context) (took int, err error) {
	dead, err := w.queue.Beat(ctx)
	if err != nil {
		return 0, err
	}
	for _, node := range dead {
		leases, err := w.queue.TakeOver(ctx, node, w.names())
		if err != nil {
			return took, err
		}
		took += w.handleAll(ctx, leases)
	}
	return took, nil
}

func (w *Worker) names() []Lane {
	names := make([]Lane, 0, len(w.lanes))
	for l := range w.lanes {
		names = append(names, l)
	}
	return names
}

func (w *Worker) handleAll(ctx context.Context, leases []Lease) int {
	for _, l := range leases {
		w.handle(ctx, w.lanes[l.Delivery.Lane()], l)
	}
	return len(leases)
}

// Held is what the service keeps in memory: events that were not tried yet, and
// users who are watched.
func (s *Service) Held() (recent, watched int) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.recent.Len(), len(s.hub.watchers)
}
