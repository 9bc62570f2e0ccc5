package sinks

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"partnersync/internal/tracing"
)

// writing is one Write on its way.
type writing struct {
	s       *Sink
	ctx     context.Context
	out     []outcome
	stopped *outcome // set once the target as a whole does not take requests
}

// part are rows that one request takes.
type part struct {
	way   *operation
	units []*unit
	wave  int
}

func (s *Sink) run(ctx context.Context, op Operation, units []*unit) []Result {
	w := &writing{s: s, ctx: ctx, out: make([]outcome, len(units))}
	current := units
	w.send(op, w.fit(op, current))
	for {
		var again []*unit
		for i, u := range current {
			o := &w.out[u.at]
			switch {
			case o.Class == Rejected && u.optional(o.Fields):
				current[i] = u.without(o.Fields)
			case o.Class == Rejected && o.unlink && u.dispensable():
				current[i] = u.unlinked()
			default:
				continue
			}
			again = append(again, current[i])
		}
		if len(again) == 0 {
			break
		}
		w.send(op, again)
	}
	results := make([]Result, len(units))
	for _, u := range current {
		o := &w.out[u.at]
		results[u.at] = o.Result
		results[u.at].Dropped = slices.Sorted(maps.Keys(u.omit))
		results[u.at].Unlinked = o.Class == OK && u.bare || o.Class == Rejected && o.unlink
		if op == Search || op == Read {
			results[u.at].Sent = false // there is no effect that it might have
		}
	}
	return results
}

// fit leaves out links that the operation cannot take along, and returns the rows
// to send: not those that are worth nothing without such a link.
func (w *writing) fit(op Operation, units []*unit) []*unit {
	if !slices.ContainsFunc(units, (*unit).linked) {
		return units
	}
	byID, byKey := w.s.desc.CarriesLinks(op)
	sent := make([]*unit, 0, len(units))
	for i, u := range units {
		cannot := func(l RowLink) bool {
			return (l.ID == "" || !byID) && (l.ID != "" || l.Key == "" || !byKey)
		}
		if !u.linked() || !slices.ContainsFunc(u.row.Links, cannot) {
			sent = append(sent, u)
			continue
		}
		if slices.ContainsFunc(u.row.Links, func(l RowLink) bool { return l.Required && cannot(l) }) {
			w.out[u.at] = outcome{unlink: true, Result: Result{
				Class: Rejected, Code: "link", Message: "a link that the row needs cannot be sent along with it",
			}}
			continue
		}
		row := *u.row
		row.Links = slices.DeleteFunc(slices.Clone(row.Links), cannot)
		units[i] = &unit{row: &row, at: u.at, omit: u.omit, bare: true}
		sent = append(sent, units[i])
	}
	return sent
}

// dispensable reports whether the row is worth something without its links.
func (u *unit) dispensable() bool {
	return u.linked() && !slices.ContainsFunc(u.row.Links, func(l RowLink) bool { return l.Required })
}

// optional reports whether every refused field may be left out.
func (u *unit) optional(fields []string) bool {
	if u.row == nil || len(fields) == 0 {
		return false
	}
	for _, f := range fields {
		if _, has := u.row.Values[f]; !has || u.omit[f] || !slices.Contains(u.row.Optional, f) {
			return false
		}
	}
	return true
}

// send sends rows of any group, in as many requests as it takes.
func (w *writing) send(op Operation, units []*unit) {
	for _, p := range w.s.parts(op, units) {
		switch {
		case p.way == nil:
			for _, u := range p.units {
				w.out[u.at] = outcome{Result: Result{Class: Rejected, Code: "unsupported", Message: unsupported(op)}}
			}
		case p.way.through:
			w.through(op, p.units)
		default:
			w.request(p.way, p.units)
		}
	}
}

// parts sorts rows into requests. The later of two rows with the same key goes
// into a later request: targets refuse both, or keep either.
func (s *Sink) parts(op Operation, units []*unit) []part {
	var parts []part
	open := map[string]int{}
	seen := map[string]int{}
	for _, u := range units {
		way, group := s.desc.way(op, u)
		wave := 0
		if name := u.identity(s, way); name != "" && op != Search {
			wave = seen[name]
			seen[name]++
		}
		if wave > 0 {
			group += "\x00wave" + strconv.Itoa(wave)
		}
		i, ok := open[group]
		if !ok || way == nil || len(parts[i].units) >= way.rows {
			i = len(parts)
			parts = append(parts, part{way: way, wave: wave})
			open[group] = i
		}
		parts[i].units = append(parts[i].units, u)
	}
	slices.SortStableFunc(parts, func(a, b part) int { return a.wave - b.wave })
	return parts
}

// identity is the same for rows of the same record; "" where it is not known.
func (u *unit) identity(s *Sink, way *operation) string {
	switch {
	case u.link != nil && way != nil && (way.replaces != nil || way.name == Unlink && s.desc.replaces()):
		return u.link.From.Object + "\x00id\x00" + u.link.From.ID // such a link is a field of that record
	case u.row == nil:
		return ""
	case u.row.ID != "":
		return u.row.Object + "\x00id\x00" + u.row.ID
	case u.row.Key != "":
		return u.row.Object + "\x00" + u.row.Property + "\x00" + s.Fold(u.row.Property, u.row.Key)
	}
	return ""
}

// request sends rows in one request, parts them where the target refuses the
// batch, and reports whether all were taken.
func (w *writing) request(way *operation, units []*unit) bool {
	if w.stopped != nil {
		for _, u := range units {
			w.out[u.at] = *w.stopped
		}
		return false
	}
	if way.size > 0 && len(units) > 1 {
		if req, _ := w.s.desc.render(way, units); req != nil && way.tooLarge(req) {
			return w.part(way, units)
		}
	}
	clean := true
	var split, again []*unit
	for i, o := range w.s.exchange(w.ctx, way, units) {
		u := units[i]
		if len(o.doubted) > 0 {
			o = w.verify(way.name, u, o)
		}
		switch {
		case o.crowded:
			return w.part(way, units)
		case o.again:
			again = append(again, u)
		case o.Class == Split && len(units) == 1:
			o.Class = Rejected
		case o.Class == Split:
			split = append(split, u)
		case o.stop && w.stopped == nil:
			w.stopped = &outcome{Result: o.Result}
			w.stopped.Sent = false
		}
		clean = clean && o.Class == OK
		w.out[u.at] = o
	}
	if len(again) > 0 {
		w.request(way, again)
	}
	if len(split) > 0 {
		w.halve(way, split)
	}
	return clean
}

// part sends the rows in two requests: none of them is to blame.
func (w *writing) part(way *operation, units []*unit) bool {
	left := w.request(way, units[:len(units)/2])
	right := w.request(way, units[len(units)/2:])
	return left && right
}

// errTooLarge is the error of a row that does not fit into a request of its own.
var errTooLarge = errors.New("it would be larger than the target takes")

// tooLarge reports whether a request is larger than the target takes.
func (o *operation) tooLarge(r *request) bool { return o.size > 0 && len(r.url)+len(r.body) > o.size }

// halve parts rows of which one at least is refused. Where the first half is
// taken whole the bad row is in the second, which need not be tried as it is.
func (w *writing) halve(way *operation, units []*unit) {
	if len(units) == 1 {
		w.request(way, units)
		return
	}
	left, right := units[:len(units)/2], units[len(units)/2:]
	if w.request(way, left) {
		w.halve(way, right)
		return
	}
	w.request(way, right)
}

// exchange sends one request and returns an outcome for each row.
func (s *Sink) exchange(ctx context.Context, way *operation, units []*unit) []outcome {
	req, failed := s.desc.render(way, units)
	var sent []outcome
	if req != nil {
		sent = s.carry(ctx, req)
		if len(failed) == 0 {
			return sent
		}
	}
	out := make([]outcome, 0, len(units))
	for _, u := range units {
		if err := failed[u]; err != nil {
			var link *linkError
			out = append(out, outcome{unlink: errors.As(err, &link), Result: Result{
				Class: Rejected, Code: "request", Message: s.clean(reason(err)),
			}})
			continue
		}
		out = append(out, sent[0])
		sent = sent[1:]
	}
	return out
}

// carry sends a rendered request and reads the outcomes of its rows.
func (s *Sink) carry(ctx context.Context, req *request) []outcome {
	a, v, fail := s.transact(ctx, req)
	if fail == nil {
		return s.read(req.op, req.units, a, v)
	}
	out := make([]outcome, len(req.units))
	for i := range out {
		out[i] = *fail
	}
	return out
}

// transact waits for the limits, sends the request, and judges the answer. The
// outcome is there when there is no answer to judge.
func (s *Sink) transact(ctx context.Context, req *request) (*answer, verdict, *outcome) {
	op := req.op.name
	release, no, err := s.limiter.acquire(ctx, op)
	if err != nil {
		return nil, verdict{}, &outcome{stop: true, Result: Result{Class: unsent(err), Code: "stopped", Message: "stopped before it was sent"}}
	}
	if no != nil {
		return nil, verdict{}, &outcome{stop: true, Result: Result{
			Class: no.class, Code: no.reason, RetryAfter: no.wait, Message: "not sent: the limits of the target are used up",
		}}
	}
	defer release()
	again := false // see answer; a new token does not end the doubt
	for renewed := false; ; renewed = true {
		header := req.header.Clone()
		token, base, err := s.auth.apply(ctx, header)
		if err != nil {
			fail := s.refusedToken(ctx, err)
			fail.Sent = again
			s.observe(req, fail.Class, fail.Status, 0)
			return nil, verdict{}, &fail
		}
		started := time.Now()
		calling, span := tracing.Request(ctx, tracing.Call{
			Sink: s.desc.Name, Operation: string(op), Method: req.method, Host: s.desc.base.host, Rows: len(req.units),
		})
		a, fail := s.try(calling, req, header, base)
		took := time.Since(started)
		if a != nil {
			a.units = req.units
			again = again || a.again
			a.again = again
		}
		if fail != nil {
			fail.Sent = fail.Sent || again
			span.Answered(string(fail.Class), true, fail.Status)
			s.observe(req, fail.Class, fail.Status, took)
			return nil, verdict{}, fail
		}
		v := s.desc.judge(op, a, s.now())
		v.wait = s.pauseOf(v)
		span.Answered(string(v.class), v.class != OK, a.status)
		s.observe(req, v.class, a.status, took)
		if s.desc.auth.renewable() && !renewed && v.renews(a.status) {
			s.auth.forget(token)
			continue
		}
		s.limiter.heed(s.desc, op, a)
		if v.class == Throttled {
			s.limiter.block(v.wait)
		}
		return a, v, nil
	}
}

// Waits where neither the answer nor the rules tell one.
const (
	defaultThrottle = 10 * time.Second
	defaultPark     = 15 * time.Minute
)

func (s *Sink) pauseOf(v verdict) time.Duration {
	switch {
	case v.class == Throttled && v.wait <= 0:
		return defaultThrottle
	case v.class == Parked && v.wait <= 0:
		return defaultPark
	}
	return v.wait
}

func (s *Sink) observe(req *request, class Class, status int, took time.Duration) {
	if s.observer.Request != nil {
		s.observer.Request(req.op.name, class, status, took, len(req.units))
	}
}

// try sends the request once and reads the answer.
func (s *Sink) try(ctx context.Context, req *request, header http.Header, base string) (*answer, *outcome) {
	// The timer of a process that was frozen meanwhile may not have gone off yet.
	if over, ok := ctx.Deadline(); ok && !time.Now().Before(over) {
		return nil, &outcome{stop: true, Result: Result{Class: Timeout, Code: "stopped", Message: "stopped before it was sent"}}
	}
	ctx, cancel := context.WithTimeout(ctx, s.desc.timeout)
	defer cancel()
	target, host := req.url, s.desc.base.host
	if other, ok := parseAddress(base); ok {
		target, host = other.origin+req.url[len(s.desc.base.origin):], other.host
	}
	if s.desc.sign != nil {
		s.desc.sign.sign(header, req.body, req.id, s.now())
	}
	ex := &exchange{repeatable: req.op.repeatable, spend: func() { s.limiter.reserve(req.op.name) }}
	tracing.Inject(ctx, header)
	resp, err := s.client.do(ctx, req.method, target, header, req.body, ex)
	if err != nil {
		wrote := ex.wrote.Load()
		return nil, &outcome{stop: true, Result: Result{
			Class: unsent(err), Sent: wrote, Message: s.clean(explain(err, host, s.desc.timeout, wrote)),
		}}
	}
	a, err := readAnswer(resp, req.op.outline, s.desc.maxAnswer)
	a.again = ex.doubtful
	if err != nil && a.status >= 200 && a.status < 300 {
		return nil, &outcome{stop: true, Result: Result{
			Class: unsent(err), Status: a.status, Sent: true, Message: s.clean(explain(err, host, s.desc.timeout, true)),
		}}
	}
	return a, nil
}

// unsent is the class of an error of the connection.
func unsent(err error) Class {
	if isTimeout(err) && !errors.Is(err, context.Canceled) {
		return Timeout
	}
	return Network
}
