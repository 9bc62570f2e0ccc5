package receiver

import (
	"github.com/prometheus/client_golang/prometheus"

	"partnersync/internal/secret"
	"partnersync/receiver/sources"
)

// gates is a Routing with everything looked up.
type gates struct {
	generation int64
	bySource   map[string]*gate
}

// gate is where the requests of one source come in.
type gate struct {
	source   *sources.Source
	types    map[string]*kind
	other    *kind // of events that the source does not know
	redact   *secret.Redactor
	duration prometheus.Observer
	last     prometheus.Gauge
	clamps   prometheus.Counter
}

// kind is one type of event.
type kind struct {
	series
	sinks []string
}

func newGates(routing Routing, m *metrics) *gates {
	g := &gates{generation: routing.Generation, bySource: make(map[string]*gate, len(routing.Sources))}
	for name, source := range routing.Sources {
		s := &gate{
			source:   source,
			types:    make(map[string]*kind, len(source.Events)),
			other:    &kind{series: m.series(name, otherType, results)},
			redact:   secret.NewRedactor(source.Secrets()...),
			duration: m.duration.WithLabelValues(name),
			last:     m.last.WithLabelValues(name),
			clamps:   m.clamps.WithLabelValues(name),
		}
		for typ := range source.Events {
			k := &kind{series: m.series(name, typ, firstUntyped), sinks: routing.Sinks(name, typ)}
			for _, sink := range k.sinks {
				m.opened.WithLabelValues(name, sink)
			}
			s.types[typ] = k
		}
		g.bySource[name] = s
	}
	return g
}

// kind is the type that an envelope names.
func (g *gate) kind(e *sources.Envelope) *kind {
	if e.Known {
		if k := g.types[e.Type]; k != nil {
			return k
		}
	}
	return g.other
}
