package spool

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	written, drained, corrupt prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer, s *Spool) *metrics {
	with := promauto.With(registerer)
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "partnersync_spool_events",
		Help: "Events that wait in the spool.",
	}, func() float64 { return float64(s.events.Load()) })
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "partnersync_spool_bytes",
		Help: "Size of the spool on disk, without what was set aside.",
	}, func() float64 { return float64(s.bytes.Load()) })
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "partnersync_spool_limit_bytes",
		Help: "The most that the spool may take on disk.",
	}, func() float64 { return float64(s.options.MaxBytes) })
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "partnersync_spool_oldest_seconds",
		Help: "Age of the oldest event in the spool; 0 when it is empty.",
	}, s.age)
	return &metrics{
		written: with.NewCounter(prometheus.CounterOpts{
			Name: "partnersync_spool_written_total",
			Help: "Events written to the spool.",
		}),
		drained: with.NewCounter(prometheus.CounterOpts{
			Name: "partnersync_spool_drained_total",
			Help: "Events taken out of the spool because they are stored.",
		}),
		corrupt: with.NewCounter(prometheus.CounterOpts{
			Name: "partnersync_spool_corrupt_segments_total",
			Help: "Segments of the spool that were found damaged.",
		}),
	}
}

// age is in seconds. Clocks may be set back.
func (s *Spool) age() float64 {
	if s.events.Load() == 0 {
		return 0
	}
	return max(0, time.Since(time.Unix(0, s.oldest.Load())).Seconds())
}
