package mappers

import (
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/shopspring/decimal"
)

func valueFunctions() []*function {
	return []*function{
		{
			FunctionDoc: FunctionDoc{Name: "value", Doc: "a fixed value", Examples: []Example{
				{`value("NEW")`, `"NEW"`}, {`value(true)`, `true`},
			}},
			params: []param{required("value", Any)}, result: Any,
			call: func(_ *Scope, a []any) (any, error) { return a[0], nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "has", Doc: "whether the value is there at all; with a second argument, whether a list holds it, an object has a field of that name, a text contains it", Examples: []Example{
				{`has("x")`, `true`}, {`has("")`, `false`}, {`has(nil)`, `false`}, {`has(["gold", "emea"], "gold")`, `true`}, {`has({"tier": "gold"}, "group")`, `false`},
			}},
			params: []param{required("value", Any), optional("part", Any)}, result: Bool, nulls: true,
			call: has,
		},
		{
			FunctionDoc: FunctionDoc{Name: "bool", Doc: "true for true, yes, on and 1, false for false, no, off and 0, null for the rest", Examples: []Example{
				{`bool("false")`, `false`}, {`bool("Yes")`, `true`}, {`bool(1)`, `true`}, {`bool("maybe")`, `null`},
			}},
			params: []param{required("value", Text, Integer, Number, Bool)}, result: Bool,
			call: func(_ *Scope, a []any) (any, error) {
				switch strings.ToLower(strings.TrimSpace(a[0].(string))) {
				case "true", "yes", "y", "on", "1":
					return true, nil
				case "false", "no", "n", "off", "0":
					return false, nil
				}
				return nil, nil
			},
		},
		{
			FunctionDoc: FunctionDoc{Name: "len", Doc: "the number of elements of a list, or of characters of a text", Examples: []Example{
				{`len(["a", "b"])`, `2`}, {`len("Zoë")`, `3`}, {`len(nil)`, `null`},
			}},
			params: []param{required("value", List, Text)}, result: Integer,
			call: func(_ *Scope, a []any) (any, error) {
				if l, ok := a[0].([]any); ok {
					return int64(len(l)), nil
				}
				return int64(len([]rune(a[0].(string)))), nil
			},
		},
		{
			FunctionDoc: FunctionDoc{Name: "lookup", Doc: "what the table of that name has for the value, whatever its case; what a missing value does says the table's else", Examples: []Example{
				{`lookup("closed won", "deal_stages")`, `"closedwon"`}, {`lookup(nil, "deal_stages")`, `null`},
			}},
			params: []param{required("value", Text, Number, Bool), required("table", Text)}, result: Any,
			call: func(s *Scope, a []any) (any, error) {
				name := a[1].(string)
				return s.Tables[name].lookup(name, a[0].(string))
			},
		},
		{
			FunctionDoc: FunctionDoc{Name: "field", Doc: "a custom field by its label, from the fields or meta of the object, whatever random ending its key has; two that fit are an error", Examples: []Example{
				{`field({"meta": {"company_name_38n83e3e3": "Some Company"}}, "Company name")`, `"Some Company"`},
				{`field({"fields": [{"name": "Region", "value": "EMEA"}]}, "region")`, `"EMEA"`},
				{`field({"meta": {}}, "region")`, `null`},
			}},
			params: []param{required("object", Object), required("label", Text)}, result: Any,
			call: customField,
		},
		{
			FunctionDoc: FunctionDoc{Name: "cents", Doc: "an amount in minor units as an exact amount in major ones; without a currency, the source's counts; one that is not known is an error", Examples: []Example{
				{`cents(8753)`, `87.53`}, {`cents(500, "JPY")`, `500`}, {`cents(1500, "KWD")`, `1.5`}, {`cents(-250)`, `-2.5`},
			}},
			params: []param{required("amount", Number), optional("currency", Text)}, result: Number,
			call: func(s *Scope, a []any) (any, error) {
				currency := s.Currency
				if c, ok := a[1].(string); ok && c != "" {
					currency = c
				}
				digits := int32(2)
				if currency != "" {
					var ok bool
					if _, digits, ok = Currency(currency); !ok {
						return nil, plainf("the currency is not known")
					}
				}
				return a[0].(decimal.Decimal).Shift(-digits), nil
			},
		},
		{
			FunctionDoc: FunctionDoc{Name: "date", Doc: "the day of a time, in a zone or the source's", Examples: []Example{
				{`date("2020-03-01T05:00:00Z", "America/Toronto")`, `"2020-03-01"`}, {`date("2020-03-01T04:59:59Z", "America/Toronto")`, `"2020-02-29"`}, {`date("2020-03-01")`, `"2020-03-01"`},
			}},
			params: []param{required("time", Time, Text), optional("zone", Text)}, result: Text,
			call: date,
		},
		{
			FunctionDoc: FunctionDoc{Name: "datetime", Doc: "the time in RFC 3339, in UTC", Examples: []Example{
				{`datetime("2020-03-01 05:00:00")`, `"2020-03-01T05:00:00Z"`}, {`datetime("2020-03-01T00:00:00.000-0500")`, `"2020-03-01T05:00:00Z"`},
			}},
			params: []param{required("time", Time, Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) {
				t, err := timeOf(a[0])
				return timeText(t.UTC()), err
			},
		},
		{
			FunctionDoc: FunctionDoc{Name: "unix_ms", Doc: "the time in milliseconds since 1970", Examples: []Example{
				{`unix_ms("2020-03-01T05:00:00Z")`, `1583038800000`},
			}},
			params: []param{required("time", Time, Text)}, result: Integer,
			call: func(_ *Scope, a []any) (any, error) {
				t, err := timeOf(a[0])
				return t.UnixMilli(), err
			},
		},
	}
}

func predicateDocs() []FunctionDoc {
	return []FunctionDoc{
		{Name: "map", Signature: "map(list, expression)", Doc: "a list of what the expression gives for each element; .name is a field of the element, # the element, #index its number", Examples: []Example{
			{`map([{"email": "a@example.com"}, {"email": "b@example.com"}], .email)`, `["a@example.com", "b@example.com"]`}, {`map(nil, .email)`, `null`},
		}},
		{Name: "filter", Signature: "filter(list, condition)", Doc: "the elements that the condition holds for", Examples: []Example{
			{`filter([1, 2, 3], # > 1)`, `[2, 3]`}, {`map(filter([{"id": "1", "on": true}, {"id": "2"}], .on), .id)`, `["1"]`},
		}},
		{Name: "find", Signature: "find(list, condition)", Doc: "the first element that the condition holds for", Examples: []Example{
			{`find([{"id": "1"}, {"id": "2"}], .id == "2").id`, `"2"`}, {`find([1], # > 1)`, `null`},
		}},
		{Name: "any", Signature: "any(list, condition)", Doc: "whether the condition holds for at least one element", Examples: []Example{
			{`any(["gold", "emea"], # == "gold")`, `true`}, {`any(nil, # == "gold")`, `false`},
		}},
		{Name: "all", Signature: "all(list, condition)", Doc: "whether the condition holds for every element; true for an empty list", Examples: []Example{
			{`all([1, 2], # > 1)`, `false`},
		}},
		{Name: "none", Signature: "none(list, condition)", Doc: "whether the condition holds for no element", Examples: []Example{
			{`none([1, 2], # > 2)`, `true`},
		}},
		{Name: "one", Signature: "one(list, condition)", Doc: "whether the condition holds for exactly one element", Examples: []Example{
			{`one([1, 2], # > 1)`, `true`},
		}},
		{Name: "count", Signature: "count(list, condition)", Doc: "the number of elements that the condition holds for", Examples: []Example{
			{`count([1, 2, 3], # > 1)`, `2`},
		}},
	}
}

func has(_ *Scope, a []any) (any, error) {
	if a[1] == nil {
		return present(a[0]) != nil, nil
	}
	if s, ok := a[0].(string); ok {
		part, ok := a[1].(string)
		return ok && strings.Contains(s, part), nil
	}
	return holdsValue(a[0], a[1])
}

func timeOf(v any) (time.Time, error) {
	t, ok := ParseTime(v, "")
	if !ok {
		return time.Time{}, plainf("the text is no time, or could mean several")
	}
	return t, nil
}

// timeText is how a time is sent: RFC 3339 in UTC, with milliseconds where it
// has some; a bare day stays one.
func timeText(t time.Time) string {
	if t.Location() == Day {
		return t.Format(time.DateOnly)
	}
	return t.UTC().Format("2006-01-02T15:04:05.999Z07:00")
}

func date(s *Scope, a []any) (any, error) {
	t, err := timeOf(a[0])
	if err != nil {
		return nil, err
	}
	if t.Location() == Day {
		return t.Format(time.DateOnly), nil
	}
	zone := s.Zone
	if name, ok := a[1].(string); ok && name != "" {
		if zone, err = time.LoadLocation(name); err != nil {
			return nil, plainf("the zone is not known")
		}
	}
	if zone == nil {
		zone = time.UTC
	}
	return t.In(zone).Format(time.DateOnly), nil
}

// customField looks in fields[] first, which is the source of truth where both are filled.
func customField(_ *Scope, a []any) (any, error) {
	object, label := a[0].(map[string]any), labelFold(a[1].(string))
	if fields, ok := object["fields"].([]any); ok {
		var found []any
		for _, e := range fields {
			f, ok := e.(map[string]any)
			if !ok {
				continue
			}
			for _, name := range []string{"label", "name", "api_name", "internal_name"} {
				if s, ok := f[name].(string); ok && fits(s, label) != 0 {
					found = append(found, f["value"])
					break
				}
			}
		}
		if len(found) > 1 {
			return nil, plainf("two fields have this label")
		}
		if len(found) == 1 && present(found[0]) != nil {
			return found[0], nil
		}
	}
	meta, _ := object["meta"].(map[string]any)
	best, found := 0, []any(nil)
	for name, v := range meta {
		switch f := fits(name, label); {
		case f > best:
			best, found = f, []any{v}
		case f == best && f > 0:
			found = append(found, v)
		}
	}
	if len(found) > 1 {
		return nil, plainf("two fields have this label")
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return nil, nil
}

// fits tells how well the name of a custom field fits a label: 2 exactly, 1
// but for a random ending such as _38n83e3e3, 0 not at all.
func fits(name, label string) int {
	if labelFold(name) == label {
		return 2
	}
	if at := strings.LastIndexByte(name, '_'); at > 0 && labelFold(name[:at]) == label && random(name[at+1:]) {
		return 1
	}
	return 0
}

// random tells the endings that a vendor appends from words: they are long,
// and hold digits or capitals.
func random(ending string) bool {
	return len(ending) >= 6 && strings.IndexFunc(ending, func(r rune) bool { return unicode.IsDigit(r) || unicode.IsUpper(r) }) >= 0 &&
		!slices.ContainsFunc([]rune(ending), func(r rune) bool { return !unicode.IsDigit(r) && !unicode.IsLetter(r) })
}

func labelFold(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsDigit(r) && !unicode.IsLetter(r) }), "_")
}
