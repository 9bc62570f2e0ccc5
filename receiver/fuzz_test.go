package receiver

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"partnersync/internal/ledger"
)

// FuzzReceive sends anything with the right secret: the answer is one of the
// documented ones, and what is to be stored is something that Postgres takes.
func FuzzReceive(f *testing.F) {
	f.Add(uint8(0), "deal.created", "", []byte(`{"key":"d1","at":1700000000}`))
	f.Add(uint8(0), "", "", []byte(`{"event":"deal_updated","data":{"key":"d\u0000\ud800"}}`))
	f.Add(uint8(1), "partner.changed", "id=1&id=2&group=%00", []byte{})
	f.Add(uint8(2), "deal.created", "", []byte(zipped(`{"key":"d1"}`)))
	f.Add(uint8(0), "x/\x00\xff", "", []byte("[[[[{\"a\":1e999}]]]]"))
	f.Add(uint8(2), "deal.created", "", []byte("\x1f\x8b\x08"))
	f.Add(uint8(0), "deal.created", "", []byte(`[{"key":"d1"},{},{"key":"d2"}]`))
	f.Add(uint8(0), "deal.created", "", []byte("{\"key\":\"\xe9\"}"))
	var taken ledger.Incoming
	r := New(Options{Flushers: 1, Ledger: committer(
		func(_ context.Context, events []ledger.Incoming, _ int64, _ int) ([]ledger.Accepted, error) {
			taken = events[0]
			return accepted(events), nil
		})}, routing(f, 1))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	f.Cleanup(func() { cancel(); <-ended })

	f.Fuzz(func(t *testing.T, how uint8, event, query string, body []byte) {
		taken = ledger.Incoming{}
		req := httptest.NewRequest([]string{http.MethodPost, http.MethodGet, http.MethodPost}[how%3], "/", bytes.NewReader(body))
		req.URL = &url.URL{Path: "/hooks/shop/" + event, RawQuery: query}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("User-Agent", query)
		if how%3 == 2 {
			req.Header.Set("Content-Encoding", "gzip")
		}
		w := httptest.NewRecorder()
		r.serve(w, req)
		if !slices.Contains([]int{200, 202, 400, 413}, w.Code) {
			t.Fatalf("answered %d %s", w.Code, w.Body)
		}
		var answer struct {
			ID, Status, Error string
			Events            []struct{ ID, Status string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatalf("the answer %q is not JSON: %v", w.Body, err)
		}
		if r.held.Load() != 0 {
			t.Fatalf("%d bytes are still held", r.held.Load())
		}
		if len(answer.Events) > 0 {
			answer.ID = answer.Events[0].ID
		}
		if answer.ID == "" {
			if w.Code == 202 || w.Code == 400 {
				t.Fatalf("answered %d without an id: %s", w.Code, w.Body)
			}
			return
		}
		for name, text := range map[string]string{"type": taken.Type, "entity": taken.Entity, "reason": taken.Reason, "headers": string(taken.Headers)} {
			if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
				t.Errorf("the %s %q is not clean", name, text)
			}
		}
		if taken.Type == "" || len(taken.Type) > maxType || len(taken.Entity) > maxEntity || len(taken.Reason) > maxReason {
			t.Errorf("type %q, entity %q, reason %q: empty or too long", taken.Type, taken.Entity, taken.Reason)
		}
		if taken.Headers != nil && !json.Valid(taken.Headers) {
			t.Errorf("the headers %q are not JSON", taken.Headers)
		}
		if taken.Body == nil || how%3 == 0 && bytes.HasPrefix(body, []byte("{")) && !bytes.Equal(taken.Body, body) {
			t.Errorf("the body is not kept as it was sent")
		}
		if y := taken.OccurredAt.Year(); !taken.OccurredAt.IsZero() && (y < 1900 || y > 9999) {
			t.Errorf("the time %s is out of bounds", taken.OccurredAt)
		}
	})
}
