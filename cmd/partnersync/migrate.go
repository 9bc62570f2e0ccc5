package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"partnersync/internal/config"
	"partnersync/internal/progress"
	"partnersync/migrations"
)

type migrateCmd struct {
	Up     migrateUp     `cmd:"" help:"Apply what is missing. run does the same at its start."`
	Status migrateStatus `cmd:"" help:"List the migrations and when they were applied."`
	Print  migratePrint  `cmd:"" help:"Print all SQL, for those who apply it by hand."`
}

type (
	migrateUp     struct{}
	migrateStatus struct{}
	migratePrint  struct{}
)

func (migrateUp) Run(ctx context.Context, cli *commands, s streams) error {
	return cli.withDatabase(ctx, s, func(_ *config.Config, url string) error {
		applied, err := up(ctx, progress.New(s.err), url)
		if err != nil {
			return err
		}
		if cli.JSON {
			return printJSON(s.out, map[string]int{"applied": applied})
		}
		fmt.Fprintln(s.out, "the schema is up to date")
		return nil
	})
}

// up migrates the database and tells meanwhile how many migrations are applied.
func up(ctx context.Context, bar *progress.Progress, url string) (applied int, err error) {
	list, err := migrations.Status(ctx, url)
	if err != nil {
		return 0, err
	}
	before, total := countApplied(list), len(list)
	done := make(chan error, 1)
	go func() { done <- migrations.Up(ctx, url) }()
	defer bar.End()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			return total - before, err
		case <-ticker.C:
			// Only for the eye: whether it works is told by Up.
			if list, err := migrations.Status(ctx, url); err == nil {
				bar.Set("migrations", int64(countApplied(list)-before), int64(total-before))
			}
		}
	}
}

func countApplied(list []migrations.Migration) int {
	n := 0
	for _, m := range list {
		if m.Applied {
			n++
		}
	}
	return n
}

func (migrateStatus) Run(ctx context.Context, cli *commands, s streams) error {
	return cli.withDatabase(ctx, s, func(_ *config.Config, url string) error {
		list, err := migrations.Status(ctx, url)
		if err != nil {
			return err
		}
		if cli.JSON {
			return printJSON(s.out, list)
		}
		w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "OF\tVERSION\tNAME\tAPPLIED")
		for _, m := range list {
			applied := "no"
			if m.Applied {
				applied = "yes"
				if !m.AppliedAt.IsZero() {
					applied = m.AppliedAt.UTC().Format("2006-01-02 15:04:05Z")
				}
			}
			say(w, "%s\t%d\t%s\t%s\n", m.Source, m.Version, m.Name, applied)
		}
		return w.Flush()
	})
}

func (migratePrint) Run(_ *commands, s streams) error { return migrations.Print(s.out) }
