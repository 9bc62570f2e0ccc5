package sinks

import (
	"context"
	"maps"
	"slices"
	"strings"

	"partnersync/internal/diag"
	"partnersync/mappers"
)

// NewField is a field that is to be made.
type NewField struct {
	Name    string
	Label   string
	Kind    FieldKind
	Type    string // of one that is there: what the target calls its type
	Unique  bool   // no two records may have one value
	Options []Option
	Group   string // what it stands in, where the target has groups of fields; made with it
}

func (f *NewField) variable() map[string]any {
	options := make([]any, len(f.Options))
	for i, o := range f.Options {
		options[i] = map[string]any{"value": o.Value, "label": o.Label, "position": int64(i)}
	}
	return map[string]any{
		"name": f.Name, "label": f.Label, "kind": string(f.Kind), "type": f.Type, "unique": f.Unique, "options": options, "group": f.Group,
	}
}

func newFieldSchema() mappers.Schema {
	option := objectOf(map[string]mappers.Schema{"value": textSchema, "label": textSchema, "position": {Kind: mappers.Integer}})
	return objectOf(map[string]mappers.Schema{
		"name": textSchema, "label": textSchema, "kind": textSchema, "type": textSchema, "group": textSchema,
		"unique": {Kind: mappers.Bool}, "options": {Kind: mappers.List, Elem: &option},
	})
}

// Scopes are what the credentials are allowed, in the target's own names, sorted. The result is Rejected with the code
// "unsupported" where the target does not tell.
func (s *Sink) Scopes(ctx context.Context) ([]string, Result) {
	u := &unit{row: &Row{}}
	way, _ := s.desc.way(Scopes, u)
	if way == nil {
		return nil, unsupportedResult(Scopes)
	}
	ctx, cancel := context.WithTimeout(ctx, s.desc.timeout)
	defer cancel()
	a, res := s.ask(ctx, way, u, page{number: 1})
	if res.Class != OK {
		return nil, res
	}
	scopes := way.result.Results.Scopes.first(a, a.tree, "")
	if len(scopes) == 0 {
		return nil, Result{Class: Unavailable, Status: a.status, Code: unknown, Message: "the answer does not name the scopes"}
	}
	slices.Sort(scopes)
	return slices.Compact(scopes), res
}

// MakeField makes a field of an object, and first the group that it stands in where the target has such. The ID of an OK
// result is the name by which the target knows the field: it may be another than was asked for. Conflict means that there is
// a field of that name already. It is not repeated: where the result is Sent, nobody knows whether the field was made.
func (s *Sink) MakeField(ctx context.Context, object string, f NewField) Result {
	u := &unit{row: &Row{Object: object}, field: &f}
	way, _ := s.desc.way(MakeField, u)
	if way == nil {
		return unsupportedResult(MakeField)
	}
	ctx, cancel := context.WithTimeout(ctx, s.desc.timeout)
	defer cancel()
	if group, _ := s.desc.way(MakeGroup, u); group != nil && f.Group != "" {
		name := object + "\x00" + f.Group
		if _, made := s.groups.Load(name); !made {
			if _, res := s.ask(ctx, group, u, page{number: 1}); res.Class != OK && res.Class != Conflict {
				return res
			}
			s.groups.Store(name, true)
		}
	}
	_, res := s.ask(ctx, way, u, page{number: 1})
	if res.Class == OK && res.ID == "" {
		res.ID = f.Name
	}
	res.Created = res.Class == OK
	return res
}

// CannotMakeField tells why the target's API makes no such field; "" where it does.
func (d *Description) CannotMakeField(object string, f NewField) string {
	if d.unsure {
		return ""
	}
	return d.lacksFor(d.operations[MakeField], MakeField, &unit{row: &Row{Object: object}, field: &f}, "no way to make one by its API is known")
}

// What a person does by hand, see ByHand.
const (
	ByHandField  = "field"  // make a field
	ByHandUnique = "unique" // have a field that is there take no value twice
	ByHandOption = "option" // give a field an option
	ByHandAccess = "access" // let us at a field that was just made
	ByHandScope  = "scope"  // allow the credentials more
)

func allByHand() []string {
	return []string{ByHandField, ByHandUnique, ByHandOption, ByHandAccess, ByHandScope}
}

// compileByHand compiles the texts that tell what a person does in the target's own screens.
func (desc *Description) compileByHand(n diag.Node, d *diag.Decoding) {
	desc.byHand = map[string]*template{}
	if n.Exists() && n.Kind() != diag.Map {
		d.Errorf(n, "write it as by_hand: {field: ...}", "by_hand has to be a map")
		return
	}
	for _, e := range n.Entries() {
		if what := e.Key.Text(); !slices.Contains(allByHand(), what) {
			d.Errorf(e.Key, diag.OneOf(what, allByHand()), "nobody asks what a person does for %q", what)
			continue
		}
		if t := compileTemplate(e.Value, operationScope(MakeField, desc.settingSchemas()), d); t != nil {
			desc.byHand[e.Key.Text()] = t
		}
	}
}

// ByHand tells what a person does in the target's own screens where its API cannot; "" where nobody has written it down.
func (d *Description) ByHand(what, object string, f NewField) string {
	t := d.byHand[what]
	if t == nil {
		return ""
	}
	u := &unit{row: &Row{Object: object}, field: &f}
	text, err := t.text(&rendering{d: d, op: MakeField, units: []*unit{u}}, u, nil, nil, false)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(text)
}

// Instructions are the names of what ByHand can tell, sorted.
func (d *Description) Instructions() []string { return slices.Sorted(maps.Keys(d.byHand)) }
