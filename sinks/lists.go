package sinks

import (
	"context"
	"maps"
	"regexp"
	"slices"

	"partnersync/internal/diag"
)

// Entry is an entry of a list that a target has besides its records: an owner, a pipeline, a stage.
type Entry struct {
	Fields map[string]string // see Description.ListFields; one that the target does not fill in is not there
}

// entryRules say what of an element is an entry.
type entryRules struct {
	At     places           `yaml:"at"` // a list of entries inside of each element; left out: the element is one
	Fields map[string]words `yaml:"fields,required"`
	Outer  map[string]words `yaml:"outer"`  // with at: what the entries have from the element around them
	Except conditions       `yaml:"except"` // it is none any more
	Only   conditions       `yaml:"only"`   // what an element has to be for any of it to be an entry
}

// joinRule takes for each entry of a list something from the entry of another list that it names.
type joinRule struct {
	List string            `yaml:"list,required"`
	By   string            `yaml:"by,required"`   // the field that names the other
	Is   string            `yaml:"is,required"`   // the field of the other that it is
	Take map[string]string `yaml:"take,required"` // what the entry has then, and from which field of the other
}

var isListName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// compileLists compiles the lists, each of which is described as an operation is.
func (desc *Description) compileLists(n diag.Node, d *diag.Decoding) {
	desc.lists = map[string][]*operation{}
	if n.Exists() && n.Kind() != diag.Map {
		d.Errorf(n, "write it as lists: {owners: {path: ...}}", "the lists have to be a map")
		return
	}
	before := len(d.Problems)
	for _, e := range n.Entries() {
		name := e.Key.Text()
		if !isListName.MatchString(name) {
			d.Errorf(e.Key, "small letters, digits and _", "%q is no name of a list", name)
			continue
		}
		ways := e.Value.Items()
		if e.Value.Kind() != diag.List {
			ways = []diag.Node{e.Value}
		}
		for i, way := range ways {
			if o := desc.compileOperation(List, i, way, n, d); o != nil {
				desc.lists[name] = append(desc.lists[name], o)
			}
		}
	}
	if d.Problems[before:].Failed() {
		desc.unsure = true
		return
	}
	for _, e := range n.Entries() {
		for _, o := range desc.lists[e.Key.Text()] {
			if j := o.result.Join; j != nil && !o.result.Results.Entry.has(j.By) {
				d.Errorf(e.Value, "", "an entry of %s has no %q by which to join another", e.Key.Text(), j.By)
			}
			desc.checkJoin(o.result.Join, e, d)
		}
	}
}

// checkJoin reports a list that a list takes something from, where there is no such list, or it has no such fields.
func (desc *Description) checkJoin(j *joinRule, e diag.Entry, d *diag.Decoding) {
	if j == nil {
		return
	}
	if desc.lists[j.List] == nil || j.List == e.Key.Text() {
		d.Errorf(e.Value, diag.OneOf(j.List, desc.Lists()), "there is no list %q to join", j.List)
		return
	}
	has := desc.ListFields(j.List)
	for _, name := range append(slices.Sorted(maps.Values(j.Take)), j.Is) {
		if !slices.Contains(has, name) {
			d.Errorf(e.Value, diag.OneOf(name, has), "an entry of %s has no %q", j.List, name)
		}
	}
}

// Lists are the names of the lists that the target has, sorted.
func (d *Description) Lists() []string { return slices.Sorted(maps.Keys(d.lists)) }

// ListFields are the names of what the entries of a list have, sorted.
func (d *Description) ListFields(list string) []string {
	names := map[string]bool{}
	for _, o := range d.lists[list] {
		for name := range o.result.Results.Entry.Fields {
			names[name] = true
		}
		for name := range o.result.Results.Entry.Outer {
			names[name] = true
		}
		if j := o.result.Join; j != nil {
			for name := range j.Take {
				names[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// CannotList tells why the target has no such list of an object; "" where it has. Lists that are not of an object have it
// for each, and for none.
func (d *Description) CannotList(list, object string) string {
	if d.unsure {
		return ""
	}
	return d.lacksFor(d.lists[list], List, &unit{row: &Row{Object: object}}, "the sink has no list "+list)
}

// lacksFor tells why a request that is about no row cannot be made; otherwise is why where there is no way.
func (d *Description) lacksFor(ways []*operation, op Operation, u *unit, otherwise string) string {
	way, _ := d.wayAmong(ways, op, u)
	if way == nil {
		return otherwise
	}
	r := &rendering{d: d, op: op, units: []*unit{u}, page: page{number: 1}}
	for _, n := range way.needs {
		if err := n.lacks(r, u); err != nil {
			return err.Error()
		}
	}
	return ""
}

// List reads a list that the target has besides its records, such as its owners, in the target's order. Some lists are of
// an object: the stages of deals. Who has left, and what was archived, is not in it. Where the result is not OK it tells why
// there is none: a list that is not whole is none. It takes no longer than Timeout.
func (s *Sink) List(ctx context.Context, list, object string) ([]Entry, Result) {
	u := &unit{row: &Row{Object: object}}
	way, _ := s.desc.wayAmong(s.desc.lists[list], List, u)
	if way == nil {
		return nil, Result{Class: Rejected, Code: "unsupported", Message: s.clean("the sink has no list " + list)}
	}
	ctx, cancel := context.WithTimeout(ctx, s.desc.timeout)
	defer cancel()
	entries, res := s.entries(ctx, way, u)
	j := way.result.Join
	if res.Class != OK || j == nil || len(entries) == 0 {
		return entries, res
	}
	other, _ := s.desc.wayAmong(s.desc.lists[j.List], List, u)
	if other == nil {
		return nil, Result{Class: Rejected, Code: "unsupported", Message: s.clean("the sink has no list " + j.List)}
	}
	more, res := s.entries(ctx, other, u)
	if res.Class != OK {
		return nil, res
	}
	by := map[string]Entry{}
	for _, e := range more {
		by[e.Fields[j.Is]] = e
	}
	entries = slices.DeleteFunc(entries, func(e Entry) bool {
		from, there := by[e.Fields[j.By]]
		for name, of := range j.Take {
			if v := from.Fields[of]; v != "" {
				e.Fields[name] = v
			}
		}
		return !there // what it belongs to was archived
	})
	return entries, res
}

// entries reads all entries of one list.
func (s *Sink) entries(ctx context.Context, way *operation, u *unit) ([]Entry, Result) {
	var entries []Entry
	res := s.pages(ctx, way, u, func(a *answer, list []any) bool {
		some, ok := way.result.Results.Entry.read(a, list)
		entries = append(entries, some...)
		return ok
	})
	if res.Class != OK {
		return nil, res
	}
	return entries, res
}

// read reads the entries of elements; false where one has nothing of what an entry has.
func (r *entryRules) read(a *answer, list []any) ([]Entry, bool) {
	var out []Entry
	for _, element := range list {
		if r.Only != nil && !r.Only.hold(a, element) {
			continue
		}
		inside := []any{element}
		if r.At != nil {
			inside, _ = r.At.at(element, "").([]any)
			if inside == nil {
				return nil, false
			}
		}
		for _, one := range inside {
			e := Entry{Fields: map[string]string{}}
			for name, w := range r.Fields {
				if text := w.at(one); text != "" {
					e.Fields[name] = text
				}
			}
			if len(e.Fields) == 0 {
				return nil, false
			}
			for name, w := range r.Outer {
				if text := w.at(element); text != "" {
					e.Fields[name] = text
				}
			}
			if !r.Except.hold(a, one) {
				out = append(out, e)
			}
		}
	}
	return out, true
}

func (r *entryRules) outline(o *outline, below ...path) {
	if r == nil {
		return
	}
	for _, w := range r.Outer {
		for _, p := range w {
			o.add(append(slices.Clone(below), p)...)
		}
	}
	r.Only.outline(o, below...)
	inside := [][]path{below}
	if r.At != nil {
		inside = nil
		for _, at := range r.At {
			inside = append(inside, append(slices.Clone(below), at, everyElement()))
		}
	}
	for _, below := range inside {
		for _, w := range r.Fields {
			for _, p := range w {
				o.add(append(slices.Clone(below), p)...)
			}
		}
		r.Except.outline(o, below...)
	}
}

// has reports whether the entries have such a field.
func (r *entryRules) has(name string) bool { return r.Fields[name] != nil || r.Outer[name] != nil }
