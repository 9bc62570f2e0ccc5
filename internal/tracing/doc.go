// Package tracing says to which trace the work for an event belongs, and exports
// spans of that work over OTLP.
//
// Every event belongs to a trace: that which its sender named in traceparent, or one
// of its own, whose id is the event's id without dashes. So there is nothing to make
// up, to store, or to look for.
//
// A nil [Tracer] is off: it exports nothing and its methods cost nothing. The trace of
// an event is known all the same, and requests to CRMs carry it.
//
// The package is the only one that knows OpenTelemetry. No span holds a payload, a
// secret, or a path or query of a URL.
package tracing
