package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"partnersync/internal/diag"
	"partnersync/internal/secret"
	"partnersync/mappers"
	"partnersync/receiver/sources"
	"partnersync/sinks"
)

// Config is a config file, compiled.
type Config struct {
	Path      string
	Hash      string // of the file and what was laid over it
	Database  Database
	Receiver  Receiver
	Admin     Admin
	Jobs      Jobs
	Retention Retention
	Log       Log
	Tracing   Tracing
	Sources   map[string]*sources.Source
	Sinks     map[string]*sinks.Description
	Tables    map[string]*mappers.Table
	Mappings  *mappers.Mapper
}

// Database says where Postgres is.
type Database struct {
	URL            secret.String `yaml:"url"`             // empty: a private Postgres
	Dir            string        `yaml:"dir"`             // of the private Postgres
	MaxConnections int           `yaml:"max_connections"` // of this process; 10
	TokenKey       secret.String `yaml:"token_key"`       // seals the tokens of sinks in the database; empty: they are not kept
}

// Receiver configures the public listener.
type Receiver struct {
	Listen   string `yaml:"listen"`
	Flushers int    `yaml:"flushers"`  // transactions under way at a time; 1
	MaxBytes int64  `yaml:"max_bytes"` // of bodies that wait for their commit; 64 MiB
	Spool    string `yaml:"spool"`     // directory for events while Postgres is away; empty: senders are told to come again
	SpoolMax Size   `yaml:"spool_max"` // of the spool on disk; 1 GiB

	MaxConnections int       `yaml:"max_connections"` // of senders, open at a time; 4096
	Proxies        []Network `yaml:"proxies,single"`  // whose X-Forwarded-For is believed
}

// Admin configures the private listener.
type Admin struct {
	Listen string        `yaml:"listen"`
	Token  secret.String `yaml:"token"` // asked for as bearer or basic password, if set; not by /livez and /readyz; "none": none, off loopback too
}

// Jobs configures the workers.
type Jobs struct {
	EventsPerJob int           `yaml:"events_per_job"` // 1
	MaxWorkers   int           `yaml:"max_workers"`    // jobs at hand per sink; 0: as many as fill its requests, at least 400
	GiveUp       time.Duration `yaml:"give_up"`        // from the first failure of a delivery that counts; 72h
	Grace        time.Duration `yaml:"grace"`          // of a graceful stop; 25s
}

// Retention says for how long what is stored is kept. What is open and what records of
// CRMs should be is never removed, nor are the counts of the ledger.
type Retention struct {
	Events time.Duration `yaml:"events"` // from their receipt, with their routes and deliveries, also dead ones; 0 is for ever; 400d
}

// Log configures the log.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn or error
	Format string `yaml:"format"` // text or json; empty: text on a terminal
}

type file struct {
	Database  Database             `yaml:"database"`
	Receiver  Receiver             `yaml:"receiver"`
	Admin     Admin                `yaml:"admin"`
	Jobs      Jobs                 `yaml:"jobs"`
	Retention Retention            `yaml:"retention"`
	Log       Log                  `yaml:"log"`
	Tracing   Tracing              `yaml:"tracing"`
	Sources   map[string]diag.Node `yaml:"sources"`
	Sinks     map[string]diag.Node `yaml:"sinks"`
	Tables    diag.Node            `yaml:"tables"`
	Mappings  diag.Node            `yaml:"mappings"`
}

// Unset stands for a secret that is not there, where the config was read all the same.
const Unset = "unset"

// Options say how to read a config.
type Options struct {
	// Getenv resolves ${NAME}; nil means os.LookupEnv.
	Getenv func(name string) (string, bool)
	// Lenient turns an unset variable into a warning: whoever checks a config
	// need not have its secrets.
	Lenient bool
	// Spare names a section, sources or sinks, whose variables need not be set: the process does not use them.
	Spare string
	// Over is YAML laid over the file, key by key.
	Over string
}

// Load reads and compiles a file. The Config is nil when a problem is an error.
func Load(path string, o Options) (*Config, diag.Problems) {
	data, err := os.ReadFile(path)
	if err != nil {
		var problems diag.Problems
		hint := ""
		if errors.Is(err, os.ErrNotExist) {
			hint = "name the file with --config, or begin with a copy of config.example.yaml"
		}
		var reason *os.PathError
		if errors.As(err, &reason) {
			err = reason.Err
		}
		problems.Add(diag.Problem{Pos: diag.Pos{File: path}, Message: "the config cannot be read: " + err.Error(), Hint: hint})
		return nil, problems
	}
	return Parse(path, data, o)
}

// Parse compiles the text of a config; path names it in problems and is where
// ${file:...} is relative to.
func Parse(path string, data []byte, o Options) (*Config, diag.Problems) {
	root, problems := diag.Parse(path, data)
	if problems.Failed() {
		newHider(data, root).hide(path, problems)
		return nil, problems
	}
	over, overProblems := diag.Parse("overlay", []byte(o.Over))
	if problems = append(problems, overProblems...); problems.Failed() {
		return nil, problems
	}
	root = diag.Overlay(root, over)
	hidden := newHider(data, root)
	d := &diag.Decoding{Meant: meant, Expand: o.expand(filepath.Dir(path), hidden.add)}
	if !root.Exists() {
		problems.Add(diag.Problem{Pos: diag.Pos{File: path}, Message: "the config is empty", Hint: "begin with a copy of config.example.yaml"})
		return nil, problems
	}
	c := compile(root, d, o.sparing(d, filepath.Dir(path), hidden.add))
	d.Problems.Sort()
	hidden.hide(path, d.Problems)
	if d.Problems.Failed() {
		return nil, d.Problems
	}
	sum := sha256.Sum256(append(append([]byte{}, data...), o.Over...))
	c.Path, c.Hash = path, hex.EncodeToString(sum[:8])
	return c, d.Problems
}

// sparing returns a function that runs load, which reads a section, without asking for variables where it is spared.
func (o Options) sparing(d *diag.Decoding, dir string, learn func(string)) func(section string, load func()) {
	return func(section string, load func()) {
		if section != o.Spare {
			load()
			return
		}
		strict, before := d.Expand, len(d.Problems)
		o.Lenient = true
		d.Expand = o.expand(dir, learn)
		load()
		d.Expand = strict
		d.ForgetStandIns(before)
	}
}

// meant are words of other programs, and near misses that are none of the pen.
var meant = map[string]string{
	"set_once": "set_first", "set_initial": "set_first", "set_default": "set_if_empty", "set_new": "set_on_create",
	"if": "when", "filter": "when", "trigger": "on", "sink": "to", "target": "to", "fields": "set", "properties": "set", "values": "set",
}

func compile(root diag.Node, d *diag.Decoding, sparing func(section string, load func())) *Config {
	f := file{
		Database:  Database{Dir: ".partnersync", MaxConnections: 10},
		Receiver:  Receiver{Listen: ":8080", Flushers: 1, MaxBytes: 64 << 20, SpoolMax: 1 << 30, MaxConnections: 4096},
		Admin:     Admin{Listen: "127.0.0.1:8081"},
		Jobs:      Jobs{EventsPerJob: 1, GiveUp: 72 * time.Hour, Grace: 25 * time.Second},
		Retention: Retention{Events: 400 * day},
		Log:       Log{Level: "info"},
		Tracing:   Tracing{Sample: 1, Service: "partnersync"},
	}
	d.Decode(root, &f)
	f.check(root, d)
	c := &Config{
		Database: f.Database, Receiver: f.Receiver, Admin: f.Admin, Jobs: f.Jobs, Retention: f.Retention, Log: f.Log, Tracing: f.Tracing,
		Sources: map[string]*sources.Source{}, Sinks: map[string]*sinks.Description{}, Tables: map[string]*mappers.Table{},
	}
	catalog := &mappers.Catalog{Sources: map[string]*mappers.SourceInfo{}, Sinks: map[string]*mappers.SinkInfo{}, Tables: c.Tables}
	sparing("sources", func() {
		for _, name := range named(root.Get("sources"), "source", d) {
			if s := sources.Load(name, f.Sources[name], d); s != nil {
				c.Sources[name] = s
				catalog.Sources[name] = sourceInfo(s)
			}
		}
		checkTokens(root.Get("sources"), d)
	})
	sparing("sinks", func() {
		for _, name := range named(root.Get("sinks"), "sink", d) {
			if s := sinks.Load(name, f.Sinks[name], d); s != nil {
				c.Sinks[name] = s
				catalog.Sinks[name] = sinkInfo(s)
			}
		}
	})
	checkFormerly(root.Get("sinks"), d)
	d.Decode(f.Tables, &c.Tables)
	catalog.Tables = c.Tables
	c.checkListings(d)
	c.alias(catalog)
	switch f.Mappings.Kind() {
	case diag.None, diag.List:
	default:
		d.Errorf(f.Mappings, "begin each mapping with a dash: `- name: ...`", "expected a list of mappings, found %s", f.Mappings.Kind())
	}
	c.Mappings = mappers.CompileAll(f.Mappings.Items(), catalog, d)
	constants := slices.Clone(c.Mappings.Constants())
	for _, t := range c.Tables {
		constants = append(constants, t.Constants()...)
	}
	for _, s := range c.Sinks {
		s.Show(constants)
	}
	return c
}

const (
	day        = 24 * time.Hour
	leastToken = 16 // bytes: what is shorter can be tried out, or was chosen by a person
)

// check looks at the settings that are plain values.
func (f *file) check(root diag.Node, d *diag.Decoding) {
	positive := func(section, key string, ok bool, want string) {
		if n := root.Get(section).Get(key); n.Exists() && !ok {
			d.Errorf(n, want, "%s.%s is out of range", section, key)
		}
	}
	positive("database", "max_connections", f.Database.MaxConnections >= 4 && f.Database.MaxConnections <= 500, "from 4 to 500")
	positive("receiver", "flushers", f.Receiver.Flushers >= 1 && f.Receiver.Flushers <= 64, "from 1 to 64; 1 or 2 are best on two cores")
	positive("receiver", "max_bytes", f.Receiver.MaxBytes >= 1<<20, "at least 1048576")
	positive("receiver", "spool_max", f.Receiver.SpoolMax >= 16<<20, "at least 16MiB")
	positive("receiver", "max_connections", f.Receiver.MaxConnections >= 16 && f.Receiver.MaxConnections <= 1<<20, "from 16 to 1048576")
	if n := root.Get("receiver").Get("spool_max"); n.Exists() && f.Receiver.Spool == "" {
		d.Errorf(n, "name a directory: `spool: .partnersync/spool`", "receiver.spool_max does nothing without receiver.spool")
	}
	positive("jobs", "events_per_job", f.Jobs.EventsPerJob >= 1 && f.Jobs.EventsPerJob <= 1000, "from 1 to 1000")
	positive("jobs", "max_workers", f.Jobs.MaxWorkers >= 0 && f.Jobs.MaxWorkers <= 10000, "from 1 to 10000, or 0: as many as fill the requests of a sink")
	positive("jobs", "grace", f.Jobs.Grace >= time.Second, "at least 1s")
	positive("retention", "events", f.Retention.Events == 0 || f.Retention.Events >= 7*day, "at least 7d, since a sender may repeat an event for days; or 0, which keeps all")
	switch n := root.Get("admin").Get("listen"); {
	case f.Admin.Token.Reveal() == "none":
		f.Admin.Token = secret.String{}
	case n.Exists() && f.Admin.Token.Empty() && !loopback(f.Admin.Listen):
		d.Errorf(n, "set admin.token (`openssl rand -hex 32` makes one), or listen on 127.0.0.1, or write `token: none` to take what anybody sends",
			"the admin listener is open to whoever can reach it")
	}
	long(root.Get("admin").Get("token"), d)
	oneOf := func(key, value string, allowed ...string) {
		if n := root.Get("log").Get(key); n.Exists() && !slices.Contains(allowed, value) {
			d.Errorf(n, diag.OneOf(value, allowed), "log.%s cannot be %q", key, value)
		}
	}
	oneOf("level", f.Log.Level, "debug", "info", "warn", "error")
	oneOf("format", f.Log.Format, "text", "json")
	f.Tracing.check(root.Get("tracing"), d)
}

// checkTokens warns of those of senders that are short.
func checkTokens(sources diag.Node, d *diag.Decoding) {
	for _, source := range sources.Entries() {
		verify := source.Value.Get("verify")
		for _, n := range append(verify.Get("token").Items(), verify.Get("token"), verify.Get("basic").Get("password")) {
			long(n, d)
		}
	}
}

func long(n diag.Node, d *diag.Decoding) {
	if n.Kind() != diag.Scalar {
		return
	}
	if text, ok := d.Scalar(n); ok && text != Unset && text != "none" && text != "" && len(text) < leastToken {
		d.Warnf(n, "`openssl rand -hex 32` makes one that is not", "a token of less than %d characters can be guessed", leastToken)
	}
}

// loopback reports whether only this machine can reach an address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

var validName = regexp.MustCompile(`^[a-z0-9]+([_-]?[a-z0-9]+)*$`)

// named returns the names in a section in order, without those that are none:
// they become part of URLs, queues and metric labels.
func named(section diag.Node, what string, d *diag.Decoding) []string {
	var names []string
	for _, e := range section.Entries() {
		name := e.Key.Text()
		if !validName.MatchString(name) || len(name) > 50 {
			d.Errorf(e.Key, "use lower-case letters, digits, - and _, 50 characters at most", "%q cannot name a %s", name, what)
			continue
		}
		names = append(names, name)
	}
	return names
}

// checkFormerly refuses former names under which nothing can be that is the sink's own.
func checkFormerly(section diag.Node, d *diag.Decoding) {
	claimed := map[string]string{} // by the former name, the sink that had it
	for _, e := range section.Entries() {
		name := e.Key.Text()
		for _, n := range formerNames(e.Value) {
			former := n.Text()
			by, twice := claimed[former]
			switch {
			case !validName.MatchString(former) || len(former) > 50:
				d.Errorf(n, "names of sinks have lower-case letters, digits, - and _, 50 characters at most", "%q was never the name of a sink", former)
			case former == name:
				d.Errorf(n, "leave it out", "sink %q still has this name", name)
			case slices.ContainsFunc(formerNames(section.Get(former)), func(n diag.Node) bool { return n.Text() == name }):
				if name > former {
					continue // told at the other one
				}
				d.Errorf(n, "rename one of them to a third name, run that config, then rename the other and the first", "sinks %q and %q cannot swap their names at once", name, former)
			case section.Get(former).Exists():
				d.Errorf(n, "leave it out; if that sink is renamed too, rename and run it first", "there is a sink %q, which has its own state", former)
			case twice && by == name:
				d.Errorf(n, "leave it out", "%q is named twice", former)
			case twice:
				d.Errorf(n, "only one of them can take over what is known of it", "sink %q was formerly %q, too", by, former)
			default:
				claimed[former] = name
			}
		}
	}
}

func formerNames(sink diag.Node) []diag.Node {
	n := sink.Get("formerly")
	if n.Kind() == diag.List {
		return n.Items()
	}
	if n.Kind() == diag.Scalar {
		return []diag.Node{n}
	}
	return nil
}

// SinkNames are the names of the sinks, with all that these had before.
func (c *Config) SinkNames() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c.Sinks)) {
		names = append(append(names, name), c.Sinks[name].Formerly()...)
	}
	return names
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand resolves references, and tells learn what they hold.
func (o Options) expand(dir string, learn func(string)) func(string) (string, error) {
	lookup := o.Getenv
	if lookup == nil {
		lookup = os.LookupEnv
	}
	return func(reference string) (string, error) {
		if path, ok := strings.CutPrefix(reference, "file:"); ok {
			if !filepath.IsAbs(path) {
				path = filepath.Join(dir, path)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				if o.Lenient {
					return Unset, diag.Soft{Text: fmt.Sprintf("the file %q cannot be read here", path)}
				}
				return "", fmt.Errorf("the file %q cannot be read", path)
			}
			text := strings.TrimRight(string(data), "\r\n")
			learn(text)
			return text, nil
		}
		name, fallback, hasFallback := strings.Cut(reference, ":-")
		if !variable.MatchString(name) {
			return "", errors.New("what stands in ${} is no name of an environment variable: letters, digits and _") // a secret, perhaps
		}
		if value, ok := lookup(name); ok && value != "" {
			learn(value)
			return value, nil
		}
		if hasFallback {
			return fallback, nil
		}
		is := "not set"
		if _, set := lookup(name); set {
			is = "empty"
		}
		if o.Lenient {
			return Unset, diag.Soft{Text: fmt.Sprintf("the environment variable %s is %s here", name, is)}
		}
		return "", fmt.Errorf("the environment variable %s is %s", name, is)
	}
}

// Secrets are all the secrets of a config, to be hidden in texts that come from elsewhere.
func (c *Config) Secrets() []secret.String {
	all := []secret.String{c.Database.URL, c.Database.TokenKey, c.Admin.Token}
	for _, name := range slices.Sorted(maps.Keys(c.Tracing.Headers)) {
		all = append(all, c.Tracing.Headers[name])
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sources)) {
		all = append(all, c.Sources[name].Secrets()...)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Sinks)) {
		all = append(all, c.Sinks[name].Secrets()...)
	}
	return all
}

func sourceInfo(s *sources.Source) *mappers.SourceInfo {
	info := &mappers.SourceInfo{Preset: s.Preset, Events: map[string]*mappers.Schema{}, Zone: s.Zone, Currency: s.Currency, Allow: s.Allow}
	for name, e := range s.Events {
		info.Events[name] = &e.Schema
	}
	return info
}

// sinkInfo derives what mappings may ask of a sink from what it can do.
func sinkInfo(d *sinks.Description) *mappers.SinkInfo {
	info := &mappers.SinkInfo{Preset: d.Preset, Links: d.Supports(sinks.Link), Modes: []mappers.Mode{}}
	for _, m := range []struct {
		mode mappers.Mode
		op   sinks.Operation
	}{
		{mappers.Upsert, sinks.Upsert}, {mappers.UpdateOnly, sinks.Update}, {mappers.CreateOnly, sinks.Create},
		{mappers.Append, sinks.Create}, {mappers.Archive, sinks.Archive},
	} {
		if d.Supports(m.op) {
			info.Modes = append(info.Modes, m.mode)
		}
	}
	info.Lacks = func(m *mappers.MappingInfo, mode mappers.Mode) string { return lacks(d, m, mode) }
	info.Link = func(mode mappers.Mode, object string, l *mappers.Link) (why string, later bool) {
		return d.CannotLink(mode == mappers.Append || mode == mappers.CreateOnly, object, l.To, l.As, l.Remove)
	}
	info.LinkField = func(object string, l *mappers.Link) string { return d.LinkField(object, l.To, l.As) }
	askable(info, d)
	return info
}

// askable says what a sink can be asked of the records that it has.
func askable(info *mappers.SinkInfo, d *sinks.Description) {
	info.Search, info.Read, info.OrdersHits = d.CannotSearch, d.CannotRead, d.OrdersHits()
	info.Object, info.Objects = d.Object, d.Objects()
	info.Find = func(object string) string {
		return d.Lacks(sinks.Find, sinks.Row{Object: object, Property: "x", Key: "x"})
	}
}

// lacks tells why a sink cannot write the records of a mapping in a mode, by a row such as the mapping makes.
func lacks(d *sinks.Description, m *mappers.MappingInfo, mode mappers.Mode) string {
	row := sinks.Row{Object: m.Object, Property: m.Key, Key: "x", Values: map[string]any{}}
	for _, name := range m.Fields {
		row.Values[name] = "x"
	}
	for _, l := range m.Links {
		if !l.Remove {
			row.Links = append(row.Links, sinks.RowLink{Object: l.To, Property: l.Key, Key: "x", ID: "1"})
		}
	}
	known := row // of a record whose id is known
	known.ID = "1"
	switch mode {
	case mappers.Upsert:
		why := d.Lacks(sinks.Upsert, row)
		if why == "" && d.Supports(sinks.Update) {
			why = d.Lacks(sinks.Update, known)
		}
		return why
	case mappers.UpdateOnly:
		why := d.Lacks(sinks.Update, known)
		if why != "" && d.Lacks(sinks.Update, row) == "" {
			return ""
		}
		return why
	case mappers.Archive:
		why := d.Lacks(sinks.Archive, known)
		if why == "" && m.Key != "" && d.Supports(sinks.Find) {
			why = d.Lacks(sinks.Find, row)
		}
		return why
	}
	return d.Lacks(sinks.Create, row)
}

// checkListings holds tables that come from CRMs against the sinks that they come from.
func (c *Config) checkListings(d *diag.Decoding) {
	for _, name := range slices.Sorted(maps.Keys(c.Tables)) {
		l := c.Tables[name].Listing
		if l == nil {
			continue
		}
		sink := c.Sinks[l.Sink]
		if sink == nil {
			if l.Sink != "" {
				d.Errorf(l.At, diag.OneOf(l.Sink, slices.Sorted(maps.Keys(c.Sinks))), "unknown sink %q", l.Sink)
			}
			continue
		}
		if l.Object != "" {
			canonical, known := sink.Object(l.Object)
			if !known {
				d.Errorf(l.At, diag.OneOf(l.Object, sink.Objects()), "table %q: sink %q has no object %q", name, l.Sink, l.Object)
			}
			l.Object = canonical
		}
		has := []string{"label", "value"}
		switch {
		case l.List == mappers.Options && !sink.Supports(sinks.Describe):
			d.Errorf(l.At, "", "table %q: sink %q does not tell which values a field takes", name, l.Sink)
			continue
		case l.List == mappers.Options:
		case !slices.Contains(sink.Lists(), l.List):
			d.Errorf(l.At, diag.OneOf(l.List, append(sink.Lists(), mappers.Options)), "table %q: sink %q has no list %q", name, l.Sink, l.List)
			continue
		case sink.CannotList(l.List, l.Object) != "":
			d.Errorf(l.At, "", "table %q: sink %q cannot list %s: %s", name, l.Sink, l.Called(), sink.CannotList(l.List, l.Object))
			continue
		default:
			has = sink.ListFields(l.List)
		}
		for _, field := range append([]string{l.By, l.Value}, slices.Sorted(maps.Keys(l.Where))...) {
			if !slices.Contains(has, field) {
				d.Errorf(l.At, diag.OneOf(field, has), "table %q: an entry of %s has no %q", name, l.List, field)
			}
		}
	}
}

// alias gives mappings the names of fields that the config has by their labels. The table of an object's fields is one of the
// config's, under a name that no mapping can look up.
func (c *Config) alias(catalog *mappers.Catalog) {
	for name, d := range c.Sinks {
		info := catalog.Sinks[name]
		info.OwnField, info.Aliases = d.OwnField(), map[string]map[string]mappers.Alias{}
		for object, labels := range d.FieldLabels() {
			table := mappers.FieldTable(name, object, d.FieldsAt())
			called := "fields of " + object + " in " + name
			if c.Tables == nil {
				c.Tables = map[string]*mappers.Table{}
			}
			c.Tables[called] = table
			info.Aliases[object] = map[string]mappers.Alias{}
			for field, label := range labels {
				info.Aliases[object][field] = mappers.Alias{Label: label, Table: table, Named: called}
			}
		}
	}
}
