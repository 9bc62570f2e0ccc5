package sinks

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A seventh CRM, invented, that exists in a config alone: it takes fifty rows at a
// time, answers them in any order by a reference of ours, counts its limits in
// points, and calls everything by other names than anybody else.
const heronCRM = `
base_url: URL/heron
auth:
  type: oauth2
  client_id: us
  client_secret: "${SECRET}"
  token_url: "{auth.base_url}/login"
  scheme: Heron
headers: {X-Heron-Client: partnersync}
settings: {tenant: north, ties: {ships>ports: harbour}}
values: {as: json, blank: "null", ids: number, several: [tags], nest: {into: extra, match: '^x_'}, time: ms}
fold: {code: lower}
find_lag: 0s
batch: {rows: 50, wait: 10ms}
limits: [{requests: 1000, per: 1s}]
budget: {costs: {upsert: 10, find: 2}, left: {header: X-Points-Left}, zone: UTC}
error:
  code: problem.kind
  message: problem.text
  field: problem.where
row_error:
  code: why.kind
  message: why.text
  field: why.where
  allowed: why.choices
classify:
  - {status: 420, class: throttled, wait: {body: problem.pause, unit: ms, else: 1s}}
  - {status: 404, operations: find, class: rejected, absent: true}
  - {status: 404, class: rejected, absent: true}
  - {status: 400, class: split}
  - {status: 401, class: held}
classify_rows:
  - {code: "BUSY_*", class: unavailable, wait: 2s}
  - {code: NO_SUCH_PORT, scope: link, class: rejected}
operations:
  upsert:
    method: PUT
    path: /{setting.tenant}/{record.object}:merge
    query: {by: "{record.property}"}
    rows: 200
    needs: [record.property, record.key]
    body:
      ships:
        $each: records
        ref: record.trace
        data:
          $spread:
            - record.fields
            - $each: filter(record.links, .id != null)
              '{item.as ?? setting.ties[record.object + ">" + item.object]}': item.id
            - $each: filter(record.links, .id == null)
              '{item.as ?? setting.ties[record.object + ">" + item.object]}': {'{item.property}': item.key}
    result:
      mode: correlated
      results: {at: done, is: {trace: ref}, id: number, created: fresh}
      errors: {at: failed, is: {trace: ref}}
  update:
    method: PATCH
    path: /{setting.tenant}/{record.object}/{record.id}
    needs: record.id
    body: record.values
    result: {expect: {status: 204}}
  create: {like: upsert, method: POST}
  find:
    method: GET
    path: /{setting.tenant}/{record.object}/by/{record.property}/{record.key}
    result: {results: {id: number}}
  whoami:
    method: GET
    path: /me
    result: {results: {id: fleet}}
`

// heron is the server of that CRM.
type heron struct {
	mu     sync.Mutex
	ships  map[string]map[string]any // by code, in lower case
	points int
	pause  int
	bodies []string
}

func (h *heron) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	say := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Points-Left", fmt.Sprint(h.points))
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	problem := func(kind, text, where string) map[string]any {
		return map[string]any{"kind": kind, "text": text, "where": where}
	}
	body, _ := io.ReadAll(r.Body)
	path := strings.TrimPrefix(r.URL.Path, "/heron")
	switch {
	case path == "/login":
		form, _ := url.ParseQuery(string(body))
		if form.Get("client_secret") != "secret-of-secret" {
			say(401, map[string]any{"error": "who_are_you"})
			return
		}
		say(200, map[string]any{"access_token": "heron-token", "token_type": "x", "expires_in": 60})
		return
	case r.Header.Get("Authorization") != "Heron heron-token" || r.Header.Get("X-Heron-Client") != "partnersync":
		say(401, map[string]any{"problem": problem("STRANGER", "who are you?", "")})
		return
	case h.pause > 0:
		p := problem("TOO_FAST", "slow down", "")
		p["pause"] = h.pause
		say(420, map[string]any{"problem": p})
		return
	case path == "/me":
		say(200, map[string]any{"fleet": 77})
		return
	}
	h.bodies = append(h.bodies, string(body))
	h.points -= 10
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case strings.HasSuffix(path, ":merge"):
		h.merge(body, say, problem)
	case r.Method == "GET":
		if ship := h.ships[strings.ToLower(parts[4])]; ship != nil {
			say(200, map[string]any{"number": ship["number"]})
			return
		}
		say(404, map[string]any{"problem": problem("NO_SHIP", "no such ship", "")})
	default:
		var data map[string]any
		_ = json.Unmarshal(body, &data)
		for _, ship := range h.ships {
			if fmt.Sprint(ship["number"]) == parts[2] {
				for name, v := range data {
					ship[name] = v
				}
				w.WriteHeader(204)
				return
			}
		}
		say(404, map[string]any{"problem": problem("NO_SHIP", "no such ship", "")})
	}
}

func (h *heron) merge(body []byte, say func(int, any), problem func(string, string, string) map[string]any) {
	var in struct {
		Ships []struct {
			Ref  string
			Data map[string]any
		}
	}
	if json.Unmarshal(body, &in) != nil || len(in.Ships) > 50 || strings.Contains(string(body), "poison") {
		say(400, map[string]any{"problem": problem("BAD_CARGO", "the cargo cannot be read", "")})
		return
	}
	done, failed := []any{}, []any{}
	for i := len(in.Ships) - 1; i >= 0; i-- {
		ship := in.Ships[i]
		refuse := func(kind, text, where string, choices ...string) {
			why := problem(kind, text, where)
			why["choices"] = choices
			failed = append(failed, map[string]any{"ref": ship.Ref, "why": why})
		}
		port, _ := ship.Data["harbour"].(map[string]any)
		switch {
		case ship.Data["flag"] == "pirate":
			refuse("BAD_FLAG", "the flag pirate is not one of ours", "flag", "red", "green")
			continue
		case ship.Data["flag"] == "busy":
			refuse("BUSY_DOCK", "come again", "")
			continue
		case port != nil && port["unlocode"] != "DEHAM":
			refuse("NO_SUCH_PORT", "no such port", "harbour")
			continue
		}
		code := strings.ToLower(ship.Data["code"].(string))
		known := h.ships[code]
		if known == nil {
			known = map[string]any{"number": 9007199254740993 + len(h.ships)}
		}
		done = append(done, map[string]any{"ref": ship.Ref, "number": known["number"], "fresh": h.ships[code] == nil})
		for name, v := range ship.Data {
			known[name] = v
		}
		h.ships[code] = known
	}
	say(207, map[string]any{"done": done, "failed": failed})
}

func TestSeventhCRM(t *testing.T) {
	t.Parallel()
	h := &heron{ships: map[string]map[string]any{}, points: 1000}
	tg := newTarget(t, func(w http.ResponseWriter, r *http.Request, body string) {
		r.Body = io.NopCloser(strings.NewReader(body))
		h.ServeHTTP(w, r)
	})
	s := newSink(t, strings.ReplaceAll(heronCRM, "URL", tg.URL), Options{})
	if r := s.Probe(within(t)); r.Class != OK || r.ID != "77" {
		t.Fatalf("%+v", r)
	}
	ship := func(code string, values map[string]any) Row {
		return Row{Trace: "t-" + code, Object: "ships", Property: "code", Key: code, Values: values}
	}
	rows := []Row{
		ship("A1", map[string]any{"flag": "red", "tags": "fast", "x_draught": int64(7), "built": time.UnixMilli(1_700_000_000_000)}),
		ship("A2", map[string]any{"flag": "pirate"}),
		ship("A3", map[string]any{"flag": "busy"}),
		ship("a1", map[string]any{"flag": nil}),
		ship("A4", nil),
		ship("A5", nil),
	}
	rows[3].Trace = "t-later"
	rows[4].Links = []RowLink{{Object: "ports", Property: "unlocode", Key: "XXXXX"}}
	rows[5].Links = []RowLink{{Object: "ports", ID: "12"}}
	got := s.Write(within(t), Upsert, rows)
	want := []Result{
		{Class: OK, Status: 207, ID: "9007199254740994", Created: true},
		{Class: Rejected, Status: 207, Code: "BAD_FLAG", Message: "the flag <value> is not one of ours", Fields: []string{"flag"}, Allowed: []string{"red", "green"}},
		{Class: Unavailable, Status: 207, Code: "BUSY_DOCK", Message: "come again", RetryAfter: 2 * time.Second},
		{Class: OK, Status: 207, ID: "9007199254740994"},
		{Class: OK, Status: 207, Unlinked: true},
		{Class: OK, Status: 207, ID: "9007199254740993", Created: true},
	}
	want[4].ID, want[4].Created = got[4].ID, true
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	first := `{"ships":[{"ref":"t-A1","data":{"built":1700000000000,"code":"A1","flag":"red","tags":["fast"],"extra":{"x_draught":7}}},` +
		`{"ref":"t-A2","data":{"code":"A2","flag":"pirate"}},{"ref":"t-A3","data":{"code":"A3","flag":"busy"}},` +
		`{"ref":"t-A4","data":{"code":"A4","harbour":{"unlocode":"XXXXX"}}},{"ref":"t-A5","data":{"code":"A5","harbour":12}}]}`
	if diff := cmp.Diff([]string{first, `{"ships":[{"ref":"t-later","data":{"code":"a1","flag":null}}]}`, `{"ships":[{"ref":"t-A4","data":{"code":"A4"}}]}`}, h.bodies); diff != "" {
		t.Errorf("bodies (-want +got):\n%s", diff)
	}

	found := s.Find(within(t), []Row{ship("A1", nil), ship("A9", nil)})
	if found[0].Class != OK || found[0].ID != got[0].ID || !found[1].Absent {
		t.Errorf("%+v", found)
	}
	known := ship("A1", map[string]any{"flag": "green"})
	known.ID = got[0].ID
	if r := s.Write(within(t), Update, []Row{known})[0]; r.Class != OK || h.ships["a1"]["flag"] != "green" {
		t.Errorf("%+v", r)
	}
	known.ID = "1"
	if r := s.Write(within(t), Update, []Row{known})[0]; r.Class != Rejected || !r.Absent {
		t.Errorf("%+v", r)
	}

	var batch []Row
	for i := range 120 {
		batch = append(batch, ship(fmt.Sprint("B", i), nil))
	}
	batch[70].Values = map[string]any{"name": "poison"}
	before := len(h.bodies)
	for i, r := range s.Write(within(t), Upsert, batch) {
		if (r.Class == OK) == (i == 70) {
			t.Errorf("row %d: %+v", i, r)
		}
	}
	if n := len(h.bodies) - before; s.MaxRows(Upsert) != 50 || n > 3+12 {
		t.Errorf("%d calls with %d rows each", n, s.MaxRows(Upsert))
	}
	h.pause = 2500
	if r := s.Write(within(t), Upsert, rows[:1])[0]; r.Class != Throttled || r.RetryAfter != 2500*time.Millisecond || r.Code != "TOO_FAST" {
		t.Errorf("%+v", r)
	}
	h.pause, h.points = 0, 5
	s.limiter.blocked = time.Time{}
	s.Write(within(t), Upsert, rows[:1]) // costs the last points
	if r := s.Write(within(t), Upsert, rows[:1])[0]; r.Class != Parked || r.Code != "budget" {
		t.Errorf("%+v", r)
	}
	if s.Repeatable(Create) {
		t.Error("a create would be repeated")
	}
}
