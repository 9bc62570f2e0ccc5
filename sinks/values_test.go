package sinks

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/shopspring/decimal"
)

func TestValues(t *testing.T) {
	t.Parallel()
	row := Row{Object: "o", Property: "key", Key: "K1", Values: map[string]any{
		"a_text": "line\n\"quoted\" Ünï \u2028 </script>", "b_bool": true, "c_int": int64(9007199254740993),
		"d_exact": decimal.RequireFromString("0.1000000000000000055511151231257827"), "e_huge": decimal.New(12, 20),
		"f_time": time.Date(2026, 11, 21, 10, 30, 0, 123_000_000, time.FixedZone("", 3600)),
		"g_list": []any{"x", int64(2), nil, []any{true}}, "h_map": map[string]any{"z": decimal.New(5, -1), "a": nil},
		"i_nil": nil, "j_blank": "", "k_none": []any{}, "l_bytes": "bad\xffutf8",
		"m_tags": []any{"x", int64(2)},
	}}
	tests := []struct{ name, rules, want string }{
		{"json", "{}", `{"a_text":"line\n\"quoted\" Ünï ` + "\u2028" + ` </script>","b_bool":true,"c_int":9007199254740993,` +
			`"d_exact":0.1000000000000000055511151231257827,"e_huge":1200000000000000000000,"f_time":"2026-11-21T09:30:00.123Z",` +
			`"g_list":["x",2,null,[true]],"h_map":{"a":null,"z":0.5},"i_nil":null,"j_blank":null,"k_none":null,"key":"K1","l_bytes":"bad�utf8","m_tags":["x",2]}`},
		{"json, lists of single values as texts", `{list: ";"}`, `{"a_text":"line\n\"quoted\" Ünï ` + "\u2028" + ` </script>","b_bool":true,` +
			`"c_int":9007199254740993,"d_exact":0.1000000000000000055511151231257827,"e_huge":1200000000000000000000,` +
			`"f_time":"2026-11-21T09:30:00.123Z","g_list":["x",2,null,[true]],"h_map":{"a":null,"z":0.5},"i_nil":null,"j_blank":null,` +
			`"k_none":null,"key":"K1","l_bytes":"bad�utf8","m_tags":"x;2"}`},
		{"text", `{as: text, blank: empty, list: ";"}`, `{"a_text":"line\n\"quoted\" Ünï ` + "\u2028" + ` </script>","b_bool":"true",` +
			`"c_int":"9007199254740993","d_exact":"0.1000000000000000055511151231257827","e_huge":"1200000000000000000000",` +
			`"f_time":"2026-11-21T09:30:00.123Z","g_list":"x;2;;true","h_map":"{\"a\":null,\"z\":0.5}","i_nil":"","j_blank":"","k_none":"",` +
			`"key":"K1","l_bytes":"bad�utf8","m_tags":"x;2"}`},
		{"numbers as text, times in ms, no blanks", `{decimals: text, time: ms, blank: none}`,
			`{"a_text":"line\n\"quoted\" Ünï ` + "\u2028" + ` </script>","b_bool":true,"c_int":9007199254740993,` +
				`"d_exact":"0.1000000000000000055511151231257827","e_huge":"1200000000000000000000","f_time":1795253400123,` +
				`"g_list":["x",2,null,[true]],"h_map":{"a":null,"z":"0.5"},"key":"K1","l_bytes":"bad�utf8","m_tags":["x",2]}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, "base_url: https://crm.example\nvalues: "+test.rules+"\noperations: {upsert: {body: record.fields}}\n", Options{})
			p, err := s.Preview(Upsert, []Row{row})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(p[0].Body)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Expressions may take values apart, and a name that stands in the description wins.
func TestBodyExpressions(t *testing.T) {
	t.Parallel()
	s := newSink(t, `
base_url: https://crm.example
settings: {kind: partner, level: 3}
operations:
  upsert:
    body:
      name: upper(record.values.name)
      missing: record.values.nothing
      kind: setting.kind + "-" + text(setting.level)
      fixed: value("x")
      none: null
      on: record.event.occurred_at
      op: operation
      list: [record.key, record.id, 'value("end")']
      inner: {deep: {er: record.values.amount}}
      $spread: record.values
`[1:], Options{})
	p, err := s.Preview(Upsert, []Row{{
		Key: "K", Values: map[string]any{"name": "Acme", "amount": decimal.RequireFromString("1.50"), "kind": "clash"},
		Event: EventInfo{OccurredAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"ACME","kind":"partner-3","fixed":"x","none":null,"on":"2026-01-02T03:04:05Z","op":"upsert","list":["K","end"],` +
		`"inner":{"deep":{"er":1.5}},"amount":1.5}`
	if diff := cmp.Diff(want, string(p[0].Body)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFold(t *testing.T) {
	t.Parallel()
	s := newSink(t, "base_url: https://crm.example\nfold: {email: lower, code: none, '*': lower}\n"+anyOperation, Options{})
	for _, test := range [][3]string{{"email", "A@B.co", "a@b.co"}, {"code", "AbC", "AbC"}, {"other", "ÄX", "äx"}} {
		if got := s.Fold(test[0], test[1]); got != test[2] {
			t.Errorf("%v: got %q", test, got)
		}
	}
	plain := newSink(t, "base_url: https://crm.example\n"+anyOperation, Options{})
	if got := plain.Fold("email", "A@B.co"); got != "A@B.co" {
		t.Error(got)
	}
}
