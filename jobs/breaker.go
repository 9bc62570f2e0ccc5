package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"partnersync/internal/ledger"
	"partnersync/sinks"
)

// The states of a sink. A throttled one goes on by time; a parked one by time, or
// by a probe where nobody knows when; a held one by a probe or new credentials; a
// stopped one when somebody resumes it.
const (
	ready     = "ready"
	throttled = "throttled"
	parked    = "parked"
	held      = "held"
	stopped   = "stopped"
)

var states = []string{ready, throttled, parked, held, stopped}

// errNoQueue means that River has not made the queue yet, so that it cannot be paused.
var errNoQueue = errors.New("there is no such queue yet")

// lastProbe is the longest pause between probes.
const lastProbe = 5 * time.Minute

// stateStore is what a breaker asks of the ledger.
type stateStore interface {
	SinkState(ctx context.Context, sink string) (ledger.SinkState, error)
	SetSinkState(ctx context.Context, sink string, state ledger.SinkState) error
	Wake(ctx context.Context, sink string) (int64, error)
}

// breaker is the circuit breaker of one sink. Its state is stored, so that it outlives the
// process; while the sink is stopped its queue is paused. Batches, jobs and keep use it at once,
// besides the goroutine of run.
type breaker struct {
	sink    string
	ledger  stateStore
	probe   func(context.Context) sinks.Result
	pause   func(context.Context) error
	resume  func(context.Context) error
	resumed func() // by command; may be nil
	log     *slog.Logger
	metrics *metrics

	// A sink that has answered nobody for silence is parked, so that a target that
	// is down costs no delivery an attempt.
	silence    time.Duration
	firstProbe time.Duration

	mu      sync.Mutex
	state   ledger.SinkState // guarded by mu, as are the next three
	probing bool             // the state ends by a probe
	every   time.Duration    // pause before the next probe
	since   time.Time        // of the first of the failures since the last answer
	changed chan struct{}    // wakes run

	found string // the state that load has found; jobs may wait for its end
}

func newBreaker(sink string, l stateStore, m *metrics, log *slog.Logger) *breaker {
	return &breaker{
		sink: sink, ledger: l, log: log, metrics: m,
		state: ledger.SinkState{State: ready}, changed: make(chan struct{}, 1),
	}
}

// stopped reports whether the sink may not be sent to, and after how long to ask again.
func (b *breaker) stopped() (time.Duration, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.State == ready {
		return 0, false
	}
	return b.waitLocked(), true
}

func (b *breaker) waitLocked() time.Duration {
	wait := time.Minute
	if !b.state.Until.IsZero() {
		wait = max(time.Until(b.state.Until), time.Second)
	}
	return wait + rand.N(wait/10+time.Millisecond)
}

// observe notes what the sink answered. It reports whether a failure of the given
// class counts against a delivery: not while the sink answers nobody.
func (b *breaker) observe(class sinks.Class, reason string) (counts bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch class {
	case sinks.Unavailable, sinks.Timeout, sinks.Network:
	default:
		b.since = time.Time{}
		return true
	}
	if b.since.IsZero() {
		b.since = time.Now()
	}
	if time.Since(b.since) < b.silence {
		return b.state.State == ready
	}
	b.stopLocked(parked, "answers nobody: "+reason, 0)
	return false
}

// stop ends sending for what the sink answered: Throttled, Parked or Held. Where
// nobody knows for how long, the sink is probed.
func (b *breaker) stop(res sinks.Result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if res.Status == 0 && b.state.State != ready {
		return // not sent, for a reason that the state tells better
	}
	switch res.Class {
	case sinks.Throttled:
		b.stopLocked(throttled, reasonOf(res), max(res.RetryAfter, time.Second))
	case sinks.Parked:
		b.stopLocked(parked, reasonOf(res), res.RetryAfter)
	default:
		b.stopLocked(held, heldFor(b.sink, res), 0)
	}
}

// heldFor is the reason of a sink that is held, which begins with what is to be mended.
func heldFor(sink string, res sinks.Result) string {
	switch res.Refused {
	case "token":
		return "the token of sink " + sink + " was refused: " + reasonOf(res)
	case "credentials":
		return "the credentials of sink " + sink + " were refused: " + reasonOf(res)
	}
	return reasonOf(res)
}

func (b *breaker) stopLocked(state, reason string, wait time.Duration) {
	if b.state.State == stopped || (b.state.State == held && state != held) {
		return
	}
	if b.state.State == state && b.probing && wait == 0 {
		return // the probe is under way already
	}
	if wait > 0 && time.Until(b.state.Until) > wait+time.Second {
		return // it waits for longer already
	}
	b.probing = wait == 0
	if b.probing {
		b.every = b.firstProbe
		wait = b.every
	}
	b.state = ledger.SinkState{State: state, Reason: reason, Until: time.Now().Add(wait)}
	b.notify()
}

// command carries out what a person wants: "stop" or "resume".
func (b *breaker) command(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since, b.probing = time.Time{}, false
	b.state = ledger.SinkState{State: ready}
	if what == "stop" {
		b.state = ledger.SinkState{State: stopped, Reason: "by command"}
	} else if b.resumed != nil {
		b.resumed()
	}
	b.notify()
}

// trip stops the sink until a person resumes it.
func (b *breaker) trip(reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.State == stopped {
		return
	}
	b.probing, b.state = false, ledger.SinkState{State: stopped, Reason: reason}
	b.notify()
}

// probeNow has a sink that waits for a probe probed at once: the credentials may be new.
func (b *breaker) probeNow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.probing && b.state.State != ready {
		b.every, b.state.Until = b.firstProbe, time.Now()
		b.notify()
	}
}

func (b *breaker) notify() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// load takes over the stored state.
func (b *breaker) load(ctx context.Context) error {
	s, err := b.ledger.SinkState(ctx, b.sink)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.found = s, s.State
	if s.State == held || (s.State == parked && s.Until.IsZero()) {
		b.probing, b.every = true, b.firstProbe
		b.state.Until = time.Now()
	}
	b.notify()
	return nil
}

// run stores each change of state, pauses and resumes the queue, and ends stops
// by time or by probe, until ctx ends.
func (b *breaker) run(ctx context.Context) {
	var stored ledger.SinkState // what the database and the queue know of
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		b.mu.Lock()
		s, probing := b.state, b.probing
		b.mu.Unlock()
		wait := time.Hour
		if !s.Until.IsZero() {
			wait = max(time.Until(s.Until), 0)
		}
		if s != stored {
			switch err := b.apply(ctx, s, stored.State != "" || b.found != ready); {
			case err == nil:
				b.logChange(stored, s)
				stored = s
			case errors.Is(err, errNoQueue):
				wait = min(wait, 50*time.Millisecond)
			default:
				b.log.Warn("the state of the sink could not be stored", "sink", b.sink, "err", err)
				wait = min(wait, time.Second)
			}
		}
		retry.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-b.changed:
			continue
		case <-retry.C:
		}
		if s.State == ready || s.Until.IsZero() || time.Until(s.Until) > 0 {
			continue
		}
		if probing {
			if answer := b.probe(ctx); answer.Class != sinks.OK {
				b.postponeProbe(answer, s.Until)
				continue
			}
		}
		b.open()
	}
}

// logChange logs a change of state.
func (b *breaker) logChange(before, now ledger.SinkState) {
	switch {
	case now.State == before.State && now.Reason == before.Reason:
	case now.State != ready:
		b.log.Warn("sink stops sending", "sink", b.sink, "state", now.State, "reason", now.Reason, "until", now.Until)
	case before.State != "":
		b.log.Info("sink sends again", "sink", b.sink)
	}
}

// postponeProbe puts off the next probe, each time longer, unless another has become due
// meanwhile.
func (b *breaker) postponeProbe(answer sinks.Result, due time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.state.Until.Equal(due) {
		return
	}
	b.every = min(b.every*2, lastProbe)
	b.state.Until = time.Now().Add(max(b.every, answer.RetryAfter))
	b.log.Info("probe failed", "sink", b.sink, "class", answer.Class, "status", answer.Status, "next", b.every)
}

func (b *breaker) open() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state, b.probing, b.since = ledger.SinkState{State: ready}, false, time.Time{}
}

// apply makes the stored state and the queue follow. Where the sink has been
// stopped before, its jobs need not wait for their time any more.
func (b *breaker) apply(ctx context.Context, s ledger.SinkState, wake bool) error {
	store := s
	if s.State == held {
		store.Until = time.Time{}
	}
	if err := b.ledger.SetSinkState(ctx, b.sink, store); err != nil {
		return err
	}
	if s.State != ready {
		return b.pause(ctx)
	}
	if err := b.resume(ctx); err != nil || !wake {
		return err
	}
	if _, err := b.ledger.Wake(ctx, b.sink); err != nil {
		return fmt.Errorf("wake jobs: %w", err)
	}
	return nil
}
