package relay

import (
	"slices"
	"strings"
)

// Target is a downstream URL, as far as the domain must know it.
type Target struct {
	Name        string
	Events      []string // whole types, PREFIX_*, relay.* or *
	Merchants   []string // all, if empty
	Envelope    bool     // wants the issuer's body byte for byte
	IncludeOTP  bool
	Concurrency int
	MaxBacklog  int
	Schedule    Schedule
}

// Wants tells whether the target takes events of a type. Patterns match neither
// action-requiring types, which must be named whole, nor our own events, for
// which only relay.* and their own names do.
func (t Target) Wants(merchant, typ string, action bool) bool {
	if len(t.Merchants) > 0 && !slices.Contains(t.Merchants, merchant) {
		return false
	}
	return slices.ContainsFunc(t.Events, func(pattern string) bool {
		prefix, isPattern := strings.CutSuffix(pattern, "*")
		switch {
		case !isPattern:
			return pattern == typ
		case action:
			return false
		case strings.HasPrefix(typ, ownPrefix):
			return strings.HasPrefix(prefix, ownPrefix) && strings.HasPrefix(typ, prefix)
		}
		return strings.HasPrefix(typ, prefix)
	})
}
