package tracing

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"partnersync/internal/secret"
)

// Options say where spans go.
type Options struct {
	Endpoint string                   // of a collector that takes OTLP over HTTP, such as http://collector:4318
	Headers  map[string]secret.String // of the requests to it
	Sample   float64                  // the part of the traces that begin here which is exported, from 0 to 1
	Service  string                   // the name under which the spans appear
	Version  string
	Logger   *slog.Logger
}

// Tracer exports spans. A nil Tracer is off. It is safe for concurrent use.
type Tracer struct {
	provider *sdk.TracerProvider
	exporter *exporter
	tracer   trace.Tracer
	below    uint64 // a trace that begins here is exported if the last 56 bits of its id are below
}

const (
	// What waits for the collector, beyond which spans are dropped. It is some 10 MB.
	queued = 8192
	batch  = 1024
	pause  = 2 * time.Second
	// One request to the collector, and all tries for one batch.
	requestTimeout, exportTimeout = 5 * time.Second, 15 * time.Second
)

// New returns a Tracer, or nil if the endpoint is empty. Who made it shuts it down.
// The collector need not be there.
func New(o Options) (*Tracer, error) {
	if o.Endpoint == "" {
		return nil, nil
	}
	target, err := tracesURL(o.Endpoint)
	if err != nil {
		return nil, err
	}
	headers := map[string]string{}
	var secrets []secret.String
	for name, value := range o.Headers {
		headers[name] = value.Reveal()
		secrets = append(secrets, value)
		if _, token, ok := strings.Cut(value.Reveal(), " "); ok { // after "Bearer"
			secrets = append(secrets, secret.New(token))
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	client := &http.Client{
		Transport: transport, Timeout: requestTimeout,
		// The headers would go along to whatever host the collector names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	to, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(target), otlptracehttp.WithHeaders(headers), otlptracehttp.WithHTTPClient(client),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second, MaxInterval: 5 * time.Second, MaxElapsedTime: exportTimeout}))
	if err != nil {
		return nil, fmt.Errorf("set up the export of traces: %w", err)
	}
	about, err := resource.Merge(resource.Default(), resource.NewSchemaless(
		attribute.String("service.name", o.Service), attribute.String("service.version", o.Version)))
	if err != nil {
		return nil, fmt.Errorf("set up the export of traces: %w", err)
	}
	t := &Tracer{exporter: newExporter(to, transport.CloseIdleConnections, secret.NewRedactor(secrets...), o.Logger), below: uint64(o.Sample * (1 << 56))}
	t.provider = sdk.NewTracerProvider(
		sdk.WithResource(about), sdk.WithIDGenerator(ids{}),
		sdk.WithSampler(sdk.AlwaysSample()), // a span is only begun where it is wanted
		sdk.WithBatcher(t.exporter, sdk.WithMaxQueueSize(queued), sdk.WithMaxExportBatchSize(batch), sdk.WithBatchTimeout(pause), sdk.WithExportTimeout(exportTimeout)))
	t.tracer = t.provider.Tracer("partnersync")
	return t, nil
}

// Shutdown exports what has ended, as far as it can before ctx ends. What ends after
// it is dropped. Calling it again does nothing.
func (t *Tracer) Shutdown(ctx context.Context) {
	if t == nil {
		return
	}
	// The SDK would leave a request under way behind if it had ctx itself.
	defer context.AfterFunc(ctx, t.exporter.cut)()
	_ = t.provider.Shutdown(context.WithoutCancel(ctx)) // the exporter has said what there is to say
}

// Place is PlaceOf, with the decision whether the trace is exported where it is ours.
func (t *Tracer) Place(event uuid.UUID, kept string) Place {
	p := PlaceOf(event, kept)
	if t != nil && kept == "" && binary.BigEndian.Uint64(event[8:])&(1<<56-1) < t.below {
		p.at = p.at.WithTraceFlags(trace.FlagsSampled)
	}
	return p
}

// Keep turns what was kept of a sender's trace into what is to be stored with the
// event: what is done for it later belongs below the span in which it was received.
func (t *Tracer) Keep(event uuid.UUID, kept string) string {
	if t == nil || kept == "" {
		return kept
	}
	p := PlaceOf(event, kept)
	if !p.at.IsSampled() {
		return kept
	}
	return Place{p.at.WithSpanID(spanOf(event))}.kept()
}

// sampled reports whether spans at a place are exported.
func (t *Tracer) sampled(p Place) bool { return t != nil && p.at.IsSampled() }

// start begins a span below a place.
func (t *Tracer) start(at Place, name string, kind trace.SpanKind, began time.Time, others []Place, attributes ...attribute.KeyValue) trace.Span {
	options := []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(attributes...), trace.WithTimestamp(began)}
	if len(others) > 0 {
		links := make([]trace.Link, len(others))
		for i, o := range others {
			links[i].SpanContext = o.at
		}
		options = append(options, trace.WithLinks(links...))
	}
	_, span := t.tracer.Start(trace.ContextWithRemoteSpanContext(context.Background(), at.at), name, options...)
	return span
}

// ids gives the span in which an event is received the id that follows from the
// event's, and all others random ones.
type ids struct{}

type wanted struct{}

func (g ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if p, ok := ctx.Value(wanted{}).(Place); ok {
		return p.at.TraceID(), p.at.SpanID()
	}
	var id trace.TraceID
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()|1)
	return id, g.NewSpanID(ctx, id)
}

func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	var id trace.SpanID
	if p, ok := ctx.Value(wanted{}).(Place); ok {
		return p.at.SpanID()
	}
	binary.BigEndian.PutUint64(id[:], rand.Uint64()|1)
	return id
}

// tracesURL is where a collector takes traces.
func tracesURL(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", errEndpoint // the parser's own message would quote it
	}
	if !strings.HasSuffix(u.Path, "/v1/traces") {
		u = u.JoinPath("v1", "traces")
	}
	return u.String(), nil
}
