package sandbox

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// zExternals are the fields that the header X-EXTERNAL names: that which stands in for the id of the module's own records, and
// those by which lookups name theirs.
type zExternals struct {
	key     string
	lookups map[string]string // lookup field, field of the module that it refers to
}

// externals reads the header: Contacts.External_ID, Contacts.Account_Name.External_ID.
func (z *zoho) externals(c *call, t *table) (zExternals, *zError) {
	out := zExternals{lookups: map[string]string{}}
	header := c.header.Get("X-External")
	if header == "" {
		return out, nil
	}
	for one := range strings.SplitSeq(header, ",") {
		parts := strings.Split(strings.TrimSpace(one), ".")
		wrong := &zError{"INVALID_DATA", "the value of X-EXTERNAL seems to be invalid", fieldMap{"header": "X-EXTERNAL"}}
		if len(parts) < 2 || len(parts) > 3 || parts[0] != t.object || t.properties[parts[1]] == nil {
			return out, wrong
		}
		if len(parts) == 2 {
			out.key = parts[1]
			continue
		}
		if t.properties[parts[1]].Type != "lookup" {
			return out, wrong
		}
		out.lookups[parts[1]] = parts[2]
	}
	return out, nil
}

// get reads a record by id, or by a value of an external field.
func (z *zoho) get(c *call, t *table, id string) reply {
	external, bad := z.externals(c, t)
	if bad != nil {
		return z.fail(http.StatusBadRequest, *bad)
	}
	r := t.live(id)
	if external.key != "" {
		if found := t.holders(external.key, id); len(found) == 1 {
			r = found[0]
		}
	}
	if r == nil {
		return reply{status: http.StatusNoContent}
	}
	return jsonReply(http.StatusOK, map[string]any{"data": []any{z.show(t, r, nil)}})
}

// list pages through the records, or reads those whose ids the query lists. The fields have to be named.
func (z *zoho) list(c *call, t *table) reply {
	if c.query.Get("fields") == "" {
		return z.fail(http.StatusBadRequest, zError{"REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", fieldMap{"param_name": "fields"}})
	}
	ids := c.query.Get("ids")
	if strings.Count(ids, ",") >= zohoIDs {
		return z.fail(http.StatusBadRequest, zError{"INVALID_DATA", "the ids given are too many", fieldMap{"param_name": "ids", "maximum_length": zohoIDs}}) // the words are assumed
	}
	return z.page(c, t, func(r *record) bool {
		return !r.archived && (ids == "" || slices.Contains(strings.Split(ids, ","), r.id))
	})
}

// search finds records by criteria or by e-mail address, as far as the index has come. That it lags is assumed.
func (z *zoho) search(c *call, t *table) reply {
	now := z.server.options.Now()
	criteria, email := c.query.Get("criteria"), c.query.Get("email")
	pass := func(seen fieldMap) bool { return strings.EqualFold(text(seen["Email"]), email) }
	if criteria != "" {
		p := &zCriteria{rest: criteria, table: t, wide: z.server.varies(ZohoEqualsContains)}
		pass = p.alternatives()
		if p.why == "" && strings.TrimSpace(p.rest) != "" {
			p.why = "unexpected end"
		}
		if p.why != "" {
			details := fieldMap{"reason": p.why}
			if p.field != "" { // that the field is named is assumed
				details["api_name"] = p.field
			}
			return z.fail(http.StatusBadRequest, zError{"INVALID_QUERY", "invalid query formed", details})
		}
	} else if email == "" {
		return z.fail(http.StatusBadRequest, zError{"REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", fieldMap{"param_name": "criteria"}})
	}
	return z.page(c, t, func(r *record) bool {
		seen := z.store.indexed(r, now)
		return seen != nil && pass(seen)
	})
}

// coql is as much of COQL as there is here: one field, and the values that it may have.
var coql = regexp.MustCompile(`^select (\w+(?:, ?\w+)*) from (\w+) where (\w+) in \(('(?:[^']|'')*'(?:, ?'(?:[^']|'')*')*)\) limit (\d+)$`)

// query finds records by COQL. It knows what a search knows, and minds case as little: both are assumed.
func (z *zoho) query(c *call) reply {
	if z.server.lacks("ZohoCRM.coql.READ") {
		return z.fail(http.StatusUnauthorized, zError{"OAUTH_SCOPE_MISMATCH", "Unauthorized", nil})
	}
	var in struct {
		Query string `json:"select_query"`
	}
	parts := []string(nil)
	if parse(c.body, &in) == nil {
		parts = coql.FindStringSubmatch(in.Query)
	}
	if parts == nil {
		return z.fail(http.StatusBadRequest, zError{"SYNTAX_ERROR", "unable to parse the query", nil}) // the words are assumed
	}
	t := z.store.named(zohoName, parts[2])
	if t == nil {
		return z.fail(http.StatusBadRequest, zError{"INVALID_QUERY", "the module is not supported", nil})
	}
	names := strings.Split(strings.ReplaceAll(parts[1], " ", ""), ",")
	for _, name := range append(slices.Clone(names), parts[3]) {
		if name != "id" && t.properties[name] == nil {
			return z.fail(http.StatusBadRequest, zError{"INVALID_QUERY", "the field is not available", fieldMap{"column_name": name}})
		}
	}
	var values []string
	for _, quoted := range coqlValue.FindAllString(parts[4], -1) {
		values = append(values, strings.ReplaceAll(quoted[1:len(quoted)-1], "''", "'"))
	}
	size := atoi(parts[5], 200)
	if len(values) > zohoIDs || size > 2000 || len(names) > zohoFields {
		return z.fail(http.StatusBadRequest, zError{"LIMIT_REACHED", "the query asks for too much", nil})
	}
	now := z.server.options.Now()
	return z.rows(t, names, size, 1, func(r *record) bool {
		seen := z.store.indexed(r, now)
		return seen != nil && indexFold(values, text(seen[parts[3]])) >= 0
	})
}

var coqlValue = regexp.MustCompile(`'(?:[^']|'')*'`)

// page answers the records that pass; without one there is no content.
func (z *zoho) page(c *call, t *table, pass func(*record) bool) reply {
	var names []string
	if list := c.query.Get("fields"); list != "" {
		names = strings.Split(list, ",")
	}
	return z.rows(t, names, min(atoi(c.query.Get("per_page"), 200), 200), atoi(c.query.Get("page"), 1), pass)
}

func (z *zoho) rows(t *table, names []string, size, number int, pass func(*record) bool) reply {
	if len(names) > zohoFields {
		return z.fail(http.StatusBadRequest, zError{"INVALID_DATA", "the fields given are too many", fieldMap{"param_name": "fields", "maximum_length": zohoFields}}) // the words are assumed
	}
	data := []any{}
	more := false
	skip := size * (number - 1)
	for _, r := range t.rows {
		if !pass(r) {
			continue
		}
		if skip--; skip >= 0 {
			continue
		}
		if len(data) == size {
			more = true
			break
		}
		data = append(data, z.show(t, r, names))
	}
	if len(data) == 0 {
		return reply{status: http.StatusNoContent}
	}
	return jsonReply(http.StatusOK, map[string]any{
		"data": data, "info": map[string]any{"per_page": size, "count": len(data), "page": number, "more_records": more},
	})
}

// show is a record as it is read; a lookup shows the id of the other record.
func (z *zoho) show(t *table, r *record, names []string) fieldMap {
	out := fieldMap{"id": r.id}
	for _, name := range t.names {
		if names != nil && !slices.Contains(names, name) {
			continue
		}
		value := r.properties[name]
		if t.properties[name].Type == "lookup" && value != nil {
			value = map[string]any{"id": value}
		}
		switch name {
		case "Created_Time":
			value = r.created.UTC().Format(zohoTime)
		case "Modified_Time":
			value = r.updated.UTC().Format(zohoTime)
		}
		out[name] = value
	}
	return out
}

// zCriteria reads (Field:equals:value), joined by and, or and further parentheses: ten of them at most.
type zCriteria struct {
	rest  string
	table *table
	wide  bool // equals finds what contains the value
	depth int
	count int
	why   string
	field string // that is to blame
}

func (p *zCriteria) alternatives() func(fieldMap) bool {
	out := p.conjunction()
	for p.word("or") {
		left, right := out, p.conjunction()
		out = func(seen fieldMap) bool { return left(seen) || right(seen) }
	}
	return out
}

func (p *zCriteria) conjunction() func(fieldMap) bool {
	out := p.condition()
	for p.word("and") {
		left, right := out, p.condition()
		out = func(seen fieldMap) bool { return left(seen) && right(seen) }
	}
	return out
}

func (p *zCriteria) condition() func(fieldMap) bool {
	never := func(fieldMap) bool { return false }
	p.rest = strings.TrimSpace(p.rest)
	if p.depth++; p.depth > 50 || !strings.HasPrefix(p.rest, "(") {
		p.fail("a parenthesis is missing")
		return never
	}
	p.rest = strings.TrimSpace(p.rest[1:])
	if strings.HasPrefix(p.rest, "(") {
		inner := p.alternatives()
		p.rest = strings.TrimSpace(p.rest)
		if !strings.HasPrefix(p.rest, ")") {
			p.fail("a parenthesis is missing")
			return never
		}
		p.rest = p.rest[1:]
		return inner
	}
	parts, ok := p.upto()
	if ok && len(parts) == 3 && p.table.properties[parts[0]] == nil {
		p.field = parts[0]
		p.fail("the field is not available for search")
		return never
	}
	if !ok || len(parts) != 3 {
		p.fail("a criterion is not of the form field:comparator:value, with parentheses and commas of the value behind backslashes")
		return never
	}
	if p.count++; p.count > zohoCriteria {
		p.fail("there are more than ten criteria")
		return never
	}
	name, want := parts[0], parts[2]
	switch parts[1] {
	case "equals":
		if p.wide {
			return func(seen fieldMap) bool {
				return strings.Contains(strings.ToLower(text(seen[name])), strings.ToLower(want))
			}
		}
		return func(seen fieldMap) bool { return strings.EqualFold(text(seen[name]), want) }
	case "not_equal":
		return func(seen fieldMap) bool { return !strings.EqualFold(text(seen[name]), want) }
	case "starts_with":
		return func(seen fieldMap) bool {
			return strings.HasPrefix(strings.ToLower(text(seen[name])), strings.ToLower(want))
		}
	case "in":
		return func(seen fieldMap) bool { return indexFold(strings.Split(want, ","), text(seen[name])) >= 0 }
	}
	p.fail("the comparator is not known")
	return never
}

// upto takes field, comparator and value before the closing parenthesis. A backslash takes the meaning from parentheses and
// commas, and, as assumed, from itself; without one they are no part of a value, but for the commas of a list.
func (p *zCriteria) upto() ([]string, bool) {
	parts := []string{""}
	for i := 0; i < len(p.rest); i++ {
		last := len(parts) - 1
		switch c := p.rest[i]; {
		case c == '\\' && i+1 < len(p.rest):
			i++
		case c == ':' && last < 2:
			parts = append(parts, "")
			continue
		case c == ')':
			p.rest = p.rest[i+1:]
			return parts, true
		case c == '(', c == ',' && (last < 2 || parts[1] != "in"):
			return nil, false
		}
		parts[last] += p.rest[i : i+1]
	}
	return nil, false
}

func (p *zCriteria) word(word string) bool {
	rest := strings.TrimSpace(p.rest)
	if p.why != "" || len(rest) <= len(word) || !strings.EqualFold(rest[:len(word)], word) {
		return false
	}
	p.rest = rest[len(word):]
	return true
}

func (p *zCriteria) fail(why string) {
	if p.why == "" {
		p.why = why
	}
	p.rest = ""
}
