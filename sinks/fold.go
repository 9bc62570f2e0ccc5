package sinks

import (
	"slices"
	"strings"

	"partnersync/internal/diag"
)

// foldRules say how keys and values compare, by property; "*" is any other.
type foldRules map[string]string

// folds are the forms in which values compare.
var folds = map[string]func(string) string{
	"none":   func(text string) string { return text },
	"lower":  strings.ToLower,
	"email":  func(text string) string { return strings.ToLower(strings.TrimSpace(text)) },
	"domain": foldDomain,
}

// DecodeNode reads one rule for all properties, or a map.
func (f *foldRules) DecodeNode(n diag.Node, d *diag.Decoding) {
	*f = foldRules{}
	check := func(n diag.Node, property string) {
		text, ok := d.Scalar(n)
		if ok && folds[text] == nil {
			d.Errorf(n, "one of: lower, none, email, domain", "unknown fold %q", text)
		}
		(*f)[property] = text
	}
	if n.Kind() != diag.Map {
		check(n, "*")
		return
	}
	for _, e := range n.Entries() {
		check(e.Value, e.Key.Text())
	}
}

// of is how values of a property compare.
func (f foldRules) of(property string) string {
	if how, ok := f[property]; ok {
		return how
	}
	return f["*"]
}

func (f foldRules) fold(property, key string) string {
	if fold := folds[f.of(property)]; fold != nil {
		return fold(key)
	}
	return key
}

// sought is the value of a term as a target is asked for it: addresses and domains in the form in which they compare. The
// case of others may count to the target.
func (f foldRules) sought(t Term) string {
	if how := f.of(t.Property); how != "email" && how != "domain" {
		return t.Value
	}
	return f.fold(t.Property, t.Value)
}

// foldDomain is the host of an address or URL in lower case, without www. and the dot of the root.
func foldDomain(text string) string {
	text = strings.ToLower(strings.TrimSpace(text))
	if _, after, ok := strings.Cut(text, "://"); ok {
		text = after
	}
	text = strings.TrimPrefix(text, "//")
	if end := strings.IndexAny(text, "/?#"); end >= 0 {
		text = text[:end]
	}
	text = text[strings.LastIndexByte(text, '@')+1:]
	text, _, _ = strings.Cut(text, ":")
	return strings.TrimPrefix(strings.TrimSuffix(text, "."), "www.")
}

// objectRules name the objects of a target: those that it has of its own with the other names that they have, and
// under "*" what the names of others look like.
type objectRules struct {
	names   []string
	of      map[string]string // any name in lower case: the one that counts
	pattern pattern
}

// DecodeNode reads a map of names.
func (r *objectRules) DecodeNode(n diag.Node, d *diag.Decoding) {
	if n.Kind() != diag.Map {
		d.Errorf(n, "write it as objects: {deals: [deal]}", "expected a map of the names of objects")
		return
	}
	r.of = map[string]string{}
	for _, e := range n.Entries() {
		name := e.Key.Text()
		if name == "*" {
			d.Decode(e.Value, &r.pattern)
			continue
		}
		var also []string
		if e.Value.Kind() != diag.Null {
			d.Decode(e.Value, &also)
		}
		r.names = append(r.names, name)
		for _, one := range append(also, name) {
			if other := r.of[strings.ToLower(one)]; other != "" && other != name {
				d.Errorf(e.Value, "", "%q is a name of %s, too", one, other)
			}
			r.of[strings.ToLower(one)] = name
		}
	}
	slices.Sort(r.names)
}

// Object is the name of an object that counts, of those that mean the same, and whether the target can be known to
// have it. Where the description names no objects any may be there.
func (desc *Description) Object(name string) (string, bool) {
	r := &desc.objects
	switch known := r.of[strings.ToLower(name)]; {
	case known != "":
		return known, true
	case r.of == nil:
		return name, true
	}
	return name, r.pattern.Regexp != nil && r.pattern.MatchString(name)
}

// Objects are the names of the objects that the target has of its own, sorted.
func (desc *Description) Objects() []string { return slices.Clone(desc.objects.names) }
