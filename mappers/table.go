package mappers

import (
	"fmt"
	"strings"

	"github.com/shopspring/decimal"

	"partnersync/internal/diag"
)

// Table translates values, one entry of `tables:` in the config. Values are
// looked up without regard to case and surrounding blanks.
type Table struct {
	entries map[string]any
	miss    string // "dead", "skip", or "value" when fallback stands in
	value   any
	places  []Constant // what stands in it

	Listing *Listing // where the entries come from; nil: they stand in the config
	filled  filled
}

// DecodeNode reads {map: {from: to}, else: dead | skip | value("x")}. A value may be a reference such as ${NAME}. In place of
// map it may have from and list: then the entries are those of a CRM.
func (t *Table) DecodeNode(n diag.Node, d *diag.Decoding) {
	t.miss = "dead"
	if n.Get("from").Exists() {
		t.listing(n, d)
		t.otherwise(n.Get("else"), d)
		return
	}
	var raw struct {
		Map  map[string]diag.Node `yaml:"map,required"`
		Else diag.Node            `yaml:"else"`
	}
	d.Decode(n, &raw)
	t.entries = map[string]any{}
	first := map[string]string{}
	for _, e := range n.Get("map").Entries() {
		name := fold(e.Key.Text())
		if before, ok := first[name]; ok && before != e.Key.Text() {
			d.Errorf(e.Key, "a table is read without regard to case", "%q and %q are the same entry", before, e.Key.Text())
		}
		first[name] = e.Key.Text()
		if k := e.Value.Kind(); k == diag.List || k == diag.Map {
			d.Errorf(e.Value, "", "an entry of a table is a single value, found %s", k)
			continue
		}
		t.entries[name], _ = entryValue(e.Value, d)
		t.place(e.Value, t.entries[name])
	}
	t.otherwise(raw.Else, d)
}

// otherwise reads what stands for a value that the table lacks.
func (t *Table) otherwise(n diag.Node, d *diag.Decoding) {
	switch text := n.Text(); {
	case !n.Exists():
	case text == "dead", text == "skip":
		t.miss = text
	case strings.HasPrefix(text, "${"):
		v, ok := entryValue(n, d)
		if word, _ := v.(string); word == "dead" || word == "skip" {
			t.miss = word
		} else if ok {
			t.miss, t.value = "value", v
			t.place(n, v)
		}
	default:
		e := Compile(n, WantAny, &Scope{}, d)
		if e == nil {
			return
		}
		if v, err := e.Eval(nil); err != nil {
			d.Errorf(n, "", "%v", err)
		} else {
			t.miss, t.value = "value", v
			t.place(n, v)
		}
	}
}

func (t *Table) place(n diag.Node, v any) {
	if c, ok := constantAt(n, v); ok {
		t.places = append(t.places, c)
	}
}

// lookup returns what stands for v. The error is a *LookupMiss, or an *Unread where the CRM has not told yet.
func (t *Table) lookup(name string, v string) (any, error) {
	if t.Listing != nil {
		to, ok, err := t.listed(name, v)
		if ok || err != nil {
			return to, err
		}
	}
	if to, ok := t.entries[fold(v)]; ok {
		return to, nil
	}
	if t.miss == "value" {
		return t.value, nil
	}
	return nil, &LookupMiss{Table: name, Skip: t.miss == "skip"}
}

// Constants are the values that the table gives.
func (t *Table) Constants() []string {
	var out []string
	add := func(v any) {
		if text, ok := scalarText(v); ok && v != nil {
			out = append(out, text)
		}
	}
	for _, v := range t.entries {
		add(v)
	}
	add(t.value)
	return out
}

func fold(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// entryValue is a value of a table. What stands for a reference without quotes is a number where it is spelt as one: a
// stage may have to be. The second result is false where the problem is in d.
func entryValue(n diag.Node, d *diag.Decoding) (any, bool) {
	if !strings.Contains(n.Text(), "${") {
		return plainValue(n), true
	}
	text, ok := d.Scalar(n)
	if !ok || n.Quoted() {
		return text, ok
	}
	if read, problems := diag.Parse("", []byte(text)); len(problems) == 0 && read.Kind() == diag.Scalar {
		if v := plainValue(read); fmt.Sprint(v) == text {
			return v, true
		}
	}
	return text, true
}

// plainValue is a single value of YAML, numbers exact.
func plainValue(n diag.Node) any {
	v := n.Plain()
	if _, float := v.(float64); float {
		if d, err := decimal.NewFromString(n.Text()); err == nil {
			return d
		}
		return n.Text() // .inf and the like
	}
	return v
}
