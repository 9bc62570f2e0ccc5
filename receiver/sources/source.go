package sources

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"partnersync/internal/diag"
	"partnersync/internal/secret"
	"partnersync/mappers"
)

// Source is a sender, compiled. It is never changed after Load, and safe for
// concurrent use.
type Source struct {
	Name        string // as the config calls it
	Preset      string // "" for a source that the config alone describes
	Description string
	Zone        *time.Location    // default of date()
	Currency    string            // default of cents()
	Events      map[string]*Event // by canonical name
	Allow       map[string]bool   // private paths that mappings may read
	Capture     bool              // store headers and body, map nothing
	AllowGet    bool              // events may come as GET with query parameters
	MaxBody     int64             // bytes
	DeliveryID  string            // header with the sender's id of a delivery, canonical; "" for none

	private map[string]bool     // names of fields that are private wherever they stand
	hints   []string            // keys of a body that may name its event
	wrapped []string            // where the payload stands in an envelope, key below key; nil for none
	inText  bool                // it may stand there as JSON in a text
	tests   []string            // names that a sender's test button sends
	names   map[string][]*Event // by folded name and alias
	shapes  []shape
	ignore  []ignore
	verify  verification
}

// Event is one type of event of a source.
type Event struct {
	Name         string
	Description  string
	Schema       mappers.Schema
	Aliases      []string
	Rank         int    // orders events of one entity that carry the same time
	Sample       []byte // a real body; nil where none is known
	Undocumented bool   // the sender's documents do not show the whole body

	kind       string // of the entity
	entity     *expression
	occurredAt *expression
}

// DefaultMaxBody is the largest body in bytes where a config says nothing.
const DefaultMaxBody = 1 << 20

// description is a source as it is written.
type description struct {
	Node        diag.Node   `yaml:",node"`
	Preset      string      `yaml:"preset"`
	Description string      `yaml:"description"`
	Verify      diag.Node   `yaml:"verify"`
	DeliveryID  diag.Node   `yaml:"delivery_id"`
	Zone        zone        `yaml:"zone"`
	Currency    money       `yaml:"currency"`
	Ignore      []ignoring  `yaml:"ignore"`
	Allow       []diag.Node `yaml:"allow,single"`
	Private     []string    `yaml:"private,single"`
	Capture     bool        `yaml:"capture"`
	Get         bool        `yaml:"get"`
	MaxBody     size        `yaml:"max_body"`
	Times       string      `yaml:"times"`
	Hint        []string    `yaml:"hint,single"`
	Wrapped     diag.Node   `yaml:"wrapped"`
	Tests       []string    `yaml:"tests,single"`
	Schemas     diag.Node   `yaml:"schemas"`
	Events      diag.Node   `yaml:"events"`
	Shapes      []shaping   `yaml:"shapes"`
}

type eventDescription struct {
	Node         diag.Node   `yaml:",node"`
	Description  string      `yaml:"description"`
	Schema       diag.Node   `yaml:"schema"`
	Entity       diag.Node   `yaml:"entity"`
	OccurredAt   diag.Node   `yaml:"occurred_at"`
	Rank         int         `yaml:"rank"`
	Aliases      []diag.Node `yaml:"aliases,single"`
	Sample       diag.Node   `yaml:"sample"`
	Undocumented bool        `yaml:"undocumented"`
}

type ignoring struct {
	When   diag.Node `yaml:"when,required"`
	Reason string    `yaml:"reason,required"`
}

type ignore struct {
	when   *expression
	reason string
}

// Load compiles the source that a config calls name: the user's keys laid over
// those of the preset that they name. Everything wrong is reported to d; the
// source is as complete as it can be then, so that mappings can still be
// checked against it, and must not be run. It is nil if user is no map.
func Load(name string, user diag.Node, d *diag.Decoding) *Source {
	if user.Kind() != diag.Map {
		d.Errorf(user, "write `preset: NAME`, or describe its events", "the source %q must be a map", name)
		return nil
	}
	whole, preset := overPreset(user, d)
	var w description
	d.Decode(whole, &w)

	s := &Source{
		Name: name, Preset: preset, Description: w.Description,
		Zone: w.Zone.location, Currency: string(w.Currency),
		Events: map[string]*Event{}, Allow: map[string]bool{}, private: map[string]bool{},
		Capture: w.Capture, AllowGet: w.Get, MaxBody: int64(w.MaxBody),
		hints: w.Hint, tests: w.Tests, names: map[string][]*Event{},
	}
	if s.Zone == nil {
		s.Zone = time.UTC
	}
	if s.MaxBody == 0 {
		s.MaxBody = DefaultMaxBody
	}
	if w.Times != "" && w.Times != "ms" && w.Times != "s" {
		d.Errorf(whole.Get("times"), "write ms or s", "unknown unit %q of times", w.Times)
	}
	for _, name := range w.Private {
		s.private[name] = true
	}
	s.allow(w.Allow, d)
	s.events(w, d)
	s.checkAllow(w.Allow, d)
	if path := wrapping(w.Wrapped, s.Events, d); path != "" {
		s.wrapped, s.inText = strings.Split(path, "."), w.Wrapped.Exists()
	}
	for _, written := range w.Shapes {
		s.shapes = append(s.shapes, s.shape(written, d))
	}
	all := mappers.Schema{}
	for _, name := range slices.Sorted(maps.Keys(s.Events)) {
		all = union(all, s.Events[name].Schema)
	}
	if all.Kind == "" {
		all.Kind = mappers.Map
	}
	for _, written := range w.Ignore {
		s.ignore = append(s.ignore, ignore{compile(written.When, mappers.WantBool, s.scope(all), d), written.Reason})
	}
	before := len(d.Problems)
	s.verify = loadVerification(whole, name, w.Verify, d)
	s.delivery(w, len(d.Problems) > before, d)
	return s
}

// Secrets gives everything that must not be shown of this source.
func (s *Source) Secrets() []secret.String { return s.verify.secrets() }

// Find returns the events that a name stands for: its own name or an alias, in
// any case, with blanks and signs read as _. Several share an alias where only the shape of a body tells which
// is meant.
func (s *Source) Find(name string) []*Event { return s.names[fold(name)] }

// EventNames lists the canonical names in order.
func (s *Source) EventNames() []string { return slices.Sorted(maps.Keys(s.Events)) }

// overPreset lays user over the preset that it names.
func overPreset(user diag.Node, d *diag.Decoding) (diag.Node, string) {
	named := user.Get("preset")
	if named.Kind() != diag.Scalar {
		return user, "" // Decode says what is wrong with it
	}
	name := named.Text()
	data, ok := Preset(name)
	if !ok {
		d.Errorf(named, diag.OneOf(name, Presets()), "there is no preset %q of a source", name)
		return user, ""
	}
	base, problems := diag.Parse(PresetFile(name), data)
	for _, p := range problems {
		d.Problems.Add(p)
	}
	return diag.Overlay(base, user), name
}

var eventName = regexp.MustCompile(`^[a-z0-9_-]+(\.[a-z0-9_-]+)*$`)

func (s *Source) events(w description, d *diag.Decoding) {
	written := newSchemas(w.Schemas, w.Times, s.private, d)
	var nodes map[string]diag.Node
	d.Decode(w.Events, &nodes)
	if len(nodes) == 0 && !w.Capture && w.Preset == "" {
		hint := "name a preset, or describe the events; `capture: true` stores all that comes and maps nothing"
		if _, ok := Preset(s.Name); ok {
			hint = fmt.Sprintf("did you mean `preset: %s`?", s.Name)
		}
		d.Errorf(w.Node, hint, "the source %q has no events", s.Name)
	}
	at := map[*Event]diag.Node{}
	for _, e := range w.Events.Entries() {
		name := e.Key.Text()
		if !eventName.MatchString(name) || len(name) > maxName {
			d.Errorf(e.Key, `write lower-case words joined by dots, such as "deal.created"`, "%q cannot be the name of an event", name)
			continue
		}
		var described eventDescription
		d.Decode(e.Value, &described)
		event := s.event(name, described, written, d)
		s.Events[name], at[event] = event, e.Key
		s.names[fold(name)] = []*Event{event}
		for _, alias := range described.Aliases {
			event.Aliases = append(event.Aliases, alias.Text())
		}
	}
	for _, e := range w.Events.Entries() {
		event := s.Events[e.Key.Text()]
		if event == nil {
			continue
		}
		for _, alias := range event.Aliases {
			key := fold(alias)
			if other := s.Events[key]; other != nil {
				d.Errorf(at[event], "", "the alias %q of %q is an event of its own", alias, event.Name)
				continue
			}
			if !slices.Contains(s.names[key], event) {
				s.names[key] = append(s.names[key], event)
			}
		}
	}
}

func (s *Source) event(name string, w eventDescription, written *schemas, d *diag.Decoding) *Event {
	event := &Event{
		Name: name, Description: w.Description, Rank: w.Rank, Undocumented: w.Undocumented,
		Schema: mappers.Schema{Kind: mappers.Map}, Sample: sample(s.Preset, name),
	}
	if w.Schema.Exists() {
		before := len(d.Problems)
		event.Schema = written.spec(w.Schema)
		if event.Schema.Kind != mappers.Object && event.Schema.Kind != mappers.Map {
			if len(d.Problems) == before {
				d.Errorf(w.Schema, "name the fields of the body", "the schema of an event must be an object")
			}
			event.Schema = mappers.Schema{Kind: mappers.Map}
		}
	}
	if w.Sample.Exists() {
		if text, ok := d.Scalar(w.Sample); ok {
			event.Sample = []byte(text)
			if _, _, err := mappers.Shape(event.Sample, &event.Schema); err != nil {
				d.Errorf(w.Sample, "", "the sample is not a JSON object: %v", err)
			}
		}
	}
	scope := s.scope(event.Schema)
	if entries := w.Entity.Entries(); len(entries) == 1 {
		event.kind = entries[0].Key.Text()
		event.entity = compile(entries[0].Value, mappers.WantAny, scope, d)
	} else if w.Entity.Exists() {
		d.Errorf(w.Entity, "such as `entity: {deal: event.key}`; set the preset's own kind to null to replace it", "an entity is one kind and the expression of its id")
	}
	if w.OccurredAt.Exists() {
		event.occurredAt = compile(w.OccurredAt, mappers.WantTime, scope, d)
	}
	return event
}

// scope is what expressions of the source see.
func (s *Source) scope(event mappers.Schema) *mappers.Scope {
	return &mappers.Scope{
		Variables: map[string]mappers.Schema{"event": event, "hook": hookSchema},
		Zone:      s.Zone, Currency: s.Currency, Allow: s.Allow,
	}
}

// hookSchema is what is known of a request before it is stored.
var hookSchema = mappers.Schema{Kind: mappers.Object, Fields: map[string]mappers.Schema{
	"type": {Kind: mappers.Text}, "source": {Kind: mappers.Text}, "occurred_at": {Kind: mappers.Time},
}}

func (s *Source) allow(written []diag.Node, d *diag.Decoding) {
	for _, n := range written {
		if path, ok := d.Scalar(n); ok {
			s.Allow[path] = true
		}
	}
}

func (s *Source) checkAllow(written []diag.Node, d *diag.Decoding) {
	known := map[string]bool{}
	for _, event := range s.Events {
		privatePaths(event.Schema, "", known)
	}
	for _, n := range written {
		if path := n.Text(); !known[path] && n.Kind() == diag.Scalar {
			d.Errorf(n, diag.OneOf(path, slices.Collect(maps.Keys(known))), "no event of %q has a private field %q", s.Name, path)
		}
	}
}

// delivery reads which header names a delivery, and warns where one that was caught
// could be sent again.
func (s *Source) delivery(w description, wrong bool, d *diag.Decoding) {
	if s.verify.standard != nil {
		s.DeliveryID = "Webhook-Id"
		if w.DeliveryID.Exists() {
			d.Errorf(w.DeliveryID, "leave it out", "standard_webhooks has its own id, in webhook-id")
		}
		return
	}
	if w.DeliveryID.Exists() {
		text, ok := d.Scalar(w.DeliveryID)
		if ok && !httpguts.ValidHeaderFieldName(text) {
			d.Errorf(w.DeliveryID, "such as X-Delivery-Id", "%q cannot be the name of a header", text)
			return
		}
		s.DeliveryID = http.CanonicalHeaderKey(text)
	}
	g := s.verify.hmac
	if g == nil || wrong || g.timed() || s.DeliveryID != "" {
		return
	}
	for _, name := range s.EventNames() {
		if s.Events[name].occurredAt == nil {
			d.Warnf(w.Verify.Get("hmac"), "sign a timestamp with `template` and `timestamp_header` or `timestamp_field`, name the header of the sender's id with `delivery_id`, or give the event `occurred_at`",
				"an old request that comes again is taken for a new event: nothing in its signature has a time, and neither has the event %q", name)
			return
		}
	}
}

// wrapping is the key of the payload inside an envelope, or the path there: "data" unless
// the source says otherwise, or an event has such a field itself.
func wrapping(n diag.Node, events map[string]*Event, d *diag.Decoding) string {
	switch {
	case n.Kind() == diag.Scalar && n.Tag() == "!!bool" && strings.EqualFold(n.Text(), "false"):
		return ""
	case n.Kind() == diag.Scalar && n.Tag() == "!!str" && n.Text() != "":
		return n.Text()
	case n.Exists():
		d.Errorf(n, "such as data, the default", "wrapped is the key of the payload inside an envelope, or false")
		return ""
	}
	for _, event := range events {
		if _, own := event.Schema.Fields["data"]; own {
			return ""
		}
	}
	return "data"
}

const maxName = 100 // bytes of an event's name

// fold gives a name as it is compared, and as it may stand in a table and a
// page: in lower case, with a _ for whatever else is no part of a name.
func fold(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '_'
	}, strings.ToLower(strings.TrimSpace(name)))
	return name[:min(len(name), maxName)]
}

type zone struct{ location *time.Location }

func (z *zone) DecodeNode(n diag.Node, d *diag.Decoding) {
	text, ok := d.Scalar(n)
	if !ok {
		return
	}
	location, err := time.LoadLocation(text)
	if err != nil || text == "" || text == "Local" {
		d.Errorf(n, "write a name of the tz database, such as America/Toronto or UTC", "unknown time zone %q", n.Text())
		return
	}
	z.location = location
}

type money string

func (m *money) DecodeNode(n diag.Node, d *diag.Decoding) {
	text, ok := d.Scalar(n)
	if !ok {
		return
	}
	code, _, known := mappers.Currency(text)
	if !known {
		d.Errorf(n, "write its three letters, such as USD", "unknown currency %q", n.Text())
		return
	}
	*m = money(code)
}

type size int64

func (s *size) DecodeNode(n diag.Node, d *diag.Decoding) {
	text, ok := d.Scalar(n)
	if !ok {
		return
	}
	v, ok := diag.ParseSize(text)
	if !ok || v < 1 || v > maxMaxBody {
		d.Errorf(n, "write a size up to 64MiB, such as 512KiB or 1MiB", "%q is not a size", n.Text())
		return
	}
	*s = size(v)
}

const maxMaxBody = 64 << 20
