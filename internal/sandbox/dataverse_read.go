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
	if bad := d.selects(c, t); bad != nil {
		return d.fail(bad)
	}
	return d.odata(http.StatusOK, d.show(c, t, r, true))
}

// list answers rows that pass $filter.
func (d *dataverse) list(c *call, t *table) reply {
	if len(c.uri) > dataverseAddress {
		return d.refusal(c, http.StatusRequestURITooLong, "") // that the status is this one is assumed
	}
	if bad := d.selects(c, t); bad != nil {
		return d.fail(bad)
	}
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

// selects refuses a $select with a column that is not there.
func (d *dataverse) selects(c *call, t *table) *dvError {
	if c.query.Get("$select") == "" {
		return nil
	}
	for name := range strings.SplitSeq(c.query.Get("$select"), ",") {
		known := name == d.primary(t) || t.properties[name] != nil && t.properties[name].Type != "lookup"
		for _, navigation := range t.names {
			p := t.properties[navigation]
			known = known || p.Type == "lookup" && name == "_"+dvColumn(navigation, p)+"_value"
		}
		if !known {
			return &dvError{http.StatusBadRequest, "0x80060888", "Could not find a property named '" + shorten(name, 80) + "' on type 'Microsoft.Dynamics.CRM." + t.typeID + "'."}
		}
	}
	return nil
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

// filter reads what $filter says: comparisons by eq and contains(), joined by and, or and parentheses.
func (d *dataverse) filter(t *table, s string) (func(*record) bool, *dvError) {
	if strings.TrimSpace(s) == "" {
		return func(*record) bool { return true }, nil
	}
	p := &dvFilter{rest: s, table: t, primary: d.primary(t)}
	pass := p.alternatives()
	if p.why == "" && strings.TrimSpace(p.rest) != "" {
		p.fail("Syntax error in the filter.")
	}
	if p.why != "" {
		return nil, &dvError{http.StatusBadRequest, "0x80060888", p.why}
	}
	return pass, nil
}

// dvFilter reads a filter.
type dvFilter struct {
	rest    string
	table   *table
	primary string
	depth   int
	why     string
}

func (p *dvFilter) alternatives() func(*record) bool {
	out := p.conjunction()
	for p.word("or") {
		left, right := out, p.conjunction()
		out = func(r *record) bool { return left(r) || right(r) }
	}
	return out
}

func (p *dvFilter) conjunction() func(*record) bool {
	out := p.comparison()
	for p.word("and") {
		left, right := out, p.comparison()
		out = func(r *record) bool { return left(r) && right(r) }
	}
	return out
}

func (p *dvFilter) comparison() func(*record) bool {
	never := func(*record) bool { return false }
	p.rest = strings.TrimSpace(p.rest)
	if p.depth++; p.depth > 500 {
		p.fail("The filter has too many conditions.")
		return never
	}
	if rest, ok := strings.CutPrefix(p.rest, "("); ok {
		p.rest = rest
		inner := p.alternatives()
		p.rest = strings.TrimSpace(p.rest)
		if rest, ok = strings.CutPrefix(p.rest, ")"); !ok {
			p.fail("Syntax error in the filter: a parenthesis is missing.")
		}
		p.rest = rest
		return inner
	}
	inside := false
	name, rest, _ := strings.Cut(p.rest, " ")
	if after, ok := strings.CutPrefix(p.rest, "contains("); ok {
		inside = true
		name, rest, _ = strings.Cut(after, ",")
	}
	if p.rest = rest; !inside && !p.word("eq") {
		p.fail("The filter is not one that the sandbox understands.")
		return never
	}
	value, quoted, ok := p.literal()
	if rest, closed := strings.CutPrefix(p.rest, ")"); inside {
		p.rest, ok = rest, ok && closed
	}
	if !ok {
		p.fail("Syntax error in the filter: there is an unterminated literal.")
		return never
	}
	if name == p.primary {
		if quoted || !isGUID(value) {
			p.fail("A binary operator with incompatible types was detected. Found operand types 'Edm.Guid' and 'Edm.String' for operator kind 'Equal'.")
		}
		return func(r *record) bool { return strings.EqualFold(r.id, value) }
	}
	column := p.table.properties[name]
	if column != nil && column.Type == "lookup" {
		column = nil // it goes by the name of its column
	}
	for _, navigation := range p.table.names {
		if one := p.table.properties[navigation]; one.Type == "lookup" && name == "_"+dvColumn(navigation, one)+"_value" && column == nil {
			column = one
		}
	}
	switch {
	case column == nil:
		p.fail("Could not find a property named '" + shorten(name, 80) + "' on type 'Microsoft.Dynamics.CRM." + p.table.typeID + "'.")
		return never
	case value == "null" && !quoted:
		value = ""
	case column.Type != anyType && quoted != (column.Type == "string"):
		p.fail("A binary operator with incompatible types was detected for the column '" + name + "' and operator kind 'Equal'.")
		return never
	}
	if inside {
		return func(r *record) bool {
			return quoted && strings.Contains(strings.ToLower(text(r.properties[column.Name])), strings.ToLower(value))
		}
	}
	return func(r *record) bool { return holds(r.properties[column.Name], value, strings.EqualFold) }
}

// literal takes a value in quotes, of which one inside is doubled, or one without.
func (p *dvFilter) literal() (value string, quoted, ok bool) {
	p.rest = strings.TrimSpace(p.rest)
	if !strings.HasPrefix(p.rest, "'") {
		end := strings.IndexAny(p.rest, " )")
		if end < 0 {
			end = len(p.rest)
		}
		value, p.rest = p.rest[:end], p.rest[end:]
		return value, false, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		if p.rest[i] == '\'' {
			if i+1 == len(p.rest) || p.rest[i+1] != '\'' {
				p.rest = p.rest[i+1:]
				return b.String(), true, true
			}
			i++
		}
		b.WriteByte(p.rest[i])
	}
	return "", true, false
}

// word takes an operator, which blanks or a parenthesis part from what follows.
func (p *dvFilter) word(word string) bool {
	rest, ok := strings.CutPrefix(strings.TrimSpace(p.rest), word)
	if p.why != "" || !ok || !strings.HasPrefix(rest, " ") && !strings.HasPrefix(rest, "(") {
		return false
	}
	p.rest = rest
	return true
}

func (p *dvFilter) fail(why string) {
	if p.why == "" {
		p.why = why
	}
	p.rest = ""
}
