package sandbox

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// getOne reads a record, with the fields that the query names, or all that it has. The caller holds the store.
func (f *salesforce) getOne(c *call, t *table, version int, id string) reply {
	r, bad := f.find(c, t, id)
	if bad != nil {
		return *bad
	}
	names := append([]string{sfID}, t.names...)
	if list := c.query.Get("fields"); list != "" {
		names = strings.Split(list, ",")
	}
	body, err := f.show(t, r, version, names)
	if err != nil {
		return f.fail(http.StatusBadRequest, *err)
	}
	return jsonReply(http.StatusOK, body)
}

// show is a record as it is read.
func (f *salesforce) show(t *table, r *record, version int, names []string) (fieldMap, *sfError) {
	out := fieldMap{"attributes": map[string]string{"type": t.object, "url": sfURL(t, version, r.id)}}
	for _, name := range names {
		name = strings.TrimSpace(name)
		if strings.EqualFold(name, sfID) {
			out[sfID] = r.id
			continue
		}
		p := t.property(name)
		if p == nil {
			return nil, noColumn(t, name)
		}
		switch p.Name {
		case "CreatedDate":
			out[p.Name] = sfTime(r.created)
		case "LastModifiedDate", "SystemModstamp":
			out[p.Name] = sfTime(r.updated)
		case "IsDeleted":
			out[p.Name] = false
		default:
			out[p.Name] = r.properties[p.Name]
		}
	}
	return out, nil
}

// retrieve reads records by their ids; those that are not there are null.
func (f *salesforce) retrieve(c *call, version int, object string, ids, fields []string) reply {
	t := f.store.named(salesforceName, object)
	if t == nil {
		return f.refusal(c, http.StatusNotFound, "")
	}
	out := make([]any, len(ids))
	for i, id := range ids {
		if r := t.live(sfLongID(id)); r != nil {
			body, err := f.show(t, r, version, fields)
			if err != nil {
				return f.fail(http.StatusBadRequest, *err)
			}
			out[i] = body
		}
	}
	return jsonReply(http.StatusOK, out)
}

// query answers SELECT fields FROM object [WHERE conditions] [LIMIT n]: conditions are comparisons by =, !=, LIKE and IN, with
// AND, OR and parentheses. It sees every write at once. The answer is a page, from a record on.
func (f *salesforce) query(c *call, version int, text string, from int) reply {
	q, why := parseSOQL(text)
	if why != "" {
		return f.fail(http.StatusBadRequest, sfError{code: "MALFORMED_QUERY", message: why})
	}
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	t := f.listed(q.object)
	if t == nil {
		t = f.store.named(salesforceName, q.object)
	}
	if t == nil {
		return f.fail(http.StatusBadRequest, sfError{code: "INVALID_TYPE", message: "sObject type '" + q.object + "' is not supported."})
	}
	for _, name := range q.used {
		if !strings.EqualFold(name, sfID) && t.property(name) == nil {
			return f.fail(http.StatusBadRequest, *noColumn(t, name))
		}
	}
	for _, l := range q.literals {
		if why := l.misfits(t); why != "" {
			return f.fail(http.StatusBadRequest, sfError{code: "INVALID_FIELD", message: why})
		}
	}
	records := []fieldMap{}
	total := 0
	for _, r := range t.rows {
		if r.archived || total >= q.limit || q.where != nil && !q.where(sfField(t, r)) {
			continue
		}
		if total++; total <= from || len(records) >= soqlPage {
			continue
		}
		body, err := f.show(t, r, version, q.fields)
		if err != nil {
			return f.fail(http.StatusBadRequest, *err)
		}
		records = append(records, body)
	}
	end := from + len(records)
	out := map[string]any{"totalSize": total, "done": total <= end, "records": records}
	if total > end {
		f.cursors = append(f.cursors, text)
		out["nextRecordsUrl"] = fmt.Sprintf("/services/data/v%d.0/query/01g5g%010d-%d", version, len(f.cursors), end)
	}
	return jsonReply(http.StatusOK, out)
}

// queryMore answers a further page of a query.
func (f *salesforce) queryMore(c *call, version int, locator string) reply {
	var number, from int
	if _, err := fmt.Sscanf(locator, "01g5g%d-%d", &number, &from); err != nil {
		number = 0
	}
	f.store.mu.Lock()
	text := ""
	if number > 0 && number <= len(f.cursors) {
		text = f.cursors[number-1]
	}
	f.store.mu.Unlock()
	if text == "" {
		return f.fail(http.StatusBadRequest, sfError{code: "INVALID_QUERY_LOCATOR", message: "invalid query locator"})
	}
	return f.query(c, version, text, from)
}

// sfField reads a field of a record as text.
func sfField(t *table, r *record) func(string) string {
	return func(name string) string {
		if strings.EqualFold(name, sfID) {
			return r.id
		}
		return text(r.properties[t.property(name).Name])
	}
}

func sfURL(t *table, version int, id string) string {
	return "/services/data/v" + strconv.Itoa(version) + ".0/sobjects/" + t.object + "/" + id
}

// soql is a query taken apart.
type soql struct {
	object string
	fields []string
	used   []string // fields anywhere
	where  func(field func(string) string) bool
	limit  int

	literals []soqlLiteral
}

// soqlParser reads tokens; why is the first thing that is wrong.
type soqlParser struct {
	tokens   []string
	used     []string
	literals []soqlLiteral
	depth    int
	why      string
}

func parseSOQL(s string) (soql, string) {
	p := &soqlParser{}
	p.tokens, p.why = soqlTokens(s)
	q := soql{limit: math.MaxInt}
	p.expect("SELECT")
	for p.why == "" {
		name := p.next()
		if indexFold(q.fields, name) >= 0 {
			return q, "duplicate field selected: " + name
		}
		q.fields = append(q.fields, name)
		if p.peek() != "," {
			break
		}
		p.next()
	}
	p.expect("FROM")
	q.object = p.next()
	p.used = append(p.used, q.fields...)
	if strings.EqualFold(p.peek(), "WHERE") {
		p.next()
		q.where = p.alternatives()
	}
	if strings.EqualFold(p.peek(), "LIMIT") {
		p.next()
		q.limit = atoi(p.next(), soqlPage)
	}
	if p.why == "" && p.peek() != "" {
		p.fail()
	}
	q.used, q.literals = p.used, p.literals
	return q, p.why
}

func (p *soqlParser) alternatives() func(func(string) string) bool {
	any := []func(func(string) string) bool{p.conjunction()}
	for p.why == "" && strings.EqualFold(p.peek(), "OR") {
		p.next()
		any = append(any, p.conjunction())
	}
	return func(field func(string) string) bool {
		return slices.ContainsFunc(any, func(one func(func(string) string) bool) bool { return one(field) })
	}
}

func (p *soqlParser) conjunction() func(func(string) string) bool {
	all := []func(func(string) string) bool{p.condition()}
	for p.why == "" && strings.EqualFold(p.peek(), "AND") {
		p.next()
		all = append(all, p.condition())
	}
	return func(field func(string) string) bool {
		return !slices.ContainsFunc(all, func(one func(func(string) string) bool) bool { return !one(field) })
	}
}

func (p *soqlParser) condition() func(func(string) string) bool {
	if p.peek() == "(" {
		if p.depth++; p.depth > 100 {
			p.fail()
		}
		p.next()
		inner := p.alternatives()
		p.expect(")")
		return inner
	}
	name := p.next()
	p.used = append(p.used, name)
	operator := strings.ToUpper(p.next())
	var values []string
	switch operator {
	case "=", "!=", "LIKE":
		values = append(values, p.value(name, operator == "LIKE"))
	case "IN":
		p.expect("(")
		for p.why == "" {
			values = append(values, p.value(name, false))
			if p.peek() != "," {
				break
			}
			p.next()
		}
		p.expect(")")
	default:
		p.fail()
	}
	if operator == "LIKE" && p.why == "" {
		pattern := soqlPattern(values[0])
		return func(field func(string) string) bool { return pattern.MatchString(field(name)) }
	}
	return func(field func(string) string) bool {
		return (indexFold(values, field(name)) >= 0) == (operator != "!=")
	}
}

func (p *soqlParser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *soqlParser) next() string {
	if len(p.tokens) == 0 {
		p.fail()
		return ""
	}
	token := p.tokens[0]
	p.tokens = p.tokens[1:]
	return token
}

func (p *soqlParser) expect(word string) {
	if !strings.EqualFold(p.peek(), word) {
		p.fail()
		return
	}
	p.next()
}

func (p *soqlParser) fail() {
	if p.why == "" {
		p.why = "unexpected token: '" + shorten(p.peek(), 40) + "'"
	}
	p.tokens = nil
}

// soqlTokens cuts a query up, or says why it cannot. Text in quotes is a token that starts with the quote, its escapes as
// they are.
func soqlTokens(s string) ([]string, string) {
	var out []string
	for i := 0; i < len(s); {
		switch ch := s[i]; {
		case ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r':
			i++
		case ch == '\'':
			var b strings.Builder
			b.WriteByte('\'')
			for i++; i < len(s) && s[i] != '\''; i++ {
				b.WriteByte(s[i])
				if s[i] == '\\' && i+1 < len(s) {
					i++
					b.WriteByte(s[i])
				}
			}
			if i >= len(s) {
				return nil, "a text is never closed" // the words are assumed
			}
			i++
			out = append(out, b.String())
		case strings.ContainsRune("(),=", rune(ch)):
			out = append(out, string(ch))
			i++
		case strings.HasPrefix(s[i:], "!="):
			out = append(out, "!=")
			i += 2
		default:
			n := strings.IndexAny(s[i:], " \t\n\r'(),=!")
			if n < 0 {
				n = len(s) - i
			}
			n = max(n, 1)
			out = append(out, s[i:i+n])
			i += n
		}
	}
	return out, ""
}
