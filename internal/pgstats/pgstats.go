package pgstats

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Options say what to read. Pool is required.
type Options struct {
	Pool  *pgxpool.Pool
	Sinks func() []string // whose queues to look at; nil: none
	Every time.Duration   // a reading serves all who ask within it; 0 means 5 s
}

// timeout bounds what a scrape waits for a reading.
const timeout = time.Second

// Collector is a [prometheus.Collector]. Where Postgres does not answer it tells
// of the pool, and that there is nothing else to tell.
type Collector struct {
	options Options
	descs   descs

	mu    sync.Mutex // one reading at a time; the others wait for it
	last  *reading   // nil: the last one failed
	taken time.Time
	took  time.Duration
}

// New returns a collector; nothing is read before somebody asks.
func New(o Options) *Collector {
	if o.Every <= 0 {
		o.Every = 5 * time.Second
	}
	if o.Sinks == nil {
		o.Sinks = func() []string { return nil }
	}
	return &Collector{options: o, descs: newDescs()}
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs.all() {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	// First the pool as it is: the reading below takes a connection itself.
	c.collectPool(ch)
	r, took := c.reading()
	gauge := gauges(ch)
	gauge(c.descs.took, took.Seconds())
	if r == nil {
		gauge(c.descs.up, 0)
		return
	}
	gauge(c.descs.up, 1)
	for _, t := range r.tables {
		gauge(c.descs.deadRows, t.Dead, t.Name)
		gauge(c.descs.liveRows, t.Live, t.Name)
		gauge(c.descs.tableBytes, t.Heap, t.Name, "heap")
		gauge(c.descs.tableBytes, t.Indexes, t.Name, "indexes")
		if t.Vacuumed != nil {
			gauge(c.descs.vacuumAge, *t.Vacuumed, t.Name)
		}
	}
	for _, state := range connectionStates {
		gauge(c.descs.connections, r.connections[state], state)
	}
	gauge(c.descs.connectionsMax, r.connectionsMax)
	gauge(c.descs.oldestSeconds, r.oldestSeconds)
	gauge(c.descs.oldestXids, r.oldestXids)
	gauge(c.descs.frozenXids, r.frozenXids)
	for _, q := range r.queues {
		gauge(c.descs.oldestJob, q.Oldest, q.Sink)
	}
	gauge(c.descs.leader, r.leader)
}

func (c *Collector) collectPool(ch chan<- prometheus.Metric) {
	s := c.options.Pool.Stat()
	gauge := gauges(ch)
	gauge(c.descs.pool, float64(s.AcquiredConns()), "acquired")
	gauge(c.descs.pool, float64(s.IdleConns()), "idle")
	gauge(c.descs.pool, float64(s.ConstructingConns()), "connecting")
	gauge(c.descs.poolMax, float64(s.MaxConns()))
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	counter(c.descs.acquires, float64(s.AcquireCount()))
	counter(c.descs.waits, float64(s.EmptyAcquireCount()))
	counter(c.descs.waitSeconds, s.EmptyAcquireWaitTime().Seconds())
	counter(c.descs.givenUp, float64(s.CanceledAcquireCount()))
}

// reading returns the present reading, nil where Postgres gave none, and how long
// it took.
func (c *Collector) reading() (*reading, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.taken.IsZero() && time.Since(c.taken) < c.options.Every {
		return c.last, c.took
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	started := time.Now()
	r, err := read(ctx, c.options.Pool, c.options.Sinks())
	if err != nil {
		r = nil // partnersync_postgres_up and the log of whoever needs Postgres say why
	}
	c.last, c.taken, c.took = r, time.Now(), time.Since(started)
	return c.last, c.took
}

func gauges(ch chan<- prometheus.Metric) func(*prometheus.Desc, float64, ...string) {
	return func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
}

// descs are the metrics.
type descs struct {
	pool, poolMax, acquires, waits, waitSeconds, givenUp *prometheus.Desc
	connections, connectionsMax                          *prometheus.Desc
	deadRows, liveRows, tableBytes, vacuumAge            *prometheus.Desc
	oldestSeconds, oldestXids, frozenXids                *prometheus.Desc
	oldestJob, leader                                    *prometheus.Desc
	up, took                                             *prometheus.Desc
}

func newDescs() descs {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("partnersync_"+name, help, labels, nil)
	}
	return descs{
		pool:           desc("postgres_pool_connections", "Connections of this process's pool, by state.", "state"),
		poolMax:        desc("postgres_pool_limit_connections", "The most connections that this process's pool opens."),
		acquires:       desc("postgres_pool_acquires_total", "Connections taken from the pool."),
		waits:          desc("postgres_pool_waits_total", "Connections taken from the pool after a wait, since none was free."),
		waitSeconds:    desc("postgres_pool_wait_seconds_total", "Time spent waiting for a connection of the pool."),
		givenUp:        desc("postgres_pool_canceled_total", "Waits for a connection of the pool that were given up."),
		connections:    desc("postgres_connections", "Client connections to the server, of whomever, by state.", "state"),
		connectionsMax: desc("postgres_connections_limit", "The most connections that the server takes (max_connections)."),
		deadRows:       desc("postgres_table_dead_rows", "Dead rows of a table, as Postgres estimates them.", "table"),
		liveRows:       desc("postgres_table_live_rows", "Live rows of a table, as Postgres estimates them.", "table"),
		tableBytes:     desc("postgres_table_bytes", "Size of a table on disk: its rows, or its indexes.", "table", "part"),
		vacuumAge:      desc("postgres_table_vacuum_age_seconds", "Time since a table was last vacuumed, by autovacuum or by hand.", "table"),
		oldestSeconds:  desc("postgres_oldest_transaction_seconds", "Age of the oldest transaction that holds back vacuum; 0 where there is none."),
		oldestXids:     desc("postgres_oldest_transaction_xids", "How many transaction ids vacuum is held back, by sessions, prepared transactions or replication slots."),
		frozenXids:     desc("postgres_frozen_age_xids", "Age of the oldest transaction id that is not frozen; Postgres stops writing near 2 billion."),
		oldestJob:      desc("queue_oldest_job_seconds", "How long the oldest job of a sink that is due has waited to be taken; 0 where there is none.", "sink"),
		leader:         desc("queue_leader", "1 when a client of River leads: without one no job that waits for its time becomes due."),
		up:             desc("postgres_stats_up", "1 when the statistics of Postgres could be read."),
		took:           desc("postgres_stats_duration_seconds", "How long the last reading of the statistics of Postgres took."),
	}
}

func (d *descs) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		d.pool, d.poolMax, d.acquires, d.waits, d.waitSeconds, d.givenUp, d.connections, d.connectionsMax,
		d.deadRows, d.liveRows, d.tableBytes, d.vacuumAge, d.oldestSeconds, d.oldestXids, d.frozenXids,
		d.oldestJob, d.leader, d.up, d.took,
	}
}
