package sandbox

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	searchPage    = 200
	searchDepth   = 10_000
	searchGroups  = 5
	searchFilters = 6 // of a group
	searchAll     = 18
	searchBody    = 3000 // characters
)

// searchInput is the body of a search: groups are alternatives, the filters of one hold together.
type searchInput struct {
	FilterGroups []struct {
		Filters []searchFilter `json:"filters"`
	} `json:"filterGroups"`
	Sorts      []searchSort   `json:"sorts"`
	Query      string         `json:"query"`
	Properties []string       `json:"properties"`
	Limit      int            `json:"limit"`
	After      jsontext.Value `json:"after"` // a string or a number
}

type searchFilter struct {
	Property  string   `json:"propertyName"`
	Operator  string   `json:"operator"`
	Value     string   `json:"value"`
	Values    []string `json:"values"`
	HighValue string   `json:"highValue"`

	exact bool // the values are options
}

type searchSort struct {
	Property  string `json:"propertyName"`
	Direction string `json:"direction"`
}

func (h *hubspot) get(c *call, t *table, id string) reply {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	var r *record
	if key := c.query.Get("idProperty"); key == "" || key == hubspotKey {
		r = t.live(id)
	} else {
		if p := h.checkKey(t, key); p != nil {
			return h.fail(c, *p)
		}
		r = t.find(key, id)
	}
	if r == nil {
		return h.refusal(c, http.StatusNotFound, "")
	}
	v := h.view(t, r, r.properties, queryList(c, "properties"))
	return reply{status: http.StatusOK, body: appendView(nil, &v), rows: 1}
}

// list pages through an object by id.
func (h *hubspot) list(c *call, t *table) reply {
	limit := 10
	if s := c.query.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > hubspotBatch {
			return h.fail(c, *validation("limit must be between 1 and %d", hubspotBatch))
		}
		limit = n
	}
	after, _ := strconv.ParseInt(c.query.Get("after"), 10, 64)
	names := queryList(c, "properties")
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	var (
		views []view
		next  string
	)
	for _, r := range t.rows {
		if id, _ := strconv.ParseInt(r.id, 10, 64); r.archived || id < after {
			continue
		}
		if len(views) == limit {
			next = r.id
			break
		}
		views = append(views, h.view(t, r, r.properties, names))
	}
	return h.page(views, -1, next)
}

// readBatch finds records by id or by one unique property; the missing ones are one entry of errors.
func (h *hubspot) readBatch(c *call, t *table) reply {
	var in batchInput
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	if in.Properties == nil {
		return h.fail(c, *missingFields("properties"))
	}
	if in.History == nil {
		return h.fail(c, *missingFields("propertiesWithHistory"))
	}
	if p := checkSize(len(in.Inputs), hubspotBatch); p != nil {
		return h.fail(c, *p)
	}
	key := in.IDProperty.value
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	byID := key == "" || key == hubspotKey
	if !byID {
		if p := h.checkKey(t, key); p != nil {
			return h.fail(c, *p)
		}
	}
	var (
		views   []view
		missing []string
		failed  []errorRow
		seen    = map[*record]bool{}
	)
	for _, one := range in.Inputs {
		var r *record
		if byID {
			if r = t.live(one.ID.value); r == nil && t.object == "contacts" {
				// The id of a contact that was merged leads to the other: https://community.hubspot.com/t5/APIs-Integrations/Question-about-using-batch-read-API/m-p/1101616
				r = t.survivor(one.ID.value)
			}
		} else {
			r = t.find(key, one.ID.value)
		}
		switch {
		case r == nil:
			missing = append(missing, one.ID.value)
		case !seen[r]:
			seen[r] = true
			v := h.view(t, r, r.properties, in.Properties)
			// The value asked by is always in the answer.
			if !byID && !slices.Contains(in.Properties, key) {
				v.values = append(v.values, viewValue{name: key, value: text(r.properties[key])})
			}
			views = append(views, v)
		}
	}
	status := http.StatusOK
	if len(missing) > 0 {
		failed = append(failed, h.row(*h.notFound(t, missing...), ""))
		status = http.StatusMultiStatus
	}
	shuffle(views)
	return reply{status: status, body: appendBatch(nil, c.now, views, failed), rows: len(in.Inputs)}
}

// search sees the records as they were a lag ago. Texts compare whatever their case, but what stands under IN has to be in
// lower case, and options count as they are. (That IN finds nothing otherwise is assumed: the documentation says "must".)
func (h *hubspot) search(c *call, t *table) reply {
	in := searchInput{Limit: 10}
	if utf8.RuneCount(c.body) > searchBody {
		return h.fail(c, *validation("the request is longer than %d characters", searchBody)) // the text is assumed
	}
	if p := decode(c.body, &in); p != nil {
		return h.fail(c, *p)
	}
	after, err := strconv.Atoi(strings.Trim(string(in.After), `"`))
	if err != nil {
		after = 0
	}
	if in.Limit < 1 || in.Limit > searchPage {
		return h.fail(c, *validation("limit must be between 1 and %d", searchPage))
	}
	if after+in.Limit > searchDepth {
		return h.fail(c, *validation("a search returns at most %d results", searchDepth))
	}
	if p := in.check(); p != nil {
		return h.fail(c, *p)
	}
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	for _, g := range in.FilterGroups {
		for i := range g.Filters {
			f := &g.Filters[i]
			p := t.properties[f.Property]
			if p == nil {
				return h.fail(c, *invalidValues([]invalidValue{unknownProperty(f.Property)}))
			}
			f.exact = p.Type == "enumeration"
		}
	}
	type hit struct {
		record     *record
		properties map[string]any
	}
	var hits []hit
	for _, r := range t.rows {
		properties := h.store.indexed(r, c.now)
		if properties == nil {
			continue
		}
		value := func(name string) string { return h.value(r, properties, name) }
		matches := len(in.FilterGroups) == 0
		for _, g := range in.FilterGroups {
			holds := true
			for _, f := range g.Filters {
				holds = holds && f.holds(value(f.Property))
			}
			matches = matches || holds
		}
		if matches && in.Query != "" {
			matches = false
			for _, v := range properties {
				matches = matches || strings.Contains(strings.ToLower(text(v)), strings.ToLower(in.Query))
			}
		}
		if matches {
			hits = append(hits, hit{r, properties})
		}
	}
	for _, s := range in.Sorts {
		slices.SortStableFunc(hits, func(a, b hit) int {
			order := compareValues(h.value(a.record, a.properties, s.Property), h.value(b.record, b.properties, s.Property))
			if s.Direction == "DESCENDING" {
				return -order
			}
			return order
		})
	}
	total, next := len(hits), ""
	hits = hits[min(after, total):]
	if len(hits) > in.Limit {
		hits, next = hits[:in.Limit], strconv.Itoa(after+in.Limit)
	}
	var views []view
	for _, x := range hits {
		views = append(views, h.view(t, x.record, x.properties, in.Properties))
	}
	return h.page(views, total, next)
}

// check refuses more than a search takes, and filters that lack their value.
func (in *searchInput) check() *problem {
	all := 0
	for _, g := range in.FilterGroups {
		all += len(g.Filters)
		if len(g.Filters) > searchFilters {
			return validation("a filter group has at most %d filters", searchFilters)
		}
		for _, f := range g.Filters {
			several := f.Operator == "IN" || f.Operator == "NOT_IN"
			if several && len(f.Values) == 0 || f.Operator == "EQ" && f.Value == "" {
				return validation("operator %s requires a value", f.Operator)
			}
		}
	}
	if len(in.FilterGroups) > searchGroups || all > searchAll {
		return validation("a search has at most %d filter groups and %d filters", searchGroups, searchAll)
	}
	return nil
}

func (f *searchFilter) holds(value string) bool {
	same := func(v string) bool {
		if f.exact {
			return slices.Contains(strings.Split(value, ";"), v)
		}
		return strings.EqualFold(v, value)
	}
	listed := func(v string) bool {
		if f.exact {
			return same(v)
		}
		return v == strings.ToLower(value)
	}
	switch f.Operator {
	case "EQ":
		return value != "" && same(f.Value)
	case "NEQ":
		return value != "" && !same(f.Value)
	case "IN":
		return value != "" && slices.ContainsFunc(f.Values, listed)
	case "NOT_IN":
		return value != "" && !slices.ContainsFunc(f.Values, listed)
	case "HAS_PROPERTY":
		return value != ""
	case "NOT_HAS_PROPERTY":
		return value == ""
	case "CONTAINS_TOKEN":
		return holdsTokens(value, f.Value)
	case "LT":
		return value != "" && compareValues(value, f.Value) < 0
	case "LTE":
		return value != "" && compareValues(value, f.Value) <= 0
	case "GT":
		return value != "" && compareValues(value, f.Value) > 0
	case "GTE":
		return value != "" && compareValues(value, f.Value) >= 0
	case "BETWEEN":
		return value != "" && compareValues(value, f.Value) >= 0 && compareValues(value, f.HighValue) <= 0
	}
	return false
}

// holdsTokens reports whether a text has every word of another; at either end of that * stands for the rest of a word.
func holdsTokens(value, want string) bool {
	words := func(s string) []string {
		return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '*' })
	}
	theirs := words(value)
	ours := words(want)
	return len(ours) > 0 && !slices.ContainsFunc(ours, func(word string) bool {
		bare := strings.Trim(word, "*")
		return !slices.ContainsFunc(theirs, func(w string) bool {
			switch open, more := strings.HasPrefix(word, "*"), strings.HasSuffix(word, "*"); {
			case open && more:
				return strings.Contains(w, bare)
			case open:
				return strings.HasSuffix(w, bare)
			case more:
				return strings.HasPrefix(w, bare)
			}
			return w == bare
		})
	})
}

// view shows a record with the properties asked for; none asked for: the usual few of its object.
func (h *hubspot) view(t *table, r *record, properties map[string]any, names []string) view {
	v := view{id: r.id, created: r.created, updated: r.updated, modified: modifiedProperty(t.object)}
	if names == nil {
		names = defaultView(t.object)
	}
	for _, name := range names {
		if t.properties[name] == nil || h.virtual(name) {
			continue
		}
		value := text(properties[name])
		v.values = append(v.values, viewValue{name: name, value: value, null: value == ""})
	}
	return v
}

// value is a property as a filter sees it, those included that are not stored.
func (h *hubspot) value(r *record, properties map[string]any, name string) string {
	switch name {
	case hubspotKey:
		return r.id
	case "createdate":
		return r.created.UTC().Format(hubspotTime)
	case "lastmodifieddate", "hs_lastmodifieddate":
		return r.updated.UTC().Format(hubspotTime)
	}
	return text(properties[name])
}

func (h *hubspot) virtual(name string) bool {
	return name == hubspotKey || name == "createdate" || name == "lastmodifieddate" || name == "hs_lastmodifieddate"
}

// page is the body of a list, or with a total of 0 or more of a search.
func (h *hubspot) page(views []view, total int, next string) reply {
	b := []byte{'{'}
	if total >= 0 {
		b = append(b, `"total":`...)
		b = strconv.AppendInt(b, int64(total), 10)
		b = append(b, ',')
	}
	b = append(b, `"results":[`...)
	for i := range views {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendView(b, &views[i])
	}
	b = append(b, ']')
	if next != "" {
		b = append(b, `,"paging":{"next":{"after":`...)
		b = appendString(b, next)
		b = append(b, "}}"...)
	}
	return reply{status: http.StatusOK, body: append(b, '}'), rows: len(views)}
}

func modifiedProperty(object string) string {
	if object == "contacts" {
		return "lastmodifieddate"
	}
	return "hs_lastmodifieddate"
}

// compareValues orders numbers and times by what they mean, anything else as text.
func compareValues(a, b string) int {
	if x, err := strconv.ParseFloat(a, 64); err == nil {
		if y, err := strconv.ParseFloat(b, 64); err == nil {
			return cmp.Compare(x, y)
		}
	}
	if x, ok := parseTime(a); ok {
		if y, ok := parseTime(b); ok {
			return x.Compare(y)
		}
	}
	return strings.Compare(strings.ToLower(a), strings.ToLower(b))
}

// queryList reads a parameter that may be repeated and may hold several names each time.
func queryList(c *call, name string) []string {
	var out []string
	for _, value := range c.query[name] {
		for one := range strings.SplitSeq(value, ",") {
			if one = strings.TrimSpace(one); one != "" {
				out = append(out, one)
			}
		}
	}
	return out
}
