package sandbox

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is a reply with its body decoded, nil when it is not JSON.
type answer struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

const objects = "/hubspot/crm/objects/2026-09/"

// fixed is a clock that stands until it is moved.
type fixed struct{ at time.Time }

func (f *fixed) now() time.Time { return f.at }

func newClock() *fixed { return &fixed{time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)} }

// portal is a Server with the keys that a partner integration defines.
func portal(o Options) *Server {
	o.Custom = map[string][]Property{
		"hubspot/contacts": {
			{Name: "partner_key", Unique: true},
			{Name: "partner_status", Type: "enumeration", Options: []string{"active", "inactive"}},
			{Name: "partner_tags", Type: "enumeration", FieldType: "checkbox", Options: []string{"gold", "emea"}},
			{Name: "approved", Type: "bool"}, {Name: "joined", Type: "date"}, {Name: "score", Type: "number"},
		},
		"hubspot/companies": {{Name: "partner_key", Unique: true}},
		"hubspot/deals":     {{Name: "partner_deal_key", Unique: true}, {Name: "region", Required: true}},
		"hubspot/leads":     {{Name: "partner_lead_key", Unique: true}},
		"hubspot/payouts":   {{Name: "payout_key", Unique: true}},
	}
	return New(o)
}

// send calls the handler without a network.
func send(t *testing.T, s *Server, method, path, body string) answer {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer pat-x")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return serve(t, s, r)
}

func serve(t *testing.T, s *Server, r *http.Request) answer {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header(), raw: w.Body.String()}
	if strings.HasPrefix(w.Header().Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(w.Body.Bytes(), &a.body); err != nil {
			t.Fatalf("%s %s: body is not a JSON object: %v\n%s", r.Method, r.URL.Path, err, a.raw)
		}
	}
	return a
}

func (a answer) message() string { s, _ := a.body["message"].(string); return s }

func (a answer) category() string { s, _ := a.body["category"].(string); return s }

// rows lists an array of objects of the body.
func (a answer) rows(name string) []map[string]any {
	list, _ := a.body[name].([]any)
	var out []map[string]any
	for _, one := range list {
		out = append(out, one.(map[string]any))
	}
	return out
}

// byTrace keys the results by trace id.
func (a answer) byTrace() map[string]map[string]any {
	out := map[string]map[string]any{}
	for _, r := range a.rows("results") {
		trace, _ := r["objectWriteTraceId"].(string)
		out[trace] = r
	}
	return out
}

// values are the stored properties of the live records of an object, oldest first.
func values(s *Server, object string) []map[string]any {
	var out []map[string]any
	for _, r := range s.Records("hubspot", object) {
		out = append(out, r.Properties)
	}
	return out
}

func wantStatus(t *testing.T, a answer, want int) {
	t.Helper()
	if a.status != want {
		t.Fatalf("status %d, want %d: %s", a.status, want, a.raw)
	}
}

func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func wantContains(t *testing.T, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s: %q does not hold %q", what, got, want)
	}
}
