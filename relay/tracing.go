package relay

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Spans: a webhook and its store call, the announcement that it leads to, each
// attempt of a delivery, and a decision. They hold ids, names and numbers, nothing
// that came in a payload or that only an outside party may know. What a caller
// sends as traceparent is never a parent: anybody may write one.
//
// The trace outlives the request because it is kept in what is owed, as the text
// of a W3C traceparent. Without a Tracer nothing is begun, kept or allocated.

// noSpan records nothing.
var noSpan = trace.SpanFromContext(context.Background())

// begin begins a span under parent, a kept traceparent, or if that is empty under
// ctx's span.
func (s *Service) begin(ctx context.Context, name string, kind trace.SpanKind, parent string) (context.Context, trace.Span) {
	if s.Tracer == nil {
		return ctx, noSpan
	}
	if parent != "" {
		ctx = trace.ContextWithRemoteSpanContext(ctx, kept(parent))
	}
	return s.Tracer.Start(ctx, name, trace.WithSpanKind(kind))
}

// traceparent is ctx's span as it is kept; "" for none.
func traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ""
	}
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	return c["traceparent"]
}

// kept reads what traceparent wrote.
func kept(traceparent string) trace.SpanContext {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": traceparent})
	return trace.SpanContextFromContext(ctx)
}

// traced keeps the trace in what is owed: that of ctx's span, or else the one that
// the cause belongs to. Inner steps find theirs in their challenge.
func traced(ctx context.Context, owe []Delivery, cause string) {
	parent := traceparent(ctx)
	if parent == "" {
		parent = cause
	}
	for i := range owe {
		if owe[i].Trace == "" && !owe[i].Kind.Inner() {
			owe[i].Trace = parent
		}
	}
}

// link points from ctx's span to another trace.
func link(ctx context.Context, traceparent string) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() && traceparent != "" {
		span.AddLink(trace.Link{SpanContext: kept(traceparent)})
	}
}

// end ends a span with what it was about: "name", value pairs, of which the empty
// ones are left out. Of an error only a refusal's code is told.
func end(span trace.Span, err error, pairs ...string) {
	if span.IsRecording() {
		tag(span, pairs...)
		if err != nil {
			var code string
			if r, ok := errors.AsType[*Refusal](err); ok {
				code = string(r.Code)
			}
			span.SetStatus(codes.Error, code)
		}
	}
	span.End()
}

func tag(span trace.Span, pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			span.SetAttributes(attribute.String("relay."+pairs[i], pairs[i+1]))
		}
	}
}

// attempted tells in ctx's span what became of a delivery.
func (d Delivery) attempted(ctx context.Context) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	tag(span, "delivery_id", d.ID, "merchant", d.Merchant, "target", d.Target, "notice", string(d.Notice), "event_id", d.EventID,
		"challenge_id", d.ChallengeID, "status", string(d.Status))
	span.SetAttributes(attribute.Int("relay.attempt", d.Tries))
	if n := len(d.Attempts); n > 0 && d.Attempts[n-1].StatusCode != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", d.Attempts[n-1].StatusCode))
	}
	if d.Status != DeliveryDelivered && record(d) != nil { // else nobody needed it any more
		span.SetStatus(codes.Error, "")
	}
}

// arrive stores an arrival in a span of its own, which all that is owed because of
// it goes on from.
func (s *Service) arrive(ctx context.Context, a Arrival) (got Arrived, err error) {
	ctx, span := s.begin(ctx, "store", trace.SpanKindClient, "")
	defer func() { end(span, err, "merchant", a.Event.Merchant, "type", a.Event.Type, "event_id", got.EventID) }()
	traced(ctx, a.Owe, "")
	if a.Challenge != nil {
		a.Challenge.Trace = traceparent(ctx)
	}
	return s.store.Arrive(ctx, a)
}
