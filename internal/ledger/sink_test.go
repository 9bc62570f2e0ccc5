package ledger_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/records"
)

func TestAccountIsTheFirst(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	for _, give := range []string{"62515", "62515", "99"} {
		if got, err := l.Account(t.Context(), "crm", give); err != nil || got != "62515" {
			t.Errorf("%s: got %q, %v", give, got, err)
		}
	}
}

func TestTokensAreKept(t *testing.T) {
	t.Parallel()
	l := ledger.New(pgtest.Pool(t))
	if got, err := l.Tokens(t.Context(), "crm"); err != nil || got != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if err := l.SetTokens(t.Context(), "crm", []byte{1, 0, 2}); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Tokens(t.Context(), "crm"); err != nil || string(got) != "\x01\x00\x02" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestRenameTakesEverythingAlong(t *testing.T) {
	t.Parallel()
	pool := pgtest.Pool(t)
	l := ledger.New(pool)
	done, waiting := stored(t, l, "crm"), stored(t, l, "crm")
	rec := &ledger.Record{ID: newID(t), Object: "deals", Property: "k", Key: "1", New: true, Presence: records.Present}
	if err := l.Write(t.Context(), own(t, l), &ledger.Report{
		Records:    []*ledger.Record{rec},
		Deliveries: []ledger.Delivery{{Event: done, Mapping: "deals", Outcome: ledger.Delivered}},
		Closings:   []ledger.Closing{{Event: done, Outcome: ledger.Delivered}},
	}); err != nil {
		t.Fatal(err)
	}
	if moved, err := l.Rename(t.Context(), "crm", "hubspot"); err != nil || !moved {
		t.Fatalf("%v, %v", moved, err)
	}
	if moved, err := l.Rename(t.Context(), "crm", "hubspot"); err != nil || moved {
		t.Errorf("a second time: %v, %v", moved, err)
	}
	key := ledger.RecordKey{Object: "deals", Property: "k", Key: "1"}
	if found, err := l.Records(t.Context(), "hubspot", []ledger.RecordKey{key}); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
	if open, err := l.Routes(t.Context(), "hubspot", []uuid.UUID{done, waiting}); err != nil || len(open) != 1 || open[0].Event != waiting {
		t.Errorf("%v, %v", open, err)
	}
	var jobs int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM river_job WHERE queue = 'sink_hubspot' AND args->>'sink' = 'hubspot'`).Scan(&jobs); err != nil || jobs != 2 {
		t.Errorf("%d jobs, %v", jobs, err)
	}
	list, err := l.Balances(t.Context(), time.Time{})
	if err != nil || len(list) != 1 || list[0].Sink != "hubspot" || list[0].Unaccounted != 0 || list[0].Accepted != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}
