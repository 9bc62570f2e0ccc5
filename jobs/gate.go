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

// gate stops and resumes one sink. Its state is stored, so that it outlives the
// process; while the sink is stopped its queue is paused.
type gate struct {
	sink    string
	ledger  *ledger.Ledger
	probe   func(context.Context) sinks.Result
	pause   func(context.Context) error
	resume  func(context.Context) error
	log     *slog.Logger
	metrics *metrics

	// A sink that has answered nobody for silence is parked, so that a target that
	// is down costs no delivery an attempt.
	silence    time.Duration
	firstProbe time.Duration

	mu      sync.Mutex
	state   ledger.SinkState
	probing bool // the state ends by a probe
	every   time.Duration
	since   time.Time // of the first of the failures since the last answer
	changed chan struct{}
}

func newGate(sink string, l *ledger.Ledger, m *metrics, log *slog.Logger) *gate {
	return &gate{
		sink: sink, ledger: l, log: log, metrics: m,
		state: ledger.SinkState{State: ready}, changed: make(chan struct{}, 1),
	}
}

// stopped reports whether the sink may not be sent to, and after how long to ask again.
func (g *gate) stopped() (time.Duration, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state.State == ready {
		return 0, false
	}
	return g.waitLocked(), true
}

func (g *gate) waitLocked() time.Duration {
	wait := time.Minute
	if !g.state.Until.IsZero() {
		wait = max(time.Until(g.state.Until), time.Second)
	}
	return wait + rand.N(wait/10+time.Millisecond)
}

// heard notes what the sink answered. It reports whether a failure of the given
// class counts against a delivery: not while the sink answers nobody.
func (g *gate) heard(class sinks.Class, reason string) (counts bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch class {
	case sinks.Unavailable, sinks.Timeout, sinks.Network:
	default:
		g.since = time.Time{}
		return true
	}
	if g.since.IsZero() {
		g.since = time.Now()
	}
	if time.Since(g.since) < g.silence {
		return g.state.State == ready
	}
	g.stopLocked(parked, "answers nobody: "+reason, 0)
	return false
}

// stop ends sending for what the sink answered: Throttled, Parked or Held. Where
// nobody knows for how long, the sink is probed.
func (g *gate) stop(res sinks.Result) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if res.Status == 0 && g.state.State != ready {
		return // not sent, for a reason that the state tells better
	}
	switch res.Class {
	case sinks.Throttled:
		g.stopLocked(throttled, reasonOf(res), max(res.RetryAfter, time.Second))
	case sinks.Parked:
		g.stopLocked(parked, reasonOf(res), res.RetryAfter)
	default:
		g.stopLocked(held, heldFor(g.sink, res), 0)
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

func (g *gate) stopLocked(state, reason string, wait time.Duration) {
	if g.state.State == stopped || (g.state.State == held && state != held) {
		return
	}
	if g.state.State == state && g.probing && wait == 0 {
		return // the probe is under way already
	}
	if wait > 0 && time.Until(g.state.Until) > wait+time.Second {
		return // it waits for longer already
	}
	g.probing = wait == 0
	if g.probing {
		g.every = g.firstProbe
		wait = g.every
	}
	g.state = ledger.SinkState{State: state, Reason: reason, Until: time.Now().Add(wait)}
	g.notify()
}

// obey does what a person has asked for: "stop" or "resume".
func (g *gate) obey(asked string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.since, g.probing = time.Time{}, false
	g.state = ledger.SinkState{State: ready}
	if asked == "stop" {
		g.state = ledger.SinkState{State: stopped, Reason: "by command"}
	}
	g.notify()
}

// hurry lets a sink that waits for a probe be probed now: the credentials may be new.
func (g *gate) hurry() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.probing && g.state.State != ready {
		g.every, g.state.Until = g.firstProbe, time.Now()
		g.notify()
	}
}

func (g *gate) notify() {
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// load takes over the stored state.
func (g *gate) load(ctx context.Context) error {
	s, err := g.ledger.SinkState(ctx, g.sink)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state = s
	if s.State == held || (s.State == parked && s.Until.IsZero()) {
		g.probing, g.every = true, g.firstProbe
		g.state.Until = time.Now()
	}
	g.notify()
	return nil
}

// run stores each change of state, pauses and resumes the queue, and ends stops
// by time or by probe, until ctx ends.
func (g *gate) run(ctx context.Context) {
	var stored ledger.SinkState // what the database and the queue know of
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		g.mu.Lock()
		s, probing := g.state, g.probing
		g.mu.Unlock()
		wait := time.Hour
		if !s.Until.IsZero() {
			wait = max(time.Until(s.Until), 0)
		}
		if s != stored {
			switch err := g.apply(ctx, s, stored.State != ""); {
			case err == nil:
				g.tell(stored, s)
				stored = s
			case errors.Is(err, errNoQueue):
				wait = min(wait, 50*time.Millisecond)
			default:
				g.log.Warn("the state of the sink could not be stored", "sink", g.sink, "err", err)
				wait = min(wait, time.Second)
			}
		}
		retry.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-g.changed:
			continue
		case <-retry.C:
		}
		if s.State == ready || s.Until.IsZero() || time.Until(s.Until) > 0 {
			continue
		}
		if probing {
			if answer := g.probe(ctx); answer.Class != sinks.OK {
				g.again(answer, s.Until)
				continue
			}
		}
		g.open()
	}
}

// tell logs a change of state.
func (g *gate) tell(before, now ledger.SinkState) {
	switch {
	case now.State == before.State && now.Reason == before.Reason:
	case now.State != ready:
		g.log.Warn("sink "+now.State, "sink", g.sink, "reason", now.Reason, "until", now.Until)
	case before.State != "":
		g.log.Info("sink ready again", "sink", g.sink)
	}
}

// again puts off the next probe, each time longer, unless somebody has asked for
// another since the one that was due.
func (g *gate) again(answer sinks.Result, due time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.state.Until.Equal(due) {
		return
	}
	g.every = min(g.every*2, lastProbe)
	g.state.Until = time.Now().Add(max(g.every, answer.RetryAfter))
	g.log.Info("probe failed", "sink", g.sink, "class", answer.Class, "status", answer.Status, "next", g.every)
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state, g.probing, g.since = ledger.SinkState{State: ready}, false, time.Time{}
}

// apply makes the stored state and the queue follow. Where the sink has been
// stopped before, its jobs need not wait for their time any more.
func (g *gate) apply(ctx context.Context, s ledger.SinkState, wake bool) error {
	store := s
	if s.State == held {
		store.Until = time.Time{}
	}
	if err := g.ledger.SetSinkState(ctx, g.sink, store); err != nil {
		return err
	}
	if s.State != ready {
		return g.pause(ctx)
	}
	if err := g.resume(ctx); err != nil || !wake {
		return err
	}
	if _, err := g.ledger.Wake(ctx, g.sink); err != nil {
		return fmt.Errorf("wake jobs: %w", err)
	}
	return nil
}
