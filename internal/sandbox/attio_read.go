package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// atFilter tells whether a record passes.
type atFilter func(*record) bool

// query lists the records that pass a filter: a value per attribute, $eq of it or $in of several, joined by $and, $or and $not.
// It sees every write at once.
func (a *attio) query(c *call, t *table) reply {
	var in struct {
		Filter fieldMap `json:"filter"`
		Limit  float64  `json:"limit"`
		Offset float64  `json:"offset"`
		Sorts  []any    `json:"sorts"`
	}
	if len(c.body) > 0 {
		if err := parse(c.body, &in); err != nil {
			return a.fail(&atProblem{http.StatusBadRequest, "validation_type", "Body payload validation error: " + whyNot(err)})
		}
	}
	pass, problem := a.filter(t, in.Filter, 0)
	if problem != nil {
		return a.fail(problem)
	}
	most := 500
	if in.Limit >= 1 && in.Limit < 500 {
		most = int(in.Limit)
	}
	skip := 0
	if in.Offset >= 1 && in.Offset < 1e9 {
		skip = int(in.Offset)
	}
	data := []any{}
	for _, r := range t.rows {
		if r.archived || !pass(r) {
			continue
		}
		if skip--; skip < 0 && len(data) < most {
			data = append(data, a.show(t, r))
		}
	}
	return jsonReply(http.StatusOK, map[string]any{"data": data})
}

func (a *attio) filter(t *table, f fieldMap, depth int) (atFilter, *atProblem) {
	if depth > 20 {
		return nil, &atProblem{http.StatusBadRequest, "validation_type", "The filter is nested too deep."}
	}
	var all []atFilter
	for _, name := range sorted(f) {
		one, problem := a.clause(t, name, f[name], depth)
		if problem != nil {
			return nil, problem
		}
		all = append(all, one)
	}
	return func(r *record) bool {
		for _, one := range all {
			if !one(r) {
				return false
			}
		}
		return true
	}, nil
}

func (a *attio) clause(t *table, name string, v any, depth int) (atFilter, *atProblem) {
	switch name {
	case "$and", "$or":
		list, ok := v.([]any)
		if !ok {
			return nil, &atProblem{http.StatusBadRequest, "validation_type", fmt.Sprintf("Body payload validation error: %s wants an array.", name)}
		}
		var parts []atFilter
		for _, one := range list {
			m, _ := one.(map[string]any)
			part, problem := a.filter(t, m, depth+1)
			if problem != nil {
				return nil, problem
			}
			parts = append(parts, part)
		}
		return func(r *record) bool {
			for _, part := range parts {
				if part(r) != (name == "$and") {
					return name == "$or"
				}
			}
			return name == "$and"
		}, nil
	case "$not":
		m, _ := v.(map[string]any)
		inner, problem := a.filter(t, m, depth+1)
		if problem != nil {
			return nil, problem
		}
		return func(r *record) bool { return !inner(r) }, nil
	case "record_id":
		want, problem := atWanted(name, v)
		return func(r *record) bool { return slices.Contains(want, r.id) }, problem
	}
	p := a.attribute(t, name)
	if p == nil {
		return nil, &atProblem{http.StatusBadRequest, "unknown_filter_attribute_slug", fmt.Sprintf("Unknown attribute slug: %s", name)}
	}
	want, problem := atWanted(name, v)
	return func(r *record) bool { // that texts compare without their case is assumed
		return slices.ContainsFunc(want, func(one string) bool { return holds(r.properties[p.Name], one, strings.EqualFold) })
	}, problem
}

// atWanted reads the values that a clause compares with: plain, under $eq, several under $in, any of them under the key of its
// type, or a reference's id.
func atWanted(name string, v any) ([]string, *atProblem) {
	for range 3 {
		m, ok := v.(map[string]any)
		if !ok {
			return []string{text(v)}, nil
		}
		if id, has := m["target_record_id"]; has {
			return []string{text(id)}, nil
		}
		if list, several := m["$in"].([]any); several && len(m) == 1 {
			var out []string
			for _, one := range list {
				out = append(out, text(one))
			}
			return out, nil
		}
		if len(m) != 1 {
			break
		}
		for operator, inner := range m {
			if strings.HasPrefix(operator, "$") && operator != "$eq" {
				return nil, &atProblem{http.StatusBadRequest, "invalid_filter_operator", fmt.Sprintf("The operator %s is not known to the sandbox for %s.", operator, name)}
			}
			v = inner
		}
	}
	return nil, &atProblem{http.StatusBadRequest, "invalid_filter", fmt.Sprintf("The filter of %s is not understood.", name)}
}
