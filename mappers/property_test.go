package mappers

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"partnersync/internal/diag"
)

// samples use every operator and function on the fields of shop.
var samples = []string{
	`event.key + "-" + event.account_name`, `event.amount + event.rate * 2 - 1`, `event.amount / 100`, `event.amount % 7`, `-event.rate`,
	`event.amount < event.rate`, `event.created_at >= hook.received_at`, `event.stage > "m"`, `0 < event.amount < 9`,
	`event.stage == event.account_name`, `event.amount != 5`, `event.tags == event.users`, `event.contact == event.billing`,
	`event.archived and not event.archived or event.stage == ""`, `event.archived ? event.key : event.stage`, `event.stage ?? event.tags ?? 5`,
	`event.stage in event.tags`, `"a" in event.meta`, `event.stage contains "a"`, `event.stage startsWith event.key`, `event.stage endsWith "x"`, `event.stage matches "^a.*"`,
	`event.users[0].email`, `event.users[-1]["new"]`, `event.tags[event.amount]`, `event.account_name[1:event.amount]`, `event.users[:1]`, `event["new"].x[0]`,
	`map(event.users, lower(.email))`, `filter(event.users, .active)`, `find(event.users, .id == event.key).email`, `count(event.users, .active)`,
	`any(event.tags, # == event.stage)`, `all(event.tags, # != "")`, `none(event.users, .active)`, `one(event.tags, # in event.tags)`, `map(event.tags, #index)`,
	`lower(event.stage)`, `upper(event.stage)`, `trim(event.stage)`, `split(event.stage, ",")`, `join(event.tags, event.stage)`, `replace(event.stage, "a", event.key)`,
	`html_text(event.stage)`, `string(event.rate)`, `text(event)`, `hash(event)`, `value(event.users)`, `has(event.tags, "a")`, `has(event.meta)`, `bool(event.stage)`, `len(event.tags)`,
	`lookup(event.stage, "tiers")`, `field(event, "company_name")`, `cents(event.amount, event.meta.currency)`, `date(event.created_at)`, `datetime(event.created_at)`, `unix_ms(event.created_at)`,
	`phone(event.contact.phone, event.contact.country)`, `country(event.contact.country)`, `domain(event.contact.email)`, `full_name(event.contact.first, event.contact.last)`,
	`first_name(event.account_name)`, `last_name(event.account_name)`, `{"a": event.users, "b": [event.tags, event.amount]}`,
}

func compileSamples(t testing.TB) []*Expression {
	t.Helper()
	var out []*Expression
	for _, text := range samples {
		n, _ := diag.Parse("test.yaml", []byte("x: |-\n  "+text))
		d := &diag.Decoding{}
		e := Compile(n.Get("x"), WantAny, shopScope(t), d)
		if e == nil {
			t.Fatalf("%s: %v", text, d.Problems)
		}
		out = append(out, e)
	}
	return out
}

// evalAny fails the test when an expression does what none may do.
func evalAny(t rapid.TB, e *Expression, vars map[string]any) error {
	v, err := e.Eval(vars)
	if err != nil {
		var own *EvalError
		if !errors.As(err, &own) || strings.HasSuffix(err.Error(), "the expression failed") {
			t.Fatalf("%s: %v", e.Source(), err)
		}
		return err
	}
	switch v := v.(type) {
	case nil, bool, int64, decimal.Decimal, time.Time, map[string]any:
	case string:
		if v == "" {
			t.Fatalf("%s gives an empty text", e.Source())
		}
	case []any:
		if len(v) == 0 {
			t.Fatalf("%s gives an empty list", e.Source())
		}
	default:
		t.Fatalf("%s gives a %T", e.Source(), v)
	}
	return nil
}

// anyJSON draws a value of any kind, with the names that shop knows.
func anyJSON(depth int) *rapid.Generator[any] {
	leaf := rapid.OneOf(
		rapid.Just[any](nil),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Map(rapid.Int64(), func(i int64) any { return i }),
		rapid.Map(rapid.Float64Range(-1e20, 1e20), func(f float64) any { return f }),
		rapid.Map(rapid.SampledFrom([]string{"", " ", "a", "gold", "Won, Lost", "1e999999999", "-0", "2020-03-01", "2020-03-01T05:00:00Z", "jane@example.com", "http://[::1", "+1 416 555 0123", "<p>x", "\u0000", "ß, É"}), func(s string) any { return s }),
		rapid.Map(rapid.String(), func(s string) any { return s }),
	)
	if depth == 0 {
		return leaf
	}
	names := rapid.SampledFrom([]string{"key", "account_name", "stage", "amount", "rate", "archived", "created_at", "tags", "users", "contact", "meta", "billing", "fields", "value", "label", "email", "phone", "country", "first", "last", "id", "active", "token", "tax_id", "new", "company_name_38n83e3e3"})
	return rapid.OneOf(leaf, leaf,
		rapid.Map(rapid.SliceOfN(anyJSON(depth-1), 0, 4), func(l []any) any { return l }),
		rapid.Map(rapid.MapOfN(names, anyJSON(depth-1), 0, 8), func(m map[string]any) any { return m }),
	)
}

func TestNoBodyBreaksAnExpression(t *testing.T) {
	t.Parallel()
	expressions, schema := compileSamples(t), shop()
	rapid.Check(t, func(t *rapid.T) {
		fields := rapid.MapOfN(rapid.SampledFrom(slices.Sorted(maps.Keys(schema.Fields))), anyJSON(3), 0, -1).Draw(t, "body")
		raw, err := json.Marshal(fields)
		if err != nil {
			t.Skip(err)
		}
		body, _, err := Shape(raw, &schema)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range expressions {
			_ = evalAny(t, e, map[string]any{"event": body})
		}
	})
}

// What the sender leaves out, or sends as null, is null: nothing fails.
func TestWhatIsMissingBreaksNothing(t *testing.T) {
	t.Parallel()
	expressions, schema := compileSamples(t), shop()
	full := `{"key":"k","account_name":"A B","stage":"won","amount":5,"rate":0.5,"archived":"false","created_at":1583038800000,"tags":["a"],
		"users":[{"id":1,"email":"a@example.com","active":true}],"contact":{"email":"a@example.com","phone":"1","country":"CA","first":"A","last":"B"},"meta":{"a":"b"},"billing":{"plan":"x"}}`
	rapid.Check(t, func(t *rapid.T) {
		body, _, err := Shape([]byte(full), &schema)
		if err != nil {
			t.Fatal(err)
		}
		var remove func(m map[string]any)
		remove = func(m map[string]any) {
			for _, name := range slices.Sorted(maps.Keys(m)) {
				switch rapid.SampledFrom([]string{"keep", "drop", "null", "inner"}).Draw(t, name) {
				case "drop":
					delete(m, name)
				case "null":
					m[name] = nil
				case "inner":
					switch v := m[name].(type) {
					case map[string]any:
						remove(v)
					case []any:
						v[0] = nil
					}
				}
			}
		}
		remove(body)
		for _, e := range expressions {
			if err := evalAny(t, e, map[string]any{"event": body}); err != nil {
				t.Errorf("%s: %v", e.Source(), err)
			}
		}
	})
}

func FuzzCompile(f *testing.F) {
	for _, s := range samples {
		f.Add(s)
	}
	for _, fn := range Functions() {
		for _, e := range fn.Examples {
			f.Add(e.Expression)
		}
	}
	scope := shopScope(f)
	schema := shop()
	body, _, err := Shape([]byte(`{"key":"k","stage":"won","amount":5,"rate":0.5,"tags":["a"],"users":[{"id":1}]}`), &schema)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Skip(err)
		}
		n, problems := diag.Parse("test.yaml", []byte(`x: `+string(quoted)))
		if problems.Failed() {
			t.Skip()
		}
		d := &diag.Decoding{}
		e := Compile(n.Get("x"), WantAny, scope, d)
		switch {
		case e == nil && !d.Problems.Failed():
			t.Fatalf("%q: nil without a problem", text)
		case e == nil:
			for _, p := range d.Problems {
				if p.Message == "the expression cannot be compiled" || p.Message == "this is no expression" {
					t.Fatalf("%q: %v", text, p)
				}
			}
		default:
			_ = evalAny(t, e, map[string]any{"event": body, "hook": map[string]any{"type": "x"}})
		}
	})
}
