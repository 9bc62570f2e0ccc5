package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/ledger"
	"partnersync/internal/localpg"
)

type checkCmd struct {
	Files    []string `arg:"" optional:"" help:"Config files; the one of --config if none is named."`
	Strict   bool     `help:"Variables that are not set are errors, and so is what --database finds to be left behind."`
	Database bool     `help:"Also look into the database for what the config would leave behind; changes nothing."`
	Live     bool     `help:"Also ask the CRMs what they have: fields, types, options, keys; changes nothing."`
}

func (c checkCmd) Run(ctx context.Context, cli *commands, s streams) error {
	files := c.Files
	if len(files) == 0 {
		files = []string{cli.Config}
	}
	failed := false
	var all diag.Problems
	var unseen []string
	for _, file := range files {
		cfg, problems := config.Load(file, config.Options{Lenient: !c.Strict})
		// What else may be wrong with a connection string is a matter of the machine that uses it.
		if err := connectable(cfg); err != nil && !errors.Is(err, errNoURL) {
			problems.Add(diag.Problem{Pos: diag.Pos{File: file}, Message: err.Error()})
			cfg = nil
		}
		if cfg != nil && c.Database {
			found, err := c.left(ctx, cfg)
			if err != nil {
				return err
			}
			if problems = append(problems, found...); found.Failed() {
				cfg = nil
			}
		}
		var seen []string
		if cfg != nil && c.Live {
			var found diag.Problems
			var not []string
			found, seen, not = c.live(ctx, cfg)
			if unseen = append(unseen, not...); found.Failed() {
				cfg = nil
			}
			problems = append(problems, found...)
		}
		all = append(all, problems...)
		failed = failed || cfg == nil
		if cli.JSON {
			continue
		}
		printProblems(s.err, problems)
		if cfg != nil {
			say(s.out, "%s: ok: %s\n", file, summary(cfg))
			for _, line := range seen {
				say(s.out, "%s\n", line)
			}
			continue
		}
		say(s.err, "\n%s: %s\n", file, counts(problems))
	}
	if cli.JSON {
		if err := printJSON(s.out, problemsJSON(all)); err != nil {
			return err
		}
	}
	if failed {
		return errRefused
	}
	if len(unseen) > 0 {
		return fmt.Errorf("could not look at everything:\n  %s", strings.Join(unseen, "\n  "))
	}
	return nil
}

// connectable looks at the connection string of a config, if there is one.
func connectable(cfg *config.Config) error {
	if cfg == nil || cfg.Database.URL.Empty() || cfg.Database.URL.Reveal() == config.Unset {
		return nil
	}
	_, err := poolConfig(cfg.Database.URL.Reveal())
	return err
}

// left finds what waits in the database and would have no sink under a config, and sinks that nobody could take.
func (c checkCmd) left(ctx context.Context, cfg *config.Config) (diag.Problems, error) {
	url := cfg.Database.URL.Reveal()
	switch url {
	case config.Unset:
		return nil, usageError{errors.New("--database: the variable of database.url is not set here")}
	case "":
		if url = localpg.Running(ctx, cfg.Database.Dir); url == "" {
			return nil, usageError{errors.New("--database: the private Postgres of database.dir does not run: start `partnersync run`")}
		}
	}
	pc, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errNoURL
	}
	pc.MaxConns = 1
	pc.ConnConfig.ConnectTimeout = connectTimeout
	ctx, cancel := context.WithTimeout(ctx, 2*connectTimeout)
	defer cancel()
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	defer pool.Close()
	l := ledger.New(pool)
	if err := l.Ping(ctx); err != nil {
		return nil, fmt.Errorf("--database: %w", refused(err))
	}
	var problems diag.Problems
	orphans, err := l.Orphans(ctx, cfg.SinkNames())
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (pg.Code == "42P01" || pg.Code == "42703") { // no such table, or column
		return nil, errors.New("--database: the schema is not up to date: `partnersync migrate up` makes it so")
	}
	if err != nil {
		return nil, err
	}
	severity := diag.Warning
	if c.Strict {
		severity = diag.Error
	}
	for _, o := range orphans {
		if message, hint := orphanTold(o); message != "" {
			problems.Add(diag.Problem{Pos: diag.Pos{File: cfg.Path}, Severity: severity, Message: message, Hint: hint})
		}
	}
	for _, name := range sortedKeys(cfg.Sinks) {
		// This config would be the newest.
		_, err := l.Formers(ctx, name, cfg.Sinks[name].Formerly(), math.MaxInt64)
		if barred, ok := errors.AsType[*ledger.Barred](err); ok {
			problems.Add(diag.Problem{Pos: diag.Pos{File: cfg.Path}, Message: fmt.Sprintf("nobody could work sink %q", name), Hint: barred.Reason})
		} else if err != nil {
			return nil, err
		}
	}
	return problems, nil
}

func summary(c *config.Config) string {
	mappings := map[string]bool{} // one of several records has several entries
	for _, m := range c.Mappings.Mappings() {
		mappings[m.Name] = true
	}
	return fmt.Sprintf("%s, %s, %s", plural(len(c.Sources), "source"), plural(len(c.Sinks), "sink"), plural(len(mappings), "mapping"))
}

// counts tells errors and warnings apart.
func counts(problems diag.Problems) string {
	errs := 0
	for _, p := range problems {
		if p.Severity == diag.Error {
			errs++
		}
	}
	text := plural(errs, "error")
	if warnings := len(problems) - errs; warnings > 0 {
		text += ", " + plural(warnings, "warning")
	}
	return text
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

type problemJSON struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Col      int    `json:"col"`
	Severity string `json:"severity"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
}

func problemsJSON(problems diag.Problems) []problemJSON {
	list := make([]problemJSON, 0, len(problems))
	for _, p := range problems {
		list = append(list, problemJSON{p.File, p.Line, p.Col, p.Severity.String(), p.Message, p.Hint})
	}
	return list
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
