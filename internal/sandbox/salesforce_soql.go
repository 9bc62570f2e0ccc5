package sandbox

import (
	"regexp"
	"strconv"
	"strings"
)

// soqlPage is how many records an answer to a query holds.
const soqlPage = 2000

// soqlLiteral is a value that a field is compared with.
type soqlLiteral struct {
	field        string
	quoted, null bool
	like         bool
}

// misfits says why a field cannot be compared with the value: text is what stands in quotes, and nothing else is.
func (l soqlLiteral) misfits(t *table) string {
	kind := "string"
	if p := t.property(l.field); p != nil {
		kind = sfType(p)
	}
	bare := kind == "double" || kind == "int" || kind == "boolean" || kind == "date" || kind == "datetime"
	switch {
	case l.null:
		return ""
	case bare && l.like:
		return "invalid operator on " + kind + " field"
	case bare && l.quoted:
		return "value of filter criterion for field '" + l.field + "' must be of type " + kind + " and should not be enclosed in quotes"
	case !bare && !l.quoted:
		return "value of filter criterion for field '" + l.field + "' must be of type string and should be enclosed in quotes"
	}
	return ""
}

// value reads a literal: text in quotes, a number, a date, true, false, or null, which is as good as no text. Under LIKE the
// text keeps the escapes of its wildcards.
func (p *soqlParser) value(field string, like bool) string {
	token := p.next()
	l := soqlLiteral{field: field, like: like}
	if quoted, ok := strings.CutPrefix(token, "'"); ok {
		l.quoted = true
		if token, ok = soqlUnescape(quoted, like); !ok && p.why == "" {
			p.why = "Invalid string literal: illegal character sequence" // the text is assumed
		}
	} else if strings.EqualFold(token, "null") {
		l.null, token = true, ""
	} else if token != "true" && token != "false" && !isDate(token) && !isTime(token) {
		n, err := strconv.ParseFloat(token, 64)
		if err != nil {
			p.fail()
		}
		token = text(n)
	}
	p.literals = append(p.literals, l)
	return token
}

// soqlUnescape resolves the escapes of a text; false where there is no such escape.
func soqlUnescape(s string, like bool) (string, bool) {
	const escapes, meant = `nrtbf"'\`, "\n\r\t\b\f\"'\\"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			return "", false
		}
		switch at := strings.IndexByte(escapes, s[i]); {
		case like && strings.IndexByte(`%_\`, s[i]) >= 0:
			b.WriteByte('\\')
			b.WriteByte(s[i])
		case at >= 0:
			b.WriteByte(meant[at])
		default:
			return "", false
		}
	}
	return b.String(), true
}

// soqlPattern is what LIKE compares with: % is any text, _ any character.
func soqlPattern(s string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?is)^`)
	escaped := false
	for _, r := range s {
		switch {
		case !escaped && r == '\\':
			escaped = true
			continue
		case !escaped && r == '%':
			b.WriteString(`.*`)
		case !escaped && r == '_':
			b.WriteString(`.`)
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
		escaped = false
	}
	return regexp.MustCompile(b.String() + `$`)
}
