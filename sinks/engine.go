package sinks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Observer is told what a sink does. Its functions may be nil; they are called
// from several goroutines and must be quick.
type Observer struct {
	// Request is called after each request, with the class of the request as a whole.
	Request func(op Operation, class Class, status int, dur time.Duration, rows int)
	// Wait is called after each wait for a limit.
	Wait func(reason string, d time.Duration)
	// Tokens is called when the TokenStore fails; the sink goes on without it.
	Tokens func(err error)
}

// Options configure a Sink.
type Options struct {
	Observer  Observer
	Now       func() time.Time  // nil: time.Now
	Transport http.RoundTripper // nil: the sink's own; tests bring theirs
	Tokens    TokenStore        // nil: tokens are fetched anew after a restart
	Share     float64           // of the target's limits that the sink may use, beside another; 0: all
}

// Sink writes to one target. It is safe for concurrent use.
type Sink struct {
	desc     *Description
	client   *client
	auth     *authenticator
	limiter  *limiter
	observer Observer
	now      func() time.Time
	redactor redactor
	recent   recent
	groups   sync.Map // of fields that are there: "object\x00group"
}

// New returns a Sink. Who made it closes it.
func New(desc *Description, o Options) *Sink {
	s := &Sink{desc: desc, observer: o.Observer, now: o.Now}
	if s.now == nil {
		s.now = time.Now
	}
	s.redactor.learn(desc.secrets...)
	s.client = newClient(o.Transport, desc.parallel)
	s.auth = newAuthenticator(s, o)
	s.limiter = newLimiter(desc.limits, newBudget(desc), desc.parallel, s.now, func(reason string, d time.Duration) {
		if s.observer.Wait != nil {
			s.observer.Wait(reason, d)
		}
	})
	s.limiter.share(o.Share)
	return s
}

// Name is the sink's name in the config.
func (s *Sink) Name() string { return s.desc.Name }

// Description is what the sink was made of.
func (s *Sink) Description() *Description { return s.desc }

// Supports reports whether the sink has the operation.
func (s *Sink) Supports(op Operation) bool { return s.desc.Supports(op) }

// Close drops idle connections. Write must not be called after it.
func (s *Sink) Close() { s.client.close() }

// MaxRows is how many rows one request of the operation takes at most.
func (s *Sink) MaxRows(op Operation) int {
	most := 1
	for _, o := range s.desc.operations[op] {
		most = max(most, o.rows)
	}
	return most
}

// MaxRowsOf is how many rows of its group (see Group) one Write with the row should
// have at most: it may take another way of its operation than other rows do.
func (s *Sink) MaxRowsOf(row Row) int {
	op, _ := s.Group(row)
	if way, _ := s.desc.way(op, &unit{row: &row}); way != nil {
		return way.rows
	}
	return 1
}

// Concurrency is how many Writes may run at the same time.
func (s *Sink) Concurrency() int { return s.desc.parallel }

// BatchWait is how long a row may wait for others to share its request.
func (s *Sink) BatchWait() time.Duration { return s.desc.batch.Wait }

// Timeout is how long one request may take.
func (s *Sink) Timeout() time.Duration { return s.desc.timeout }

// Settle is how long a request may still take effect after it was given up.
func (s *Sink) Settle() time.Duration { return s.desc.settle }

// FindLag is how long a search may lag behind a create.
func (s *Sink) FindLag() time.Duration { return s.desc.findLag }

// Fold is the form of a key under which two keys of a property are the same.
func (s *Sink) Fold(property, key string) string { return s.desc.folds.fold(property, key) }

// Group tells which operation writes the row, and which rows may share a Write
// with it: those with the same operation and group. A row that names no
// operation is updated where its id is known and the target can, else upserted.
func (s *Sink) Group(row Row) (Operation, string) {
	op := row.Operation
	if op == "" {
		op = Upsert
		if row.ID != "" && s.Supports(Update) {
			op = Update
		}
	}
	_, group := s.desc.way(op, &unit{row: &row})
	return op, group
}

// GroupLink is Group for links; the operation is Link or Unlink.
func (s *Sink) GroupLink(row LinkRow) (Operation, string) {
	op := linkOperation(row)
	_, group := s.desc.way(op, &unit{link: &row})
	return op, group
}

func linkOperation(row LinkRow) Operation {
	if row.Remove {
		return Unlink
	}
	return Link
}

// Write carries out the operation for the rows and returns one result for
// each, in their order. It sends one request where the rows agree (see Group),
// are no more than MaxRowsOf, and the target refuses none of them as a batch. It
// waits up to two seconds for the limits of the target, and never retries what
// may have had an effect. A context that ends gives Network or Timeout.
func (s *Sink) Write(ctx context.Context, op Operation, rows []Row) []Result {
	units := make([]*unit, len(rows))
	for i := range rows {
		units[i] = &unit{row: &rows[i], at: i}
	}
	return s.run(ctx, op, units)
}

// Link makes and removes links, and returns one result for each row.
//
// Where a link takes the place of the former one (see Replaces), removals come
// first: they would undo what was made.
func (s *Sink) Link(ctx context.Context, rows []LinkRow) []Result {
	results := make([]Result, len(rows))
	order := []Operation{Link, Unlink}
	if s.desc.replaces() {
		order = []Operation{Unlink, Link}
	}
	for _, op := range order {
		var units []*unit
		var places []int
		for i := range rows {
			if linkOperation(rows[i]) == op {
				units = append(units, &unit{link: &rows[i], at: len(units)})
				places = append(places, i)
			}
		}
		if len(units) == 0 {
			continue
		}
		for i, r := range s.run(ctx, op, units) {
			results[places[i]] = r
		}
	}
	return results
}

// Find looks the rows up by their key. A result is OK with the ID, or Rejected
// and Absent where there is no such record.
func (s *Sink) Find(ctx context.Context, rows []Row) []Result { return s.Write(ctx, Find, rows) }

// Account tells which account the credentials are of, in the ID of the result: as the answer with the token has
// it, where that says so, else as Probe.
func (s *Sink) Account(ctx context.Context) Result {
	account, err := s.auth.account(ctx)
	switch {
	case err != nil:
		return s.refusedToken(ctx, err).Result
	case account != "":
		return Result{Class: OK, ID: account}
	}
	return s.Probe(ctx)
}

// Probe asks the target who we are, or where it cannot tell only whether it is
// there. The ID of the result is the account; it is empty where the credentials
// are good, but not for asking this: what they are good for only a write tells.
func (s *Sink) Probe(ctx context.Context) Result {
	if ways := s.desc.operations[WhoAmI]; len(ways) > 0 {
		a, res := s.ask(ctx, ways[0], &unit{row: &Row{}}, page{number: 1})
		if a != nil && res.Class == Held && s.desc.forbids(a) {
			res = Result{Class: OK, Status: res.Status, RequestID: res.RequestID}
		}
		if account, err := s.auth.account(ctx); res.Class == OK && err == nil && account != "" {
			res.ID = account
		}
		return res
	}
	o := &operation{name: WhoAmI, method: http.MethodHead, repeatable: true, outline: &outline{}}
	req, _ := s.desc.render(o, nil)
	a, v, fail := s.transact(ctx, req)
	switch {
	case fail != nil:
		return fail.Result
	case a.status < 500 && v.class != Held && v.class != Throttled && v.class != Parked:
		return Result{Class: OK, Status: a.status}
	}
	return Result{Class: v.class, Status: a.status, RetryAfter: v.wait, Message: s.clean(describe(a))}
}

// Preview returns the requests that Write would send first, without sending
// anything. The error says why a row cannot be written.
func (s *Sink) Preview(op Operation, rows []Row) ([]Preview, error) {
	units := make([]*unit, len(rows))
	for i := range rows {
		units[i] = &unit{row: &rows[i], at: i}
	}
	return s.preview(op, units)
}

// PreviewLinks is Preview for Link.
func (s *Sink) PreviewLinks(rows []LinkRow) ([]Preview, error) {
	var out []Preview
	for _, op := range []Operation{Link, Unlink} {
		var units []*unit
		for i := range rows {
			if linkOperation(rows[i]) == op {
				units = append(units, &unit{link: &rows[i], at: i})
			}
		}
		if len(units) == 0 {
			continue
		}
		some, err := s.preview(op, units)
		if err != nil {
			return out, err
		}
		out = append(out, some...)
	}
	return out, nil
}

func (s *Sink) preview(op Operation, units []*unit) ([]Preview, error) {
	var out []Preview
	for _, p := range s.parts(op, units) {
		if p.way == nil {
			return out, errors.New(unsupported(op))
		}
		if p.way.through {
			first, rest := Find, p.units
			if rest[0].row.ID != "" {
				first = Update
			}
			if way, _ := s.desc.way(first, rest[0]); way != nil && way.through {
				return out, errors.New(unsupported(first))
			}
			some, err := s.preview(first, rest)
			if err != nil {
				return out, err
			}
			out = append(out, some...)
			continue
		}
		req, failed := s.desc.render(p.way, p.units)
		for _, u := range p.units {
			if err := failed[u]; err != nil {
				return out, errors.New(s.clean(reason(err)))
			}
		}
		s.auth.show(req.header)
		for name, values := range req.header {
			for i := range values {
				req.header[name][i] = s.redactor.Redact(values[i])
			}
		}
		out = append(out, Preview{op, req.method, s.redactor.Redact(req.url), req.header, req.body, len(p.units)})
	}
	return out, nil
}

func unsupported(op Operation) string { return "the sink has no operation " + string(op) }

// way picks the way of an operation that a row takes, and the group of the row.
func (d *Description) way(op Operation, u *unit) (*operation, string) {
	return d.wayAmong(d.operations[op], op, u)
}

func (d *Description) wayAmong(ways []*operation, op Operation, u *unit) (*operation, string) {
	var r *rendering // most rows need none
	value := func(l *leaf) any {
		if l.plain != nil {
			return l.plain(u)
		}
		if r == nil {
			r = &rendering{d: d, op: op, units: []*unit{u}}
		}
		v, err := l.value(r, u, nil)
		if err != nil {
			return nil // the rendering says so
		}
		return v
	}
	for i, o := range ways {
		if o.when != nil && value(o.when) != true {
			continue
		}
		var space [96]byte
		group := append(space[:0], byte('0'+i))
		for _, l := range o.shared {
			v := value(l)
			text, _ := textOf(v)
			if list, isList := v.([]any); isList {
				text = fmt.Sprint(list...)
			}
			group = append(append(group, 0), text...)
		}
		return o, string(group)
	}
	return nil, ""
}
