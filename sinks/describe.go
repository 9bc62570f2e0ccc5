package sinks

import (
	"cmp"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"partnersync/internal/secret"
)

// Secrets are the secrets of the description, to be hidden in texts that come from elsewhere.
func (d *Description) Secrets() []secret.String { return slices.Clone(d.secrets) }

// LeastTime is the least time that writing so many rows takes under the limits
// of the target, each request full.
func (d *Description) LeastTime(rows int64) time.Duration {
	most, steps := int64(1), []Operation{Upsert}
	for _, o := range d.operations[Upsert] {
		most = max(most, int64(o.rows))
		if o.through {
			steps = []Operation{Find, Update}
		}
	}
	requests := (rows + most - 1) / most
	var least time.Duration
	for _, l := range d.limits {
		for _, op := range steps {
			if len(l.Operations) == 0 || slices.Contains(l.Operations, op) {
				least = max(least, time.Duration(float64(requests)/float64(l.Requests)*float64(l.Per)))
			}
		}
	}
	return least
}

// Whole reports whether every request carries all that is wanted of a record,
// not just what has changed.
func (s *Sink) Whole() bool { return s.desc.values.Whole }

// CarriesLinks reports how the rows of an operation can take links along: to
// records whose id is known, and to records that the target finds by our key.
func (d *Description) CarriesLinks(op Operation) (byID, byKey bool) {
	ways := d.operations[op]
	if len(ways) > 0 && ways[0].through {
		byID, byKey = d.CarriesLinks(Update)
		createID, createKey := d.CarriesLinks(Create)
		return byID && createID, byKey && createKey
	}
	return d.reads(op, "record.links"), d.reads(op, "record.links") && d.reads(op, "item.key")
}

// Lacks tells why no row like this one can be written by the operation, whatever its values are; "" where one
// can. Conditions that ask more of a value than whether it is there are not held against it.
func (d *Description) Lacks(op Operation, row Row) string {
	u := &unit{row: &row}
	way, _ := d.way(op, u)
	switch {
	case d.unsure:
		return ""
	case way == nil:
		return unsupported(op)
	case way.through && row.ID != "":
		return unsupported(op)
	case way.through && op == Upsert:
		return cmp.Or(d.Lacks(Find, row), d.Lacks(Create, row))
	case way.through:
		return d.Lacks(Find, row)
	}
	r := &rendering{d: d, op: op, units: []*unit{u}}
	for _, n := range way.needs {
		if n.link || !n.general() {
			continue
		}
		switch err := n.lacks(r, u); {
		case err != nil && n.leaf.text == "record.property":
			return "its key is local, and a record is found by a property alone"
		case err != nil:
			return err.Error()
		}
	}
	return ""
}

var (
	asksPresence = regexp.MustCompile(`\bhas\(record\.(values|fields|others)(\.\w+|, *"[^"]*")\)`)
	asksValue    = regexp.MustCompile(`\brecord\.(values|fields|others|key|trace|event)\b|\.value\b|\brecord\.id matches\b`)
)

// general reports whether a need is about the kind of a row: its object, its id, what it carries.
func (n *need) general() bool {
	return n.says == "" && n.leaf.plain != nil || !asksValue.MatchString(asksPresence.ReplaceAllString(n.leaf.text, ""))
}

// CannotLink tells why no link from records of an object to those of another can be sent; "" where it can. With
// create it is one that goes along with the request that makes its record; where only that cannot take it, later
// says that it is made afterwards.
func (d *Description) CannotLink(create bool, from, to, as string, remove bool) (why string, later bool) {
	if d.unsure {
		return "", false
	}
	op := Link
	if remove {
		op = Unlink
	}
	ref := func(object string) Ref { return Ref{Object: object, Property: "x", Key: "x", ID: "1"} }
	why = d.refusesLink(op, &unit{link: &LinkRow{From: ref(from), To: ref(to), As: as, Remove: remove}})
	if !create || remove || !d.LinksOnCreate() {
		return why, false
	}
	row := Row{Object: from, Property: "x", Key: "x", Links: []RowLink{{Object: to, Property: "x", Key: "x", ID: "1", As: as}}}
	made := d.refusesLink(Create, &unit{row: &row})
	return made, made != "" && why == ""
}

// asksWhich are needs about what the ends of a link are, which nobody knows before there are some.
var asksWhich = regexp.MustCompile(`\.(id|key)\b`)

// refusesLink renders a request with a link of no particular records, and tells why that cannot be.
func (d *Description) refusesLink(op Operation, u *unit) string {
	way, _ := d.way(op, u)
	if way == nil {
		return unsupported(op)
	}
	r := &rendering{d: d, op: op, units: []*unit{u}, failed: map[*unit]error{}}
	for _, n := range way.needs {
		if n.says == "" || asksWhich.MatchString(n.leaf.text) || u.row != nil && !n.link {
			continue
		}
		if err := n.lacks(r, u); err != nil {
			return err.Error()
		}
	}
	if way.body != nil {
		if _, _, err := r.appendBody(nil, way.body, u, nil); errors.Is(err, errNoName) || errors.Is(r.failed[u], errNoName) {
			return errNoName.Error()
		}
	}
	return ""
}

// Replaces reports whether making the link takes the place of the record's
// former one with the same role: then that need not, and must not, be removed.
func (s *Sink) Replaces(row LinkRow) bool {
	u := &unit{link: &row}
	way, _ := s.desc.way(Link, u)
	if way == nil || way.replaces == nil {
		return false
	}
	v, err := way.replaces.value(&rendering{d: s.desc, op: Link, units: []*unit{u}}, u, nil)
	return err == nil && v == true
}

// LinkField is the property in which a record shows the other end of a link; "" where none does.
func (d *Description) LinkField(from, to, as string) string {
	u := &unit{link: &LinkRow{From: Ref{Object: from, ID: "1"}, To: Ref{Object: to, ID: "1"}, As: as}}
	way, _ := d.way(Link, u)
	if way == nil || way.field == nil {
		return ""
	}
	v, err := way.field.value(&rendering{d: d, op: Link, units: []*unit{u}}, u, nil)
	name, _ := v.(string)
	if err != nil {
		return ""
	}
	return name
}

// replaces reports whether any link may take the place of another.
func (d *Description) replaces() bool {
	return slices.ContainsFunc(d.operations[Link], func(o *operation) bool { return o.replaces != nil })
}

// Repeatable reports whether the operation may be sent twice without harm.
func (s *Sink) Repeatable(op Operation) bool {
	ways := s.desc.operations[op]
	return len(ways) > 0 && !slices.ContainsFunc(ways, func(o *operation) bool { return !o.repeatable })
}

// Also are the properties that hold further values of another, by the name of that.
func (d *Description) Also() map[string][]string { return d.also }

// Also is that of the description.
func (s *Sink) Also() map[string][]string { return s.desc.Also() }

// Writes reports whether the sink writes: one that does not observes what it would.
func (d *Description) Writes() bool { return !d.observes }

// Formerly lists the names that the sink had before: what is known under them is its own.
func (d *Description) Formerly() []string { return slices.Clone(d.formerly) }

// Formerly is that of the description.
func (s *Sink) Formerly() []string { return s.desc.Formerly() }

// UniqueKeys reports whether the target itself sees to it that no two records have one key: not one in which
// records have to be looked for before they are made.
func (s *Sink) UniqueKeys() bool {
	return !slices.ContainsFunc(s.desc.operations[Upsert], func(o *operation) bool { return o.through })
}

// TokenPath is the path of the token endpoint where that has an address of its
// own, apart from base_url; "" otherwise.
func (d *Description) TokenPath() string {
	u, err := url.Parse(d.auth.tokenURL)
	if err != nil || d.auth.tokenURL == "" || strings.HasPrefix(d.auth.tokenURL, d.base.origin) {
		return ""
	}
	return u.Path
}
