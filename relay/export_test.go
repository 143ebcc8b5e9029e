package relay

import (
	"context"
	"time"
)

// Once does what the loops of Run do, one after the other in the caller's
// goroutine, until nothing is handed out. look spares it the round trips: it
// tells whether anything is due in a partition, and whether its lanes hold
// anything. The states of targets are not watched.
func (w *Worker) Once(ctx context.Context, look func(partition int) (due, waiting bool)) error {
	for handled := 1; handled > 0; {
		handled = 0
		for p := range w.svc.store.Partitions() {
			if due, _ := look(p); due {
				if _, err := w.queue.Due(ctx, p); err != nil {
					return err
				}
			}
			if _, waiting := look(p); waiting {
				leases, err := w.queue.Lease(ctx, p, w.allLanes(), time.Millisecond)
				if err != nil {
					return err
				}
				handled += w.handleAll(ctx, leases)
			}
		}
	}
	return nil
}

// BeatOnce is one heartbeat: it takes over from dead nodes, and returns how much.
func (w *Worker) BeatOnce(ctx context.Context) (took int, err error) {
	dead, err := w.queue.Beat(ctx)
	if err != nil {
		return 0, err
	}
	for _, node := range dead {
		leases, err := w.queue.TakeOver(ctx, node, w.allLanes())
		if err != nil {
			return took, err
		}
		took += w.handleAll(ctx, leases)
	}
	return took, nil
}

// SweepOnce forgets what is owed to targets that are configured no more.
func (w *Worker) SweepOnce(ctx context.Context) error {
	backlog, err := w.svc.store.Backlog(ctx)
	if err != nil {
		return err
	}
	w.sweep(ctx, backlog)
	return nil
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

// Handle settles one lease, as the loops would.
func (w *Worker) Handle(ctx context.Context, l Lease) {
	w.handle(ctx, w.lanes[l.Delivery.Lane()], l)
}
