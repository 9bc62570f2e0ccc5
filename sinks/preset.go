package sinks

import (
	"cmp"
	"embed"
	"strconv"
	"strings"
	"time"

	"partnersync/internal/diag"
	"partnersync/internal/secret"
	"partnersync/mappers"
)

//go:embed presets/*.yaml
var presets embed.FS

// Presets are the names of the embedded presets, sorted.
func Presets() []string {
	entries, _ := presets.ReadDir("presets")
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Preset returns the text of a preset as it is embedded.
func Preset(name string) ([]byte, bool) {
	data, err := presets.ReadFile(PresetFile(name))
	return data, err == nil
}

// PresetFile is the file name that problems inside a preset carry.
func PresetFile(name string) string { return "presets/" + name + ".yaml" }

// Description is a compiled sink: what a target is and how to speak to it. It
// is never changed, and safe for concurrent use.
type Description struct {
	Name   string // of the sink
	Preset string // that it is based on; "" for one written in the config alone

	whole      diag.Node
	base       address
	auth       authRules
	sign       *signature
	settings   map[string]any
	headers    diag.Node
	values     valueRules
	folds      foldRules
	objects    objectRules
	also       map[string][]string // properties that hold further values of another
	recordURL  *template
	timeout    time.Duration
	settle     time.Duration
	findLag    time.Duration
	parallel   int
	batch      batchRules
	limits     []limitRule
	reports    []report
	budget     *budgetRules
	maxAnswer  int64
	errors     refusal
	rowErrors  refusal
	classify   []rule
	rowRules   []rule
	operations map[Operation][]*operation
	lists      map[string][]*operation
	byHand     map[string]*template
	unsure     bool // something is wrong with the operations: which it has is not known
	secrets    []secret.String
	formerly   []string
	observes   bool
	guard      Guard
	account    string
	labels     map[string]map[string]string
	ownField   string
	shown      map[string]bool // values that are no payload, see Show
}

// document is the grammar of a description.
type document struct {
	Preset       string              `yaml:"preset"`
	BaseURL      diag.Node           `yaml:"base_url"`
	URL          diag.Node           `yaml:"url"` // base_url of a target that has but one address
	Auth         authRules           `yaml:"auth"`
	Sign         *signature          `yaml:"sign"`
	Settings     diag.Node           `yaml:"settings"`
	Headers      diag.Node           `yaml:"headers"`
	Values       valueRules          `yaml:"values"`
	Fold         foldRules           `yaml:"fold"`
	Also         map[string][]string `yaml:"also"`
	Objects      objectRules         `yaml:"objects"`
	RecordURL    diag.Node           `yaml:"record_url"` // where people see a record
	Timeout      time.Duration       `yaml:"timeout"`
	Settle       time.Duration       `yaml:"settle"`
	FindLag      time.Duration       `yaml:"find_lag"`
	Concurrency  int                 `yaml:"concurrency"`
	Batch        batchRules          `yaml:"batch"`
	Limits       []limitRule         `yaml:"limits"`
	Reports      []report            `yaml:"reports"`
	Budget       *budgetRules        `yaml:"budget"`
	MaxAnswer    int64               `yaml:"max_answer"`
	Error        refusal             `yaml:"error"`
	RowError     refusal             `yaml:"row_error"`
	Classify     []rule              `yaml:"classify"`
	ClassifyRows []rule              `yaml:"classify_rows"`
	Operations   diag.Node           `yaml:"operations"`
	Write        *bool               `yaml:"write"` // false: it observes, and writes nothing
	Guard        Guard               `yaml:"guard"`
	Account      diag.Node           `yaml:"account"`         // the only one that it may write to
	Fields       diag.Node           `yaml:"fields"`          // names that mappings have for fields, by object: the label of each in the CRM
	OwnField     string              `yaml:"own_field"`       // what the name of a field of one's own looks like, where that matters
	Lists        diag.Node           `yaml:"lists"`           // what it has besides records: owners, pipelines, stages
	ByHand       diag.Node           `yaml:"by_hand"`         // what only a person can do there, and how
	Formerly     []string            `yaml:"formerly,single"` // names that the sink had before
}

// batchRules say how many rows go into a request, and how long a row may wait
// for others.
type batchRules struct {
	Rows int           `yaml:"rows"`
	Wait time.Duration `yaml:"wait"`
}

// DecodeNode reads a number of rows, or a map.
func (b *batchRules) DecodeNode(n diag.Node, d *diag.Decoding) {
	b.Wait = defaultBatchWait
	if n.Kind() == diag.Scalar {
		d.Decode(n, &b.Rows)
	} else {
		type plain batchRules
		d.Decode(n, (*plain)(b))
	}
	if b.Rows < 0 {
		d.Errorf(n, "", "a batch cannot have %d rows", b.Rows)
	}
}

// refusal says where the answer to a refused request, or a refused row of it,
// holds what.
type refusal struct {
	Code      extract `yaml:"code"`
	Message   extract `yaml:"message"`
	Field     extract `yaml:"field"`
	Allowed   extract `yaml:"allowed"`
	Existing  extract `yaml:"existing"`
	RequestID extract `yaml:"request_id"`
	Scope     extract `yaml:"scope"` // what the credentials lack
}

func (r *refusal) extracts() []extract {
	return []extract{r.Code, r.Message, r.Field, r.Allowed, r.Existing, r.RequestID, r.Scope}
}

const (
	defaultTimeout     = 30 * time.Second
	defaultSettle      = 10 * time.Second
	defaultBatchWait   = 5 * time.Millisecond
	defaultConcurrency = 4
	defaultMaxAnswer   = 1 << 20
)

// Load compiles the sink that user describes: the preset it names with the
// user's keys on top, or the user's keys alone. What is wrong goes to d, each
// with its place; the result must not be given to New when any of that is an
// error. It is nil where there is nothing to describe.
func Load(name string, user diag.Node, d *diag.Decoding) *Description {
	desc := &Description{Name: name, whole: user}
	if p := user.Get("preset"); p.Exists() {
		text, ok := d.Scalar(p)
		if !ok {
			return nil
		}
		data, ok := Preset(text)
		if !ok {
			d.Errorf(p, diag.OneOf(text, Presets()), "there is no preset %q", text)
			return nil
		}
		base, problems := diag.Parse(PresetFile(text), data)
		d.Problems = append(d.Problems, problems...)
		desc.Preset, desc.whole = text, diag.Overlay(withoutBodies(base, user), user)
		for _, e := range user.Get("settings").Entries() {
			if known := base.Get("settings").Keys(); !base.Get("settings").Get(e.Key.Text()).Exists() {
				d.Errorf(e.Key, diag.OneOf(e.Key.Text(), known), "the preset %q has no setting %q", text, e.Key.Text())
			}
		}
	}
	var doc document
	unknownAuth(user, desc.whole, d)
	d.Decode(desc.whole, &doc)
	if desc.whole.Kind() != diag.Map {
		return nil
	}
	for key, value := range map[string]int64{"concurrency": int64(doc.Concurrency), "max_answer": doc.MaxAnswer} {
		if at := desc.whole.Get(key); isWholeNumber(at.Text()) && value < 1 {
			d.Errorf(at, "", "%s must be at least 1", key)
		}
	}
	desc.fill(&doc, d)
	desc.values.Numbers.settle(desc.settings, desc.whole.Get("values").Get("numbers"), d)
	desc.checkZones(d)
	desc.compileBase(&doc, user, d)
	desc.auth.check(desc, user, d)
	if desc.sign != nil {
		desc.sign.check(desc.whole.Get("sign"), d)
	}
	desc.compileOperations(doc.Operations, user, d)
	desc.compileLists(doc.Lists, d)
	desc.compileLabels(&doc, d)
	desc.compileByHand(doc.ByHand, d)
	if doc.RecordURL.Exists() {
		scope := operationScope(Read, desc.settingSchemas())
		scope.Variables["auth"] = settingsScope().Variables["auth"]
		desc.recordURL = compileTemplate(doc.RecordURL, scope, d)
	}
	desc.collectSecrets()
	return desc
}

// withoutBodies takes the bodies out of a preset that the user writes anew: a
// body with the members of both would be nobody's.
func withoutBodies(base, user diag.Node) diag.Node {
	for _, e := range user.Get("operations").Entries() {
		if e.Value.Get("body").Exists() {
			nothing, _ := diag.Parse("", []byte("operations: {"+strconv.Quote(e.Key.Text())+": {body: null}}"))
			if base.Get("operations").Get(e.Key.Text()).Kind() == diag.Map {
				base = diag.Overlay(base, nothing)
			}
		}
	}
	return base
}

func (desc *Description) fill(doc *document, d *diag.Decoding) {
	desc.auth, desc.sign, desc.headers, desc.values, desc.folds = doc.Auth, doc.Sign, doc.Headers, doc.Values, doc.Fold
	desc.timeout = cmp.Or(doc.Timeout, defaultTimeout)
	desc.settle, desc.findLag = defaultSettle, doc.FindLag
	if desc.whole.Get("settle").Exists() {
		desc.settle = doc.Settle
	}
	desc.parallel = cmp.Or(doc.Concurrency, defaultConcurrency)
	desc.batch = doc.Batch
	if !desc.whole.Get("batch").Exists() {
		desc.batch.Wait = defaultBatchWait
	}
	desc.limits, desc.reports, desc.budget = doc.Limits, doc.Reports, doc.Budget
	desc.maxAnswer = cmp.Or(doc.MaxAnswer, int64(defaultMaxAnswer))
	desc.errors, desc.rowErrors = doc.Error, doc.RowError
	desc.formerly, desc.also, desc.objects = doc.Formerly, doc.Also, doc.Objects
	desc.observes = doc.Write != nil && !*doc.Write
	desc.compileSafety(doc, d)
	desc.classify, desc.rowRules = doc.Classify, doc.ClassifyRows
	desc.settings = map[string]any{}
	for _, e := range doc.Settings.Entries() {
		desc.settings[e.Key.Text()] = setting(e.Value, d)
	}
}

// checkZones reports time zones that there are not, where they are named.
func (desc *Description) checkZones(d *diag.Decoding) {
	check := func(n diag.Node, t *template) {
		if t == nil {
			return
		}
		for _, p := range t.parts {
			if p.leaf != nil && p.leaf.setting != "" {
				n = desc.whole.Get("settings").Get(p.leaf.setting)
			}
		}
		text := t.settings(desc)
		if _, err := time.LoadLocation(text); err != nil || text == "" {
			d.Errorf(n, "write it as Europe/Berlin, or UTC", "%q is no time zone", text)
		}
	}
	if desc.budget != nil {
		check(desc.budget.Zone, desc.budget.zone)
	}
	for _, rules := range [][]rule{desc.classify, desc.rowRules} {
		for i := range rules {
			if w := rules[i].Wait; w != nil {
				check(w.Midnight, w.zone)
			}
		}
	}
	for i := range desc.reports {
		if w := desc.reports[i].Wait; w != nil {
			check(w.Midnight, w.zone)
		}
	}
}

// setting is the value of a setting. Only whole numbers and booleans are no
// texts: a version such as 68.0 must keep its zero.
func setting(n diag.Node, d *diag.Decoding) any {
	switch n.Kind() {
	case diag.Map:
		d.Decode(n, &map[string]diag.Node{}) // says what is wrong with its keys
		m := map[string]any{}
		for _, e := range n.Entries() {
			m[e.Key.Text()] = setting(e.Value, d)
		}
		return m
	case diag.List:
		l := make([]any, 0, len(n.Items()))
		for _, item := range n.Items() {
			l = append(l, setting(item, d))
		}
		return l
	case diag.Scalar:
		switch v := n.Plain().(type) {
		case bool, int64:
			return v
		}
		text, _ := d.Scalar(n)
		return text
	}
	return nil
}

// settingSchemas are the types of the settings for expressions.
func (desc *Description) settingSchemas() map[string]mappers.Schema {
	out := map[string]mappers.Schema{}
	for name, v := range desc.settings {
		s := mappers.Schema{Kind: mappers.Text}
		switch v.(type) {
		case bool:
			s.Kind = mappers.Bool
		case int64:
			s.Kind = mappers.Integer
		case map[string]any:
			s.Kind = mappers.Map
		case []any:
			s.Kind = mappers.List
		case nil:
			s.Kind = mappers.Any
		}
		out[name] = s
	}
	return out
}

// Show names values that stand in the config: where a target refuses one of these its reason may say so. It is called
// before the description is used.
func (desc *Description) Show(constants []string) {
	desc.shown = make(map[string]bool, len(constants))
	for _, c := range constants {
		desc.shown[c] = true
	}
}

// Supports reports whether the description has the operation. One whose operations
// have problems passes for having all: these are what has to be mended first.
func (desc *Description) Supports(op Operation) bool {
	return desc.unsure || len(desc.operations[op]) > 0 || op == List && len(desc.lists) > 0
}

// Clears reports whether a field can be blanked.
func (desc *Description) Clears() bool { return desc.values.Blank != "none" }

// Labels reports whether links can carry a label, role or field (`as`).
func (desc *Description) Labels() bool { return desc.reads(Link, "link.as") }

// LinksOnCreate reports whether a create can carry the links of its record.
func (desc *Description) LinksOnCreate() bool { return desc.reads(Create, "record.links") }

// reads reports whether an expression of the operation mentions text.
func (desc *Description) reads(op Operation, text string) bool {
	for _, o := range desc.operations[op] {
		for _, l := range o.leaves() {
			if strings.Contains(l.text, text) {
				return true
			}
		}
	}
	return false
}

// isWholeNumber is false where something else is wrong with a number already.
func isWholeNumber(text string) bool {
	_, err := strconv.ParseInt(text, 10, 64)
	return err == nil
}
