package sinks

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"partnersync/mappers"
)

// Preview is a request as Write would send it, its secrets hidden.
type Preview struct {
	Operation Operation
	Method    string
	URL       string
	Header    http.Header
	Body      []byte
	Rows      int
}

// request is one rendered request.
type request struct {
	op     *operation
	method string
	url    string
	header http.Header
	body   []byte
	units  []*unit // those that are in it
	id     string
}

// rendering is what expressions see while one request is made.
type rendering struct {
	d      *Description
	op     Operation
	units  []*unit
	id     string
	page   page // of a list: which one is asked for
	failed map[*unit]error
	read   []any  // request.read, once somebody reads it
	inner  []byte // the members of the map that is open which go into an object of their own
}

// render makes the request for rows that agree on all that they share. The
// errors are those of rows that cannot be written and are not in it; a nil
// request means that none can.
func (d *Description) render(o *operation, units []*unit) (*request, map[*unit]error) {
	return d.renderPage(o, units, page{number: 1})
}

// page is a part of a list that is read in several.
type page struct {
	number int
	cursor string // what `next` found in the page before
	url    string // what `next_url` found there
}

// renderPage is render for one page of a list.
func (d *Description) renderPage(o *operation, units []*unit, p page) (*request, map[*unit]error) {
	r := &rendering{d: d, op: o.name, units: units, id: requestID(units), page: p, failed: map[*unit]error{}}
	r.units = r.whole(o)
	var first *unit
	if len(r.units) > 0 {
		first = r.units[0]
	}
	if first == nil && len(units) > 0 {
		return nil, r.failed
	}
	all := func(err error) (*request, map[*unit]error) {
		r.failed[nil] = err
		for _, u := range r.units {
			r.failed[u] = err
		}
		return nil, r.failed
	}
	target, err := r.target(o, first)
	if err == nil && p.url != "" {
		target, err = d.follow(p.url)
	}
	if err != nil {
		return all(err)
	}
	req := &request{op: o, id: r.id, method: o.method, url: target, header: http.Header{}}
	req.header.Set("Accept", "application/json")
	req.header.Set("User-Agent", "partnersync")
	if o.body != nil {
		req.header.Set("Content-Type", "application/json")
		buf := buffers.Get().(*[]byte)
		dst, _, err := r.appendBody((*buf)[:0], o.body, first, nil)
		req.body = slices.Clone(dst)
		*buf = dst
		buffers.Put(buf)
		if err != nil {
			return all(err)
		}
	}
	for _, h := range o.headers {
		text, err := h.value.text(r, first, nil, nil, false)
		if err != nil {
			return all(err)
		}
		if strings.ContainsAny(text, "\r\n\x00") {
			return all(fmt.Errorf("the value of the header %s has a line break", h.name))
		}
		if text != "" {
			req.header.Set(h.name, text)
		}
	}
	if len(units) == 1 && o.tooLarge(req) {
		return all(errTooLarge)
	}
	for _, u := range units {
		if r.failed[u] == nil {
			req.units = append(req.units, u)
		}
	}
	if len(units) > 0 && len(req.units) == 0 {
		return nil, r.failed
	}
	return req, r.failed
}

// whole are the rows that have what the operation cannot do without.
func (r *rendering) whole(o *operation) []*unit {
	if len(o.needs) == 0 && o.name != Search {
		return r.units
	}
	kept := make([]*unit, 0, len(r.units))
	for _, u := range r.units {
		if o.name == Search && (len(u.row.Terms) == 0 || slices.ContainsFunc(u.row.Terms, func(t Term) bool { return t.Value == "" })) {
			r.failed[u] = errNoTerm
			continue
		}
		for _, need := range o.needs {
			if err := need.lacks(r, u); err != nil {
				r.failed[u] = err
				break
			}
		}
		if r.failed[u] == nil {
			kept = append(kept, u)
		}
	}
	return kept
}

// errNoTerm is the error of a row that would find anything.
var errNoTerm = errors.New("a search needs a value for each of its terms")

// need is something that a row must have for an operation.
type need struct {
	leaf *leaf
	says string // why the row cannot be written; "" where the leaf is what is missing
	link bool   // a link that the row carries is to blame
}

// linkError is the error of a row that may be sent without its links.
type linkError struct{ says string }

func (e *linkError) Error() string { return e.says }

// lacks says what the row lacks; nil where it has it.
func (n *need) lacks(r *rendering, u *unit) error {
	v, err := n.leaf.value(r, u, nil)
	switch {
	case n.says == "" && (err != nil || v == nil):
		return fmt.Errorf("the row has no %s", n.leaf.text)
	case n.says != "" && (err != nil || v != true) && n.link:
		return &linkError{n.says}
	case n.says != "" && (err != nil || v != true):
		return errors.New(n.says)
	}
	return nil
}

// buffers are reused between requests: a body of a hundred rows is large.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

// requestID is the trace of the one row, or stands for all of several.
func requestID(units []*unit) string {
	switch len(units) {
	case 0:
		return ""
	case 1:
		return units[0].trace()
	}
	h := sha256.New()
	for _, u := range units {
		h.Write([]byte(u.trace()))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// target is the address. Its scheme and host are always the description's:
// what expressions give comes after them, escaped.
func (r *rendering) target(o *operation, u *unit) (string, error) {
	var b strings.Builder
	b.WriteString(r.d.base.origin)
	b.WriteString(r.d.base.path)
	if o.path != nil {
		text, err := o.path.text(r, u, nil, escapeSegment, true)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	sign := "?"
	if r.d.base.query != "" {
		b.WriteString("?" + r.d.base.query)
		sign = "&"
	}
	for _, q := range o.query {
		text, err := q.value.text(r, u, nil, nil, false)
		if err != nil {
			return "", err
		}
		if text == "" {
			continue
		}
		b.WriteString(sign + url.QueryEscape(q.name) + "=" + url.QueryEscape(text))
		sign = "&"
	}
	return b.String(), nil
}

// follow is the address of the next page as an answer tells it: a whole one, or a path of the target. It is always on
// the host of the description.
func (d *Description) follow(next string) (string, error) {
	u, err := url.Parse(next)
	if err != nil || u.User != nil || u.Host+u.Scheme != "" && u.Scheme+"://"+u.Host != d.base.origin || !strings.HasPrefix(u.Path, "/") {
		return "", errElsewhere
	}
	path := u.EscapedPath()
	if !strings.HasPrefix(path, d.base.path+"/") {
		path = d.base.path + path
	}
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	return d.base.origin + path, nil
}

var errElsewhere = errors.New("the next page is somewhere else than the target")

// appendBody writes one part of a body; false where it has no value and is
// left out.
func (r *rendering) appendBody(dst []byte, b *body, u *unit, item any) ([]byte, bool, error) {
	switch b.kind {
	case bodyNull:
		return append(dst, "null"...), true, nil
	case bodyText:
		text, err := b.text.text(r, u, item, nil, false)
		if err != nil {
			return dst, false, err
		}
		dst, err = r.d.values.appendJSON(dst, text)
		return dst, true, err
	case bodyLeaf:
		v, err := b.leaf.value(r, u, item)
		if err != nil || v == nil {
			return dst, false, err
		}
		if id, isText := v.(string); b.leaf.id && isText && r.d.values.IDs == "number" && isWhole(id) {
			return append(dst, id...), true, nil
		}
		dst, err = r.d.values.appendJSON(dst, v)
		return dst, true, err
	case bodyMap:
		return r.appendMap(dst, b, u, item)
	case bodyList:
		dst = append(dst, '[')
		first := true
		for _, one := range b.items {
			var err error
			if one.kind == bodyEach && one.each != nil {
				dst, err = r.appendEach(dst, one, u, item, &first)
			} else {
				dst, err = r.appendElement(dst, one, u, item, &first)
			}
			if err != nil {
				return dst, true, err
			}
		}
		return append(dst, ']'), true, nil
	}
	if b.each != nil {
		return r.appendItems(dst, b, u, item)
	}
	dst = append(dst, '[')
	first := true
	for _, one := range r.units {
		before, was := len(dst), first
		var err error
		if dst, err = r.appendElement(dst, b.element, one, item, &first); err != nil {
			// One row that cannot be written does not take the others with it.
			dst, first = dst[:before], was
			r.failed[one] = err
		}
	}
	return append(dst, ']'), true, nil
}

// appendItems repeats an element for a list inside a row; an empty list is left out.
func (r *rendering) appendItems(dst []byte, b *body, u *unit, item any) ([]byte, bool, error) {
	before, first := len(dst), true
	dst, err := r.appendEach(append(dst, '['), b, u, item, &first)
	if err != nil || first {
		return dst[:before], false, err
	}
	return append(dst, ']'), true, nil
}

// appendEach writes the elements of such a list into the one that is open.
func (r *rendering) appendEach(dst []byte, b *body, u *unit, item any, first *bool) ([]byte, error) {
	v, err := b.each.value(r, u, item)
	list, _ := v.([]any)
	for _, one := range list {
		if err == nil {
			dst, err = r.appendElement(dst, b.element, u, one, first)
		}
	}
	return dst, err
}

// isWhole reports whether an id is a whole number as JSON writes one.
func isWhole(id string) bool {
	return id != "" && len(id) <= 19 && (id[0] != '0' || id == "0") && strings.Trim(id, "0123456789") == ""
}

func (r *rendering) appendElement(dst []byte, b *body, u *unit, item any, first *bool) ([]byte, error) {
	before := len(dst)
	if !*first {
		dst = append(dst, ',')
	}
	dst, there, err := r.appendBody(dst, b, u, item)
	if err != nil || !there {
		return dst[:before], err
	}
	*first = false
	return dst, nil
}

func (r *rendering) appendMap(dst []byte, b *body, u *unit, item any) ([]byte, bool, error) {
	outer := r.inner
	r.inner = nil
	dst, first, err := r.appendEntries(append(dst, '{'), b, u, item, true)
	dst = r.d.values.closeNested(dst, r.inner, first)
	r.inner = outer
	return append(dst, '}'), true, err
}

// appendEntries writes the members that a description gives a map.
func (r *rendering) appendEntries(dst []byte, b *body, u *unit, item any, first bool) ([]byte, bool, error) {
	var err error
	for _, e := range b.entries {
		if e.spread {
			if dst, first, err = r.appendSpread(dst, e.value, b.entries, u, item, first); err != nil {
				return dst, first, err
			}
			continue
		}
		before, was := len(dst), first
		name := e.name
		if e.label != nil {
			if name, err = e.label.text(r, u, item, nil, true); errors.Is(err, errEmptyPlace) {
				err = errNoName
			}
			if err != nil {
				return dst, first, err
			}
			if r.d.values.nests(u.object(), name) { // a link that is such a field
				if r.inner, err = r.appendNested(r.inner, name, e.value, u, item); err != nil {
					return dst, first, err
				}
				continue
			}
		}
		dst = appendName(dst, name, &first)
		there := false
		if dst, there, err = r.appendBody(dst, e.value, u, item); err != nil {
			return dst, first, err
		}
		if !there {
			dst, first = dst[:before], was
		}
	}
	return dst, first, nil
}

// appendNested writes a member of the object that some fields have for themselves.
func (r *rendering) appendNested(dst []byte, name string, value *body, u *unit, item any) ([]byte, error) {
	before, first := len(dst), len(dst) == 0
	dst, there, err := r.appendBody(appendName(dst, name, &first), value, u, item)
	if !there {
		dst = dst[:before]
	}
	return dst, err
}

// appendSpread writes the members of a map into the one that is open; names
// that stand in the description win. A repeated map gives its members once for
// each element.
func (r *rendering) appendSpread(dst []byte, b *body, taken []entry, u *unit, item any, first bool) ([]byte, bool, error) {
	switch {
	case b.kind == bodyMap:
		return r.appendEntries(dst, b, u, item, first)
	case b.kind == bodyList:
		var err error
		for _, one := range b.items {
			if err == nil {
				dst, first, err = r.appendSpread(dst, one, taken, u, item, first)
			}
		}
		return dst, first, err
	case b.kind == bodyEach && b.each != nil && b.element.kind == bodyMap:
		v, err := b.each.value(r, u, item)
		list, _ := v.([]any)
		for _, one := range list {
			if err == nil {
				dst, first, err = r.appendEntries(dst, b.element, u, one, first)
			}
		}
		return dst, first, err
	case b.kind != bodyLeaf:
		return dst, first, errValue
	}
	v, err := b.leaf.value(r, u, item)
	if err != nil {
		return dst, first, err
	}
	switch v := v.(type) {
	case nil:
		return dst, first, nil
	case written:
		return r.d.values.appendMembers(dst, v, taken, first, &r.inner)
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if slices.ContainsFunc(taken, func(e entry) bool { return !e.spread && e.name == name }) {
				continue
			}
			dst = appendName(dst, name, &first)
			if dst, err = r.d.values.appendJSON(dst, v[name]); err != nil {
				return dst, first, err
			}
		}
		return dst, first, nil
	}
	return dst, first, errValue
}

// vars are the variables of an expression.
func (r *rendering) vars(l *leaf, u *unit, item any) map[string]any {
	request := map[string]any{"id": r.id, "cursor": blankNil(r.page.cursor), "page": int64(r.page.number)}
	if r.op == Scopes {
		request["token"] = blankNil(r.d.auth.Token.Reveal())
	}
	if r.op.looks() {
		if r.read == nil {
			r.read = r.d.shownFor(r.op, r.units)
		}
		request["read"] = r.read
	}
	m := map[string]any{
		"setting": r.d.settings, "operation": string(r.op), "request": request, "item": item,
		"auth": map[string]any{"tenant": r.d.auth.Tenant, "base_url": r.d.base.origin + r.d.base.path},
	}
	name := "record"
	if r.op == Link || r.op == Unlink {
		name = "link"
	}
	if u != nil {
		m[name] = u.variable(r.d)
		if u.field != nil {
			m["field"] = u.field.variable()
		}
	}
	if l.rows {
		list := make([]any, len(r.units))
		for i, one := range r.units {
			list[i] = one.variable(r.d)
		}
		m[name+"s"] = list
	}
	return m
}

// reason puts a rendering error into words that hold nothing of the payload.
func reason(err error) string {
	var eval *mappers.EvalError
	if errors.As(err, &eval) {
		return "the request cannot be made: " + eval.Error()
	}
	return "the request cannot be made: " + err.Error()
}
