package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong in a configuration file. Key is a path such as
// "forward.targets[0].url", "" for the file as a whole; a key that does not
// look like one is shown as "?", as it may be a misplaced secret. Line counts
// from 1; for a key that is missing it is the line of the section it is
// missing from.
type Fault struct {
	File         string
	Line         int
	Key, Problem string
}

// String is the fault on one line: "relay.yaml:12: server.listen: …; allowed: …".
func (f Fault) String() string {
	if f.Key == "" {
		return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Problem)
	}
	return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Key, f.Problem)
}

// Faults is everything wrong in a file, sorted by line.
type Faults []Fault

// Error implements error: one fault a line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

func (f Faults) sort() {
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Problem, b.Problem))
	})
}
