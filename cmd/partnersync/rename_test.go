package main

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/internal/secret"
)

var renamedConfig = strings.NewReplacer("  crm:\n", "  hubspot:\n    formerly: [crm]\n", "to: crm\n", "to: hubspot\n").Replace(shopConfig)

// A rolling restart that renames a sink: one CRM never has two owners, what receivers with the former config accept
// arrives, in order, and the name is taken for good.
func TestRollingRestartWithARename(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, pgtest.URL(t))
	before, receiver := w.start(), w.start("--only", "receive")
	before.mustPost("d1", 5, "five")
	before.until("it is delivered", func() bool { return w.titles()["d1"] == "five" })
	w.write(renamedConfig)
	after := w.start()
	before.mustPost("d1", 4, "four")
	after.mustPost("d1", 7, "seven")
	before.mustPost("d1", 6, "six")
	before.mustPost("d2", 1, "of the former one")
	// Whoever of the two is to have the sink: the former one hands it over at the latest when it ends.
	before.stop()
	receiver.mustPost("d3", 1, "of a receiver that has not heard")
	arrived := func() bool {
		got := w.titles()
		return got["d1"] == "seven" && got["d2"] != "" && got["d3"] != ""
	}
	began := time.Now() // what comes after the rename is moved at the next sweep, a minute later at most
	after.until("the sweep has come", func() bool { return arrived() || time.Since(began) > patience/2 })
	after.until("all has arrived", arrived)
	after.until("all has ended", func() bool { return w.count(`routes WHERE outcome IS NULL`) == 0 })
	if n := w.count(`sinks WHERE owner <> ''`); n != 1 {
		t.Errorf("%d sinks have an owner", n)
	}
	if out := w.run("ledger"); !regexp.MustCompile(`(?m)^ *shop +hubspot +6 `).MatchString(out) || strings.Contains(out, " crm ") {
		t.Errorf("the ledger says\n%s", out)
	}
	if out := w.run("sinks"); strings.Contains(out, "gone") {
		t.Errorf("the sinks are\n%s", out)
	}
	if after.metric("orphaned_routes") != 0 {
		t.Error("what is about to be moved counts as orphaned")
	}
	receiver.stop()
	after.stop()
	last := w.start()
	last.mustPost("d1", 8, "eight")
	last.until("the next one takes the name", func() bool { return w.titles()["d1"] == "eight" })
	last.stop()
}

// A sink that is taken out of the config while events wait: the reload says so, and so do the log, the metric and
// the next start; `sinks drop` ends them.
func TestSinkTakenOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, pgtest.URL(t))
	s := w.start()
	s.mustPost("d0", 1, "n")
	s.until("it is delivered", func() bool { return w.titles()["d0"] == "n" })
	w.run("sinks", "stop", "crm")
	for _, key := range []string{"d1", "d2", "d3"} {
		s.mustPost(key, 1, "n")
	}
	without, _, _ := strings.Cut(shopConfig, "sinks:\n")
	w.write(without)
	const waits = "3 events still wait for crm, which the config no longer has: "
	code, said := s.ask(http.MethodPost, s.admin+"/-/reload")
	if code != 200 || !strings.HasPrefix(said, "the config is in force\n"+waits) {
		t.Errorf("the reload answers %d %s", code, said)
	}
	s.until("the log tells", func() bool { return strings.Contains(s.said(), waits) })
	if got := s.metric("orphaned_routes"); got != 3 {
		t.Errorf("%v orphaned routes", got)
	}
	s.stop()
	s = w.start()
	s.until("the log tells at the start", func() bool { return strings.Contains(s.said(), waits) })
	if out := w.run("sinks", "drop", "crm", "--yes"); out != "ended: 3 open events of crm, as skipped; what is known of 1 record\n" {
		t.Errorf("drop says %s", out)
	}
	if got := s.metric("orphaned_routes"); got != 0 {
		t.Errorf("%v orphaned routes", got)
	}
	if out := w.run("ledger"); !regexp.MustCompile(`(?m)^ *shop +crm +4 += +1 +0 +0 +3 +0 +0 +\(0 +0\) +0 +\+ +0$`).MatchString(out) {
		t.Errorf("the ledger says\n%s", out)
	}
	s.stop()
}

// A sink of a living process is not dropped, though the config of whoever asks has it no more.
func TestDropOfALivingSink(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, pgtest.URL(t))
	s := w.start()
	s.mustPost("d0", 1, "n")
	s.until("it is delivered", func() bool { return w.titles()["d0"] == "n" })
	without, _, _ := strings.Cut(shopConfig, "sinks:\n")
	w.write(without)
	out, err := w.command("sinks", "drop", "crm", "--yes").CombinedOutput()
	if err == nil || !regexp.MustCompile(`^partnersync: \S+ still works crm: reload or end the processes that have it in their config\n$`).Match(out) {
		t.Errorf("%v %s", err, out)
	}
	s.stop()
}

// A sink that is resumed and refused again says so.
func TestResumeOfASinkThatIsHeldAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shopConfig, pgtest.URL(t))
	s := w.start()
	s.mustPost("d1", 1, "n")
	s.until("it is delivered", func() bool { return w.titles()["d1"] == "n" })
	w.box.SetAccount(99)
	if code, said := s.ask(http.MethodPost, s.admin+"/-/reload"); code != 200 {
		t.Fatal(said)
	}
	s.mustPost("d1", 2, "m")
	s.until("it is held", func() bool { return s.metric(`sink_state{sink="crm",state="held"}`) == 1 })
	out, err := w.command("sinks", "resume", "crm").CombinedOutput()
	if err == nil || !strings.HasPrefix(string(out), "partnersync: crm went on and is held again: account: the credentials are of account 99, ") {
		t.Errorf("%v %s", err, out)
	}
	w.box.SetAccount(62515)
	if out := w.run("sinks", "resume", "crm"); out != "crm is ready\n" {
		t.Errorf("resume says %s", out)
	}
	s.until("it is delivered", func() bool { return w.titles()["d1"] == "m" })
	s.stop()
}

// Tokens are sealed for the name of their sink, and can be opened under the next one.
func TestTokensAfterARename(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	l, key := ledger.New(pool), secret.New("a key")
	store := func(sink string, formerly ...string) *tokenStore {
		s, err := newTokenStore(l, sink, formerly, key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := store("crm").Save(ctx, []byte("token")); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(ctx, `UPDATE sinks SET name = 'hubspot'`); err != nil { // as ledger.Rename does
		t.Fatal(err)
	}
	if got, err := store("hubspot", "older", "crm").Load(ctx); err != nil || string(got) != "token" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := store("hubspot").Load(ctx); err == nil {
		t.Error("the tokens of another sink can be opened")
	}
}
