package mappers

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/diag"
)

func exampleScope(t *testing.T) *Scope {
	t.Helper()
	d := &diag.Decoding{}
	n, problems := diag.Parse("tables.yaml", []byte("deal_stages: {map: {Working: qualifiedtobuy, Closed Won: closedwon}}"))
	var tables map[string]*Table
	d.Decode(n, &tables)
	if problems.Failed() || d.Problems.Failed() {
		t.Fatal(problems, d.Problems)
	}
	return &Scope{Tables: tables}
}

// scalar makes a node of an expression whatever signs it holds.
func scalar(t *testing.T, text string) diag.Node {
	t.Helper()
	n, problems := diag.Parse("test.yaml", []byte("x: |-\n  "+text))
	if problems.Failed() {
		t.Fatal(problems)
	}
	return n.Get("x")
}

func evaluate(t *testing.T, text string, scope *Scope, vars map[string]any) any {
	t.Helper()
	d := &diag.Decoding{}
	e := Compile(scalar(t, text), WantAny, scope, d)
	if e == nil {
		t.Fatalf("%s: %v", text, d.Problems)
	}
	v, err := e.Eval(vars)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func TestFunctionExamples(t *testing.T) {
	t.Parallel()
	scope := exampleScope(t)
	for _, f := range Functions() {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			if f.Doc == "" || len(f.Examples) == 0 {
				t.Errorf("%s has no doc or no example", f.Signature)
			}
			for _, e := range f.Examples {
				got := evaluate(t, e.Expression, scope, nil)
				want := evaluate(t, e.Result, scope, nil)
				if !equal(got, want) {
					t.Errorf("%s gives another result (-want +got):\n%s", e.Expression, cmp.Diff(want, got))
				}
			}
		})
	}
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	scope := exampleScope(t)
	tests := []struct {
		give string
		want string
	}{
		{`domain("Jane Doe <jane@Best-Company.example>")`, `"best-company.example"`},
		{`domain("mailto:jane@best.example?subject=x")`, `"best.example"`},
		{`domain("best.example/@jane")`, `"best.example"`},
		{`domain("//best.example:8080/x")`, `"best.example"`},
		{`domain("https://user@shop.best.example./")`, `"shop.best.example"`},
		{`domain("jane@mail.yahoo.co.uk")`, `null`},
		{`domain("https://best.github.io")`, `null`},
		{`domain("https://192.0.2.1/")`, `null`},
		{`domain("http://[2001:db8::1]/")`, `null`},
		{`domain("[email protected]")`, `null`},
		{`domain("localhost")`, `null`},
		{`domain("jane@")`, `null`},
		{`domain("http://a b.example")`, `null`},
		{`domain("a..example")`, `null`},

		{`country("ca")`, `"CA"`},
		{`country(" United  States ")`, `"US"`},
		{`country("United States")`, `"US"`},
		{`country("the United States of America")`, `"US"`},
		{`country("UK")`, `"GB"`},
		{`country("Bosnia and Herzegovina")`, `"BA"`},
		{`country("Bosnia & Herzegovina")`, `"BA"`},
		{`country("Côte d'Ivoire")`, `"CI"`},
		{`country("Saint Lucia")`, `"LC"`},
		{`country("Netherlands")`, `"NL"`},
		{`country("The Netherlands")`, `"NL"`},
		{`country("ZZ")`, `null`},
		{`country("ZZZ")`, `null`},
		{`country("EU")`, `null`},

		{`phone("416-555-0123", "Canada")`, `"+14165550123"`},
		{`phone("416-555-0123", nil)`, `null`},
		{`phone("416-555-0123")`, `null`},
		{`phone("123", "CA")`, `null`},
		{`phone(nil, "CA")`, `null`},

		{`first_name("Jane")`, `"Jane"`},
		{`first_name(" ")`, `null`},
		{`first_name("Jane Doe, PhD")`, `"Jane"`},
		{`last_name("Jane Doe, Ph.D.")`, `"Doe"`},
		{`full_name(" Jane ", "")`, `"Jane"`},
		{`full_name(nil, "Doe")`, `"Doe"`},

		{`cents(8753, "eur")`, `87.53`},
		{`cents(value("8753"))`, `87.53`},
		{`cents(0)`, `0`},
		{`cents(12345, "CLF")`, `1.2345`},

		{`date("2020-03-01")`, `"2020-03-01"`},
		{`date("2020-03-01", "America/Toronto")`, `"2020-03-01"`},
		{`datetime("2020-03-01")`, `"2020-03-01T00:00:00Z"`},
		{`datetime("2020-03-01T05:00:00.250+02:00")`, `"2020-03-01T03:00:00.25Z"`},

		{`field({"fields": [{"label": "Region", "value": ""}], "meta": {"region": "EMEA"}}, "Region")`, `"EMEA"`},
		{`field({"fields": [nil, 5, {"api_name": "region", "value": 3}]}, "region")`, `3`},
		{`field({"meta": {"company_name": "x"}}, "company")`, `null`},
		{`field({"meta": {"company": "a", "company_38n83e3e3": "b"}}, "company")`, `"a"`},
		{`field({"meta": {"favorite_number_122jdfu232": 2}}, "favorite number")`, `2`},

		{`text({"a": {"b": [1, true, nil]}, "c": nil})`, `"a: b: 1, true"`},
		{`replace("aaa", "", "b")`, `"aaa"`},
		{`split("a,,b", ",")[2]`, `"b"`},
		{`bool(0)`, `false`},
		{`bool(false)`, `false`},
		{`has("abc", "b")`, `true`},
		{`has({"a": nil}, "a")`, `false`},
		{`has(nil, "a")`, `false`},
		{`len([])`, `0`},
		{`html_text("<script>x</script>a &amp; b<br>c")`, `"a & b\nc"`},
		{`hash(1.50) == hash("1.5")`, `true`},
	}
	for _, tt := range tests {
		t.Run(tt.give, func(t *testing.T) {
			t.Parallel()
			got := evaluate(t, tt.give, scope, nil)
			if want := evaluate(t, tt.want, scope, nil); !equal(got, want) {
				t.Errorf("%s = %#v, want %#v", tt.give, got, want)
			}
		})
	}
}
