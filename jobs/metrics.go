package jobs

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/records"
	"partnersync/sinks"
)

// metrics are the workers' part of the contract in the design.
type metrics struct {
	deliveries    *prometheus.CounterVec
	latency       *prometheus.HistogramVec
	requests      *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	batchRows     *prometheus.HistogramVec
	waits         *prometheus.CounterVec
	mappingErrors *prometheus.CounterVec
	lookupMisses  *prometheus.CounterVec
	closed        *prometheus.CounterVec
	deadLetters   *prometheus.CounterVec
	skipped       *prometheus.CounterVec
	last          *prometheus.GaugeVec
	unaccounted   prometheus.Gauge
	requeued      *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "partnersync", Name: name, Help: help}, labels)
		r.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "partnersync", Name: name, Help: help, Buckets: buckets}, labels)
		r.MustRegister(h)
		return h
	}
	m := &metrics{
		deliveries: counter("deliveries_total", "Deliveries that have ended, by outcome.", "sink", "mapping", "outcome"),
		latency: histogram("delivery_latency_seconds", "From the receipt of an event to the CRM's acknowledgement.",
			[]float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600}, "sink"),
		requests:      counter("sink_requests_total", "Requests to a CRM, by the class of its answer.", "sink", "operation", "class"),
		duration:      histogram("sink_request_duration_seconds", "How long a CRM took to answer.", prometheus.ExponentialBuckets(0.002, 2.5, 12), "sink", "operation"),
		batchRows:     histogram("sink_batch_rows", "Rows per request.", []float64{1, 2, 5, 10, 20, 50, 100, 200}, "sink"),
		waits:         counter("sink_wait_seconds_total", "Time spent waiting before a request, by reason.", "sink", "reason"),
		mappingErrors: counter("mapping_errors_total", "Mappings that could not be applied to an event.", "mapping", "reason"),
		lookupMisses:  counter("lookup_misses_total", "Lookups that missed their table and left the field alone; countries that are not known count as country().", "table"),
		requeued:      counter("swept_routes_total", "Open routes that had lost their job and got a new one.", "sink"),
		closed:        counter("routes_closed_total", "Routes that have ended, by outcome.", "sink", "outcome"),
		deadLetters:   counter("dead_letters_total", "Deliveries that ended dead, by what refused them.", "sink", "mapping", "class"),
		skipped:       counter("skipped_deliveries_total", "Deliveries that were skipped, by why.", "sink", "mapping", "reason"),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "partnersync", Name: "last_delivery_timestamp_seconds",
			Help: "When a CRM last acknowledged a delivery; 0 before the first."}, []string{"sink"}),
		unaccounted: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "partnersync", Name: "unaccounted_routes",
			Help: "Open routes without a job that the last sweep found."}),
	}
	r.MustRegister(m.last, m.unaccounted)
	return m
}

// declare makes the series of a plan, so that each exists from the start.
func (m *metrics) declare(plan *Plan) {
	for name, sink := range plan.Sinks {
		for _, op := range operations(sink) {
			for _, class := range append(sinks.Classes(), sinks.Split) { // a request may be split, a row never stays so
				m.requests.WithLabelValues(name, string(op), string(class))
			}
			m.duration.WithLabelValues(name, string(op))
		}
		m.latency.WithLabelValues(name)
		m.last.WithLabelValues(name)
		m.batchRows.WithLabelValues(name)
		for _, reason := range []string{"rate", "concurrency"} {
			m.waits.WithLabelValues(name, reason)
		}
		for _, o := range ledger.Outcomes {
			m.closed.WithLabelValues(name, string(o))
		}
		m.requeued.WithLabelValues(name)
	}
	for _, info := range plan.Mappings.Mappings() {
		for _, o := range ledger.Outcomes {
			m.deliveries.WithLabelValues(info.Sink, info.Name, string(o))
		}
		for _, class := range []string{"rejected", "conflict", "mapping", "link", "match", "unavailable", "timeout", "network"} {
			m.deadLetters.WithLabelValues(info.Sink, info.Name, class)
		}
		for _, reason := range records.Skips() {
			m.skipped.WithLabelValues(info.Sink, info.Name, reason)
		}
		for _, reason := range []string{"null_key", "lookup_missed", "expression", "forward"} {
			m.mappingErrors.WithLabelValues(info.Name, reason)
		}
	}
	m.lookupMisses.WithLabelValues(mappers.Countries)
	for _, table := range plan.Tables {
		m.lookupMisses.WithLabelValues(table)
	}
}

// operations are those that a sink has. Probes of one without whoami count as that.
func operations(s *sinks.Sink) []sinks.Operation {
	list := []sinks.Operation{sinks.Token, sinks.WhoAmI}
	for _, op := range []sinks.Operation{
		sinks.Upsert, sinks.Update, sinks.Create, sinks.Find, sinks.Search, sinks.Read, sinks.Link, sinks.Unlink, sinks.Archive, sinks.Describe,
		sinks.FieldOptions, sinks.List, sinks.Scopes,
	} {
		if s.Supports(op) {
			list = append(list, op)
		}
	}
	return list
}

func (m *metrics) delivery(sink, mapping string, outcome ledger.Outcome) {
	m.deliveries.WithLabelValues(sink, mapping, string(outcome)).Inc()
}

// Observer returns what a sink tells of its requests.
func (m *metrics) observer(sink string) sinks.Observer {
	return sinks.Observer{
		Request: func(op sinks.Operation, class sinks.Class, _ int, took time.Duration, _ int) {
			m.requests.WithLabelValues(sink, string(op), string(class)).Inc()
			m.duration.WithLabelValues(sink, string(op)).Observe(took.Seconds())
		},
		Wait: func(reason string, took time.Duration) {
			m.waits.WithLabelValues(sink, reason).Add(took.Seconds())
		},
	}
}

// queueCollector reads the state of the queues at a scrape, with counts that
// stop early, so that its cost does not grow with the backlog.
type queueCollector struct {
	ledger *ledger.Ledger
	names  func() []string
	known  func() []string
	orphan *prometheus.Desc
	jobs   *prometheus.Desc
	oldest *prometheus.Desc
	dead   *prometheus.Desc
	state  *prometheus.Desc
	owned  *prometheus.Desc
	epochs *prometheus.Desc
	up     *prometheus.Desc
}

// NewCollector returns the collector of the queues of the sinks that names lists. Known lists
// these with their former names.
func NewCollector(l *ledger.Ledger, names, known func() []string) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("partnersync_"+name, help, labels, nil)
	}
	return &queueCollector{
		ledger: l, names: names, known: known,
		orphan: desc("orphaned_routes", "Open routes of sinks that the config does not have; counted up to 10000 for each."),
		jobs:   desc("queue_jobs", "Jobs of a sink by River's state; counted up to 10000.", "sink", "state"),
		oldest: desc("queue_oldest_seconds", "Age of the oldest open route of a sink.", "sink"),
		dead:   desc("dead_deliveries", "Routes of a sink that ended dead; counted up to 10000.", "sink"),
		state:  desc("sink_state", "1 for the present state of a sink.", "sink", "state"),
		owned:  desc("sink_owned", "1 when a live process owns the sink.", "sink"),
		epochs: desc("sink_owner_changes_total", "Changes of the process that owns a sink.", "sink"),
		up:     desc("postgres_up", "1 when Postgres answered the scrape."),
	}
}

func (c *queueCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.orphan, c.jobs, c.oldest, c.dead, c.state, c.owned, c.epochs, c.up} {
		ch <- d
	}
}

// scrapeTimeout bounds what a scrape waits for Postgres.
const scrapeTimeout = 2 * time.Second

func (c *queueCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	names := c.names()
	stats, err := c.ledger.Queues(ctx, names)
	var lines map[string]ledger.SinkLine
	if err == nil {
		lines, err = c.ledger.Sinks(ctx, names)
	}
	var orphans []ledger.Orphan
	if err == nil {
		orphans, err = c.ledger.Orphans(ctx, c.known())
	}
	if err != nil {
		ch <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, 0)
		return
	}
	ch <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, 1)
	open := 0
	for _, o := range orphans {
		open += o.Open
	}
	ch <- prometheus.MustNewConstMetric(c.orphan, prometheus.GaugeValue, float64(open))
	for _, s := range stats {
		for _, state := range ledger.JobStates {
			ch <- prometheus.MustNewConstMetric(c.jobs, prometheus.GaugeValue, float64(s.Jobs[state]), s.Sink, state)
		}
		ch <- prometheus.MustNewConstMetric(c.oldest, prometheus.GaugeValue, s.Oldest.Seconds(), s.Sink)
		ch <- prometheus.MustNewConstMetric(c.dead, prometheus.GaugeValue, float64(s.Dead), s.Sink)
	}
	for _, name := range names {
		line := lines[name]
		for _, state := range states {
			ch <- prometheus.MustNewConstMetric(c.state, prometheus.GaugeValue, one(line.State == state), name, state)
		}
		ch <- prometheus.MustNewConstMetric(c.owned, prometheus.GaugeValue, one(line.Owned), name)
		ch <- prometheus.MustNewConstMetric(c.epochs, prometheus.CounterValue, float64(line.Epoch), name)
	}
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
