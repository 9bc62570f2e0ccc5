package main

import (
	"net/http"
	"strings"
	"testing"

	"partnersync/internal/pgtest"
)

// A config that is reloaded while Postgres is away takes effect when it is back, without
// another word, and whatever is asked for meanwhile that cannot be.
func TestReloadWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	db := pgtest.Server(t)
	w := newWorld(t, shopConfig, emptyDatabase(t, db))
	s := w.start()
	s.mustPost("early", 1, "x")
	s.until("the first config works", func() bool { return w.titles()["early"] == "x" })
	db.Stop()
	good := strings.Replace(shopConfig, "event.name}", "upper(event.name)}", 1)
	w.write(good)
	if code, said := s.ask(http.MethodPost, s.admin+"/-/reload"); code != http.StatusUnprocessableEntity {
		t.Errorf("a reload without Postgres answers %d %s", code, said)
	}
	w.write("sinkz: {}\n")
	if code, _ := s.ask(http.MethodPost, s.admin+"/-/reload"); code != http.StatusUnprocessableEntity {
		t.Errorf("a bad reload answers %d", code)
	}
	db.Start()
	s.until("Postgres is back", func() bool { code, _ := s.get(s.admin + "/readyz"); return code == 200 })
	var n int
	s.until("what was asked for has come to pass", func() bool {
		n++
		key := "late" + strings.Repeat("x", n)
		s.mustPost(key, 1, "y")
		s.until("it has arrived", func() bool { return w.titles()[key] != "" })
		return w.titles()[key] == "Y"
	})
	if s.metric("config_last_reload_successful") != 0 {
		t.Error("the last reload was a bad one")
	}
	w.write(good)
	if code, said := s.ask(http.MethodPost, s.admin+"/-/reload"); code != 200 || s.metric("config_last_reload_successful") != 1 {
		t.Errorf("a good reload answers %d %s", code, said)
	}
	s.stop()
}
