package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"partnersync/internal/ledger"
	"partnersync/internal/localpg"
	"partnersync/migrations"
)

// database holds the tables of all forms: only one of them runs at a time, and each
// begins with empty tables.
type database struct {
	url     string
	version string // of Postgres, and where it came from
	pool    *pgxpool.Pool
	ledger  *ledger.Ledger
	pid     int // of a private Postgres, else 0

	local *localpg.Server
	dir   string // of the private Postgres
	admin string // of a given server, where the database is to be dropped
	name  string
}

// openDatabase makes a database on a private Postgres with its default settings, or on
// the server of DATABASE_URL. Its owner calls close.
func openDatabase(ctx context.Context, dir string) (_ *database, err error) {
	d := &database{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open a database: %w", err), d.close(context.WithoutCancel(ctx)))
		}
	}()
	origin := "private"
	if given := os.Getenv("DATABASE_URL"); given != "" {
		origin = "of DATABASE_URL"
		err = d.create(ctx, given)
	} else {
		d.dir = filepath.Join(dir, "postgres")
		if d.local, err = localpg.Start(ctx, localpg.Options{Dir: d.dir, Superuser: true}); err == nil {
			d.url, d.pid = d.local.URL(), d.local.PID()
		}
	}
	if err != nil {
		return nil, err
	}
	if err := d.prepare(ctx); err != nil {
		return nil, err
	}
	var version, fsync string
	if err := d.pool.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('fsync')`).Scan(&version, &fsync); err != nil {
		return nil, err
	}
	version, _, _ = strings.Cut(version, " ") // without the packager's own
	d.version = fmt.Sprintf("PostgreSQL %s (%s, fsync %s)", version, origin, fsync)
	return d, nil
}

// prepare makes the tables of all forms.
func (d *database) prepare(ctx context.Context) (err error) {
	if err := migrations.Up(ctx, d.url); err != nil {
		return err
	}
	if d.pool, err = openPool(ctx, d.url, 4); err != nil {
		return err
	}
	if _, err := d.pool.Exec(ctx, plainTable); err != nil {
		return err
	}
	d.ledger = ledger.New(d.pool)
	return nil
}

// another makes a further database on the same server. Its owner calls close, before
// that of d does.
func (d *database) another(ctx context.Context) (_ *database, err error) {
	other := &database{version: d.version, pid: d.pid}
	if err = other.create(ctx, d.url); err == nil {
		err = other.prepare(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open another database: %w", err), other.close(context.WithoutCancel(ctx)))
	}
	return other, nil
}

func (d *database) create(ctx context.Context, server string) error {
	u, err := url.Parse(server)
	if err != nil || u.Scheme == "" {
		return errors.New("DATABASE_URL is no URL: write postgres://user:password@host:5432/database")
	}
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	name := "partnersync_bench_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return err
	}
	d.admin, d.name = server, name
	u.Path = "/" + name
	d.url = u.String()
	return nil
}

// close removes what openDatabase has made.
func (d *database) close(ctx context.Context) error {
	if d.pool != nil {
		d.pool.Close()
	}
	switch {
	case d.local != nil:
		return errors.Join(d.local.Stop(), localpg.Remove(ctx, d.dir))
	case d.name != "":
		conn, err := pgx.Connect(ctx, d.admin)
		if err != nil {
			return fmt.Errorf("drop the database %s: %w", d.name, err)
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+d.name+" WITH (FORCE)"); err != nil {
			return fmt.Errorf("drop the database %s: %w", d.name, err)
		}
	}
	return nil
}

func (d *database) empty(ctx context.Context) error {
	_, err := d.pool.Exec(ctx, `TRUNCATE events, routes, tallies, tally_changes, deliveries, records, record_keys, announcements, sinks, river_job, plain_events`)
	if err != nil {
		return fmt.Errorf("empty the tables: %w", err)
	}
	return nil
}

// state is what the tables of a form tell.
type state struct {
	stored    int // events
	jobs      int
	unworked  int // jobs that are not completed
	open      int // routes
	delivered int // routes that ended as delivered; for the plain form jobs that are completed
}

func (d *database) state(ctx context.Context, form string) (s state, err error) {
	query := `SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM river_job), (SELECT count(*) FROM river_job WHERE state <> 'completed'),
		(SELECT count(*) FROM routes WHERE outcome IS NULL), (SELECT count(*) FROM routes WHERE outcome = 'delivered')`
	if form == formPlain {
		query = `SELECT (SELECT count(*) FROM plain_events), (SELECT count(*) FROM river_job), (SELECT count(*) FROM river_job WHERE state <> 'completed'),
			0, (SELECT count(*) FROM river_job WHERE state = 'completed')`
	}
	if err := d.pool.QueryRow(ctx, query).Scan(&s.stored, &s.jobs, &s.unworked, &s.open, &s.delivered); err != nil {
		return s, fmt.Errorf("count rows: %w", err)
	}
	return s, nil
}

// fill puts events and their jobs into the queue of a form, as its receiver would.
func (d *database) fill(ctx context.Context, form string, events, perJob int) error {
	const chunk = 250
	for from := 0; from < events; from += chunk {
		var err error
		if to := min(from+chunk, events); form == formPlain {
			err = d.fillPlain(ctx, from, to)
		} else {
			err = d.fillOurs(ctx, from, to, perJob)
		}
		if err != nil {
			return fmt.Errorf("fill the queue: %w", err)
		}
	}
	// As it would be in a database that is in use.
	if _, err := d.pool.Exec(ctx, `ANALYZE events, routes, river_job, plain_events`); err != nil {
		return fmt.Errorf("fill the queue: %w", err)
	}
	return nil
}

func (d *database) fillOurs(ctx context.Context, from, to, perJob int) error {
	deals := make([]deal, 0, to-from)
	for i := from; i < to; i++ {
		deals = append(deals, deal{index: i})
	}
	return d.accept(ctx, "crm", deals, perJob)
}

// deal is a deal.updated that the sender sends of the deal of that index.
type deal struct {
	index  int
	name   string // empty: that of eventBody
	amount int    // in cents; 0: that of eventBody
	later  int    // milliseconds after the time of eventBody
}

func (d deal) body() []byte {
	body := eventBody(d.index)
	if d.amount != 0 {
		body = bytes.Replace(body, []byte(`"amount":9500`), fmt.Appendf(nil, `"amount":%d`, d.amount), 1)
	}
	if d.name != "" {
		body = bytes.Replace(body, []byte("Example Trading"), []byte(d.name), 1)
	}
	return bytes.Replace(body, fmt.Appendf(nil, `"updated_at":%d`, d.sent(0)), fmt.Appendf(nil, `"updated_at":%d`, d.sent(d.later)), 1)
}

func (d deal) sent(later int) int { return firstSent + d.index + later }

// accept puts events and their jobs into the queue of a sink, as the receiver does.
func (d *database) accept(ctx context.Context, sink string, deals []deal, perJob int) error {
	incoming := make([]ledger.Incoming, 0, len(deals))
	for _, e := range deals {
		incoming = append(incoming, ledger.Incoming{
			ID: uuid.Must(uuid.NewV7()), Source: "partnerstack", Type: "deal.updated", Entity: fmt.Sprintf("deal:deal_%08d", e.index),
			OccurredAt: time.UnixMilli(int64(e.sent(e.later))), ReceivedAt: time.Now(), Status: ledger.Stored, Body: e.body(), Sinks: []string{sink},
		})
	}
	// Of a generation that every config has reached.
	accepted, err := d.ledger.Accept(ctx, incoming, 0, perJob)
	if err != nil {
		return err
	}
	for _, a := range accepted {
		if a.Duplicate {
			return errors.New("an event of the benchmark is stored already")
		}
	}
	return nil
}

// acceptAll is accept for any number of deals.
func (d *database) acceptAll(ctx context.Context, sink string, deals []deal, perJob int) error {
	for chunk := range slices.Chunk(deals, 1000) {
		if err := d.accept(ctx, sink, chunk, perJob); err != nil {
			return fmt.Errorf("fill the queue: %w", err)
		}
	}
	if _, err := d.pool.Exec(ctx, `ANALYZE events, routes, records, record_keys, river_job`); err != nil {
		return fmt.Errorf("fill the queue: %w", err)
	}
	return nil
}

func (d *database) fillPlain(ctx context.Context, from, to int) error {
	client, err := river.NewClient(riverpgxv5.New(d.pool), &river.Config{})
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		rows := make([][]any, 0, to-from)
		jobs := make([]river.InsertManyParams, 0, to-from)
		for i := from; i < to; i++ {
			id := uuid.Must(uuid.NewV7())
			rows = append(rows, []any{id, "partnerstack", "deal.updated", time.Now(), eventBody(i)})
			jobs = append(jobs, river.InsertManyParams{Args: plainArgs{EventID: id}})
		}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"plain_events"}, []string{"id", "source", "type", "received_at", "body"}, pgx.CopyFromRows(rows)); err != nil {
			return err
		}
		_, err := client.InsertManyFastTx(ctx, tx, jobs)
		return err
	})
}
