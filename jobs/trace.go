package jobs

import (
	"context"
	"slices"

	"partnersync/internal/ledger"
	"partnersync/internal/tracing"
)

// traced begins the work on a route, as a part of the trace of its event.
func (c *cycle) traced(stored *ledger.Route) *route {
	r := &route{Route: stored}
	t := c.owner.tracer
	r.place, r.span = t.Work(t.Place(r.Event, r.Trace), c.owner.name, r.Event)
	if r.span != nil {
		c.spans = append(c.spans, r)
	}
	return r
}

// endSpans ends the work on all routes that the cycle has loaded. Those that others
// work on by now are open as far as this cycle is concerned.
func (c *cycle) endSpans() {
	for _, r := range c.spans {
		r.span.End(string(r.ended))
	}
}

// serving returns a context for a request that serves deliveries: it carries the trace
// of the first, and is linked to the others.
func (c *cycle) serving(ctx context.Context, deliveries ...[]*delivery) context.Context {
	var places []tracing.Place
	for _, d := range slices.Concat(deliveries...) {
		places = append(places, d.route.place)
	}
	return c.owner.tracer.With(ctx, places...)
}

// deliveriesOf are those of several parcels.
func deliveriesOf(parcels []*parcel) [][]*delivery {
	var all [][]*delivery
	for _, p := range parcels {
		all = append(all, p.deliveries)
	}
	return all
}
