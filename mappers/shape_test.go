package mappers_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"partnersync/mappers"
)

var shapeSchema = mappers.Schema{Kind: mappers.Object,
	Spellings: map[string]string{"adress_id": "address_id", "addressId": "address_id"},
	Fields: map[string]mappers.Schema{
		"id":         {Kind: mappers.ID},
		"address_id": {Kind: mappers.ID, None: "0"},
		"name":       {Kind: mappers.Text},
		"amount":     {Kind: mappers.Integer},
		"total":      {Kind: mappers.Number},
		"archived":   {Kind: mappers.Bool},
		"at":         {Kind: mappers.Time, Unit: "ms"},
		"at_s":       {Kind: mappers.Time, Unit: "s", None: "0"},
		"anything":   {Kind: mappers.Any},
		"meta":       {Kind: mappers.Map},
		"open":       {Kind: mappers.Object, Fields: map[string]mappers.Schema{"a": {Kind: mappers.ID}}, Elem: &mappers.Schema{Kind: mappers.Any}},
		"group": {Kind: mappers.Object, Fields: map[string]mappers.Schema{
			"id": {Kind: mappers.ID}, "at": {Kind: mappers.Time, Unit: "ms"},
		}},
		"tags": {Kind: mappers.List, Elem: &mappers.Schema{Kind: mappers.Text}},
		"users": {Kind: mappers.List, Elem: &mappers.Schema{Kind: mappers.Object, Fields: map[string]mappers.Schema{
			"id": {Kind: mappers.ID},
		}}},
		"list": {Kind: mappers.List},
	}}

type object = map[string]any

func dec(text string) decimal.Decimal { return decimal.RequireFromString(text) }

func utc(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t.UTC()
}

func TestShape(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("9", 401)
	tests := []struct {
		name  string
		give  string
		want  object
		drift []string
	}{
		{"empty object", `{}`, object{}, nil},
		{"blanks around", "\r\n\t {} \n", object{}, nil},
		{"a number as id keeps its digits", `{"id": 12345678901234567890123}`, object{"id": "12345678901234567890123"}, nil},
		{"an id with a point stays as written", `{"id": 1.50}`, object{"id": "1.50"}, nil},
		{"a text as id", `{"id": "part_1"}`, object{"id": "part_1"}, nil},
		{"a bool as id", `{"id": true}`, object{"id": "true"}, []string{"id"}},
		{"none as number and as text", `{"address_id": 0, "at_s": "0"}`, object{"address_id": nil, "at_s": nil}, nil},
		{"other spelling", `{"adress_id": 7}`, object{"address_id": "7"}, nil},
		{"the own name wins when it comes last", `{"adress_id": 7, "address_id": 8}`, object{"address_id": "8"}, nil},
		{"the own name wins when it comes first", `{"address_id": 8, "adress_id": 7}`, object{"address_id": "8"}, nil},
		{"the own name wins even if blank", `{"address_id": 0, "adress_id": 7}`, object{"address_id": nil}, nil},
		{"of two other spellings the last counts", `{"adress_id": 7, "addressId": 9}`, object{"address_id": "9"}, nil},
		{"of a key that stands twice the last counts", `{"id": 1, "id": 2}`, object{"id": "2"}, nil},
		{"blank text", `{"name": "", "id": "", "anything": "", "meta": {"a": ""}}`, object{"name": nil, "id": nil, "anything": nil, "meta": object{"a": nil}}, nil},
		{"null", `{"name": null, "amount": null, "group": null, "tags": null, "at": null}`, object{"name": nil, "amount": nil, "group": nil, "tags": nil, "at": nil}, nil},
		{"a number as text", `{"name": 7189084190}`, object{"name": "7189084190"}, []string{"name"}},
		{"an object as text is kept", `{"name": {"a": 1}}`, object{"name": object{"a": int64(1)}}, []string{"name"}},
		{"integers", `{"amount": -153809}`, object{"amount": int64(-153809)}, nil},
		{"largest integer", `{"amount": 9223372036854775807}`, object{"amount": int64(9223372036854775807)}, nil},
		{"beyond int64", `{"amount": 9223372036854775808}`, object{"amount": dec("9223372036854775808")}, nil},
		{"integer with exponent", `{"amount": 15e2}`, object{"amount": int64(1500)}, nil},
		{"integer with zeros", `{"amount": 15.00}`, object{"amount": int64(15)}, nil},
		{"integer as text", `{"amount": "42"}`, object{"amount": int64(42)}, nil},
		{"fraction for integer", `{"amount": 1.5}`, object{"amount": dec("1.5")}, []string{"amount"}},
		{"words for integer", `{"amount": "many"}`, object{"amount": "many"}, []string{"amount"}},
		{"no number of JSON's", `{"amount": "0x10", "total": "+1"}`, object{"amount": "0x10", "total": "+1"}, []string{"amount", "total"}},
		{"exact", `{"total": 0.1}`, object{"total": dec("0.1")}, nil},
		{"whole number", `{"total": 25}`, object{"total": dec("25")}, nil},
		{"number as text", `{"total": "25.00"}`, object{"total": dec("25.00")}, nil},
		{"too many digits", `{"total": ` + long + `, "amount": ` + long + `, "anything": ` + long + `}`,
			object{"total": long, "amount": long, "anything": long}, []string{"total", "amount", "anything"}},
		{"huge exponents", `{"total": 1e401, "amount": 1e999999999999999999, "anything": -1E-5000}`,
			object{"total": "1e401", "amount": "1e999999999999999999", "anything": "-1E-5000"}, []string{"total", "amount", "anything"}},
		{"bools", `{"archived": false}`, object{"archived": false}, nil},
		{"bool as text", `{"archived": "false"}`, object{"archived": false}, nil},
		{"bool as shouted text", `{"archived": "True"}`, object{"archived": true}, nil},
		{"bool as digit", `{"archived": 1}`, object{"archived": true}, nil},
		{"bool as digit in quotes", `{"archived": "0"}`, object{"archived": false}, nil},
		{"no bool", `{"archived": 2}`, object{"archived": int64(2)}, []string{"archived"}},
		{"words for bool", `{"archived": "yes"}`, object{"archived": "yes"}, []string{"archived"}},
		{"milliseconds", `{"at": 1583038800000}`, object{"at": utc("2020-03-01T05:00:00Z")}, nil},
		{"seconds", `{"at_s": 1654807275}`, object{"at_s": utc("2022-06-09T20:41:15Z")}, nil},
		{"milliseconds where seconds are expected", `{"at_s": 1583038800000}`, object{"at_s": utc("2020-03-01T05:00:00Z")}, nil},
		{"seconds where milliseconds are expected", `{"at": 1654807275}`, object{"at": utc("2022-06-09T20:41:15Z")}, nil},
		{"a count is no time", `{"at": 1000, "at_s": 1000}`, object{"at": int64(1000), "at_s": int64(1000)}, []string{"at", "at_s"}},
		{"nor are microseconds", `{"at": 1583038800000000, "at_s": 1583038800000000}`,
			object{"at": int64(1583038800000000), "at_s": int64(1583038800000000)}, []string{"at", "at_s"}},
		{"the beginning of 1970", `{"at": 0}`, object{"at": utc("1970-01-01T00:00:00Z")}, nil},
		{"fractions of seconds", `{"at_s": 1654807275.25}`, object{"at_s": utc("2022-06-09T20:41:15.25Z")}, nil},
		{"digits in quotes", `{"at_s": "1654807275"}`, object{"at_s": utc("2022-06-09T20:41:15Z")}, nil},
		{"RFC 3339", `{"at": "2020-07-01T02:00:00.5+02:00"}`, object{"at": utc("2020-07-01T00:00:00.5Z")}, nil},
		{"without a zone", `{"at": "2020-07-01 00:00:00"}`, object{"at": utc("2020-07-01T00:00:00Z")}, nil},
		{"without a zone, with T", `{"at": "2020-07-01T00:00:00"}`, object{"at": utc("2020-07-01T00:00:00Z")}, nil},
		{"day", `{"at": "2020-07-01"}`, object{"at": time.Date(2020, 7, 1, 0, 0, 0, 0, mappers.Day)}, nil},
		{"no time", `{"at": "soon"}`, object{"at": "soon"}, []string{"at"}},
		{"time beyond reason", `{"at": 99999999999999999}`, object{"at": int64(99999999999999999)}, []string{"at"}},
		{"time with too many digits", `{"at": 1e300}`, object{"at": dec("1e300")}, []string{"at"}},
		{"bool for time", `{"at": true}`, object{"at": true}, []string{"at"}},
		{"unknown field is kept", `{"extra": 1, "group": {"extra": {"a": 1.5}}}`, object{"extra": int64(1), "group": object{"extra": object{"a": dec("1.5")}}}, []string{"extra", "group.extra"}},
		{"map", `{"meta": {"free_1": 2, "b": "x", "c": [true]}}`, object{"meta": object{"free_1": int64(2), "b": "x", "c": []any{true}}}, nil},
		{"open object", `{"open": {"a": 1, "b": 2}}`, object{"open": object{"a": "1", "b": int64(2)}}, nil},
		{"empty list for object", `{"meta": [], "group": []}`, object{"meta": object{}, "group": object{}}, nil},
		{"list for object", `{"group": [1]}`, object{"group": []any{int64(1)}}, []string{"group"}},
		{"object for list", `{"tags": {"a": 1}}`, object{"tags": object{"a": int64(1)}}, []string{"tags"}},
		{"text for list", `{"tags": "a"}`, object{"tags": "a"}, []string{"tags"}},
		{"lists", `{"tags": ["a", "", null], "users": [{"id": 1}, null], "list": [[]]}`,
			object{"tags": []any{"a", nil, nil}, "users": []any{object{"id": "1"}, nil}, "list": []any{[]any{}}}, nil},
		{"drift in lists is told once", `{"users": [{"x": 1}, {"x": 2}, 3]}`,
			object{"users": []any{object{"x": int64(1)}, object{"x": int64(2)}, int64(3)}}, []string{"users[].x", "users[]"}},
		{"NUL is removed", `{"na\u0000me": "a\u0000b", "id": "\u0000"}`, object{"name": "ab", "id": nil}, nil},
		{"escapes", `{"name": "\"\\\n\u00e9\ud83d\ude00"}`, object{"name": "\"\\\né😀"}, nil},
		{"broken UTF-8", "{\"name\": \"a\xffb\"}", object{"name": "a\uFFFDb"}, nil},
		{"half a surrogate", `{"name": "a\ud800b"}`, object{"name": "a\uFFFDb"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			body, drift, err := mappers.Shape([]byte(tt.give), &shapeSchema)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, body); diff != "" {
				t.Errorf("body (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(tt.drift, drift); diff != "" {
				t.Errorf("drift (-want +got)\n%s", diff)
			}
		})
	}
}

func TestShapeOfHundredLevels(t *testing.T) {
	t.Parallel()
	body, drift, err := mappers.Shape([]byte(`{"anything": `+strings.Repeat("[", 99)+strings.Repeat("]", 99)+`}`), &shapeSchema)
	if err != nil || drift != nil {
		t.Fatal(drift, err)
	}
	levels := 0
	for list, ok := body["anything"].([]any); ok; list, ok = list[0].([]any) {
		if levels++; len(list) == 0 {
			break
		}
	}
	if levels != 99 {
		t.Errorf("%d levels came out of 99", levels)
	}
}

func TestShapeDayIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	body, _, err := mappers.Shape([]byte(`{"at": "2020-03-01"}`), &shapeSchema)
	if err != nil {
		t.Fatal(err)
	}
	if at := body["at"].(time.Time); at.Location() != mappers.Day {
		t.Errorf("a bare day came out in %v", at.Location())
	}
}

func TestShapeWithoutSchema(t *testing.T) {
	t.Parallel()
	body, drift, err := mappers.Shape([]byte(`{"a": 1, "b": {"c": [1.5, "", false]}}`), nil)
	if err != nil || drift != nil {
		t.Fatal(drift, err)
	}
	want := object{"a": int64(1), "b": object{"c": []any{dec("1.5"), nil, false}}}
	if diff := cmp.Diff(want, body); diff != "" {
		t.Errorf("body (-want +got)\n%s", diff)
	}
}

func TestShapeRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		give      string
		want      string
		notObject bool
	}{
		{"nothing", ``, "line 1, column 1: the body ends in the middle of a value", false},
		{"blanks", " \n ", "line 2, column 2: the body ends in the middle of a value", false},
		{"half an object", `{"a": 1`, "line 1, column 8: the body ends in the middle of a value", false},
		{"half a text", `{"a": "x`, "line 1, column 9: the body ends in the middle of a value", false},
		{"half a literal", `{"a": tru`, "line 1, column 10: the body ends in the middle of a value", false},
		{"Python", "{\n  \"é\": None}", "line 2, column 8: invalid character 'N' at start of value", false},
		{"trailing comma", `{"a": 1,}`, "line 1, column 8: invalid character ',' at start of value", false},
		{"two objects", `{} {}`, "line 1, column 4: there is more after the end of the JSON value", false},
		{"rubbish behind", `{}x`, "line 1, column 3: invalid character 'x' at start of value", false},
		{"control character", "{\"a\": \"\x01\"}", `line 1, column 8: invalid character '\x01' in string (expecting non-control character)`, false},
		{"form", `a=b&c=d`, "line 1, column 1: invalid character 'a' at start of value", false},
		{"list", `[{"a": 1}]`, "line 1, column 1: the body is not a JSON object", true},
		{"text", `"x"`, "line 1, column 1: the body is not a JSON object", true},
		{"null", `null`, "line 1, column 1: the body is not a JSON object", true},
		{"empty list", `[]`, "line 1, column 1: the body is not a JSON object", true},
		{"too deep a list", `{"anything": ` + strings.Repeat("[", 100), "line 1, column 113: nested more than 100 levels deep", false},
		{"too deep an object", strings.Repeat(`{"a":`, 101), "line 1, column 500: nested more than 100 levels deep", false},
		{"far too deep", strings.Repeat(`[`, 1_000_000), "line 1, column 101: nested more than 100 levels deep", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := mappers.Shape([]byte(tt.give), &shapeSchema)
			var bad *mappers.BodyError
			if !errors.As(err, &bad) {
				t.Fatalf("got %v, want a BodyError", err)
			}
			if bad.Error() != tt.want || bad.NotObject != tt.notObject {
				t.Errorf("got  %q, not object: %v\nwant %q, not object: %v", bad, bad.NotObject, tt.want, tt.notObject)
			}
		})
	}
}

func TestShapeDriftIsBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `,"%s%d": 1`, strings.Repeat("é", 300), i)
	}
	_, drift, err := mappers.Shape([]byte(`{"first": 1`+b.String()+`}`), &shapeSchema)
	if err != nil {
		t.Fatal(err)
	}
	if len(drift) > 50 {
		t.Errorf("%d paths of drift", len(drift))
	}
	for _, path := range drift {
		if len(path) > 200 || strings.ContainsRune(path, '\uFFFD') {
			t.Errorf("drift has a path of %d bytes", len(path))
		}
	}
}

// A long key above many unknown fields must not cost its length for each.
func TestShapeDriftBelowALongKey(t *testing.T) {
	t.Parallel()
	raw := `{"group": {"` + strings.Repeat("k", 500_000) + `": {` + strings.Repeat(`"x": 1,`, 50_000) + `"x": 1}}}`
	schema := mappers.Schema{Kind: mappers.Object, Fields: map[string]mappers.Schema{
		"group": {Kind: mappers.Map, Elem: &mappers.Schema{Kind: mappers.Object, Fields: map[string]mappers.Schema{"id": {Kind: mappers.ID}}}},
	}}
	_, drift, err := mappers.Shape([]byte(raw), &schema)
	if err != nil || len(drift) != 1 || len(drift[0]) != 200 {
		t.Errorf("%d paths of drift, %v", len(drift), err)
	}
}

// What one body leaves behind must not show in the next.
func TestShapeRemembersNothing(t *testing.T) {
	t.Parallel()
	for i := range 300 {
		name := fmt.Sprintf("key_%d", i)
		for _, give := range []string{`{"` + name + `": {"deep": "text`, `{"` + name + `": {"` + strings.ToUpper(name) + `": [1`} {
			if _, _, err := mappers.Shape([]byte(give), &shapeSchema); err == nil {
				t.Fatal("half a body was taken")
			}
		}
		body, drift, err := mappers.Shape([]byte(`{"`+name+`": 1}`), &shapeSchema)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(object{name: int64(1)}, body); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff([]string{name}, drift); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestCarries(t *testing.T) {
	t.Parallel()
	body, _, err := mappers.Shape([]byte(`{
		"name": "", "id": 0, "address_id": 0, "archived": false, "amount": 0,
		"group": {"id": "", "at": 1}, "tags": [], "meta": {}, "anything": null, "users": [{"id": "1"}, {}]
	}`), &shapeSchema)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path           string
		present, blank bool
	}{
		{"name", true, true},
		{"id", true, false},
		{"address_id", true, true},
		{"archived", true, false},
		{"amount", true, false},
		{"tags", true, true},
		{"meta", true, true},
		{"meta.a", false, false},
		{"group", true, false},
		{"group.id", true, true},
		{"group.at", true, false},
		{"group.name", false, false},
		{"group.at.year", false, false},
		{"anything", true, true},
		{"anything.below.null", true, true},
		{"at", false, false},
		{"users.0.id", true, false},
		{"users.1.id", false, false},
		{"users.2.id", false, false},
		{"users.-1.id", false, false},
		{"users.x", false, false},
	}
	for _, tt := range tests {
		present, blank := mappers.Carries(body, tt.path)
		if present != tt.present || blank != tt.blank {
			t.Errorf("Carries(%q) = %v, %v, want %v, %v", tt.path, present, blank, tt.present, tt.blank)
		}
	}
}

func BenchmarkShape(b *testing.B) {
	raw, err := os.ReadFile("../receiver/sources/samples/partnerstack/deal.created.json")
	if err != nil {
		b.Fatal(err)
	}
	ms := mappers.Schema{Kind: mappers.Time, Unit: "ms"}
	id, text := mappers.Schema{Kind: mappers.ID}, mappers.Schema{Kind: mappers.Text}
	schema := &mappers.Schema{Kind: mappers.Object, Fields: map[string]mappers.Schema{
		"account_name": text, "amount": {Kind: mappers.Integer}, "close_date": ms, "company_id": id, "contact_first_name": text,
		"contact_last_name": text, "created_at": ms, "key": id, "meta": {Kind: mappers.Map}, "partner_key": id, "stage": text, "updated_at": ms,
	}}
	b.Run("shape", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		b.ReportAllocs()
		for b.Loop() {
			if _, drift, err := mappers.Shape(raw, schema); err != nil || drift != nil {
				b.Fatal(drift, err)
			}
		}
	})
	b.Run("encoding_json", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		b.ReportAllocs()
		for b.Loop() {
			var body map[string]any
			if err := json.Unmarshal(raw, &body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
