package sandbox

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// seedRecord is a record of a seed. Without an id it gets one of its dialect's.
type seedRecord struct {
	ID         string         `json:"id,omitzero"`
	Created    time.Time      `json:"created,omitzero"` // when it was entered; left out: now
	Properties map[string]any `json:"properties"`
	Links      []seedLink     `json:"links,omitempty"`
}

// seedLink ties a record to another of the seed, or to one that is there already.
type seedLink struct {
	Object string `json:"object"`
	ID     string `json:"id"`
	Label  string `json:"label,omitzero"`
}

// Seed enters records as people would have in the CRM's own screens before anybody else wrote to it: dialect, object,
// and a list of records, as JSON:
//
//	{"hubspot": {"companies": [{"id": "501", "properties": {"name": "Acme", "domain": "acme.test"}}],
//	             "contacts": [{"properties": {"email": "jane@acme.test"}, "links": [{"object": "companies", "id": "501"}]}]}}
//
// A lookup, as Salesforce has, is a property that holds the other's id. A property that the object does not have yet is
// made, by the type of its value. Nothing is entered where something is wrong with any of it. What the CRM has besides
// records stands under "define", see definitions.
func (s *Server) Seed(data []byte) error {
	var parts map[string]jsontext.Value
	if err := json.Unmarshal(data, &parts); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	seed := map[string]map[string][]seedRecord{}
	for _, name := range sorted(parts) {
		if name == defineKey {
			continue
		}
		var objects map[string][]seedRecord
		if err := json.Unmarshal(parts[name], &objects, json.RejectUnknownMembers(true)); err != nil {
			return fmt.Errorf("seed: %w", err)
		}
		seed[name] = objects
	}
	define, err := s.readDefinitions(parts[defineKey])
	if err != nil {
		return fmt.Errorf("seed: %s: %w", defineKey, err)
	}
	for _, dialect := range sorted(seed) {
		if s.dialect(dialect) == nil {
			return fmt.Errorf("seed: there is no CRM %q", dialect)
		}
		if err := s.checkSeed(dialect, seed[dialect]); err != nil {
			return fmt.Errorf("seed: %s: %w", dialect, err)
		}
	}
	for _, dialect := range sorted(define) {
		define[dialect].apply(s, dialect)
	}
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	now := s.options.Now()
	for _, dialect := range sorted(seed) {
		objects := seed[dialect]
		for _, object := range sorted(objects) {
			t := s.open(dialect, object)
			for i := range objects[object] {
				s.enter(t, &objects[object][i], now)
			}
		}
		for _, object := range sorted(objects) {
			t := s.open(dialect, object)
			for _, one := range objects[object] {
				for _, l := range one.Links {
					s.dialect(dialect).(linker).tie(t, one.ID, s.open(dialect, l.Object), l.ID, l.Label)
				}
			}
		}
	}
	return nil
}

// linker is a dialect whose links are no properties of a record. The caller of tie holds the store.
type linker interface {
	tie(from *table, id string, to *table, toID, label string)
	// labelled reports whether there are links between the objects that have a label; the default has none.
	labelled(from, to, label string) bool
}

// checkSeed says what is wrong with the records of a dialect.
func (s *Server) checkSeed(dialect string, objects map[string][]seedRecord) error {
	ids := map[string]bool{}
	for _, object := range sorted(objects) {
		for i, one := range objects[object] {
			at := s.objectName(dialect, object) + "/" + one.ID
			if _, is := s.Get(dialect, object, one.ID); one.ID != "" && (is || ids[at]) {
				return fmt.Errorf("%s[%d]: there is a record with the id %s already", object, i, one.ID)
			}
			ids[at] = true
		}
	}
	for _, object := range sorted(objects) {
		for i, one := range objects[object] {
			for _, l := range one.Links {
				ties, can := s.dialect(dialect).(linker)
				if !can {
					return fmt.Errorf("%s[%d]: links: %w", object, i, errLookups)
				}
				_, is := s.Get(dialect, l.Object, l.ID)
				if l.ID == "" || !is && !ids[s.objectName(dialect, l.Object)+"/"+l.ID] {
					return fmt.Errorf("%s[%d]: links: there is no record %q of %s", object, i, l.ID, l.Object)
				}
				if l.Label != "" && !ties.labelled(s.objectName(dialect, object), s.objectName(dialect, l.Object), l.Label) {
					return fmt.Errorf("%s[%d]: links: there is no label %q between %s and %s", object, i, l.Label, object, l.Object)
				}
			}
		}
	}
	return nil
}

var errLookups = errors.New("a link is a property that holds the other's id")

// enter makes a record that everybody has seen for long. The caller holds the store.
func (s *Server) enter(t *table, one *seedRecord, now time.Time) {
	for _, name := range sorted(one.Properties) {
		if t.property(name) != nil {
			continue
		}
		p := Property{Name: name}
		switch one.Properties[name].(type) {
		case float64:
			p.Type = "number"
		case bool:
			p.Type = "bool"
		case []any:
			p.Multiple = true
		case map[string]any:
			p.Type = anyType
		}
		t.defineProperty(p)
	}
	if one.ID == "" {
		one.ID = s.newID(t.dialect, t.object)
	}
	if one.Created.IsZero() {
		one.Created = now
	}
	r := s.store.create(t, one.ID, one.Properties, one.Created)
	r.past = []snapshot{{at: one.Created.Add(-s.options.Lag), properties: r.copied()}}
}
