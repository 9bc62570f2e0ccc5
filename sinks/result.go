package sinks

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"partnersync/internal/diag"
)

// resultRules say how an answer tells what became of each row.
type resultRules struct {
	Mode    string     `yaml:"mode"` // status, ordered, correlated, found
	Results listing    `yaml:"results"`
	Errors  listing    `yaml:"errors"`
	Expect  *condition `yaml:"expect"`   // holds in every answer that means success
	Next    *path      `yaml:"next"`     // what request.cursor is for the next page; of search: there only where there is one
	NextURL *path      `yaml:"next_url"` // of a list: the address of the next page
	More    *condition `yaml:"more"`     // there are more than the answer has
	Limit   int        `yaml:"limit"`    // there may be more where the answer has so many
	Join    *joinRule  `yaml:"join"`     // of a list: what its entries take from another one

	property *leaf // see listing.Property
}

// The modes.
const (
	modeStatus     = "status"     // the status is that of every row; errors may name some that were refused
	modeOrdered    = "ordered"    // one element for each row, in the order of the request
	modeCorrelated = "correlated" // elements name their row
	modeFound      = "found"      // of a search: the elements are the records found, which name their row if there can be several
	modeFields     = "fields"     // of describe: the elements are fields
	modeEntries    = "entries"    // of a list, and of options: the elements are entries
)

// listing is a list of an answer and what its elements say.
type listing struct {
	At      places          `yaml:"at"`
	Is      map[string]path `yaml:"is"` // where the element names its row: trace, id, key
	ID      extract         `yaml:"id"`
	Shows   extract         `yaml:"shows"` // of find: the value that was searched; an element that shows another is not the record
	Made    *path           `yaml:"made"`  // of search and read: when the record was made
	Then    Operation       `yaml:"then"`  // of find and search: read, where elements do not show whether they are the record
	Created *condition      `yaml:"created"`
	OK      *condition      `yaml:"ok"` // under ordered: the row was accepted
	Values  *shownRules     `yaml:"values"`

	Field  *fieldRules `yaml:"field"`  // of describe: where an element holds what
	Entry  *entryRules `yaml:"entry"`  // of a list, and of options
	Scopes extract     `yaml:"scopes"` // of scopes: their names

	Property diag.Node `yaml:"property"` // what {property} stands for; the rows' key property where it is not set
}

func (r *resultRules) check(op Operation, n diag.Node, d *diag.Decoding) {
	modes := []string{modeStatus, modeOrdered, modeCorrelated, modeFound, modeFields, modeEntries}
	if r.Mode == "" {
		r.Mode = modeStatus
	}
	switch {
	case !slices.Contains(modes, r.Mode):
		d.Errorf(n.Get("mode"), diag.OneOf(r.Mode, modes), "unknown mode %q", r.Mode)
	case r.Mode == modeFound && !op.looks():
		d.Errorf(n.Get("mode"), "", "only find, search and read can have the mode %q", r.Mode)
	case r.Results.Then != "" && (r.Results.Then != Read || op != Search && op != Find || r.Mode != modeFound):
		d.Errorf(n.Get("results").Get("then"), "write it as then: read", "what follows a find or a search, of the mode found, is a read")
	case op == Search && (r.Mode != modeFound || r.Results.Values == nil && r.Results.Then == "" || r.Results.ID == nil):
		d.Errorf(n, "add mode: found, and to the results id and values", "a search shows what it has found")
	case op == Read && r.Results.Values == nil:
		d.Errorf(n, "add values to the results", "a read shows the values of a record")
	case op != Search && op != Find && !op.lists() && (r.More != nil || r.Limit != 0):
		d.Errorf(n, "", "only find, search and lists have `more` and `limit`")
	case op != Search && op != Read && r.Results.Made != nil:
		d.Errorf(n.Get("results").Get("made"), "", "only search and read have `made`")
	case r.Mode != modeStatus && r.Results.At == nil:
		d.Errorf(n, "add results: {at: ...}", "the mode %q needs the place of the results", r.Mode)
	case r.Mode == modeCorrelated && len(r.Results.Is) == 0:
		d.Errorf(n, "add is: {trace: ...} to the results", "the mode %q needs to know how results name their row", r.Mode)
	case len(r.Results.Shows) > 0 && r.Mode != modeFound:
		d.Errorf(n.Get("results").Get("shows"), "", "only find shows what was searched")
	case r.Results.Values != nil && op != Upsert && op != Update && op != Create && !op.looks():
		d.Errorf(n.Get("results").Get("values"), "", "only upsert, update, create, find, search and read show values")
	default:
		r.checkFields(op, n, d)
	}
	for _, l := range []diag.Node{n.Get("results"), n.Get("errors")} {
		for _, e := range l.Get("is").Entries() {
			if name := e.Key.Text(); !slices.Contains([]string{"trace", "id", "key", "from", "to"}, name) {
				d.Errorf(e.Key, "one of: trace, id, key; of a link from and to", "a row has no %q", name)
			}
		}
		if is := l.Get("is"); is.Get("from").Exists() != is.Get("to").Exists() {
			d.Errorf(is, "say where both ends stand", "a link is named by from and to")
		}
	}
}

func (r *resultRules) outline(o *outline, rowErrors []extract) {
	r.Expect.outline(o)
	r.More.outline(o)
	for _, next := range []*path{r.Next, r.NextURL} {
		if next != nil {
			o.add(*next)
		}
	}
	if r.Results.At == nil {
		for _, e := range []extract{r.Results.ID, r.Results.Scopes} {
			e.outline(o)
		}
		r.Results.Created.outline(o)
		r.Results.Values.outline(o)
	}
	for _, l := range []*listing{&r.Results, &r.Errors} {
		if l.At == nil {
			continue
		}
		for _, at := range l.At {
			below := []path{at, everyElement()}
			for _, p := range l.Is {
				o.add(append(below, p)...)
			}
			l.ID.outline(o, below...)
			l.Shows.outline(o, below...)
			if l.Made != nil {
				o.add(append(below, *l.Made)...)
			}
			l.Created.outline(o, below...)
			l.OK.outline(o, below...)
			l.Values.outline(o, below...)
			l.Field.outline(o, below...)
			l.Entry.outline(o, below...)
			for _, e := range rowErrors {
				e.outline(o, below...)
			}
		}
	}
}

// outcome is a Result with what the engine itself makes of it.
type outcome struct {
	Result
	stop   bool // the whole request failed: what follows is not sent either
	again  bool // not at fault: send again with the others that were not
	unlink bool // a link that it carries may be at fault

	crowded bool      // the answer has no room for all that its rows have found
	doubted []string  // ids of records that were found, of which a read tells whether they are what was looked for
	made    time.Time // of read: when the record was made, where the answer shows it
}

// unknown is the code of an answer that does not say what became of a row.
const unknown = "unknown_answer"

// read tells the outcome of each unit. It never returns fewer than there are.
func (s *Sink) read(o *operation, units []*unit, a *answer, v verdict) []outcome {
	out := make([]outcome, len(units))
	if v.class == OK {
		s.readRows(out, o, units, a)
	} else {
		s.refuse(out, o, units, a, v)
	}
	for i := range out {
		out[i].Sent = out[i].Sent || a.again && out[i].Class != OK // it may have had its effect the first time
	}
	return out
}

// readRows tells the outcomes that an answer with a success holds.
func (s *Sink) readRows(out []outcome, o *operation, units []*unit, a *answer) {
	a.property = s.propertyIn(o, units)
	requestID := s.clean(s.desc.errors.RequestID.one(a, nil, ""))
	for i := range out {
		out[i].Status, out[i].RequestID = a.status, requestID
	}
	r := &o.result
	if a.tree == nil && r.wantsBody(a) {
		s.fail(out, units, a, "the answer "+cmp.Or(a.fault, "is empty"))
		return
	}
	if r.Expect != nil && (!a.empty || r.Expect.Path == nil) && !r.Expect.holds(a, a.tree, a.property) {
		s.fail(out, units, a, "the answer has a shape that the description does not know")
		return
	}
	switch r.Mode {
	case modeOrdered:
		s.readOrdered(out, o, units, a)
	case modeCorrelated:
		s.readCorrelated(out, o, units, a)
	case modeFound:
		s.readFound(out, o, units, a)
	case modeFields, modeEntries:
		out[0].Class = OK // who asked reads them
	default:
		s.readStatus(out, o, units, a)
	}
}

// wantsBody reports whether a success without a readable body is none.
func (r *resultRules) wantsBody(a *answer) bool {
	if a.status == 204 && (r.Mode == modeStatus || r.Mode == modeFound || r.Mode == modeEntries) {
		return false
	}
	if r.Mode != modeStatus {
		return true
	}
	for _, s := range slices.Concat(r.Results.ID, r.Results.Scopes) {
		if s.Path != nil && s.Header == "" {
			return true
		}
	}
	return r.Expect != nil || r.Errors.At != nil
}

// refuse gives every row the class of the request.
func (s *Sink) refuse(out []outcome, o *operation, units []*unit, a *answer, v verdict) {
	e := &s.desc.errors
	base := outcome{stop: true}
	base.Class, base.Status, base.RetryAfter = v.class, a.status, v.wait
	s.quote(&base, e, a, a.tree, v.codes)
	base.RequestID = s.clean(e.RequestID.one(a, a.tree, ""))
	message := strings.Join(e.Message.first(a, a.tree, ""), "; ")
	if message == "" {
		message = describe(a)
	}
	base.Message = s.cleanOf(a, s.tell(e.withScopes(message, a, a.tree)))
	if v.class == Held && v.renews(a.status) {
		base.Refused = "token"
	}
	base.Sent = v.inDoubt(a.status)
	if v.rule != nil {
		base.Absent = v.rule.Absent
	}
	switch {
	case v.class == Split || v.class == Rejected:
		base.stop = false
	case v.class == Conflict:
		base.stop = false
		if len(units) > 1 {
			base.Class = Split // whose conflict it is shows only alone
		}
	}
	if v.rule != nil && v.rule.Scope == scopeLink {
		base.unlink = true
		if len(units) > 1 {
			base.Class = Split
		}
	}
	scoped := v.rule != nil && v.rule.Scope == scopeField && len(units) > 1
	carriers := 0
	for i, u := range units {
		out[i] = base
		out[i].blame(v.rule, u)
		if scoped && u.carries(base.Fields) {
			carriers++
		} else if scoped {
			out[i] = outcome{again: true}
		}
	}
	if scoped && carriers == 0 {
		for i := range out {
			out[i] = base
			out[i].Class, out[i].again = Split, false
		}
	}
}

// withScopes adds the names of the scopes that are missing, where a refusal has them apart from its words.
func (e *refusal) withScopes(message string, a *answer, tree any) string {
	var missing []string
	for _, scope := range e.Scope.all(a, tree, "") {
		if !strings.Contains(message, scope) && !slices.Contains(missing, scope) {
			missing = append(missing, scope)
		}
	}
	if len(missing) == 0 {
		return message
	}
	return strings.TrimSuffix(message, ".") + ": " + strings.Join(missing, ", ")
}

// quote takes over what a refusal names.
func (s *Sink) quote(out *outcome, e *refusal, a *answer, tree any, codes []string) {
	if len(codes) > 0 {
		out.Code = s.clean(codes[0])
	}
	for _, name := range e.Field.first(a, tree, "") {
		if name = s.clean(name); len(out.Fields) < maxNamed && !slices.Contains(out.Fields, name) {
			out.Fields = append(out.Fields, name)
		}
	}
	out.Existing = s.clean(e.Existing.one(a, tree, ""))
	allowed := e.Allowed.first(a, tree, "")
	for _, value := range allowed[:min(len(allowed), maxAllowed)] {
		out.Allowed = append(out.Allowed, s.clean(value))
	}
}

// maxAllowed is how many of the values that a target would take are kept, maxNamed how many of
// the fields that it refuses.
const (
	maxAllowed = 100
	maxNamed   = 100
)

// blame names the fields of a row that a rule is about, where the answer names none.
func (o *outcome) blame(r *rule, u *unit) {
	if r != nil && len(o.Fields) == 0 {
		o.Fields = u.among(r.Carries)
	}
}

// carries reports whether the row has a value for any of the fields, has it for
// its key, or looks for it.
func (u *unit) carries(fields []string) bool {
	if u.row == nil {
		return false
	}
	for _, f := range fields {
		if _, has := u.row.Values[f]; has && !u.omit[f] || f == u.row.Property {
			return true
		}
		if slices.Contains(u.row.Read, f) || slices.ContainsFunc(u.row.Terms, func(t Term) bool { return t.Property == f }) {
			return true
		}
	}
	return false
}

// among are those of the fields for which the row has a value.
func (u *unit) among(fields []string) []string {
	var out []string
	for _, f := range fields {
		if u.carries([]string{f}) {
			out = append(out, f)
		}
	}
	return out
}

// fail marks rows of which nobody knows what became. What the target says besides
// is kept: a success may be none.
func (s *Sink) fail(out []outcome, units []*unit, a *answer, message string) {
	if words := strings.Join(s.desc.errors.Message.first(a, a.tree, ""), "; "); words != "" {
		message = s.tell(message + ": " + words)
	}
	message = s.cleanOf(a, message)
	for i := range out {
		out[i].Class, out[i].Code, out[i].Message, out[i].Sent = Unavailable, unknown, message, true
	}
}

func (s *Sink) readStatus(out []outcome, o *operation, units []*unit, a *answer) {
	l := &o.result.Results
	id := ""
	if l.At == nil && len(l.ID) > 0 {
		if id = l.ID.one(a, a.tree, a.property); id == "" {
			s.fail(out, units, a, "the answer does not name the record")
			return
		}
	}
	created := o.name == Create || l.Created != nil && l.Created.holds(a, a.tree, a.property)
	for i := range out {
		out[i].Class, out[i].ID, out[i].Created = OK, id, created
	}
	if l.At == nil && len(units) == 1 {
		out[0].Kept = s.keptOf(l.Values, units[0], a.tree)
		s.see(&out[0], o, units[0], sighting{id, a.tree})
	}
	s.readErrors(out, o, units, a, func(i int) bool { return true })
}

func (s *Sink) readOrdered(out []outcome, o *operation, units []*unit, a *answer) {
	l := &o.result.Results
	rows, _ := l.At.at(a.tree, "").([]any)
	if len(rows) != len(units) {
		s.fail(out, units, a, "the answer does not tell what became of each row")
		return
	}
	for i, row := range rows {
		if row == nil && o.name == Read {
			out[i].absent(Read)
			continue
		}
		if l.OK != nil && !l.OK.holds(a, row, "") {
			s.refuseRow(&out[i], o, units[i], a, row)
			continue
		}
		s.accept(&out[i], o, units[i], a, row)
	}
}

// accept reads the element of a row that was written.
func (s *Sink) accept(out *outcome, o *operation, u *unit, a *answer, row any) {
	l := &o.result.Results
	out.Class, out.ID = OK, l.ID.one(a, row, a.property)
	out.Created = o.name == Create || l.Created != nil && l.Created.holds(a, row, a.property)
	out.Kept = s.keptOf(l.Values, u, row)
	s.see(out, o, u, sighting{out.ID, row})
	if len(l.ID) > 0 && out.ID == "" {
		out.Class, out.Code, out.Message, out.Sent = Unavailable, unknown, "the answer does not name the record", true
	}
}

// refuseRow reads the element of a row that was refused.
// Its words are about the row, or about one of several that it may be.
func (s *Sink) refuseRow(out *outcome, o *operation, u *unit, a *answer, row any, about ...*unit) {
	if about == nil {
		about = []*unit{u}
	}
	e := &s.desc.rowErrors
	codes := e.Code.all(a, row, "")
	message := strings.Join(e.Message.first(a, row, ""), "; ")
	s.quote(out, e, a, row, codes)
	class, r := s.desc.judgeRow(o.name, a, said{codes, out.Fields, message, row, []*unit{u}})
	out.Class = class
	out.blame(r, u)
	told := s.tell(e.withScopes(cmp.Or(message, "refused without a reason"), a, row))
	out.Message = short(scrub(told, s.desc.needles(about)), maxMessage)
	if r != nil {
		out.Absent, out.unlink = r.Absent, r.Scope == scopeLink
		out.RetryAfter = r.Wait.duration(s.desc, a, s.now())
	}
}

func (s *Sink) readCorrelated(out []outcome, o *operation, units []*unit, a *answer) {
	l := &o.result.Results
	rows := newDirectory(s, units)
	list, isList := l.At.at(a.tree, "").([]any)
	for _, element := range list {
		for _, i := range rows.named(l.Is, element, a.property) {
			s.accept(&out[i], o, units[i], a, element)
		}
	}
	if _, traced := l.Is["trace"]; traced && len(units) == 1 && len(list) == 1 && l.anonymous(list[0], a.property) {
		s.accept(&out[0], o, units[0], a, list[0]) // who else can it be
	}
	if !isList && o.result.Errors.At == nil {
		s.fail(out, units, a, "the answer has a shape that the description does not know")
		return
	}
	s.readErrors(out, o, units, a, func(i int) bool { return out[i].Class == "" })
	for i := range out {
		if out[i].Class == "" {
			s.fail(out[i:i+1], units[i:i+1], a, "the answer says nothing about this row")
		}
	}
}

// anonymous reports whether an element says nothing of whose it is.
func (l *listing) anonymous(element any, property string) bool {
	for _, p := range l.Is {
		if len(p.texts(element, property, nil)) > 0 {
			return false
		}
	}
	return true
}

// readErrors gives the rows that errors name their refusal. Errors that name
// nobody are of one of the rows for which open holds: when there is but one it
// is that, else those rows are parted to find out.
func (s *Sink) readErrors(out []outcome, o *operation, units []*unit, a *answer, open func(int) bool) {
	l := &o.result.Errors
	if l.At == nil {
		return
	}
	list, _ := l.At.at(a.tree, "").([]any)
	if len(list) == 0 {
		return
	}
	rows := newDirectory(s, units)
	var nobody []any
	for _, element := range list {
		named := rows.named(l.Is, element, a.property)
		if len(named) == 0 {
			nobody = append(nobody, element)
		}
		for _, i := range named {
			status, id := out[i].Status, out[i].RequestID
			out[i] = outcome{}
			out[i].Status, out[i].RequestID = status, id
			s.refuseRow(&out[i], o, units[i], a, element)
		}
	}
	if len(nobody) == 0 {
		return
	}
	var left []int
	for i := range out {
		if open(i) && (out[i].Class == "" || out[i].Class == OK) {
			left = append(left, i)
		}
	}
	for _, i := range left {
		status, id := out[i].Status, out[i].RequestID
		out[i] = outcome{}
		out[i].Status, out[i].RequestID = status, id
		s.refuseRow(&out[i], o, units[i], a, nobody[0], a.units...)
		if len(left) > 1 && o.repeatable {
			out[i].Class = Split
		}
	}
}

// describe puts an answer without a message of its own into words.
func describe(a *answer) string {
	text := "the target answered " + statusText(a.status)
	switch {
	case a.status > 300 && a.status < 400: // 300 is none
		text += ": redirects are not followed, the address of the sink has to be the final one"
	case a.text != "":
		text += ": " + a.text
	case a.fault != "":
		text += ", and the answer " + a.fault
	}
	return text
}

// maxMessage is how much of a target's words is kept, in characters.
const maxMessage = 500

// clean makes a target's words fit to be shown: no secrets, no control
// characters, no novels.
func (s *Sink) clean(message string) string { return short(s.tell(message), maxMessage) }

// maxTold is how much of it is looked at.
const maxTold = 32 << 10

// cleanOf is clean for words about a whole request: what we sent of any of its rows is hidden, too. What
// is hidden is hidden before the words are cut, since half a secret is one.
func (s *Sink) cleanOf(a *answer, told string) string {
	return short(scrub(told, s.desc.needles(a.units)), maxMessage)
}

// signedToken is a JWT: one that we sign to ask for a token is known to nobody else.
var signedToken = regexp.MustCompile(`\beyJ[\w-]{5,}\.[\w-]+\.[\w-]*`)

// tell is what cleanOf begins with.
func (s *Sink) tell(message string) string {
	message = s.redactor.Redact(strings.ToValidUTF8(message, "\uFFFD"))
	message = signedToken.ReplaceAllString(message, "<secret>")
	return short(withoutControls(message), maxTold)
}

func withoutControls(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

func short(text string, most int) string {
	if utf8.RuneCountInString(text) > most {
		text = string([]rune(text)[:most]) + "…"
	}
	return strings.TrimSpace(text)
}
