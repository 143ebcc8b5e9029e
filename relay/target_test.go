package relay

import (
	"slices"
	"strings"
	"testing"
)

// The table of who gets what: a row is a pattern, a column a type. "CARD_3DS"
// and "CARD_VERIFICATION" are action-requiring.
func TestWants(t *testing.T) {
	t.Parallel()
	const table = `
		                         CARD_3DS CARD_VERIFICATION CARD_ASSIGN_RESULT TRANSACTION_CREATED relay.challenge.approved relay.event.quarantined
		CARD_3DS                 yes      -                 -                  -                   -                        -
		CARD_VERIFICATION        -        yes               -                  -                   -                        -
		CARD_ASSIGN_RESULT       -        -                 yes                -                   -                        -
		card_assign_result       -        -                 -                  -                   -                        -
		CARD_*                   -        -                 yes                -                   -                        -
		CARD_3DS*                -        -                 -                  -                   -                        -
		TRANSACTION_CREATED*     -        -                 -                  yes                 -                        -
		*                        -        -                 yes                yes                 -                        -
		r*                       -        -                 -                  -                   -                        -
		relay*                   -        -                 -                  -                   -                        -
		relay.*                  -        -                 -                  -                   yes                      yes
		relay.challenge.*        -        -                 -                  -                   yes                      -
		relay.challenge.approved -        -                 -                  -                   yes                      -
		relay.event.quarantined  -        -                 -                  -                   -                        yes`
	rows := strings.Split(strings.TrimSpace(table), "\n")
	types := strings.Fields(rows[0])
	for _, row := range rows[1:] {
		cells := strings.Fields(row)
		if len(cells) != len(types)+1 {
			t.Fatalf("row %q has %d cells, want %d", row, len(cells), len(types)+1)
		}
		target := Target{Events: []string{"NOTHING", cells[0]}}
		for i, typ := range types {
			action := typ == "CARD_3DS" || typ == "CARD_VERIFICATION"
			if got, want := target.Wants("acme", typ, action), cells[i+1] == "yes"; got != want {
				t.Errorf("%s takes %s: %v, want %v", cells[0], typ, got, want)
			}
		}
	}
}

func TestWantsMerchants(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		merchants []string
		want      []string
	}{
		{nil, []string{"acme", "other"}},
		{[]string{"acme"}, []string{"acme"}},
		{[]string{"third", "other"}, []string{"other"}},
		{[]string{"ACME"}, nil},
	} {
		var got []string
		for _, m := range []string{"acme", "other"} {
			if (Target{Events: []string{"*", "CARD_3DS"}, Merchants: tc.merchants}).Wants(m, "CARD_3DS", true) {
				got = append(got, m)
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("a target of %v gets the events of %v, want %v", tc.merchants, got, tc.want)
		}
	}
	if (Target{}).Wants("acme", "TRANSACTION_CREATED", false) {
		t.Error("a target without events gets one")
	}
}
