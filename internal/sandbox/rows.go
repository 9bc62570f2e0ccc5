package sandbox

import (
	"slices"
	"strings"
	"sync"
)

// Refusal makes rows fail with an error of the CRM's own, whatever else is right or wrong with them: a validation rule, a
// duplicate rule, a blueprint. Every condition that is set has to hold.
type Refusal struct {
	Dialect  string // empty: any
	Object   string // empty: any
	Property string // of rows that send Value for it; empty: any row
	Value    string
	Holder   string // an object: of rows whose value for Property one of its records holds, in place of Value
	Count    int    // that many rows; 0: without end

	Status  int // of the answer, in dialects whose answers are about one row; 0: 400
	Code    string
	Message string
	Field   string // that the error names
}

type activeRefusal struct {
	Refusal
	played int
}

// Refuse adds a refusal and returns what removes it.
func (s *Server) Refuse(r Refusal) (remove func()) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if r.Object != "" {
		r.Object = s.objectName(r.Dialect, r.Object)
	}
	a := &activeRefusal{Refusal: r}
	s.store.refusals = append(s.store.refusals, a)
	return func() {
		s.store.mu.Lock()
		defer s.store.mu.Unlock()
		s.store.refusals = slices.DeleteFunc(s.store.refusals, func(b *activeRefusal) bool { return a == b })
	}
}

// Lock locks a record, as another process or a person does: until unlock is called, writes to it are refused with the
// dialect's own error, which asks to try again.
func (s *Server) Lock(dialect, object, id string) (unlock func()) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	_, r := s.record(dialect, object, id)
	if r == nil {
		return func() {}
	}
	r.locked++
	open := true
	return func() {
		s.store.mu.Lock()
		defer s.store.mu.Unlock()
		if open {
			r.locked--
		}
		open = false
	}
}

// Hold has a property keep its value in records that are there, as an automation of the account does that puts back what it was:
// until release is called, writes of it are accepted and change nothing.
func (s *Server) Hold(dialect, object, property string) (release func()) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t := s.store.table(dialect, object)
	if t == nil {
		return func() {}
	}
	if t.held == nil {
		t.held = map[string]int{}
	}
	t.held[property]++
	return sync.OnceFunc(func() {
		s.store.mu.Lock()
		defer s.store.mu.Unlock()
		t.held[property] = max(t.held[property]-1, 0)
	})
}

// Merge merges a record into another as a person would: the other keeps its values and takes those that it lacks, and the
// first is gone. It reports whether there were both.
func (s *Server) Merge(dialect, object, from, into string) bool {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	t, loser := s.record(dialect, object, from)
	_, winner := s.record(dialect, object, into)
	if loser == nil || winner == nil || loser == winner {
		return false
	}
	now := s.options.Now()
	taken := map[string]any{}
	for name, value := range loser.properties {
		if _, has := winner.properties[name]; !has {
			taken[name] = value
		}
	}
	s.store.archive(t, loser, now)
	loser.into = winner.id
	s.store.update(t, winner, taken, now)
	return true
}

// refused returns the refusal that a row meets, or nil. The caller holds the store.
func (s *store) refused(t *table, sent map[string]any) *Refusal {
	for _, a := range s.refusals {
		if a.Count > 0 && a.played >= a.Count || a.Dialect != "" && a.Dialect != t.dialect || a.Object != "" && a.Object != t.object {
			continue
		}
		if a.Holder != "" {
			others := s.table(t.dialect, a.Holder)
			if v := text(sent[a.Property]); v == "" || others == nil || len(others.holders(a.Property, v)) == 0 {
				continue
			}
		} else if a.Property != "" && !holds(sent[a.Property], a.Value, strings.EqualFold) {
			continue
		}
		a.played++
		return &a.Refusal
	}
	return nil
}

// undo is a change that can be taken back, as a batch does that keeps all of its rows or none.
type undo struct {
	table  *table
	record *record
	before map[string]any // nil: the record was made
	shown  record         // its times and counts before
}

// note prepares to take back what is about to happen to a record.
func note(t *table, r *record) undo {
	return undo{table: t, record: r, before: r.copied(), shown: *r}
}

// takeBack makes changes not to have happened, the last first.
func (s *store) takeBack(changes []undo) {
	for _, u := range slices.Backward(changes) {
		for name := range u.record.properties {
			u.table.index(u.record, name, false)
		}
		if u.before == nil {
			delete(u.table.byID, u.record.id)
			u.table.rows = slices.DeleteFunc(u.table.rows, func(r *record) bool { return r == u.record })
			continue
		}
		*u.record = u.shown
		u.record.properties = u.before
		for name := range u.before {
			u.table.index(u.record, name, true)
		}
	}
}
