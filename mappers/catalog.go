package mappers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Catalog is what mappings may refer to.
type Catalog struct {
	Sources map[string]*SourceInfo
	Sinks   map[string]*SinkInfo
	Tables  map[string]*Table
}

// SourceInfo is what mappings need to know of a source.
type SourceInfo struct {
	Preset   string             // "" for a source of the config's own
	Events   map[string]*Schema // by canonical type
	Zone     *time.Location     // default of date(); nil is UTC
	Currency string             // default of cents()
	Allow    map[string]bool    // private paths that mappings may read
}

// SinkInfo is what mappings need to know of a sink.
type SinkInfo struct {
	Preset  string   // for messages
	Modes   []Mode   // nil is all
	Objects []string // nil is any; names for a hint where Object tells which are known
	Links   bool     // whether it can connect records
	// OrdersHits is whether a search tells which of several records is the oldest.
	OrdersHits bool
	// Object gives the one name of an object that has several, and whether there is such an object. nil: each name is one.
	Object func(name string) (canonical string, known bool)
	// Search, Find and Read tell why it cannot look up records of an object by properties, find one by our key, and show
	// what one holds; "" where it can. nil: it can.
	Search func(object string, properties []string) string
	Find   func(object string) string
	Read   func(object string) string
	// Lacks tells why records such as a mapping makes cannot be written in a mode; "" where they can. nil is never.
	Lacks func(m *MappingInfo, mode Mode) string
	// Link tells why it cannot send a link of records in a mode; "" where it can. later: not with the request that makes
	// the record, but afterwards. nil: it can send each.
	Link func(mode Mode, object string, l *Link) (why string, later bool)
	// Aliases are the names that mappings have for fields, by object; OwnField is what the name of such a field looks like, where
	// that matters.
	Aliases  map[string]map[string]Alias
	OwnField string
	// LinkField is the property in which a record shows the other end of a link; "" where none does. nil: it can show each.
	LinkField func(object string, l *Link) string
}

// modes are those that are left for the records of a mapping.
func (s *SinkInfo) modes(m *MappingInfo) []string {
	var out []string
	for _, mode := range modes() {
		if (s.Modes == nil || slices.Contains(s.Modes, mode)) && s.Lacks(m, mode) == "" {
			out = append(out, string(mode))
		}
	}
	return out
}

func (s *SinkInfo) object(name string) (canonical string, known bool) {
	if s.Object != nil {
		return s.Object(name)
	}
	return name, s.Objects == nil || slices.Contains(s.Objects, name)
}

// standIns are the names of properties, or what they look like where they have a name of the config's own.
func (s *SinkInfo) standIns(object string, properties []string) []string {
	out := slices.Clone(properties)
	for i, name := range out {
		if _, alias := s.Aliases[object][name]; alias && s.OwnField != "" {
			out[i] = s.OwnField
		}
	}
	return out
}

func (s *SinkInfo) called(name string) string {
	if s.Preset == "" {
		return fmt.Sprintf("sink %q", name)
	}
	return fmt.Sprintf("sink %q (%s)", name, s.Preset)
}

// hookSchema describes the variable hook.
func hookSchema() Schema {
	return Schema{Kind: Object, Fields: map[string]Schema{
		"id": {Kind: ID}, "type": {Kind: Text}, "source": {Kind: Text}, "occurred_at": {Kind: Time}, "received_at": {Kind: Time},
	}}
}

func (ev *Event) hook() map[string]any {
	h := map[string]any{"id": ev.ID, "type": ev.Type, "source": ev.Source}
	if !ev.OccurredAt.IsZero() {
		h["occurred_at"] = ev.OccurredAt
	}
	if !ev.ReceivedAt.IsZero() {
		h["received_at"] = ev.ReceivedAt
	}
	return h
}

// permitted is s where the paths that allow names are private no more.
func permitted(s Schema, path string, allow map[string]bool) Schema {
	if len(allow) == 0 {
		return s
	}
	s.Private = s.Private && !allow[path]
	if s.Fields != nil {
		fields := make(map[string]Schema, len(s.Fields))
		for name, f := range s.Fields {
			fields[name] = permitted(f, join(path, name), allow)
		}
		s.Fields = fields
	}
	if s.Elem != nil {
		elem := permitted(*s.Elem, path, allow)
		s.Elem = &elem
	}
	return s
}

// merged is a schema that holds for values of a and of b. What is private in
// one is private in both.
func merged(a, b Schema) Schema {
	out := a
	out.Private = a.Private || b.Private
	switch {
	case a.Kind == b.Kind:
	case isText(a.Kind) && isText(b.Kind):
		out.Kind = Text
	case isNumber(a.Kind) && isNumber(b.Kind):
		out.Kind = Number
	default:
		return Schema{Kind: Any, Private: out.Private}
	}
	if a.Fields != nil || b.Fields != nil {
		out.Fields = maps.Clone(a.Fields)
		if out.Fields == nil {
			out.Fields = map[string]Schema{}
		}
		for name, f := range b.Fields {
			if own, ok := out.Fields[name]; ok {
				f = merged(own, f)
			}
			out.Fields[name] = f
		}
	}
	if a.Elem != nil && b.Elem != nil {
		elem := merged(*a.Elem, *b.Elem)
		out.Elem = &elem
	} else {
		out.Elem = nil
	}
	return out
}

func isText(k Kind) bool   { return k == Text || k == ID }
func isNumber(k Kind) bool { return k == Integer || k == Number }

// guard takes the private parts out of a body before any expression sees it,
// so that none comes out by way of a whole object. A nil guard takes nothing.
type guard struct {
	hide   []string
	fields map[string]*guard
	elem   *guard
}

func guardOf(s Schema) *guard {
	g := guard{fields: map[string]*guard{}}
	for name, f := range s.Fields {
		if f.Private {
			g.hide = append(g.hide, name)
		} else if inner := guardOf(f); inner != nil {
			g.fields[name] = inner
		}
	}
	if s.Elem != nil {
		g.elem = guardOf(*s.Elem)
	}
	if len(g.hide) == 0 && len(g.fields) == 0 && g.elem == nil {
		return nil
	}
	return &g
}

// clean never changes v; it copies what it must.
func (g *guard) clean(v any) any {
	if g == nil {
		return v
	}
	switch v := v.(type) {
	case map[string]any:
		out := maps.Clone(v)
		for _, name := range g.hide {
			delete(out, name)
		}
		for name, inner := range g.fields {
			if value, ok := out[name]; ok {
				out[name] = inner.clean(value)
			}
		}
		if g.elem != nil {
			for name, value := range out {
				out[name] = g.elem.clean(value)
			}
		}
		return out
	case []any:
		out := slices.Clone(v)
		for i := range out {
			out[i] = g.elem.clean(out[i])
		}
		return out
	}
	return v
}

// matchType reports whether a pattern of `on` names an event; * stands for
// anything, dots included.
func matchType(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	rest, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		at := strings.Index(rest, part)
		if at < 0 {
			return false
		}
		rest = rest[at+len(part):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}
