package sources

import "partnersync/mappers"

// Hidden stands for a private value where a body is shown.
const Hidden = "<private>"

// Redact returns a copy of a shaped body as pages, logs, previews and archives
// may show it: what is private has become Hidden, whatever `allow` lets
// mappings read.
func (s *Source) Redact(typ string, body map[string]any) map[string]any {
	schema := &mappers.Schema{Kind: mappers.Map}
	if event := s.Events[typ]; event != nil {
		schema = &event.Schema
	}
	return s.redactObject(schema, body)
}

func (s *Source) redactObject(schema *mappers.Schema, object map[string]any) map[string]any {
	shown := make(map[string]any, len(object))
	for name, value := range object {
		field, known := schema.Fields[name]
		if !known && schema.Elem != nil {
			field = *schema.Elem
		}
		if value != nil && (field.Private || s.private[name]) {
			shown[name] = Hidden
		} else {
			shown[name] = s.redact(&field, value)
		}
	}
	return shown
}

func (s *Source) redact(schema *mappers.Schema, value any) any {
	switch v := value.(type) {
	case map[string]any:
		return s.redactObject(schema, v)
	case []any:
		elem := schema.Elem
		if elem == nil {
			elem = &mappers.Schema{}
		}
		shown := make([]any, len(v))
		for i, e := range v {
			if shown[i] = s.redact(elem, e); e != nil && elem.Private {
				shown[i] = Hidden
			}
		}
		return shown
	}
	return value
}

// privatePaths collects the paths below a schema that are private.
func privatePaths(schema mappers.Schema, below string, into map[string]bool) {
	for name, field := range schema.Fields {
		path := name
		if below != "" {
			path = below + "." + name
		}
		if field.Private {
			into[path] = true
		}
		privatePaths(field, path, into)
	}
	if schema.Elem != nil {
		privatePaths(*schema.Elem, below, into)
	}
}
