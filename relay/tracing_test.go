package relay

import (
	"testing"

	"go.opentelemetry.io/otel/trace"
)

// TestWithoutTracer: where there are no traces, they cost the way of a webhook
// nothing and leave nothing in what is owed. (With a Tracer: cmd/relay.)
func TestWithoutTracer(t *testing.T) { // not parallel: it counts allocations
	s := &Service{}
	owe := []Delivery{{Kind: KindForward}}
	allocations := testing.AllocsPerRun(100, func() {
		ctx, span := s.begin(t.Context(), "webhook", trace.SpanKindServer, "")
		traced(ctx, owe, "")
		link(ctx, "")
		owe[0].attempted(ctx)
		end(span, nil, "merchant", "acme", "status", string(Accepted))
	})
	if allocations != 0 || owe[0].Trace != "" {
		t.Errorf("%v allocations, %+v", allocations, owe[0])
	}
}

// TestKeptTrace: a traceparent survives being kept; inner steps keep none, and what
// goes on from an earlier trace keeps that one.
func TestKeptTrace(t *testing.T) {
	t.Parallel()
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	ctx := trace.ContextWithRemoteSpanContext(t.Context(), kept(parent))
	if got := traceparent(ctx); got != parent {
		t.Errorf("%q", got)
	}
	for _, broken := range []string{"", "00-0-0-0", parent[:54], "ff" + parent[2:]} {
		if kept(broken).IsValid() {
			t.Errorf("%q was taken", broken)
		}
	}
	owe := []Delivery{{Kind: KindForward}, {Kind: KindAnnounce}, {Kind: KindPush, Trace: "earlier"}}
	traced(ctx, owe, "cause")
	if owe[0].Trace != parent || owe[1].Trace != "" || owe[2].Trace != "earlier" {
		t.Errorf("%+v", owe)
	}
	later := []Delivery{{Kind: KindForward}}
	traced(t.Context(), later, "cause")
	if later[0].Trace != "cause" {
		t.Errorf("%+v", later)
	}
}
