package examples_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
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
	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
	"partnersync/jobs"
	"partnersync/receiver"
	"partnersync/receiver/sources"
	"partnersync/sinks"
)

var update = flag.Bool("update", false, "write the expected records")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a condition; only a broken example reaches it.
const patience = 60 * time.Second

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
			got := run(t, path)
			file := filepath.Join(folder, "expected.json")
			if *update {
				writeJSON(t, file, got)
			}
			if diff := gocmp.Diff(readJSON(t, file), got); diff != "" {
				t.Errorf("the records of the CRM (-want +got); -update writes them:\n%s", diff)
			}
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

// run sends every sample event through the receiver and the workers to a sandbox,
// and returns what the sandbox then holds.
func run(t *testing.T, path string) records {
	box := sandbox.New(sandbox.Options{})
	crm := httptest.NewServer(box)
	t.Cleanup(crm.Close)
	t.Cleanup(box.Reset)
	cfg := load(t, path, crm.URL)
	furnish(box, cfg)

	pool := pgtest.Pool(t)
	book := ledger.New(pool)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	generation, err := book.Generation(ctx, cfg.Hash, "test")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	workers, err := jobs.New(jobs.Options{Pool: pool, Logger: log, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	plan := &jobs.Plan{Generation: generation, Sources: cfg.Sources, Mappings: cfg.Mappings, Sinks: map[string]*sinks.Sink{}}
	for name, d := range cfg.Sinks {
		s := sinks.New(d, sinks.Options{Observer: workers.Observer(name)})
		t.Cleanup(s.Close)
		plan.Sinks[name] = s
	}
	workers.Use(plan)
	in := receiver.New(receiver.Options{Ledger: book, Logger: log},
		receiver.Routing{Generation: generation, Sources: cfg.Sources, Sinks: cfg.Mappings.Sinks})
	hooks := httptest.NewServer(in.Handler())
	defer hooks.Close()

	// The receiver ends before the pool does, and the workers with it.
	running, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
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

	// Deals come when their partner is known: a link to one who is not may be skipped.
	isDeal := func(event string) bool { return strings.HasPrefix(event, "deal.") }
	events := sendAll(ctx, t, cfg, hooks.URL, func(event string) bool { return !isDeal(event) })
	wait(ctx, t, book, events)
	maps.Copy(events, sendAll(ctx, t, cfg, hooks.URL, isDeal))
	wait(ctx, t, book, events)
	if len(events) == 0 {
		t.Fatal("the config maps none of the samples")
	}
	return held(t, box, cfg)
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
// first, since a field of one mapping may be the key of another.
func furnish(box *sandbox.Server, cfg *config.Config) {
	define := func(dialect, object string, p sandbox.Property) {
		if p.Name != "" && !box.Defined(dialect, object, p.Name) {
			box.Define(dialect, object, p)
		}
	}
	for _, m := range cfg.Mappings.Mappings() {
		dialect := cfg.Sinks[m.Sink].Preset
		define(dialect, m.Object, sandbox.Property{Name: m.Key, Unique: true})
		for _, l := range m.Links {
			define(dialect, l.To, sandbox.Property{Name: l.Key, Unique: true})
		}
	}
	for _, m := range cfg.Mappings.Mappings() {
		for _, name := range m.Fields {
			define(cfg.Sinks[m.Sink].Preset, m.Object, sandbox.Property{Name: name})
		}
	}
}

// sendAll posts every sample, creations first, and returns the ids of those stored.
func sendAll(ctx context.Context, t *testing.T, cfg *config.Config, to string, which func(event string) bool) map[uuid.UUID]string {
	t.Helper()
	stored := map[uuid.UUID]string{}
	for _, s := range cfg.Sources {
		names := s.EventNames()
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(s.Events[a].Rank, s.Events[b].Rank) })
		for _, name := range names {
			if sample := s.Events[name].Sample; sample != nil && which(name) {
				if id, ok := send(ctx, t, s, name, sample, to); ok {
					stored[id] = name
				}
			}
		}
	}
	return stored
}

func send(ctx context.Context, t *testing.T, s *sources.Source, event string, body []byte, to string) (id uuid.UUID, stored bool) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to+"/hooks/"+s.Name+"/"+event, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	s.Sign(r, body, time.Now())
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
	if err := json.Unmarshal(text, &said); err != nil || res.StatusCode != http.StatusAccepted {
		t.Fatalf("%s: the receiver answered %d %s", event, res.StatusCode, text)
	}
	return said.ID, said.Status == "stored"
}

// wait returns when all routes of the events are closed, none of them with
// something dead.
func wait(ctx context.Context, t *testing.T, book *ledger.Ledger, events map[uuid.UUID]string) {
	t.Helper()
	ids := slices.Collect(maps.Keys(events))
	for {
		fates, err := book.Fates(ctx, ids)
		if err != nil {
			t.Fatal(err)
		}
		var open []string
		for _, f := range fates {
			if f.Outcome == ledger.Open {
				open = append(open, events[f.Event])
			}
			for _, d := range f.Deliveries {
				if d.Outcome == ledger.Dead {
					t.Errorf("%s, mapping %q: dead: %s", events[f.Event], d.Mapping, d.Reason)
				} else if strings.Contains(d.Reason, "keeps another value") {
					t.Errorf("%s, mapping %q: %s", events[f.Event], d.Mapping, d.Reason)
				} else if f.Outcome == ledger.Open && d.Reason != "" {
					open = append(open, d.Reason)
				}
			}
			if f.Outcome == ledger.Dead {
				t.Errorf("%s: dead: %s", events[f.Event], f.Reason)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
		if len(open) == 0 && len(fates) >= len(events) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not all events came to an end: %q", open)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// held are the records of the sandbox. The CRM's own ids differ from run to run: a
// field that holds one shows the record that it names, and so does `links`, which
// stands for the associations of a CRM that keeps them apart from fields.
func held(t *testing.T, box *sandbox.Server, cfg *config.Config) records {
	t.Helper()
	keys := map[string][]string{} // of an object, in the order of the file
	dialects := map[string]string{}
	for _, m := range cfg.Mappings.Mappings() {
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
		for _, r := range box.Records(dialect, object) {
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
			fields[name] = named(v, names)
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
