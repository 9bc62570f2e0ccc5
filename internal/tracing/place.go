package tracing

import (
	"context"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const (
	parentHeader = "Traceparent" // as http.CanonicalHeaderKey has it
	stateHeader  = "Tracestate"
	// maxState is how much of a tracestate is kept: what the standard asks for.
	maxState = 512
)

// Place is a place in a trace: what comes next is a child of the span that it names.
type Place struct{ at trace.SpanContext }

// Kept is what is to be stored of a request's trace: its traceparent, and its
// tracestate after a blank. It is "" where there is none, or one that is not valid.
func Kept(h http.Header) string {
	parents := h[parentHeader]
	if len(parents) != 1 {
		return ""
	}
	state := strings.Join(h[stateHeader], ",")
	if len(state) > maxState { // whole entries of the list, the latest of which come first
		state = state[:max(0, strings.LastIndexByte(state[:maxState+1], ','))]
	}
	at := parse(parents[0], state)
	if !at.IsValid() {
		return ""
	}
	return Place{at}.kept()
}

// PlaceOf is where the work for an event belongs, by its id and what was kept of its
// sender's trace.
func PlaceOf(event uuid.UUID, kept string) Place {
	if kept != "" {
		parent, state, _ := strings.Cut(kept, " ")
		if at := parse(parent, state); at.IsValid() {
			return Place{at}
		}
	}
	return Place{trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID(event), SpanID: spanOf(event), Remote: true})}
}

// TraceID is the id of the trace in hexadecimal.
func (p Place) TraceID() string { return p.at.TraceID().String() }

// spanOf is the id of the span in which an event is received.
func spanOf(event uuid.UUID) trace.SpanID { return trace.SpanID(event[8:]) }

func (p Place) kept() string {
	text := p.parent()
	if state := p.at.TraceState().String(); state != "" {
		text += " " + state
	}
	return text
}

// parent is the place as a traceparent.
func (p Place) parent() string {
	traceID, spanID := p.at.TraceID(), p.at.SpanID()
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = append(hex.AppendEncode(b, traceID[:]), '-')
	b = append(hex.AppendEncode(b, spanID[:]), '-')
	return string(hex.AppendEncode(b, []byte{byte(p.at.TraceFlags() & (trace.FlagsSampled | trace.FlagsRandom))}))
}

// parse reads the two headers of W3C Trace Context.
func parse(parent, state string) trace.SpanContext {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": parent, "tracestate": state})
	return trace.SpanContextFromContext(ctx)
}
