package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"partnersync/internal/ledger"
)

// What a report keeps in memory does not grow with what was observed; it counts all.
func TestReportIsBounded(t *testing.T) {
	t.Parallel()
	const many = 5000
	r := &foretold{Sink: "crm", Records: map[string]int{}, byName: map[string]*foretoldOf{}}
	for i := range many {
		for _, o := range []ledger.Observation{
			{Mapping: "deals", Object: "deals", Key: fmt.Sprint("s", i), Outcome: ledger.Dead, Reason: fmt.Sprintf("several deals fit by title: %d, %d", i, i+1)},
			{Mapping: "deals", Object: "deals", Key: fmt.Sprint("d", i), Outcome: ledger.Dead, Reason: fmt.Sprintf("reason %d", i)},
			{Mapping: "deals", Outcome: ledger.Dead, Reason: "the mapping failed"},
			{Mapping: "deals", Object: "deals", Key: fmt.Sprint("a", i), CRMID: fmt.Sprint(i), Does: ledger.Adopts, Outcome: ledger.Delivered, Fields: []ledger.Overwriting{{Name: "title", Old: "x", New: i}, {Name: "town", New: "y"}}},
		} {
			f := &foreseen{object: o.Object, fields: map[string]foreseenField{}}
			f.add(o)
			r.add(o)
			r.count(f)
		}
	}
	m := r.byName["deals"]
	if m.Ambiguous != many || m.Dead != many || m.Adopt != many || m.Overwritten != many || r.Records["adopt"] != many {
		t.Errorf("%+v %v", m, r.Records)
	}
	dead := 0
	for _, reason := range m.Reasons {
		dead += reason.Deliveries
	}
	if len(m.Several) > mostListed || len(m.Overwrites) > mostListed || len(m.Reasons) > mostListed+1 || dead != 2*many || len(m.Examples["adopt"]) > mostExamples {
		t.Errorf("%d several, %d overwrites, %d reasons of %d, %d examples", len(m.Several), len(m.Overwrites), len(m.Reasons), dead, len(m.Examples["adopt"]))
	}
	r.Mappings = append(r.Mappings, m)
	var out bytes.Buffer
	if err := r.print(&out, false); err != nil || strings.Count(out.String(), fmt.Sprintf("and %d more: --csv FILE has all", many-mostListed)) != 2 {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// Of several events that touch a record the strongest word and the latest value count.
func TestForeseen(t *testing.T) {
	t.Parallel()
	f := &foreseen{object: "deals", fields: map[string]foreseenField{}}
	for _, o := range []ledger.Observation{
		{Mapping: "first", Key: "a", Outcome: ledger.Dead, Reason: "several deals fit by title: 1, 2"},
		{Mapping: "second", Key: "b", Does: ledger.Adopts, CRMID: "7", Fields: []ledger.Overwriting{{Name: "title", Old: "x", New: "late", At: 9}}},
		{Mapping: "third", Key: "a", Does: ledger.Updates, CRMID: "7", Fields: []ledger.Overwriting{{Name: "title", Old: "x", New: "early", At: 3}}},
	} {
		f.add(o)
	}
	if f.what() != ledger.Adopts || f.mapping != "second" || f.id != "7" || f.fields["title"].New != "late" || f.fields["title"].mapping != "second" {
		t.Errorf("%+v", f)
	}
}

// No program takes a cell for a formula; a number stays one.
func TestPlain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		give any
		want string
	}{
		{nil, ""}, {"Acme", "Acme"}, {"=1+1", "'=1+1"}, {"+49 30 1", "'+49 30 1"}, {"@x", "'@x"}, {"-5", "-5"}, {-5.0, "-5"}, {171000000001.0, "171000000001"}, {[]any{"a", 1.0}, `["a",1]`}, {true, "true"},
	} {
		if got := plain(c.give); got != c.want {
			t.Errorf("%v: %q, want %q", c.give, got, c.want)
		}
	}
}
