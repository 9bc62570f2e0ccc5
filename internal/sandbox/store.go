package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// firstID is beyond 32 bits and long enough that a float prints it with an exponent: an id that went through a number shows.
const firstID = 171_000_000_000

// Record is a copy of one record.
type Record struct {
	Dialect    string         `json:"dialect"`
	Object     string         `json:"object"`
	ID         string         `json:"id"`
	Properties map[string]any `json:"properties"`
	Created    time.Time      `json:"created"`
	Updated    time.Time      `json:"updated"`
	Writes     int            `json:"writes"` // how often it was written, its creation included
}

// Link ties two records. It is kept in the direction in which it was first made.
type Link struct {
	Dialect    string `json:"dialect"`
	FromObject string `json:"from_object"`
	FromID     string `json:"from_id"`
	ToObject   string `json:"to_object"`
	ToID       string `json:"to_id"`
	Category   string `json:"category"`
	TypeID     int    `json:"type_id"`
	Label      string `json:"label,omitzero"`
}

// Change is what has just been done to a record, or to a link.
type Change struct {
	Record   Record // as it is now; empty where it is a link that has changed
	Created  bool
	Archived bool
	Link     Link
	Linked   bool // the link was made; else it was taken away
}

// Property defines one field of an object.
type Property struct {
	Name      string
	Label     string            // empty: the name
	Type      string            // string (also when empty), number, integer, date, datetime, bool, enumeration, lookup; any takes every value
	FieldType string            // the CRM's form field; "checkbox" lets an enumeration hold several values, as Multiple does
	Group     string            // the CRM's property group
	Unique    bool              // two records cannot hold one value; usable as an upsert key. Pipedrive has no such thing
	External  bool              // Salesforce: usable as an upsert key though several records may hold one value
	Required  bool              // must be set on create, where the dialect's version enforces it
	ReadOnly  bool              // set by the CRM alone
	Multiple  bool              // Attio: holds several values
	Indexing  bool              // Dataverse: the index of the alternate key is not active yet
	Options   []string          // the internal values of an enumeration; empty: any
	Labels    map[string]string // of options, by value; left out: the value
	Retired   []string          // options that were hidden, archived or made inactive
	Target    string            // the object that a lookup refers to; several are separated by ","
	MaxLength int               // of a string, where the dialect minds; 0: any

	aliases string // another property whose values, separated by ";", identify the record too
}

// Pipeline is a named list of stages.
type Pipeline struct {
	ID       string
	Label    string
	Stages   []Stage
	Archived bool
}

// Stage is a step of a Pipeline.
type Stage struct {
	ID       string
	Label    string
	Metadata map[string]string
	Archived bool
}

// Owner is a user of the CRM to whom records can belong.
type Owner struct {
	ID        string
	Email     string
	FirstName string
	LastName  string
	Left      bool // deactivated or archived
}

// store holds the records of all dialects. The caller of any method holds mu.
type store struct {
	mu     sync.Mutex
	lag    time.Duration
	ids    int64
	tables []*table
	links  []Link
	linked map[Link]bool

	refusals []*activeRefusal
	owners   map[string][]Owner // by dialect

	watch func(Change) // nil: nobody watches
}

// table holds the records of one object of one dialect.
type table struct {
	dialect    string
	object     string
	typeID     string // the CRM's own name of the object, where it has another
	properties map[string]*Property
	names      []string // of properties, in the order of their definition
	pipelines  []Pipeline
	groups     []propertyGroup      // HubSpot: that properties stand in
	pending    map[string]*Property // Salesforce: made, and seen by nobody yet
	rows       []*record            // archived ones too, oldest first
	byID       map[string]*record
	keys       []*Property                   // the unique ones of properties
	held       map[string]int                // properties whose value stays what it is, see Hold
	unique     map[string]map[string]*record // property, folded value
}

type record struct {
	id         string
	properties map[string]any
	created    time.Time
	updated    time.Time
	writes     int
	archived   bool
	into       string     // the record that it was merged into
	locked     int        // holders of a lock; writes are refused meanwhile
	past       []snapshot // with a lag: states that a search may still see, oldest first
}

type snapshot struct {
	at         time.Time
	properties map[string]any
	archived   bool
}

func newStore(lag time.Duration) *store {
	return &store{lag: lag, linked: map[Link]bool{}, owners: map[string][]Owner{}}
}

// table returns nil for an object that nobody defined.
func (s *store) table(dialect, object string) *table {
	for _, t := range s.tables {
		if t.dialect == dialect && t.object == object {
			return t
		}
	}
	return nil
}

// named returns the table that has a name, or another name of the CRM's own, whatever the case; or nil.
func (s *store) named(dialect, name string) *table {
	for _, t := range s.tables {
		if t.dialect == dialect && (strings.EqualFold(t.object, name) || t.typeID != "" && strings.EqualFold(t.typeID, name)) {
			return t
		}
	}
	return nil
}

// define returns the table of an object, made if need be.
func (s *store) define(dialect, object string) *table {
	if t := s.table(dialect, object); t != nil {
		return t
	}
	t := &table{
		dialect: dialect, object: object,
		properties: map[string]*Property{}, byID: map[string]*record{}, unique: map[string]map[string]*record{},
	}
	s.tables = append(s.tables, t)
	return t
}

func (s *store) nextID() int64 {
	s.ids++
	return firstID + s.ids
}

func (s *store) create(t *table, id string, properties map[string]any, now time.Time) *record {
	r := &record{id: id, properties: make(map[string]any, len(properties)), created: now}
	t.rows = append(t.rows, r)
	t.byID[id] = r
	s.update(t, r, properties, now)
	return r
}

// update sets what changes holds; nil and "" clear.
func (s *store) update(t *table, r *record, changes map[string]any, now time.Time) {
	for name, value := range changes {
		s.set(t, r, name, value)
	}
	s.written(t, r, now)
}

// set changes one property without counting a write.
func (s *store) set(t *table, r *record, name string, value any) {
	if t.held[name] > 0 && r.writes > 0 {
		return
	}
	t.index(r, name, false)
	if value == nil || value == "" {
		delete(r.properties, name)
	} else {
		r.properties[name] = value
	}
	t.index(r, name, true)
}

// written ends a change: it counts one write and keeps the state for searches.
func (s *store) written(t *table, r *record, now time.Time) {
	r.writes++
	r.updated = now
	s.remember(r, now)
	if s.watch != nil {
		s.watch(Change{Record: t.export(r), Created: r.writes == 1})
	}
}

func (s *store) archive(t *table, r *record, now time.Time) {
	for name := range r.properties {
		t.index(r, name, false)
	}
	r.archived = true
	r.updated = now
	s.remember(r, now)
	if s.watch != nil {
		s.watch(Change{Record: t.export(r), Archived: true})
	}
	s.links = slices.DeleteFunc(s.links, func(l Link) bool {
		gone := l.Dialect == t.dialect &&
			(l.FromObject == t.object && l.FromID == r.id || l.ToObject == t.object && l.ToID == r.id)
		if gone {
			delete(s.linked, l)
		}
		return gone
	})
}

// remember keeps the present state, and drops those that no search can see any more.
func (s *store) remember(r *record, now time.Time) {
	if s.lag <= 0 {
		return
	}
	seen := now.Add(-s.lag)
	for len(r.past) > 1 && !r.past[1].at.After(seen) {
		r.past = r.past[1:]
	}
	r.past = append(r.past, snapshot{at: now, properties: r.copied(), archived: r.archived})
}

// indexed returns the state that a search sees, or nil.
func (s *store) indexed(r *record, now time.Time) map[string]any {
	if s.lag <= 0 {
		if r.archived {
			return nil
		}
		return r.properties
	}
	seen := now.Add(-s.lag)
	for _, p := range slices.Backward(r.past) {
		if p.at.After(seen) {
			continue
		}
		if p.archived {
			return nil
		}
		return p.properties
	}
	return nil
}

// link reports false when there is such a link already.
func (s *store) link(l Link) bool {
	if s.linked[l] {
		return false
	}
	s.linked[l] = true
	s.links = append(s.links, l)
	if s.watch != nil {
		s.watch(Change{Link: l, Linked: true})
	}
	return true
}

func (s *store) unlink(remove func(Link) bool) {
	s.links = slices.DeleteFunc(s.links, func(l Link) bool {
		if !remove(l) {
			return false
		}
		delete(s.linked, l)
		if s.watch != nil {
			s.watch(Change{Link: l})
		}
		return true
	})
}

func (s *store) clear() {
	s.ids = 0
	s.links = nil
	s.refusals = nil
	clear(s.linked)
	for _, t := range s.tables {
		t.rows = nil
		clear(t.byID)
		clear(t.held)
		for _, values := range t.unique {
			clear(values)
		}
	}
}

func (t *table) defineProperty(p Property) {
	if p.Type == "" {
		p.Type = "string"
	}
	if p.Label == "" {
		p.Label = p.Name
	}
	if t.properties[p.Name] == nil {
		t.names = append(t.names, p.Name)
	}
	t.properties[p.Name] = &p
	t.keys = slices.DeleteFunc(t.keys, func(k *Property) bool { return k.Name == p.Name })
	delete(t.unique, p.Name)
	if !p.Unique {
		return
	}
	t.keys = append(t.keys, &p)
	t.unique[p.Name] = map[string]*record{}
	for _, r := range t.rows {
		if !r.archived {
			t.index(r, p.Name, true)
		}
	}
}

func (t *table) definePipeline(p Pipeline) {
	if i := slices.IndexFunc(t.pipelines, func(old Pipeline) bool { return old.ID == p.ID }); i >= 0 {
		t.pipelines[i] = p
		return
	}
	t.pipelines = append(t.pipelines, p)
}

// live returns a record that is there, or nil; there is none in an object that nobody defined.
func (t *table) live(id string) *record {
	if t == nil {
		return nil
	}
	if r := t.byID[id]; r != nil && !r.archived {
		return r
	}
	return nil
}

// survivor returns the live record that one was merged into, or nil.
func (t *table) survivor(id string) *record {
	for range len(t.byID) {
		r := t.byID[id]
		if r == nil || r.into == "" {
			return nil
		}
		if id = r.into; t.live(id) != nil {
			return t.live(id)
		}
	}
	return nil
}

// find returns the live record that holds a value of a unique property, or nil.
func (t *table) find(property, value string) *record {
	return t.unique[property][strings.ToLower(value)]
}

// property finds a property whatever the case of its name, or nil.
func (t *table) property(name string) *Property {
	if p := t.properties[name]; p != nil {
		return p
	}
	for _, n := range t.names {
		if strings.EqualFold(n, name) {
			return t.properties[n]
		}
	}
	return nil
}

// holders returns the live records that hold a value, whatever the case, oldest first: at most one of a unique property.
func (t *table) holders(property, value string) []*record {
	var out []*record
	if t.unique[property] != nil {
		if r := t.find(property, value); r != nil {
			out = append(out, r)
		}
		return out
	}
	for _, r := range t.rows {
		if !r.archived && value != "" && holds(r.properties[property], value, strings.EqualFold) {
			out = append(out, r)
		}
	}
	return out
}

// index adds or removes the entries of a record that depend on one of its properties.
func (t *table) index(r *record, name string, add bool) {
	for _, k := range t.keys {
		if name != k.Name && name != k.aliases {
			continue
		}
		values := t.unique[k.Name]
		if several, ok := r.properties[k.Name].([]any); ok {
			for _, one := range several {
				indexValue(values, r, text(one), add)
			}
		} else {
			indexValue(values, r, text(r.properties[k.Name]), add)
		}
		if k.aliases == "" {
			continue
		}
		for value := range strings.SplitSeq(text(r.properties[k.aliases]), ";") {
			indexValue(values, r, strings.TrimSpace(value), add)
		}
	}
}

func (t *table) export(r *record) Record {
	return Record{
		Dialect: t.dialect, Object: t.object, ID: r.id, Properties: r.copied(),
		Created: r.created, Updated: r.updated, Writes: r.writes,
	}
}

func (r *record) copied() map[string]any { return maps.Clone(r.properties) }

// holds tells whether a value, or one of several, is spelt so.
func holds(value any, want string, equal func(a, b string) bool) bool {
	if several, ok := value.([]any); ok {
		return slices.ContainsFunc(several, func(one any) bool { return equal(text(one), want) })
	}
	return equal(text(value), want)
}

func indexValue(values map[string]*record, r *record, value string, add bool) {
	value = strings.ToLower(value)
	switch {
	case value == "":
	case add:
		values[value] = r
	case values[value] == r:
		delete(values, value)
	}
}

// text spells a stored value; nil is "".
func text(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(value)
}

func spellID(n int64) string { return strconv.FormatInt(n, 10) }
