package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"partnersync/internal/diag"
)

// What stands below one of these keys, outside of mappings and tables, may be a secret in the wrong place.
var private = []string{"verify", "auth", "headers", "sign", "token_key", "token", "tokens", "secret", "secrets", "password",
	"client_secret", "refresh_token", "private_key", "api_key"}

var (
	// isReference: a variable's name is none of its value.
	isReference = regexp.MustCompile(`^\$\{[A-Za-z_][A-Za-z0-9_]*\}$`)
	// isKey: what a key of ours could be, or be meant for.
	isKey     = regexp.MustCompile(`^[a-z_]{1,24}$`)
	lineKey   = regexp.MustCompile(`(?:^|[\s{,\[])["']?([A-Za-z0-9_.-]+)["']?\s*:(?:\s|$)`)
	userinfo  = regexp.MustCompile(`://[^/\s]*@`)
	withQuery = regexp.MustCompile(`://[^\s]*\?`)
)

// hider keeps secrets out of problems: those that stand where they do not belong, and what variables hold.
type hider struct {
	lines []string // of the file
	texts []string
}

func newHider(data []byte, root diag.Node) *hider {
	h := &hider{lines: strings.Split(string(data), "\n")}
	for _, e := range root.Entries() {
		if section := e.Key.Text(); section != "mappings" && section != "tables" {
			h.walk(e.Value, section, "", false)
		}
	}
	return h
}

// walk collects the scalars below n, the value of key, that may be secrets. in says that n is below a key that is private.
func (h *hider) walk(n diag.Node, section, key string, in bool) {
	switch n.Kind() {
	case diag.Scalar:
		text := n.Text()
		if (in || userinfo.MatchString(text) || withQuery.MatchString(text)) && !isReference.MatchString(text) {
			h.add(text)
		}
	case diag.List:
		for _, item := range n.Items() {
			h.walk(item, section, key, in)
		}
	case diag.Map:
		for _, e := range n.Entries() {
			name := e.Key.Text()
			if in && (!isKey.MatchString(name) && key != "headers" || e.Value.Kind() == diag.Null) {
				h.add(name) // verify: {my-token}
			}
			h.walk(e.Value, section, name, in || isPrivate(section, name))
		}
	}
}

// isPrivate: the address of a webhook often is its password, too.
func isPrivate(section, key string) bool {
	return slices.Contains(private, key) || key == "url" && (section == "database" || section == "sinks")
}

func (h *hider) add(text string) {
	if text != "" && !slices.Contains(h.texts, text) {
		h.texts = append(h.texts, text)
	}
}

// hide takes them out of what the problems say, and tells the printer of lines to keep their values to itself.
func (h *hider) hide(file string, problems diag.Problems) {
	// Longest first, so that a text which contains another is hidden whole.
	slices.SortFunc(h.texts, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, t := range h.texts {
		pairs = append(pairs, strconv.Quote(t), `"<secret>"`)
		if len(t) >= 6 { // a shorter one is a word of ours as well
			pairs = append(pairs, t, "<secret>")
		}
	}
	replacer := strings.NewReplacer(pairs...)
	for i := range problems {
		p := &problems[i]
		p.Message, p.Hint = replacer.Replace(p.Message), replacer.Replace(p.Hint)
		if p.File == file {
			p.Masked = h.masked(*p)
		}
	}
}

// masked is the column from which a problem's line is kept back, 0 where none is. It looks at the line and at those that it
// is indented below, as they are written, since a file with a mistake of syntax has no nodes.
func (h *hider) masked(p diag.Problem) int {
	if p.Line < 1 || p.Line > len(h.lines) {
		return 0
	}
	text := h.lines[p.Line-1]
	var above []string
	below := indentation(text)
	for at := p.Line - 2; at >= 0 && below > 0; at-- {
		up := h.lines[at]
		if trimmed := strings.TrimSpace(up); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		if in := indentation(up); in < below {
			below = in
			for _, k := range slices.Backward(keysOf(up)) {
				above = append(above, k.name)
			}
		}
	}
	slices.Reverse(above)
	keys := keysOf(text)
	path := slices.Clone(above)
	for _, k := range keys {
		path = append(path, k.name)
	}
	section := ""
	if len(path) > 0 {
		section = path[0]
	}
	isPrivate := func(key string) bool { return isPrivate(section, key) }
	switch {
	case section == "mappings" || section == "tables":
		return 0
	case userinfo.MatchString(text), withQuery.MatchString(text), slices.ContainsFunc(above, isPrivate):
		return 1
	case len(path) < 3 && (section == "sources" || section == "sinks"):
		return 1 // a text in the place of a source or a sink: its secret, perhaps
	}
	for _, k := range keys {
		if isPrivate(k.name) || p.Unsure && k.at+1 >= p.Col {
			return k.at + 1
		}
	}
	if p.Unsure {
		return min(p.Col, utf8.RuneCountInString(text)+1)
	}
	return 0
}

// keyAt is a key on a line and where it begins, from 0.
type keyAt struct {
	name string
	at   int
}

func keysOf(line string) []keyAt {
	var keys []keyAt
	for from := 0; ; {
		at := lineKey.FindStringSubmatchIndex(line[from:])
		if at == nil {
			return keys
		}
		keys = append(keys, keyAt{line[from+at[2] : from+at[3]], utf8.RuneCountInString(line[:from+at[2]])})
		from += at[3]
	}
}

// indentation counts the dash of a list as one step in: its items may stand below its key without any.
func indentation(line string) int {
	n := len(line) - len(strings.TrimLeft(line, " "))
	n *= 2
	if strings.HasPrefix(strings.TrimSpace(line), "-") {
		n++
	}
	return n
}
