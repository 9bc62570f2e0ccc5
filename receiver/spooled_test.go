package receiver

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"partnersync/internal/ledger"
	"partnersync/receiver/sources"
	"partnersync/receiver/spool"
)

// What is in the spool is told by the config of the moment where it goes.
func TestSpoolIsReopened(t *testing.T) {
	t.Parallel()
	const changed = `
shop:
  verify: {token: a-token-of-the-tests}
  get: true
  events:
    deal.opened:
      schema: {key: text, at: time s}
      entity: {deal: event.key}
      occurred_at: event.at
      aliases: [deal.created]
    partner.changed:
      schema: {id: id, group: text}
      entity: {partner: event.id}
  ignore:
    - {when: 'event.group == "x"', reason: a test group}
strange:
  verify: {token: a-token-of-the-tests}
  events: {thing: {schema: {n: integer}}}
`
	onDisk := openSpool(t, spool.Options{})
	synctest.Test(t, func(t *testing.T) {
		db := &database{away: errAway}
		b := newBubble(t, Options{Ledger: db, Spool: onDisk})
		defer b.close()
		for _, give := range []struct{ path, body string }{
			{"/hooks/shop/deal.created", `{"key":"a","at":1700000000}`},
			{"/hooks/shop/deal.updated", `{"key":"b"}`},
			{"/hooks/shop/partner.changed", `{"id":1,"group":"x"}`},
			{"/hooks/shop", `{"event":"deal_created","data":{"key":"c"}}`},
			{"/hooks/posts/thing", `{"n":1}`},
			{"/hooks/strange/thing", `{"n":1}`},
			{"/hooks/strange/else", ` `},
		} {
			want := http.StatusAccepted
			if give.body == " " {
				want = http.StatusOK // a probe
			}
			b.want(want, b.post(give.path, give.body))
		}
		b.want(http.StatusBadRequest, b.post("/hooks/posts/thing", `oops`))
		b.want(http.StatusBadRequest, b.post("/hooks/shop/deal.created", `oops`))
		get := httptest.NewRequest(http.MethodGet, "/hooks/shop/deal.created?key=get&at=1700000000&token="+token, nil)
		get.Header.Set("User-Agent", "<test> & \"more\"")
		recorder := httptest.NewRecorder()
		b.Handler().ServeHTTP(recorder, get)
		if recorder.Code != 202 {
			t.Fatalf("got %d %s", recorder.Code, recorder.Body)
		}
		b.Use(Routing{Generation: 7, Sources: load(t, changed), Sinks: func(source, typ string) []string { return []string{source + "!"} }})
		db.set(nil, false)
		time.Sleep(2 * lastPause)
		synctest.Wait()
		var got []string
		for _, e := range db.events {
			got = append(got, fmt.Sprintf("%s %s|%s|%d|%s|%s|%s|%s|%s", e.Source, e.Type, e.Entity, max(0, e.OccurredAt.Unix()), e.Status, e.Reason, e.Sinks, e.Headers, e.Body))
		}
		want := []string{
			`shop deal.opened|deal:a|1700000000|stored||[shop!]||{"key":"a","at":1700000000}`,
			`shop deal.updated||0|unmapped|the source does not know this event|[]||{"key":"b"}`,
			`shop partner.changed|partner:1|0|ignored|a test group|[]||{"id":1,"group":"x"}`,
			`shop unknown||0|unmapped|the source does not know this event|[]||{"event":"deal_created","data":{"key":"c"}}`,
			`posts thing||0|unmapped|the source is no longer in the config|[]||{"n":1}`,
			`strange thing||0|stored||[strange!]|{"authorization":"\u003csecret\u003e"}|{"n":1}`,
			`posts thing||0|malformed|*|[]|{":event":"thing"}|oops`,
			`shop deal.opened||0|malformed|*|[]|{":event":"deal.created"}|oops`,
			`shop deal.opened|deal:get|1700000000|stored||[shop!]|{"user-agent":"\u003ctest\u003e \u0026 \"more\""}|{"at":"1700000000","key":"get"}`,
		}
		if len(got) != len(want) {
			t.Fatalf("stored are %q", got)
		}
		for i := range got {
			if !like(want[i], got[i]) {
				t.Errorf("got  %s\nwant %s", got[i], want[i])
			}
		}
	})
}

// Events that Postgres refuses, and records that nobody can read, stop nothing.
func TestSpoolWithBadEvents(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		bad  func(*ledger.Incoming) bool
		want []string
		kept bool
	}{
		{"for what was read from one", func(e *ledger.Incoming) bool { return e.Entity == "deal:d3" }, []string{"d0", "d1", "d2", "malformed d3", "d4", "d5"}, false},
		{"for its body", func(e *ledger.Incoming) bool { return strings.Contains(string(e.Body), "d3") }, []string{"d0", "d1", "d2", "d4", "d5"}, true},
		{"not at all", func(*ledger.Incoming) bool { return false }, []string{"d0", "d1", "d2", "d3", "d4", "d5"}, true}, // for the rubbish
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			onDisk := openSpool(t, spool.Options{Dir: dir})
			if i == 2 {
				if err := onDisk.Append([]spool.Record{{Data: []byte("rubbish")}, {}, {Data: []byte("\x02{}")}}); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				var got []string
				var working atomic.Bool
				b := newBubble(t, Options{Flushers: 1, Spool: onDisk, Ledger: committer(
					func(_ context.Context, events []ledger.Incoming, _ int64, _ int) ([]ledger.Accepted, error) {
						if !working.Load() {
							return nil, errAway
						}
						if slices.ContainsFunc(events, func(e ledger.Incoming) bool { return tt.bad(&e) }) {
							return nil, &pgconn.PgError{Code: "22021"}
						}
						for _, e := range events {
							text := strings.TrimSuffix(strings.TrimPrefix(string(e.Body), `{"key":"`), `"}`)
							if e.Status == ledger.Malformed {
								text = "malformed " + text
							}
							if got = append(got, text); !e.Again {
								t.Errorf("%s is not given as one that may be stored", text)
							}
						}
						return accepted(events), nil
					})})
				defer b.close()
				for n := range 6 {
					b.want(202, b.deal(n))
				}
				working.Store(true)
				time.Sleep(2 * lastPause)
				synctest.Wait()
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
				kept, err := filepath.Glob(filepath.Join(dir, "*.corrupt"))
				if err != nil || (len(kept) == 1) != tt.kept {
					t.Errorf("kept are %v, %v", kept, err)
				}
				if onDisk.Len() != 0 {
					t.Errorf("%d events are left", onDisk.Len())
				}
			})
		})
	}
}

func TestReopenedPanics(t *testing.T) {
	t.Parallel()
	record, err := encodeSpooled(&waiting{event: ledger.Incoming{ID: uuid.New(), Source: "shop", Body: []byte("{}")}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = reopenSpooled(&gates{bySource: map[string]*gate{"shop": {}}}, record)
	if err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("got %v", err)
	}
}

func FuzzSpooled(f *testing.F) {
	g := newGates(routing(f, 1), newMetrics(nil))
	f.Add([]byte("rubbish"), "deal.created", []byte(`{"key":"k"}`), "a reason")
	f.Add([]byte("\x02{}"), "", []byte(`{"event":"deal_created","data":{"key":"c"}}`), "")
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01{}"), "x", []byte{}, "\xff")
	f.Fuzz(func(t *testing.T, data []byte, named string, body []byte, reason string) {
		_, _ = reopenSpooled(g, spool.Record{Data: data})
		give := &waiting{named: clean(named, maxType), event: ledger.Incoming{
			ID: uuid.New(), Source: "gone", Type: sources.Unknown, ReceivedAt: time.Unix(1, 2).UTC(), Status: ledger.Ignored, Reason: clean(reason, maxReason),
			Headers: []byte(`{"a":"b"}`), Body: body, OccurredAt: time.Unix(3, 4).UTC(), Rank: -1, Entity: clean(named, maxEntity),
			Trace: clean(reason, maxReason), VerifiedBy: clean(named, maxType),
		}}
		record, err := encodeSpooled(give)
		if err != nil {
			t.Fatal(err)
		}
		got, err := reopenSpooled(g, record)
		if err != nil {
			t.Fatal(err)
		}
		want := give.event
		want.Again = true
		if diff := cmp.Diff(want, got.event); diff != "" && len(body) > 0 {
			t.Error(diff)
		}
		if got.named != give.named {
			t.Errorf("named is %q, want %q", got.named, give.named)
		}
	})
}
