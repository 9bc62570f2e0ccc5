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
