package sources

import (
	"slices"
	"strings"

	"partnersync/internal/diag"
	"partnersync/mappers"
)

// A schema is written as a map from fields to specs. A spec is either a map,
// which is an object written in place, or one line:
//
//	KIND [WORD...] [, description]
//
// KIND is any, id, text, integer, number, bool, time, object, list, map, the name
// of a schema under `schemas`, or "list of KIND". The words are
//
//	required     documented as always there
//	deprecated
//	private      mappings cannot read it unless `allow` names it; holds for all below it
//	ms, s        unit of a time that is a number; the source's `times` is the default
//	none=VALUE   the value that means "none"
//	also=NAME    another spelling of the field's name
//
// In an object the field "*" is the spec of all fields that are not named;
// without it, those count as drift.
type schemas struct {
	d       *diag.Decoding
	times   string
	private map[string]bool // names of fields
	named   map[string]diag.Node
	done    map[string]*mappers.Schema
	open    []string // being resolved
}

// maxSchemas bounds how deep named schemas hold each other.
const maxSchemas = 12

var kinds = []string{
	string(mappers.Any), string(mappers.ID), string(mappers.Text), string(mappers.Integer), string(mappers.Number),
	string(mappers.Bool), string(mappers.Time), string(mappers.Object), string(mappers.List), string(mappers.Map),
}

func newSchemas(n diag.Node, times string, private map[string]bool, d *diag.Decoding) *schemas {
	s := &schemas{d: d, times: times, private: private, named: map[string]diag.Node{}, done: map[string]*mappers.Schema{}}
	d.Decode(n, &s.named)
	for _, e := range n.Entries() {
		name := e.Key.Text()
		if slices.Contains(kinds, name) {
			d.Errorf(e.Key, "", "%q is a kind and cannot name a schema", name)
			continue
		}
		s.resolve(e.Key, name)
	}
	return s
}

// resolve gives the schema of a name; at is where the name stands.
func (s *schemas) resolve(at diag.Node, name string) mappers.Schema {
	if slices.Contains(kinds, name) {
		schema := mappers.Schema{Kind: mappers.Kind(name)}
		if schema.Kind == mappers.Time {
			schema.Unit = s.times
		}
		return schema
	}
	if schema, ok := s.done[name]; ok {
		return *schema
	}
	n, ok := s.named[name]
	if !ok {
		names := slices.Clone(kinds)
		for known := range s.named {
			names = append(names, known)
		}
		s.d.Errorf(at, diag.OneOf(name, names), "unknown kind or schema %q", name)
		return mappers.Schema{Kind: mappers.Any}
	}
	if slices.Contains(s.open, name) {
		s.d.Errorf(at, "", "the schema %q holds itself", name)
		return mappers.Schema{Kind: mappers.Any}
	}
	if len(s.open) == maxSchemas {
		s.d.Errorf(at, "", "schemas are nested more than %d levels deep", maxSchemas)
		return mappers.Schema{Kind: mappers.Any}
	}
	s.open = append(s.open, name)
	schema := s.spec(n)
	s.open = s.open[:len(s.open)-1]
	s.done[name] = &schema
	return schema
}

// spec reads the schema of one value.
func (s *schemas) spec(n diag.Node) mappers.Schema {
	switch n.Kind() {
	case diag.Map:
		return s.object(n)
	case diag.Scalar:
		return s.line(n)
	}
	s.d.Errorf(n, `write a kind such as "text", or a map of fields`, "this is no schema")
	return mappers.Schema{Kind: mappers.Any}
}

func (s *schemas) object(n diag.Node) mappers.Schema {
	object := mappers.Schema{Kind: mappers.Object, Fields: map[string]mappers.Schema{}}
	spellings := map[string]diag.Node{}
	s.d.Decode(n, new(map[string]diag.Node)) // reports keys that stand here twice
	for _, e := range n.Entries() {
		name := e.Key.Text()
		if name == "*" {
			other := s.spec(e.Value)
			object.Elem = &other
			continue
		}
		field := s.spec(e.Value)
		field.Private = field.Private || s.private[name]
		object.Fields[name] = field
		for _, other := range alternatives(e.Value) {
			if object.Spellings == nil {
				object.Spellings = map[string]string{}
			}
			object.Spellings[other] = name
			spellings[other] = e.Value
		}
	}
	for other, at := range spellings {
		if _, taken := object.Fields[other]; taken {
			s.d.Errorf(at, "", "%q is a field of its own and no other spelling of %q", other, object.Spellings[other])
			delete(object.Spellings, other)
		}
	}
	return object
}

func (s *schemas) line(n diag.Node) mappers.Schema {
	spec, description, _ := strings.Cut(n.Text(), ",")
	words := strings.Fields(spec)
	lists := 0
	for len(words) > 1 && words[0] == "list" && words[1] == "of" {
		lists++
		words = words[2:]
	}
	if len(words) == 0 {
		s.d.Errorf(n, "one of: "+strings.Join(kinds, ", "), "the kind is missing")
		return mappers.Schema{Kind: mappers.Any}
	}
	schema := s.resolve(n, words[0])
	for range lists {
		elem := schema
		schema = mappers.Schema{Kind: mappers.List, Elem: &elem}
	}
	schema.Required, schema.Deprecated = false, false
	if d := strings.TrimSpace(description); d != "" {
		schema.Description = d
	}
	for _, word := range words[1:] {
		name, value, hasValue := strings.Cut(word, "=")
		switch {
		case word == "required":
			schema.Required = true
		case word == "deprecated":
			schema.Deprecated = true
		case word == "private":
			schema.Private = true
		case word == "ms" || word == "s":
			if schema.Kind != mappers.Time {
				s.d.Errorf(n, "", "%q is a unit, and only a time has one", word)
			}
			schema.Unit = word
		case name == "none" && hasValue && value != "":
			schema.None = value
		case name == "also" && hasValue && value != "":
			// The object that holds the field reads it.
		default:
			s.d.Errorf(n, diag.OneOf(name, []string{"required", "deprecated", "private", "ms", "s", "none=", "also="}), "unknown word %q in a schema", word)
		}
	}
	return schema
}

// alternatives gives the other spellings that a field's spec names.
func alternatives(n diag.Node) []string {
	if n.Kind() != diag.Scalar {
		return nil
	}
	var names []string
	spec, _, _ := strings.Cut(n.Text(), ",")
	for word := range strings.FieldsSeq(spec) {
		if name, ok := strings.CutPrefix(word, "also="); ok && name != "" {
			names = append(names, name)
		}
	}
	return names
}

// union is a schema that holds what any of the given has, as an expression over
// several events sees it: what one lacks is null there.
func union(a, b mappers.Schema) mappers.Schema {
	switch {
	case a.Kind == "":
		return b
	case a.Kind != b.Kind:
		return mappers.Schema{Kind: mappers.Any, Private: a.Private || b.Private}
	}
	u := a
	u.Required = a.Required && b.Required
	u.Deprecated = a.Deprecated && b.Deprecated
	u.Private = a.Private || b.Private
	if a.Fields != nil || b.Fields != nil {
		u.Fields = make(map[string]mappers.Schema, len(a.Fields)+len(b.Fields))
		for name, field := range a.Fields {
			u.Fields[name] = field
		}
		for name, field := range b.Fields {
			u.Fields[name] = union(u.Fields[name], field)
		}
	}
	if a.Elem != nil && b.Elem != nil {
		elem := union(*a.Elem, *b.Elem)
		u.Elem = &elem
	}
	return u
}
