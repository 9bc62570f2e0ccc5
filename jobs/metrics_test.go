package jobs

import (
	"fmt"
	"testing"

	"partnersync/sinks"
)

// Counters that begin when they are first needed begin at 1, and no rate sees that one.
func TestSeriesFromTheStart(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{sinks: `
  archive:
    preset: webhook
    url: URL/webhook
`})
	first := r.series()
	for _, want := range []string{
		`partnersync_sink_requests_total class="split" operation="upsert" sink="crm"`,
		`partnersync_sink_requests_total class="held" operation="token" sink="archive"`,
		`partnersync_last_delivery_timestamp_seconds sink="crm"`,
		`partnersync_sink_wait_seconds_total reason="concurrency" sink="archive"`,
	} {
		if !first[want] {
			t.Errorf("there is no %s", want)
		}
	}
	// One that cannot be asked who we are is probed all the same.
	if res := r.plan.Sinks["archive"].Probe(r.context()); res.Class != sinks.OK {
		t.Errorf("the probe: %+v", res)
	}
	r.deliver(deal("d1", 1, "title", "One"), deal("", 2, "title", "Nothing"))
	for one := range r.series() {
		if !first[one] {
			t.Errorf("%s was not there from the start", one)
		}
	}
}

// series are the names of all series with their labels.
func (r *rig) series() map[string]bool {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]bool{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			one := f.GetName()
			for _, l := range m.GetLabel() {
				one += fmt.Sprintf(" %s=%q", l.GetName(), l.GetValue())
			}
			all[one] = true
		}
	}
	return all
}
