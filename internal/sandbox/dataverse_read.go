package sandbox

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (d *dataverse) get(c *call, t *table, a dvAddress) reply {
	r := d.find(t, a)
	if r == nil {
		return d.fail(d.notThere(t, a))
	}
	return d.odata(http.StatusOK, d.show(c, t, r, true))
}

// list answers rows that pass $filter: comparisons by eq, joined by and, or by or.
func (d *dataverse) list(c *call, t *table) reply {
	pass, bad := d.filter(t, c.query.Get("$filter"))
	if bad != nil {
		return d.fail(bad)
	}
	most := atoi(c.query.Get("$top"), 5000)
	rows := []any{}
	for _, r := range t.rows {
		if !r.archived && len(rows) < most && pass(r) {
			rows = append(rows, d.show(c, t, r, false))
		}
	}
	return d.odata(http.StatusOK, map[string]any{"@odata.context": d.context(c, t), "value": rows})
}

func (d *dataverse) context(c *call, t *table) string {
	return c.base + "/api/data/v9.2/$metadata#" + t.object
}

// show is a row as it is read, with the columns of $select or all; a lookup is a column _name_value with an id.
func (d *dataverse) show(c *call, t *table, r *record, alone bool) fieldMap {
	out := fieldMap{"@odata.etag": `W/"` + strconv.Itoa(r.writes) + `"`, d.primary(t): r.id}
	if alone {
		out["@odata.context"] = d.context(c, t) + "/$entity"
	}
	var names []string
	if list := c.query.Get("$select"); list != "" {
		names = strings.Split(list, ",")
	}
	for _, name := range t.names {
		p := t.properties[name]
		column, value := name, r.properties[name]
		switch {
		case p.Type == "lookup":
			column = "_" + dvColumn(name, p) + "_value"
			if value == nil && out[column] != nil {
				continue // another navigation property of the same column has it
			}
		case name == "createdon":
			value = r.created.UTC().Format(time.RFC3339)
		case name == "modifiedon":
			value = r.updated.UTC().Format(time.RFC3339)
		case name == "fullname":
			value = strings.TrimSpace(text(r.properties["firstname"]) + " " + text(r.properties["lastname"]))
		}
		if names == nil || slices.Contains(names, column) {
			out[column] = value
		}
	}
	return out
}

// dvColumn is the column behind a navigation property: those of a polymorphic lookup end with what they refer to.
func dvColumn(navigation string, p *Property) string {
	stem := strings.TrimSuffix(navigation, "_task")
	for _, one := range dataverseTables {
		if one.set == p.Target {
			stem = strings.TrimSuffix(stem, "_"+one.logical)
		}
	}
	return stem
}

func (d *dataverse) filter(t *table, s string) (func(*record) bool, *dvError) {
	if strings.TrimSpace(s) == "" {
		return func(*record) bool { return true }, nil
	}
	type comparison struct {
		name, value string
	}
	var any [][]comparison
	all := []comparison{}
	for rest := s; ; {
		name, value, after, ok := dvComparison(rest)
		p := t.properties[name]
		if !ok || p == nil && name != d.primary(t) {
			return nil, &dvError{http.StatusBadRequest, "0x80060888", "The filter is not one that the sandbox understands, or names a column that is not there."}
		}
		all = append(all, comparison{name, value})
		word, tail, _ := strings.Cut(strings.TrimSpace(after), " ")
		rest = tail
		if word == "or" {
			any, all = append(any, all), nil
		} else if word == "" {
			any = append(any, all)
			break
		} else if word != "and" {
			return nil, &dvError{http.StatusBadRequest, "0x80060888", "Syntax error in the filter."}
		}
	}
	holdsOne := func(r *record, one comparison) bool {
		if one.name == d.primary(t) {
			return strings.EqualFold(r.id, one.value)
		}
		return holds(r.properties[one.name], one.value, strings.EqualFold)
	}
	return func(r *record) bool {
		return slices.ContainsFunc(any, func(all []comparison) bool {
			return !slices.ContainsFunc(all, func(one comparison) bool { return !holdsOne(r, one) })
		})
	}, nil
}

// dvComparison reads name eq 'value', or a value without quotes, null among them.
func dvComparison(s string) (name, value, rest string, ok bool) {
	name, s, _ = strings.Cut(strings.TrimSpace(s), " ")
	operator, s, _ := strings.Cut(strings.TrimSpace(s), " ")
	s = strings.TrimSpace(s)
	if operator != "eq" || s == "" {
		return "", "", "", false
	}
	if s[0] != '\'' {
		value, rest, _ = strings.Cut(s, " ")
		if value == "null" {
			value = ""
		}
		return name, value, rest, true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '\'' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			b.WriteByte('\'')
			i++
			continue
		}
		return name, b.String(), s[i+1:], true
	}
	return "", "", "", false
}
