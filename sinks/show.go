package sinks

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"partnersync/internal/diag"
)

// YAML prints the effective description: the preset with the user's keys on
// top. Secrets, and whatever came from a reference, print as <secret>.
func (desc *Description) YAML() []byte {
	var b bytes.Buffer
	if desc.Preset != "" {
		b.WriteString("preset: " + desc.Preset + "\n")
	}
	printMap(&b, desc.whole, 0, "")
	return b.Bytes()
}

// hiddenKeys are those below auth and sign whose values nobody may see, however
// they are written.
var hiddenKeys = []string{
	"auth.token", "auth.password", "auth.client_secret", "auth.refresh_token", "auth.private_key", "sign.secret",
}

func printMap(b *bytes.Buffer, n diag.Node, depth int, at string) {
	for _, e := range n.Entries() {
		name := e.Key.Text()
		if at == "" && name == "preset" {
			continue // it stands first
		}
		b.WriteString(strings.Repeat("  ", depth))
		b.WriteString(scalarText(name, e.Key.Quoted(), depth))
		b.WriteByte(':')
		printValue(b, e.Value, depth, strings.TrimPrefix(at+"."+name, "."))
	}
}

// printValue prints what follows a key or a dash.
func printValue(b *bytes.Buffer, n diag.Node, depth int, at string) {
	switch n.Kind() {
	case diag.Map:
		if len(n.Entries()) == 0 {
			b.WriteString(" {}\n")
			return
		}
		b.WriteByte('\n')
		printMap(b, n, depth+1, at)
	case diag.List:
		if len(n.Items()) == 0 {
			b.WriteString(" []\n")
			return
		}
		b.WriteByte('\n')
		for _, item := range n.Items() {
			b.WriteString(strings.Repeat("  ", depth+1) + "-")
			if item.Kind() != diag.Map || len(item.Entries()) == 0 {
				printValue(b, item, depth+1, at)
				continue
			}
			var inner bytes.Buffer
			printMap(&inner, item, depth+2, at)
			// The first key stands behind the dash.
			b.WriteByte(' ')
			b.Write(inner.Bytes()[2*(depth+2):])
		}
	case diag.Null, diag.None:
		b.WriteString(" null\n")
	default:
		text := scalarText(n.Text(), n.Quoted(), depth+1)
		if isReference(n) || slices.Contains(hiddenKeys, at) {
			text = "<secret>"
		}
		b.WriteString(" " + text + "\n")
	}
}

// bare are the texts that mean the same with and without quotes.
var bare = regexp.MustCompile(`^[A-Za-z0-9_$./+][A-Za-z0-9_$./+?()<> -]*$`)

// scalarText writes a scalar so that it reads back the same.
func scalarText(text string, quoted bool, depth int) string {
	switch {
	case strings.Contains(text, "\n"):
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		head := "|"
		if !strings.HasSuffix(text, "\n") {
			head = "|-"
		}
		for i, line := range lines {
			if line != "" {
				lines[i] = strings.Repeat("  ", depth+1) + line
			}
		}
		if strings.HasPrefix(lines[0], " ") || strings.ContainsAny(text, "\t\r") {
			return strconv.Quote(text)
		}
		return head + "\n" + strings.Join(lines, "\n")
	case !quoted && bare.MatchString(text) && !strings.HasSuffix(text, " "):
		return text
	case !quoted && !strings.ContainsAny(text, "#'\"{}[]&*!|%@`") && !strings.Contains(text, ": ") &&
		!strings.HasSuffix(text, ":") && !strings.HasPrefix(text, "- ") && strings.TrimSpace(text) == text:
		return text
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return strconv.Quote(text)
	}
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}
