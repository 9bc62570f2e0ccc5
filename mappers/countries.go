package mappers

import (
	_ "embed"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/text/language"
	"golang.org/x/text/language/display"
	"golang.org/x/text/unicode/norm"
)

//go:embed countries.txt
var countriesText string

// countries has the code for every name and code of a country, folded.
var countries = sync.OnceValue(func() map[string]string {
	byName := map[string]string{}
	add := func(name, code string) {
		for _, folded := range countryFolds(name) {
			if _, taken := byName[folded]; !taken {
				byName[folded] = code
			}
		}
	}
	type line struct {
		code  string
		names []string
	}
	var lines []line
	for text := range strings.Lines(countriesText) {
		if !strings.HasPrefix(text, "#") {
			code, names, _ := strings.Cut(text, ";")
			lines = append(lines, line{code, strings.Split(names, ";")})
		}
	}
	// A name that is one country's own goes before what another may be called, too.
	for _, l := range lines {
		add(l.code, l.code)
		add(l.names[0], l.code)
	}
	english := display.English.Regions()
	for _, l := range lines {
		for _, name := range l.names {
			add(name, l.code)
		}
		if region, err := language.ParseRegion(l.code); err == nil {
			add(region.ISO3(), l.code)
			add(english.Name(region), l.code)
		}
	}
	return byName
})

// countryCode returns "" where no country is called so.
func countryCode(name string) string {
	folds := countryFolds(name)
	for _, folded := range folds {
		if code := countries()[folded]; code != "" {
			return code
		}
	}
	for _, folded := range folds {
		form, rest, _ := strings.Cut(folded, " ")
		if code := countries()[rest]; (form == "republic" || form == "kingdom") && len(rest) > 3 && code != "" {
			return code
		}
	}
	return ""
}

const longestCountry = 200 // bytes

// countryFolds makes the ways to write a country's name alike. The second, if any, has
// in front what follows a comma or stands in parentheses.
func countryFolds(name string) []string {
	if len(name) > longestCountry {
		return nil
	}
	folds := []string{countryFold(name)}
	if at := strings.IndexAny(name, ",(["); at > 0 {
		folds = append(folds, countryFold(name[at+1:]+" "+name[:at]))
	}
	return folds
}

// countryWords are those that are written in several ways, or left out.
var countryWords = map[string]string{"the": "", "of": "", "st": "saint", "rep": "republic", "dem": "democratic"}

func countryFold(name string) string {
	var b strings.Builder
	for _, r := range norm.NFD.String(strings.ToLower(strings.ReplaceAll(name, "&", " and "))) {
		switch {
		case unicode.Is(unicode.Mn, r):
		case unicode.IsLetter(r), unicode.IsDigit(r):
			b.WriteRune(r)
		default:
			b.WriteByte(' ')
		}
	}
	var words []string
	initials := false // the last word is made of single letters, such as those of U.S.
	for _, w := range strings.Fields(b.String()) {
		single := len(w) == 1
		if single && initials {
			words[len(words)-1] += w
			continue
		}
		if other, ok := countryWords[w]; ok {
			w = other
		}
		if w != "" {
			words = append(words, w)
			initials = single
		}
	}
	return strings.Join(words, " ")
}
