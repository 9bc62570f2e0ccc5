// Package jobs works the routes that the receiver has opened: River delivers jobs, and the
// owner of a sink takes those at hand from stored events to recorded outcomes. What a record
// should be, what to do next and what an answer means is decided in package records; this
// package reads, announces, sends and stores. It writes no SQL (see internal/ledger) and knows
// no CRM (see sinks).
//
// # Who runs what
//
//	worker.go     Workers: the River client, the sweeper, one lease for each sink
//	lease.go      acquires, renews and releases the leases; one goroutine, keep
//	scheduler.go  owner: jobs at hand become batches; one goroutine for each sink, run
//	batch.go      load, map, lock, fold, loop, commit; one goroutine for each batch
//	loop.go       plan, announce, send, apply; a goroutine for each call of the sink
//	merge.go      keys that turn out to name one record
//	match.go      events under several keys that may be about one record
//	commit.go     the end of a batch, in one transaction
//	observe.go    a sink that writes nothing: its answers, and what it would have done
//	guard.go      how much a sink may write within an hour
//	locks.go      who works on which record; shared by the batches of a sink, behind a mutex
//	cache.go      records in memory; likewise
//	breaker.go    the circuit breaker of a sink: stops, probes, goes on; one goroutine, run
//	target.go     a sink as records see it
//	retention.go  the hourly maintenance
//
// Arrows run one way: worker → lease → scheduler → batch → loop → records. A batch belongs to
// its goroutine; only its waiters are shared, behind the mutex of the locks. A job belongs to
// whoever has taken it.
//
// # The life of a batch
//
//	jobs ──▶ load ──▶ map ──▶ lock ──▶ fold ──▶ ┌ plan ─ announce ─ send ─ apply ┐ ──▶ commit
//	                           │                └──────────── again ─────────────┘
//	                           └─▶ a record that another batch has: the job waits for that batch
//
// # What must hold when
//
//   - Two batches never have one record: it is claimed by key, then by record, then by the CRM's
//     id once that is learnt. A record whose last request may still take effect is blocked until
//     it has settled.
//   - Nothing is sent that was not announced: Announce checks the epoch of the lease (the fencing
//     token), stores the write intent, and stores in doubt what the requests may change.
//   - A new owner keeps its hands off the records of announcements until they are over.
//   - Commit is refused once the lease has another epoch, or a record has been written since it
//     was read. Then nothing of the batch counts, and its jobs come again.
//   - A job ends only with the outcome of its routes stored. The sweeper queues open routes that
//     have no job: the ledger, not the queue, proves that nothing is lost.
//   - Only a failure that counts burns an attempt; everything else snoozes.
package jobs
