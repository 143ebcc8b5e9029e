package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"approvalrelay/configs"
)

// newSpans sends spans to the OTLP/HTTP collector at the base URL that is
// configured; nil if none is. They are sent in batches beside the work: what a
// collector that is away does not take is dropped, and logged.
func newSpans(ctx context.Context, cfg configs.Tracing, node string, log *slog.Logger) (*sdktrace.TracerProvider, error) {
	if cfg.OTLPEndpoint == "" {
		return nil, nil
	}
	endpoint, err := url.JoinPath(cfg.OTLPEndpoint, "v1", "traces")
	if err != nil {
		return nil, fmt.Errorf("tracing.otlp_endpoint: %w", err)
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint))
	if err != nil {
		return nil, fmt.Errorf("tracing.otlp_endpoint: %w", err)
	}
	return sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(loggedExporter{exporter, log}),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "approvalrelay"), attribute.String("service.version", version()), attribute.String("service.instance.id", node),
		)),
	), nil
}

// loggedExporter logs to where the node does: the library knows only one place for
// the whole process.
type loggedExporter struct {
	sdktrace.SpanExporter
	log *slog.Logger
}

// ExportSpans never fails, but says so.
func (e loggedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.Warn("the collector at tracing.otlp_endpoint does not take spans; these are lost", "spans", len(spans), "error", err)
	}
	return nil
}
