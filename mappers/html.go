package mappers

import (
	"regexp"
	"strings"

	"github.com/k3a/html2text"
)

var (
	anchorTag = regexp.MustCompile(`(?i)<(/?)a(\s[^>]*)?>`)
	anyTag    = regexp.MustCompile(`<[^>]*>`)
	hrefValue = regexp.MustCompile(`(?i)(?:^|\s)href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))`)
	nowhere   = regexp.MustCompile(`(?i)^\s*(?:#|$|javascript:|vbscript:|data:)`)
	schemes   = regexp.MustCompile(`(?i)^(?:mailto:|tel:|https?://(?:www\.)?)`)
)

// htmlText is the readable text of HTML. Where a link leads stands behind its words.
func htmlText(html string) string {
	return strings.TrimSpace(html2text.HTML2TextWithOptions(withoutAnchors(html), html2text.WithUnixLineBreaks()))
}

// withoutAnchors replaces each link by its words, with the address in parentheses unless
// the words are the address.
func withoutAnchors(html string) string {
	var b strings.Builder
	href, words := "", 0 // of the link that is open, and where its words begin
	open := false
	end := func(at int) {
		if open && !nowhere.MatchString(href) {
			text := plainly(html[words:at])
			switch {
			case text == "":
				b.WriteString(href)
			case !strings.EqualFold(address(text), address(plainly(href))):
				b.WriteString(" (" + href + ")")
			}
		}
		open = false
	}
	done := 0
	for _, m := range anchorTag.FindAllStringSubmatchIndex(html, -1) {
		b.WriteString(html[done:m[0]])
		done = m[1]
		end(m[0]) // a link begins where the last one was not ended, at the latest
		if m[2] == m[3] && m[4] >= 0 {
			v := hrefValue.FindStringSubmatch(html[m[4]:m[5]])
			if v != nil {
				href = strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(strings.TrimSpace(v[1] + v[2] + v[3]))
				open, words = true, m[1]
			}
		}
	}
	b.WriteString(html[done:])
	end(len(html))
	return b.String()
}

func plainly(html string) string {
	return strings.TrimSpace(html2text.HTMLEntitiesToText(anyTag.ReplaceAllString(html, "")))
}

// address is what of a link's target people write.
func address(target string) string {
	return strings.TrimSuffix(schemes.ReplaceAllString(target, ""), "/")
}
