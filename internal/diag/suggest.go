package diag

import (
	"fmt"
	"sort"
	"strings"
)

// DidYouMean returns `did you mean "x"?` for the candidate nearest to word,
// or "" when none is near enough to be a slip of the pen.
func DidYouMean(word string, candidates []string) string {
	if best := Nearest(word, candidates); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return ""
}

// Nearest returns the candidate nearest to word, or "".
func Nearest(word string, candidates []string) string {
	sorted := append([]string(nil), candidates...)
	sort.Strings(sorted)
	if short := fold(word); len(short) >= 3 {
		for _, c := range sorted {
			if strings.HasPrefix(fold(c), short) { // obj is object, not on
				return c
			}
		}
	}
	best, least := "", max(2, len(word)/3)+1
	for _, c := range sorted {
		if d := distance(fold(word), fold(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// OneOf returns "one of: a, b, c" for short lists and the nearest for long ones.
func OneOf(word string, candidates []string) string {
	if s := DidYouMean(word, candidates); s != "" {
		return s
	}
	if len(candidates) == 0 || len(candidates) > 24 {
		return ""
	}
	sorted := append([]string(nil), candidates...)
	sort.Strings(sorted)
	return "one of: " + strings.Join(sorted, ", ")
}

func fold(s string) string {
	return strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(s))
}

// distance is the edit distance where swapping two neighbours counts once.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	var before []int
	prev := make([]int, len(y)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row := make([]int, len(y)+1)
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, prev[j]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev = prev, row
	}
	return prev[len(y)]
}
