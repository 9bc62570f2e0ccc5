package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
	"partnersync/internal/localpg"
	"partnersync/migrations"
)

// withDatabase calls use with the URL of the config's database. Where that is the
// private one it takes the one that `run` has up, or starts it for as long as use lasts.
// The secrets of senders and CRMs need not be there: who looks into the database has no use
// for them.
func (c *commands) withDatabase(ctx context.Context, s streams, use func(cfg *config.Config, url string) error) (err error) {
	cfg, _ := config.Load(c.Config, config.Options{Lenient: true})
	if cfg == nil || cfg.Database.URL.Reveal() == config.Unset {
		_, err := c.load(s, config.Options{})
		return err
	}
	c.begun.Store(true)
	if url := cfg.Database.URL.Reveal(); url != "" {
		if _, err := poolConfig(url); err != nil {
			return err
		}
		return use(cfg, url)
	}
	if url := localpg.Running(ctx, cfg.Database.Dir); url != "" {
		return use(cfg, url)
	}
	pg, err := localpg.Start(ctx, localpg.Options{Dir: cfg.Database.Dir, Logger: newLogger(s.err, config.Log{Level: "warn", Format: "text"})})
	if err != nil {
		return noPostgres(err)
	}
	defer func() { err = errors.Join(err, pg.Stop()) }()
	return use(cfg, pg.URL())
}

// withLedger calls use with the ledger of the config's database.
func (c *commands) withLedger(ctx context.Context, s streams, use func(cfg *config.Config, l *ledger.Ledger) error) error {
	return c.withDatabase(ctx, s, func(cfg *config.Config, url string) error {
		pc, err := poolConfig(url)
		if err != nil {
			return err
		}
		pc.MaxConns = 4
		pc.ConnConfig.ConnectTimeout = 5 * time.Second
		pool, err := pgxpool.NewWithConfig(ctx, pc)
		if err != nil {
			return fmt.Errorf("open the database: %w", err)
		}
		defer pool.Close()
		if err := migrations.Up(ctx, url); err != nil {
			return err
		}
		return use(cfg, ledger.New(pool))
	})
}

// noPostgres: a private Postgres that does not start is a matter of the set-up.
func noPostgres(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return usageError{err}
}

var errNoURL = usageError{errors.New("database.url is not a Postgres URL: write postgres://user:password@host:5432/database")}

// poolConfig reads a connection string, and refuses one with which nothing could be stored: the ledger gives
// lists as parameters, and pgx has to ask Postgres for their types, whatever stands between the two.
func poolConfig(url string) (*pgxpool.Config, error) {
	pc, err := pgxpool.ParseConfig(url)
	if err != nil {
		for _, name := range []string{execMode, statementCache, descriptionCache} {
			if strings.Contains(err.Error(), "invalid "+name) || strings.Contains(err.Error(), "cannot parse "+name) {
				return nil, unfit(name, "has a value that does not exist: "+poolers)
			}
		}
		return nil, errNoURL
	}
	switch mode := pc.ConnConfig.DefaultQueryExecMode; {
	case mode == pgx.QueryExecModeSimpleProtocol || mode == pgx.QueryExecModeExec:
		return nil, unfit(execMode, "names a mode that does not ask Postgres for the types of parameters, so no event could be stored: "+poolers)
	case mode == pgx.QueryExecModeCacheStatement && pc.ConnConfig.StatementCacheCapacity <= 0:
		return nil, unfit(statementCache, "leaves no room for any statement: "+poolers)
	case mode == pgx.QueryExecModeCacheDescribe && pc.ConnConfig.DescriptionCacheCapacity <= 0:
		return nil, unfit(descriptionCache, "leaves no room for any description: leave it away, or write "+execMode+"=describe_exec")
	}
	return pc, nil
}

// Parameters of a connection string that pgx reads itself.
const (
	execMode         = "default_query_exec_mode"
	statementCache   = "statement_cache_capacity"
	descriptionCache = "description_cache_capacity"

	poolers = "leave it away, or write " + execMode + "=cache_describe, or =describe_exec, where a pooler such as PgBouncer stands before Postgres"
)

func unfit(parameter, what string) error {
	return usageError{fmt.Errorf("database.url: the parameter %s %s", parameter, what)}
}
