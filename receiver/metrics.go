package receiver

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// result is what a request ended in: the values of the label.
type result int

const (
	resultStored result = iota
	resultDuplicate
	resultUnmapped
	resultIgnored
	resultMalformed
	resultRefused      // malformed in the eyes of Postgres
	resultUnavailable  // not stored, the sender shall come again
	resultUnauthorized // from here on the type is not known
	resultTooLarge
	resultProbe
	resultInvalid // wrong method, unknown content encoding, a body that does not come from one who has proved who it is
	resultFailed  // a panic
	results
)

// firstUntyped is the first of the results that come before the type is known.
const firstUntyped = resultUnauthorized

func (r result) String() string {
	return [results]string{"stored", "duplicate", "unmapped", "ignored", "malformed", "refused", "unavailable",
		"unauthorized", "too_large", "probe", "invalid", "failed"}[r]
}

// otherType labels events whose name the config does not know: labels come only
// from the config.
const otherType = "other"

type metrics struct {
	received *prometheus.CounterVec
	duration *prometheus.HistogramVec
	last     *prometheus.GaugeVec
	batch    prometheus.Histogram
	commit   prometheus.Histogram
	opened   *prometheus.CounterVec
	clamps   *prometheus.CounterVec
	drift    *prometheus.CounterVec
	// What was given up for somebody else.
	cutConnections, cutBodies prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	with := promauto.With(registerer)
	cut := with.NewCounterVec(prometheus.CounterOpts{
		Name: "partnersync_receive_cut_total",
		Help: "Connections, and bodies under way, of those who had not proved who they are, given up because others came and there was no room.",
	}, []string{"what"})
	return &metrics{
		cutConnections: cut.WithLabelValues("connection"),
		cutBodies:      cut.WithLabelValues("body"),
		received: with.NewCounterVec(prometheus.CounterOpts{
			Name: "partnersync_events_received_total",
			Help: "Requests to a source by type of event and what became of them.",
		}, []string{"source", "type", "result"}),
		duration: with.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "partnersync_receive_duration_seconds",
			Help:    "Time from the head of a request to its answer.",
			Buckets: []float64{.001, .002, .005, .01, .02, .03, .05, .1, .25, .5, 1, 2, 5},
		}, []string{"source"}),
		last: with.NewGaugeVec(prometheus.GaugeOpts{
			Name: "partnersync_last_event_timestamp_seconds",
			Help: "When the last event of a source was taken in; 0 before the first.",
		}, []string{"source"}),
		batch: with.NewHistogram(prometheus.HistogramOpts{
			Name:    "partnersync_commit_batch_events",
			Help:    "Events per group commit.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
		commit: with.NewHistogram(prometheus.HistogramOpts{
			Name:    "partnersync_commit_duration_seconds",
			Help:    "Time of a group commit.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2, 5},
		}),
		opened: with.NewCounterVec(prometheus.CounterOpts{
			Name: "partnersync_routes_opened_total",
			Help: "Routes opened, one per event and sink that wants it; replays are not counted.",
		}, []string{"source", "sink"}),
		clamps: with.NewCounterVec(prometheus.CounterOpts{
			Name: "partnersync_version_clamps_total",
			Help: "Events whose time was too far ahead of ours: they are ordered by arrival.",
		}, []string{"source"}),
		drift: with.NewCounterVec(prometheus.CounterOpts{
			Name: "partnersync_payload_drift_total",
			Help: "Values in payloads that the schema of their event does not know, or that do not fit it.",
		}, []string{"source", "type"}),
	}
}

// watch publishes what is in memory.
func (r *Receiver) watch(registerer prometheus.Registerer) {
	with := promauto.With(registerer)
	gauge := func(name, help string, value func() float64) {
		with.NewGaugeFunc(prometheus.GaugeOpts{Name: "partnersync_receive_" + name, Help: help}, value)
	}
	gauge("waiting_events", "Requests that wait for a commit.", func() float64 { return float64(r.queue.len()) })
	gauge("waiting_limit_events", "The most requests that may wait for a commit.", func() float64 { return float64(r.options.Queue) })
	gauge("held_bytes", "Bodies in memory.", func() float64 { return float64(r.held.Load()) })
	gauge("connections", "Connections of senders that are open.", func() float64 { return float64(r.connections.len()) })
	gauge("connections_limit", "The most connections of senders that may be open.", func() float64 { return float64(r.options.Connections) })
	gauge("held_limit_bytes", "The most that bodies in memory may take.", func() float64 { return float64(r.options.MaxBytes) })
}

// series are the metrics of one type of one source, looked up once.
type series struct {
	received [results]prometheus.Counter
	drift    prometheus.Counter
}

// series makes the results from first to before; the type "other" has all of them.
func (m *metrics) series(source, typ string, before result) series {
	s := series{drift: m.drift.WithLabelValues(source, typ)}
	for r := range before {
		s.received[r] = m.received.WithLabelValues(source, typ, r.String())
	}
	return s
}
