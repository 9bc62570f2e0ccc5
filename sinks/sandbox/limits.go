package sandbox

import (
	"strings"
	"sync"
	"time"
)

// Limit is one rate limit of a dialect.
type Limit struct {
	Dialect  string
	Policy   string // the dialect's name for it, told when it is exceeded
	Path     string // counts requests whose path holds this; empty: all
	Requests int
	Per      time.Duration // up to a minute a rolling window, above it fixed windows from midnight UTC
}

// limits counts requests. A request that is refused is not charged.
type limits struct {
	mu     sync.Mutex
	counts []*count
}

// allowance is a limit and what is left of it.
type allowance struct {
	Limit
	remaining int
}

type count struct {
	Limit
	times []time.Time // rolling: those within the window
	start time.Time   // fixed: of the window
	n     int
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
		c.times, c.n = nil, 0
	}
}

// take charges a request to every limit that counts it, or to none when one of them refuses. It returns those limits with
// what is left of each, or the one that refuses.
func (l *limits) take(dialect, path string, now time.Time) (left []allowance, refused *Limit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.counts {
		if c.counts(dialect, path) && c.used(now) >= c.Requests {
			return nil, &c.Limit
		}
	}
	for _, c := range l.counts {
		if c.counts(dialect, path) {
			c.charge(now)
			left = append(left, allowance{Limit: c.Limit, remaining: c.Requests - c.used(now)})
		}
	}
	return left, nil
}

func (c *count) counts(dialect, path string) bool {
	return c.Dialect == dialect && strings.Contains(path, c.Path)
}

func (c *count) rolling() bool { return c.Per <= time.Minute }

func (c *count) used(now time.Time) int {
	if c.rolling() {
		for len(c.times) > 0 && !c.times[0].After(now.Add(-c.Per)) {
			c.times = c.times[1:]
		}
		return len(c.times)
	}
	if start := now.UTC().Truncate(c.Per); !start.Equal(c.start) {
		c.start, c.n = start, 0
	}
	return c.n
}

func (c *count) charge(now time.Time) {
	if c.rolling() {
		c.times = append(c.times, now)
		return
	}
	c.n++
}
