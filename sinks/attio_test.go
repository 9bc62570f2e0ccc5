package sinks

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/sandbox"
)

// A task has all the members that Attio wants, and an empty list stays one.
func TestAttioTasks(t *testing.T) {
	t.Parallel()
	w := crmNamed("attio").open(t, sandbox.Options{}, "")
	person := w.Put("attio", "people", map[string]any{"name": "Jane"})
	link := []RowLink{{Object: "people", ID: person}}
	tests := []struct {
		name   string
		op     Operation
		values map[string]any
		links  []RowLink
		want   string // of the body; "": not sent
		says   string
	}{
		{"the least", Create, map[string]any{"content": "c"}, nil,
			`{"format":"plaintext","is_completed":false,"assignees":[],"linked_records":[],"deadline_at":null,"content":"c"}`, ""},
		{"all", Create, map[string]any{
			"content": "c", "format": "plaintext", "is_completed": true, "deadline_at": "2026-12-01T00:00:00Z",
			"assignees": []any{map[string]any{"workspace_member_email_address": "a@b.test"}},
		}, link,
			`{"format":"plaintext","is_completed":true,"assignees":[{"workspace_member_email_address":"a@b.test"}],` +
				`"deadline_at":"2026-12-01T00:00:00Z","linked_records":[{"target_object":"people","target_record_id":"` + person + `"}],"content":"c"}`, ""},
		{"empty", Create, map[string]any{"content": "c", "assignees": []any{}, "deadline_at": nil, "is_completed": nil}, nil,
			`{"format":"plaintext","is_completed":false,"assignees":[],"linked_records":[],"deadline_at":null,"content":"c"}`, ""},
		{"without content", Create, map[string]any{"format": "plaintext"}, nil, "", "needs its content"},
		{"done", Update, map[string]any{"is_completed": true}, nil, `{"is_completed":true}`, ""},
		{"nobody's", Update, map[string]any{"assignees": []any{}, "deadline_at": nil}, nil, `{"assignees":[],"deadline_at":null}`, ""},
		{"nobody's any more", Update, map[string]any{"assignees": nil}, nil, `{"assignees":[]}`, ""},
		{"a link goes by itself", Update, map[string]any{"is_completed": false}, link, `{"is_completed":false}`, ""},
		{"another text", Update, map[string]any{"content": "d"}, nil, "", "the text of a task cannot be changed"},
	}
	id := ""
	for _, test := range tests {
		row := Row{Trace: "t", Object: "tasks", Values: test.values, Links: test.links}
		if test.op == Update {
			row.ID = id
		}
		r := w.sink.Write(within(t), test.op, []Row{row})[0]
		if (r.Class == OK) != (test.want != "") || !strings.Contains(r.Message, test.says) || r.Unlinked != (test.op == Update && test.links != nil) {
			t.Errorf("%s: %+v", test.name, r)
		}
		if r.Class == OK {
			id = r.ID
		}
		for _, sent := range w.sent() {
			if diff := cmp.Diff(`{"data":`+test.want+`}`, sent.body); diff != "" {
				t.Errorf("%s: %s", test.name, diff)
			}
		}
	}
}

// Notes and tasks are no records of an object: what goes elsewhere goes there, and what
// they cannot do is not sent.
func TestAttioNotesAndTasks(t *testing.T) {
	t.Parallel()
	w := crmNamed("attio").open(t, sandbox.Options{}, "")
	person := w.Put("attio", "people", map[string]any{"name": "Jane"})
	values := map[string]map[string]any{
		"notes": {"title": "t", "content": "c", "format": "markdown"},
		"tasks": {"content": "c"},
	}
	for object, v := range values {
		row := Row{Trace: "t", Object: object, Values: v, Links: []RowLink{{Object: "people", ID: person}}}
		made := w.sink.Write(within(t), Create, []Row{row})[0]
		if made.Class != OK {
			t.Fatalf("%s: %+v", object, made)
		}
		keyed := Row{Trace: "t", Object: object, Property: "content", Key: "c", Values: v}
		changed := Row{Trace: "t", Object: object, ID: made.ID, Values: v}
		link := LinkRow{Trace: "l", From: Ref{Object: object, ID: made.ID}, To: Ref{Object: "people", ID: person}, As: "x"}
		w.sent()
		for what, r := range map[string]Result{
			"cannot look":        w.sink.Write(within(t), Upsert, []Row{keyed})[0],
			"cannot look for":    w.sink.Find(within(t), []Row{keyed})[0],
			"cannot be changed":  w.sink.Write(within(t), Update, []Row{changed})[0],
			"when they are made": w.sink.Link(within(t), []LinkRow{link})[0],
		} {
			if r.Class != Rejected || r.Status != 0 || !strings.Contains(r.Message, what) {
				t.Errorf("%s: %+v", object, r)
			}
		}
		if sent := w.sent(); len(sent) != 0 {
			t.Errorf("%s: %v was sent", object, sent)
		}
		if r := w.sink.Write(within(t), Archive, []Row{{Trace: "t", Object: object, ID: made.ID}})[0]; r.Class != OK || len(w.Records("attio", object)) != 0 {
			t.Errorf("%s is not archived: %+v", object, r)
		}
		if sent := w.sent(); sent[0].method != "DELETE" || sent[0].path != "/v2/"+object+"/"+made.ID {
			t.Errorf("%s %s", sent[0].method, sent[0].path)
		}
	}
	for lacks, words := range map[string]string{"title": "plaintext or markdown", "content": "plaintext or markdown", "format": "plaintext or markdown", "": "name it in `links`"} {
		row := Row{Trace: "t", Object: "notes", Values: withKeys(values["notes"], nil), Links: []RowLink{{Object: "people", ID: person}}}
		if delete(row.Values, lacks); lacks == "" {
			row.Links = nil
		}
		if r := w.sink.Write(within(t), Create, []Row{row})[0]; r.Class != Rejected || r.Status != 0 || !strings.Contains(r.Message, words) {
			t.Errorf("without %s: %+v", lacks, r)
		}
	}
}
