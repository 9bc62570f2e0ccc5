// Package receiver takes webhooks in: it verifies the sender, reads the envelope
// (type, entity, when it happened) and stores the event with its routes and jobs
// before it answers. Concurrent requests share a transaction: while one is on its
// way the next batch gathers, and an idle receiver commits at once.
//
//	POST /hooks/{source}/{event}   the URL says which event it is
//	POST /hooks/{source}           the body says it
//	GET  /hooks/{source}[/{event}] where the source allows it; without parameters a probe
//
// What is waiting is bounded in number and in bytes, and waits no longer than
// [Options].Timeout; beyond that the sender is told to come again. One request
// never fails another: a batch that Postgres refuses for its data is stored row by
// row.
//
// With a spool, an event that Postgres does not take goes to disk instead and is
// acknowledged, and so do all events after it, until those on disk are in Postgres:
// the order in which events were acknowledged is the order in which they are stored.
//
// An event keeps the trace that its sender named in traceparent; see package tracing.
//
// The package maps nothing, knows no sink beyond its name and no vendor at all,
// and leaves every SQL statement to the ledger. No answer, error or log line of it
// holds a secret or a value of a payload.
package receiver
