package relay

import (
	"slices"
	"sync"
)

// watchBuffer is how many changes a slow watcher may be behind before it is
// told to start over from the list instead.
const watchBuffer = 16

// hub hands the changes of all nodes to those who watch a user, on this node:
// one subscription to the store serves any number of watchers.
type hub struct {
	mu       sync.Mutex
	watchers map[User][]*Watch
}

func newHub() *hub { return &hub{watchers: map[User][]*Watch{}} }

// Watch is one watcher of a user's challenges.
type Watch struct {
	// Changed receives the ids of challenges that changed.
	Changed <-chan string
	// Missed receives when changes may have been missed: read the list again.
	Missed <-chan struct{}

	changed chan string
	missed  chan struct{}
	close   func()
}

// Close ends the watch.
func (w *Watch) Close() { w.close() }

func (h *hub) watch(u User) *Watch {
	w := &Watch{changed: make(chan string, watchBuffer), missed: make(chan struct{}, 1)}
	w.Changed, w.Missed = w.changed, w.missed
	w.close = func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.watchers[u] = slices.DeleteFunc(h.watchers[u], func(other *Watch) bool { return other == w })
		if len(h.watchers[u]) == 0 {
			delete(h.watchers, u)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers[u] = append(h.watchers[u], w)
	return w
}

// size is how many watch.
func (h *hub) size() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, of := range h.watchers {
		n += len(of)
	}
	return n
}

func (h *hub) publish(u User, challengeID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.watchers[u] {
		select {
		case w.changed <- challengeID:
		default:
			w.miss()
		}
	}
}

func (h *hub) resync() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ws := range h.watchers {
		for _, w := range ws {
			w.miss()
		}
	}
}

func (w *Watch) miss() {
	select {
	case w.missed <- struct{}{}:
	default:
	}
}
