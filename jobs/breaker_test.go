package jobs

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"partnersync/internal/ledger"
)

// A sink that is resumed before its new owner has looked has the jobs worked that a former owner put off.
func TestResumedWhileTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{idle: true})
	r.accept(deal("d1", 1, "name", "One"))
	if err := r.ledger.SetSinkState(r.context(), "crm", ledger.SinkState{State: stopped, Reason: "by command"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.pool.Exec(r.context(), `UPDATE river_job SET state = 'scheduled', scheduled_at = now() + interval '1 h'`); err != nil {
		t.Fatal(err)
	}
	b := newBreaker("crm", r.ledger, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	nothing := func(context.Context) error { return nil }
	b.pause, b.resume = nothing, nothing
	if err := b.load(r.context()); err != nil {
		t.Fatal(err)
	}
	b.command("resume")
	ctx, stop := context.WithCancel(r.context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.run(ctx)
	}()
	r.until("the job need not wait any more", func() bool { return r.count(`river_job WHERE state = 'available'`) == 1 })
	stop()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the breaker does not end")
	}
}
