package mappers

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"

	"partnersync/internal/diag"
)

func shopScope(t testing.TB) *Scope {
	t.Helper()
	toronto, err := time.LoadLocation("America/Toronto")
	if err != nil {
		t.Fatal(err)
	}
	return &Scope{
		Variables: map[string]Schema{"event": shop(), "hook": hookSchema(), "raw": {Kind: Any}},
		Tables:    catalog(t).Tables, Zone: toronto, Currency: "USD",
	}
}

func shopVars() map[string]any {
	at := time.Date(2020, 3, 1, 4, 0, 0, 0, time.UTC)
	return map[string]any{
		"event": map[string]any{
			"key": "d1", "account_name": "Some Company", "stage": "Working", "amount": int64(8753), "rate": decimal.RequireFromString("0.1"),
			"archived": false, "created_at": at, "tags": []any{"gold", nil, "emea"}, "contact": nil,
			"users":   []any{map[string]any{"id": "1", "email": "A@example.com", "active": true}, nil, map[string]any{"id": "2", "email": nil}},
			"meta":    map[string]any{"tier": "gold", "Blank": nil},
			"unknown": int64(5),
		},
		"hook": map[string]any{"type": "deal.created", "received_at": at.Add(time.Hour)},
		"raw":  map[string]any{"number": decimal.RequireFromString("1.5"), "list": []any{int64(1), int64(2)}, "day": time.Date(2020, 3, 1, 0, 0, 0, 0, Day)},
	}
}

func TestEval(t *testing.T) {
	t.Parallel()
	dec := decimal.RequireFromString
	tests := []struct {
		name string
		give string
		want any
	}{
		{"field", `event.key`, "d1"},
		{"field of a missing object", `event.contact.email`, nil},
		{"deep below missing", `event.billing["a"]["b"].c.d`, nil},
		{"unknown field", `event["unknown"]`, int64(5)},
		{"unknown field that is missing", `event["nothing"].more`, nil},
		{"free key", `event.meta.tier`, "gold"},
		{"optional chaining", `event?.contact?.email`, nil},
		{"element", `event.users[0].email`, "A@example.com"},
		{"last element", `event.users[-1].id`, "2"},
		{"element beyond", `event.users[9].email`, nil},
		{"element of nothing", `event.users[raw.nothing].email`, nil},
		{"field of a text", `raw.text.x["y"]`, nil},
		{"field of a list", `raw.list["x"]`, nil},
		{"null literal", `null`, nil},
		{"nil literal", `nil`, nil},
		{"empty text", `""`, nil},
		{"list of blanks", `["", nil]`, nil},
		{"blanks in lists are left out", `event.tags`, []any{"gold", "emea"}},

		{"null flows through functions", `lower(trim(event.contact.email))`, nil},
		{"null flows through +", `event.key + event.contact.email`, nil},
		{"null flows through arithmetic", `(event.amount + raw.nothing) * 2 / 3 - 1`, nil},
		{"null flows through minus", `-raw.nothing`, nil},
		{"null division", `1 / raw.nothing`, nil},
		{"an explicit empty text does not", `event.key + (event.contact.email ?? "")`, "d1"},
		{"< with null", `raw.nothing < 5`, false},
		{">= with null", `raw.nothing >= 5`, false},
		{"> null", `5 > raw.nothing`, false},
		{"missing == empty", `event.contact.email == ""`, true},
		{"missing == null", `event.contact.email == nil`, true},
		{"missing == missing", `event.contact.email == event.contact.phone`, true},
		{"missing != empty", `event.contact.email != ""`, false},
		{"number == empty", `event.amount == ""`, false},
		{"missing != text", `event.contact.email != "x"`, true},
		{"missing == text", `event.contact.email == "x"`, false},
		{"empty list == null", `[] == nil`, true},
		{"null condition", `event.contact.email == "x" or raw.flag`, false},
		{"not null", `not raw.flag`, true},
		{"null and", `raw.flag and true`, false},
		{"null or", `raw.flag or true`, true},
		{"null ternary", `raw.flag ? 1 : 2`, int64(2)},
		{"default", `event.contact.email ?? event.key`, "d1"},
		{"default for an empty text", `"" ?? "x"`, "x"},
		{"default for a blank list", `[""] ?? "x"`, "x"},
		{"default keeps false", `event.archived ?? true`, false},
		{"defaults in a row", `raw.a ?? raw.b ?? "x"`, "x"},
		{"contains null", `raw.nothing contains "x"`, false},
		{"not contains null", `raw.nothing not contains "x"`, true},
		{"matches null", `raw.nothing matches "x"`, false},
		{"in null", `"x" in raw.nothing`, false},
		{"null in", `raw.nothing in ["", nil, "x"]`, false},
		{"slice of null", `raw.nothing[0:2]`, nil},
		{"map of null", `map(raw.nothing, .x)`, nil},
		{"filter over null elements", `map(filter(event.users, .active), .id)`, []any{"1"}},
		{"map over null elements", `map(event.users, lower(.email))`, []any{"a@example.com"}},
		{"any over null", `any(raw.nothing, true)`, false},
		{"all over null", `all(raw.nothing, false)`, true},
		{"none over null elements", `none(event.users, .email == "x")`, true},
		{"count", `count(event.users, .email != "")`, int64(1)},
		{"find", `find(event.users, .id == "2").id`, "2"},
		{"find nothing", `find(event.users, .id == "3").id`, nil},
		{"index", `map(raw.list, #index + #)`, []any{int64(1), int64(3)}},
		{"nested predicates", `filter(raw.list, any([2], # == 2) and # > 1)`, []any{int64(2)}},

		{"short circuit and", `false and 1 / 0 > 1`, false},
		{"short circuit or", `true or 1 / 0 > 1`, true},
		{"short circuit ternary", `true ? 1 : 1 / 0`, int64(1)},
		{"short circuit ??", `event.key ?? string(1 / 0)`, "d1"},

		{"exact", `event.rate + 0.2`, dec("0.3")},
		{"exact product", `event.amount * 0.01`, dec("87.53")},
		{"whole", `event.amount + 1`, int64(8754)},
		{"whole quotient", `10 / 2`, int64(5)},
		{"quotient", `1 / 8`, dec("0.125")},
		{"endless quotient", `1 / 3`, dec("0.3333333333333333")},
		{"remainder", `event.amount % 100`, int64(53)},
		{"minus", `-event.amount`, int64(-8753)},
		{"overflow", `9223372036854775807 + 1`, dec("9223372036854775808")},
		{"product overflow", `9223372036854775807 * 3`, dec("27670116110564327421")},
		{"negative overflow", `-9223372036854775807 - 5`, dec("-9223372036854775812")},
		{"1 == 1.0", `raw.number + 0.5 == 2`, true},
		{"compare numbers", `event.rate < event.amount`, true},
		{"chained comparison", `0 < event.rate < 1`, true},
		{"compare texts", `event.key < "d2"`, true},
		{"compare times", `event.created_at < hook.received_at`, true},
		{"equal times", `event.created_at == event.created_at`, true},
		{"concatenate", `event.key + "-" + event.stage`, "d1-Working"},
		{"starts", `event.stage startsWith "Work"`, true},
		{"ends", `event.stage endsWith "ing"`, true},
		{"matches", `event.stage matches "^W.*g$"`, true},
		{"in", `event.stage in ["Working", "Won"]`, true},
		{"not in", `event.stage not in ["Won"]`, true},
		{"in tags", `"gold" in event.tags`, true},
		{"key in object", `"tier" in event.meta`, true},
		{"blank key in object", `"Blank" in event.meta`, false},
		{"cut a text", `event.account_name[0:4]`, "Some"},
		{"cut from the end", `event.account_name[-7:]`, "Company"},
		{"cut out of bounds", `event.key[5:1]`, nil},
		{"cut a list", `raw.list[1:]`, []any{int64(2)}},
		{"pipe", `event.stage | lower() | replace("ing", "ed")`, "worked"},
		{"object", `{"a": event.key, "b": event.contact.email}`, map[string]any{"a": "d1", "b": nil}},

		{"day in the scope's zone", `date(event.created_at)`, "2020-02-29"},
		{"day in a zone", `date(event.created_at, "UTC")`, "2020-03-01"},
		{"a bare day", `date(raw.day)`, "2020-03-01"},
		{"datetime", `datetime(event.created_at)`, "2020-03-01T04:00:00Z"},
		{"milliseconds", `unix_ms(event.created_at)`, int64(1583035200000)},
		{"cents of the scope's currency", `cents(event.amount)`, dec("87.53")},
		{"a table", `lookup(event.stage, "deal_stages")`, "qualifiedtobuy"},
		{"a table of numbers", `lookup("JANE ", "owners")`, int64(7)},
		{"a table's value", `lookup("iron", "tiers")`, "other"},
		{"scalars where texts are wanted", `lower(event["unknown"])`, "5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := evaluate(t, tt.give, shopScope(t), shopVars())
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.give, diff)
			}
		})
	}
}

func TestEvalWants(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		give string
		want Want
		out  any
		fail string
	}{
		{"null does not hold", `raw.nothing`, WantBool, false, ""},
		{"a text is no condition", `raw.day_text ?? raw.list`, WantBool, nil, "a condition must be true or false, this is a list"},
		{"text of a number", `event.amount`, WantText, "8753", ""},
		{"text of an exact number", `raw.number`, WantText, "1.5", ""},
		{"null text", `raw.nothing`, WantText, nil, ""},
		{"no text", `raw.list`, WantText, nil, "this must be a text, but is a list"},
		{"list", `raw.list`, WantList, []any{int64(1), int64(2)}, ""},
		{"no list", `raw.number`, WantList, nil, "this must be a list, but is a number"},
		{"no number", `raw.list`, WantNumber, nil, "this must be a number, but is a list"},
		{"number", `raw.number`, WantNumber, decimal.RequireFromString("1.5"), ""},
		{"time", `event.created_at`, WantTime, time.Date(2020, 3, 1, 4, 0, 0, 0, time.UTC), ""},
		{"no time", `raw.list`, WantTime, nil, "this must be a time, but is a list"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := &diag.Decoding{}
			e := Compile(scalar(t, tt.give), tt.want, shopScope(t), d)
			if e == nil {
				t.Fatal(d.Problems)
			}
			got, err := e.Eval(shopVars())
			switch {
			case tt.fail == "" && err != nil:
				t.Fatal(err)
			case tt.fail != "" && (err == nil || !strings.HasSuffix(err.Error(), tt.fail)):
				t.Fatalf("error %v, want one that ends in %q", err, tt.fail)
			}
			if diff := cmp.Diff(tt.out, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// secretValue stands in every value of the payload below. No message may hold it.
const secretValue = "s3cr3t-v4lue"

func TestEvalErrorsHoldPlacesAndNoValues(t *testing.T) {
	t.Parallel()
	vars := shopVars()
	vars["raw"] = map[string]any{
		"text": secretValue, "list": []any{secretValue, []any{secretValue}}, "object": map[string]any{secretValue: secretValue}, "number": int64(4711),
		"meta": map[string]any{"a_1234567": secretValue, "a_7654321": secretValue}, "huge": decimal.New(1, 1_000_000),
	}
	tests := []struct {
		give string
		want string
	}{
		{`raw.text + raw.number`, "test.yaml:2:12: + takes two texts or two numbers, these are a text and a whole number"},
		{`raw.text - 1`, "test.yaml:2:12: - takes numbers, these are a text and a whole number"},
		{`raw.text < raw.number`, "test.yaml:2:12: a text and a whole number cannot be compared"},
		{`1 + raw.number / (raw.number - raw.number)`, "test.yaml:2:18: division by zero"},
		{`lower(raw.list)`, "test.yaml:2:3: lower(): takes a text, this is a list"},
		{`join(raw.list)`, "test.yaml:2:3: join(): the list holds a list; map(list, .field) takes a text of each"},
		{`cents(raw.text)`, "test.yaml:2:3: cents(): takes a number, this is a text"},
		{`date(raw.text)`, "test.yaml:2:3: date(): the text is no time, or could mean several"},
		{`date(event.created_at, raw.text)`, "test.yaml:2:3: date(): the zone is not known"},
		{`field(raw, "a")`, "test.yaml:2:3: field(): two fields have this label"},
		{`lookup(raw.text, "owners")`, `test.yaml:2:3: lookup(): the value is not in table "owners"`},
		{`raw.text ? 1 : 2`, "test.yaml:2:7: a condition must be true or false, this is a text"},
		{`filter(raw.text, true)`, "test.yaml:2:14: this must be a list, but is a text"},
		{`raw.object matches "x"`, "test.yaml:2:14: matches takes a text, this is an object"},
		{`raw.object contains "x"`, "test.yaml:2:14: contains takes two texts, these are an object and a text"},
		{`"x" in raw.text`, "test.yaml:2:7: in asks whether a list or an object holds a value, this is a text"},
		{`raw.object[0:1]`, "test.yaml:2:13: an object cannot be cut"},
		{`{(raw.list): 1}`, ""},
		{`raw.huge`, "test.yaml:1:4: the number is too long"},
		{`raw.huge + 1`, "test.yaml:2:12: the number is too long"},
		{`raw.huge > 1`, "test.yaml:2:12: a number and a whole number cannot be compared"},
		{`string(raw.huge)`, "test.yaml:2:3: string(): takes a text or a number or true or false or a time, this is a number"},
		{`text(raw.huge)`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.give, func(t *testing.T) {
			t.Parallel()
			d := &diag.Decoding{}
			e := Compile(scalar(t, tt.give), WantAny, shopScope(t), d)
			if e == nil {
				t.Fatal(d.Problems)
			}
			_, err := e.Eval(vars)
			if err == nil {
				if tt.want != "" {
					t.Fatalf("no error, want %q", tt.want)
				}
				return
			}
			if strings.Contains(err.Error(), secretValue) || strings.Contains(err.Error(), "4711") {
				t.Errorf("the error holds a value: %v", err)
			}
			if tt.want != "" && err.Error() != tt.want {
				t.Errorf("error %q, want %q", err, tt.want)
			}
			var own *EvalError
			if !errors.As(err, &own) {
				t.Errorf("the error is a %T", err)
			}
		})
	}
}

func TestEvalIsBounded(t *testing.T) {
	t.Parallel()
	list := make([]any, 100_000)
	for i := range list {
		list[i] = strings.Repeat("x", 10)
	}
	vars := map[string]any{"raw": map[string]any{"list": list, "long": strings.Repeat("x", 1<<20), "nulls": make([]any, 500_000)}}
	tests := []string{
		`any(raw.list, any(raw.list, any(raw.list, false)))`,
		`map(raw.list, map(raw.list, map(raw.list, #)))`,
		`map(raw.list, raw.long + raw.long)`,
		`replace(raw.long, "x", raw.long)`,
		`replace(replace(replace(raw.long, "x", "xxxxxxxxxxxxxxxx"), "x", "xxxxxxxxxxxxxxxx"), "x", "xxxxxxxxxxx")`,
		`join(map(raw.list, raw.long))`,
		`map(raw.list, text(raw.nulls))`,
		`any(raw.list, raw.nulls == raw.nulls)`,
		`any(raw.list, "y" in raw.list)`,
		`any(raw.list, raw.nulls)`,
		`map(raw.list, hash(raw.long))`,
		`map(raw.list, raw.long matches "(x+x+)+y")`,
		`map(raw.list, raw.nulls[1:])`,
	}
	for _, give := range tests {
		t.Run(give, func(t *testing.T) {
			t.Parallel()
			d := &diag.Decoding{}
			e := Compile(scalar(t, give), WantAny, shopScope(t), d)
			if e == nil {
				t.Fatal(d.Problems)
			}
			if _, err := e.Eval(vars); err == nil {
				t.Error("it came to an end")
			}
		})
	}
}

func TestCompileIsBounded(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, give, want string }{
		{"parentheses", strings.Repeat("(", 1_000_000), "the expression has more than 10000 characters"},
		{"parentheses that close", strings.Repeat("(", 4_000) + "1" + strings.Repeat(")", 4_000), ""},
		{"signs", strings.Repeat("-", 9_000) + "1", "the expression has more than 1000 parts"},
		{"parts", strings.Repeat("1+", 1_000) + "1", "the expression has more than 1000 parts"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := &diag.Decoding{}
			e := Compile(scalar(t, tt.give), WantAny, shopScope(t), d)
			switch {
			case tt.want == "" && e == nil:
				t.Error(d.Problems)
			case tt.want != "" && (len(d.Problems) != 1 || d.Problems[0].Message != tt.want):
				t.Errorf("problems %v, want %q", d.Problems, tt.want)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	tests := []struct {
		give string
		want []string
	}{
		{`event.key`, []string{"key"}},
		{`event.contact.email ?? event.contact["phone"]`, []string{"contact.email", "contact.phone"}},
		{`lower(event["new"].x)`, []string{"new.x"}},
		{`event.users[0].email + event.key`, []string{"key", "users"}},
		{`map(event.users, .email)`, []string{"users"}},
		{`hook.type`, nil},
		{`event.key + event.key`, []string{"key"}},
		{`event == nil`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.give, func(t *testing.T) {
			t.Parallel()
			d := &diag.Decoding{}
			e := Compile(scalar(t, tt.give), WantAny, shopScope(t), d)
			if e == nil {
				t.Fatal(d.Problems)
			}
			if diff := cmp.Diff(tt.want, e.Paths()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if e.Source() != tt.give {
				t.Errorf("Source() = %q", e.Source())
			}
		})
	}
}

func TestEvalFromManyGoroutines(t *testing.T) {
	t.Parallel()
	d := &diag.Decoding{}
	e := Compile(scalar(t, `join(map(filter(event.users, .active), lower(.email) + "-" + event.key), ";") ?? lookup(event.stage, "deal_stages")`), WantAny, shopScope(t), d)
	if e == nil {
		t.Fatal(d.Problems)
	}
	vars := shopVars()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if v, err := e.Eval(vars); v != "a@example.com-d1" || err != nil {
					t.Errorf("Eval() = %v, %v", v, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestPrivateFieldsNeedAllowance(t *testing.T) {
	t.Parallel()
	scope := shopScope(t)
	scope.Allow = map[string]bool{"billing.iban": true}
	d := &diag.Decoding{}
	if e := Compile(scalar(t, `event.billing.iban`), WantAny, scope, d); e == nil {
		t.Errorf("an allowed path: %v", d.Problems)
	}
	if e := Compile(scalar(t, `event.billing.tax_id`), WantAny, scope, d); e != nil {
		t.Error("a private path can be read")
	}
}

func BenchmarkCompile(b *testing.B) {
	scope := shopScope(b)
	n, _ := diag.Parse("test.yaml", []byte(`x: lower(trim(event.contact.email ?? event.key))`))
	for b.Loop() {
		d := &diag.Decoding{}
		if Compile(n.Get("x"), WantAny, scope, d) == nil {
			b.Fatal(d.Problems)
		}
	}
}

func BenchmarkEval(b *testing.B) {
	for _, bb := range []struct{ name, give string }{
		{"path", `event.contact.email`},
		{"function", `lower(event.account_name)`},
		{"amount", `cents(event.amount)`},
		{"condition", `event.stage in ["Working", "Won"] and not event.archived`},
		{"predicate", `map(filter(event.users, .active), lower(.email))`},
	} {
		b.Run(bb.name, func(b *testing.B) {
			n, _ := diag.Parse("test.yaml", []byte("x: '"+bb.give+"'"))
			d := &diag.Decoding{}
			e := Compile(n.Get("x"), WantAny, shopScope(b), d)
			if e == nil {
				b.Fatal(d.Problems)
			}
			vars := shopVars()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Eval(vars); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
