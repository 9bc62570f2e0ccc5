package sinks

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/diag"
)

func TestPaths(t *testing.T) {
	t.Parallel()
	body := `{"id":12345678901234567890,"ok":true,"none":null,"skipped":{"deep":[1,2,{"x":"y"}]},
		"data":[{"id":"a","tags":["x","y"],"properties":{"partner_key":"PS-1","other":"no"}},{"id":"b","tags":[],"properties":{}}],
		"data":[{"id":"c","tags":["z"],"properties":{"partner_key":"PS-2"}}],"text":"a\u00e9\n","@odata.next":"z","[0].x":1}`
	tests := []struct {
		path string
		want []string
	}{
		{"id", []string{"12345678901234567890"}},
		{"ok", []string{"true"}},
		{"none", nil},
		{"nothing.at.all", nil},
		{"data[0].id", []string{"c"}},
		{"data[*].id", []string{"c"}}, // the last of two equal names
		{"data[*].tags", []string{"z"}},
		{"data[0].tags[0]", []string{"z"}},
		{"data[7].id", nil},
		{"data[*].properties.{property}", []string{"PS-2"}},
		{"text", []string{"aé\n"}},
		{"skipped.deep[2].x", []string{"y"}},
		{"skipped.deep", []string{"1", "2"}},
		{"id.further", nil},
		{"ok[0]", nil},
		{`@odata\.next`, []string{"z"}}, // a dot that belongs to the name
		{"@odata.next", nil},
	}
	for _, test := range tests {
		p, err := parsePath(test.path)
		if err != nil {
			t.Fatal(err)
		}
		var o outline
		o.add(p)
		tree, err := o.decode([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, p.texts(tree, "partner_key", nil)); diff != "" {
			t.Errorf("%s: %s", test.path, diff)
		}
	}
	for _, bad := range []string{"", "a..b", "a[", "a[x]", "a[-1]", "a]", "[", "a[0]b", "{x}", "a.", "a[0]]"} {
		if p, err := parsePath(bad); err == nil {
			t.Errorf("%q is a path: %v", bad, p)
		}
	}
}

// What nobody asks for is not decoded.
func TestOutlinePrunes(t *testing.T) {
	t.Parallel()
	p, _ := parsePath("results")
	id, _ := parsePath("id")
	var o outline
	o.add(p, everyElement(), id)
	o.add(p) // the list itself is asked for, its elements only in part
	tree, err := o.decode([]byte(`{"a":{"b":1},"results":[{"id":"1","properties":{"x":"y"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	got := tree.(map[string]any)
	if _, has := got["a"]; has && got["a"] != nil {
		t.Error("a was read")
	}
	if got["results"].([]any)[0].(map[string]any)["id"] != "1" {
		t.Error(got)
	}
}

func TestDecodeBad(t *testing.T) {
	t.Parallel()
	var o outline
	o.whole = true
	for _, bad := range []string{"", "{", `{"a":`, `[1,`, "nul", "{} x", `{"a":1,}`, "<html>", `"` + strings.Repeat("x", 10)} {
		if tree, err := o.decode([]byte(bad)); err == nil {
			t.Errorf("%q gives %v", bad, tree)
		}
	}
	deep := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	if _, err := o.decode([]byte(deep)); err != nil {
		t.Errorf("deep nesting: %v", err)
	}
	if _, err := o.decode([]byte("{\"a\":\"\xff\"}")); err != nil {
		t.Errorf("invalid UTF-8: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"results":[{"id":"1"}],"errors":[{"message":"[{\"name\":1}]"}]}`))
	f.Add([]byte(`[[[[{"a":[1,{"b":null}]}]]]]`))
	desc := loadYAML(f, presetConfigs["hubspot"])
	s := New(desc, Options{})
	f.Cleanup(s.Close)
	o := desc.operations[Upsert][0]
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, status := range []int{200, 207, 400, 409, 429, 500} {
			a := &answer{status: status, header: http.Header{}}
			if tree, err := o.outline.decode(data); err == nil {
				a.tree, a.json = tree, true
			}
			rows := []Row{contact("1"), contact("2")}
			units := []*unit{{row: &rows[0]}, {row: &rows[1], at: 1}}
			for _, out := range s.read(o, units, a, desc.judge(Upsert, a, s.now())) {
				if out.Class == "" && !out.again {
					t.Fatalf("a row without a class: %q", data)
				}
			}
		}
	})
}

func TestExtract(t *testing.T) {
	t.Parallel()
	a := &answer{header: http.Header{"X-Id": {"h-1"}}}
	tree := map[string]any{
		"message": `Property values were not valid: [{"isValid":false,"error":"INVALID_OPTION","name":"stage",` +
			`"message":"x was not one of the allowed options: [a b, c,d]"},{"error":"E2","name":"other"}] and so on`,
		"plain": "Existing ID: 123 (and ID: 456)", "empty": "",
	}
	tests := []struct {
		yaml string
		want []string
	}{
		{`plain`, []string{"Existing ID: 123 (and ID: 456)"}},
		{`{path: plain, pattern: 'ID: (\d+)'}`, []string{"123", "456"}},
		{`{path: plain, pattern: 'no (match)'}`, nil},
		{`{header: x-id}`, []string{"h-1"}},
		{`[nothing, empty, {header: X-Id}]`, []string{"h-1"}},
		{`{path: message, inner: "[*].error"}`, []string{"INVALID_OPTION", "E2"}},
		{`{path: plain, inner: "[*].error"}`, nil},
		{`{path: message, inner: "[*].message", pattern: 'options: \[([^\]]*)\]', split: ","}`, []string{"a b", "c", "d"}},
	}
	for _, test := range tests {
		n, problems := diag.Parse("x", []byte(test.yaml))
		d := diag.Decoding{Problems: problems}
		var e extract
		d.Decode(n, &e)
		if len(d.Problems) > 0 {
			t.Fatal(d.Problems)
		}
		if diff := cmp.Diff(test.want, e.first(a, tree, "")); diff != "" {
			t.Errorf("%s: %s", test.yaml, diff)
		}
	}
}
