package receiver

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/tracing"
	"partnersync/receiver/sources"
)

// serve answers one request. An unknown source is a 404, so that a mistyped URL
// looks different from a wrong secret; the names of sources are no secret.
func (r *Receiver) serve(w http.ResponseWriter, req *http.Request) {
	name, event, ok := path(req.URL.Path)
	g := r.gates.Load()
	at := g.bySource[name]
	if !ok || at == nil {
		a := answer{code: http.StatusNotFound, error: "there is no such source; post to /hooks/SOURCE/EVENT"}
		r.end(w, req, false)
		a.write(w)
		return
	}
	start := time.Now()
	typ := at.other
	a := answer{code: http.StatusInternalServerError, result: resultFailed, error: "the receiver failed; the event is not stored"}
	v := &visit{gate: at, connection: connectionOf(req), generation: g.generation, event: event, at: start}
	defer func() {
		// The stack is enough to find the fault; what a panic says may quote the body.
		if p := recover(); p != nil {
			r.options.Logger.Error("panic while receiving", "source", name, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			v.events = nil // nobody knows what became of them
		}
		all := v.events
		if all == nil {
			all = []outcome{{answer: a, kind: typ}}
		}
		for i := range all {
			all[i].kind.received[all[i].answer.result].Inc()
			if all[i].answer.result < resultUnavailable {
				at.last.SetToCurrentTime()
			}
		}
		at.duration.Observe(time.Since(start).Seconds())
		r.end(w, req, v.body.whole)
		a.write(w)
		if r.options.Tracer == nil {
			return
		}
		for _, o := range v.events {
			r.options.Tracer.Received(&tracing.Receipt{
				Event: o.id, Stored: o.answer.id, Kept: v.trace, Source: name, Type: o.typ, Result: o.answer.result.String(), Status: a.code, Began: start,
			})
		}
	}()
	a, typ = r.receive(w, req, v)
}

// end makes ready for the answer. A request whose body has not been read is the last
// of its connection, and net/http may only look for so long what is left of it: what
// is cut off at once may take the answer with it.
func (r *Receiver) end(w http.ResponseWriter, req *http.Request, whole bool) {
	if whole || req.ContentLength == 0 {
		return
	}
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(unreadTimeout))
}

// visit is a request at the gate of its source.
type visit struct {
	gate       *gate
	connection *connection
	generation int64
	event      string // as the URL names it; "" where it does not
	at         time.Time
	body       body
	verifiedBy string

	events []outcome // that were made of it; none where it was refused before
	trace  string    // as the sender has it
}

// outcome is what became of one event of a request.
type outcome struct {
	answer answer
	kind   *kind     // under which it is counted
	id     uuid.UUID // that it was given
	typ    string    // its type, if the config knows it
}

// receive reads, verifies, opens and stores. It returns the type too, under which
// the answer is counted.
func (r *Receiver) receive(w http.ResponseWriter, req *http.Request, v *visit) (answer, *kind) {
	other := v.gate.other
	source := v.gate.source
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost:
	default:
		return answer{code: http.StatusMethodNotAllowed, result: resultInvalid, error: "post the event"}, other
	}
	if fields(req.Header) > maxHeadFields {
		return answer{code: http.StatusRequestHeaderFieldsTooLarge, result: resultInvalid,
			error: fmt.Sprintf("the request has more than %d header fields", maxHeadFields)}, other
	}
	sender := r.sender(req)
	proof := source.Head(req, sender, v.at)
	if proof == sources.Refuted {
		return unauthorized(), other
	}
	if proof == sources.Proved {
		v.body.proved = true
		v.connection.prove()
	}
	handedOver := false
	defer func() {
		if !handedOver {
			r.release(&v.body)
		}
	}()
	if req.Method == http.MethodGet && int64(len(req.URL.RawQuery)) > source.MaxBody {
		return failedRead(errTooLarge, source), other
	}
	if err := r.read(&v.body, w, req, source.MaxBody); err != nil {
		a := failedRead(err, source)
		if !v.body.proved && a.result == resultInvalid {
			a.result = resultUnauthorized
		}
		return a, other
	}
	var holds bool
	if v.verifiedBy, holds = authentic(req, v, sender); !holds {
		return unauthorized(), other
	}
	r.unproved.end(&v.body, true)
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	v.connection.prove()
	if req.Method == http.MethodHead {
		return answer{code: http.StatusOK, result: resultProbe}, other
	}

	v.trace = tracing.Kept(req.Header)
	read, err := r.open(req, v)
	switch {
	case errors.Is(err, sources.ErrTooMany):
		return answer{code: http.StatusRequestEntityTooLarge, result: resultTooLarge, error: err.Error(), limit: sources.MaxEvents}, other
	case errors.Is(err, errNoMemory):
		return unavailable(), other
	}
	first := &read.Events[0]
	switch {
	case req.Method == http.MethodGet && !first.Empty && !source.AllowGet:
		return answer{code: http.StatusMethodNotAllowed, result: resultInvalid, error: "this source takes events by POST only"}, other
	case first.Empty:
		return answer{code: http.StatusOK, result: resultProbe, status: "ok"}, other
	}

	handedOver = true
	all := r.waiting(req, v, &read)
	for i, s := range r.commit(all) {
		v.events[i].answer = answerTo(all[i], s, read.Events[i].Malformed)
		if errors.Is(v.body.bad, sources.ErrEncoding) && v.events[i].answer.code == http.StatusBadRequest {
			v.events[i].answer.code = http.StatusUnsupportedMediaType
		}
	}
	if read.Several {
		return answerToAll(v.events), other
	}
	return v.events[0].answer, v.events[0].kind
}

// open reads what was sent. Memory is reserved for what is made of it.
func (r *Receiver) open(req *http.Request, v *visit) (sources.Reading, error) {
	source, plain := v.gate.source, v.body.plain
	var read sources.Reading
	var err error
	switch {
	case req.Method == http.MethodGet:
		e := source.OpenQuery(v.event, req.URL.Query())
		read = sources.Reading{Text: e.Text, Events: []sources.Envelope{e}}
	case source.Capture: // as it came
		e := source.Open(v.event, plain)
		e.Text = plain
		read.Events = []sources.Envelope{e}
	case v.body.bad != nil:
		read.Events = []sources.Envelope{source.Unread(v.event, v.body.bad)}
	default:
		read, err = source.Read(v.event, plain, req.Header.Get("Content-Type"))
	}
	if err != nil {
		return read, err
	}
	copied := len(read.Text) > 0 && (len(plain) == 0 || &read.Text[0] != &plain[0])
	if copied && !r.reserve(&v.body, int64(len(read.Text))) {
		return read, errNoMemory
	}
	return read, nil
}

// waiting makes the events to store.
func (r *Receiver) waiting(req *http.Request, v *visit, read *sources.Reading) []*waiting {
	source := v.gate.source
	var headers []byte
	if source.Capture {
		headers = captureHeaders(req.Header, v.gate.redact)
	} else {
		headers = keepHeaders(r.kept, req.Header)
	}
	delivery := req.Header.Get(source.DeliveryID)
	hold := &hold{bytes: v.body.held, all: &r.held}
	all := make([]*waiting, len(read.Events))
	v.events = make([]outcome, len(read.Events))
	for i := range read.Events {
		e := &read.Events[i]
		kind := v.gate.kind(e)
		event := ledger.Incoming{ID: uuid.Must(uuid.NewV7()), ReceivedAt: v.at, Headers: headers, Body: e.Text, VerifiedBy: v.verifiedBy}
		if event.Body == nil {
			event.Body, event.Headers = r.unread(req, v)
		}
		if delivery != "" {
			event.Delivery = ledger.DeliveryOf(source.Name, delivery, i)
		}
		describe(&event, source, e, kind.sinks)
		event.Trace = r.options.Tracer.Keep(event.ID, v.trace)
		v.events[i] = outcome{kind: kind, id: event.ID, typ: otherType}
		if e.Known {
			v.events[i].typ = event.Type
		}
		if ledger.BeyondBelief(event.OccurredAt, event.ReceivedAt) {
			v.gate.clamps.Inc()
		}
		if n := len(e.Drift); n > 0 {
			kind.drift.Add(float64(n))
		}
		all[i] = &waiting{event: event, named: v.event, generation: v.generation, hold: hold, done: make(chan stored, 1)}
	}
	return all
}

// unread gives what is kept of a request that cannot be read: the body as far as it
// could be inflated, and what a later config needs to read it.
func (r *Receiver) unread(req *http.Request, v *visit) (body, headers []byte) {
	list := append(slices.Clone(r.kept), header{eventHeader, eventHeader})
	h := req.Header.Clone()
	h[eventHeader] = []string{v.event}
	if id := v.gate.source.DeliveryID; id != "" && !slices.ContainsFunc(list, func(k header) bool { return k.canonical == id }) {
		list = append(list, header{strings.ToLower(id), id})
	}
	body = v.body.plain
	if v.body.bad != nil {
		list = append(list, header{"content-encoding", "Content-Encoding"})
		h["Content-Encoding"] = []string{strings.Join(h["Content-Encoding"], ", ")}
	}
	if req.Method == http.MethodGet { // as a form, which says the same
		body = v.gate.source.QueryBody(req.URL.Query())
		h.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if body == nil {
		body = []byte{} // NULL is no body
	}
	return body, keepHeaders(list, h)
}

// describe fills in what the envelope and the routing say of an event.
func describe(event *ledger.Incoming, source *sources.Source, e *sources.Envelope, sinks []string) {
	event.Source = source.Name
	event.Type = clean(e.Type, maxType)
	event.Entity = clean(e.Entity, maxEntity)
	event.OccurredAt = e.OccurredAt
	event.Rank = int16(min(max(e.Rank, -1<<15), 1<<15-1))
	if event.Type == "" {
		event.Type = sources.Unknown
	}
	event.Reason = ""
	switch {
	case source.Capture:
		event.Status, event.Reason = ledger.Unmapped, "the source only captures"
	case e.Malformed != nil:
		event.Status, event.Reason = ledger.Malformed, malformed(e.Malformed)
	case e.Ignored != "":
		event.Status, event.Reason = ledger.Ignored, e.Ignored
	case !e.Known:
		event.Status, event.Reason = ledger.Unmapped, "the source does not know this event"
	case len(sinks) == 0:
		event.Status, event.Reason = ledger.Unmapped, "no mapping wants this event"
	default:
		event.Status, event.Sinks = ledger.Stored, sinks
		if e.HintMismatch {
			event.Reason = "the body names another event than the URL"
		}
	}
	event.Reason = clean(event.Reason, maxReason)
	if event.Status == ledger.Malformed {
		event.Delivery = nil // sent again, it may be read
	}
}

// answerTo tells what became of an event.
func answerTo(w *waiting, s stored, m *sources.Malformed) answer {
	switch {
	case s.err != nil:
		return unavailable()
	case s.refused != "":
		// Not a 5xx: sent again, the same body meets the same refusal.
		return answer{code: http.StatusUnprocessableEntity, result: resultRefused, id: s.accepted.ID, status: string(ledger.Malformed),
			error: "the database refuses what this event holds; its body is kept"}
	case w.event.Status == ledger.Malformed:
		return answer{code: http.StatusBadRequest, result: resultMalformed, id: s.accepted.ID, status: string(ledger.Malformed), error: malformed(m), at: m}
	case s.accepted.Duplicate:
		return answer{code: http.StatusOK, result: resultDuplicate, id: s.accepted.ID, status: "duplicate"}
	}
	a := answer{code: http.StatusAccepted, id: s.accepted.ID, status: string(w.event.Status)}
	switch w.event.Status {
	case ledger.Unmapped:
		a.result = resultUnmapped
	case ledger.Ignored:
		a.result = resultIgnored
	default:
		a.result = resultStored
	}
	return a
}

// answerToAll tells what became of several events of one request: all of it is to be
// sent again where one cannot be stored.
func answerToAll(events []outcome) answer {
	all := answer{code: http.StatusOK}
	for _, o := range events {
		a := o.answer
		switch {
		case a.result == resultUnavailable:
			return a
		case a.code > all.code:
			all.code, all.error = a.code, a.error
		}
		all.events = append(all.events, a)
	}
	return all
}

func malformed(m *sources.Malformed) string {
	return "the body cannot be read: " + m.Error()
}

// unauthorized says the same whatever was wrong.
func unauthorized() answer {
	return answer{code: http.StatusUnauthorized, result: resultUnauthorized, error: "the request does not prove who sent it"}
}

// unavailable says so and no more: why is our concern.
func unavailable() answer {
	return answer{code: http.StatusServiceUnavailable, result: resultUnavailable, error: "the event cannot be stored now; send it again later"}
}

func failedRead(err error, source *sources.Source) answer {
	switch {
	case errors.Is(err, errTooLarge):
		return answer{code: http.StatusRequestEntityTooLarge, result: resultTooLarge,
			error: fmt.Sprintf("the body is larger than %d bytes", source.MaxBody), limit: source.MaxBody}
	case errors.Is(err, errNoMemory):
		return unavailable()
	case errors.Is(err, errSlow):
		return answer{code: http.StatusRequestTimeout, result: resultInvalid, error: "the body did not come in time"}
	}
	return answer{code: http.StatusBadRequest, result: resultInvalid, error: "the body did not come whole"}
}

// authentic verifies what was sent; where it came compressed, a signature may be
// of either form.
func authentic(req *http.Request, v *visit, sender netip.Addr) (by string, holds bool) {
	by, holds = v.gate.source.Authentic(req, v.body.sent, sender, v.at)
	if len(v.body.plain) > 0 && &v.body.plain[0] != &v.body.sent[0] {
		inflated, also := v.gate.source.Authentic(req, v.body.plain, sender, v.at)
		if also && !holds {
			by, holds = inflated, true
		}
	}
	return by, holds
}

// sender is the address that a request comes from: the peer's, or where that is one
// of our proxies, the last in X-Forwarded-For that is none. What stands before that is
// what anybody may have written. It is no address at all where such a proxy names
// something else, or the peer has none, as in some tests; allow_ips does not match then.
func (r *Receiver) sender(req *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(req.RemoteAddr)
	at := peer.Addr().Unmap().WithZone("")
	if len(r.options.Proxies) == 0 {
		return at
	}
	hops := strings.Join(req.Header["X-Forwarded-For"], ",")
	for hops != "" && r.proxy(at) {
		var hop string
		if i := strings.LastIndexByte(hops, ','); i >= 0 {
			hops, hop = hops[:i], hops[i+1:]
		} else {
			hops, hop = "", hops
		}
		at = parseHop(strings.TrimSpace(hop))
	}
	return at
}

func (r *Receiver) proxy(at netip.Addr) bool {
	return slices.ContainsFunc(r.options.Proxies, func(p netip.Prefix) bool { return p.Contains(at) })
}

// parseHop reads an address, which some proxies write with the port.
func parseHop(text string) netip.Addr {
	at, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		with, _ := netip.ParseAddrPort(text)
		at = with.Addr()
	}
	return at.Unmap().WithZone("")
}

func fields(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}

// path takes /hooks/{source} or /hooks/{source}/{event} apart.
func path(p string) (source, event string, ok bool) {
	rest, ok := strings.CutPrefix(p, "/hooks/")
	if !ok {
		return "", "", false
	}
	source, event, _ = strings.Cut(rest, "/")
	return source, strings.TrimSuffix(event, "/"), source != ""
}
