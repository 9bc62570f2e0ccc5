package diag_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/diag"
	"partnersync/internal/secret"
)

// settings is a document with one of everything that Decode knows.
type settings struct {
	Name   string            `yaml:"name,required"`
	Count  int               `yaml:"count"`
	On     bool              `yaml:"on"`
	Rate   float64           `yaml:"rate"`
	Wait   time.Duration     `yaml:"wait"`
	Token  secret.String     `yaml:"token"`
	Tags   []string          `yaml:"tags,single"`
	Labels map[string]string `yaml:"labels"`
	Inner  *inner            `yaml:"inner"`
	Any    any               `yaml:"any"`
}

type inner struct {
	Deep []int     `yaml:"deep"`
	Self diag.Node `yaml:",node"`
}

func expand(reference string) (string, error) {
	switch reference {
	case "NAME":
		return "from outside", nil
	case "SOFT":
		return "stand-in", diag.Soft{Text: "SOFT is not set here"}
	}
	return "", errors.New("the variable " + reference + " is not set")
}

func decode(t *testing.T, text string) (settings, string) {
	t.Helper()
	n, problems := diag.Parse("f.yaml", []byte(text))
	d := &diag.Decoding{Problems: problems, Expand: expand}
	var s settings
	if !problems.Failed() {
		d.Decode(n, &s)
	}
	d.Problems.Sort()
	var b strings.Builder
	diag.Print(&b, d.Problems, func(string) []byte { return []byte(text) })
	return s, b.String()
}

func TestDecodeEverything(t *testing.T) {
	t.Parallel()
	got, problems := decode(t, `
base: &base {deep: [1, 2]}
`)
	if !strings.Contains(problems, `unknown key "base"`) {
		t.Errorf("got %q, %s", got.Name, problems)
	}
	got, problems = decode(t, `name: ${NAME}
count: 1_000
on: yes
rate: 2.5
wait: 7d
token: ${NAME}
tags: one
labels: {a: "1", b: x}
inner: {deep: [1, 2]}
any: {k: [true, 7, 1.5, ~, "7"]}
`)
	if problems != "" {
		t.Fatal(problems)
	}
	if got.Name != "from outside" || got.Count != 1000 || !got.On || got.Rate != 2.5 || got.Wait != 7*24*time.Hour || got.Token.Reveal() != "from outside" {
		t.Errorf("got %+v", got)
	}
	if diff := cmp.Diff(map[string]any{"k": []any{true, int64(7), 1.5, nil, "7"}}, got.Any); diff != "" {
		t.Error(diff)
	}
	if len(got.Tags) != 1 || got.Labels["b"] != "x" || len(got.Inner.Deep) != 2 || got.Inner.Self.Pos().Line != 9 {
		t.Errorf("got %+v", got)
	}
}

func TestEachMistakeHasItsMessage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, give, want string }{
		{"unknown key", "name: x\ncuont: 1\n", `f.yaml:2:1: error: unknown key "cuont"
    2 | cuont: 1
      | ^^^^^
        did you mean "count"?
`},
		{"missing key", "count: 1\n", `f.yaml:1:1: error: the key "name" is missing
    1 | count: 1
      | ^
`},
		{"wrong type", "name: [a]\ncount: many\n", `f.yaml:1:7: error: expected a single value, found a list
    1 | name: [a]
      |       ^

f.yaml:2:8: error: expected a whole number, found "many"
    2 | count: many
      |        ^^^^
`},
		{"twice", "name: a\nname: b\n", `f.yaml:2:1: error: the key "name" stands here a second time
    2 | name: b
      | ^^^^
        it stands on line 1 already
`},
		{"no duration", "name: x\nwait: 5\n", `f.yaml:2:7: error: "5" is not a duration
    2 | wait: 5
      |       ^
        write a number with a unit, such as 500ms, 30s, 5m, 72h or 7d
`},
		{"unset variable", "name: ${OTHER}\n", `f.yaml:1:7: error: the variable OTHER is not set
    1 | name: ${OTHER}
      |       ^^^^^^^^
`},
		{"half a reference", "name: x-${NAME}\n", `f.yaml:1:7: error: a reference such as ${NAME} must be the whole value
    1 | name: x-${NAME}
      |       ^^^^^^^^^
        set the variable to the whole text and write ${NAME} alone
`},
		{"soft", "name: ${SOFT}\n", `f.yaml:1:7: warning: SOFT is not set here
    1 | name: ${SOFT}
      |       ^^^^^^^
`},
		{"null", "name: ~\n", `f.yaml:1:7: error: this needs a value
    1 | name: ~
      |       ^
`},
		{"colon ends a value", "name: a: b\n", `f.yaml:1:8: error: YAML: mapping values are not allowed in this context
    1 | name: a: b
      |        ^
        a colon followed by a space ends an unquoted value: put the whole value in single quotes
`},
		{"star", "name: *x\n", `f.yaml:1:7: error: YAML: unknown anchor
    1 | name: *x
      |       ^
        a leading * is YAML's sign for an alias: put the whole value in single quotes
`},
		{"tab", "name: x\n\tcount: 1\n", `f.yaml:2:1: error: YAML: found a tab character that violates indentation
    2 | 	count: 1
      | ^
        YAML is indented with spaces, never with tabs
`},
		{"not UTF-8", "name: \xff\n", `f.yaml:1:1: error: the file is not UTF-8
    1 | name: ?
      | ^
        save it as UTF-8
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, got := decode(t, tt.give)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPosAtPointsIntoTheScalar(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, give string
		offset     int
		want       diag.Pos
	}{
		{"plain", "k: abc\n", 2, diag.Pos{File: "f", Line: 1, Col: 6}},
		{"single quotes", "k: 'it''s x'\n", 5, diag.Pos{File: "f", Line: 1, Col: 11}},
		{"double quotes", "k: \"abc\"\n", 1, diag.Pos{File: "f", Line: 1, Col: 6}},
		{"wide characters", "k: äöü\n", 4, diag.Pos{File: "f", Line: 1, Col: 6}},
		{"block", "k: |\n  one\n  two\n", 5, diag.Pos{File: "f", Line: 3, Col: 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n, problems := diag.Parse("f", []byte(tt.give))
			if problems.Failed() {
				t.Fatal(problems)
			}
			if got := n.Get("k").PosAt(tt.offset); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestOverlay(t *testing.T) {
	t.Parallel()
	base, _ := diag.Parse("base", []byte("a: 1\nm: {x: 1, y: 2}\nl: [1, 2]\ngone: 1\n"))
	over, _ := diag.Parse("over", []byte("m: {y: 3, z: 4}\nl: [9]\ngone: ~\nabsent: ~\nb: 2\n"))
	got := diag.Overlay(base, over)
	want := map[string]any{"a": int64(1), "b": int64(2), "l": []any{int64(9)}, "m": map[string]any{"x": int64(1), "y": int64(3), "z": int64(4)}}
	if diff := cmp.Diff(want, got.Plain()); diff != "" {
		t.Error(diff)
	}
	if at := got.Get("m").Get("x").Pos(); at.File != "base" {
		t.Errorf("x stands at %v", at)
	}
	if at := got.Get("m").Get("y").Pos(); at.File != "over" {
		t.Errorf("y stands at %v", at)
	}
}

func TestMergeKeysAndAliases(t *testing.T) {
	t.Parallel()
	n, problems := diag.Parse("f", []byte("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nagain: *b\n"))
	if problems.Failed() {
		t.Fatal(problems)
	}
	want := map[string]any{"x": int64(1), "y": int64(3)}
	if diff := cmp.Diff(want, n.Get("use").Plain()); diff != "" {
		t.Error(diff)
	}
	if at := n.Get("again").Pos(); at.Line != 3 {
		t.Errorf("an alias stands where it is used, not at %v", at)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		word, want string
	}{
		{"emial", "email"}, {"firstname", "first_name"}, {"Email", "email"}, {"zzz", ""}, {"emai", "email"}, {"am", ""}, {"amo", "amount"},
	} {
		if got := diag.Nearest(tt.word, []string{"email", "first_name", "amount"}); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.word, got, tt.want)
		}
	}
}

// No document, however odd, makes parsing or decoding panic or hang.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"name: x\n", "a: &a [*a]\n", "<<: {a: 1}\n", "x: {a: f(x, y)}\n", "? [a]\n: b\n", "name: |\n  x\n y\n",
		"a: &x {b: 1}\nc: [*x, *x, *x]\n", "--- a\n--- b\n", "\xef\xbb\xbfname: x\n", "name: !!binary x\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, problems := diag.Parse("f.yaml", data)
		d := &diag.Decoding{Problems: problems, Expand: expand}
		var s settings
		d.Decode(n, &s)
		_ = n.Plain()
		diag.Print(&strings.Builder{}, d.Problems, func(string) []byte { return data })
	})
}

// bomb is so many levels of aliases, ten to each, that all stand for its first.
func bomb(levels int) string {
	var b strings.Builder
	b.WriteString("l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&b, "l%d: &l%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*l%d, ", i-1), 10), ", "))
	}
	return b.String()
}

// Whatever aliases stand for, a document is read at once, or refused in one line.
func TestAliasesAreBounded(t *testing.T) {
	t.Parallel()
	const refused = "aliases stand for more than 100000 values up to here"
	tests := []struct {
		name, give string
		want       string
	}{
		{"three levels", bomb(3), ""},
		{"five levels", bomb(5), "f.yaml:5:45: " + refused},
		{"twelve levels", bomb(12), "f.yaml:5:45: " + refused},
		{"a hundred levels", bomb(98), "f.yaml:1:1: the document is nested more than 100 levels deep"},
		{"one alias often", "a: &a [x, x, x, x, x, x, x, x, x]\nb: [" + strings.Repeat("*a, ", 10_000) + "]\n", ""},
		{"once more than may be", "a: &a [x, x, x, x, x, x, x, x, x]\nb: [" + strings.Repeat("*a, ", 10_001) + "]\n", "f.yaml:2:40005: " + refused},
		{"in maps", "a: &a {x: 1, y: 2}\nb: &b {<<: *a, p: *a, q: *a}\nc: {<<: *b, p: *b}\n", ""},
		{"one that holds itself", "a: &a [*a, *a, *a]\n", "f.yaml:1:1: the document is nested more than 100 levels deep"},
		{"two that hold each other", "a: &a {b: &b [*a, *a], c: *b}\n", "f.yaml:1:1: the document is nested more than 100 levels deep"},
		{"many values without an alias", strings.Repeat("- x\n", 200_000), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, problems := diag.Parse("f.yaml", []byte(tt.give))
			var got []string
			for _, p := range problems {
				got = append(got, p.Pos.String()+": "+p.Message)
			}
			if strings.Join(got, "\n") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	const none = -1
	for text, want := range map[string]int64{
		"0": 0, "17": 17, "17B": 17, " 2 KiB ": 2048, "2kB": 2000, "2KB": 2000, "3MB": 3e6, "3MiB": 3 << 20, "4GiB": 4 << 30, "4GB": 4e9,
		"1TiB": 1 << 40, "1TB": 1e12, "1048576TiB": 1 << 60,
		"": none, "B": none, "1.5GiB": none, "-1": none, "1048577TiB": none, "9223372036854775808": none, "1gib": none, "1 gigabyte": none, "0x10": none,
	} {
		got, ok := diag.ParseSize(text)
		if !ok {
			got = none
		}
		if got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}
