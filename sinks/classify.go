package sinks

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"partnersync/internal/diag"
)

// rule gives a class to the answers, or rows of an answer, that it fits. Every
// key that is set has to fit; of several rules the first that fits counts.
type rule struct {
	Self       diag.Node          `yaml:",node"`
	Status     statuses           `yaml:"status"`
	Code       []string           `yaml:"code,single"` // any of the answer's codes; ABC* is every one that starts so
	Message    *pattern           `yaml:"message"`
	Field      []string           `yaml:"field,single"`   // any of the fields that the answer names
	Has        *path              `yaml:"has"`            // something stands there
	Carries    []string           `yaml:"carries,single"` // a row has a value for any of these fields
	Header     map[string]pattern `yaml:"header"`
	JSON       *bool              `yaml:"json"` // the body is JSON
	Operations []Operation        `yaml:"operations,single"`
	Class      Class              `yaml:"class,required"`
	Wait       *wait              `yaml:"wait"`
	Absent     bool               `yaml:"absent"`    // the record that the row names is not there
	Scope      string             `yaml:"scope"`     // "field", "link": see below
	Renew      *bool              `yaml:"renew"`     // whether a new token may help; a 401 says so
	NoEffect   bool               `yaml:"no_effect"` // the target vouches that such a request changed nothing
}

// The scopes.
const (
	scopeField = "field" // only the rows that carry the named field are meant
	scopeLink  = "link"  // fits rows that carry links: it may be one of those, so the row is sent again without
)

// Token is what rules call the request for an access token.
const Token Operation = "token"

var classes = []Class{OK, Rejected, Split, Conflict, Throttled, Parked, Held, Unavailable, Timeout, Network}

// DecodeNode reads a rule and refuses classes that there are not.
func (r *rule) DecodeNode(n diag.Node, d *diag.Decoding) {
	type plain rule
	d.Decode(n, (*plain)(r))
	if c := n.Get("class"); c.Exists() && !slices.Contains(classes, r.Class) {
		d.Errorf(c, diag.OneOf(string(r.Class), texts(classes)), "unknown class %q", r.Class)
	}
	if s := n.Get("scope"); s.Exists() && r.Scope != scopeField && r.Scope != scopeLink {
		d.Errorf(s, `"field" means only the rows that carry the refused field, "link" those that carry links`, "unknown scope %q", r.Scope)
	}
	checkOperations(r.Operations, n.Get("operations"), d, Token, List)
}

// checkOperations reports those of a list that there are not.
func checkOperations(list []Operation, at diag.Node, d *diag.Decoding, more ...Operation) {
	for i, op := range list {
		if !slices.Contains(operations, op) && !slices.Contains(more, op) {
			place := at
			if items := at.Items(); len(items) > i {
				place = items[i]
			}
			d.Errorf(place, diag.OneOf(string(op), texts(operations)), "unknown operation %q", op)
		}
	}
}

// verdict is what the rules make of an answer.
type verdict struct {
	class Class
	rule  *rule // nil where no rule fits
	codes []string
	wait  time.Duration
}

// judge finds the first rule that fits an answer. codes are further ones that
// the answer is known to have.
func (d *Description) judge(op Operation, a *answer, now time.Time, codes ...string) verdict {
	v := verdict{codes: append(codes, d.errors.Code.all(a, a.tree, "")...)}
	message := strings.Join(d.errors.Message.first(a, a.tree, ""), " ")
	if message == "" {
		message = a.text
	}
	what := said{codes: v.codes, message: message, tree: a.tree, units: a.units}
	what.fields = d.errors.Field.all(a, a.tree, "")
	for i := range d.classify {
		r := &d.classify[i]
		if r.Status.has(a.status) && r.fits(op, a, &what) {
			v.class, v.rule = r.Class, r
			v.wait = r.Wait.duration(d, a, now)
			return v
		}
	}
	v.class = otherwise(op, a.status)
	v.wait = (*wait)(nil).duration(d, a, now)
	return v
}

// otherwise is the class of a status that no rule names.
func otherwise(op Operation, status int) Class {
	switch {
	case op == Token && status < http.StatusInternalServerError && status != http.StatusTooManyRequests:
		return Held
	case status >= 200 && status < 300:
		return OK
	case status == http.StatusTooManyRequests:
		return Throttled
	case status == http.StatusUnauthorized:
		return Held
	case status >= 400 && status < 500:
		return Rejected
	}
	return Unavailable
}

// renews reports whether a new token may help.
func (v *verdict) renews(status int) bool {
	if v.rule != nil && v.rule.Renew != nil {
		return *v.rule.Renew
	}
	return status == http.StatusUnauthorized
}

// forbids reports whether the target, and not a firewall before it, refuses what was asked, not who asked: a scope is
// missing, not a credential.
func (d *Description) forbids(a *answer) bool {
	if a.fault == htmlPage {
		return false
	}
	v := d.judge(WhoAmI, a, time.Time{})
	return a.status == http.StatusForbidden || a.status == http.StatusUnauthorized && !v.renews(a.status)
}

// inDoubt reports whether a request that failed may have been carried out all the same. A target that breaks
// down, or what stands before it, can say so after the fact; only a plain refusal tells that it was not, or the
// preset, which knows its target.
func (v *verdict) inDoubt(status int) bool {
	switch v.class {
	case Unavailable, Timeout, Network:
		return (status >= 500 || status == http.StatusRequestTimeout) && (v.rule == nil || !v.rule.NoEffect)
	}
	return false
}

// judgeRow finds the first rule for rows that fits a refused row.
func (d *Description) judgeRow(op Operation, a *answer, what said) (Class, *rule) {
	for i := range d.rowRules {
		r := &d.rowRules[i]
		if (r.Status == nil || r.Status.has(a.status)) && r.fits(op, a, &what) {
			return r.Class, r
		}
	}
	return Rejected, nil
}

// said is what an answer says of a refusal, and of whom.
type said struct {
	codes, fields []string
	message       string
	tree          any
	units         []*unit
}

func (r *rule) fits(op Operation, a *answer, what *said) bool {
	if op == Token && !slices.Contains(r.Operations, Token) || r.Operations != nil && !slices.Contains(r.Operations, op) {
		return false
	}
	if r.JSON != nil && *r.JSON != a.json {
		return false
	}
	if r.Code != nil && !slices.ContainsFunc(what.codes, r.names) {
		return false
	}
	if r.Message != nil && !r.Message.MatchString(what.message) {
		return false
	}
	if r.Field != nil && !slices.ContainsFunc(r.Field, func(f string) bool { return slices.Contains(what.fields, f) }) {
		return false
	}
	if r.Has != nil && r.Has.at(what.tree, "") == nil {
		return false
	}
	if r.Carries != nil && !slices.ContainsFunc(what.units, func(u *unit) bool { return u.carries(r.Carries) }) {
		return false
	}
	if r.Scope == scopeLink && !slices.ContainsFunc(what.units, (*unit).linked) {
		return false
	}
	for name, p := range r.Header {
		if !p.MatchString(a.header.Get(name)) {
			return false
		}
	}
	return true
}

// names reports whether a code is one that the rule is for.
func (r *rule) names(code string) bool {
	return slices.ContainsFunc(r.Code, func(want string) bool {
		if start, open := strings.CutSuffix(want, "*"); open {
			return strings.HasPrefix(code, start)
		}
		return code == want
	})
}

// statuses is a set of HTTP statuses: 429, "500-599", or a list of both.
type statuses [][2]int

// DecodeNode reads the numbers and ranges.
func (s *statuses) DecodeNode(n diag.Node, d *diag.Decoding) {
	items := n.Items()
	if n.Kind() != diag.List {
		items = []diag.Node{n}
	}
	*s = statuses{}
	for _, item := range items {
		text, ok := d.Scalar(item)
		if !ok {
			continue
		}
		from, to, isRange := strings.Cut(text, "-")
		if !isRange {
			to = from
		}
		low, errLow := strconv.Atoi(strings.TrimSpace(from))
		high, errHigh := strconv.Atoi(strings.TrimSpace(to))
		if errLow != nil || errHigh != nil || low < 100 || high > 599 || low > high {
			d.Errorf(item, "write a number such as 429 or a range such as 500-599", "%q is no HTTP status", text)
			continue
		}
		*s = append(*s, [2]int{low, high})
	}
}

func (s statuses) has(status int) bool {
	for _, r := range s {
		if status >= r[0] && status <= r[1] {
			return true
		}
	}
	return false
}

// wait is how long to wait after an answer: a duration, or where the answer
// says so. A Retry-After header always counts first.
type wait struct {
	Header   string        `yaml:"header"`
	Body     *path         `yaml:"body"`
	Unit     string        `yaml:"unit"`     // of the number there: s (the default) or ms
	Midnight diag.Node     `yaml:"midnight"` // the next one in the zone of that name; {setting.x} is replaced
	Else     time.Duration `yaml:"else"`     // where the answer does not say
	Most     time.Duration `yaml:"most"`

	zone *template
}

// longest is the most that anybody is made to wait by an answer.
const longest = 24 * time.Hour

// DecodeNode reads a duration or a map.
func (w *wait) DecodeNode(n diag.Node, d *diag.Decoding) {
	if n.Kind() == diag.Scalar {
		d.Decode(n, &w.Else)
		return
	}
	type plain wait
	d.Decode(n, (*plain)(w))
	if w.Unit != "" && w.Unit != "s" && w.Unit != "ms" {
		d.Errorf(n.Get("unit"), "one of: s, ms", "unknown unit %q", w.Unit)
	}
	if w.Midnight.Exists() {
		w.zone = compileTemplate(w.Midnight, settingsScope(), d)
	}
}

func (w *wait) outline(o *outline) {
	if w != nil && w.Body != nil {
		o.add(*w.Body)
	}
}

// duration computes the wait; 0 where nothing is known. It may be called on nil.
func (w *wait) duration(desc *Description, a *answer, now time.Time) time.Duration {
	most := longest
	if w != nil && w.Most > 0 {
		most = w.Most
	}
	if told, ok := retryAfter(a.header, now); ok {
		return min(told, most)
	}
	if w == nil {
		return 0
	}
	told := w.Else
	switch {
	case w.Header != "":
		told = w.number(a.header.Get(w.Header), a.header, now)
	case w.Body != nil:
		text, _ := w.Body.at(a.tree, "").(string)
		told = w.number(text, a.header, now)
	case w.zone != nil:
		told = untilMidnight(w.zone.settings(desc), now)
	}
	if told <= 0 {
		told = w.Else
	}
	return min(told, most)
}

// number reads what stands in a header or body: a number in the unit, or a date.
func (w *wait) number(text string, header http.Header, now time.Time) time.Duration {
	n, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil:
		told, _ := untilDate(text, header, now)
		return told
	case n < 0 || n > 1e12:
		return 0
	case w.Unit == "ms":
		return time.Duration(n * float64(time.Millisecond))
	}
	return time.Duration(min(n, longest.Seconds()) * float64(time.Second))
}

// retryAfter reads the header of that name, in seconds or as a date.
func retryAfter(header http.Header, now time.Time) (time.Duration, bool) {
	text := header.Get("Retry-After")
	if text == "" {
		return 0, false
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		if !(n >= 0) {
			return 0, false
		}
		return time.Duration(min(n, longest.Seconds()) * float64(time.Second)), true
	}
	return untilDate(text, header, now)
}

// untilDate measures from the target's own clock where it tells it, so that
// clocks that differ do no harm.
func untilDate(text string, header http.Header, now time.Time) (time.Duration, bool) {
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	if theirs, err := http.ParseTime(header.Get("Date")); err == nil {
		now = theirs
	}
	return max(at.Sub(now), 0), true
}

func untilMidnight(zone string, now time.Time) time.Duration {
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return 0
	}
	y, m, day := now.In(loc).Date()
	return time.Date(y, m, day+1, 0, 0, 0, 0, loc).Sub(now)
}

func texts[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}
