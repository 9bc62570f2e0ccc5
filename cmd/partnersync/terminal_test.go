package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"partnersync/internal/pgtest"
)

// hostile is a text of a sender who wants more of the operator's terminal than a place in a line: each
// character that a terminal or a reader of lines obeys, and rows that were never there.
func hostile() string {
	var b strings.Builder
	b.WriteString("\nFORGED row\u2028FORGED row\tx\x1b[31m\u202e\u009b31m") // first: an entity is cut
	for r := rune(1); r < 0xa0; r++ {                                       // no NUL: Postgres stores none
		if unicode.IsControl(r) {
			b.WriteRune(r)
		}
	}
	b.WriteString("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
	b.WriteString("\x1b[31mred\x1b]0;title\x07\u009b31m\u202ereversed")
	for _, end := range []string{"\n", "\r\n", "\r", "\v", "\f", "\u0085", "\u2028", "\u2029"} {
		b.WriteString(end + "FORGED row  delivered")
	}
	return b.String() + "\tFORGED column end"
}

// tame fails the test where an output holds what hostile is made of.
func tame(t *testing.T, what, output string) {
	t.Helper()
	for at, r := range output {
		if r != '\n' && (unicode.IsControl(r) || slices.Contains([]rune("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"), r)) {
			t.Errorf("%s prints %U: %q", what, r, output[max(0, at-40):min(len(output), at+40)])
			return
		}
	}
	for line := range strings.Lines(output) {
		if strings.HasPrefix(strings.TrimSpace(line), "FORGED") {
			t.Errorf("%s prints a line of the sender's: %q", what, line)
			return
		}
	}
}

// No command prints to a terminal what a sender or a CRM has put into an event, so that it does something there.
func TestNothingStoredMovesTheTerminal(t *testing.T) {
	t.Parallel()
	const config = `
database: {url: "${DATABASE_URL:-}", dir: pg, max_connections: 8}
receiver: {listen: "${HOOKS:-127.0.0.1:0}"}
admin: {listen: "127.0.0.1:0"}
sources:
  shop:
    verify: {token: "${HOOK_TOKEN}"}
    description: "sender\u001b[31m\u202e"
    ignore: [{when: event.name == "ignore me", reason: "no\u009b31m"}]
    events:
      deal.updated:
        description: "thing\u001b[31m\u202e"
        schema: {key: id, name: text, at: time s, other: id}
        entity: {deal: event.key}
        occurred_at: event.at
        sample: '{"key": "k\u202e", "name": "n", "at": 1}'
sinks:
  crm:
    preset: hubspot
    base_url: "${CRM_URL}"
    auth: {token: "${CRM_TOKEN}"}
    limits: []
    settings: {labels: {"orders>orders": {"1": {category: USER_DEFINED, typeId: 1}}}}
mappings:
  - {name: deals, on: shop.deal.updated, to: crm, object: orders, key: {order_key: event.key}, set: {title: event.name}}
  - {name: dead, on: shop.deal.updated, when: 'event.other != ""', to: crm, object: orders, key: {order_key: event.other}, set: {unknown: event.name}}
  - {name: links, on: shop.deal.updated, when: 'event.other != ""', to: crm, object: orders, key: {order_key: event.key}, links: [{to: orders, key: {order_key: event.other + "x"}, as: "1"}]}
`
	w := newWorld(t, config, pgtest.URL(t))
	s := w.start()
	bad := hostile()
	send := func(body any) string {
		t.Helper()
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(w.dir, "body.json")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := w.command("send", "--source", "shop", "--event", "deal.updated", "--to", s.hooks, file)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("send: %v", err)
		}
		tame(t, "send", string(out))
		for _, word := range strings.Fields(string(out)) {
			if len(word) == 36 && strings.Count(word, "-") == 4 {
				return word
			}
		}
		t.Fatalf("send tells no id: %s", out)
		return ""
	}
	plain := send(map[string]any{"key": bad, "name": bad, "at": 1_700_000_000})
	dead := send(map[string]any{"key": "d" + bad, "name": bad, "at": 1_700_000_000, "other": "o" + bad})
	s.until("the events have ended", func() bool {
		return w.count("routes WHERE outcome IS NOT NULL") > 0 && w.count("deliveries WHERE outcome = 'dead'") > 0
	})
	if w.count("events WHERE entity LIKE '%FORGED%' AND position(chr(10) IN entity) > 0") == 0 {
		t.Fatal("what is stored is tame already: the test shows nothing")
	}
	for _, args := range [][]string{
		{"events"}, {"events", "--entity", "deal:" + bad}, {"events", "--mapping", bad, "--type", bad},
		{"explain", plain}, {"explain", "--body", dead},
		{"why", "crm", "orders", bad}, {"why", "crm", "orders", "d" + bad}, {"why", bad, "x", "y"},
		{"dead"}, {"dead", "--reason", bad}, {"dead", "--mapping", bad}, {"ledger"}, {"sinks"}, {"sinks", "stop", bad},
		{"replay", "--dry-run", "--all"}, {"replay", "--dry-run", "--entity", bad}, {"replay", "--reason", bad}, {"replay", "--entity", "deal:" + bad}, {"replay", "--list"}, {"replay", bad},
		{"forget", "--dry-run", "a@b.example"}, {"forget", bad + "@b.example"},
		{"try", "--event", "deal.updated", "body.json"}, {"try", "--event", "deal.updated"}, {"try", "--event", bad}, {"check"},
		{"show", "source", "shop"}, {"show", "sink", "crm"}, {"show", "event", "shop.deal.updated"}, {"show", "source", bad}, {"show", "functions", bad},
		{"send", "--to", s.hooks}, {"send", "--to", s.hooks + "/" + bad}, {"migrate", "status"}, {"version"},
	} {
		for _, as := range []string{"text", "json"} {
			cmd := w.command(args...)
			if as == "json" {
				cmd = w.command(append([]string{"--json"}, args...)...)
			}
			var out, errOut bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errOut
			_ = cmd.Run() // some are refused
			what := fmt.Sprintf("%s of %q", as, args)
			tame(t, what, out.String())
			tame(t, what, errOut.String())
			if as == "json" && out.Len() > 0 && args[0] != "show" && !json.Valid(out.Bytes()) {
				t.Errorf("%s is none: %s", what, out.String())
			}
		}
	}
	s.stop()
}

func TestSay(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		format string
		args   []any
		want   string
	}{
		{"a\t%s\n", []any{"b\tc\nd"}, "a\tb\\u0009c\\u000ad\n"},
		{"%q %d %4d|%-4s|%v", []any{"x\x1b", 7, 7, "é\u202e", []any{"\x9b"}}, `"x\x1b" 7    7|é\u202e  |[\x9b]`},
		{"%s", []any{"as it is: äöü 漢字 🙂 \u00a0 \ufffd \\u001b"}, "as it is: äöü 漢字 🙂 \u00a0 \ufffd \\u001b"},
		{"%s", []any{"\x00\x7f\u0080\u009f\xff\xc3"}, `\u0000\u007f\u0080\u009f\xff\xc3`},
		{"%v", []any{fmt.Errorf("no\r\n%s", "x")}, `no\u000d\u000ax`},
		{"%s", []any{nil}, "%!s(<nil>)"},
	} {
		var b strings.Builder
		say(&b, tt.format, tt.args...)
		if b.String() != tt.want {
			t.Errorf("say(%q, %q) prints %q, want %q", tt.format, tt.args, b.String(), tt.want)
		}
	}
}

// A writer gets pieces that end anywhere.
func TestCleanInPieces(t *testing.T) {
	t.Parallel()
	text := "é漢🙂\u009b31m\u202e\n\tend"
	for size := 1; size < 6; size++ {
		var b strings.Builder
		c := &clean{w: &b}
		for rest := []byte(text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if n, err := c.Write(rest[:min(size, len(rest))]); err != nil || n != min(size, len(rest)) {
				t.Fatal(n, err)
			}
		}
		if want := "é漢🙂\\u009b31m\\u202e\n\tend"; b.String() != want {
			t.Errorf("in pieces of %d: %q", size, b.String())
		}
	}
	w := tabwriter.NewWriter(&clean{w: io.Discard}, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "a\tb")
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add(hostile())
	f.Add("\xff\x9b31m")
	f.Fuzz(func(t *testing.T, text string) {
		got := escape(text, func(rune) bool { return false })
		if !utf8.ValidString(got) || strings.ContainsFunc(got, obeyed) {
			t.Errorf("%q", got)
		}
		if again := escape(got, func(rune) bool { return false }); again != got {
			t.Errorf("%q becomes %q", got, again)
		}
	})
}

// What commands tell people goes by say: fmt would print a stored line break as one.
func TestCommandsSay(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "terminal.go" {
			continue
		}
		fset := token.NewFileSet()
		tree, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 3 {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !strings.HasPrefix(f.Sel.Name, "Fprint") {
				return true
			}
			for _, arg := range call.Args[2:] {
				switch arg := arg.(type) {
				case *ast.SelectorExpr, *ast.Ident: // a value that may be anybody's
					if to, ok := call.Args[0].(*ast.Ident); ok && (to.Name == "w" || to.Name == "out") {
						t.Errorf("%s: %v is printed by %s: use say", fset.Position(call.Pos()), arg, f.Sel.Name)
					}
				}
			}
			return true
		})
	}
}
