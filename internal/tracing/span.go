package tracing

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Receipt is a request that brought an event.
type Receipt struct {
	Event  uuid.UUID // made for the request
	Stored uuid.UUID // the event under which it is stored: another one for a duplicate
	Kept   string    // of the sender's trace, before Keep
	Source string
	Type   string
	Result string
	Status int // of the answer
	Began  time.Time
}

// Received exports the span of a request.
func (t *Tracer) Received(r *Receipt) {
	if t == nil {
		return
	}
	p := t.Place(r.Event, r.Kept)
	if !p.at.IsSampled() {
		return
	}
	own := Place{p.at.WithSpanID(spanOf(r.Event))}
	ctx := context.WithValue(context.Background(), wanted{}, own)
	if r.Kept != "" {
		ctx = trace.ContextWithRemoteSpanContext(ctx, p.at)
	}
	_, span := t.tracer.Start(ctx, "receive "+r.Source, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(r.Began), trace.WithAttributes(
		attribute.String("partnersync.event", r.Stored.String()), attribute.String("partnersync.source", r.Source), attribute.String("partnersync.type", r.Type),
		attribute.String("partnersync.result", r.Result), attribute.Int("http.response.status_code", r.Status)))
	if r.Status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, r.Result)
	}
	span.End()
}

// Commits is the transaction that stores several events.
type Commits struct {
	t      *Tracer
	began  time.Time
	places []Place
	events int
}

// Commit begins with the first event.
func (t *Tracer) Commit(began time.Time) Commits { return Commits{t: t, began: began} }

// Add adds an event by its id and what is stored of its trace.
func (c *Commits) Add(event uuid.UUID, kept string) {
	if c.t == nil {
		return
	}
	c.events++
	if p := c.t.Place(event, kept); p.at.IsSampled() {
		c.places = append(c.places, p)
	}
}

// End exports the span, as a child of the first event's, linked to the others.
func (c *Commits) End(err error) {
	if len(c.places) == 0 {
		return
	}
	span := c.t.start(c.places[0], "commit", trace.SpanKindInternal, c.began, c.places[1:], attribute.Int("partnersync.events", c.events))
	if err != nil {
		span.SetStatus(codes.Error, "") // its text may quote a value
	}
	span.End()
}

// Span is work under way. A nil Span records nothing.
type Span struct{ span trace.Span }

// Work begins the work on an event for a sink. Requests for it belong at the Place that
// it returns, which is the given one where nothing is exported.
func (t *Tracer) Work(at Place, sink string, event uuid.UUID) (Place, *Span) {
	if !t.sampled(at) {
		return at, nil
	}
	span := t.start(at, "deliver to "+sink, trace.SpanKindConsumer, time.Now(), nil,
		attribute.String("partnersync.sink", sink), attribute.String("partnersync.event", event.String()))
	return Place{span.SpanContext()}, &Span{span}
}

// End ends work on an event: outcome is that of its route, "" while that is open.
func (s *Span) End(outcome string) {
	if s == nil {
		return
	}
	if outcome == "" {
		outcome = "open"
	}
	s.span.SetAttributes(attribute.String("partnersync.outcome", outcome))
	if outcome == "dead" {
		s.span.SetStatus(codes.Error, outcome)
	}
	s.span.End()
}

// carried is what a context knows of the events for which requests are made.
type carried struct {
	t      *Tracer
	at     Place
	others []Place
}

type carriedKey struct{}

// With returns a context for requests that serve the events at places. They carry the
// trace of the first whose trace is exported, or else of the first.
func (t *Tracer) With(ctx context.Context, places ...Place) context.Context {
	if len(places) == 0 {
		return ctx
	}
	c := &carried{t: t, at: places[0]}
	if t == nil {
		return context.WithValue(ctx, carriedKey{}, c)
	}
	seen := map[trace.SpanID]bool{}
	for _, p := range places {
		if !p.at.IsSampled() || seen[p.at.SpanID()] {
			continue
		}
		if len(seen) == 0 {
			c.at = p
		} else {
			c.others = append(c.others, p)
		}
		seen[p.at.SpanID()] = true
	}
	return context.WithValue(ctx, carriedKey{}, c)
}

// Inject puts the trace to which the requests of a context belong on one of them.
func Inject(ctx context.Context, h http.Header) {
	c, ok := ctx.Value(carriedKey{}).(*carried)
	if !ok {
		return
	}
	h.Set(parentHeader, c.at.parent())
	if state := c.at.at.TraceState().String(); state != "" {
		h.Set(stateHeader, state)
	}
}

// Call is a request to a CRM.
type Call struct {
	Sink, Operation string
	Method, Host    string
	Rows            int
}

// Request begins one request. Inject, with the context that it returns, names its span
// as the parent of what the CRM does. Where nothing is exported the Span is nil.
func Request(ctx context.Context, call Call) (context.Context, *Span) {
	c, ok := ctx.Value(carriedKey{}).(*carried)
	if !ok || !c.t.sampled(c.at) {
		return ctx, nil
	}
	span := c.t.start(c.at, call.Sink+" "+call.Operation, trace.SpanKindClient, time.Now(), c.others,
		attribute.String("partnersync.sink", call.Sink), attribute.String("partnersync.operation", call.Operation), attribute.Int("partnersync.rows", call.Rows),
		attribute.String("http.request.method", call.Method), attribute.String("server.address", call.Host))
	below := &carried{t: c.t, at: Place{span.SpanContext()}}
	return context.WithValue(ctx, carriedKey{}, below), &Span{span}
}

// Answered ends a request with the class and the HTTP status of its answer; 0 is none.
func (s *Span) Answered(class string, failed bool, status int) {
	if s == nil {
		return
	}
	s.span.SetAttributes(attribute.String("partnersync.class", class))
	if status != 0 {
		s.span.SetAttributes(attribute.Int("http.response.status_code", status))
	}
	if failed {
		text := class
		if status != 0 {
			text += " " + strconv.Itoa(status)
		}
		s.span.SetStatus(codes.Error, text)
	}
	s.span.End()
}
