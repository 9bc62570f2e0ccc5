package sinks

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// A person whose key is `email`: Pipedrive knows `emails` alone.
func TestPipedrivePersonsByEmail(t *testing.T) {
	t.Parallel()
	mail := func(value string, primary bool, label string) map[string]any {
		return map[string]any{"value": value, "primary": primary, "label": label}
	}
	tests := []struct {
		name   string
		id     bool // the person is there, and known by its id
		values map[string]any
		want   string
	}{
		{"new", false, map[string]any{"name": "Jane"},
			`{"emails":[{"value":"Jane@acme.test","primary":true,"label":"work"}],"name":"Jane"}`},
		{"new, the key among the values", false, map[string]any{"name": "Jane", "email": "Jane@acme.test"},
			`{"emails":[{"value":"Jane@acme.test","primary":true,"label":"work"}],"name":"Jane"}`},
		{"new, with another address", false, map[string]any{"name": "Jane", "emails": []any{mail("j@home.test", false, "home")}},
			`{"emails":[{"value":"Jane@acme.test","primary":true,"label":"work"},{"label":"home","primary":false,"value":"j@home.test"}],"name":"Jane"}`},
		{"new, another address is the primary one", false, map[string]any{"name": "Jane", "emails": []any{mail("j@home.test", true, "home")}},
			`{"emails":[{"value":"Jane@acme.test","primary":false,"label":"work"},{"label":"home","primary":true,"value":"j@home.test"}],"name":"Jane"}`},
		{"new, the mapping has the address", false, map[string]any{"name": "Jane", "emails": []any{mail("jane@ACME.test", true, "home")}},
			`{"emails":[{"label":"home","primary":true,"value":"jane@ACME.test"}],"name":"Jane"}`},
		{"new, emails are blank", false, map[string]any{"name": "Jane", "emails": nil},
			`{"emails":[{"value":"Jane@acme.test","primary":true,"label":"work"}],"name":"Jane"}`},
		{"changed", true, map[string]any{"name": "Jane"}, `{"name":"Jane"}`},
		{"adopted", true, map[string]any{"name": "Jane", "email": "Jane@acme.test"}, `{"name":"Jane"}`},
		{"changed, emails are blank", true, map[string]any{"name": "Jane", "emails": nil}, `{"name":"Jane"}`},
		{"changed, with another address", true, map[string]any{"emails": []any{mail("j@home.test", false, "home")}},
			`{"emails":[{"value":"Jane@acme.test","primary":true,"label":"work"},{"label":"home","primary":false,"value":"j@home.test"}]}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := crmNamed("pipedrive").open(t, sandbox.Options{}, "")
			row := Row{Trace: "t", Object: "persons", Property: "email", Key: "Jane@acme.test", Values: test.values}
			if test.id {
				row.ID = w.Put("pipedrive", "persons", map[string]any{"name": "J", "emails": []any{mail("jane@acme.test", true, "work")}})
			}
			op, _ := w.sink.Group(row)
			if r := w.sink.Write(within(t), op, []Row{row})[0]; r.Class != OK || r.Created == test.id {
				t.Fatalf("%+v", r)
			}
			sent := w.sent()
			if diff := cmp.Diff(test.want, sent[len(sent)-1].body); diff != "" {
				t.Error(diff)
			}
			// Who looks for it finds it, whatever the case.
			row.Key, row.ID = "jane@ACME.test", ""
			if r := w.sink.Find(within(t), []Row{row})[0]; r.Class != OK {
				t.Errorf("it is not found: %+v", r)
			}
			if w.sink.Fold("email", "A@B.test") != "a@b.test" || w.sink.Fold(hexKey, "A") != "A" {
				t.Error("keys that are the same to the search are not so to us, or the other way round")
			}
		})
	}
}

// A link by a field of one's own stands where such fields do: below custom_fields, but for leads and notes.
func TestPipedriveLinksByCustomFields(t *testing.T) {
	t.Parallel()
	const own = "custom_fields"
	mine, nested := `"`+hexLink+`":7`, func(members string) string { return `"` + own + `":{` + members + `}` }
	tie := RowLink{Object: "organizations", ID: "7", As: hexLink}
	usual := RowLink{Object: "organizations", ID: "8"}
	row := func(object string, values map[string]any, links ...RowLink) Row {
		return Row{Trace: "t", Object: object, Property: hexKey, Key: "K", Values: values, Links: links}
	}
	byMail := row("persons", map[string]any{"name": "J", hexParent: "x", "emails": []any{map[string]any{"value": "j@b.co"}}}, tie)
	byMail.Property, byMail.Key = "email", "j@b.co"
	c := crmNamed("pipedrive")
	w := c.open(t, sandbox.Options{}, "")
	for _, tt := range []struct {
		name string
		op   Operation
		row  Row
		want string
	}{
		{"alone", Create, row("deals", map[string]any{"title": "D"}, tie), `{"title":"D",` + nested(mine+`,"`+hexKey+`":"K"`) + `}`},
		{"beside a field", Create, row("deals", map[string]any{"title": "D", hexParent: "x"}, usual, tie),
			`{"title":"D","org_id":8,` + nested(mine+`,"`+hexKey+`":"K","`+hexParent+`":"x"`) + `}`},
		{"changed", Update, row("deals", nil, tie), `{` + nested(mine) + `}`},
		{"changed beside a field", Update, row("deals", map[string]any{hexParent: "x"}, tie, usual), `{"org_id":8,` + nested(mine+`,"`+hexParent+`":"x"`) + `}`},
		{"a person by e-mail", Create, byMail, `{"emails":[{"value":"j@b.co"}],"name":"J",` + nested(mine+`,"`+hexParent+`":"x"`) + `}`},
		{"a person by e-mail, changed", Update, byMail, `{"emails":[{"value":"j@b.co"}],"name":"J",` + nested(mine+`,"`+hexParent+`":"x"`) + `}`},
		{"a lead", Create, row("leads", map[string]any{"title": "L"}, usual, tie), `{"title":"L","organization_id":8,` + mine + `,"` + hexKey + `":"K"}`},
		{"a note", Update, row("notes", map[string]any{"content": "n"}, tie), `{"content":"n",` + mine + `}`},
	} {
		if tt.op == Update {
			tt.row.ID = "5"
		}
		p, err := w.sink.Preview(tt.op, []Row{tt.row})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(decoded(t, tt.want), decoded(t, string(p[0].Body))); diff != "" {
			t.Errorf("%s: %s\n%s", tt.name, p[0].Body, diff)
		}
	}
	for object, want := range map[string]string{"deals": `{` + nested(mine) + `}`, "leads": `{` + mine + `}`, "notes": `{` + mine + `}`} {
		link := LinkRow{From: Ref{Object: object, ID: "5"}, To: Ref{Object: "organizations", ID: "7"}, As: hexLink}
		for _, link.Remove = range []bool{false, true} {
			if link.Remove {
				want = strings.ReplaceAll(want, ":7", ":null")
			}
			if p, err := w.sink.PreviewLinks([]LinkRow{link}); err != nil || string(p[0].Body) != want {
				t.Errorf("%s: %v %v, want %s", object, p, err, want)
			}
		}
	}
}

func decoded(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil { // a name that stands there twice is an error
		t.Fatal(text, err)
	}
	return v
}

// What a search by field finds is read, since its answer may not show the field, and counts where it has the key.
func TestPipedriveFound(t *testing.T) {
	t.Parallel()
	const ok = `{"success":true,"data":`
	mail := func(s string) []any { return []any{map[string]any{"value": s}} }
	// 7 and 9 have the key, 8 has a longer one.
	tests := []struct{ name, object, property, body, id, code string }{
		{"flat", "deals", hexKey, ok + `[{"id":7,"name":"Acme"}]}`, "7", ""},
		{"wrapped", "deals", hexKey, ok + `[{"result_score":1,"item":{"id":7,"name":"Acme"}}]}`, "7", ""},
		{"items", "deals", hexKey, ok + `{"items":[{"result_score":1,"item":{"id":7}}]}}`, "7", ""},
		{"flat items", "deals", hexKey, ok + `{"items":[{"id":7}]}}`, "7", ""},
		{"nothing", "deals", hexKey, ok + `[]}`, "", "not_found"},
		{"no items", "deals", hexKey, ok + `{"items":[]}}`, "", "not_found"},
		{"two", "deals", hexKey, ok + `[{"id":7},{"item":{"id":9}}]}`, "", "several_found"},
		{"one that has the key, one that begins so", "deals", hexKey, ok + `[{"id":8},{"item":{"id":7}}]}`, "7", ""},
		{"one that begins so", "deals", hexKey, ok + `[{"id":8}]}`, "", "not_found"},
		{"one that is gone", "deals", hexKey, ok + `[{"id":5}]}`, "", "not_found"},
		{"one that begins so, of many", "deals", hexKey, ok + `[{"id":8}],"additional_data":{"next_cursor":"x"}}`, "", "many_found"},
		{"nothing on this page", "deals", hexKey, ok + `[],"additional_data":{"next_cursor":"x"}}`, "", "many_found"},
		{"of many", "deals", hexKey, ok + `[{"id":7}],"additional_data":{"next_cursor":"x"}}`, "7", ""},
		{"no id", "deals", hexKey, ok + `[{"name":"Acme"}]}`, "", unknown},
		{"no list", "deals", hexKey, ok + `null}`, "", unknown},
		{"shown, and equal", "deals", hexKey, ok + `[{"id":7,"` + hexKey + `":"PS-1"},{"id":9,"` + hexKey + `":"PS-10"}]}`, "7", ""},
		{"shown inside, and equal", "deals", hexKey, ok + `[{"item":{"id":7,"` + hexKey + `":"PS-1"}},{"item":{"id":9,"` + hexKey + `":"ps-1"}}]}`, "7", ""},
		{"only others", "deals", hexKey, ok + `[{"id":9,"` + hexKey + `":"PS-10"}]}`, "", "not_found"},
		{"an address in another case", "persons", "email", ok + `{"items":[{"item":{"id":7,"emails":["x@y.test","ps-1"]}}]}}`, "7", ""},
		{"an address that only begins so", "persons", "email", ok + `{"items":[{"item":{"id":8,"emails":["PS-1.test"]}},{"item":{"id":7,"emails":["PS-1"]}}]}}`, "7", ""},
		{"only other addresses", "persons", "email", ok + `{"items":[{"item":{"id":8,"emails":["PS-1.test"]}}]}}`, "", "not_found"},
		{"no addresses", "persons", "email", ok + `{"items":[{"item":{"id":8,"emails":[]}}]}}`, "", unknown},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := crmNamed("pipedrive").open(t, sandbox.Options{}, "")
			ids := []string{`"id":5`, `"id":5`}
			for n, key := range []string{"PS-1", "PS-10", "PS-1"} {
				values := map[string]any{"title": "Acme", hexKey: key}
				if test.object == "persons" {
					values = map[string]any{"name": "Jane", "emails": mail(key)}
				}
				ids = append(ids, fmt.Sprintf(`"id":%d`, 7+n), `"id":`+w.Put("pipedrive", test.object, values))
			}
			change := strings.NewReplacer(ids...)
			w.Fault(sandbox.Fault{Path: "earch", Effect: sandbox.EffectStatus, Status: 200, Body: change.Replace(test.body)})
			r := w.sink.Find(within(t), []Row{{Trace: "t", Object: test.object, Property: test.property, Key: "PS-1"}})[0]
			want := strings.TrimPrefix(change.Replace(`"id":`+test.id), `"id":`)
			if r.ID != want || r.Code != test.code || r.Absent != (test.code == "not_found") || r.More {
				t.Errorf("%+v", r)
			}
		})
	}
}

// Each object has its own verb for a change.
func TestPipedriveVerbs(t *testing.T) {
	t.Parallel()
	w := crmNamed("pipedrive").open(t, sandbox.Options{}, "")
	org := w.Put("pipedrive", "organizations", map[string]any{"name": "Acme"})
	tests := []struct {
		object, verb string
		values       map[string]any
	}{
		{"deals", "PATCH /api/v2/deals/", map[string]any{"title": "a"}},
		{"persons", "PATCH /api/v2/persons/", map[string]any{"name": "a"}},
		{"activities", "PATCH /api/v2/activities/", map[string]any{"subject": "a"}},
		{"leads", "PATCH /api/v1/leads/", map[string]any{"title": "a"}},
		{"notes", "PUT /api/v1/notes/", map[string]any{"content": "a"}},
	}
	for _, test := range tests {
		row := Row{Trace: "t", Object: test.object, Values: test.values, Links: []RowLink{{Object: "organizations", ID: org}}}
		made := w.sink.Write(within(t), Create, []Row{row})[0]
		if made.Class != OK {
			t.Fatalf("%s: %+v", test.object, made)
		}
		w.sent()
		row.ID = made.ID
		link := LinkRow{Trace: "l", From: Ref{Object: test.object, ID: made.ID}, To: Ref{Object: "organizations", ID: org}}
		results := append(w.sink.Write(within(t), Update, []Row{row}), w.sink.Link(within(t), []LinkRow{link})...)
		if test.object == "deals" || test.object == "persons" { // others would be without anything that they are about
			link.Remove = true
			results = append(results, w.sink.Link(within(t), []LinkRow{link})...)
		}
		for _, r := range results {
			if r.Class != OK {
				t.Errorf("%s: %+v", test.object, r)
			}
		}
		for _, r := range w.sent() {
			if !strings.HasPrefix(r.method+" "+r.path, test.verb) {
				t.Errorf("%s: %s %s", test.object, r.method, r.path)
			}
		}
	}
	remove := LinkRow{Trace: "l", Remove: true, From: Ref{Object: "notes", ID: "7"}, To: Ref{Object: "organizations", ID: org}}
	if p, err := w.sink.PreviewLinks([]LinkRow{remove}); err != nil || p[0].Method != "PUT" {
		t.Errorf("%v %v", p, err)
	}
}
