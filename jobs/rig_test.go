package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
	"partnersync/sinks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a condition; only a broken test reaches it.
const patience = 30 * time.Second

// senders are the sources of the tests: a shop, invented.
const senders = `
sources:
  shop:
    verify: none
    events:
      deal.created: &deal
        schema: {key: id, at: time s, name: text, amount: integer, stage: text, partner: id, company: id, contacts: list of text, description: text, note: text}
        entity: {deal: event.key}
        occurred_at: event.at
      deal.updated: {<<: *deal, rank: 1}
      company.created: &company
        schema: {key: id, at: time s, name: text, stage: text, tags: list of text}
        entity: {company: event.key}
        occurred_at: event.at
      company.updated: {<<: *company, rank: 1}
      company.deleted: {<<: *company, rank: 2}
`

// deals is the mapping that most tests use: deals of the shop are orders, a custom object.
const deals = `
mappings:
  - name: deals
    on: [shop.deal.created, shop.deal.updated]
    to: crm
    object: orders
    key: {order_key: event.key}
    set:
      title: event.name
      amount: event.amount
      tier: event.stage
      description: event.description
    set_first: {first_partner: event.partner}
    touch: {last_synced: hook.occurred_at}
    clear: description
`

// rig is workers with all that is around them: Postgres, CRM, config.
type rig struct {
	t        testing.TB
	pool     *pgxpool.Pool
	ledger   *ledger.Ledger
	box      *sandbox.Server
	crm      *httptest.Server
	token    string
	options  Options
	text     string // of the config
	config   *config.Config
	plan     *Plan
	registry *prometheus.Registry
	workers  *Workers
	stop     func() // stops the workers and waits for them
	log      *lockedLog
	grace    time.Duration
}

// setup is what a test wants otherwise than usual.
type setup struct {
	mappings string // deals
	preset   string // of the sink crm: hubspot
	sinks    string // further keys of the sink crm, or further sinks
	options  Options
	idle     bool // the test starts the workers itself
	box      sandbox.Options
}

const token = "a-token-of-the-tests"

func newRig(t testing.TB, s setup) *rig {
	t.Helper()
	s.box.Token = token
	custom := s.box.Custom
	s.box.Custom = map[string][]sandbox.Property{
		"hubspot/orders": {
			{Name: "order_key", Unique: true}, {Name: "title"}, {Name: "amount", Type: "number"}, {Name: "description"},
			{Name: "first_partner"}, {Name: "last_synced"}, {Name: "tier", Type: "enumeration", Options: []string{"gold", "silver"}},
		},
		"hubspot/firms":     {{Name: "firm_key", Unique: true}, {Name: "name"}},
		"hubspot/companies": {{Name: "company_key", Unique: true}},
		"hubspot/contacts":  {{Name: "contact_key", Unique: true}},
	}
	maps.Copy(s.box.Custom, custom)
	r := &rig{t: t, pool: pgtest.Pool(t), box: sandbox.New(s.box), token: token, options: s.options, log: &lockedLog{}, grace: 10 * time.Second}
	r.ledger = ledger.New(r.pool)
	r.crm = httptest.NewServer(r.box)
	t.Cleanup(r.crm.Close)
	t.Cleanup(r.box.Reset) // ends what a fault still holds back
	if s.mappings == "" {
		s.mappings = deals
	}
	s.sinks = strings.ReplaceAll(s.sinks, "URL", r.crm.URL)
	auth := `{token: "${TOKEN}"}`
	switch s.preset {
	case "":
		s.preset = "hubspot"
	case "salesforce":
		auth = `{client_id: id, client_secret: "${TOKEN}"}`
	}
	r.text = senders + `
sinks:
  crm:
    preset: ` + s.preset + `
    base_url: ` + r.crm.URL + `/` + s.preset + `
    auth: ` + auth + `
    limits: []
    settle: 300ms
    timeout: 5s
    objects: {firms: [], orders: [], companies: [], contacts: []}
` + s.sinks + s.mappings
	r.options.Pool = r.pool
	r.options.Logger = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.load(r.text)
	if !s.idle {
		r.start()
	}
	t.Cleanup(func() {
		if t.Failed() {
			log := r.log.String()
			t.Log(log[max(len(log)-4000, 0):])
		}
	})
	return r
}

// load compiles a config and makes the plan of its next generation.
func (r *rig) load(text string) {
	r.t.Helper()
	cfg, problems := config.Parse("config.yaml", []byte(text), config.Options{Getenv: func(name string) (string, bool) {
		return r.token, name == "TOKEN"
	}})
	if problems.Failed() {
		r.t.Fatalf("the config of the test is wrong:\n%v", problems)
	}
	generation, err := r.ledger.Generation(r.context(), uuid.NewString(), "test")
	if err != nil {
		r.t.Fatal(err)
	}
	r.config = cfg
	r.plan = &Plan{Generation: generation, Sources: cfg.Sources, Mappings: cfg.Mappings, Sinks: map[string]*sinks.Sink{}}
}

// open makes the sinks of the plan; they need the workers' observer.
func (r *rig) open() {
	for name, d := range r.config.Sinks {
		s := sinks.New(d, sinks.Options{Observer: r.workers.Observer(name)})
		r.t.Cleanup(s.Close)
		r.plan.Sinks[name] = s
	}
}

// start starts new workers, as a new process would.
func (r *rig) start() {
	r.t.Helper()
	r.registry = prometheus.NewRegistry()
	r.options.Registerer = r.registry
	r.registry.MustRegister(NewCollector(r.ledger, func() []string { return slices.Sorted(maps.Keys(r.plan.Sinks)) }, func() []string { return r.config.SinkNames() }))
	var err error
	if r.workers, err = New(r.options); err != nil {
		r.t.Fatal(err)
	}
	r.open()
	ctx, cancel := context.WithCancel(context.Background())
	r.workers.Use(r.plan)
	done := make(chan error, 1)
	go func() { done <- r.workers.Run(ctx, r.grace) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("the workers ended with %v", err)
		}
	})
	r.t.Cleanup(r.stop)
}

// reload puts another config in force.
func (r *rig) reload(text string) {
	r.t.Helper()
	r.load(text)
	r.open()
	r.workers.Use(r.plan)
}

func (r *rig) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.t.Cleanup(cancel)
	return ctx
}

// event is one request of the shop.
type event struct {
	typ  string
	body map[string]any
}

// deal is an update of a deal: key, second of its time, and further fields.
func deal(key string, at int64, fields ...any) event {
	return shopEvent("deal.updated", key, at, fields...)
}

func shopEvent(typ, key string, at int64, fields ...any) event {
	body := map[string]any{"key": key, "at": 1_700_000_000 + at}
	for i := 0; i+1 < len(fields); i += 2 {
		body[fields[i].(string)] = fields[i+1]
	}
	return event{typ, body}
}

// accept stores events as the receiver does, all in one transaction.
func (r *rig) accept(events ...event) []uuid.UUID {
	r.t.Helper()
	return r.acceptPerJob(1, events...)
}

func (r *rig) acceptPerJob(perJob int, events ...event) []uuid.UUID {
	r.t.Helper()
	source := r.config.Sources["shop"]
	incoming := make([]ledger.Incoming, len(events))
	for i, e := range events {
		body, err := json.Marshal(e.body)
		if err != nil {
			r.t.Fatal(err)
		}
		open := source.Open(e.typ, body)
		if !open.Known || open.Malformed != nil {
			r.t.Fatalf("%s %s: not what the shop sends: %+v", e.typ, body, open)
		}
		incoming[i] = ledger.Incoming{
			ID: uuid.Must(uuid.NewV7()), Source: "shop", Type: open.Type, Entity: open.Entity, OccurredAt: open.OccurredAt,
			Rank: int16(open.Rank), ReceivedAt: time.Now(), Status: ledger.Stored, Body: open.Payload,
			Sinks: r.config.Mappings.Sinks("shop", open.Type),
		}
	}
	accepted, err := r.ledger.Accept(r.context(), incoming, r.plan.Generation, perJob)
	if err != nil {
		r.t.Fatal(err)
	}
	ids := make([]uuid.UUID, len(accepted))
	for i, a := range accepted {
		if a.Duplicate {
			r.t.Fatalf("event %d of the test is a duplicate", i)
		}
		ids[i] = a.ID
	}
	return ids
}

// until waits for a condition.
func (r *rig) until(what string, holds func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-deadline:
			r.t.Fatalf("waited in vain: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// fates returns what has become of the routes of events so far.
func (r *rig) fates(ids ...uuid.UUID) map[uuid.UUID]*ledger.Fate {
	r.t.Helper()
	list, err := r.ledger.Fates(r.context(), ids)
	if err != nil {
		r.t.Fatal(err)
	}
	fates := map[uuid.UUID]*ledger.Fate{}
	for _, f := range list {
		fates[f.Event] = f
	}
	return fates
}

// ended waits until all routes of events are closed.
func (r *rig) ended(ids ...uuid.UUID) map[uuid.UUID]*ledger.Fate {
	r.t.Helper()
	var fates map[uuid.UUID]*ledger.Fate
	r.until("all routes are closed", func() bool {
		var open int
		err := r.pool.QueryRow(r.context(), `SELECT count(*) FROM routes WHERE event_id = ANY($1) AND outcome IS NULL`, ids).Scan(&open)
		if err != nil {
			r.t.Fatal(err)
		}
		return open == 0
	})
	fates = r.fates(ids...)
	return fates
}

// deliver accepts events one after the other, each when the one before has ended,
// and returns their fates in order.
func (r *rig) deliver(events ...event) []*ledger.Fate {
	r.t.Helper()
	var out []*ledger.Fate
	for _, e := range events {
		id := r.accept(e)[0]
		out = append(out, r.ended(id)[id])
	}
	return out
}

// outcomes of the events in order.
func outcomes(fates map[uuid.UUID]*ledger.Fate, ids []uuid.UUID) []ledger.Outcome {
	out := make([]ledger.Outcome, len(ids))
	for i, id := range ids {
		out[i] = fates[id].Outcome
	}
	return out
}

// records are the properties of the CRM's records of an object, by key.
func (r *rig) records(object, key string) map[string]map[string]any {
	out := map[string]map[string]any{}
	for _, rec := range r.box.Records("hubspot", object) {
		out[fmt.Sprint(rec.Properties[key])] = rec.Properties
	}
	return out
}

// writes are the CRM's requests whose path holds the given text.
func (r *rig) writes(path string) []sandbox.Request {
	var out []sandbox.Request
	for _, q := range r.box.Requests() {
		if q.Method != http.MethodGet && strings.Contains(q.Path, path) {
			out = append(out, q)
		}
	}
	return out
}

// attempts are the attempts that River has counted for the jobs of events, and
// how often those jobs have failed.
func (r *rig) attempts(ids ...uuid.UUID) (attempts, failures int) {
	r.t.Helper()
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	err := r.pool.QueryRow(r.context(), `
		SELECT coalesce(max(attempt), 0), coalesce(max(coalesce(array_length(errors, 1), 0)), 0) FROM river_job
		WHERE args->'event_ids' ?| $1::text[]`, texts).Scan(&attempts, &failures)
	if err != nil {
		r.t.Fatal(err)
	}
	return attempts, failures
}

// stored is the state of a sink in the database.
func (r *rig) stored(sink string) ledger.SinkState {
	r.t.Helper()
	s, err := r.ledger.SinkState(r.context(), sink)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// metric is the value of a series, given as name{label="value"}.
func (r *rig) metric(name string, labels ...string) float64 {
	r.t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "partnersync_"+name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for i := 0; i+1 < len(labels); i += 2 {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !found {
					continue series
				}
			}
			if m.GetGauge() != nil {
				return m.GetGauge().GetValue()
			}
			return m.GetCounter().GetValue()
		}
	}
	r.t.Fatalf("there is no series %s%v", name, labels)
	return 0
}

// counted waits until a counter has come to want, which may be after what it counts is stored, and
// fails where it has gone beyond.
func (r *rig) counted(want float64, name string, labels ...string) {
	r.t.Helper()
	r.until(fmt.Sprintf("%s%v is at least %v", name, labels, want), func() bool { return r.metric(name, labels...) >= want })
	if got := r.metric(name, labels...); got != want {
		r.t.Errorf("%s%v is %v, want %v", name, labels, got, want)
	}
}

// lockedLog keeps what is logged for a test that fails.
type lockedLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// count counts rows: of a table, with a WHERE if need be.
func (r *rig) count(from string) int {
	r.t.Helper()
	var n int
	if err := r.pool.QueryRow(r.context(), "SELECT count(*) FROM "+from).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// lost is a request that the CRM carries out and whose answer is lost.
func lost() sandbox.Fault {
	return sandbox.Fault{Method: http.MethodPost, Effect: sandbox.EffectReset, Apply: true, Count: 1}
}

// queueAgain inserts a job for events, as a crash before its completion leaves one.
func (r *rig) queueAgain(events ...string) {
	r.t.Helper()
	ids, err := json.Marshal(events)
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = r.pool.Exec(r.context(), `
		INSERT INTO river_job (args, kind, max_attempts, priority, queue, state)
		VALUES (jsonb_build_object('event_ids', $1::jsonb, 'sink', 'crm'), $2, 100, 1, 'sink_crm', 'available')`, string(ids), ledger.JobKind)
	if err != nil {
		r.t.Fatal(err)
	}
}

// oneJob replaces all jobs by one for events.
func (r *rig) oneJob(events ...string) {
	r.t.Helper()
	if _, err := r.pool.Exec(r.context(), `DELETE FROM river_job`); err != nil {
		r.t.Fatal(err)
	}
	r.queueAgain(events...)
}
