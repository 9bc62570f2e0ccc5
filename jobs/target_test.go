package jobs

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"partnersync/records"
	"partnersync/sinks"
)

// What each class of answer means to the rules, and whether it stops the sink.
func TestAnswersHaveOneMeaning(t *testing.T) {
	t.Parallel()
	kinds := map[records.Kind]string{records.Taken: "taken", records.Denied: "denied", records.Conflict: "conflict", records.Busy: "busy", records.Failed: "failed"}
	tests := []struct {
		name string
		give sinks.Result
		cut  bool // we are stopping
		want string
		stop string
	}{
		{"ok", sinks.Result{Class: sinks.OK}, false, "taken", ready},
		{"rejected", sinks.Result{Class: sinks.Rejected}, false, "denied", ready},
		{"conflict", sinks.Result{Class: sinks.Conflict}, false, "conflict", ready},
		{"throttled for a moment", sinks.Result{Class: sinks.Throttled, RetryAfter: time.Second}, false, "busy, short", ready},
		{"throttled for long", sinks.Result{Class: sinks.Throttled, RetryAfter: time.Minute}, false, "busy", throttled},
		{"throttled while we stop", sinks.Result{Class: sinks.Throttled, RetryAfter: time.Second}, true, "busy", throttled},
		{"parked", sinks.Result{Class: sinks.Parked, RetryAfter: time.Hour}, false, "busy", parked},
		{"held", sinks.Result{Class: sinks.Held, Status: 401}, false, "busy", held},
		{"unavailable", sinks.Result{Class: sinks.Unavailable}, false, "failed, counts", ready},
		{"unavailable, and it may have been carried out", sinks.Result{Class: sinks.Unavailable, Sent: true}, false, "failed, counts, lost", ready},
		{"timeout", sinks.Result{Class: sinks.Timeout, Sent: true}, false, "failed, counts, lost", ready},
		{"network", sinks.Result{Class: sinks.Network}, false, "failed, counts", ready},
		{"network while we stop", sinks.Result{Class: sinks.Network, Sent: true}, true, "failed, lost", ready},
	}
	seen := map[sinks.Class]bool{}
	for _, tt := range tests {
		seen[tt.give.Class] = true
		metrics := newMetrics(prometheus.NewRegistry())
		b := newBreaker("crm", newMemory(), metrics, slog.New(slog.DiscardHandler))
		b.silence = time.Hour
		o := &owner{breaker: b}
		a := o.answerOf(tt.give, tt.cut)
		got := kinds[a.Kind]
		for _, word := range []struct {
			is   bool
			word string
		}{{a.Short, ", short"}, {a.Counts, ", counts"}, {a.Lost, ", lost"}} {
			if word.is {
				got += word.word
			}
		}
		if got != tt.want || b.state.State != tt.stop {
			t.Errorf("%s: %s, and the sink is %s; want %s, %s", tt.name, got, b.state.State, tt.want, tt.stop)
		}
		if a.Kind == records.Busy && a.Wait <= 0 {
			t.Errorf("%s: waits for nothing", tt.name)
		}
	}
	for _, class := range sinks.Classes() {
		if !seen[class] {
			t.Errorf("no row for %s", class)
		}
	}
}
