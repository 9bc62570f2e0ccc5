package sandbox

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// defineKey is the part of a seed that is no CRM.
const defineKey = "define"

// definitions are what a CRM has besides records, by its dialect:
//
//	{"define": {"hubspot": {
//	    "owners":     [{"id": "1009", "email": "amy@acme.test", "first_name": "Amy", "last_name": "Ames", "left": true}],
//	    "properties": {"deals": [{"name": "tier", "label": "Tier", "type": "enumeration", "options": [{"value": "gold", "label": "Gold"}]}]},
//	    "without":    {"deals": ["closed_lost_reason"]},
//	    "pipelines":  {"deals": [{"id": "9", "label": "Partners", "stages": [{"id": "91", "label": "New"}]}]},
//	    "lacks":      ["crm.schemas.deals.read"]}}}
//
// Owners take the place of the usual ones; a property or a pipeline that of one with the same name or id; lacks are scopes
// that tokens have not.
type definitions struct {
	Owners     []seedOwner               `json:"owners"`
	Properties map[string][]seedProperty `json:"properties"`
	Without    map[string][]string       `json:"without"`
	Pipelines  map[string][]seedPipeline `json:"pipelines"`
	Lacks      []string                  `json:"lacks"`
}

type seedOwner struct {
	ID        string `json:"id"`
	Email     string `json:"email"`
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	Left      bool   `json:"left"`
}

type seedProperty struct {
	Name      string       `json:"name"`
	Label     string       `json:"label"`
	Type      string       `json:"type"`
	Unique    bool         `json:"unique"`
	Required  bool         `json:"required"`
	ReadOnly  bool         `json:"read_only"`
	Multiple  bool         `json:"multiple"`
	Options   []seedOption `json:"options"`
	Target    string       `json:"target"`
	MaxLength int          `json:"max_length"`
}

type seedOption struct {
	Value   string `json:"value"`
	Label   string `json:"label"`
	Retired bool   `json:"retired"` // hidden, archived, or inactive
}

type seedPipeline struct {
	ID       string      `json:"id"`
	Label    string      `json:"label"`
	Archived bool        `json:"archived"`
	Stages   []seedStage `json:"stages"`
}

type seedStage struct {
	ID       string `json:"id"`
	Label    string `json:"label"`
	Archived bool   `json:"archived"`
}

// propertyTypes are the types that a property of a seed may have.
var propertyTypes = []string{"", "string", "number", "integer", "date", "datetime", "bool", "enumeration", "lookup", anyType}

// readDefinitions reads the part of a seed that is no CRM, and says what is wrong with it.
func (s *Server) readDefinitions(data jsontext.Value) (map[string]*definitions, error) {
	var all map[string]*definitions
	if data == nil {
		return nil, nil
	}
	if err := json.Unmarshal(data, &all, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	for _, dialect := range sorted(all) {
		if s.dialect(dialect) == nil {
			return nil, fmt.Errorf("there is no CRM %q", dialect)
		}
		d := all[dialect]
		if d == nil {
			return nil, fmt.Errorf("%s: nothing stands there", dialect)
		}
		for i, o := range d.Owners {
			if o.ID == "" {
				return nil, fmt.Errorf("%s: owners[%d]: an owner needs an id", dialect, i)
			}
		}
		for _, object := range sorted(d.Properties) {
			for i, p := range d.Properties[object] {
				switch {
				case p.Name == "":
					return nil, fmt.Errorf("%s: properties: %s[%d]: a property needs a name", dialect, object, i)
				case !slices.Contains(propertyTypes, p.Type):
					return nil, fmt.Errorf("%s: properties: %s[%d]: there is no type %q, only %v", dialect, object, i, p.Type, propertyTypes[1:])
				case len(p.Options) > 0 && p.Type != "enumeration":
					return nil, fmt.Errorf("%s: properties: %s[%d]: only the type enumeration has options", dialect, object, i)
				}
			}
		}
		for _, object := range sorted(d.Pipelines) {
			for i, p := range d.Pipelines[object] {
				if p.ID == "" || slices.ContainsFunc(p.Stages, func(st seedStage) bool { return st.ID == "" }) {
					return nil, fmt.Errorf("%s: pipelines: %s[%d]: a pipeline and each of its stages need an id", dialect, object, i)
				}
			}
		}
	}
	return all, nil
}

// apply defines what a seed says.
func (d *definitions) apply(s *Server, dialect string) {
	if d.Owners != nil {
		owners := make([]Owner, len(d.Owners))
		for i, o := range d.Owners {
			owners[i] = Owner(o)
		}
		s.store.mu.Lock()
		s.store.owners[dialect] = owners
		s.store.mu.Unlock()
	}
	for _, object := range sorted(d.Properties) {
		for _, one := range d.Properties[object] {
			p := Property{
				Name: one.Name, Label: one.Label, Type: one.Type, Unique: one.Unique, Required: one.Required, ReadOnly: one.ReadOnly,
				Multiple: one.Multiple, Target: one.Target, MaxLength: one.MaxLength, Labels: map[string]string{},
			}
			for _, o := range one.Options {
				p.Labels[o.Value] = o.Label
				if o.Retired {
					p.Retired = append(p.Retired, o.Value)
				} else {
					p.Options = append(p.Options, o.Value)
				}
			}
			s.Define(dialect, object, p)
		}
	}
	for _, object := range sorted(d.Without) {
		for _, name := range d.Without[object] {
			s.Undefine(dialect, object, name)
		}
	}
	for _, object := range sorted(d.Pipelines) {
		for _, one := range d.Pipelines[object] {
			p := Pipeline{ID: one.ID, Label: one.Label, Archived: one.Archived}
			for _, st := range one.Stages {
				p.Stages = append(p.Stages, Stage{ID: st.ID, Label: st.Label, Archived: st.Archived})
			}
			s.DefinePipeline(dialect, object, p)
		}
	}
	if len(d.Lacks) > 0 {
		s.LackScopes(append(slices.Clone(*s.lacking.Load()), d.Lacks...)...)
	}
}
