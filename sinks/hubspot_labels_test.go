package sinks

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// labelled is a portal that has a label of its own, as the settings of the sink know it.
func labelled(t *testing.T) (*box, *Sink) {
	t.Helper()
	b, s := portal(t, sandbox.Options{}, "settings: {labels: {contacts>companies: {Reseller: {category: USER_DEFINED, typeId: 101}}}}\n")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/hubspot/crm/associations/2026-03/contacts/companies/labels",
		strings.NewReader(`{"label":"Reseller","name":"reseller"}`))
	r.Header.Set("Authorization", "Bearer "+hubspotToken)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	if b.ServeHTTP(w, r); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"typeId":101`) {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return b, s
}

func (b *box) kinds() []string {
	var out []string
	for _, l := range b.Links("hubspot") {
		out = append(out, fmt.Sprint(l.FromObject, ">", l.ToObject, " ", l.TypeID, " ", l.Label))
	}
	slices.Sort(out)
	return out
}

func TestLabelledLinks(t *testing.T) {
	t.Parallel()
	b, s := labelled(t)
	person := b.Put("hubspot", "contacts", map[string]any{"email": "1@acme.test"})
	company := b.Put("hubspot", "companies", map[string]any{"name": "Acme"})
	link := func(as string) LinkRow {
		return LinkRow{Trace: as, From: Ref{Object: "contacts", ID: person}, To: Ref{Object: "companies", ID: company}, As: as}
	}
	before := b.calls.Load()
	got := s.Link(within(t), []LinkRow{link("Reseller"), link(""), link("Nobody knows")})
	if diff := cmp.Diff([]Class{OK, OK, Rejected}, classesOf(got)); diff != "" {
		t.Fatalf("%s\n%+v", diff, got)
	}
	if got[2].Status != 0 || got[2].Message != "the request cannot be made: name the association type of the label in settings.labels" {
		t.Errorf("%+v", got[2])
	}
	if n := b.calls.Load() - before; n != 2 {
		t.Errorf("%d requests: one with labels and one without", n)
	}
	if diff := cmp.Diff([]string{"contacts>companies 101 Reseller", "contacts>companies 279 "}, b.kinds()); diff != "" {
		t.Error(diff)
	}
	away := link("Reseller")
	away.Remove = true
	if r := s.Link(within(t), []LinkRow{away})[0]; r.Class != OK {
		t.Errorf("%+v", r)
	}
	if diff := cmp.Diff([]string{"contacts>companies 279 "}, b.kinds()); diff != "" {
		t.Errorf("a label takes nothing else with it: %s", diff)
	}
	if r := s.Link(within(t), []LinkRow{link("Primary")})[0]; r.Class != OK || len(b.kinds()) != 2 {
		t.Errorf("%+v, %q", r, b.kinds())
	}
	// Another primary company takes the place of the former by itself.
	other := link("Primary")
	other.To.ID = b.Put("hubspot", "companies", map[string]any{"name": "Other"})
	if !s.Replaces(other) || s.Replaces(link("Reseller")) || s.Replaces(link("")) {
		t.Error("a primary company, and nothing else, replaces the former")
	}
	if r := s.Link(within(t), []LinkRow{other})[0]; r.Class != OK {
		t.Errorf("%+v", r)
	}
	for _, l := range b.Links("hubspot") {
		if l.Label == "Primary" && l.ToID != other.To.ID {
			t.Errorf("%+v", l)
		}
	}
	gone := link("Reseller")
	gone.To.ID = "424242"
	if r := s.Link(within(t), []LinkRow{gone})[0]; r.Class != Rejected || r.Message == "" {
		t.Errorf("%+v", r)
	}
}

// A create takes labelled links along; one whose type nobody knows is left for later.
func TestLabelledLinksOfACreate(t *testing.T) {
	t.Parallel()
	b, s := labelled(t)
	company := b.Put("hubspot", "companies", map[string]any{"name": "Acme"})
	row := func(n, object, as string, required bool) Row {
		r := contact(n)
		r.Links = []RowLink{{Object: object, ID: company, As: as, Required: required}}
		return r
	}
	got := s.Write(within(t), Create, []Row{
		row("1", "companies", "Reseller", true), row("2", "companies", "", true), row("3", "companies", "Unheard of", false),
		row("4", "companies", "Unheard of", true), row("5", "planets", "", false), contact("6"),
	})
	if diff := cmp.Diff([]Class{OK, OK, OK, Rejected, OK, OK}, classesOf(got)); diff != "" {
		t.Fatalf("%s\n%+v", diff, got)
	}
	for i, want := range []bool{false, false, true, true, true, false} {
		if got[i].Unlinked != want {
			t.Errorf("row %d: %+v", i, got[i])
		}
	}
	if !strings.Contains(got[3].Message, "settings.association_types, or of its label in settings.labels") {
		t.Errorf("%+v", got[3])
	}
	if diff := cmp.Diff([]string{"contacts>companies 101 Reseller", "contacts>companies 279 "}, b.kinds()); diff != "" {
		t.Error(diff)
	}
}
