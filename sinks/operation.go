package sinks

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"partnersync/internal/diag"
	"partnersync/mappers"
)

// operations are the ones that a description may have.
var operations = []Operation{
	Upsert, Update, Create, Find, Search, Read, Link, Unlink, Archive, Describe, FieldOptions, WhoAmI, Scopes, MakeGroup, MakeField,
}

// looks reports whether the operation only looks at records.
func (op Operation) looks() bool { return op == Find || op == Search || op == Read }

// operation is one compiled way to carry out an operation.
type operation struct {
	name       Operation
	index      int // among the ways of this operation
	when       *leaf
	needs      []*need // what a row must have
	through    bool    // no request of its own: find, then update, or for an upsert create
	replaces   *leaf   // of link: whether it takes the place of the record's former one
	field      *leaf   // of link: the property in which the record shows the other end
	method     string
	path       *template
	query      []named
	headers    []named
	body       *body
	rows       int
	size       int  // bytes that its address and body may have together; 0: any
	repeatable bool // sending it twice does no harm
	result     resultRules
	outline    *outline
	shared     []*leaf // what all rows of one request must agree on
}

type named struct {
	name  string
	value *template
}

// operationDocument is the grammar of one operation.
type operationDocument struct {
	Like       Operation   `yaml:"like"`    // as another operation, with the keys here on top
	Through    Operation   `yaml:"through"` // find: look for the record first, then update or create
	When       diag.Node   `yaml:"when"`    // of several ways, the first whose condition holds
	Needs      []diag.Node `yaml:"needs,single"`
	Replaces   diag.Node   `yaml:"replaces"` // of link: whether it takes the place of the record's former one
	Field      diag.Node   `yaml:"field"`    // of link: the property in which the record shows the other end
	Method     string      `yaml:"method"`
	Path       diag.Node   `yaml:"path"`
	Query      diag.Node   `yaml:"query"`
	Headers    diag.Node   `yaml:"headers"`
	Body       diag.Node   `yaml:"body"`
	Rows       int         `yaml:"rows"`
	Size       int         `yaml:"size"` // bytes that the address and the body may have together
	Repeatable *bool       `yaml:"repeatable"`
	Result     resultRules `yaml:"result"`
	Self       diag.Node   `yaml:",node"`
}

// address is the base URL, taken apart.
type address struct {
	origin string // scheme://host
	path   string // escaped, without a slash at its end
	query  string
	host   string
}

func (desc *Description) compileBase(doc *document, user diag.Node, d *diag.Decoding) {
	n := doc.BaseURL
	if doc.URL.Exists() {
		n = doc.URL
	}
	if n.Kind() != diag.Scalar {
		at := user
		if p := user.Get("preset"); p.Exists() {
			at = p
		}
		hint := "add base_url: https://..."
		if desc.Preset != "" && !desc.whole.Get("operations").Get(string(WhoAmI)).Exists() {
			hint = "add url: https://..."
		}
		d.Errorf(at, hint, "the address of the sink is missing")
		return
	}
	t := compileTemplate(n, settingsScope(), d)
	if t == nil {
		return
	}
	text := t.settings(desc)
	base, ok := parseAddress(text)
	if !ok {
		shown := text
		if t.secret {
			shown = n.Text()
		}
		d.Errorf(n, "write it as https://host/path", "%q is no address", shown)
		return
	}
	desc.base = base
	if t.secret {
		desc.hide(text)
	}
}

func parseAddress(text string) (address, bool) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return address{}, false
	}
	return address{
		origin: u.Scheme + "://" + u.Host, host: u.Host, query: u.RawQuery,
		path: strings.TrimSuffix(u.EscapedPath(), "/"),
	}, true
}

// compileOperations compiles every way of every operation.
func (desc *Description) compileOperations(n diag.Node, user diag.Node, d *diag.Decoding) {
	desc.operations = map[Operation][]*operation{}
	before := len(d.Problems)
	defer func() { desc.unsure = d.Problems[before:].Failed() }()
	if n.Exists() && n.Kind() != diag.Map {
		d.Errorf(n, "write it as operations: {upsert: {path: ...}}", "the operations have to be a map")
		return
	}
	if len(n.Entries()) == 0 {
		d.Errorf(user, "describe at least one, such as upsert, or name a preset", "the sink has no operations")
		return
	}
	for _, e := range n.Entries() {
		op := Operation(e.Key.Text())
		if !slices.Contains(operations, op) {
			d.Errorf(e.Key, diag.OneOf(string(op), texts(operations)), "unknown operation %q", op)
			continue
		}
		ways := e.Value.Items()
		if e.Value.Kind() != diag.List {
			ways = []diag.Node{e.Value}
		}
		for i, way := range ways {
			if o := desc.compileOperation(op, i, way, n, d); o != nil {
				desc.operations[op] = append(desc.operations[op], o)
			}
		}
	}
	for _, e := range n.Entries() {
		op := Operation(e.Key.Text())
		for i, way := range desc.operations[op] {
			if !way.through {
				continue
			}
			if op == Update && i == 0 {
				d.Errorf(e.Key, "put a way for rows whose id is known before it", "an update cannot only go through find")
			}
			for _, needed := range []Operation{Find, Create, Update} {
				if !desc.Supports(needed) && (op == Upsert || needed != Create) {
					d.Errorf(e.Key, "describe it below operations", "going through find needs the operation %q", needed)
				}
			}
		}
	}
}

func (desc *Description) compileOperation(op Operation, index int, n, all diag.Node, d *diag.Decoding) *operation {
	if like := n.Get("like"); like.Exists() {
		other := all.Get(like.Text())
		if other.Kind() != diag.Map || other.Get("like").Exists() || like.Text() == string(op) {
			d.Errorf(like, diag.OneOf(like.Text(), all.Keys()), "there is no operation %q to be like", like.Text())
			return nil
		}
		n = diag.Overlay(other, n)
	}
	before := len(d.Problems)
	var doc operationDocument
	d.Decode(n, &doc)
	if n.Kind() != diag.Map || len(d.Problems) > before {
		return nil
	}
	scope := operationScope(op, desc.settingSchemas())
	o := &operation{name: op, index: index, result: doc.Result}
	if doc.When.Exists() {
		o.when = compileLeaf(doc.When, mappers.WantBool, scope, d)
	}
	for _, one := range doc.Needs {
		if need := compileNeed(one, scope, d); need != nil {
			o.needs = append(o.needs, need)
		}
	}
	if doc.Replaces.Exists() {
		if op != Link {
			d.Errorf(n.Get("replaces"), "", "only a link can replace another")
		}
		o.replaces = compileLeaf(doc.Replaces, mappers.WantBool, scope, d)
	}
	if doc.Field.Exists() {
		if op != Link {
			d.Errorf(n.Get("field"), "", "only a link has a field that shows it")
		}
		o.field = compileLeaf(doc.Field, mappers.WantText, scope, d)
	}
	if doc.Through != "" {
		if doc.Through != Find || op != Upsert && op != Update {
			d.Errorf(n.Get("through"), "", "only upsert and update can go through find")
		}
		o.through, o.rows, o.repeatable = true, 1, true // it looks for what an earlier one has made
		return o
	}
	o.method = strings.ToUpper(cmp.Or(doc.Method, http.MethodPost))
	if !slices.Contains([]string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"}, o.method) {
		d.Errorf(n.Get("method"), "one of: GET, POST, PUT, PATCH, DELETE, HEAD", "unknown method %q", doc.Method)
	}
	o.size = doc.Size
	o.repeatable = op != Create && op != MakeField && op != MakeGroup
	if doc.Repeatable != nil {
		o.repeatable = *doc.Repeatable
	}
	if doc.Path.Exists() {
		o.path = compileTemplate(doc.Path, scope, d)
		if text := doc.Path.Text(); text != "" && !strings.HasPrefix(text, "/") {
			d.Errorf(doc.Path, "start it with /", "%q is no path below the address of the sink", text)
		}
	}
	o.query = compileNamed(doc.Query, scope, d)
	o.headers = append(compileNamed(desc.headers, scope, d), compileNamed(doc.Headers, scope, d)...)
	if doc.Body.Exists() {
		o.body = compileBody(doc.Body, scope, d)
	}
	desc.settleRows(o, &doc, n, d)
	at := n.Get("result")
	if !at.Exists() {
		at = n
	}
	o.result.check(op, at, d)
	if p := doc.Result.Results.Property; p.Exists() {
		o.result.property = compileLeaf(p, mappers.WantText, scope, d)
	}
	if len(d.Problems) > before && d.Problems[before:].Failed() {
		return o
	}
	o.outline = desc.outlineOf(&o.result)
	o.shared = o.leavesShared()
	return o
}

// compileNeed compiles what a row must have: an expression that has a value, or
// a condition with the words for rows for which it does not hold.
func compileNeed(n diag.Node, scope *mappers.Scope, d *diag.Decoding) *need {
	if n.Kind() != diag.Map {
		if l := compileLeaf(n, mappers.WantAny, scope, d); l != nil {
			return &need{leaf: l}
		}
		return nil
	}
	var doc struct {
		That  diag.Node `yaml:"that,required"`
		Else  string    `yaml:"else,required"`
		Scope string    `yaml:"scope"`
	}
	d.Decode(n, &doc)
	if s := n.Get("scope"); s.Exists() && doc.Scope != scopeLink {
		d.Errorf(s, `"link" means that it is a link of the row which is to blame`, "unknown scope %q", doc.Scope)
	}
	if !doc.That.Exists() {
		return nil
	}
	l := compileLeaf(doc.That, mappers.WantBool, scope, d)
	if l == nil || doc.Else == "" {
		return nil
	}
	return &need{leaf: l, says: doc.Else, link: doc.Scope == scopeLink}
}

// settleRows settles how many rows one request takes. Where the body does not
// say how it repeats, that of several rows is a list.
func (desc *Description) settleRows(o *operation, doc *operationDocument, n diag.Node, d *diag.Decoding) {
	o.rows = max(doc.Rows, 1)
	if o.rows > 1 && !doc.Body.Exists() && !slices.ContainsFunc(o.outside(), func(l *leaf) bool { return l.rows }) {
		d.Errorf(n.Get("rows"), "the body says where they go, with `$each: records`", "several rows need a body")
	}
	if desc.batch.Rows > 0 {
		o.rows = min(o.rows, desc.batch.Rows)
	}
	if o.rows > 1 && o.body != nil && !o.body.repeatsRows() && !slices.ContainsFunc(o.leaves(), func(l *leaf) bool { return l.rows }) {
		o.body = &body{kind: bodyEach, element: o.body}
	}
}

func compileNamed(n diag.Node, scope *mappers.Scope, d *diag.Decoding) []named {
	if n.Exists() && n.Kind() != diag.Map {
		d.Errorf(n, "", "expected a map of names and values")
	}
	var out []named
	for _, e := range n.Entries() {
		if t := compileTemplate(e.Value, scope, d); t != nil {
			if t.secret && t.parts[0].text == "" {
				d.Warnf(e.Value, "set the variable that it comes from", "%q is empty and will not be sent", e.Key.Text())
			}
			out = append(out, named{e.Key.Text(), t})
		}
	}
	return out
}

// leaves are all expressions of the operation.
func (o *operation) leaves() []*leaf { return append(o.outside(), o.body.leaves(true, nil)...) }

// outside are the expressions of the address and the headers.
func (o *operation) outside() []*leaf {
	out := o.path.leaves()
	for _, n := range o.query {
		out = append(out, n.value.leaves()...)
	}
	for _, n := range o.headers {
		out = append(out, n.value.leaves()...)
	}
	return out
}

// leavesShared are those that read a row but stand outside the repetition over
// the rows: one request has one value for them.
func (o *operation) leavesShared() []*leaf {
	var out []*leaf
	if o.rows == 1 {
		return nil
	}
	for _, l := range append(o.outside(), o.body.leaves(false, nil)...) {
		if strings.Contains(l.text, "record.") || strings.Contains(l.text, "link.") {
			out = append(out, l)
		}
	}
	return out
}
