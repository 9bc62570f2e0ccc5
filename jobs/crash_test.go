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
	"net/http/httptrace"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/riverqueue/river"
	"pgregory.net/rapid"

	"partnersync/internal/config"
	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
	"partnersync/records"
	"partnersync/sinks"
)

// Every crash point: owners with their schedulers and batches work short histories against the
// sandbox and a ledger in memory, once for each boundary of a call and each thing that may go wrong
// there, to the end.

// boundary is a place where something may go wrong: before or after the effect of a call.
type boundary int

const (
	beforeRead boundary = iota
	afterRead
	beforeWrite // of the ledger
	afterWrite
	beforeSend
	afterSend
)

// mishap is what goes wrong.
type mishap int

const (
	none       mishap = iota
	crashes           // the process dies, and another takes the sink
	naps              // the process stands still for a second, while another takes the sink
	sleeps            // the process stands still for minutes, while another takes the sink
	fails             // the call fails: before its effect without one, after it with one
	lingers           // the call fails, and has its effect later
	diesAtOnce        // the process dies, and the call has its effect later
)

func (b boundary) mishaps() []mishap {
	switch b {
	case beforeWrite, beforeSend:
		return []mishap{crashes, naps, sleeps, fails, lingers, diesAtOnce}
	}
	return []mishap{crashes, naps, sleeps, fails}
}

var errAway = errors.New("it is away")

// world is one history with all that is around it.
type world struct {
	ledger *memory
	box    *sandbox.Server
	plan   atomic.Pointer[Plan]
	shared *courtroom

	mu        sync.Mutex
	passed    []boundary     // that were come to
	mishaps   map[int]mishap // by the place among them, from 1
	owner     *process       // of the sink
	processes []*process
	wrong     error // the first thing that was
	tasks     sync.WaitGroup
}

// process is one that has, or had, the sink.
type process struct {
	world *world
	owner *owner
	sink  *sinks.Sink
	ctx   context.Context
	cut   context.CancelFunc
	dead  atomic.Bool
	ended chan struct{}
}

// courtroom is what the worlds of a test have in common.
type courtroom struct {
	config  *config.Config
	metrics *metrics
	log     *slog.Logger
	box     sandbox.Options
}

// newCourtroom is one with a CRM that takes so many requests side by side. Where that is one, the
// boundaries of a history come in one order.
func newCourtroom(t *testing.T, concurrency int) *courtroom {
	mappings := strings.NewReplacer(", AS", "", "GONE", "recreate").Replace(lawful)
	return newCourtroomOf(t, concurrency, mappings, sandbox.Options{Custom: map[string][]sandbox.Property{
		"hubspot/orders": {{Name: "order_key", Unique: true}, {Name: "title"}, {Name: "description"}, {Name: "first_partner"}},
		"hubspot/firms":  {{Name: "firm_key", Unique: true}},
	}})
}

func newCourtroomOf(t *testing.T, concurrency int, mappings string, box sandbox.Options) *courtroom {
	text := senders + `
sinks:
  crm:
    preset: hubspot
    objects: {firms: []}
    base_url: http://crm.invalid/hubspot
    auth: {token: "${TOKEN}"}
    limits: []
    concurrency: ` + strconv.Itoa(concurrency) + `
    settle: 20s
    timeout: 5s
` + mappings
	cfg, problems := config.Parse("config.yaml", []byte(text), config.Options{Getenv: func(name string) (string, bool) { return token, name == "TOKEN" }})
	if problems.Failed() {
		t.Fatal(problems)
	}
	box.Token = token
	return &courtroom{cfg, newMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler), box}
}

// happens is the alphabet of the histories: two orders, of which one is linked, archived and
// wanted again. Every title says when it was given.
var happens = []event{
	shopEvent("deal.updated", "a", 1, "name", "1", "partner", "p1", "company", "x"),
	shopEvent("deal.updated", "a", 2, "name", "2", "partner", "p2", "description", "d"),
	shopEvent("deal.updated", "a", 3, "name", "3", "company", "y"),
	shopEvent("deal.created", "a", 3, "name", "0"), // of the same time, and of a lower rank
	shopEvent("deal.updated", "b", 1, "name", "1", "company", "x"),
	shopEvent("company.deleted", "a", 4),
	shopEvent("company.updated", "a", 5, "name", "5"),
}

// open is a world in which nothing has happened yet.
func (c *courtroom) open(mishaps map[int]mishap) *world {
	w := &world{ledger: newMemory(), shared: c, mishaps: mishaps, box: sandbox.New(c.box)}
	w.plan.Store(&Plan{Sources: c.config.Sources, Mappings: c.config.Mappings, Sinks: map[string]*sinks.Sink{}, hashes: map[string]string{}})
	w.begin()
	return w
}

// play plays the events, with mishaps at boundaries, and returns the boundaries that were passed.
func (c *courtroom) play(t *testing.T, which []int, together bool, mishaps map[int]mishap) (passed []boundary, err error) {
	synctest.Test(t, func(*testing.T) {
		w := c.open(mishaps)
		for i, n := range which {
			w.accept(i, happens[n])
			synctest.Wait() // they come in this order
			if !together {
				time.Sleep(100 * time.Millisecond)
			}
		}
		for range 600 {
			if time.Sleep(time.Second); len(w.ledger.open()) == 0 {
				break
			}
		}
		time.Sleep(5 * time.Minute) // whoever slept has woken up, and all that lingers has come
		w.end()
		w.judge(which)
		passed, err = w.passed, w.wrong
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, w.ledger)
		}
	})
	return passed, err
}

// fault notes that something is wrong; the first counts.
func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrong == nil {
		w.wrong = fmt.Errorf(format, args...)
	}
}

// accept stores an event as the receiver does, and queues its job.
func (w *world) accept(i int, e event) {
	body, err := json.Marshal(e.body)
	if err != nil {
		panic(err)
	}
	open := w.shared.config.Sources["shop"].Open(e.typ, body)
	r := &ledger.Route{
		Event: uuid.UUID{6: 0x70, 8: 0x80, 15: byte(i + 1)}, Source: "shop", Type: open.Type, Entity: open.Entity,
		OccurredAt: open.OccurredAt, ReceivedAt: time.Now(), Body: open.Payload,
	}
	r.Version = ledger.Version{At: open.OccurredAt.UnixMicro(), Rank: int16(open.Rank), Event: r.Event}
	w.ledger.mu.Lock()
	w.ledger.routes = append(w.ledger.routes, r)
	slices.SortFunc(w.ledger.routes, func(a, b *ledger.Route) int { return a.Version.Compare(b.Version) })
	w.ledger.mu.Unlock()
	w.mu.Lock()
	p := w.owner
	w.mu.Unlock()
	p.work(r.Event)
}

// begin has a new process take the sink, whatever becomes of the former one, and work what is open.
func (w *world) begin() {
	lease, announced := w.ledger.acquire()
	p := &process{world: w, ended: make(chan struct{})}
	p.ctx, p.cut = context.WithCancel(context.Background())
	p.sink = sinks.New(w.shared.config.Sinks["crm"], sinks.Options{Transport: p})
	plan := *w.plan.Load()
	plan.Sinks = map[string]*sinks.Sink{"crm": p.sink}
	own := &atomic.Pointer[Plan]{}
	own.Store(&plan)
	b := newBreaker("crm", w.ledger, w.shared.metrics, w.shared.log)
	b.silence = 24 * time.Hour
	p.owner = newOwner(lease, announced, gated{p}, own, b, w.shared.metrics, w.shared.log, 1000*time.Hour)
	p.owner.probed.Store(p.sink)
	w.mu.Lock()
	w.owner = p
	w.processes = append(w.processes, p)
	w.mu.Unlock()
	go func() {
		defer close(p.ended)
		p.owner.run(p.ctx)
	}()
	for _, id := range w.ledger.open() {
		p.work(id)
	}
}

// work is the job of an event in the hands of a process: it comes again until the route is closed.
func (p *process) work(id uuid.UUID) {
	p.world.tasks.Go(func() {
		for range 1000 {
			p.world.mu.Lock()
			mine := p.world.owner == p
			p.world.mu.Unlock()
			if !mine || !slices.Contains(p.world.ledger.open(), id) {
				return
			}
			wait := time.Second
			var snooze *river.JobSnoozeError
			if err := p.owner.do(p.ctx, 0, []uuid.UUID{id}); errors.As(err, &snooze) {
				wait = max(snooze.Duration, time.Millisecond)
			}
			time.Sleep(wait)
		}
	})
}

// end ends all processes.
func (w *world) end() {
	w.mu.Lock()
	w.owner = nil
	list := w.processes
	w.mu.Unlock()
	for _, p := range list {
		p.owner.drain()
		p.cut()
	}
	w.tasks.Wait()
	for _, p := range list {
		<-p.ended
		p.sink.Close()
	}
}

// pass comes to a boundary. It returns what goes wrong there; whoever slept goes on.
func (p *process) pass(b boundary) mishap {
	if p.dead.Load() {
		return crashes
	}
	w := p.world
	w.mu.Lock()
	w.passed = append(w.passed, b)
	m := w.mishaps[len(w.passed)]
	w.mu.Unlock()
	switch m {
	case crashes, diesAtOnce:
		p.dead.Store(true)
		p.cut()
		w.begin()
	case naps:
		w.begin()
		time.Sleep(time.Second)
		return none
	case sleeps:
		w.begin()
		time.Sleep(3 * time.Minute)
		return none
	}
	return m
}

// gated is the ledger as a process reaches it.
type gated struct{ *process }

func (g gated) call(before, after boundary, effect func() error) error {
	switch m := g.pass(before); m {
	case lingers, diesAtOnce:
		time.AfterFunc(3*time.Second, func() { _ = effect() }) // whatever comes of it, nobody hears
		return errAway
	case crashes, fails:
		return errAway
	}
	err := effect()
	g.world.look("a call of the ledger")
	switch g.pass(after) {
	case crashes, fails:
		return errAway
	}
	return err
}

func (g gated) Routes(ctx context.Context, sink string, events []uuid.UUID) (list []*ledger.Route, err error) {
	err = g.call(beforeRead, afterRead, func() (err error) { list, err = g.world.ledger.Routes(ctx, sink, events); return err })
	return list, err
}

func (g gated) Records(ctx context.Context, sink string, keys []records.Key) (found map[records.Key]*records.Record, err error) {
	err = g.call(beforeRead, afterRead, func() (err error) { found, err = g.world.ledger.Records(ctx, sink, keys); return err })
	return found, err
}

func (g gated) Met(ctx context.Context, sink, object string, ids []string) (found map[string]ledger.Met, err error) {
	err = g.call(beforeRead, afterRead, func() (err error) {
		found, err = g.world.ledger.Met(ctx, sink, object, ids)
		return err
	})
	return found, err
}

func (g gated) Announce(ctx context.Context, lease ledger.Lease, id uuid.UUID, keys []records.Key, hold time.Duration, intended ...*records.Record) error {
	keys = slices.Clone(keys)
	return g.call(beforeWrite, afterWrite, func() error { return g.world.ledger.Announce(ctx, lease, id, keys, hold, intended...) })
}

func (g gated) Write(ctx context.Context, lease ledger.Lease, report *ledger.Report) error {
	return g.call(beforeWrite, afterWrite, func() error { return g.world.ledger.Write(ctx, lease, report) })
}

func (g gated) Account(ctx context.Context, sink, account string) (string, error) {
	return g.world.ledger.Account(ctx, sink, account)
}

func (g gated) Imagined(ctx context.Context, sink string, identities []records.Key) (map[records.Key]*records.Record, error) {
	return g.world.ledger.Imagined(ctx, sink, identities)
}

func (g gated) Guard(ctx context.Context, sink string, more ledger.Guarded) error {
	return g.world.ledger.Guard(ctx, sink, more)
}

func (g gated) DropShadow(ctx context.Context, sink string) error {
	return g.world.ledger.DropShadow(ctx, sink)
}

func (g gated) Renumbered(ctx context.Context, generation int64) (int64, error) {
	return g.world.ledger.Renumbered(ctx, generation)
}

// RoundTrip is the way to the CRM.
func (p *process) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	effect := func() *http.Response {
		again := r.Clone(context.Background())
		again.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		if !p.world.ledger.covers() && !strings.HasSuffix(r.URL.Path, "/batch/read") && !strings.HasSuffix(r.URL.Path, "/search") { // which changes nothing
			p.world.fault("%s %s has its effect when nothing is announced any more", r.Method, r.URL.Path)
		}
		p.world.box.ServeHTTP(rec, again)
		p.world.look(fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, body))
		return rec.Result()
	}
	// The CRM may take that long for what it was sent.
	const late = 5*time.Second + 20*time.Second - time.Millisecond
	m := p.pass(beforeSend)
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.WroteHeaders != nil && m != fails {
		trace.WroteHeaders() // else it surely had no effect
	}
	switch m {
	case lingers:
		time.AfterFunc(late, func() { effect() })
		<-r.Context().Done()
		return nil, r.Context().Err()
	case diesAtOnce:
		time.AfterFunc(late, func() { effect() })
		return nil, errAway
	case crashes, fails:
		return nil, errAway
	}
	if err := r.Context().Err(); err != nil {
		return nil, err // it has slept too long
	}
	answer := effect()
	switch p.pass(afterSend) {
	case crashes, fails:
		return nil, errAway
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return answer, nil
}

// look compares what the ledger takes for acknowledged with what the CRM has: at no moment may
// the one be wrong about the other.
func (w *world) look(after string) {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	byID := map[string]map[string]any{}
	for _, r := range w.box.Records("hubspot", "orders") {
		byID[r.ID] = r.Properties
	}
	for _, r := range w.ledger.records {
		f := r.Fields["title"]
		if r.Object != "orders" || f == nil || r.Presence != records.Present || f.AckedAt.IsZero() {
			continue
		}
		if got := byID[r.CRMID]["title"]; got != f.Acked.Go {
			w.fault("after %s the CRM holds %v of %s, and the ledger thinks %v", after, got, r.Key, f.Acked.Go)
		}
	}
}

// judge compares what the CRM holds in the end with what the events ask for.
func (w *world) judge(which []int) {
	if open := w.ledger.open(); len(open) > 0 {
		w.fault("routes stay open for ever: %v", open)
		return
	}
	if w.ledger.twice {
		w.fault("a route is closed twice")
	}
	got, keys, firms := map[string]*holding{}, map[string]string{}, map[string]string{}
	for _, r := range w.box.Records("hubspot", "orders") {
		key := fmt.Sprint(r.Properties["order_key"])
		if got[key] != nil {
			w.fault("there are two orders %s", key)
		}
		keys[r.ID], got[key] = key, &holding{Fields: map[string]any{}}
		for _, name := range []string{"title", "description", "first_partner"} {
			if v, has := r.Properties[name]; has {
				got[key].Fields[name] = v
			}
		}
	}
	for _, r := range w.box.Records("hubspot", "firms") {
		key := fmt.Sprint(r.Properties["firm_key"])
		for _, other := range firms {
			if other == key {
				w.fault("there are two firms %s", key)
			}
		}
		firms[r.ID] = key
	}
	for _, l := range w.box.Links("hubspot") {
		from, to := l.FromID, l.ToID
		if l.FromObject == "firms" {
			from, to = to, from
		}
		if at := got[keys[from]]; at != nil && !slices.Contains(at.Firms, firms[to]) {
			at.Firms = append(at.Firms, firms[to])
		}
	}
	if diff := cmp.Diff(w.wanted(which), got); diff != "" {
		w.fault("the CRM differs from what is wanted (-want +got):\n%s", diff)
	}
}

// wanted is what the newest events say.
func (w *world) wanted(which []int) map[string]*holding {
	byKey := map[string][]happening{}
	gone, live, linked := map[string]ledger.Version{}, map[string]ledger.Version{}, map[string]ledger.Version{}
	firm := map[string]string{}
	for i, n := range which {
		e := happens[n]
		key := fmt.Sprint(e.body["key"])
		v := ledger.Version{At: int64(e.body["at"].(int64)), Event: uuid.UUID{6: 0x70, 8: 0x80, 15: byte(i + 1)}}
		switch e.typ {
		case "company.deleted":
			if before(gone[key], v) {
				gone[key] = v
			}
			continue
		case "deal.updated", "company.updated":
			v.Rank = 1
		}
		if before(live[key], v) {
			live[key] = v
		}
		h := happening{set: map[string]any{"title": e.body["name"]}, first: map[string]any{}, version: v}
		if d, has := e.body["description"]; has {
			h.set["description"] = d
		}
		if p, has := e.body["partner"]; has {
			h.first["first_partner"] = p
		}
		byKey[key] = append(byKey[key], h)
		if c, has := e.body["company"]; has && before(linked[key], v) {
			linked[key], firm[key] = v, fmt.Sprint(c)
		}
	}
	want := map[string]*holding{}
	for key, list := range byKey {
		if at, is := gone[key]; is && before(live[key], at) {
			continue
		}
		want[key] = &holding{Fields: oracle(list)}
		if firm[key] != "" {
			want[key].Firms = []string{firm[key]}
		}
	}
	return want
}

// lawsFor is how long the laws are to be played; 0 is as short as the suite wants it.
func lawsFor(t *testing.T) time.Duration {
	text := os.Getenv("PARTNERSYNC_LAWS")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// selections are all lists of up to n different numbers below most, the shorter first.
func selections(most, n int) [][]int {
	lists := [][]int{{}}
	for from := 0; n > 0; n-- {
		for _, l := range lists[from:] {
			from++
			for i := range most {
				if !slices.Contains(l, i) {
					lists = append(lists, append(slices.Clone(l), i))
				}
			}
		}
	}
	return lists[1:]
}

// TestEveryCrashPoint plays short histories, each once for every boundary and everything that may
// go wrong there. The suite plays all of two updates of one order, and one in thirteen of the others
// of up to two events; `make laws` plays all of them, and then those of up to four for as long as it
// is told.
func TestEveryCrashPoint(t *testing.T) {
	t.Parallel()
	c := newCourtroom(t, 1)
	until := time.Now().Add(lawsFor(t))
	longest, every := 2, 13 // a prime, so that all kinds of mishap and boundary have their turn
	if lawsFor(t) > 0 {
		longest, every = 4, 1
	}
	n, played := 0, 0
	for _, which := range selections(len(happens), longest) {
		for _, together := range []bool{true, false} {
			if lawsFor(t) > 0 && len(which) > 2 && time.Now().After(until) {
				t.Logf("%d histories, none of them longer than %v", played, which)
				return
			}
			passed, err := c.play(t, which, together, nil)
			if err != nil {
				t.Fatalf("%v, together %v: %v", which, together, err)
			}
			for i, b := range passed {
				for _, m := range b.mishaps() {
					if n++; n%every != 0 && !slices.Equal(which, []int{0, 1}) {
						continue
					}
					played++
					if _, err := c.play(t, which, together, map[int]mishap{i + 1: m}); err != nil {
						t.Fatalf("%v, together %v, mishap %d at %d (boundary %d of %v): %v", which, together, m, i+1, b, passed, err)
					}
				}
			}
		}
	}
	t.Logf("%d histories", played)
}

// What is in doubt stays shut for the next owner, too: each request of a short history in turn gets no
// answer and has its effect late, and the process dies at any time after that.
func TestDoubtOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	c := newCourtroom(t, 1)
	n := 0
	for _, which := range [][]int{{0, 1}, {0, 5}} {
		passed, err := c.play(t, which, false, nil)
		if err != nil {
			t.Fatalf("%v: %v", which, err)
		}
		for i, b := range passed {
			if b != beforeSend {
				continue
			}
			later, err := c.play(t, which, false, map[int]mishap{i + 1: lingers})
			if err != nil {
				t.Fatalf("%v, no answer at %d: %v", which, i+1, err)
			}
			for j := i + 1; j < len(later); j++ {
				n++
				if _, err := c.play(t, which, false, map[int]mishap{i + 1: lingers, j + 1: crashes}); err != nil {
					t.Fatalf("%v, no answer at %d, and the process dies at %d (boundary %d): %v", which, i+1, j+1, later[j], err)
				}
			}
		}
	}
	t.Logf("%d histories", n)
}

// A batch that has to wait for its turn with the CRM for longer than it has announced sends nothing
// until it has announced once more.
func TestWhatWaitsIsAnnouncedAgain(t *testing.T) {
	t.Parallel()
	c := newCourtroom(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w := c.open(nil)
		turn := w.owner.owner.slots.of(w.owner.sink)
		turn <- struct{}{} // somebody else's
		w.accept(0, happens[4])
		time.Sleep(time.Minute)
		<-turn
		time.Sleep(time.Minute)
		w.end()
		if w.judge([]int{4}); w.wrong != nil {
			t.Error(w.wrong)
		}
	})
}

// TestCrashesAtRandom plays longer histories, each with two mishaps somewhere.
func TestCrashesAtRandom(t *testing.T) {
	t.Parallel()
	c := newCourtroom(t, 4)
	until := time.Now().Add(lawsFor(t))
	for more := true; more; more = time.Now().Before(until) {
		rapid.Check(t, func(rt *rapid.T) {
			which := rapid.SliceOfN(rapid.IntRange(0, len(happens)-1), 2, 6).Draw(rt, "events")
			mishaps := map[int]mishap{}
			for range 2 {
				mishaps[rapid.IntRange(1, 60).Draw(rt, "at")] = mishap(rapid.IntRange(int(crashes), int(diesAtOnce)).Draw(rt, "mishap"))
			}
			if _, err := c.play(t, which, rapid.Bool().Draw(rt, "together"), mishaps); err != nil {
				rt.Fatal(err)
			}
		})
	}
}
