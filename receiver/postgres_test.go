package receiver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

func TestSameEvent(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		path string
		give []string // bodies
		want []int
	}{
		{
			"with the sender's time", "/hooks/shop/deal.created",
			[]string{`{"key":"d","at":1700000000}`, `{"key":"d","at":1700000001}`, `{"key":"d","at":1700000000}`},
			[]int{202, 202, 200},
		},
		{
			"without a time: A, A, B, A", "/hooks/shop/partner.changed",
			[]string{`{"id":1,"group":"a"}`, `{"id":1,"group":"a"}`, `{"id":1,"group":"b"}`, `{"id":1,"group":"a"}`},
			[]int{202, 200, 202, 202},
		},
		{
			"without a time, another entity between", "/hooks/shop/partner.changed",
			[]string{`{"id":1,"group":"a"}`, `{"id":2,"group":"a"}`, `{"id":1,"group":"a"}`},
			[]int{202, 202, 200},
		},
		{
			"a duplicate of an event that nothing maps", "/hooks/shop/deal.updated",
			[]string{`{"key":"d","at":1700000000}`, `{"key":"d","at":1700000000}`},
			[]int{202, 200},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.Pool(t)
			s := start(t, Options{Ledger: ledger.New(pool)})
			c := client(t)
			var got []int
			var ids []string
			for _, body := range tt.give {
				r := post(t, c, s.url+tt.path, body)
				got = append(got, r.code)
				if first := slices.Index(tt.give, body); r.code == 200 && (r.id != ids[first] || r.text != `{"id":"ID","status":"duplicate"}`) {
					t.Errorf("a duplicate is answered %s with the id %s, that of the first is %s", r.text, r.id, ids[first])
				}
				ids = append(ids, r.id)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestVersionClampsAndDrift(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Ledger: ledger.New(pgtest.Pool(t))})
	c := client(t)
	post(t, c, s.url+"/hooks/shop/deal.created", `{"key":"d","at":4070908800}`) // 2099
	post(t, c, s.url+"/hooks/shop/deal.created", `{"key":"d","at":1700000000,"news":1,"amount":[]}`)
	if diff := cmp.Diff([]string{"source=shop 1"}, counted(t, s.registry, "partnersync_version_clamps_total")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"source=shop type=deal.created 2"}, counted(t, s.registry, "partnersync_payload_drift_total")); diff != "" {
		t.Error(diff)
	}
}

// Two receivers on one database get the same events at the same time.
func TestDuplicatesAcrossReceivers(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	const senders, events = 8, 60
	var services []*service
	var pools []*pgxpool.Pool
	for range 2 {
		pool, err := pgxpool.New(context.Background(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		pools = append(pools, pool)
		services = append(services, start(t, Options{Ledger: ledger.New(pool), EventsPerJob: 100}))
	}
	c := client(t)
	var stored [events]atomic.Int32
	var group sync.WaitGroup
	for n := range senders {
		group.Go(func() {
			for i := range events {
				e := i
				if n%3 == 0 {
					e = events - 1 - i
				}
				r := post(t, c, services[n%2].url+"/hooks/shop/deal.created", fmt.Sprintf(`{"key":"d%d","at":1700000000}`, e))
				switch r.code {
				case 202:
					stored[e].Add(1)
				case 200:
				default:
					t.Errorf("got %d %s", r.code, r.text)
				}
			}
		})
	}
	group.Wait()
	for i := range stored {
		if n := stored[i].Load(); n != 1 {
			t.Errorf("event %d was stored %d times", i, n)
		}
	}
	got := rows(t, pools[0], `SELECT concat_ws(' ', (SELECT count(*) FROM events), (SELECT sum(duplicates) FROM events),
		(SELECT count(*) FROM routes), (SELECT sum(jsonb_array_length(args->'event_ids')) FROM river_job))`)
	if want := fmt.Sprint(events, (senders-1)*events, events, events); got[0] != want {
		t.Errorf("events, duplicates, routes, events in jobs: got %s, want %s", got[0], want)
	}
}

// spoiler makes Postgres itself refuse the events of one entity.
type spoiler struct{ *ledger.Ledger }

func (s spoiler) Accept(ctx context.Context, events []ledger.Incoming, generation int64, eventsPerJob int) ([]ledger.Accepted, error) {
	events = slices.Clone(events)
	for i := range events {
		if strings.HasPrefix(events[i].Entity, "deal:bad") {
			events[i].Entity += "\x00"
		}
	}
	return s.Ledger.Accept(ctx, events, generation, eventsPerJob)
}

func TestOneRequestNeverFailsAnother(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	s := start(t, Options{Ledger: spoiler{ledger.New(pool)}, Flushers: 1, EventsPerJob: 100})
	c := client(t)
	const events = 64
	var group sync.WaitGroup
	for n := range events {
		group.Go(func() {
			key, want := fmt.Sprintf("good%d", n), 202
			if n%16 == 5 {
				key, want = fmt.Sprintf("bad%d", n), 422
			}
			if r := post(t, c, s.url+"/hooks/shop/deal.created", fmt.Sprintf(`{"key":%q,"at":1700000000}`, key)); r.code != want || r.id == "" {
				t.Errorf("%s: got %d %s", key, r.code, r.text)
			}
		})
	}
	group.Wait()
	got := rows(t, pool, `SELECT concat_ws(' ', status, type, entity = '', reason, count(*), sum(length(body)) > 0) FROM events GROUP BY status, type, entity = '', reason ORDER BY 1`)
	want := []string{"malformed unknown t Postgres refused the event with SQLSTATE 22021 4 t", "stored deal.created f  60 t"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := rows(t, pool, "SELECT sum(jsonb_array_length(args->'event_ids'))::text FROM river_job"); got[0] != "60" {
		t.Errorf("%s events in jobs, want 60", got[0])
	}
}

func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	s := start(t, Options{Ledger: ledger.New(pool), EventsPerJob: 10})
	c := client(t)
	ctx, stop := context.WithCancel(t.Context())
	var sent atomic.Int64
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				r := post(t, c, s.url+"/hooks/shop/deal.created", fmt.Sprintf(`{"key":"d%d-%d","at":1700000000}`, n, i))
				if r.code != 202 || r.text != `{"id":"ID","status":"stored"}` {
					t.Errorf("got %d %s", r.code, r.text)
				}
				sent.Add(1)
			}
		})
	}
	const reloads = 10
	waitFor(t, "requests before the reload", func() bool { return sent.Load() > 20 })
	for g := range reloads {
		generation := int64(g + 2)
		before := sent.Load()
		next := routing(t, generation)
		next.Sinks = func(string, string) []string { return []string{fmt.Sprint("sink", generation)} }
		s.Use(next)
		waitFor(t, "requests after the reload", func() bool { return sent.Load() > before+20 })
	}
	stop()
	group.Wait()
	got := rows(t, pool, `SELECT DISTINCT sink || ' ' || generation FROM routes ORDER BY 1`)
	want := []string{"crm 1"}
	for g := range reloads {
		want = append(want, fmt.Sprintf("sink%d %d", g+2, g+2))
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sinks and generations: %s", diff)
	}
	if got := rows(t, pool, `SELECT count(*)::text FROM events WHERE status = 'stored'`); got[0] != fmt.Sprint(sent.Load()) {
		t.Errorf("%s events are stored of %d", got[0], sent.Load())
	}
}

// What was answered 202 is in Postgres, whatever happens around the receiver; what
// was not stored was answered 503.
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	s := start(t, Options{Ledger: ledger.New(pool)})
	c := client(t)
	var stored, refused atomic.Int64
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			for i := 0; ; i++ {
				r := post(t, c, s.url+"/hooks/shop/deal.created", fmt.Sprintf(`{"key":"d%d-%d","at":1700000000}`, n, i))
				if r.code == 503 {
					refused.Add(1)
					return
				}
				if r.code != 202 {
					t.Errorf("got %d %s", r.code, r.text)
				}
				stored.Add(1)
			}
		})
	}
	waitFor(t, "some load", func() bool { return stored.Load() > 100 })
	s.stop()
	group.Wait()
	if got := rows(t, pool, `SELECT count(*)::text FROM events`); got[0] != fmt.Sprint(stored.Load()) || refused.Load() != 8 {
		t.Errorf("%s events are in Postgres, %d were accepted, %d senders were sent away", got[0], stored.Load(), refused.Load())
	}
}

func TestPostgresAway(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		away, back func(*pgtest.Own)
	}{
		{"stopped", (*pgtest.Own).Stop, (*pgtest.Own).Start},
		{"killed", (*pgtest.Own).Kill, (*pgtest.Own).Start},
		{"frozen", (*pgtest.Own).Pause, (*pgtest.Own).Resume},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Server(t)
			config, err := pgxpool.ParseConfig(db.URL())
			if err != nil {
				t.Fatal(err)
			}
			config.MaxConns = 4
			pool, err := pgxpool.NewWithConfig(context.Background(), config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			const most = 256 << 10
			s := start(t, Options{Ledger: ledger.New(pool), MaxBytes: most, Queue: 50, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
			c := client(t)
			event := func(n int) string {
				return fmt.Sprintf(`{"key":"d%d","at":1700000000,"email":%q}`, n, strings.Repeat("x", 400))
			}
			var stored sync.Map
			post202 := func(n int) bool {
				r := post(t, c, s.url+"/hooks/shop/deal.created", event(n))
				switch {
				case r.code == 202 || r.code == 200:
					stored.Store(n, true)
					return true
				case r.code != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "":
					t.Errorf("got %d %s, Retry-After %q", r.code, r.text, r.header.Get("Retry-After"))
				}
				return false
			}
			if !post202(0) {
				t.Fatal("the first event is not stored")
			}
			tt.away(db)
			// Many senders at once, each more than once.
			var group sync.WaitGroup
			var sentAway atomic.Int64
			for n := range 200 {
				group.Go(func() {
					for i := range 2 {
						if !post202(1 + 2*n + i) {
							sentAway.Add(1)
						}
						if held := s.held.Load(); held > most {
							t.Errorf("%d bytes are held, allowed are %d", held, most)
						}
					}
				})
			}
			group.Wait()
			// Backends may outlive a killed server for a moment, and store what they have at hand.
			if n := sentAway.Load(); n < 390 {
				t.Errorf("%d of 400 were told to come again", n)
			}
			waitFor(t, "nothing held any more", func() bool { return s.held.Load() == 0 })
			tt.back(db)
			waitFor(t, "an event stored again", func() bool { return post202(1) })
			missing := 0
			stored.Range(func(n, _ any) bool {
				if got := rows(t, pool, `SELECT count(*)::text FROM events WHERE entity = $1`, fmt.Sprintf("deal:d%d", n)); got[0] != "1" {
					missing++
				}
				return true
			})
			if missing > 0 {
				t.Errorf("%d accepted events are not in Postgres once", missing)
			}
		})
	}
}
