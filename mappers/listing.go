package mappers

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"partnersync/internal/diag"
)

// Listing says from which list of a CRM a table has its entries: people who write mappings use names, and the CRM gives
// the ids.
type Listing struct {
	Sink    string
	List    string // owners, pipelines, stages, ..., or options: the values that a field takes
	Object  string // of stages, pipelines and options
	Field   string // of options
	By      string // the field of an entry that is looked up
	Value   string // the one that stands for it
	Where   map[string]string
	Refresh time.Duration
	At      diag.Node
}

// Options is the list of the values that a field takes, Fields that of the fields of an object.
const (
	Options = "options"
	Fields  = "fields"
)

// Alias is a name that mappings have for a field, by its label in the CRM. Its name there stands in the table.
type Alias struct {
	Label string
	Table *Table
	Named string // the table
}

// actual is the name of a field in the CRM.
func (a Alias) actual() (string, error) {
	name, ok, err := a.Table.listed(a.Named, a.Label)
	if err != nil {
		return "", err
	}
	text, _ := name.(string)
	if !ok {
		return "", plainf("the CRM has no field with the label %q", a.Label)
	}
	return text, nil
}

const (
	defaultRefresh = time.Hour
	leastRefresh   = time.Minute
)

// reading is what a table has read from its CRM.
type reading struct {
	entries map[string]any
	twice   map[string]bool // what several entries are called
}

// filled is the last reading; nothing before the first.
type filled struct{ atomic.Pointer[reading] }

// listing reads {from: crm, list: owners, by: email, value: id, refresh: 1h}.
func (t *Table) listing(n diag.Node, d *diag.Decoding) {
	var raw struct {
		From    diag.Node         `yaml:"from,required"`
		List    string            `yaml:"list,required"`
		Object  string            `yaml:"object"`
		Field   string            `yaml:"field"`
		By      string            `yaml:"by"`
		Value   string            `yaml:"value"`
		Where   map[string]string `yaml:"where"`
		Refresh time.Duration     `yaml:"refresh"`
		Else    diag.Node         `yaml:"else"`
	}
	d.Decode(n, &raw)
	l := &Listing{List: raw.List, Object: raw.Object, Field: raw.Field, By: raw.By, Value: raw.Value, Where: raw.Where, Refresh: raw.Refresh, At: raw.From}
	l.Sink, _ = d.Scalar(raw.From)
	if l.By == "" {
		l.By = "label"
	}
	if l.Value == "" {
		l.Value = map[bool]string{true: "value", false: "id"}[l.List == Options]
	}
	switch at := n.Get("refresh"); {
	case !at.Exists():
		l.Refresh = defaultRefresh
	case l.Refresh < leastRefresh:
		d.Errorf(at, "at least 1m: each time the CRM is asked for the whole list", "refresh is out of range")
	}
	if l.List == Options && (l.Object == "" || l.Field == "") {
		d.Errorf(n.Get("list"), "write {list: options, object: deals, field: dealtype}", "options are those of a field")
	}
	if l.List != Options && l.Field != "" {
		d.Errorf(n.Get("field"), "", "only options are those of a field")
	}
	t.Listing = l
}

// FieldTable is the table of the fields of an object, by their labels.
func FieldTable(sink, object string, at diag.Node) *Table {
	return &Table{miss: "dead", Listing: &Listing{Sink: sink, List: Fields, Object: object, By: "label", Value: "name", Refresh: defaultRefresh, At: at}}
}

// Fill takes over what the CRM has: the entries of the list, each by the names of its fields. It returns what several entries are called that differ in their value: it cannot be
// looked up.
func (t *Table) Fill(list []map[string]string) []string {
	l, r := t.Listing, &reading{entries: map[string]any{}, twice: map[string]bool{}}
	for _, e := range list {
		by, value := e[l.By], e[l.Value]
		name := fold(by)
		if name == "" || value == "" || slices.ContainsFunc(slices.Collect(maps.Keys(l.Where)), func(k string) bool { return fold(e[k]) != fold(l.Where[k]) }) {
			continue
		}
		if before, has := r.entries[name]; has && before != value {
			r.twice[name] = true
		}
		r.entries[name] = value
	}
	t.filled.Store(r)
	return slices.Sorted(maps.Keys(r.twice))
}

// Filled reports whether the table has been read from its CRM, or need not be.
func (t *Table) Filled() bool { return t.Listing == nil || t.filled.Load() != nil }

// Take has the table go on with what another of the same list has read.
func (t *Table) Take(o *Table) {
	if o != nil && o.Listing != nil && t.Listing != nil && o.Listing.Same(t.Listing) {
		t.filled.Store(o.filled.Load())
	}
}

// Same reports whether two tables have the same entries.
func (l *Listing) Same(o *Listing) bool {
	return l.Sink == o.Sink && l.List == o.List && l.Object == o.Object && l.Field == o.Field && l.By == o.By && l.Value == o.Value && maps.Equal(l.Where, o.Where)
}

// Key tells lists of one sink apart.
func (l *Listing) Key() string { return strings.Join([]string{l.Sink, l.List, l.Object, l.Field}, "/") }

// listed looks a value up in what the CRM has.
func (t *Table) listed(name, v string) (any, bool, error) {
	r := t.filled.Load()
	if r == nil {
		return nil, false, &Unread{Table: name, Listing: t.Listing}
	}
	if r.twice[fold(v)] {
		return nil, false, plainf("finds several entries of table %q for the value: the CRM of %q has two of one name", name, t.Listing.Sink)
	}
	value, ok := r.entries[fold(v)]
	return value, ok, nil
}

// Unread is the error where a table is needed that has not been read from its CRM yet.
type Unread struct {
	Table   string
	Listing *Listing
}

func (u *Unread) Error() string {
	if u.Listing.List == Fields {
		return fmt.Sprintf("what the %s are called in %s is read from there, and it has not answered yet", u.Listing.Called(), u.Listing.Sink)
	}
	return fmt.Sprintf("lookup(): the table %q is read from a CRM, which has not answered yet", u.Table)
}

// Called names the list in words.
func (l *Listing) Called() string {
	words := []string{l.List}
	if l.Field != "" {
		words = append(words, "of "+l.Field)
	}
	if l.Object != "" {
		words = append(words, "of "+l.Object)
	}
	return strings.Join(words, " ")
}
