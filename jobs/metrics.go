package jobs

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"partnersync/internal/ledger"
	"partnersync/sinks"
)

// metrics are the workers' part of the contract in the design, §7.
type metrics struct {
	deliveries    *prometheus.CounterVec
	latency       *prometheus.HistogramVec
	requests      *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	batchRows     *prometheus.HistogramVec
	waits         *prometheus.CounterVec
	state         *prometheus.GaugeVec
	mappingErrors *prometheus.CounterVec
	lookupMisses  *prometheus.CounterVec
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
		deliveries:    counter("deliveries_total", "Deliveries that have ended, by outcome.", "sink", "mapping", "outcome"),
		latency:       histogram("delivery_latency_seconds", "From the receipt of an event to the CRM's acknowledgement.", prometheus.ExponentialBuckets(0.005, 2.5, 14), "sink"),
		requests:      counter("sink_requests_total", "Requests to a CRM, by the class of its answer.", "sink", "operation", "class"),
		duration:      histogram("sink_request_duration_seconds", "How long a CRM took to answer.", prometheus.ExponentialBuckets(0.002, 2.5, 12), "sink", "operation"),
		batchRows:     histogram("sink_batch_rows", "Rows per request.", []float64{1, 2, 5, 10, 20, 50, 100, 200}, "sink"),
		waits:         counter("sink_wait_seconds_total", "Time spent waiting before a request, by reason.", "sink", "reason"),
		mappingErrors: counter("mapping_errors_total", "Mappings that could not be applied to an event.", "mapping", "reason"),
		lookupMisses:  counter("lookup_misses_total", "Lookups that missed their table and left the field alone.", "table"),
		requeued:      counter("swept_routes_total", "Open routes that had lost their job and got a new one.", "sink"),
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "partnersync", Name: "sink_state",
			Help: "1 for the present state of a sink."}, []string{"sink", "state"}),
		unaccounted: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "partnersync", Name: "unaccounted_routes",
			Help: "Open routes without a job that the last sweep found."}),
	}
	r.MustRegister(m.state, m.unaccounted)
	return m
}

// declare makes the series of a plan, so that each exists from the start.
func (m *metrics) declare(plan *Plan) {
	for name := range plan.Sinks {
		for _, class := range sinks.Classes() {
			for _, op := range []sinks.Operation{sinks.Upsert, sinks.Update, sinks.Create, sinks.Link} {
				m.requests.WithLabelValues(name, string(op), string(class))
			}
		}
		m.latency.WithLabelValues(name)
		m.batchRows.WithLabelValues(name)
		m.waits.WithLabelValues(name, "rate")
		m.requeued.WithLabelValues(name)
		for _, state := range states {
			m.state.WithLabelValues(name, state)
		}
	}
	for _, info := range plan.Mappings.Mappings() {
		for _, o := range ledger.Outcomes {
			m.deliveries.WithLabelValues(info.Sink, info.Name, string(o))
		}
		for _, reason := range []string{"null_key", "lookup_missed", "expression"} {
			m.mappingErrors.WithLabelValues(info.Name, reason)
		}
	}
}

func (m *metrics) delivery(sink, mapping string, outcome ledger.Outcome) {
	m.deliveries.WithLabelValues(sink, mapping, string(outcome)).Inc()
}

func (m *metrics) sinkState(sink, state string) {
	for _, s := range states {
		value := 0.0
		if s == state {
			value = 1
		}
		m.state.WithLabelValues(sink, s).Set(value)
	}
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
	jobs   *prometheus.Desc
	oldest *prometheus.Desc
	dead   *prometheus.Desc
	up     *prometheus.Desc
}

// NewCollector returns the collector of the queues of the sinks that names lists.
func NewCollector(l *ledger.Ledger, names func() []string) prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("partnersync_"+name, help, labels, nil)
	}
	return &queueCollector{
		ledger: l, names: names,
		jobs:   desc("queue_jobs", "Jobs of a sink by River's state; counted up to 10000.", "sink", "state"),
		oldest: desc("queue_oldest_seconds", "Age of the oldest open route of a sink.", "sink"),
		dead:   desc("dead_deliveries", "Routes of a sink that ended dead; counted up to 10000.", "sink"),
		up:     desc("postgres_up", "1 when Postgres answered the scrape."),
	}
}

func (c *queueCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.jobs, c.oldest, c.dead, c.up} {
		ch <- d
	}
}

// scrapeTimeout bounds what a scrape waits for Postgres.
const scrapeTimeout = 2 * time.Second

func (c *queueCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	stats, err := c.ledger.Queues(ctx, c.names())
	if err != nil {
		ch <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, 0)
		return
	}
	ch <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, 1)
	for _, s := range stats {
		for _, state := range ledger.JobStates {
			ch <- prometheus.MustNewConstMetric(c.jobs, prometheus.GaugeValue, float64(s.Jobs[state]), s.Sink, state)
		}
		ch <- prometheus.MustNewConstMetric(c.oldest, prometheus.GaugeValue, s.Oldest.Seconds(), s.Sink)
		ch <- prometheus.MustNewConstMetric(c.dead, prometheus.GaugeValue, float64(s.Dead), s.Sink)
	}
}
