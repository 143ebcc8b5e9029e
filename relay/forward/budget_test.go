package forward

import (
	"testing"

	"approvalrelay/relay"
	"approvalrelay/relay/storetest/budget"
)

// allocations of one operation; see package budget.
var allocations = map[string]float64{
	"a forward": 53, // body, signature, request, record
}

func TestBudget(t *testing.T) {
	d := downstream(t, nil, "bench://core.example/hooks")
	d.targets["core"].transport.RegisterProtocol("bench", noNetwork{})
	m := message()
	budget.Allocations(t, allocations, "a forward", func() {
		if o := d.Forward(t.Context(), "core", m); o.Verdict != relay.Delivered {
			t.Fatalf("%+v", o)
		}
	})
}
