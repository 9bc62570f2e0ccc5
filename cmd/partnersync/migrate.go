package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"partnersync/internal/config"
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
		if err := migrations.Up(ctx, url); err != nil {
			return err
		}
		fmt.Fprintln(s.out, "the schema is up to date")
		return nil
	})
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
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", m.Source, m.Version, m.Name, applied)
		}
		return w.Flush()
	})
}

func (migratePrint) Run(_ *commands, s streams) error { return migrations.Print(s.out) }
