package main

import (
	"cmp"
	"context"
	"crypto/sha1" // of labels, as names of 40 digits
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/sandbox"
	"partnersync/mappers"
	"partnersync/sinks"
)

type sandboxCmd struct {
	Listen  string        `help:"Address to listen on." default:"127.0.0.1:8090"`
	Latency time.Duration `help:"How long each request takes." default:"0s"`
	Lag     time.Duration `help:"How far a search is behind." default:"0s"`
	Records string        `help:"A file, YAML or JSON, of records that are there from the beginning, and of what the CRMs have besides." type:"existingfile" placeholder:"FILE"`
	Bare    bool          `help:"Define nothing that the config writes: a CRM before anybody has set it up."`
}

// enter has people enter the records of a file, which is YAML or JSON.
func enter(box *sandbox.Server, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	records, problems := diag.Parse(file, text)
	if problems.Failed() {
		return problems
	}
	data, err := json.Marshal(records.Plain())
	if err != nil {
		return err
	}
	return box.Seed(data)
}

func (c sandboxCmd) Run(ctx context.Context, cli *commands, s streams) error {
	box := sandbox.New(sandbox.Options{Latency: c.Latency, Lag: c.Lag})
	r := &rehearsal{box: box, furniture: furniture{box: box, own: map[place]sandbox.Property{}}, path: cli.Config, out: s.out}
	switch {
	case c.Bare:
		r.path = "" // there is no config for it
		fmt.Fprintln(s.out, "nothing that a config writes is defined")
	case !r.read():
		fmt.Fprintf(s.out, "no config %s can be read: only what each CRM has of its own is defined; --config FILE adds what that one writes\n", cli.Config)
	}
	if c.Records != "" {
		if err := enter(box, c.Records); err != nil {
			return fmt.Errorf("--records %s: %w", c.Records, err)
		}
	}
	cli.begun.Store(true)
	l, err := listen(c.Listen, "--listen")
	if err != nil {
		return err
	}
	cfg, _ := config.Load(cli.Config, config.Options{Lenient: true})
	fmt.Fprintf(s.out, "sandbox CRM: http://%s/ lists its records; it takes any credentials. As sinks of a config, by the names that its mappings have under `to`:\n\n%s", l.Addr(), sandboxSinks(l.Addr(), cfg))
	server := &http.Server{Handler: sandboxHandler(r, c.Listen), ReadHeaderTimeout: 5 * time.Second}
	stopped := context.AfterFunc(ctx, func() {
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(deadline) // what still runs is cut off: it is a sandbox
	})
	defer stopped()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the sandbox: %w", err)
	}
	return nil
}

// sandboxHandler keeps pages of other sites away from the sandbox's own: records may be copies of real ones. What a CRM would
// answer is for programs, under whatever name they know it.
func sandboxHandler(box http.Handler, listen string) http.Handler {
	isCRM := func(r *http.Request) bool {
		head, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		return slices.Contains(sinks.Presets(), head)
	}
	return ownNames(listen, isCRM, ownPages(box))
}

// sandboxSinks is the section of a config whose sinks write to a sandbox, one for each preset; by the name that the config has
// for its sink of a preset, so that its mappings find it.
func sandboxSinks(box net.Addr, cfg *config.Config) string {
	names := map[string]string{}
	if cfg != nil {
		for _, name := range slices.Backward(sortedKeys(cfg.Sinks)) {
			names[cfg.Sinks[name].Preset] = name
		}
	}
	var text strings.Builder
	text.WriteString("sinks:\n")
	for _, preset := range sinks.Presets() {
		base := fmt.Sprintf("http://%s/%s", box, preset)
		for _, auth := range sandboxAuth {
			sink := fmt.Sprintf("{preset: %s, base_url: %q, auth: %s}", preset, base, auth)
			if auth == "" {
				sink = fmt.Sprintf("{preset: %s, url: %q}", preset, base)
			}
			one, problems := config.Parse("sandbox", fmt.Appendf(nil, "sinks: {%s: %s}", preset, sink), config.Options{Lenient: true})
			if one == nil || problems.Failed() {
				continue // it wants others
			}
			if path := one.Sinks[preset].TokenPath(); path != "" {
				sink = strings.Replace(sink, "auth: {", fmt.Sprintf("auth: {token_url: %q, ", base+path), 1)
			}
			fmt.Fprintf(&text, "  %s: %s\n", cmp.Or(names[preset], preset), sink)
			break
		}
	}
	return text.String()
}

// sandboxAuth are the credentials that presets ask for, made up, the fewest first.
var sandboxAuth = []string{
	"",
	"{token: sandbox}",
	"{client_id: sandbox, client_secret: sandbox}",
	"{client_id: sandbox, client_secret: sandbox, refresh_token: sandbox}",
	"{tenant: sandbox, client_id: sandbox, client_secret: sandbox}",
}

// rehearsal is a sandbox that knows what a config writes, also once the file has changed: what was sent stays.
type rehearsal struct {
	box  *sandbox.Server
	path string
	out  io.Writer

	mu        sync.Mutex
	furniture furniture
	stamp     string // of the file that was read last
}

func (r *rehearsal) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.read()
	r.box.ServeHTTP(w, req)
}

// read defines what the config writes if the file is another than before. It reports whether there is a config: one with
// mistakes changes nothing, and `check` tells what they are.
func (r *rehearsal) read() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(r.path)
	if err != nil {
		return false
	}
	stamp := fmt.Sprint(info.ModTime().UnixNano(), " ", info.Size())
	if stamp == r.stamp {
		return true
	}
	cfg, _ := config.Load(r.path, config.Options{Lenient: true})
	r.stamp = stamp
	if cfg == nil {
		return false
	}
	r.furniture.learn(cfg)
	fmt.Fprintf(r.out, "the properties that %s writes are defined\n", r.path)
	return true
}

// furnish defines in the sandbox what a config's mappings write.
func furnish(box *sandbox.Server, cfg *config.Config) {
	f := furniture{box: box, own: map[place]sandbox.Property{}}
	f.learn(cfg)
}

// furniture is what configs have put into a sandbox.
type furniture struct {
	box *sandbox.Server
	own map[place]sandbox.Property
}

// place is where a property stands.
type place struct{ preset, object, name string }

// learn defines what a config's mappings write, as the set-up steps of a real CRM
// would: keys are unique properties, others have the kinds of their expressions.
// What the CRM has of its own stays as it is.
func (f *furniture) learn(cfg *config.Config) {
	want := map[place]sandbox.Property{}
	var order []place
	add := func(m mappers.MappingInfo, object string, p sandbox.Property) {
		d := cfg.Sinks[m.Sink]
		if d == nil || d.Preset == "" || d.Preset == "webhook" || p.Name == "" {
			return
		}
		if label := d.FieldLabels()[object][p.Name]; label != "" { // the CRM has another name for it
			if p.Label = label; d.OwnField() != "" {
				p.Name = fmt.Sprintf("%x", sha1.Sum([]byte(object+label)))
			}
		}
		at := place{d.Preset, object, p.Name}
		before, known := want[at]
		switch {
		case !known:
			order = append(order, at)
		case before.Unique:
			return // a property that one mapping writes may be the key of another
		case before.Type != p.Type:
			p.Type = "any"
		}
		want[at] = p
	}
	all := cfg.Mappings.Mappings()
	for _, m := range all {
		add(m, m.Object, sandbox.Property{Name: m.Key, Unique: true})
		for _, l := range m.Links {
			add(m, l.To, sandbox.Property{Name: l.Key, Unique: true})
		}
	}
	for _, m := range all {
		for i, name := range m.Fields {
			add(m, m.Object, sandbox.Property{Name: name, Type: typeOf(m.Kinds[i])})
		}
	}
	sought := func(m mappers.MappingInfo, object string, names []string) {
		for _, name := range names {
			if _, written := want[place{cfg.Sinks[m.Sink].Preset, object, name}]; !written {
				add(m, object, sandbox.Property{Name: name, Type: "any"})
			}
		}
	}
	for _, m := range all {
		sought(m, m.Object, m.Match)
		for _, l := range m.Links {
			sought(m, l.To, l.Match)
		}
	}
	for _, at := range order {
		p := want[at]
		before, own := f.own[at]
		if own && (before.Type != p.Type || before.Unique != p.Unique) || !own && !f.box.Defined(at.preset, at.object, at.name) {
			f.box.Define(at.preset, at.object, p)
			f.own[at] = p
		}
	}
}

// typeOf is the sandbox's word for the kind of an expression.
func typeOf(k mappers.Kind) string {
	switch k {
	case mappers.Text, mappers.ID:
		return "string"
	case mappers.Integer, mappers.Number:
		return "number"
	case mappers.Bool:
		return "bool"
	case mappers.Time:
		return "datetime"
	}
	return "any"
}
