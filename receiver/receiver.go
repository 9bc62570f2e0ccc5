package receiver

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"partnersync/internal/ledger"
	"partnersync/internal/tracing"
	"partnersync/receiver/sources"
	"partnersync/receiver/spool"
)

// Committer stores events with their routes and jobs in one transaction and
// returns one Accepted per event, in the same order. [ledger.Ledger] is one. It is
// called by several goroutines at once.
type Committer interface {
	Accept(ctx context.Context, events []ledger.Incoming, generation int64, eventsPerJob int) ([]ledger.Accepted, error)
}

// Spool keeps events on disk while Postgres is away, in order. [spool.Spool] is one.
// Append is called by one goroutine, Peek, Drop and Keep by another, Len and Room by
// many.
type Spool interface {
	// Append puts records behind the others, all or none, and returns when they are
	// on disk.
	Append(records []spool.Record) error
	// Peek returns the oldest records, so many and of so many bytes, but at least one.
	Peek(most int, bytes int64) ([]spool.Record, error)
	// Drop takes the first of those that Peek has returned out.
	Drop(n int) error
	// Keep has the file of the oldest record kept when its records are dropped.
	Keep()
	Len() int
	Room() int64 // in bytes of records
}

// Options say what a receiver works with. Ledger is required; a zero number means
// the default.
type Options struct {
	Ledger       Committer
	Registerer   prometheus.Registerer // nil: the metrics are not published
	Logger       *slog.Logger          // nil: silent
	EventsPerJob int                   // events of one commit that may share a job; default 1
	Flushers     int                   // commits at the same time; default 2
	Queue        int                   // requests that may wait for a commit; default 4096
	MaxBytes     int64                 // bodies held in memory, all requests together; default 64 MiB
	Connections  int                   // open at a time, of the listener that Limit wraps; default 4096
	Proxies      []netip.Prefix        // whose X-Forwarded-For is believed
	Timeout      time.Duration         // a request waits no longer for its commit; default 1.8 s
	Spool        Spool                 // nil: while Postgres is away senders are told to come again
	Tracer       *tracing.Tracer       // nil: no traces are exported
}

// Routing is what the receiver needs of a config.
type Routing struct {
	// Generation is that of the config in the database. While it is 0 nobody has asked
	// the database yet, nor looked whether it has the tables: events are taken in as
	// while Postgres is away.
	Generation int64
	Sources    map[string]*sources.Source
	// Sinks names the sinks that want events of a type, each once.
	Sinks func(source, typ string) []string
}

// Receiver answers webhooks. Make one with New.
type Receiver struct {
	options  Options
	metrics  *metrics
	queue    *queue
	spooling *queue        // of the spool's writer
	spooled  chan struct{} // has one when there is something in the spool
	kept     []header
	held     atomic.Int64 // bytes of bodies in memory
	unproved unproved     // those among them whose sender is not known yet
	gates    atomic.Pointer[gates]
	// connections are used by Server and Limit alone.
	connections *connections
	down        atomic.Bool // the last commit failed for a reason that is not its data
	lastSpooled time.Time   // when the newest event of the spool was received; of the spool's writer
	// diskFailed is when the spool could not be written, unless it could since.
	diskFailed atomic.Pointer[time.Time]
}

// New returns a receiver. It stores nothing until Run runs.
func New(o Options, routing Routing) *Receiver {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.EventsPerJob = cmp.Or(o.EventsPerJob, 1)
	o.Flushers = cmp.Or(o.Flushers, 2)
	o.Queue = cmp.Or(o.Queue, 4096)
	o.MaxBytes = cmp.Or(o.MaxBytes, 64<<20)
	o.Connections = cmp.Or(o.Connections, 4096)
	o.Timeout = cmp.Or(o.Timeout, 1800*time.Millisecond)
	r := &Receiver{
		options: o, metrics: newMetrics(o.Registerer), kept: kept(),
		queue: newQueue(o.Queue), spooling: newQueue(o.Queue), spooled: make(chan struct{}, 1),
	}
	r.unproved.limit, r.unproved.cut = o.MaxBytes/2, r.metrics.cutBodies.Inc
	r.connections = newConnections(o.Connections, r.metrics.cutConnections.Inc)
	r.watch(o.Registerer)
	if o.Spool != nil {
		r.queue.settle(o.Spool.Len, false)
	}
	r.Use(routing)
	return r
}

// Handler answers below /hooks/ and nothing else.
func (r *Receiver) Handler() http.Handler { return http.HandlerFunc(r.serve) }

// Use replaces the routing. Requests already past it keep the one they met, and
// are stored under its generation.
func (r *Receiver) Use(routing Routing) { r.gates.Store(newGates(routing, r.metrics)) }

// Run stores what the handler takes in, and what is in the spool. When ctx ends the
// handler refuses new events, those taken in before are stored, and Run returns nil;
// what is in the spool stays there.
func (r *Receiver) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, r.queue.close)
	defer stop()
	var flushers sync.WaitGroup
	for range r.options.Flushers {
		flushers.Go(r.flush)
	}
	if r.options.Spool == nil {
		flushers.Wait()
		return nil
	}
	var writer sync.WaitGroup
	writer.Go(r.writeSpool)
	r.drainSpool(ctx)
	flushers.Wait()
	r.spooling.close()
	writer.Wait()
	return nil
}
