package jobs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
	"partnersync/sinks"
)

// court is what histories are played in: the real ledger on a real Postgres, the sandbox, and
// owners whose batches are taken apart. Time is the history's: what settles does so when it says.
type court struct {
	*rig
	kind
	sink   *sinks.Sink
	broken *ledger.Ledger // that can store nothing
	serial atomic.Int64

	mu      sync.Mutex
	answers []answer
	later   []*http.Request
}

// HubSpot makes links with requests of their own, and a new one stands beside the former;
// to Salesforce they are fields, which go along with the rows.
var courts = []kind{{"hubspot", false}, {"hubspot", true}, {"salesforce", true}}

// kind is a CRM, and what is to become of what is gone from it.
type kind struct {
	preset   string
	recreate bool
}

func (k kind) String() string {
	if k.recreate {
		return k.preset + " recreate"
	}
	return k.preset
}

func newCourt(t *testing.T, k kind) *court {
	as := map[string]string{"hubspot": "", "salesforce": ", as: firm__c"}[k.preset]
	gone := map[bool]string{false: "skip", true: "recreate"}[k.recreate]
	c := &court{kind: k, rig: newRig(t, setup{
		mappings: strings.NewReplacer(", AS", as, "GONE", gone).Replace(lawful), idle: true, preset: k.preset,
		box: sandbox.Options{Custom: map[string][]sandbox.Property{
			"salesforce/orders": {
				{Name: "order_key", Unique: true}, {Name: "title"}, {Name: "description"}, {Name: "first_partner"},
				{Name: "firm__c", Type: "lookup", Target: "firms"},
			},
			"salesforce/firms": {{Name: "firm_key", Unique: true}},
		}},
	})}
	front := httptest.NewServer(c)
	t.Cleanup(front.Close)
	text := strings.NewReplacer(c.crm.URL, front.URL, "settle: 300ms", "settle: 1h", "timeout: 5s", "timeout: 1m").Replace(c.text)
	c.load(text)
	c.sink = sinks.New(c.config.Sinks["crm"], sinks.Options{})
	t.Cleanup(c.sink.Close)
	c.plan.Sinks["crm"] = c.sink
	c.plan.hashes = map[string]string{}
	pool, err := pgxpool.NewWithConfig(t.Context(), c.pool.Config())
	if err != nil {
		t.Fatal(err)
	}
	pool.Close()
	c.broken = ledger.New(pool)
	return c
}

// ServeHTTP is the CRM, in the mood that the history asks for.
func (c *court) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	carryOut := func() *httptest.ResponseRecorder {
		again := r.Clone(context.Background())
		again.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		c.box.ServeHTTP(rec, again)
		return rec
	}
	how := fine
	if r.Method != http.MethodGet && !strings.HasSuffix(r.URL.Path, "/token") {
		c.mu.Lock()
		if len(c.answers) > 0 {
			how, c.answers = c.answers[0], c.answers[1:]
		}
		if how == delayed || how == twice {
			again := r.Clone(context.Background())
			again.Body = io.NopCloser(bytes.NewReader(body))
			c.later = append(c.later, again)
		}
		c.mu.Unlock()
	}
	switch how {
	case broken:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case unheard, twice:
		carryOut()
		panic(http.ErrAbortHandler)
	case cutOff, delayed:
		panic(http.ErrAbortHandler)
	}
	rec := carryOut()
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// listen sets the mood of the CRM.
func (c *court) listen(answers []answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = answers
}

// catchUp carries out what the CRM has put off.
func (c *court) catchUp() {
	c.mu.Lock()
	later := c.later
	c.later = nil
	c.mu.Unlock()
	for _, r := range later {
		c.box.ServeHTTP(httptest.NewRecorder(), r)
	}
}

// history is one run of the court: its events, and the process that owns the sink at the moment.
type history struct {
	court   *court
	prefix  string // of its keys, which no other history has
	events  []event
	ids     []uuid.UUID // that were accepted
	session *ledger.Leaser
	owner   *owner
	plan    atomic.Pointer[Plan]
	frozen  []*batch
}

// play carries out a history and compares what the CRM holds in the end.
func (c *court) play(events []event, acts []act) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h := &history{court: c, prefix: fmt.Sprintf("h%d-", c.serial.Add(1))}
	h.plan.Store(c.plan)
	for _, e := range events {
		body := map[string]any{}
		for name, value := range e.body {
			body[name] = value
		}
		body["key"] = h.prefix + fmt.Sprint(body["key"])
		if firm, ok := body["company"]; ok {
			body["company"] = h.prefix + fmt.Sprint(firm)
		}
		h.events = append(h.events, event{e.typ, body})
	}
	defer func() {
		c.listen(nil)
		c.catchUp()
		if h.session != nil {
			err = errors.Join(err, h.session.Close(ctx))
		}
	}()
	for i, a := range acts {
		if err := h.act(ctx, a); err != nil {
			return fmt.Errorf("act %d: %w", i, err)
		}
	}
	// In the end everything comes back, every event arrives, and time passes.
	if err := h.act(ctx, act{Do: accept, Events: upTo(len(events))}); err != nil {
		return err
	}
	for range 20 {
		open, err := h.open(ctx)
		if err != nil {
			return err
		}
		if len(open) == 0 {
			return h.judge(ctx)
		}
		for _, a := range []act{{Do: timePasses}, {Do: workOff, Events: upTo(len(open))}} {
			if err := h.act(ctx, a); err != nil {
				return err
			}
		}
	}
	return errors.New("routes stay open for ever")
}

func upTo(n int) []int {
	var list []int
	for i := range n {
		list = append(list, i)
	}
	return list
}

func (h *history) act(ctx context.Context, a act) error {
	switch a.Do {
	case accept:
		return h.accept(ctx, a.Events)
	case timePasses:
		return h.timePasses(ctx)
	case handOver:
		return h.take(ctx)
	case wake:
		for _, b := range h.frozen {
			if err := b.commit(ctx); err == nil && b.intent != uuid.Nil {
				return errors.New("a frozen owner may still record, though another has the sink")
			}
		}
		h.frozen = nil
		return nil
	}
	open, err := h.open(ctx)
	if err != nil || len(open) == 0 {
		return err
	}
	if h.owner == nil {
		if err := h.take(ctx); err != nil {
			return err
		}
	}
	var list []uuid.UUID
	for _, i := range a.Events {
		list = append(list, open[len(open)-1-i%len(open)])
	}
	if len(list) == 0 {
		return nil
	}
	h.court.listen(a.Answers)
	defer h.court.listen(nil)
	return h.batch(ctx, a.Do, newBatch(h.owner, h.court.plan, h.court.sink, jobsOf(list...)))
}

// batch lets a batch go as far as it is to come.
func (h *history) batch(ctx context.Context, do deed, b *batch) error {
	o := h.owner
	if do == workOff {
		b.run(ctx)
		o.locks.release(b)
		return nil
	}
	if err := b.load(ctx); err != nil || do == dieLoaded {
		return h.dies(err)
	}
	if b.mapEvents(); do == dieApplied {
		return h.dies(nil)
	}
	if err := b.fold(ctx); err != nil || do == dieFolded {
		return h.dies(err)
	}
	if do == dieSent { // after the first round
		_, err := b.round(ctx)
		return h.dies(err)
	}
	if err := b.loop(ctx); err != nil {
		return h.dies(err)
	}
	switch do {
	case freeze:
		h.frozen = append(h.frozen, b)
		return h.take(ctx)
	case unrecorded:
		o.ledger = h.court.broken
		if err := b.commit(ctx); err != nil { // none where there was nothing to record
			b.putBack(ctx, err)
		}
		o.ledger = h.court.ledger
		o.locks.release(b)
		return nil
	}
	return h.dies(nil)
}

// dies ends the process without its knowing.
func (h *history) dies(err error) error {
	h.owner = nil
	err = errors.Join(err, h.session.Close(context.Background()))
	h.session = nil
	return err
}

// take lets a new process take the sink, whatever becomes of the former one.
func (h *history) take(ctx context.Context) error {
	if h.session != nil {
		if err := h.session.Close(ctx); err != nil {
			return err
		}
	}
	session, err := h.court.ledger.Leaser(ctx, uuid.NewString())
	if err != nil {
		return err
	}
	h.session = session
	for {
		lease, announced, err := session.Acquire(ctx, "crm")
		if err != nil {
			return err
		}
		if lease == nil {
			continue // Postgres has not noticed yet that the former session is closed
		}
		metrics := newMetrics(prometheus.NewRegistry())
		log := slog.New(slog.DiscardHandler)
		h.owner = newOwner(*lease, announced, h.court.ledger, &h.plan, newBreaker("crm", h.court.ledger, metrics, log), metrics, log, time.Hour)
		return nil
	}
}

func (h *history) timePasses(ctx context.Context) error {
	h.court.catchUp()
	if h.owner != nil {
		h.owner.locks.mu.Lock()
		clear(h.owner.locks.blocked)
		h.owner.locks.mu.Unlock()
	}
	_, err := h.court.pool.Exec(ctx, `UPDATE announcements SET until = now()`)
	return err
}

// open are the events with open routes, in the order of their arrival.
func (h *history) open(ctx context.Context) ([]uuid.UUID, error) {
	rows, err := h.court.pool.Query(ctx, `SELECT event_id FROM routes WHERE event_id = ANY($1) AND outcome IS NULL ORDER BY event_id`, h.ids)
	if err != nil {
		return nil, err
	}
	var ids []uuid.UUID
	for rows.Next() {
		var id uuid.UUID
		if err := rows.Scan((*[16]byte)(&id)); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// accept stores events as the receiver does.
func (h *history) accept(ctx context.Context, which []int) error {
	source := h.court.config.Sources["shop"]
	for _, i := range which {
		e := h.events[i%len(h.events)]
		body, err := json.Marshal(e.body)
		if err != nil {
			return err
		}
		open := source.Open(e.typ, body)
		if !open.Known || open.Malformed != nil {
			return fmt.Errorf("%s %s: not what the shop sends", e.typ, body)
		}
		accepted, err := h.court.ledger.Accept(ctx, []ledger.Incoming{{
			ID: uuid.Must(uuid.NewV7()), Source: "shop", Type: open.Type, Entity: open.Entity, OccurredAt: open.OccurredAt,
			Rank: int16(open.Rank), ReceivedAt: time.Now(), Status: ledger.Stored, Body: open.Payload,
			Sinks: h.court.config.Mappings.Sinks("shop", open.Type),
		}}, h.court.plan.Generation, 1)
		if err != nil {
			return err
		}
		if !accepted[0].Duplicate {
			h.ids = append(h.ids, accepted[0].ID)
		}
	}
	return nil
}

// holding is what the CRM holds of one order.
type holding struct {
	Fields map[string]any
	Firms  []string
}

// judge compares the CRM with what the accepted events ask for.
func (h *history) judge(ctx context.Context) error {
	want, err := h.wanted(ctx)
	if err != nil {
		return err
	}
	got := map[string]*holding{}
	keys := map[string]string{}
	for _, rec := range h.court.box.Records(h.court.preset, "orders") {
		key := fmt.Sprint(rec.Properties["order_key"])
		if !strings.HasPrefix(key, h.prefix) {
			continue
		}
		if got[key] != nil {
			return fmt.Errorf("two records of %s", key)
		}
		keys[rec.ID] = key
		got[key] = &holding{Fields: map[string]any{}}
		for _, name := range []string{"title", "description", "first_partner"} {
			if v, has := rec.Properties[name]; has {
				got[key].Fields[name] = v
			}
		}
	}
	firms := map[string]string{}
	for _, rec := range h.court.box.Records(h.court.preset, "firms") {
		firms[rec.ID] = fmt.Sprint(rec.Properties["firm_key"])
	}
	for _, rec := range h.court.box.Records(h.court.preset, "orders") {
		if id := rec.Properties["firm__c"]; id != nil && got[keys[rec.ID]] != nil {
			got[keys[rec.ID]].Firms = []string{firms[fmt.Sprint(id)]}
		}
	}
	for _, l := range h.court.box.Links(h.court.preset) {
		from, to := l.FromID, l.ToID
		if l.FromObject == "firms" {
			from, to = to, from
		}
		if at := got[keys[from]]; at != nil && !slices.Contains(at.Firms, firms[to]) {
			at.Firms = append(at.Firms, firms[to])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("the CRM differs from what is wanted (-want +got):\n%s", diff)
	}
	return nil
}

// wanted is the oracle: what the newest event says, or for the partner the oldest.
func (h *history) wanted(ctx context.Context) (map[string]*holding, error) {
	rows, err := h.court.pool.Query(ctx, `SELECT id, type, version_at, rank, body FROM events WHERE id = ANY($1)`, h.ids)
	if err != nil {
		return nil, err
	}
	byKey := map[string][]happening{}
	newest, wanted, gone := map[string]ledger.Version{}, map[string]ledger.Version{}, map[string]ledger.Version{}
	firm := map[string]string{}
	for rows.Next() {
		var v ledger.Version
		var at time.Time
		var typ string
		var body []byte
		if err := rows.Scan((*[16]byte)(&v.Event), &typ, &at, &v.Rank, &body); err != nil {
			return nil, err
		}
		v.At = at.UnixMicro()
		var b struct{ Key, Name, Description, Partner, Company string }
		if err := json.Unmarshal(body, &b); err != nil {
			return nil, err
		}
		if typ == "company.deleted" {
			if before(gone[b.Key], v) {
				gone[b.Key] = v
			}
			continue
		}
		if before(wanted[b.Key], v) {
			wanted[b.Key] = v
		}
		e := happening{set: map[string]any{}, first: map[string]any{}, version: v}
		if b.Name != "" {
			e.set["title"] = b.Name
		}
		if b.Description != "" && typ != "company.updated" {
			e.set["description"] = b.Description
		}
		if b.Partner != "" && typ != "company.updated" {
			e.first["first_partner"] = b.Partner
		}
		byKey[b.Key] = append(byKey[b.Key], e)
		if b.Company != "" && before(newest[b.Key], v) {
			newest[b.Key], firm[b.Key] = v, b.Company
		}
	}
	want := map[string]*holding{}
	for key, events := range byKey {
		if at, is := gone[key]; is && (!h.court.recreate || before(wanted[key], at)) {
			continue
		}
		want[key] = &holding{Fields: oracle(events)}
		if firm[key] != "" {
			want[key].Firms = []string{firm[key]}
		}
	}
	return want, rows.Err()
}
