package sinks

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzAddressOfRow holds that a key or an id, whatever is in it, cannot change what a request asks for: it goes
// where that of "1" goes, in as many segments and parameters, and stays the one literal that it is in the query
// languages of the targets.
func FuzzAddressOfRow(f *testing.F) {
	for _, seed := range []string{
		"1", "4711", "-5", "a b", "..", ".", "a/b", "a%2Fb", "?x=1&y=2#z", "it's", `\`, `\'`, "') OR (Name LIKE '%", "1 or 1 eq 1",
		"0 or emailaddress1 eq 'x'", "1)/Microsoft.Dynamics.CRM.X(", "a),(Name:equals:b", `a\),\(b`, "é\x00\n", "'", "''", "(", ")", ",", "1\n",
	} {
		f.Add(seed, seed)
	}
	sinks := map[string]*Sink{}
	for _, name := range Presets() {
		if name != "webhook" { // it has one address
			sinks[name] = New(loadYAML(f, presetConfigs[name]), Options{})
		}
	}
	sinks["dataverse with number_keys"] = New(loadYAML(f, presetConfigs["dataverse"]+"settings: {number_keys: [ext_key]}\n"), Options{})
	// One that a config describes by itself.
	sinks["own"] = New(loadYAML(f, `
base_url: https://crm.example/api
operations:
  upsert: {method: PUT, path: "/{record.object}/{record.key}/it", query: {id: "{record.id}", key: "({record.key})"}, headers: {X-Key: "{record.key}"}}
  find: {method: GET, path: "/{record.object}({record.key})", result: {mode: found, results: {at: ., id: id}}}
  link: {path: "/{link.from.object}/{link.from.id}/to/{link.to.id}"}
`[1:]), Options{})
	f.Cleanup(func() {
		for _, s := range sinks {
			s.Close()
		}
	})
	objects := map[string][2]string{
		"attio": {"people", "companies"}, "dataverse": {"contacts", "accounts"}, "hubspot": {"contacts", "companies"}, "own": {"a", "b"},
		"pipedrive": {"persons", "organizations"}, "salesforce": {"Contact", "Account"}, "zoho": {"Contacts", "Accounts"},
	}
	f.Fuzz(func(t *testing.T, key, id string) {
		if !utf8.ValidString(key) || !utf8.ValidString(id) || key == "" || id == "" {
			return // texts of events are valid, and neither is ever empty
		}
		for name, s := range sinks {
			preset, _, _ := strings.Cut(name, " ")
			from, to := objects[preset][0], objects[preset][1]
			for _, op := range []Operation{Upsert, Update, Find, Create, Archive, Link, Unlink} {
				if !s.Supports(op) {
					continue
				}
				for way := range 6 { // the record by its key or id, without a link and with one by key or id
					byID, link := way%2 == 0, way/2
					preview := func(key, id string) ([]Preview, error) {
						if op == Link || op == Unlink {
							return s.PreviewLinks([]LinkRow{{From: Ref{Object: from, ID: id}, To: Ref{Object: to, ID: id}, Remove: op == Unlink}})
						}
						row := Row{Object: from, Property: "ext_key", Key: key, Values: map[string]any{"name": "x"}}
						if byID {
							row.ID = id
						}
						switch link {
						case 1:
							row.Links = []RowLink{{Object: to, Property: "ext_key", Key: key}}
						case 2:
							row.Links = []RowLink{{Object: to, ID: id}}
						}
						return s.Preview(op, []Row{row})
					}
					want, err := preview("1", "1")
					got, bad := preview(key, id)
					if bad != nil || err != nil {
						continue // such a row is not sent
					}
					sameAddress(t, name+" "+string(op), want, got)
					oneLiteral(t, name+" "+string(op), key, got)
				}
			}
		}
	})
}

// sameAddress fails where requests go elsewhere, or ask for more, than those for "1".
func sameAddress(t *testing.T, what string, want, got []Preview) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d requests, for 1 it is %d", what, len(got), len(want))
	}
	for i := range got {
		w, err := url.Parse(want[i].URL)
		if err != nil {
			t.Fatal(err)
		}
		g, err := url.Parse(got[i].URL)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		params := func(u *url.URL) []string {
			var names []string
			for pair := range strings.SplitSeq(u.RawQuery, "&") {
				name, _, _ := strings.Cut(pair, "=")
				names = append(names, name)
			}
			return names
		}
		if g.Scheme != w.Scheme || g.Host != w.Host || g.Fragment != "" || got[i].Method != want[i].Method ||
			strings.Count(g.EscapedPath(), "/") != strings.Count(w.EscapedPath(), "/") || !slices.Equal(params(g), params(w)) {
			t.Errorf("%s: %s %s, for 1 it is %s", what, got[i].Method, got[i].URL, want[i].URL)
		}
		if g.JoinPath().EscapedPath() != g.EscapedPath() {
			t.Errorf("%s: dots of the key lead elsewhere: %s", what, got[i].URL)
		}
	}
}

var (
	soql = regexp.MustCompile(`^SELECT Id, ext_key FROM Contact WHERE ext_key IN \('((?s:(?:[^'\\]|\\.)*))'\)$`)
	// A number stands bare, a text in quotes, those within it doubled.
	odataFilter = regexp.MustCompile(`^ext_key eq (?:(-?[0-9]+)|'((?s:(?:[^']|'')*))')$`)
	odataKey    = regexp.MustCompile(`^(?:/accounts|contacts)\(ext_key=(?:(-?[0-9]+)|'((?s:(?:[^']|'')*))')\)$`)
	criteria    = regexp.MustCompile(`^\(ext_key:equals:((?s:(?:[^(),\\]|\\.)*))\)$`)
	backslashed = regexp.MustCompile(`(?s)\\(.)`)
)

// oneLiteral fails where a key is more, or something else, than one literal in a query.
func oneLiteral(t *testing.T, what, key string, got []Preview) {
	t.Helper()
	is := func(re *regexp.Regexp, text string, plain func(string) string) {
		t.Helper()
		m := re.FindStringSubmatch(text)
		if m == nil {
			t.Errorf("%s: the key %q is no literal of its own: %s", what, key, text)
		} else if literal := plain(strings.Join(m[1:], "")); literal != key {
			t.Errorf("%s: the key %q is written as %q", what, key, literal)
		}
	}
	doubled := func(s string) string { return strings.ReplaceAll(s, "''", "'") }
	escaped := func(s string) string { return backslashed.ReplaceAllString(s, "$1") }
	for _, p := range got {
		u, err := url.Parse(p.URL)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		if text := q.Get("q"); text != "" {
			is(soql, text, escaped)
		}
		if text := q.Get("$filter"); text != "" {
			is(odataFilter, text, doubled)
		}
		if text := q.Get("criteria"); text != "" {
			is(criteria, text, escaped)
		}
		if !strings.HasPrefix(what, "dataverse") {
			continue
		}
		segments := strings.Split(u.EscapedPath(), "/")
		if last, _ := url.PathUnescape(segments[len(segments)-1]); strings.Contains(last, "(ext_key=") {
			is(odataKey, last, doubled)
		}
		var body map[string]any
		if json.Unmarshal(p.Body, &body) != nil {
			continue
		}
		for name, value := range body {
			if text, isText := value.(string); isText && strings.HasSuffix(name, "@odata.bind") && strings.Contains(text, "(ext_key=") {
				is(odataKey, text, doubled)
			}
		}
	}
}
