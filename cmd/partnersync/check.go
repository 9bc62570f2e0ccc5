package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"partnersync/internal/config"
	"partnersync/internal/diag"
)

type checkCmd struct {
	Files  []string `arg:"" optional:"" help:"Config files; the one of --config if none is named."`
	Strict bool     `help:"Variables that are not set are errors."`
}

func (c checkCmd) Run(cli *commands, s streams) error {
	files := c.Files
	if len(files) == 0 {
		files = []string{cli.Config}
	}
	failed := false
	var all diag.Problems
	for _, file := range files {
		cfg, problems := config.Load(file, config.Options{Lenient: !c.Strict})
		// What else may be wrong with a connection string is a matter of the machine that uses it.
		if err := connectable(cfg); err != nil && !errors.Is(err, errNoURL) {
			problems.Add(diag.Problem{Pos: diag.Pos{File: file}, Message: err.Error()})
			cfg = nil
		}
		all = append(all, problems...)
		failed = failed || cfg == nil
		if cli.JSON {
			continue
		}
		printProblems(s.err, problems)
		if cfg != nil {
			say(s.out, "%s: ok: %s\n", file, summary(cfg))
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
