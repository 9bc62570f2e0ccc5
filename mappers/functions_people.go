package mappers

import (
	_ "embed"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/nyaruka/phonenumbers"
	"golang.org/x/text/language"
	"golang.org/x/text/language/display"
)

func peopleFunctions() []*function {
	return []*function{
		{
			FunctionDoc: FunctionDoc{Name: "phone", Doc: "the phone number in E.164, or null where it is none; the country, as code or name, is that of numbers without +", Examples: []Example{
				{`phone("(416) 555-0123", "CA")`, `"+14165550123"`}, {`phone("+44 20 7946 0958", nil)`, `"+442079460958"`}, {`phone("n/a", "CA")`, `null`},
			}},
			params: []param{required("number", Text), optional("country", Text)}, result: Text,
			call: phone,
		},
		{
			FunctionDoc: FunctionDoc{Name: "country", Doc: "the two-letter code of a country, given as a code of two or three letters or as its English name; null where it is none", Examples: []Example{
				{`country("Canada")`, `"CA"`}, {`country("usa")`, `"US"`}, {`country("DEU")`, `"DE"`}, {`country("Atlantis")`, `null`},
			}},
			params: []param{required("country", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { return countryCode(a[0].(string)), nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "domain", Doc: "the domain of an e-mail address or URL; null for free mail and hosts that many share", Examples: []Example{
				{`domain("jane@best-company.example")`, `"best-company.example"`}, {`domain("https://www.Best-Company.example/about")`, `"best-company.example"`}, {`domain("jane@gmail.com")`, `null`}, {`domain("facebook.com/best")`, `null`},
			}},
			params: []param{required("address", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { return domain(a[0].(string)), nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "full_name", Doc: "first and last name in one; null when both are missing", Examples: []Example{
				{`full_name("Jane", "Doe")`, `"Jane Doe"`}, {`full_name("Jane", nil)`, `"Jane"`}, {`full_name(nil, nil)`, `null`},
			}},
			params: []param{required("first", Text), required("last", Text)}, result: Text, nulls: true,
			call: func(_ *Scope, a []any) (any, error) {
				first, _ := a[0].(string)
				last, _ := a[1].(string)
				return strings.TrimSpace(strings.TrimSpace(first) + " " + strings.TrimSpace(last)), nil
			},
		},
		{
			FunctionDoc: FunctionDoc{Name: "first_name", Doc: "the first word of a full name, or what stands behind its comma", Examples: []Example{
				{`first_name("Jane van Doe")`, `"Jane"`}, {`first_name("Doe, Jane")`, `"Jane"`},
			}},
			params: []param{required("name", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { first, _ := splitName(a[0].(string)); return first, nil },
		},
		{
			FunctionDoc: FunctionDoc{Name: "last_name", Doc: "what follows the first word of a full name, or stands in front of its comma", Examples: []Example{
				{`last_name("Jane van Doe")`, `"van Doe"`}, {`last_name("Doe, Jane")`, `"Doe"`}, {`last_name("Jane")`, `null`},
			}},
			params: []param{required("name", Text)}, result: Text,
			call: func(_ *Scope, a []any) (any, error) { _, last := splitName(a[0].(string)); return last, nil },
		},
	}
}

// titles may follow a name and its comma.
var titles = []string{"jr", "sr", "ii", "iii", "iv", "esq", "phd", "md", "mba", "cpa", "inc", "llc", "ltd"}

func splitName(name string) (first, last string) {
	if before, after, ok := strings.Cut(name, ","); ok {
		if !slices.Contains(titles, strings.ReplaceAll(fold(after), ".", "")) {
			return strings.TrimSpace(after), strings.TrimSpace(before)
		}
		name = before
	}
	words := strings.Fields(name)
	if len(words) == 0 {
		return "", ""
	}
	return words[0], strings.Join(words[1:], " ")
}

func phone(_ *Scope, a []any) (any, error) {
	region, _ := a[1].(string)
	number, err := phonenumbers.Parse(a[0].(string), countryCode(region))
	if err != nil || !phonenumbers.IsValidNumber(number) {
		return nil, nil
	}
	return phonenumbers.Format(number, phonenumbers.E164), nil
}

// countries has the code for every name and code of a country, folded.
var countries = sync.OnceValue(func() map[string]string {
	byName := map[string]string{
		"uk": "GB", "england": "GB", "scotland": "GB", "wales": "GB", "great britain": "GB", "northern ireland": "GB",
		"united states of america": "US", "america": "US", "u.s.": "US", "u.s.a.": "US",
		"south korea": "KR", "republic of korea": "KR", "korea": "KR", "north korea": "KP",
		"russian federation": "RU", "viet nam": "VN", "holland": "NL",
		"czech republic": "CZ", "uae": "AE", "turkey": "TR", "hong kong": "HK", "macau": "MO",
		"ivory coast": "CI", "republic of ireland": "IE", "burma": "MM", "macedonia": "MK",
		"bosnia": "BA", "cape verde": "CV", "swaziland": "SZ", "vatican city": "VA", "palestine": "PS",
		"brasil": "BR", "deutschland": "DE", "españa": "ES", "italia": "IT", "méxico": "MX", "schweiz": "CH", "österreich": "AT",
	}
	names := display.English.Regions()
	for a := 'A'; a <= 'Z'; a++ {
		for b := 'A'; b <= 'Z'; b++ {
			code := string([]rune{a, b})
			region, err := language.ParseRegion(code)
			if err != nil || !region.IsCountry() || region.Canonicalize() != region || region.String() != code {
				continue
			}
			for _, name := range []string{code, region.ISO3(), names.Name(region)} {
				if _, taken := byName[countryFold(name)]; !taken && name != "" && name != "ZZZ" {
					byName[countryFold(name)] = code
				}
			}
		}
	}
	return byName
})

func countryCode(s string) string { return countries()[countryFold(s)] }

// countryFold makes the ways to write a country's name alike.
func countryFold(s string) string {
	s = strings.NewReplacer("&", "and", "’", "'", "st. ", "saint ").Replace(fold(s))
	return strings.TrimPrefix(s, "the ")
}

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

func domain(address string) any {
	host := strings.ToLower(strings.TrimSpace(address))
	if at := strings.LastIndexByte(host, '@'); at >= 0 && !strings.ContainsAny(host[:at], "/?#") {
		host, _, _ = strings.Cut(host[at+1:], "?")
		host = strings.TrimRight(host, "> ")
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
	host = strings.TrimSuffix(strings.TrimPrefix(host, "www."), ".")
	if !isDomain(host) {
		return nil
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

func isDomain(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil || len(host) > 253 || !strings.Contains(host, ".") {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || strings.ContainsAny(label, " \t\r\n/\\[]()<>,;:\"'%?#@_!*+=&$|^`{}~") {
			return false
		}
	}
	return true
}
