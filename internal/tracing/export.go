package tracing

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	sdk "go.opentelemetry.io/otel/sdk/trace"

	"partnersync/internal/secret"
)

var errEndpoint = errors.New("tracing.endpoint is not an http or https URL")

// maxError is how much of a collector's own words is logged.
const maxError = 300

// exporter tells the log when the collector stops taking spans and when it takes them
// again, in place of the SDK, which would print each failure in full.
type exporter struct {
	sdk.SpanExporter
	hangUp  func()
	redact  *secret.Redactor
	log     *slog.Logger
	ctx     context.Context // ends when nothing is to be exported any more
	cut     context.CancelFunc
	mu      sync.Mutex
	failing bool
	lost    int // spans, since it fails
}

func newExporter(to sdk.SpanExporter, hangUp func(), redact *secret.Redactor, log *slog.Logger) *exporter {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	e := &exporter{SpanExporter: to, hangUp: hangUp, redact: redact, log: log}
	e.ctx, e.cut = context.WithCancel(context.Background())
	return e
}

// ExportSpans always returns nil: it has told of an error itself.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err == nil && e.failing:
		e.log.Info("traces are exported again", "lost", e.lost)
		e.failing, e.lost = false, 0
	case err != nil:
		if e.lost += len(spans); !e.failing {
			text := e.redact.Redact(err.Error())
			if e.ctx.Err() != nil {
				text = "no answer before the process ended"
			}
			if len(text) > maxError {
				text = text[:maxError]
			}
			e.log.Warn("traces cannot be exported; they are dropped until the collector takes them", "err", text)
		}
		e.failing = true
	}
	return nil
}

// Shutdown is called by the SDK when everything has been exported.
func (e *exporter) Shutdown(ctx context.Context) error {
	err := e.SpanExporter.Shutdown(ctx)
	e.cut()
	e.hangUp()
	return err
}
