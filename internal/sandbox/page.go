package sandbox

import (
	"bytes"
	_ "embed"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"
)

// pageRows is how many records of one object, hooks and requests the page lists; /records.json has them all.
const pageRows = 100

//go:embed page.html
var pageSource string

type page struct {
	Objects  []pageObject
	Hooks    []pageHook
	HookSum  int
	Requests []pageRequest
	Faults   []faultForm
	Links    int
	Records  int
}

type pageObject struct {
	Dialect, Object string
	Total           int
	Rows            []pageRow
}

type pageRow struct {
	ID      string
	Fields  []pageField
	Links   []string
	Created string
	Updated string
	Writes  int
}

type pageField struct{ Name, Value string }

type pageHook struct{ Time, Path, Body string }

type pageRequest struct {
	Request
	Time string
	Bad  bool
}

// servePage lists everything for people, the newest first.
func (s *Server) servePage(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	shape, err := template.New("page").Parse(pageSource)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var out bytes.Buffer
	if err := shape.Execute(&out, s.page()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(out.Bytes())
}

func (s *Server) page() page {
	p := page{Faults: s.faults.list()}
	s.store.mu.Lock()
	linked := map[[3]string][]string{}
	for _, l := range s.store.links {
		from, to := [3]string{l.Dialect, l.FromObject, l.FromID}, [3]string{l.Dialect, l.ToObject, l.ToID}
		linked[from] = append(linked[from], l.ToObject+" "+l.ToID)
		linked[to] = append(linked[to], l.FromObject+" "+l.FromID)
	}
	p.Links = len(s.store.links)
	for _, t := range s.store.tables {
		object := pageObject{Dialect: t.dialect, Object: t.object}
		for _, row := range slices.Backward(t.rows) {
			if row.archived {
				continue
			}
			object.Total++
			if len(object.Rows) < pageRows {
				object.Rows = append(object.Rows, pageRow{
					ID: row.id, Fields: fields(row), Links: linked[[3]string{t.dialect, t.object, row.id}],
					Created: clock(row.created), Updated: clock(row.updated), Writes: row.writes,
				})
			}
		}
		p.Records += object.Total
		if object.Total > 0 {
			p.Objects = append(p.Objects, object)
		}
	}
	s.store.mu.Unlock()
	hooks := s.Hooks()
	p.HookSum = len(hooks)
	for _, h := range latest(hooks) {
		p.Hooks = append(p.Hooks, pageHook{Time: clock(h.Time), Path: h.Method + " " + h.Path, Body: shorten(string(h.Body), 2000)})
	}
	for _, r := range latest(s.Requests()) {
		p.Requests = append(p.Requests, pageRequest{Request: r, Time: clock(r.Time), Bad: r.Status < 200 || r.Status > 299})
	}
	return p
}

func fields(r *record) []pageField {
	var out []pageField
	for _, name := range slices.Sorted(maps.Keys(r.properties)) {
		out = append(out, pageField{Name: name, Value: shorten(text(r.properties[name]), 300)})
	}
	return out
}

// latest returns the newest items, the newest first.
func latest[T any](items []T) []T {
	items = items[max(0, len(items)-pageRows):]
	slices.Reverse(items)
	return items
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}
