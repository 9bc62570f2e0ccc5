package sinks

import (
	"encoding/json"
	"fmt"
	"html"
	htmltemplate "html/template"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
)

func TestScrub(t *testing.T) {
	t.Parallel()
	desc := &Description{shown: map[string]bool{"qualifiedtobuy": true}}
	needles := desc.needles([]*unit{{row: &Row{
		Key: "PS.1", Links: []RowLink{{Key: "firm-4711"}},
		Values: map[string]any{
			"stage": "Won", "email": "stage", "n": int64(12345), "b": true, "s": "no", "x": "a.c", "dealstage": "qualifiedtobuy",
			"tags": []any{"jane@x.example", map[string]any{"iban": "DE00 1234"}}, "name": "Zoë <\"&'> O'Neil", "note": strings.Repeat("long words ", 50),
			"at": time.Date(2026, 11, 30, 1, 2, 3, 0, time.UTC), "amount": decimal.RequireFromString("1234.50"),
		}}},
		{link: &LinkRow{From: Ref{Key: "from-key"}, To: Ref{Key: "to-key"}}},
	})
	tests := []struct{ give, want string }{
		{"Won is not in stage, won, Wonder (WON)", "<value> is not in stage, <value>, Wonder (<value>)"},
		{"key ps.1 and PSx1", "key <key> and PSx1"},
		{"12345 12345 123456", "<value> <value> 123456"},
		{"true and no", "true and no"},
		{"a.c abc", "<value> abc"},
		{"", ""},
		{"qualifiedtobuy was not one of the options", "qualifiedtobuy was not one of the options"}, // our own words
		{`tags: ["jane@x.example", {"iban":"DE00 1234"}] of firm-4711`, `tags: ["<value>", {"<value>":"<value>"}] of <key>`},
		{"from-key to to-key", "<key> to <key>"},
		{"Zoë <\"&'> O'Neil", "<value>"},
		{`{"name":"Zo\u00eb \u003c\"\u0026\u0027\u003e O\u0027Neil"}`, `{"name":"<value>"}`},
		{`Zo\u00EB <\"&'> O'Neil`, "<value>"},
		{"Zoë &lt;&quot;&amp;&#39;&gt; O&#39;Neil", "<value>"},
		{"q=Zo%C3%AB+%3C%22%26%27%3E+O%27Neil&x", "q=<value>&x"},
		{"q=zo%c3%ab%20%3c%22%26%27%3e%20o%27neil", "q=<value>"},
		{"xjane@x.examplex", "x<value>x"},
		{`note\nWon\tWon stage%3DWon`, `note\n<value>\t<value> stage%3D<value>`},
		{"too long: long words long words long wor... (500)", "too long: <value>... (500)"}, // cut by the target
		{"2026-11-30T01:02:03Z is no date, 1234.5 no number", "<value> is no date, <value> no number"},
	}
	for _, test := range tests {
		if got := scrub(test.give, needles); got != test.want {
			t.Errorf("%q: got %q, want %q", test.give, got, test.want)
		}
	}
}

// writers are the ways in which targets write a text into an answer; none is of our own making.
var writers = map[string]func(string) string{
	"plain":      func(s string) string { return s },
	"upper":      strings.ToUpper,
	"json":       func(s string) string { b, _ := json.Marshal(s); return string(b) },
	"json twice": func(s string) string { b, _ := json.Marshal(s); b, _ = json.Marshal(string(b)); return string(b) },
	"json of text": func(s string) string {
		b, _ := json.Marshal(map[string]any{"v": s, "l": []string{s}})
		return string(b)
	},
	"ascii":    strconv.QuoteToASCII,
	"html":     html.EscapeString,
	"template": htmltemplate.HTMLEscapeString,
	"query":    url.QueryEscape,
	"path":     url.PathEscape,
	"values":   func(s string) string { return url.Values{"a": {s}, "b": {s}}.Encode() },
}

// No reason holds a value of any row of its request, in whatever form the target says it back.
func TestNoReasonHoldsAValue(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "Ann", "é", "ß", "日", "😀", " ", "<", ">", "&", "\"", "'", "/", "\\", "%", "+", "=", "\n", "\t", "@", ".", "-", "7", "Q"}
	marked := 0
	word := func() string {
		marked++
		var b strings.Builder
		for range 1 + random.IntN(5) {
			b.WriteString(alphabet[random.IntN(len(alphabet))])
		}
		// A part that no ordinary word has, so that what is left of a value can be told.
		return b.String() + fmt.Sprintf("Xy%dyX", marked) + alphabet[random.IntN(len(alphabet))] + fmt.Sprintf("Wz%dzW", marked)
	}
	for name, write := range writers {
		for range 40 {
			var all []string
			value := func() string { all = append(all, word()); return all[len(all)-1] }
			rows := make([]Row, 3)
			for i := range rows {
				rows[i] = Row{
					Trace: fmt.Sprint("t", i), Object: "orders", Property: "k", Key: value(), Links: []RowLink{{Object: "o", Key: value(), ID: "7"}},
					Values: map[string]any{"a": value(), "list": []any{value(), []any{value()}}, "map": map[string]any{value(): value()}},
				}
			}
			var said strings.Builder
			said.WriteString("refused: ")
			for _, v := range all {
				said.WriteString(write(v) + " ")
			}
			status := []int{400, 422, 429, 500, 200}[random.IntN(5)]
			asJSON := random.IntN(2) == 0
			srv := newTarget(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
				w.WriteHeader(status)
				if !asJSON {
					_, _ = io.WriteString(w, said.String())
					return
				}
				quoted, _ := json.Marshal(said.String())
				_, _ = fmt.Fprintf(w, `{"message":%s}`, quoted)
			})
			s := newSink(t, "base_url: "+srv.URL+`
error: {message: message}
operations:
  create: {path: /rows, rows: 10, body: {$each: records, k: record.key, f: record.fields, l: record.links}, result: {results: {id: id}}}
`, Options{})
			for _, r := range s.Write(within(t), Create, rows) {
				if r.Class == OK || r.Message == "" {
					t.Fatalf("%s: %+v", name, r)
				}
				for _, mark := range []string{"xy", "yx", "wz", "zw"} {
					if strings.Contains(strings.ToLower(r.Message), mark) {
						t.Fatalf("%s, %d, as JSON %v: %q is left of\n%q\nin %q", name, status, asJSON, mark, all, r.Message)
					}
				}
			}
			s.Close()
			srv.Close()
		}
	}
}
