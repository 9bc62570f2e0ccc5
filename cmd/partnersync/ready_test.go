package main

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"partnersync/internal/pgtest"
)

// A Postgres that answers and stores nothing is none that a receiver could be ready with, until it stores again.
func TestReadyOnlyWhileEventsCanBeStored(t *testing.T) {
	t.Parallel()
	const refuse = `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '%s'; END $$;
		CREATE TRIGGER refuse BEFORE INSERT ON %s EXECUTE FUNCTION refuse()`
	trigger := func(table, code string) string {
		return strings.NewReplacer("'%s'", "'"+code+"'", "%s", table).Replace(refuse)
	}
	for _, tt := range []struct {
		name, spoil, mend string
		spools            bool
	}{
		{"a table is missing", `ALTER TABLE events RENAME TO gone`, `ALTER TABLE gone RENAME TO events`, false},
		{"no right to write", trigger("events", "42501"), `DROP TRIGGER refuse ON events`, false},
		{"no right to queue", trigger("river_job", "42501"), `DROP TRIGGER refuse ON river_job`, false},
		{"refused whatever the data", trigger("events", "23514"), `DROP TRIGGER refuse ON events`, false},
		{"a spool takes them", `ALTER TABLE events RENAME TO gone`, `ALTER TABLE gone RENAME TO events`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := shopConfig
			if tt.spools {
				config = strings.Replace(config, `receiver: {listen: "127.0.0.1:0"}`, spooling, 1)
			}
			w := newWorld(t, config, pgtest.URL(t))
			exec := func(sql string) {
				t.Helper()
				conn, err := pgx.Connect(context.Background(), w.url)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close(context.Background())
				if _, err := conn.Exec(context.Background(), sql); err != nil {
					t.Fatal(err)
				}
			}
			s := w.start("--only", "receive")
			ready := func(want int, page string) {
				t.Helper()
				// The answer to the first events after a change may come before the log of their commit.
				s.until(page, func() bool {
					code, got := s.get(s.admin + "/readyz")
					return code == want && strings.TrimSpace(got) == page
				})
			}
			s.until("it has joined", func() bool { _, err := s.post("a", 1, "x"); return err == nil })
			ready(http.StatusOK, "ok")
			exec(tt.spoil)
			if _, err := s.post("b", 2, "x"); (err == nil) != tt.spools {
				t.Errorf("an event that Postgres does not store: %v", err)
			}
			fault := "Postgres answers, but stores no event (the log says why)"
			if tt.spools {
				ready(http.StatusOK, "ok: "+fault+", events go to the spool")
			} else {
				ready(http.StatusServiceUnavailable, "not ready: "+fault)
			}
			exec(tt.mend)
			ready(http.StatusOK, "ok") // though no event has come that could tell
			s.mustPost("c", 3, "x")
			ready(http.StatusOK, "ok")
			s.stop()
			if n := w.count("events WHERE source = 'trial'") + w.count("routes WHERE sink = 'trial'") + w.count("river_job WHERE queue = 'sink_trial'"); n != 0 {
				t.Errorf("%d rows of a rehearsal are there", n)
			}
		})
	}
}
