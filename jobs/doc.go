// Package jobs works the routes that the receiver has opened. River delivers
// the jobs; one owner per sink gathers those at hand and takes them together
// through five steps: load the events, map them, converge them with the state of
// their records, send what differs, record what became of it.
//
// The package owns retries, the stop and the resumption of sinks, and the sweeper
// that queues routes which have lost their job. It writes no SQL (see
// internal/ledger) and knows no CRM (see sinks).
package jobs
