package sim

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Journal holds what a party received, oldest first. The zero value is ready
// and keeps everything.
type Journal[R any] struct {
	mu       sync.Mutex
	records  []R
	keep     int
	count    int
	faults   int
	grown    chan struct{} // closed by the next record; nil while nobody waits
	observer func(R)
}

// Keep bounds the memory to the last n records, for long runs. Count and Faults
// go on over all of them. n of 0 or less keeps everything.
func (j *Journal[R]) Keep(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.keep = max(n, 0)
	j.trim()
}

// Count returns how many records there ever were.
func (j *Journal[R]) Count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.count
}

// Faults returns how many records there ever were with a Fault.
func (j *Journal[R]) Faults() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.faults
}

// Wait returns nil as soon as Count is at least n. When ctx ends first, the
// error says how many came and wraps the cause.
func (j *Journal[R]) Wait(ctx context.Context, n int) error {
	for {
		j.mu.Lock()
		count := j.count
		if count >= n {
			j.mu.Unlock()
			return nil
		}
		if j.grown == nil {
			j.grown = make(chan struct{})
		}
		grown := j.grown
		j.mu.Unlock()

		select {
		case <-grown:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d records, %d came: %w", n, count, context.Cause(ctx))
		}
	}
}

// OnRecord calls f with every further record, before its answer is written. f
// may be called from several goroutines at once, and may use the journal.
func (j *Journal[R]) OnRecord(f func(R)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.observer = f
}

func (j *Journal[R]) add(record R, fault bool) {
	j.mu.Lock()
	j.records = append(j.records, record)
	j.count++
	if fault {
		j.faults++
	}
	// Trimming at twice the bound makes it one copy in every keep records.
	if j.keep > 0 && len(j.records) >= 2*j.keep {
		j.trim()
	}
	if j.grown != nil {
		close(j.grown)
		j.grown = nil
	}
	observer := j.observer
	j.mu.Unlock()
	if observer != nil {
		observer(record)
	}
}

func (j *Journal[R]) trim() {
	if over := len(j.records) - j.keep; j.keep > 0 && over > 0 {
		j.records = slices.Delete(j.records, 0, over)
	}
}

func (j *Journal[R]) all() []R {
	j.mu.Lock()
	defer j.mu.Unlock()
	from := 0
	if j.keep > 0 {
		from = max(0, len(j.records)-j.keep)
	}
	return slices.Clone(j.records[from:])
}
