package mappers

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/language"
	"golang.org/x/text/language/display"
	"golang.org/x/text/unicode/norm"
)

// Every country is known by its codes, by all names of countries.txt and by those of CLDR,
// in every way to write them; and no name is that of two.
func TestEveryCountry(t *testing.T) {
	t.Parallel()
	owner := map[string]string{}
	codes := 0
	for text := range strings.Lines(countriesText) {
		if strings.HasPrefix(text, "#") {
			continue
		}
		codes++
		code, rest, _ := strings.Cut(strings.TrimSpace(text), ";")
		region, err := language.ParseRegion(code)
		if err != nil {
			t.Fatal(err)
		}
		names := append(strings.Split(rest, ";"), code, strings.ToLower(code))
		if code != "XK" {
			names = append(names, region.ISO3())
		}
		if name := display.English.Regions().Name(region); name != "" {
			names = append(names, name)
		}
		for _, name := range names {
			name = strings.TrimSpace(name)
			plain := strings.Map(func(r rune) rune {
				if unicode.Is(unicode.Mn, r) {
					return -1
				}
				return r
			}, norm.NFD.String(name))
			for _, written := range []string{name, strings.ToUpper(name), plain, norm.NFD.String(name), "The " + name, " " + strings.ReplaceAll(name, " ", "  "), strings.ReplaceAll(name, "'", "’"), strings.ReplaceAll(name, "-", " "), strings.ReplaceAll(strings.ReplaceAll(name, "Saint ", "St. "), " and ", " & ")} {
				if got := countryCode(written); got != code {
					t.Errorf("%q is %q, want %s", written, got, code)
				}
			}
			if before := owner[countryFold(name)]; before != "" && before != code {
				t.Errorf("%q is %s and %s", name, before, code)
			}
			owner[countryFold(name)] = code
		}
	}
	if codes != 250 {
		t.Errorf("%d countries, want the 249 of ISO 3166-1 and Kosovo", codes)
	}
}

func TestCountryNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Türkiye": "TR", "TÜRKİYE": "TR", "Turkiye": "TR", "Turkey": "TR", "North Macedonia": "MK", "Korea, Republic of": "KR", "Korea (Republic of)": "KR",
		"Korea, Rep.": "KR", "Korea (North)": "KP", "Korea, Democratic People's Republic of": "KP", "Eswatini": "SZ", "Swaziland": "SZ", "Czechia": "CZ",
		"Viet Nam": "VN", "Iran (Islamic Republic of)": "IR", "Iran, Islamic Republic of": "IR", "Islamic Republic of Iran": "IR",
		"Congo, Democratic Republic of the": "CD", "Congo, the Democratic Republic of the": "CD", "Democratic Republic of the Congo": "CD", "Congo, Dem. Rep.": "CD",
		"Congo": "CG", "Congo, Republic of the": "CG", "Côte d'Ivoire": "CI", "Cote d’Ivoire": "CI", "COTE D'IVOIRE": "CI", "Cote d Ivoire": "CI", "Ivory Coast": "CI",
		"The Bahamas": "BS", "Bahamas, The": "BS", "Gambia (the)": "GM", "USA": "US", "U.S.A.": "US", "U.S.": "US", "us": "US", "United States (US)": "US",
		"U.K.": "GB", "u. k.": "GB", "United Kingdom (UK)": "GB", "St. Vincent and the Grenadines": "VC", "St Lucia": "LC", "Virgin Islands, U.S.": "VI", "Virgin Islands, British": "VG",
		"U.S. Virgin Islands": "VI", "Samoa (American)": "AS", "Guinea, Equatorial": "GQ", "Guinea Bissau": "GW", "Bolivia, Plurinational State of": "BO",
		"Holy See (Vatican City State)": "VA", "Palestine, State of": "PS", "Tanzania, United Republic of": "TZ", "Egypt, Arab Rep.": "EG",
		"Hong Kong": "HK", "Macao": "MO", "Taiwan, Province of China": "TW", "Republic of Poland": "PL", "Kingdom of Norway": "NO", "Republic of China": "TW",
		"Netherlands, Kingdom of the": "NL", "Moldova, Republic of": "MD", "Macedonia, the former Yugoslav Republic of": "MK", "Réunion": "RE", "Aland Islands": "AX",

		"Atlantis": "", "": "", " ": "", "the": "", "Virgin Islands": "", "Republic": "", "Republic of": "", "Korea, South Pole": "", "Canada, Ontario": "", "EU": "", "ZZ": "", "SU": "", "UN": "",
		"AN": "", ",": "", "(": "", strings.Repeat("Canada ", 1000): "",
	} {
		if got := countryCode(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

func TestEmailAndDomain(t *testing.T) {
	t.Parallel()
	tests := []struct{ give, email, domain string }{
		{"jane@best.example", "jane@best.example", "best.example"},
		{" Jane.Doe+Tag@BEST.Example.\n", "jane.doe+tag@best.example", "best.example"},
		{"\u200bjane@best.example\ufeff", "jane@best.example", "best.example"},
		{"Jane Doe <Jane@Best.example>", "jane@best.example", "best.example"},
		{`"Doe, Jane" <jane@best.example>`, "jane@best.example", "best.example"},
		{"<jane@best.example>", "jane@best.example", "best.example"},
		{"mailto:jane@best.example", "jane@best.example", "best.example"},
		{"MAILTO:Jane%40best.example?subject=a@b", "jane@best.example", ""},
		{"mailto:jane@best.example?subject=x", "jane@best.example", "best.example"},
		{"o'hara_1@best.example", "o'hara_1@best.example", "best.example"},
		{"jane@Bücher.Example", "jane@xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"jane@xn--BCHER-kva.example", "jane@xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"jane@best。example", "jane@best.example", "best.example"},
		{"jane@straße.example", "jane@xn--strae-oqa.example", "xn--strae-oqa.example"},
		{"jose\u0301@best.example", "josé@best.example", "best.example"},
		{"jane@gmail.com", "jane@gmail.com", ""},

		{"https://www.Best.example/about", "", "best.example"},
		{"https://jane:secret@www.best.example:8443/x?y=1#z", "", "best.example"},
		{"jane@best.example:8443", "", "best.example"},
		{"www.best.example.", "", "best.example"},
		{"//best.example:8080/x", "", "best.example"},
		{"BEST.EXAMPLE", "", "best.example"},
		{"https://bücher.example/regal", "", "xn--bcher-kva.example"},
		{"www.com", "", "www.com"},
		{"r3---sn.best.example", "", "r3---sn.best.example"},
		{"https://192.0.2.1/", "", ""},

		{"n/a", "", ""},
		{"jane", "", ""},
		{"@best.example", "", "best.example"},
		{"jane@", "", ""},
		{"jane@localhost", "", ""},
		{"jane doe@best.example", "", "best.example"},
		{"jane@best..example", "", ""},
		{"jane@-best.example", "", ""},
		{"jane@[192.0.2.1]", "", ""},
		{"jane@192.0.2.1", "", ""},
		{"a@best.example, b@best.example", "", "best.example"},
		{"a@b@best.example", "", "best.example"},
		{`"a b"@best.example`, "", "best.example"},
		{strings.Repeat("a", 65) + "@best.example", "", "best.example"},
		{"mailto:%zz@best.example", "", "best.example"},
		{"mailto:", "", ""},
		{"", "", ""},
	}
	for _, tt := range tests {
		text := func(v any) string {
			s, _ := v.(string)
			return s
		}
		if got := text(email(tt.give)); got != tt.email {
			t.Errorf("email(%q) = %q, want %q", tt.give, got, tt.email)
		} else if again := text(email(got)); again != got {
			t.Errorf("email(%q) = %q", got, again)
		}
		if got := text(domain(tt.give)); got != tt.domain {
			t.Errorf("domain(%q) = %q, want %q", tt.give, got, tt.domain)
		} else if again := text(domain(got)); again != got {
			t.Errorf("domain(%q) = %q", got, again)
		}
	}
}

func TestLinksKeepTheirWords(t *testing.T) {
	t.Parallel()
	for give, want := range map[string]string{
		`<p>Meet me <a href="/cal">here</a> or <a href="https://acme.example">on our site</a></p>`: "Meet me here (/cal) or on our site (https://acme.example)",
		`<a href='https://acme.example/?a=1&amp;b=2'>here</a>.`:                                    "here (https://acme.example/?a=1&b=2).",
		`<a class=x HREF=/cal target=_blank>here</a>`:                                              "here (/cal)",
		"<A\nhref=\"/cal\">here</A >":                                                              "here (/cal)",
		`<a href="https://acme.example/">acme.example</a>`:                                         "acme.example",
		`<a href="https://acme.example">https://acme.example</a>`:                                  "https://acme.example",
		`<a href="mailto:jane@acme.example">Jane@acme.example</a>`:                                 "Jane@acme.example",
		`<a href="mailto:jane@acme.example">Jane</a>`:                                              "Jane (mailto:jane@acme.example)",
		`<a href="/cal"><b>he</b>re</a> now`:                                                       "here (/cal) now",
		`<a href="/cal"><img src=x></a> now`:                                                       "/cal now",
		`<a name="top">Top</a> and <a href="#top">up</a> and <a href="javascript:x()">do</a>`:      "Top and up and do",
		`<a>plain</a> rest`:                          "plain rest",
		`<a data-href="/no">plain</a>`:               "plain",
		`<a href="/a">one <a href="/b">two</a> rest`: "one (/a)two (/b) rest",
		`<a href="/a">one`:                           "one (/a)",
		`one</a> two`:                                "one two",
		`<abbr href="/a">one</abbr>`:                 "one",
		`<script>"<a href='/a'>x</a>"</script>one`:   "one",
	} {
		if got := htmlText(give); got != want {
			t.Errorf("html_text(%s)\n got %q\nwant %q", give, got, want)
		}
	}
}

// What country() and phone() do not know is counted, and nothing else.
func TestUnknownCountriesAreCounted(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int{
		`country(event.stage)`:                                   1,
		`country(event.stage) ?? "CA"`:                           1,
		`join(map(event.tags, country(#)))`:                      2,
		`country("Türkiye")`:                                     0,
		`country(event.meta.nothing)`:                            0,
		`phone("0212 555 01 23", event.stage)`:                   1,
		`phone("+90 212 555 01 23", event.stage)`:                0,
		`phone("0212 555 01 23", "Türkiye")`:                     0,
		`phone("n/a", "Canada")`:                                 0,
		`country(event.stage) == nil ? country("CA") : value(1)`: 1,
	} {
		out := compileAll(t, head+fmt.Sprintf("  set: {x: '%s'}\n", value)).Run("crm", dealEvent())[0]
		var counted []string
		for range want {
			counted = append(counted, Countries)
		}
		if diff := cmp.Diff(counted, out.Misses); diff != "" || out.Failed != nil {
			t.Errorf("%s: %v\n%s", value, out.Failed, diff)
		}
	}
}

func TestCurrencies(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int32{"USD": 2, " eur ": 2, "jpy": 0, "KWD": 3, "CLF": 4, "VES": 2, "MRU": 2, "SLE": 2, "XCG": 2, "ZWG": 2, "UYW": 4} {
		if _, digits, ok := Currency(name); !ok || digits != want {
			t.Errorf("%q has %d digits, %v; want %d", name, digits, ok, want)
		}
	}
	for _, name := range []string{"", "XYZ", "US", "USDT", "BTC", "XXX", "dollar", "$", "U D", "SD\nA"} {
		if code, _, ok := Currency(name); ok {
			t.Errorf("%q is %s", name, code)
		}
	}
	seen := map[string]bool{}
	for _, codes := range currencies {
		for _, c := range strings.Fields(codes) {
			if seen[c] || len(c) != 3 {
				t.Errorf("%q stands there twice, or is none", c)
			}
			seen[c] = true
		}
	}
	out := compileAll(t, head+"  set: {x: 'cents(event.amount, event.stage)'}\n").Run("crm", dealEvent())[0]
	if out.Failed == nil || !strings.HasSuffix(out.Failed.Message, "cents(): the currency is not known") {
		t.Errorf("a currency that nobody knows: %+v", out)
	}
}
