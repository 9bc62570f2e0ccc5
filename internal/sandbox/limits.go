package sandbox

import (
	"strings"
	"sync"
	"time"
)

// Limit is one rate limit of a dialect.
type Limit struct {
	Dialect    string
	Policy     string // the dialect's name for it, told when it is exceeded
	Path       string // counts requests whose path holds this; empty: all
	Only       string // counts "reads" or "writes" alone; empty: both
	Requests   int
	Per        time.Duration // up to a minute a rolling window, above it fixed windows from midnight UTC
	Rolling    bool          // a rolling window though it is longer
	Weighed    bool          // counts what requests cost in the dialect's own units in the place of their number
	Concurrent bool          // counts requests under way; Per means nothing
}

// limits counts requests. A request that is refused is not charged.
type limits struct {
	mu     sync.Mutex
	counts []*count
}

// usage is what the limits need to know of a request.
type usage struct {
	dialect, path string
	cost          int // 0: nothing counts it
	writes        bool
}

// allowance is a limit and what is left of it.
type allowance struct {
	Limit
	remaining int
	reset     time.Duration // until something is free again, or the window ends
}

type count struct {
	Limit
	charges []charge // rolling: those within the window
	start   time.Time
	n       int
}

type charge struct {
	at time.Time
	n  int
}

func (l *limits) set(all []Limit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts = nil
	for _, one := range all {
		l.counts = append(l.counts, &count{Limit: one})
	}
}

func (l *limits) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.counts {
		if !c.Concurrent {
			c.charges, c.n = nil, 0
		}
	}
}

// enter counts a request as under way until leave is called, or returns the limit that refuses it.
func (l *limits) enter(u usage) (leave func(), refused *allowance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var in []*count
	for _, c := range l.counts {
		if !c.Concurrent || !c.counts(u) {
			continue
		}
		if c.n >= c.Requests {
			return nil, &allowance{Limit: c.Limit, reset: time.Second}
		}
		in = append(in, c)
	}
	for _, c := range in {
		c.n++
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, c := range in {
			c.n--
		}
	}, nil
}

// take charges a request to every limit that counts it, or to none when one of them refuses. It returns those limits with
// what is left of each, or the one that refuses.
func (l *limits) take(u usage, now time.Time) (left []allowance, refused *allowance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.counts {
		if !c.Concurrent && c.counts(u) && c.used(now)+c.price(u) > c.Requests {
			return nil, &allowance{Limit: c.Limit, reset: c.reset(now)}
		}
	}
	for _, c := range l.counts {
		if !c.Concurrent && c.counts(u) {
			c.charge(now, c.price(u))
			left = append(left, allowance{Limit: c.Limit, remaining: c.Requests - c.used(now), reset: c.reset(now)})
		}
	}
	return left, nil
}

func (c *count) counts(u usage) bool {
	return c.Dialect == u.dialect && u.cost > 0 && strings.Contains(u.path, c.Path) &&
		(c.Only == "" || (c.Only == "writes") == u.writes)
}

func (c *count) price(u usage) int {
	if c.Weighed {
		return u.cost
	}
	return 1
}

func (c *count) rolling() bool { return c.Rolling || c.Per <= time.Minute }

func (c *count) used(now time.Time) int {
	if !c.rolling() {
		if start := now.UTC().Truncate(c.Per); !start.Equal(c.start) {
			c.start, c.n = start, 0
		}
		return c.n
	}
	for len(c.charges) > 0 && !c.charges[0].at.After(now.Add(-c.Per)) {
		c.n -= c.charges[0].n
		c.charges = c.charges[1:]
	}
	return c.n
}

func (c *count) charge(now time.Time, n int) {
	c.n += n
	if c.rolling() {
		c.charges = append(c.charges, charge{now, n})
	}
}

func (c *count) reset(now time.Time) time.Duration {
	switch {
	case !c.rolling():
		return c.start.Add(c.Per).Sub(now)
	case len(c.charges) > 0:
		return c.charges[0].at.Add(c.Per).Sub(now)
	}
	return c.Per
}

// seconds rounds a wait up to whole seconds, at least one.
func seconds(d time.Duration) int {
	return max(1, int((d+time.Second-1)/time.Second))
}
