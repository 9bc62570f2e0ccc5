package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// say is fmt.Fprintf for people to read. What the format holds is ours; the arguments may come from senders
// and CRMs, so that nothing in them moves the cursor, begins a line or a column, or turns the text around.
func say(w io.Writer, format string, args ...any) {
	for i, a := range args {
		args[i] = foreign{a}
	}
	fmt.Fprintf(w, format, args...)
}

// foreign is an argument that prints in one line and one column.
type foreign struct{ value any }

func (f foreign) Format(s fmt.State, verb rune) {
	text := fmt.Sprintf(fmt.FormatString(s, verb), f.value)
	_, _ = io.WriteString(s, escape(text, func(r rune) bool { return false }))
}

// clean is a writer to a terminal, where it might be one. Whatever gets there without say may have lines and
// tabs, and nothing else that is not a character. JSON says the same in this form.
type clean struct {
	w    io.Writer
	left []byte // the beginning of a character whose end is still to come
}

func (c *clean) Write(data []byte) (int, error) {
	text := append(c.left, data...)
	end := len(text)
	for cut := max(0, end-utf8.UTFMax); cut < end; cut++ {
		if utf8.RuneStart(text[cut]) && !utf8.FullRune(text[cut:]) {
			end = cut
		}
	}
	c.left = append([]byte(nil), text[end:]...)
	if _, err := io.WriteString(c.w, escape(string(text[:end]), func(r rune) bool { return r == '\n' || r == '\t' })); err != nil {
		return 0, err
	}
	return len(data), nil
}

// escape writes what a terminal obeys as \u001b, and bytes that are no UTF-8 as \x9b.
func escape(text string, keep func(rune) bool) string {
	var b strings.Builder
	from := 0 // of what is not written yet
	for i, r := range text {
		size := utf8.RuneLen(r)
		switch {
		case r == utf8.RuneError:
			if _, size = utf8.DecodeRuneInString(text[i:]); size > 1 {
				continue // the sign for something unknown, written by somebody
			}
			b.WriteString(text[from:i])
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case !obeyed(r) || keep(r):
			continue
		default:
			b.WriteString(text[from:i])
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		from = i + size
	}
	if from == 0 {
		return text
	}
	b.WriteString(text[from:])
	return b.String()
}

// obeyed reports whether a terminal does something on a character instead of showing it: control characters (C0,
// DEL, C1), the separators of lines and paragraphs, and what changes the direction of writing.
func obeyed(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r <= 0x9f:
		return true
	case r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	}
	return false
}
