// Package budget keeps the hot path from growing dearer unnoticed: tests hold what an
// operation allocates against the number in a table beside them. Counts are the same
// on a slow machine and a busy one, which times are not. A budget that has become too
// large fails as well, so that the numbers stay true.
package budget

import (
	"runtime/debug"
	"testing"
)

// What is counted differs a little from run to run: maps are laid out at random, and
// a goroutine of the runtime may allocate meanwhile.
const (
	runs  = 300
	above = 1.03
	below = 0.9
)

// Allocations runs an operation, and fails if it makes more or far fewer allocations
// than the table says. Under -race, which allocates by itself, the test is skipped.
func Allocations(t *testing.T, table map[string]float64, operation string, run func()) {
	t.Helper()
	if race {
		t.Skip("the race detector allocates, too")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection would empty the pools
	got, most := testing.AllocsPerRun(runs, run), table[operation]
	switch {
	case got > most*above:
		t.Errorf("%s: %v allocations, the budget is %v; save them, or raise the budget to %[2]v", operation, got, most)
	case got < most*below:
		t.Errorf("%s: %v allocations, the budget is %v; lower the budget to %[2]v", operation, got, most)
	}
}
