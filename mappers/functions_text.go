package mappers

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
)

func textFunctions() []*function {
	return []*function{
		{
			FunctionDoc: FunctionDoc{Name: "lower", Doc: "the text in lower case", Examples: []Example{
				{`lower("Jane@Example.COM")`, `"jane@example.com"`}, {`lower(nil)`, `null`},
			}},
			params: []param{required("text", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { return strings.ToLower(a[0].(string)), nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "upper", Doc: "the text in upper case", Examples: []Example{
				{`upper("ca")`, `"CA"`},
			}},
			params: []param{required("text", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { return strings.ToUpper(a[0].(string)), nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "trim", Doc: "the text without blanks at both ends; of nothing but blanks, null", Examples: []Example{
				{`trim("  Jane ")`, `"Jane"`}, {`trim("   ")`, `null`},
			}},
			params: []param{required("text", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { return strings.TrimSpace(a[0].(string)), nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "split", Doc: "the parts of the text between separators", Examples: []Example{
				{`split("gold, emea", ", ")`, `["gold", "emea"]`}, {`split("a/b/c", "/")[-1]`, `"c"`},
			}},
			params: []param{required("text", Text), required("separator", Text)}, result: List,
			call: func(_ *Scope, a []any) (any, error) {
				var parts []any
				for part := range strings.SplitSeq(a[0].(string), a[1].(string)) {
					parts = append(parts, part)
				}
				return parts, nil
			},
		},
		{
			FunctionDoc: FunctionDoc{Name: "join", Doc: `the texts of a list in one, with ", " or another separator between them; missing ones are left out`, Examples: []Example{
				{`join(["gold", nil, "emea"], ";")`, `"gold;emea"`}, {`join(["a", "b"])`, `"a, b"`}, {`join([])`, `null`},
			}},
			params: []param{required("list", List), optional("separator", Text)}, result: Text,
			call: joinTexts,
		},
		{
			FunctionDoc: FunctionDoc{Name: "replace", Doc: "the text with every old part replaced by a new one", Examples: []Example{
				{`replace("part-42", "part-", "")`, `"42"`},
			}},
			params: []param{required("text", Text), required("old", Text), required("new", Text)}, result: Text,
			call: replaceText,
		},
		{
			FunctionDoc: FunctionDoc{Name: "html_text", Doc: "the readable text of HTML; where a link leads stands behind its words", Examples: []Example{
				{`html_text("<p>Hello <b>Jane</b></p>")`, `"Hello Jane"`}, {`html_text("<a href='https://acme.example'>our site</a>")`, `"our site (https://acme.example)"`},
			}},
			params: []param{required("html", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { return htmlText(a[0].(string)), nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "string", Doc: "a single value as text; lists and objects have text()", Examples: []Example{
				{`string(42)`, `"42"`}, {`string(12.50)`, `"12.5"`}, {`string(true)`, `"true"`}, {`string(nil)`, `null`},
			}},
			params: []param{required("value", Text, Number, Bool, Time)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { return a[0], nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "text", Doc: "any value as text for people: lists with commas, objects as name: value", Examples: []Example{
				{`text(["gold", "emea"])`, `"gold, emea"`}, {`text({"tier": "gold", "since": 2020})`, `"since: 2020; tier: gold"`},
			}},
			params: []param{required("value", Any)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { return readable(a[0], 0), nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "hash", Doc: "the SHA-256 of the value's text in hexadecimal digits, a key that tells nothing", Examples: []Example{
				{`hash("jane@example.com")`, `"8c87b489ce35cf2e2f39f80e282cb2e804932a56a213983eeeb428407d43b52d"`},
			}},
			params: []param{required("value", Any)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) {
				sum := sha256.Sum256([]byte(readable(a[0], 0)))
				return hex.EncodeToString(sum[:]), nil
			},
		},
	}
}

func joinTexts(_ *Scope, a []any) (any, error) {
	separator := ", "
	if s, ok := a[1].(string); ok {
		separator = s
	}
	var parts []string
	size := 0
	for _, e := range a[0].([]any) {
		s, ok := scalarText(e)
		if !ok && e != nil {
			return nil, plainf("the list holds %s; map(list, .field) takes a text of each", describe(e))
		}
		if s != "" {
			parts = append(parts, s)
			size += len(s) + len(separator)
		}
	}
	if size > maxBytes {
		return nil, plainf("the text gets too long")
	}
	return strings.Join(parts, separator), nil
}

func replaceText(_ *Scope, a []any) (any, error) {
	text, before, after := a[0].(string), a[1].(string), a[2].(string)
	if before == "" {
		return text, nil
	}
	if strings.Count(text, before)*(len(after)-len(before)) > maxBytes {
		return nil, plainf("the text gets too long")
	}
	return strings.ReplaceAll(text, before, after), nil
}

// readable writes out any value for people. What is missing is left out.
func readable(v any, depth int) string {
	if depth > deepest {
		return ""
	}
	var parts []string
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if s := readable(e, depth+1); s != "" {
				parts = append(parts, s)
			}
		}
		return strings.Join(parts, ", ")
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		slices.Sort(names)
		for _, name := range names {
			if s := readable(v[name], depth+1); s != "" {
				parts = append(parts, name+": "+s)
			}
		}
		return strings.Join(parts, "; ")
	}
	s, _ := scalarText(v)
	return s
}
