// Package jobs works the routes that the receiver has opened. River delivers
// the jobs; one owner per sink gathers those at hand and takes them together
// through its steps, each in a file of its own: load the events (cycle.go), map them
// (apply.go), converge them with the state of their records (wanted.go, with the
// pure part in converge.go), send what differs (parcel.go makes the rows, carry.go
// the links that go along, send.go deals with the answers), link what could not go along
// (link.go), record what became of it (record.go). presence.go is about records that are
// gone, meet.go about keys that turn out to name one record.
//
// The package owns retries, the stop and the resumption of sinks, and the sweeper
// that queues routes which have lost their job. It writes no SQL (see
// internal/ledger) and knows no CRM (see sinks).
package jobs
