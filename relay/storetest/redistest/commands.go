package redistest

import (
	"strconv"
	"strings"
)

// Commands is how many of each command the server has run since it started, by
// clients and by scripts. INFO, which asks for it, is left out.
func (s *Server) Commands() map[string]int {
	s.t.Helper()
	ran := map[string]int{}
	for line := range strings.Lines(s.do("INFO commandstats")) {
		name, stats, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok || name == "info" {
			continue
		}
		calls, _, _ := strings.Cut(stats, ",")
		n, err := strconv.Atoi(calls)
		if err != nil {
			s.t.Fatalf("INFO commandstats at %s: %q", s.Addr, line)
		}
		ran[name] = n
	}
	return ran
}
