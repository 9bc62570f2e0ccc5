package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// plain is what one writes with River in an afternoon, well set up: a transaction per
// event that stores it with its job, and a worker that reads the event and posts it. It
// promises less than partnersync: no duplicates, no order, no account of outcomes.
type plain struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
	crm    string
	http   *http.Client
}

// plainTable holds its events, with no index but the key.
const plainTable = `CREATE TABLE plain_events (
	id uuid PRIMARY KEY, source text NOT NULL, type text NOT NULL, received_at timestamptz NOT NULL, body bytea NOT NULL)`

// As many jobs at a time as worked best here, fetched as quickly as partnersync does;
// River's own default, 100 ms, would hold it to 1,000 jobs a second.
const (
	plainWorkers  = 100
	plainCooldown = 5 * time.Millisecond
	plainPool     = 10 // as partnersync's
)

type plainArgs struct {
	EventID uuid.UUID `json:"event_id"`
}

func (plainArgs) Kind() string { return "plain_deliver" }

func playPlain(ctx context.Context) error {
	halves := os.Getenv(halvesVariable)
	pool, err := openPool(ctx, os.Getenv(databaseVariable), plainPool)
	if err != nil {
		return err
	}
	defer pool.Close()
	p := &plain{pool: pool, crm: os.Getenv(crmVariable), http: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: plainWorkers}, Timeout: 30 * time.Second,
	}}
	defer p.http.CloseIdleConnections()
	config := &river.Config{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	works := strings.Contains(halves, "work")
	if works {
		config.Workers = river.NewWorkers()
		river.AddWorker(config.Workers, &plainWorker{plain: p})
		config.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: plainWorkers}}
		config.FetchCooldown, config.FetchPollInterval = plainCooldown, time.Second
	}
	if p.client, err = river.NewClient(riverpgxv5.New(pool), config); err != nil {
		return err
	}
	if works {
		if err := p.client.Start(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		defer func() {
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
			defer cancel()
			_ = p.client.Stop(stop) // the jobs left are River's to take up again
		}()
	}
	if !strings.Contains(halves, "receive") {
		announce("")
		<-ctx.Done()
		return nil
	}
	return serve(ctx, http.HandlerFunc(p.receive))
}

func openPool(ctx context.Context, url string, size int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the URL of the database cannot be read")
	}
	config.MaxConns = size
	return pgxpool.NewWithConfig(ctx, config)
}

func (p *plain) receive(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+token {
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "no body", http.StatusBadRequest)
		return
	}
	id, err := p.store(r.Context(), body)
	if err != nil {
		http.Error(w, "not stored", http.StatusServiceUnavailable)
		return
	}
	accept(w, id.String())
}

func (p *plain) store(ctx context.Context, body []byte) (uuid.UUID, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return id, err
	}
	return id, pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO plain_events (id, source, type, received_at, body) VALUES ($1, $2, $3, $4, $5)`,
			id, "partnerstack", "deal.updated", time.Now(), body)
		if err != nil {
			return err
		}
		_, err = p.client.InsertTx(ctx, tx, plainArgs{EventID: id}, nil)
		return err
	})
}

// plainWorker posts one event per job.
type plainWorker struct {
	river.WorkerDefaults[plainArgs]
	plain *plain
}

func (w *plainWorker) Work(ctx context.Context, job *river.Job[plainArgs]) error {
	var body []byte
	if err := w.plain.pool.QueryRow(ctx, `SELECT body FROM plain_events WHERE id = $1`, job.Args.EventID).Scan(&body); err != nil {
		return err
	}
	var deal struct {
		Name    string `json:"account_name"`
		Amount  int64  `json:"amount"`
		Closes  int64  `json:"close_date"`
		Key     string `json:"key"`
		Partner string `json:"partner_key"`
		Stage   string `json:"stage"`
	}
	if err := json.Unmarshal(body, &deal); err != nil {
		return err
	}
	stages := map[string]string{"Working": "qualifiedtobuy", "Closed Won": "closedwon"}
	content, err := json.Marshal(map[string]any{"properties": map[string]string{
		"partnerstack_deal_key": deal.Key, "dealname": deal.Name, "amount": strconv.FormatFloat(float64(deal.Amount)/100, 'f', 2, 64),
		"closedate": time.UnixMilli(deal.Closes).UTC().Format(time.DateOnly), "dealstage": stages[deal.Stage], "first_partner": deal.Partner,
	}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.plain.crm+"/one", bytes.NewReader(content))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := w.plain.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		ID string `json:"id"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	if resp.StatusCode != http.StatusCreated || answer.ID == "" {
		return fmt.Errorf("the CRM answered %d", resp.StatusCode)
	}
	return nil
}
