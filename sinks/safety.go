package sinks

import "partnersync/internal/diag"

// Guard is how many rows a sink may send within an hour; nil is any.
type Guard struct {
	Creates    *int `yaml:"creates_per_hour"`
	Overwrites *int `yaml:"overwrites_per_hour"` // rows that change a record that is there
	Archives   *int `yaml:"archives_per_hour"`
}

// compileSafety reads what keeps a sink from doing harm: guard, account, write.
func (desc *Description) compileSafety(doc *document, d *diag.Decoding) {
	desc.guard = doc.Guard
	for _, n := range []*int{doc.Guard.Creates, doc.Guard.Overwrites, doc.Guard.Archives} {
		if n != nil && *n < 0 {
			d.Errorf(desc.whole.Get("guard"), "write how many rows an hour may have, 0 for none, or leave it out", "a guard cannot be less than 0")
			break
		}
	}
	operations := desc.whole.Get("operations")
	if at := doc.Account; at.Exists() {
		desc.account, _ = d.Scalar(at)
		if !operations.Get(string(WhoAmI)).Exists() {
			d.Errorf(at, "leave it out, or describe the operation whoami", "the sink does not tell of which account its credentials are")
		}
	}
	if desc.observes && !operations.Get(string(Read)).Exists() {
		d.Warnf(desc.whole.Get("write"), "", "the sink does not show what it has: nobody can tell what would be overwritten, or is there already")
	}
}

// Guard is how much the sink may write within an hour.
func (d *Description) Guard() Guard { return d.guard }

// Account is the only account that the sink may write to; "" where the config does not say.
func (d *Description) Account() string { return d.account }

// compileLabels reads the names that mappings have for fields, and the labels that these have in the target.
func (desc *Description) compileLabels(doc *document, d *diag.Decoding) {
	desc.ownField = doc.OwnField
	if !doc.Fields.Exists() {
		return
	}
	var raw map[string]map[string]string
	d.Decode(doc.Fields, &raw)
	if !desc.whole.Get("operations").Get(string(Describe)).Exists() {
		d.Errorf(doc.Fields, "name the fields in the mappings as the target does", "the sink does not tell the labels of its fields")
	}
	desc.labels = map[string]map[string]string{}
	for _, e := range doc.Fields.Entries() {
		object, known := desc.Object(e.Key.Text())
		if !known {
			d.Errorf(e.Key, diag.OneOf(e.Key.Text(), desc.Objects()), "the sink has no object %q", e.Key.Text())
			continue
		}
		desc.labels[object] = raw[e.Key.Text()]
		seen := map[string]string{}
		for _, one := range e.Value.Entries() {
			label := one.Value.Text()
			if before := seen[label]; before != "" {
				d.Errorf(one.Value, "", "%s and %s are one field", before, one.Key.Text())
			}
			seen[label] = one.Key.Text()
		}
	}
}

// FieldLabels are the labels that fields have in the target, by object and the name that mappings have for the field.
func (d *Description) FieldLabels() map[string]map[string]string { return d.labels }

// FieldsAt is where FieldLabels stand in the config.
func (d *Description) FieldsAt() diag.Node { return d.whole.Get("fields") }

// OwnField is what the name of a field of one's own looks like; "" where any name will do.
func (d *Description) OwnField() string { return d.ownField }
