package mappers

import (
	"slices"
	"strings"

	"github.com/nyaruka/phonenumbers"
)

func peopleFunctions() []*function {
	return []*function{
		{
			FunctionDoc: FunctionDoc{Name: "phone", Doc: "the phone number in E.164, or null where it is none; the country, as code or name, is that of numbers without +, as country() knows it", Examples: []Example{
				{`phone("(416) 555-0123", "CA")`, `"+14165550123"`}, {`phone("+44 20 7946 0958", nil)`, `"+442079460958"`}, {`phone("n/a", "CA")`, `null`},
			}},
			params: []param{required("number", Text), optional("country", Text)}, result: Text,
			call: phone,
		},
		{
			FunctionDoc: FunctionDoc{Name: "country", Doc: "the two-letter code of a country, given as a code of two or three letters or as its English name, also that of ISO 3166; null where it is none, which is counted", Examples: []Example{
				{`country("Canada")`, `"CA"`}, {`country("usa")`, `"US"`}, {`country("DEU")`, `"DE"`}, {`country("Türkiye")`, `"TR"`}, {`country("Korea, Republic of")`, `"KR"`}, {`country("Atlantis")`, `null`},
			}},
			params: []param{required("country", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) {
				code := countryCode(a[0].(string))
				if code == "" {
					return nil, &unknown{Countries}
				}
				return code, nil
			},
		},
		{
			FunctionDoc: FunctionDoc{Name: "email", Doc: "the e-mail address in one form: lower case, without the name and mailto: around it, its domain as DNS has it; null where it is none, or several", Examples: []Example{
				{`email(" Jane.Doe@Example.COM ")`, `"jane.doe@example.com"`}, {`email("Jane Doe <jane@example.com>")`, `"jane@example.com"`}, {`email("mailto:jane@example.com?subject=Hi")`, `"jane@example.com"`}, {`email("jane@bücher.example")`, `"jane@xn--bcher-kva.example"`}, {`email("n/a")`, `null`},
			}},
			params: []param{required("address", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { return email(a[0].(string)), nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "domain", Doc: "the domain of an e-mail address or URL, as DNS has it, without www.; null for free mail and hosts that many share", Examples: []Example{
				{`domain("jane@best-company.example")`, `"best-company.example"`}, {`domain("https://www.Best-Company.example/about")`, `"best-company.example"`}, {`domain("jane@gmail.com")`, `null`}, {`domain("facebook.com/best")`, `null`},
			}},
			params: []param{required("address", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { return domain(a[0].(string)), nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "full_name", Doc: "first and last name in one; null when both are missing", Examples: []Example{
				{`full_name("Jane", "Doe")`, `"Jane Doe"`}, {`full_name("Jane", nil)`, `"Jane"`}, {`full_name(nil, nil)`, `null`},
			}},
			params: []param{required("first", Text), required("last", Text)}, result: Text, nulls: true,
			call: func(_ *Scope, a []any) (any, error) {
				first, _ := a[0].(string)
				last, _ := a[1].(string)
				return strings.TrimSpace(strings.TrimSpace(first) + " " + strings.TrimSpace(last)), nil
			},
		},
		{
			FunctionDoc: FunctionDoc{Name: "first_name", Doc: "the first word of a full name, or what stands behind its comma", Examples: []Example{
				{`first_name("Jane van Doe")`, `"Jane"`}, {`first_name("Doe, Jane")`, `"Jane"`},
			}},
			params: []param{required("name", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { first, _ := splitName(a[0].(string)); return first, nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "last_name", Doc: "what follows the first word of a full name, or stands in front of its comma", Examples: []Example{
				{`last_name("Jane van Doe")`, `"van Doe"`}, {`last_name("Doe, Jane")`, `"Doe"`}, {`last_name("Jane")`, `null`},
			}},
			params: []param{required("name", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { _, last := splitName(a[0].(string)); return last, nil },
		},
	}
}

// titles may follow a name and its comma.
var titles = []string{"jr", "sr", "ii", "iii", "iv", "esq", "phd", "md", "mba", "cpa", "inc", "llc", "ltd"}

func splitName(name string) (first, last string) {
	if before, after, ok := strings.Cut(name, ","); ok {
		if !slices.Contains(titles, strings.ReplaceAll(fold(after), ".", "")) {
			return strings.TrimSpace(after), strings.TrimSpace(before)
		}
		name = before
	}
	words := strings.Fields(name)
	if len(words) == 0 {
		return "", ""
	}
	return words[0], strings.Join(words[1:], " ")
}

func phone(_ *Scope, a []any) (any, error) {
	region, _ := a[1].(string)
	code := countryCode(region)
	if code == "" && region != "" && !strings.ContainsAny(a[0].(string), "+＋") {
		return nil, &unknown{Countries}
	}
	number, err := phonenumbers.Parse(a[0].(string), code)
	if err != nil || !phonenumbers.IsValidNumber(number) {
		return nil, nil
	}
	return phonenumbers.Format(number, phonenumbers.E164), nil
}
