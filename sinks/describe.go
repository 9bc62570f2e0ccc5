package sinks

import (
	"slices"
	"time"

	"partnersync/internal/secret"
)

// Secrets are the secrets of the description, to be hidden in texts that come from elsewhere.
func (d *Description) Secrets() []secret.String { return slices.Clone(d.secrets) }

// LeastTime is the least time that writing so many rows takes under the limits
// of the target, each request full.
func (d *Description) LeastTime(rows int64) time.Duration {
	most := int64(1)
	for _, o := range d.operations[Upsert] {
		most = max(most, int64(o.rows))
	}
	requests := (rows + most - 1) / most
	var least time.Duration
	for _, l := range d.limits {
		if len(l.Operations) == 0 || slices.Contains(l.Operations, Upsert) {
			least = max(least, time.Duration(float64(requests)/float64(l.Requests)*float64(l.Per)))
		}
	}
	return least
}

// Whole reports whether every request carries all that is wanted of a record,
// not just what has changed.
func (s *Sink) Whole() bool { return s.desc.values.Whole }

// Repeatable reports whether the operation may be sent twice without harm.
func (s *Sink) Repeatable(op Operation) bool {
	ways := s.desc.operations[op]
	return len(ways) > 0 && !slices.ContainsFunc(ways, func(o *operation) bool { return !o.repeatable })
}
