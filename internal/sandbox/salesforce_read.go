package sandbox

import (
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

// query answers SELECT fields FROM object [WHERE conditions] [LIMIT n]: conditions are comparisons by =, !=, and IN, with
// AND, OR and parentheses. It sees every write at once.
func (f *salesforce) query(c *call, version int) reply {
	q, why := parseSOQL(c.query.Get("q"))
	if why != "" {
		return f.fail(http.StatusBadRequest, sfError{code: "MALFORMED_QUERY", message: why})
	}
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	t := f.store.named(salesforceName, q.object)
	if t == nil {
		return f.fail(http.StatusBadRequest, sfError{code: "INVALID_TYPE", message: "sObject type '" + q.object + "' is not supported."})
	}
	for _, name := range q.used {
		if !strings.EqualFold(name, sfID) && t.property(name) == nil {
			return f.fail(http.StatusBadRequest, *noColumn(t, name))
		}
	}
	records := []fieldMap{}
	for _, r := range t.rows {
		if r.archived || len(records) >= q.limit || q.where != nil && !q.where(sfField(t, r)) {
			continue
		}
		body, err := f.show(t, r, version, q.fields)
		if err != nil {
			return f.fail(http.StatusBadRequest, *err)
		}
		records = append(records, body)
	}
	return jsonReply(http.StatusOK, map[string]any{"totalSize": len(records), "done": true, "records": records})
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
}

// soqlParser reads tokens; why is the first thing that is wrong.
type soqlParser struct {
	tokens []string
	used   []string
	depth  int
	why    string
}

func parseSOQL(s string) (soql, string) {
	p := &soqlParser{tokens: soqlTokens(s)}
	q := soql{limit: 2000}
	p.expect("SELECT")
	for p.why == "" {
		q.fields = append(q.fields, p.next())
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
		q.limit = atoi(p.next(), 2000)
	}
	if p.why == "" && p.peek() != "" {
		p.fail()
	}
	q.used = p.used
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
	case "=", "!=":
		values = append(values, p.value())
	case "IN":
		p.expect("(")
		for p.why == "" {
			values = append(values, p.value())
			if p.peek() != "," {
				break
			}
			p.next()
		}
		p.expect(")")
	default:
		p.fail()
	}
	return func(field func(string) string) bool {
		return (indexFold(values, field(name)) >= 0) == (operator != "!=")
	}
}

// value reads a literal: text in quotes, a number, true, false, or null, which is as good as no text.
func (p *soqlParser) value() string {
	token := p.next()
	if quoted, ok := strings.CutPrefix(token, "'"); ok {
		return quoted
	}
	if strings.EqualFold(token, "null") {
		return ""
	}
	if _, err := strconv.ParseFloat(token, 64); err != nil && token != "true" && token != "false" {
		p.fail()
	}
	return token
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

// soqlTokens cuts a query up. Text in quotes is a token that starts with the quote and has its escapes resolved.
func soqlTokens(s string) []string {
	var out []string
	for i := 0; i < len(s); {
		switch ch := s[i]; {
		case ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r':
			i++
		case ch == '\'':
			var b strings.Builder
			b.WriteByte('\'')
			for i++; i < len(s) && s[i] != '\''; i++ {
				if s[i] == '\\' && i+1 < len(s) {
					i++
				}
				b.WriteByte(s[i])
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
	return out
}
