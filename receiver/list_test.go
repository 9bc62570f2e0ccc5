package receiver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/receiver/spool"
)

// A list of events in one request: each is one, in their order, and one answer tells
// of all.
func TestListOfEvents(t *testing.T) {
	t.Parallel()
	for _, spooled := range []bool{false, true} {
		t.Run(fmt.Sprintf("spooled %v", spooled), func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			db := &switched{Ledger: ledger.New(pool)}
			db.away.Store(spooled)
			s := start(t, Options{Ledger: db, Spool: openSpool(t, spool.Options{})})
			c := client(t)
			for _, give := range []struct {
				body string
				code int
				want string // without a spool
			}{
				{`[{"id":1,"group":"a"},{"id":1,"group":"b"},{},{"id":1,"group":"c"}]`, 202, "stored stored stored"},
				{`[{"id":1,"group":"c"},{"id":2}]`, 202, "duplicate stored"},
				{`[{"id":1,"group":"c"}]`, 200, "duplicate"},
				{`[]`, 200, ""},
				{`[{"id":1,"group":"x"},7]`, 400, ""},
			} {
				got := post(t, c, s.url+"/hooks/shop/partner.changed", give.body)
				var told struct{ Events []struct{ Status string } }
				if err := json.Unmarshal([]byte(got.text), &told); err != nil {
					t.Fatal(err)
				}
				var statuses []string
				for _, e := range told.Events {
					statuses = append(statuses, e.Status)
				}
				if spooled && give.code == 200 && give.want != "" {
					give.code = 202
				}
				if got.code != give.code || !spooled && strings.Join(statuses, " ") != give.want {
					t.Errorf("%s is answered %d %s", give.body, got.code, got.text)
				}
			}
			db.away.Store(false)
			waitFor(t, "the events", func() bool {
				return rows(t, pool, `SELECT coalesce(sum(1 + duplicates), 0)::text FROM events`)[0] == "7"
			})
			got := rows(t, pool, `SELECT status || ' ' || convert_from(body, 'UTF8') FROM events ORDER BY status, entity, version_at`)
			want := []string{
				`malformed [{"id":1,"group":"x"},7]`,
				`stored {"id":1,"group":"a"}`, `stored {"id":1,"group":"b"}`, `stored {"id":1,"group":"c"}`, `stored {"id":2}`,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if left := s.held.Load(); left != 0 {
				t.Errorf("%d bytes are still held", left)
			}
		})
	}
}

// Each event of a list is counted by itself, and one that Postgres refuses does not
// take the others with it.
func TestListIsToldApart(t *testing.T) {
	t.Parallel()
	db := refusing(func(e *ledger.Incoming) bool { return e.Entity == "deal:bad" })
	s := start(t, Options{Ledger: db})
	got := post(t, client(t), s.url+"/hooks/shop", `[{"event":"deal_created","data":{"key":"a"}},{"event":"deal_updated","data":{"key":"b"}},{"event":"deal_created","data":{"key":"bad"}},{"x":1}]`)
	if got.code != 422 || strings.Count(got.text, `"id"`) != 4 || strings.Count(got.text, `"status":"malformed"`) != 1 {
		t.Errorf("got %d %s", got.code, got.text)
	}
	want := []string{
		"result=refused source=shop type=deal.created 1", "result=stored source=shop type=deal.created 1",
		"result=unmapped source=shop type=deal.updated 1", "result=unmapped source=shop type=other 1",
	}
	if diff := cmp.Diff(want, counted(t, s.registry, "partnersync_events_received_total")); diff != "" {
		t.Error(diff)
	}
}

// A list is stored as a whole or sent again.
func TestListMeetsAnOutage(t *testing.T) {
	t.Parallel()
	stored := 0
	s := start(t, Options{Ledger: committer(func(_ context.Context, events []ledger.Incoming, _ int64, _ int) ([]ledger.Accepted, error) {
		if stored += len(events); stored > 256 {
			return nil, errAway
		}
		return accepted(events), nil
	}), Flushers: 1})
	c := client(t)
	got := post(t, c, s.url+"/hooks/posts/thing", "["+strings.Repeat(`{"n":1},`, 299)+`{"n":1}]`)
	if got.code != http.StatusServiceUnavailable || strings.Contains(got.text, "events\"") || got.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", got.code, got.text)
	}
	if got := post(t, c, s.url+"/hooks/posts/thing", "["+strings.Repeat(`{"n":1},`, 1000)+`{"n":1}]`); got.code != 413 ||
		got.text != `{"error":"the body holds more than 1000 events","limit":1000}` {
		t.Errorf("got %d %s", got.code, got.text)
	}
	if left := s.held.Load(); left != 0 {
		t.Errorf("%d bytes are still held", left)
	}
}

// The events of one request go into one commit, however many they are; two commits at a
// time would store them in any order.
func TestListStaysTogether(t *testing.T) {
	t.Parallel()
	q := newQueue(10)
	request := func(n int, generation int64) []*waiting {
		all := make([]*waiting, n)
		h := &hold{}
		for i := range all {
			all[i] = &waiting{hold: h, generation: generation}
		}
		return all
	}
	list := request(300, 1)
	for _, all := range [][]*waiting{request(1, 1), request(3, 1), list, request(1, 2)} {
		err := q.push(all)
		if full := all[0].generation == 2; full != (err == errFull) {
			t.Errorf("%d events: %v", len(all), err)
		}
	}
	for _, w := range list[100:] { // gave up
		q.drop(w)
	}
	q.limit = 1000
	if err := q.push(request(1, 2)); err != nil {
		t.Fatal(err)
	}
	if err := q.push(request(300, 2)); err != nil {
		t.Fatal(err)
	}
	if err := q.push(request(1, 2)); err != nil {
		t.Fatal(err)
	}
	large := request(3, 2)
	for _, w := range large {
		w.event.Body = make([]byte, maxBatchBytes+1)
	}
	if err := q.push(large); err != nil {
		t.Fatal(err)
	}
	var got []int
	for range 4 {
		got = append(got, len(q.take(nil)))
	}
	if diff := cmp.Diff([]int{104, 301, 1, 3}, got); diff != "" {
		t.Error(diff)
	}
}
