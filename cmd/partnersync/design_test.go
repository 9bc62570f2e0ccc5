package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each invariant of docs/design.md names tests that there are.
func TestDesignNamesItsTests(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "design.md"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("grep", "-rhoE", "--include=*_test.go", "^func (Test|Fuzz)[A-Za-z0-9]+", root)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		there[strings.TrimSpace(strings.TrimPrefix(line, "func "))] = true
	}
	named := regexp.MustCompile("`(Test[A-Za-z0-9]+|Fuzz[A-Za-z0-9]+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 20 {
		t.Fatalf("only %d tests are named", len(named))
	}
	for _, m := range named {
		if !there[m[1]] {
			t.Errorf("docs/design.md names %s, which is not there", m[1])
		}
	}
}

// Each mutant of scripts/mutants can still be planted, in one place only, the test is there that is to
// notice it, and docs/design.md lists it. Whether it is noticed shows `make mutants`.
func TestMutantsCanBePlanted(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	read := func(path string) string {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	paths, err := filepath.Glob(filepath.Join(root, "scripts", "mutants", "*.patch"))
	if err != nil || len(paths) < 25 {
		t.Fatalf("only %d mutants: %v", len(paths), err)
	}
	var rows []string
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".patch")
		m, ok := parseMutant(read(filepath.Join("scripts", "mutants", name+".patch")))
		if !ok {
			t.Errorf("%s: write what breaks, then \"Noticed-by: PACKAGE TEST\", then the patch of one file", name)
			continue
		}
		text := read(m.file)
		for _, was := range m.hunks {
			if n := strings.Count(text, was); n != 1 {
				t.Errorf("%s: what it changes occurs %d times in %s:\n%s", name, n, m.file, was)
			}
		}
		tests, _ := filepath.Glob(filepath.Join(root, m.dir, "*_test.go"))
		if !slices.ContainsFunc(tests, func(path string) bool {
			return strings.Contains(read(strings.TrimPrefix(path, root)), "\nfunc "+m.test+"(")
		}) {
			t.Errorf("%s: %s has no %s", name, m.dir, m.test)
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | `%s` of `%s` |\n", name, m.says, m.test, m.dir))
	}
	_, table, _ := strings.Cut(read("docs/design.md"), "| mutant | what breaks | noticed by |\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	if want := strings.TrimSuffix(strings.Join(rows, ""), "\n"); table != want {
		t.Errorf("docs/design.md has another table of mutants than this:\n%s", want)
	}
}

// mutant is what its patch says.
type mutant struct {
	says, dir, test, file string
	hunks                 []string // as they were
}

func parseMutant(patch string) (m mutant, ok bool) {
	head, diff, _ := strings.Cut(patch, "\n--- a/")
	says, noticer, _ := strings.Cut(head, "\n\nNoticed-by: ")
	m.says = says
	m.dir, m.test, _ = strings.Cut(noticer, " ")
	m.file, diff, _ = strings.Cut(diff, "\n")
	changed := false
	for line := range strings.Lines(diff) {
		switch {
		case strings.HasPrefix(line, "+++ "):
		case strings.HasPrefix(line, "--- "): // of another file
			return m, false
		case strings.HasPrefix(line, "@@"):
			m.hunks = append(m.hunks, "")
		case len(m.hunks) == 0:
			return m, false
		case line[0] != '+':
			m.hunks[len(m.hunks)-1] += line[1:]
			changed = changed || line[0] == '-'
		default:
			changed = true
		}
	}
	return m, changed && !strings.Contains(says, "\n") && m.test != ""
}
