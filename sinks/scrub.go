package sinks

import (
	"html"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// What we sent is hidden in what a target says of it: its words go into logs and pages, the payload does not.

// needle is a text to be hidden, as normal makes it, and what stands in its place.
type needle struct{ text, with string }

// How much of a text has to stand there to be hidden: ordinary words hold what has a sign or two; from sure on it is
// hidden wherever it stands, below that only where it stands alone; and of a long one a run gives it away, where
// somebody has cut it.
const (
	shortest = 3
	sure     = 8
	run      = 16
)

// needles are the texts of rows that no words about them may hold.
func (d *Description) needles(units []*unit) []needle {
	seen := map[string]bool{}
	out := []needle{}
	add := func(text, with string) {
		if utf8.RuneCountInString(text) < shortest || d.shown[text] || seen[text] {
			return
		}
		seen[text] = true
		out = append(out, needle{viewOf(text).normal().text, with})
	}
	for _, u := range units {
		if l := u.link; l != nil {
			add(l.From.Key, "<key>")
			add(l.To.Key, "<key>")
			continue
		}
		for name, value := range u.row.Values {
			d.texts(value, func(text string) {
				if _, isField := u.row.Values[text]; text != name && !isField {
					add(text, "<value>")
				}
			})
		}
		add(u.row.Key, "<key>")
		for _, t := range u.row.Terms {
			add(t.Value, "<value>")
		}
		for _, l := range u.row.Links {
			add(l.Key, "<key>")
		}
	}
	return out
}

// texts calls add for a value and all that it is made of, as it is and as it is sent.
func (d *Description) texts(value any, add func(string)) {
	switch value := value.(type) {
	case nil, bool:
		return
	case []any:
		for _, one := range value {
			d.texts(one, add)
		}
		return
	case map[string]any:
		for name, one := range value {
			add(name)
			d.texts(one, add)
		}
		return
	}
	if text, ok := textOf(value); ok {
		add(text)
	}
	if text, err := d.values.text(value); err == nil {
		add(text)
	}
}

// view is a text as it reads once something in it has been decoded, with the place of each of its bytes in the original.
type view struct {
	text       string
	start, end []int
}

func viewOf(text string) view {
	v := view{text, make([]int, len(text)), make([]int, len(text))}
	for at := 0; at < len(text); {
		_, size := utf8.DecodeRuneInString(text[at:])
		for i := range size {
			v.start[at+i], v.end[at+i] = at, at+size
		}
		at += size
	}
	return v
}

// decoded is the view with each run of signs that step knows replaced by what it stands for.
func (v view) decoded(step func(string) (string, int)) view {
	var b strings.Builder
	out := view{start: make([]int, 0, len(v.text)), end: make([]int, 0, len(v.text))}
	for at := 0; at < len(v.text); {
		text, size := step(v.text[at:])
		if size == 0 {
			_, size = utf8.DecodeRuneInString(v.text[at:])
			text = v.text[at : at+size]
		}
		b.WriteString(text)
		for range len(text) {
			out.start, out.end = append(out.start, v.start[at]), append(out.end, v.end[at+size-1])
		}
		at += size
	}
	out.text = b.String()
	return out
}

// normal is the view without differences of case, and with blanks for control characters, as in the words that are kept.
func (v view) normal() view {
	return v.decoded(func(s string) (string, int) {
		r, size := utf8.DecodeRuneInString(s)
		if unicode.IsControl(r) {
			r = ' '
		}
		return string(unicode.ToLower(r)), size
	})
}

// unJSON reads an escaped sign of a JSON text, or of one of Go or Python.
func unJSON(s string) (string, int) {
	if len(s) < 2 || s[0] != '\\' {
		return "", 0
	}
	digits := map[byte]int{'u': 4, 'U': 8, 'x': 2}[s[1]]
	if digits == 0 {
		if i := strings.IndexByte(`"\/'bfnrt`, s[1]); i >= 0 {
			return string("\"\\/'\b\f\n\r\t"[i]), 2
		}
		return "", 0
	}
	code := func(s string) (rune, bool) {
		if len(s) < 2+digits {
			return 0, false
		}
		n, err := strconv.ParseUint(s[2:2+digits], 16, 32)
		return rune(n), err == nil
	}
	r, ok := code(s)
	if !ok {
		return "", 0
	}
	if rest := s[2+digits:]; utf16.IsSurrogate(r) && strings.HasPrefix(rest, `\u`) {
		if low, ok := code(rest); ok {
			return string(utf16.DecodeRune(r, low)), 12
		}
	}
	return string(r), 2 + digits
}

// unHTML reads an entity.
func unHTML(s string) (string, int) {
	end := strings.IndexByte(s[:min(len(s), 12)], ';')
	if s[0] != '&' || end < 0 {
		return "", 0
	}
	if text := html.UnescapeString(s[:end+1]); utf8.RuneCountInString(text) == 1 {
		return text, end + 1
	}
	return "", 0
}

// unQuery reads a sign that is escaped as in the query of an address.
func unQuery(s string) (string, int) {
	if s[0] == '+' {
		return " ", 1
	}
	return unPath(s)
}

// unPath reads the bytes of one sign that is escaped as in the path of an address.
func unPath(s string) (string, int) {
	var raw []byte
	for at := 0; at+3 <= len(s) && s[at] == '%' && len(raw) < utf8.UTFMax; at += 3 {
		n, err := strconv.ParseUint(s[at+1:at+3], 16, 8)
		if err != nil {
			break
		}
		if raw = append(raw, byte(n)); utf8.Valid(raw) {
			return string(raw), at + 3
		}
	}
	return "", 0
}

// views are the ways to read a message: as it is, and as whoever wrote it may have escaped what it quotes.
func views(message string) []view {
	plain := viewOf(message)
	json := plain.decoded(unJSON)
	all := []view{plain, json, json.decoded(unJSON), plain.decoded(unHTML), json.decoded(unHTML), plain.decoded(unQuery), plain.decoded(unPath), json.decoded(unQuery), json.decoded(unPath)}
	var out []view
	for i, v := range all {
		if !slices.ContainsFunc(all[:i], func(before view) bool { return before.text == v.text }) {
			out = append(out, v.normal())
		}
	}
	return out
}

// found is a place in a message that holds a needle.
type found struct {
	start, end int
	with       string
}

// scrub hides the needles in a message.
func scrub(message string, needles []needle) string {
	if message == "" || len(needles) == 0 {
		return message
	}
	var all []found
	for _, v := range views(message) {
		for _, n := range needles {
			all = v.find(n, all)
		}
	}
	slices.SortFunc(all, func(a, b found) int {
		if a.start != b.start {
			return a.start - b.start
		}
		return b.end - a.end
	})
	var b strings.Builder
	at := 0
	for i := 0; i < len(all); {
		one, end := all[i], all[i].end
		for i++; i < len(all) && all[i].start < end; i++ {
			end = max(end, all[i].end)
		}
		b.WriteString(message[at:one.start] + one.with)
		at = end
	}
	return b.String() + message[at:]
}

// find adds the places where a view holds a needle, or a run of a long one.
func (v view) find(n needle, out []found) []found {
	head := n.text
	if len(head) > run {
		head = head[:run]
		for !utf8.ValidString(head) {
			head = head[:len(head)-1]
		}
	}
	for at := 0; ; {
		i := strings.Index(v.text[at:], head)
		if i < 0 {
			return out
		}
		start := at + i
		end := start + len(head)
		for end < len(v.text) && end-start < len(n.text) && v.text[end] == n.text[end-start] {
			end++
		}
		at = start + 1
		if utf8.RuneCountInString(n.text) >= sure || v.alone(start, end) {
			out = append(out, found{v.start[start], v.end[end-1], n.with})
			at = end
		}
	}
}

// alone reports whether no word goes on before or behind a part of the text.
func (v view) alone(start, end int) bool {
	word := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) || r == '_' }
	before, size := utf8.DecodeLastRuneInString(v.text[:start])
	after, more := utf8.DecodeRuneInString(v.text[end:])
	return (size == 0 || !word(before)) && (more == 0 || !word(after))
}
