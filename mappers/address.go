package mappers

import (
	_ "embed"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

//go:embed shared_domains.txt
var sharedDomainsText string

// sharedDomains are those of free mail and of hosts where many have an address.
var sharedDomains = sync.OnceValue(func() map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(sharedDomainsText) {
		if name := strings.TrimSpace(line); name != "" && !strings.HasPrefix(name, "#") {
			set[name] = true
		}
	}
	return set
})

// email brings an address into one form: CRMs compare them without regard to case, the
// part before the @ included. What is no single address is null.
func email(text string) any {
	local, host, ok := mailbox(text)
	if !ok {
		return nil
	}
	return local + "@" + host
}

const (
	longestAddress = 2000 // bytes of a text that holds one
	longestLocal   = 64   // bytes
)

func mailbox(text string) (local, host string, ok bool) {
	if len(text) > longestAddress {
		return "", "", false
	}
	text = strings.TrimFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) })
	if at := strings.LastIndexByte(text, '<'); at >= 0 && strings.HasSuffix(text, ">") {
		text = strings.TrimSpace(text[at+1 : len(text)-1])
	}
	if len(text) > len("mailto:") && strings.EqualFold(text[:len("mailto:")], "mailto:") {
		address, _, _ := strings.Cut(text[len("mailto:"):], "?")
		var err error
		if text, err = url.PathUnescape(address); err != nil {
			return "", "", false
		}
	}
	local, host, _ = strings.Cut(norm.NFC.String(text), "@")
	local = strings.ToLower(local)
	if host, ok = hostName(host); !ok || !isLocal(local) {
		return "", "", false
	}
	return local, host, true
}

// isLocal reports whether a text can stand before the @, without quotes.
func isLocal(text string) bool {
	if text == "" || len(text) > longestLocal || !utf8.ValidString(text) || strings.ContainsAny(text, `()<>[]:;@\,"`) {
		return false
	}
	return strings.IndexFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) < 0
}

func domain(address string) any {
	if len(address) > longestAddress {
		return nil
	}
	host := strings.TrimSpace(address)
	if at := strings.LastIndexByte(host, '@'); at >= 0 && !strings.ContainsAny(host[:at], "/?#") {
		host, _, _ = strings.Cut(host[at+1:], "?")
		host = strings.TrimRight(host, "> ")
		if name, port, ok := strings.Cut(host, ":"); ok && strings.Trim(port, "0123456789") == "" {
			host = name // user@host:port, of a URL without its scheme
		}
	} else {
		if !strings.Contains(host, "://") {
			host = "https://" + strings.TrimPrefix(host, "//")
		}
		u, err := url.Parse(host)
		if err != nil {
			return nil
		}
		host = u.Hostname()
	}
	host, ok := hostName(host)
	if !ok {
		return nil
	}
	if rest, ok := strings.CutPrefix(host, "www."); ok && strings.Contains(rest, ".") {
		host = rest
	}
	for suffix := host; ; {
		if sharedDomains()[suffix] {
			return nil
		}
		_, rest, ok := strings.Cut(suffix, ".")
		if !ok {
			return host
		}
		suffix = rest
	}
}

// international makes the form of a name that DNS has: münchen.example becomes
// xn--mnchen-3ya.example.
var international = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(true), idna.BidiRule())

// hostName is a domain in lower case, without the dot at its end, as DNS has it. It
// reports false where the text is none that others can reach.
func hostName(host string) (string, bool) {
	if strings.IndexFunc(host, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0 {
		ascii, err := international.ToASCII(host)
		if err != nil {
			return "", false
		}
		host = ascii
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return host, isDomain(host)
}

func isDomain(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil || len(host) > 253 || !strings.Contains(host, ".") {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	return true
}
