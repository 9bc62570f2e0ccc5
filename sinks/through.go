package sinks

import (
	"sync"
	"time"
)

// through writes rows of a target that cannot upsert, or update by key: it looks
// the record up first. A search that fails creates nothing.
func (w *writing) through(wanted Operation, units []*unit) {
	for _, u := range units {
		name := u.identity(w.s, nil)
		op, u := w.lookUp(wanted, name, u)
		if op == "" {
			continue
		}
		if way, _ := w.s.desc.way(op, u); way == nil || way.through {
			w.out[u.at] = outcome{Result: Result{Class: Rejected, Code: "unsupported", Message: unsupported(op)}}
			continue
		}
		w.send(op, []*unit{u})
		o := &w.out[u.at]
		if o.Class == OK && o.ID == "" {
			o.ID = u.row.ID
		}
		if op == Create && (o.Class == OK || o.Sent) {
			w.s.recent.note(name, o.ID, w.s.now().Add(w.s.desc.findLag))
		}
	}
}

// lookUp tells what to do with a row, and gives it the id that was found; "" where
// it has its outcome already.
func (w *writing) lookUp(wanted Operation, name string, u *unit) (Operation, *unit) {
	switch {
	case u.row.ID != "":
		return Update, u
	case u.row.Key == "":
		w.out[u.at] = outcome{Result: Result{Class: Rejected, Code: "no_key", Message: "the row has no key to look for"}}
		return "", u
	}
	id, wait := w.s.recent.made(name, w.s.now())
	switch {
	case wait > 0 && id == "":
		w.out[u.at] = outcome{Result: Result{Class: Unavailable, Code: unsettled, RetryAfter: wait,
			Message: "not sent: an earlier request may have made the record, and a search does not show it yet"}}
		return "", u
	case wait <= 0:
		w.send(Find, []*unit{u})
		found := &w.out[u.at]
		switch {
		case found.Absent && wanted == Upsert:
			return Create, u
		case found.Class != OK:
			found.Sent = false
			return "", u
		}
		id = found.ID
	}
	row := *u.row
	row.ID = id
	return Update, &unit{row: &row, at: u.at, omit: u.omit, bare: u.bare}
}

// unsettled is the code of a row that is not sent, since a search would not show
// what a request before it may have made.
const unsettled = "unsettled"

// recent remembers records created too recently for the CRM's search to show. Searching
// for one now would lead to a duplicate.
type recent struct {
	mu sync.Mutex
	by map[string]lately
}

type lately struct {
	id    string // "" where nobody knows whether it was made
	until time.Time
}

func (r *recent) note(name, id string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = map[string]lately{}
	}
	r.by[name] = lately{id, until}
}

// made returns the id of such a record, and how long a search may still miss it.
// It forgets those that a search shows by now.
func (r *recent) made(name string, now time.Time) (id string, wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for other, l := range r.by {
		if !now.Before(l.until) {
			delete(r.by, other)
		}
	}
	l := r.by[name]
	return l.id, l.until.Sub(now)
}
