package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/sinks"
)

// minimal is a worker of the same jobs without convergence: it loads the same events with
// the same query, shapes and maps them with the same code, sends them with the same
// engine in batches as large and as many at a time, and closes their routes. It keeps no
// records and no deliveries, announces nothing, orders nothing, and sends every value
// whether the CRM has it or not.
type minimal struct {
	ledger *ledger.Ledger
	config *config.Config
	sink   *sinks.Sink
	own    ledger.Lease
	inbox  chan *minimalItem
}

type minimalItem struct {
	events []uuid.UUID
	done   chan error // takes one value
}

// minimalArgs are those of partnersync's jobs.
type minimalArgs struct {
	EventIDs []uuid.UUID `json:"event_ids"`
}

func (minimalArgs) Kind() string { return ledger.JobKind }

func playMinimal(ctx context.Context) error {
	cfg, problems := config.Load(os.Getenv(configVariable), config.Options{})
	if cfg == nil {
		return problems
	}
	pc, err := pgxpool.ParseConfig(cfg.Database.URL.Reveal())
	if err != nil {
		return errors.New("the URL of the database cannot be read")
	}
	pc.MaxConns, pc.AfterConnect = int32(cfg.Database.MaxConnections), ledger.AfterConnect
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return err
	}
	defer pool.Close()
	m := &minimal{ledger: ledger.New(pool), config: cfg, sink: sinks.New(cfg.Sinks["crm"], sinks.Options{}), inbox: make(chan *minimalItem)}
	defer m.sink.Close()
	m.own = ledger.Lease{Sink: "crm", Epoch: 1}
	if _, err := pool.Exec(ctx, `INSERT INTO sinks (name, epoch) VALUES ($1, $2)`, m.own.Sink, m.own.Epoch); err != nil {
		return err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &minimalWorker{minimal: m})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		// As partnersync's.
		Queues:  map[string]river.QueueConfig{ledger.Queue("crm"): {MaxWorkers: 400}},
		Workers: workers, FetchCooldown: 5 * time.Millisecond, FetchPollInterval: time.Second,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	announce("")
	m.gather(ctx)
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	_ = client.Stop(stop) // the jobs left are River's to take up again
	return nil
}

// minimalWorker hands a job to whoever makes the next batch.
type minimalWorker struct {
	river.WorkerDefaults[minimalArgs]
	minimal *minimal
}

func (w *minimalWorker) Work(ctx context.Context, job *river.Job[minimalArgs]) error {
	it := &minimalItem{events: job.Args.EventIDs, done: make(chan error, 1)}
	select {
	case w.minimal.inbox <- it:
		return <-it.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// gather makes batches as the owner of a sink does: at once when none is under way,
// beside others when it is full or has waited long enough.
func (m *minimal) gather(ctx context.Context) {
	full := m.sink.MaxRows(sinks.Upsert)
	ended := make(chan struct{})
	var pending []*minimalItem
	var oldest time.Time
	var due <-chan time.Time
	running := 0
	for {
		select {
		case it := <-m.inbox:
			if len(pending) == 0 {
				oldest = time.Now()
			}
			pending = append(pending, it)
		case <-ended:
			running--
		case <-due:
		case <-ctx.Done():
			for ; running > 0; running-- {
				<-ended
			}
			for _, it := range pending {
				it.done <- ctx.Err()
			}
			return
		}
		for due = nil; len(pending) > 0 && running < m.sink.Concurrency(); {
			if rest := m.sink.BatchWait() - time.Since(oldest); running > 0 && len(pending) < full && rest > 0 {
				due = time.After(rest)
				break
			}
			batch := pending[:min(full, len(pending))]
			pending = pending[len(batch):]
			running++
			go func() {
				m.work(context.WithoutCancel(ctx), batch)
				ended <- struct{}{}
			}()
		}
	}
}

// work delivers a batch.
func (m *minimal) work(ctx context.Context, batch []*minimalItem) {
	var events []uuid.UUID
	for _, it := range batch {
		events = append(events, it.events...)
	}
	err := m.deliver(ctx, events)
	for _, it := range batch {
		it.done <- err
	}
}

func (m *minimal) deliver(ctx context.Context, events []uuid.UUID) error {
	routes, err := m.ledger.Routes(ctx, m.own.Sink, events)
	if err != nil {
		return err
	}
	var rows []sinks.Row
	report := &ledger.Report{}
	for _, r := range routes {
		body, _, err := m.config.Sources[r.Source].Shape(r.Type, r.Body)
		if err != nil {
			return err
		}
		outcomes := m.config.Mappings.Run(m.own.Sink, &mappers.Event{
			ID: r.Event.String(), Source: r.Source, Type: r.Type, Entity: r.Entity, OccurredAt: r.OccurredAt, ReceivedAt: r.ReceivedAt, Body: body,
		})
		for _, o := range outcomes {
			for _, c := range o.Changes {
				row := sinks.Row{Trace: r.Event.String(), Object: c.Object, Property: c.Key.Property, Key: c.Key.Value, Values: make(map[string]any, len(c.Fields))}
				for _, f := range c.Fields {
					row.Values[f.Name] = f.Value
				}
				rows = append(rows, row)
			}
		}
		report.Closings = append(report.Closings, ledger.Closing{Event: r.Event, Run: r.Run, Outcome: ledger.Delivered})
	}
	for _, res := range m.sink.Write(ctx, sinks.Upsert, rows) {
		if res.Class != sinks.OK {
			return fmt.Errorf("the CRM answered %s: %s", res.Class, res.Message)
		}
	}
	return m.ledger.Write(ctx, m.own, report)
}
