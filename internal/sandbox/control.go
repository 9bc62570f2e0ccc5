package sandbox

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// faultForm is a Fault as /faults speaks it.
type faultForm struct {
	ID      int    `json:"id,omitzero"`
	Played  int    `json:"played,omitzero"`
	Latency string `json:"latency,omitzero"` // a Go duration
	Fault   `json:",inline"`
}

// recordsForm is the answer of /records.json.
type recordsForm struct {
	Records  []Record   `json:"records"`
	Links    []Link     `json:"links"`
	Hooks    []hookForm `json:"hooks"`
	Requests []Request  `json:"requests"`
}

type hookForm struct {
	Hook `json:",inline"`
	Body jsontext.Value `json:"body"` // a body that is not JSON is a string of it
}

// serveFaults lists (GET /faults), adds (POST /faults), removes one (DELETE /faults/{id}) or all (DELETE /faults).
func (s *Server) serveFaults(w http.ResponseWriter, r *http.Request, rest string) {
	switch {
	case r.Method == http.MethodGet && rest == "":
		respond(w, http.StatusOK, map[string][]faultForm{"faults": s.faults.list()})
	case r.Method == http.MethodPost && rest == "":
		// A page of another site can send forms and text here without asking the browser's leave, but no JSON.
		if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
			http.Error(w, "send a fault as application/json", http.StatusUnsupportedMediaType)
			return
		}
		f, err := readFault(w, r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		respond(w, http.StatusCreated, map[string]int{"id": s.faults.add(f)})
	case r.Method == http.MethodDelete && rest == "":
		s.faults.clear()
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodDelete:
		id, err := strconv.Atoi(rest)
		if err != nil || !s.faults.remove(id) {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "GET, POST, DELETE")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	}
}

// serveRecords answers everything that is kept, or ?dialect= and ?object= of it.
func (s *Server) serveRecords(w http.ResponseWriter, r *http.Request) {
	dialect, object := r.URL.Query().Get("dialect"), r.URL.Query().Get("object")
	out := recordsForm{Records: []Record{}, Links: []Link{}, Hooks: []hookForm{}, Requests: s.Requests()}
	s.store.mu.Lock()
	for _, t := range s.store.tables {
		if dialect != "" && dialect != t.dialect || object != "" && s.objectName(t.dialect, object) != t.object {
			continue
		}
		for _, row := range t.rows {
			if !row.archived {
				out.Records = append(out.Records, t.export(row))
			}
		}
	}
	for _, l := range s.store.links {
		if dialect == "" || dialect == l.Dialect {
			out.Links = append(out.Links, l)
		}
	}
	s.store.mu.Unlock()
	for _, h := range s.Hooks() {
		body := jsontext.Value(h.Body)
		if !body.IsValid() {
			body, _ = jsontext.AppendQuote(nil, h.Body)
		}
		out.Hooks = append(out.Hooks, hookForm{Hook: h, Body: body})
	}
	respond(w, http.StatusOK, out)
}

func (f *faults) list() []faultForm {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []faultForm{}
	for _, a := range f.active {
		form := faultForm{ID: a.id, Played: a.played, Fault: a.Fault}
		if a.Latency > 0 {
			form.Latency = a.Latency.String()
		}
		out = append(out, form)
	}
	return out
}

func readFault(w http.ResponseWriter, r *http.Request) (Fault, error) {
	var form faultForm
	if err := json.UnmarshalRead(http.MaxBytesReader(w, r.Body, 1<<20), &form, json.RejectUnknownMembers(true)); err != nil {
		return Fault{}, fmt.Errorf("fault: %w", err)
	}
	f := form.Fault
	switch f.Effect {
	case "", EffectNone, EffectStatus, EffectReset, EffectLate, EffectTruncate, EffectHuge, EffectEmpty, EffectHTML,
		EffectRedirect, EffectThrottle:
	default:
		return Fault{}, fmt.Errorf("fault: unknown effect %q", f.Effect)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 999) {
		return Fault{}, fmt.Errorf("fault: status %d is not one that ends a request", f.Status)
	}
	if form.Latency != "" {
		d, err := time.ParseDuration(form.Latency)
		if err != nil {
			return Fault{}, fmt.Errorf("fault: latency: %w", err)
		}
		f.Latency = d
	}
	return f, nil
}

func respond(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true), jsontext.EscapeForHTML(true))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json;charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
