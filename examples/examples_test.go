package examples_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/ledger"
	"partnersync/internal/live"
	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
	"partnersync/jobs"
	"partnersync/mappers"
	"partnersync/receiver"
	"partnersync/receiver/sources"
	"partnersync/sinks"
)

var update = flag.Bool("update", false, "write the expected records")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a condition; only a broken example reaches it.
const patience = 3 * time.Minute

// records are what a CRM holds: object, key, field.
type records map[string]map[string]map[string]any

func TestExamples(t *testing.T) {
	t.Parallel()
	configs, err := filepath.Glob("*/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(configs) == 0 {
		t.Fatal("there are no examples")
	}
	for _, path := range configs {
		folder := filepath.Dir(path)
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			checkFile(t, path)
			checkReadme(t, path)
			w := start(t, path)
			w.checkLive()
			w.sendInOrder()
			got := w.held()
			file := filepath.Join(folder, "expected.json")
			if *update {
				writeJSON(t, file, got)
			}
			if diff := gocmp.Diff(readJSON(t, file), got); diff != "" {
				t.Errorf("the records of the CRM (-want +got); -update writes them:\n%s", diff)
			}
			if w.before == nil {
				return
			}
			w.checkSales()
			w.checkDoubles()
			w.checkPrivate()
			w.checkAgain()
			t.Run("shuffled", func(t *testing.T) {
				w := start(t, path)
				w.sendShuffled()
				if diff := gocmp.Diff(got, w.held()); diff != "" {
					t.Errorf("the order of the events shows in the records of the CRM (-in order +shuffled):\n%s", diff)
				}
			})
		})
	}
}

// variables stands for the environment that the README asks for.
func variables(name string) (string, bool) {
	return "example-" + strings.ToLower(name), true
}

// checkFile fails on what `partnersync check` would find, warnings included.
func checkFile(t *testing.T, path string) {
	t.Helper()
	if _, problems := config.Load(path, config.Options{Getenv: variables}); len(problems) > 0 {
		t.Fatalf("%v", problems)
	}
}

// checkReadme fails where the set-up steps leave out a field that the CRM does not
// have itself, or a variable.
func checkReadme(t *testing.T, path string) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(filepath.Dir(path), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var wanted []string
	cfg, problems := config.Load(path, config.Options{Getenv: func(name string) (string, bool) {
		wanted = append(wanted, name)
		return variables(name)
	}})
	if cfg == nil {
		t.Fatalf("%v", problems)
	}
	box := sandbox.New(sandbox.Options{})
	for _, m := range cfg.Mappings.Mappings() {
		for _, field := range append([]string{m.Key}, m.Fields...) {
			if field != "" && !box.Defined(cfg.Sinks[m.Sink].Preset, m.Object, field) {
				wanted = append(wanted, field)
			}
		}
	}
	for _, name := range wanted {
		if !bytes.Contains(readme, []byte("`"+name+"`")) {
			t.Errorf("README.md does not name %s", name)
		}
	}
}

// world is an example at work: a receiver, workers, and a CRM that sales have used before.
type world struct {
	t      *testing.T
	ctx    context.Context
	cfg    *config.Config
	box    *sandbox.Server
	book   *ledger.Ledger
	plan   *jobs.Plan
	to     string // where events go
	more   []sent // events beside the samples
	events map[uuid.UUID]string
	began  time.Time
	before map[string][]sandbox.Record // what sales had entered, by object; nil where the CRM begins empty
	names  map[[2]string]string        // of a field in the CRM, by its object and its name in the config, where that is another
}

// sent is an event to be sent.
type sent struct {
	source *sources.Source
	event  string
	body   []byte
}

func start(t *testing.T, path string) *world {
	box := sandbox.New(sandbox.Options{})
	crm := httptest.NewServer(box)
	t.Cleanup(crm.Close)
	t.Cleanup(box.Reset)
	cfg := load(t, path, crm.URL)
	furnish(box, cfg)
	w := &world{t: t, cfg: cfg, box: box, events: map[uuid.UUID]string{}, began: time.Now(), names: map[[2]string]string{}}
	w.seed(filepath.Join(filepath.Dir(path), "before.yaml"))
	w.learn(filepath.Join(filepath.Dir(path), "more.yaml"))

	pool := pgtest.Pool(t)
	w.book = ledger.New(pool)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	w.ctx = ctx
	generation, err := w.book.Generation(ctx, cfg.Hash, "test")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	workers, err := jobs.New(jobs.Options{Pool: pool, Logger: log, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	w.plan = &jobs.Plan{Generation: generation, Sources: cfg.Sources, Mappings: cfg.Mappings, Sinks: map[string]*sinks.Sink{}}
	for name, d := range cfg.Sinks {
		s := sinks.New(d, sinks.Options{Observer: workers.Observer(name)})
		t.Cleanup(s.Close)
		w.plan.Sinks[name] = s
	}
	for name, table := range cfg.Tables {
		l := table.Listing
		if l == nil {
			continue
		}
		entries, res := live.Read(ctx, w.plan.Sinks[l.Sink], l)
		if twice := table.Fill(entries); res.Class != sinks.OK || len(twice) > 0 && l.List != mappers.Fields {
			t.Fatalf("table %s: %+v %v", name, res, twice)
		}
		for field, label := range cfg.Sinks[l.Sink].FieldLabels()[l.Object] {
			for _, e := range entries {
				if l.List == mappers.Fields && e["label"] == label {
					w.names[[2]string{l.Object, field}] = e["name"]
				}
			}
		}
	}
	workers.Use(w.plan)
	in := receiver.New(receiver.Options{Ledger: w.book, Logger: log},
		receiver.Routing{Generation: generation, Sources: cfg.Sources, Sinks: cfg.Mappings.Sinks})
	hooks := httptest.NewServer(in.Handler())
	t.Cleanup(hooks.Close)
	w.to = hooks.URL

	// The receiver ends before the pool does, and the workers with it.
	running, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var parts sync.WaitGroup
	t.Cleanup(func() {
		stop()
		parts.Wait()
	})
	parts.Go(func() {
		if err := in.Run(running); err != nil {
			t.Errorf("the receiver ended with %v", err)
		}
	})
	parts.Go(func() {
		if err := workers.Run(running, 10*time.Second); err != nil {
			t.Errorf("the workers ended with %v", err)
		}
	})
	return w
}

// seed enters what sales had before.
func (w *world) seed(file string) {
	plain, ok := readYAML(w.t, file)
	if !ok {
		return
	}
	data, err := json.Marshal(plain)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.box.Seed(data); err != nil {
		w.t.Fatalf("%s: %v", file, err)
	}
	w.before = map[string][]sandbox.Record{}
	for dialect, objects := range plain.(map[string]any) {
		if dialect == "define" { // what the CRM has besides records
			continue
		}
		for object := range objects.(map[string]any) {
			w.before[object] = w.box.Records(dialect, object)
			if dialect == "salesforce" && object == "Contact" { // what README.md tells to switch on
				w.box.Refuse(sandbox.Refusal{Dialect: dialect, Object: "Lead", Property: "Email", Holder: object,
					Code: "DUPLICATES_DETECTED", Message: "Use one of these records?"})
			}
		}
	}
}

// learn reads events beside the samples.
func (w *world) learn(file string) {
	plain, ok := readYAML(w.t, file)
	if !ok {
		return
	}
	for _, one := range plain.([]any) {
		entry := one.(map[string]any)
		name, event, _ := strings.Cut(entry["event"].(string), ".")
		s := w.cfg.Sources[name]
		if s == nil || s.Events[event] == nil {
			w.t.Fatalf("%s: there is no event %q", file, entry["event"])
		}
		body, err := json.Marshal(entry["body"])
		if err != nil {
			w.t.Fatal(err)
		}
		if e := s.Open(event, body); len(e.Drift) > 0 {
			w.t.Errorf("%s: %s has what its schema does not know: %v", file, event, e.Drift)
		}
		w.more = append(w.more, sent{s, event, body})
	}
}

// all are the samples, creations first, and the events beside them.
func (w *world) all() []sent {
	var out []sent
	for _, name := range slices.Sorted(maps.Keys(w.cfg.Sources)) {
		s := w.cfg.Sources[name]
		names := s.EventNames()
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(s.Events[a].Rank, s.Events[b].Rank) })
		for _, event := range names {
			if sample := s.Events[event].Sample; sample != nil {
				out = append(out, sent{s, event, sample})
			}
		}
	}
	return append(out, w.more...)
}

// sendInOrder sends every event, and waits for the end of each where the CRM was used before. Elsewhere deals come when their
// partner is known: a link to one who is not may be skipped.
func (w *world) sendInOrder() {
	w.t.Helper()
	if w.before != nil {
		for _, one := range w.all() {
			if w.send(one); !one.waits() {
				w.wait(one.event)
			}
		}
		w.wait()
		return
	}
	for _, deals := range []bool{false, true} {
		for _, one := range w.all() {
			if strings.HasPrefix(one.event, "deal.") == deals {
				w.send(one)
			}
		}
		w.wait()
	}
	if len(w.events) == 0 {
		w.t.Fatal("the config maps none of the samples")
	}
}

// waits reports whether an event may have a link to what a later one brings.
func (s sent) waits() bool { return strings.HasPrefix(s.event, "deal.") }

// sendShuffled sends every event in another order, at once. Two things have an order: sign-ups come first, since whether they
// make a lead depends on who is a contact by then, and what has no time of its own counts by when it comes.
func (w *world) sendShuffled() {
	w.t.Helper()
	all := w.all()
	timeless := func(s sent) bool { return s.source.Open(s.event, s.body).OccurredAt.IsZero() }
	var inTurn []sent
	for _, one := range all {
		if timeless(one) {
			inTurn = append(inTurn, one)
		}
	}
	rand.New(rand.NewPCG(3, 11)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, one := range all {
		if timeless(one) {
			all[i], inTurn = inTurn[0], inTurn[1:]
		}
	}
	for _, first := range []bool{true, false} {
		for _, one := range all {
			if (one.event == "partner.signed_up") == first {
				w.send(one)
			}
		}
		if first {
			w.wait()
		}
	}
	w.wait()
}

// checkSales fails where a value is not there any more that sales had entered: only stages go forward, and only tags come on top.
func (w *world) checkSales() {
	w.t.Helper()
	rules := map[[2]string]mappers.Rule{}
	for _, m := range w.mappings() {
		for i, name := range m.Fields {
			rules[[2]string{m.Object, name}] = m.Rules[i]
		}
	}
	for object, list := range w.before {
		for _, was := range list {
			now, ok := w.box.Get(was.Dialect, object, was.ID)
			if !ok {
				w.t.Errorf("the record %s of %s is gone", was.ID, object)
			}
			for name, value := range was.Properties {
				old, is := fmt.Sprint(value), fmt.Sprint(now.Properties[name])
				rule := rules[[2]string{object, name}]
				if old == is || old == "" || rule == mappers.Forward || rule == mappers.Add && strings.HasPrefix(is, old) || w.kept(name) {
					continue
				}
				w.t.Errorf("%s %s: sales had entered %s: %q, which is %q now", object, was.ID, name, old, is)
			}
		}
	}
}

// mappings tell what is written by the names of the CRM.
func (w *world) mappings() []mappers.MappingInfo {
	list := w.cfg.Mappings.Mappings()
	for i := range list {
		m := &list[i]
		named := func(name string) string { return cmp.Or(w.names[[2]string{m.Object, name}], name) }
		m.Key, m.Fields, m.Match = named(m.Key), slices.Clone(m.Fields), slices.Clone(m.Match)
		for _, names := range [][]string{m.Fields, m.Match} {
			for j, name := range names {
				names[j] = named(name)
			}
		}
	}
	return list
}

// kept reports whether the CRM writes a property itself.
func (w *world) kept(name string) bool {
	return slices.Contains([]string{"hs_lastmodifieddate", "lastmodifieddate", "LastModifiedDate", "SystemModstamp", "update_time"}, name)
}

// telling are properties by which people tell records apart, whatever a config looks for.
var telling = map[string][]string{
	"contacts": {"email"}, "companies": {"domain", "name"}, "deals": {"dealname", "title"},
	"Contact": {"Email"}, "Account": {"Name"}, "Lead": {"Email"},
	"persons": {"email"}, "organizations": {"name"}, "leads": {"title"},
}

// checkDoubles fails where two records of an object have the same value of a property that tells them apart.
func (w *world) checkDoubles() {
	w.t.Helper()
	for _, m := range w.mappings() {
		for _, name := range slices.Concat([]string{m.Key}, m.Match, telling[m.Object]) {
			holder := map[string]string{}
			for _, r := range w.box.Records(w.cfg.Sinks[m.Sink].Preset, m.Object) {
				for _, v := range values(r, name) {
					if other, is := holder[v]; is && other != r.ID {
						w.t.Errorf("the %s %s and %s have the same %s", m.Object, other, r.ID, name)
					}
					holder[v] = r.ID
				}
			}
		}
	}
}

// values are what a record has under a property that tells it apart, as they compare. A CRM may keep addresses elsewhere.
func values(r sandbox.Record, name string) []string {
	var out []string
	add := func(v any) {
		if text := strings.ToLower(strings.TrimPrefix(strings.TrimSpace(fmt.Sprint(v)), "www.")); v != nil && text != "" && !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	add(r.Properties[name])
	if name == "email" {
		add(r.Properties["hs_additional_emails"])
		list, _ := r.Properties["emails"].([]any)
		for _, one := range list {
			if address, is := one.(map[string]any); is {
				add(address["value"])
			}
		}
	}
	return out
}

// checkPrivate fails where the CRM holds what the samples carry and nobody may have: tax ids, payments, notes of the staff.
func (w *world) checkPrivate() {
	w.t.Helper()
	data, err := json.Marshal(w.held())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, private := range []string{"TAX_ID_123", "VAT Number", "Internal Notes", "203.0.113.25", "paypal", "check_billing"} {
		if bytes.Contains(data, []byte(private)) {
			w.t.Errorf("the CRM holds %q", private)
		}
	}
}

// checkAgain sends everything a second time, then replays it, and fails where anything is written.
func (w *world) checkAgain() {
	w.t.Helper()
	before := w.everything()
	stored := len(w.events)
	for _, one := range w.all() {
		w.send(one)
	}
	if len(w.events) != stored {
		w.t.Errorf("of the events that were sent again %d were taken for new ones", len(w.events)-stored)
	}
	w.wait()
	spec := ledger.ReplaySpec{By: "test", Wants: w.cfg.Mappings.Sinks, Generation: w.plan.Generation}
	if _, routes, err := w.book.Replay(w.ctx, spec); err != nil || int(routes) != stored {
		w.t.Fatalf("the replay has opened %d routes for %d events, %v", routes, stored, err)
	}
	w.wait()
	if diff := gocmp.Diff(before, w.everything()); diff != "" {
		w.t.Errorf("a second run has changed something (-before +after):\n%s", diff)
	}
}

// everything is what the sandbox holds, down to how often each record was written.
func (w *world) everything() map[string][]sandbox.Record {
	out := map[string][]sandbox.Record{}
	for _, m := range w.mappings() {
		out[m.Object] = w.box.Records(w.cfg.Sinks[m.Sink].Preset, m.Object)
	}
	return out
}

// load reads an example with its sinks turned to the sandbox.
func load(t *testing.T, path, url string) *config.Config {
	t.Helper()
	plain, problems := config.Load(path, config.Options{Getenv: variables})
	if plain == nil {
		t.Fatalf("%v", problems)
	}
	// Where a token is fetched does not follow from base_url for every CRM.
	tokens := map[string]string{"zoho": "/oauth/v2/token", "dataverse": "/{auth.tenant}/oauth2/v2.0/token"}
	var over strings.Builder
	over.WriteString("sinks:\n")
	for name, d := range plain.Sinks {
		base := url + "/" + d.Preset
		fmt.Fprintf(&over, "  %s:\n    base_url: %s\n    limits: []\n", name, base)
		if path, ok := tokens[d.Preset]; ok {
			fmt.Fprintf(&over, "    auth: {token_url: %q}\n", base+path)
		}
	}
	cfg, problems := config.Load(path, config.Options{Getenv: variables, Over: over.String()})
	if cfg == nil {
		t.Fatalf("%v", problems)
	}
	return cfg
}

// furnish defines in the sandbox what the README tells to set up in the CRM: keys
// first, since a field of one mapping may be the key of another. Those that the config has by their labels stand in before.yaml.
func furnish(box *sandbox.Server, cfg *config.Config) {
	define := func(sink, object string, p sandbox.Property) {
		d := cfg.Sinks[sink]
		if p.Name != "" && d.FieldLabels()[object][p.Name] == "" && !box.Defined(d.Preset, object, p.Name) {
			box.Define(d.Preset, object, p)
		}
	}
	for _, m := range cfg.Mappings.Mappings() {
		define(m.Sink, m.Object, sandbox.Property{Name: m.Key, Unique: true})
		for _, l := range m.Links {
			define(m.Sink, l.To, sandbox.Property{Name: l.Key, Unique: true})
		}
	}
	for _, m := range cfg.Mappings.Mappings() {
		for i, name := range m.Fields {
			p := sandbox.Property{Name: name}
			if m.Rules[i] == mappers.Add {
				p.Multiple, p.Type, p.FieldType = true, "enumeration", "checkbox"
			}
			define(m.Sink, m.Object, p)
		}
	}
}

// send posts an event and remembers it if it is stored, to be delivered.
func (w *world) send(one sent) {
	t := w.t
	t.Helper()
	r, err := http.NewRequestWithContext(w.ctx, http.MethodPost, w.to+"/hooks/"+one.source.Name+"/"+one.event, bytes.NewReader(one.body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	one.source.Sign(r, one.body, time.Now())
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		ID     uuid.UUID
		Status string
	}
	if err := json.Unmarshal(text, &said); err != nil || res.StatusCode != http.StatusAccepted && said.Status != "duplicate" {
		t.Fatalf("%s: the receiver answered %d %s", one.event, res.StatusCode, text)
	}
	if said.Status == "stored" {
		w.events[said.ID] = one.event
	} else if w.before != nil && said.Status == "unmapped" {
		t.Errorf("the config has no use for %s", one.event)
	}
}

// wait returns when all routes of the events are closed, or of those of some types, none of
// them with something dead.
func (w *world) wait(types ...string) {
	w.t.Helper()
	var ids []uuid.UUID
	for id, event := range w.events {
		if len(types) == 0 || slices.Contains(types, event) {
			ids = append(ids, id)
		}
	}
	for {
		fates, err := w.book.Fates(w.ctx, ids)
		if err != nil {
			w.t.Fatal(err)
		}
		var open []string
		for _, f := range fates {
			if f.Outcome == ledger.Open {
				open = append(open, w.events[f.Event])
			}
			for _, d := range f.Deliveries {
				if d.Outcome == ledger.Dead {
					w.t.Errorf("%s, mapping %q: dead: %s", w.events[f.Event], d.Mapping, d.Reason)
				} else if w.before == nil && strings.Contains(d.Reason, "keeps another value") {
					w.t.Errorf("%s, mapping %q: %s", w.events[f.Event], d.Mapping, d.Reason)
				} else if f.Outcome == ledger.Open && d.Reason != "" {
					open = append(open, d.Reason)
				}
			}
			if f.Outcome == ledger.Dead {
				w.t.Errorf("%s: dead: %s", w.events[f.Event], f.Reason)
			}
		}
		if w.t.Failed() {
			w.t.FailNow()
		}
		if len(open) == 0 && len(fates) >= len(ids) {
			return
		}
		select {
		case <-w.ctx.Done():
			w.t.Fatalf("not all events came to an end: %q", open)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// held are the records of the sandbox. The CRM's own ids differ from run to run: a
// field that holds one shows the record that it names, and so does `links`, which
// stands for the associations of a CRM that keeps them apart from fields.
func (w *world) held() records {
	t, box, cfg := w.t, w.box, w.cfg
	t.Helper()
	keys := map[string][]string{} // of an object, in the order of the file
	dialects := map[string]string{}
	for _, m := range w.mappings() {
		keys[m.Object] = append(keys[m.Object], m.Key)
		dialects[m.Object] = cfg.Sinks[m.Sink].Preset
	}
	names := map[string]string{} // object/key by id
	type found struct {
		sandbox.Record
		key string
	}
	var all []found
	for object, dialect := range dialects {
		unnamed := 0
		list := box.Records(dialect, object)
		slices.SortFunc(list, func(a, b sandbox.Record) int { return strings.Compare(w.look(a), w.look(b)) })
		for _, r := range list {
			key := ""
			for _, property := range keys[object] {
				if v, ok := r.Properties[property]; ok && key == "" {
					key = text(v)
				}
			}
			if key == "" {
				unnamed++
				key = fmt.Sprint("#", unnamed) // it has no key of ours in the CRM, as notes
			}
			all = append(all, found{r, key})
			names[r.ID] = object + "/" + key
		}
	}
	out := records{}
	for _, r := range all {
		if out[r.Object] == nil {
			out[r.Object] = map[string]map[string]any{}
		}
		if out[r.Object][r.key] != nil {
			t.Errorf("there are two %s with the key %q", r.Object, r.key)
		}
		fields := map[string]any{}
		for name, v := range plain(t, r.Properties) {
			fields[name] = w.undated(named(v, names))
		}
		var links []any
		for _, l := range box.Links(r.Dialect) {
			if l.FromID == r.ID && l.FromObject == r.Object {
				links = append(links, strings.TrimSpace(names[l.ToID]+" "+l.Label))
			}
		}
		if len(links) > 0 {
			slices.SortFunc(links, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
			fields["links"] = links
		}
		out[r.Object][r.key] = fields
	}
	return out
}

// look is how a record looks, whenever it was made.
func (w *world) look(r sandbox.Record) string {
	fields := plain(w.t, r.Properties)
	for name, v := range fields {
		fields[name] = w.undated(v)
	}
	data, err := json.Marshal(fields)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(data)
}

// undated replaces a time of this run.
func (w *world) undated(v any) any {
	if text, ok := v.(string); ok {
		if at, err := time.Parse(time.RFC3339, text); err == nil && at.After(w.began.Add(-time.Second)) {
			return "(when it came)"
		}
	}
	return v
}

// text of a key; attributes with several values give the first.
func text(v any) string {
	if list, ok := v.([]any); ok && len(list) > 0 {
		v = list[0]
	}
	return fmt.Sprint(v)
}

// named replaces ids of records by their names.
func named(v any, names map[string]string) any {
	switch v := v.(type) {
	case string:
		return cmp.Or(names[v], v)
	case json.Number:
		if name, ok := names[v.String()]; ok {
			return name
		}
	case []any:
		for i := range v {
			v[i] = named(v[i], names)
		}
	case map[string]any:
		for name := range v {
			v[name] = named(v[name], names)
		}
	}
	return v
}

// plain gives values the types that they have when they are read from a file.
func plain(t *testing.T, properties map[string]any) map[string]any {
	t.Helper()
	b, err := json.Marshal(properties)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	decode(t, b, &out)
	return out
}

func decode(t *testing.T, b []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		t.Fatal(err)
	}
}

// readYAML reads a file that an example may have.
func readYAML(t *testing.T, file string) (plain any, ok bool) {
	t.Helper()
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	node, problems := diag.Parse(file, data)
	if problems.Failed() {
		t.Fatal(problems)
	}
	return node.Plain(), true
}

func readJSON(t *testing.T, file string) records {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r records
	decode(t, b, &r)
	return r
}

func writeJSON(t *testing.T, file string, r records) {
	t.Helper()
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkLive fails on what `partnersync check --live` would find: all that README.md tells to make is there.
func (w *world) checkLive() {
	w.t.Helper()
	for name, s := range w.plan.Sinks {
		if !s.Supports(sinks.Describe) {
			continue
		}
		tables := map[string]*mappers.Table{}
		for table, t := range w.cfg.Tables {
			if t.Listing != nil && t.Listing.Sink == name {
				tables[table] = t
			}
		}
		found := live.Check(w.ctx, name, s, w.cfg.Mappings.Uses(name), tables)
		if len(found.Problems) > 0 {
			w.t.Errorf("%v", found.Problems)
		}
		for _, u := range found.Unseen {
			w.t.Logf("%s: %s: %s", name, u.Object, u.Why)
		}
	}
	// Attio tells the options of each field apart.
	if n := len(w.box.Requests()); n > mostLooks && w.cfg.Sinks["crm"].Preset != "attio" {
		w.t.Errorf("%d requests to see what the CRM has", n)
	}
}

// mostLooks is how many requests a look at a CRM may take.
const mostLooks = 10
