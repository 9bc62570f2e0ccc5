package sinks

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"partnersync/internal/diag"
)

// limitRule is a number of requests that the target takes per period. They
// are spread over it: burst at once, the rest at an even pace, so that no
// window of that length ever sees more than requests.
type limitRule struct {
	Requests   int           `yaml:"requests,required"`
	Per        time.Duration `yaml:"per,required"`
	Burst      int           `yaml:"burst"` // a fifth where it is not set
	Operations []Operation   `yaml:"operations,single"`
	Told       *toldLimit    `yaml:"told"`
}

// toldLimit names the headers in which the target tells the limit that it holds us
// to. It is not heeded where several limits count a request: nobody knows then
// which of them is meant.
type toldLimit struct {
	Requests string `yaml:"requests,required"`
	Per      string `yaml:"per"`  // as the description says where it is not set
	Unit     string `yaml:"unit"` // of the number there: s (the default) or ms
}

// DecodeNode reads a rule and refuses one that lets nothing through.
func (l *limitRule) DecodeNode(n diag.Node, d *diag.Decoding) {
	type plain limitRule
	before := len(d.Problems)
	d.Decode(n, (*plain)(l))
	if len(d.Problems) == before && (l.Requests < 1 || l.Per <= 0 || l.Burst < 0) {
		d.Errorf(n, "", "a limit needs at least one request and a period")
	}
	checkOperations(l.Operations, n.Get("operations"), d, List)
	if l.Told != nil && l.Told.Unit != "" && l.Told.Unit != "s" && l.Told.Unit != "ms" {
		d.Errorf(n.Get("told").Get("unit"), "one of: s, ms", "unknown unit %q", l.Told.Unit)
	}
}

// told is the limit as an answer tells it; false where it says nothing else than
// what is known, or nothing that could be.
func (l *limitRule) told(a *answer) (limitRule, bool) {
	now := *l
	if l.Told == nil {
		return now, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(a.header.Get(l.Told.Requests)))
	if err != nil || n < 1 || n > 1e6 {
		return now, false
	}
	now.Requests = n
	if l.Told.Per != "" {
		unit := time.Second
		if l.Told.Unit == "ms" {
			unit = time.Millisecond
		}
		n, err := strconv.Atoi(strings.TrimSpace(a.header.Get(l.Told.Per)))
		if err != nil || n < 1 || n > int(longest/unit) {
			return now, false
		}
		now.Per = time.Duration(n) * unit
	}
	return now, now.Requests != l.Requests || now.Per != l.Per
}

// pace is how fast the limit lets requests through, and how many at once.
func (l *limitRule) pace() (every rate.Limit, burst int) {
	burst = min(cmp.Or(l.Burst, max(l.Requests/5, 1)), l.Requests)
	return rate.Limit(float64(max(l.Requests-burst, 1)) / l.Per.Seconds()), burst
}

// report is a header in which the target tells what is left: at or below that
// number nothing is sent for a while.
type report struct {
	Remaining string `yaml:"remaining,required"` // the header
	Below     int    `yaml:"below"`              // 0: when nothing is left
	Wait      *wait  `yaml:"wait,required"`
}

// patience is the longest wait inside Write; who has to wait longer is told so.
const patience = 2 * time.Second

// limiter holds the requests of one sink to its limits.
type limiter struct {
	slots   chan struct{}
	rates   []pace
	budget  *budget // nil where there is none
	now     func() time.Time
	waited  func(reason string, d time.Duration)
	part    float64 // of the limits that this sink may use
	mu      sync.Mutex
	blocked time.Time // nothing is sent before
}

type pace struct {
	operations []Operation
	limiter    *rate.Limiter
	rule       limitRule // as it is now; guarded by the limiter's mu
}

// counts reports whether the limit counts an operation.
func (p *pace) counts(op Operation) bool {
	return p.operations == nil || slices.Contains(p.operations, op)
}

func newLimiter(rules []limitRule, day *budget, concurrency int, now func() time.Time, waited func(string, time.Duration)) *limiter {
	l := &limiter{slots: make(chan struct{}, concurrency), budget: day, now: now, waited: waited, part: 1}
	for _, r := range rules {
		l.rates = append(l.rates, pace{r.Operations, rate.NewLimiter(r.pace()), r})
	}
	return l
}

// share leaves a part of the limits to others. It is called before anything is sent.
func (l *limiter) share(part float64) {
	if part <= 0 || part >= 1 {
		return
	}
	l.part = part
	for i := range l.rates {
		l.rates[i].limiter = rate.NewLimiter(l.paceOf(l.rates[i].rule))
	}
	if l.budget != nil {
		l.budget.others = 1 - part
	}
}

// paceOf is the pace of a rule, as far as it is ours.
func (l *limiter) paceOf(r limitRule) (every rate.Limit, burst int) {
	every, burst = r.pace()
	return every * rate.Limit(l.part), max(int(float64(burst)*l.part), 1)
}

// refused tells how long somebody would have to wait, and for what.
type refused struct {
	wait   time.Duration
	reason string
	class  Class
}

// acquire waits for a free place and for the limits; release gives the place
// back. It does not wait longer than patience: then it returns how long it
// would take. The error is that of the context.
func (l *limiter) acquire(ctx context.Context, op Operation) (release func(), no *refused, err error) {
	if no := l.pause(); no != nil {
		return nil, no, nil
	}
	if wait := l.budget.exhausted(op, l.now()); wait > 0 {
		return nil, &refused{wait, "budget", Parked}, nil
	}
	started := l.now()
	select {
	case l.slots <- struct{}{}:
	default:
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case l.slots <- struct{}{}:
			l.waited("concurrency", l.now().Sub(started))
		case <-timer.C:
			l.waited("concurrency", patience)
			return nil, &refused{time.Second, "concurrency", Throttled}, nil
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	release = func() { <-l.slots }
	delay, reason, undo := l.reserve(op)
	if delay > patience {
		undo()
		release()
		return nil, &refused{delay, reason, Throttled}, nil
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			l.waited(reason, delay)
		case <-ctx.Done():
			undo()
			release()
			return nil, nil, ctx.Err()
		}
	}
	return release, nil, nil
}

// pause tells how long the target wants to be left alone. Even a short pause
// is handed back: who comes again then brings a fuller batch.
func (l *limiter) pause() *refused {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.blocked.Sub(l.now()); d > 0 {
		return &refused{d, "throttled", Throttled}
	}
	return nil
}

func (l *limiter) reserve(op Operation) (delay time.Duration, reason string, undo func()) {
	now := l.now()
	var taken []*rate.Reservation
	for i := range l.rates {
		p := &l.rates[i]
		if !p.counts(op) {
			continue
		}
		r := p.limiter.ReserveN(now, 1)
		taken = append(taken, r)
		delay = max(delay, r.DelayFrom(now))
	}
	l.budget.spend(op, now)
	return delay, "rate", func() {
		l.budget.refund(op, now)
		for _, r := range taken {
			r.CancelAt(now)
		}
	}
}

// block stops everything for d.
func (l *limiter) block(d time.Duration) {
	until := l.now().Add(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	if until.After(l.blocked) {
		l.blocked = until
	}
}

// heed reads what the target reports of its limits.
func (l *limiter) heed(d *Description, op Operation, a *answer) {
	l.budget.correct(a, l.now())
	l.adjust(op, a)
	for i := range d.reports {
		r := &d.reports[i]
		left, err := strconv.Atoi(a.header.Get(r.Remaining))
		if err != nil || left > r.Below {
			continue
		}
		if wait := r.Wait.duration(d, a, l.now()); wait > 0 {
			l.block(wait)
		}
	}
}

// adjust takes over the limit that the target tells, where it can only be one.
func (l *limiter) adjust(op Operation, a *answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var only *pace
	for i := range l.rates {
		p := &l.rates[i]
		if !p.counts(op) {
			continue
		}
		if only != nil {
			return
		}
		only = p
	}
	if only == nil {
		return
	}
	if r, changed := only.rule.told(a); changed {
		only.rule = r
		every, burst := l.paceOf(r)
		only.limiter.SetLimitAt(l.now(), every)
		only.limiter.SetBurstAt(l.now(), burst)
	}
}
