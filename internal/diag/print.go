package diag

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Print writes each problem with its line, a caret below the place, and its
// hint. source returns a file's text, or nil where it is not at hand.
func Print(w io.Writer, problems Problems, source func(file string) []byte) {
	for i, p := range problems {
		if i > 0 {
			fmt.Fprintln(w)
		}
		head := p.Severity.String() + ": " + p.Message
		if at := p.Pos.String(); at != "" {
			head = at + ": " + head
		}
		fmt.Fprintln(w, head)
		if line, ok := lineOf(source, p.Pos); ok {
			if p.Masked > 0 {
				runes := []rune(line)
				from := min(p.Masked-1, len(runes))
				line = string(runes[:from]) + mask(string(runes[from:]))
			}
			gutter := fmt.Sprintf("%5d | ", p.Line)
			fmt.Fprintf(w, "%s%s\n", gutter, line)
			fmt.Fprintf(w, "%s| %s%s\n", strings.Repeat(" ", len(gutter)-2), indent(line, p.Col), strings.Repeat("^", caretWidth(line, p)))
		}
		if p.Hint != "" {
			fmt.Fprintf(w, "        %s\n", p.Hint)
		}
	}
}

var (
	maskedKey = regexp.MustCompile(`^[a-z_]{1,24}:(?:\s|$)`)
	maskedRef = regexp.MustCompile(`^["']?\$\{[A-Za-z_][A-Za-z0-9_]*\}["']?`)
)

// mask leaves of a line its keys, its brackets and the names of variables, all where they were.
func mask(line string) string {
	var b strings.Builder
	quote, begins := byte(0), true // a key, or a value, may begin here
	for i := 0; i < len(line); {
		c := line[i]
		if quote == 0 && begins {
			if key := maskedKey.FindString(line[i:]); key != "" {
				b.WriteString(key)
				i += len(key)
				continue
			}
		}
		if ref := maskedRef.FindString(line[i:]); quote == 0 && ref != "" {
			b.WriteString(ref)
			i += len(ref)
			begins = false
			continue
		}
		_, size := utf8.DecodeRuneInString(line[i:])
		switch {
		case quote == 0 && (c == ' ' || c == '\t'):
			b.WriteByte(c)
		case quote == 0 && strings.IndexByte("{}[],", c) >= 0:
			b.WriteByte(c)
			begins = c != '}' && c != ']'
		case quote == 0 && c == '-' && begins && strings.TrimLeft(line[:i], " -") == "":
			b.WriteByte(c)
		default:
			b.WriteByte('*')
			switch {
			case quote == c:
				quote = 0
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
			}
			begins = false
		}
		i += size
	}
	return b.String()
}

// longest is how much of a line is shown; a minified document has no lines worth more.
const longest = 240

func lineOf(source func(string) []byte, at Pos) (string, bool) {
	if source == nil || at.Line == 0 {
		return "", false
	}
	data := source(at.File)
	for n := 1; n < at.Line; n++ {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			return "", false
		}
		data = data[i+1:]
	}
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		data = data[:i]
	}
	line := strings.TrimRight(strings.ToValidUTF8(string(data), "?"), "\r ")
	if line == "" || utf8.RuneCountInString(line) > longest {
		return "", false
	}
	return line, true
}

// indent is the blank below the line up to col; tabs stay tabs so that the caret lines up.
func indent(line string, col int) string {
	var b strings.Builder
	for i, r := range []rune(line) {
		if i >= col-1 {
			break
		}
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	if n := utf8.RuneCountInString(line); col-1 > n {
		b.WriteString(strings.Repeat(" ", col-1-n))
	}
	return b.String()
}

func caretWidth(line string, p Problem) int {
	width := max(p.Width, 1)
	if rest := utf8.RuneCountInString(line) - (p.Col - 1); rest > 0 && width > rest {
		width = rest
	}
	return width
}
