package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"partnersync/receiver/sources"
	"partnersync/sinks"
)

const module = "partnersync/"

// goFiles are the files of the module that ship, by package folder.
func goFiles(t *testing.T) map[string][]*ast.File {
	t.Helper()
	root := filepath.Join("..", "..")
	files := map[string][]*ast.File{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".."):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		folder = filepath.ToSlash(folder)
		files[folder] = append(files[folder], f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %d packages found: is the test where it was written for?", len(files))
	}
	return files
}

// imports are the packages that each package of ours imports; ours without the module's name.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for folder, files := range goFiles(t) {
		for _, f := range files {
			for _, spec := range f.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				out[folder] = append(out[folder], strings.TrimPrefix(path, module))
			}
		}
		slices.Sort(out[folder])
		out[folder] = slices.Compact(out[folder])
	}
	return out
}

// reach is everything that a package of ours imports, also by way of others of ours.
func reach(all map[string][]string, folder string) map[string]string {
	via := map[string]string{}
	var walk func(string)
	walk = func(from string) {
		for _, to := range all[from] {
			if _, seen := via[to]; !seen {
				via[to] = from
				walk(to)
			}
		}
	}
	walk(folder)
	return via
}

// The layers of docs/design.md: who may import which packages of ours. A package
// that is new has to find its place here.
var layers = map[string][]string{
	"internal/secret":           {},
	"internal/diag":             {"internal/secret"},
	"internal/ledger":           {"mappers", "records"},
	"records":                   {"mappers"},
	"internal/tracing":          {"internal/secret"},
	"internal/tracing/otlptest": {},
	"internal/proc":             {},
	"internal/localpg":          {"internal/proc"},
	"internal/pgtest":           {"internal/localpg", "migrations"},
	"internal/cmd/bench":        {"internal/config", "internal/ledger", "internal/localpg", "internal/proc", "internal/progress", "mappers", "migrations", "sinks", "internal/sandbox"},
	"internal/pgstats":          {"internal/ledger"},
	"internal/progress":         {},
	"internal/cmd/chaos":        {"internal/localpg", "internal/proc", "internal/sandbox"},
	"migrations":                {},
	"mappers":                   {"internal/diag", "internal/secret"},
	"receiver/sources":          {"internal/diag", "internal/secret", "mappers"},
	"sinks":                     {"internal/diag", "internal/secret", "internal/tracing", "mappers"},
	"internal/live":             {"internal/diag", "mappers", "sinks"},
	"internal/audit":            {"internal/ledger", "mappers", "records", "sinks"},
	"internal/sandbox":          {},
	"internal/config":           {"internal/diag", "internal/secret", "mappers", "receiver/sources", "sinks"},
	"receiver":                  {"internal/diag", "internal/ledger", "internal/secret", "internal/tracing", "mappers", "receiver/sources", "receiver/spool"},
	"receiver/spool":            {},
	"jobs":                      {"internal/ledger", "internal/secret", "internal/tracing", "mappers", "receiver/sources", "records", "sinks"},
	"grafana":                   {},
	"examples":                  {},
	"deploy":                    {},
	"cmd/partnersync":           nil, // joins everything
}

func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	all := imports(t)
	for _, folder := range slices.Sorted(maps.Keys(all)) {
		may, known := layers[folder]
		if !known {
			t.Errorf("the package %s has no place in the layers", folder)
			continue
		}
		for _, path := range all[folder] {
			if _, ours := all[path]; ours && may != nil && !slices.Contains(may, path) {
				t.Errorf("%s imports %s", folder, path)
			}
		}
	}
}

// What a package must not know, not even by way of others of ours.
func TestWhatPackagesDoNotKnow(t *testing.T) {
	t.Parallel()
	const (
		postgres = "github.com/jackc/pgx"
		river    = "github.com/riverqueue"
	)
	all := imports(t)
	for _, tt := range []struct {
		folder string
		not    []string
	}{
		{"mappers", []string{"net/http", "database/sql", postgres, river}},
		{"sinks", []string{"database/sql", postgres, river, "internal/ledger"}},
		{"internal/sandbox", []string{"database/sql", postgres, river}},
		{"receiver/sources", []string{"database/sql", postgres, river}},
		{"receiver", []string{river, "sinks", "jobs"}},
		{"records", []string{"net/http", "database/sql", postgres, river, "internal/ledger", "sinks"}},
		{"internal/ledger", []string{"net/http", "internal/config", "receiver", "jobs", "sinks"}},
	} {
		for path, by := range reach(all, tt.folder) {
			for _, not := range tt.not {
				if path == not || strings.HasPrefix(path, not+"/") {
					t.Errorf("%s knows %s, by %s", tt.folder, path, by)
				}
			}
		}
	}
	for _, path := range all["records"] {
		// The rules are pure: of time they know values only, since Env gives them the present.
		if !slices.Contains([]string{"bytes", "cmp", "fmt", "maps", "slices", "sort", "strconv", "strings", "time", "unicode/utf8", "github.com/google/uuid", "github.com/shopspring/decimal", "mappers"}, path) {
			t.Errorf("records imports %s", path)
		}
	}
	for folder, paths := range all {
		for _, path := range paths {
			if strings.Contains(path, "yaml") && folder != "internal/diag" {
				t.Errorf("%s imports %s: YAML is read by internal/diag alone", folder, path)
			}
			if strings.HasPrefix(path, "go.opentelemetry.io/") && !strings.HasPrefix(folder, "internal/tracing") {
				t.Errorf("%s imports %s: internal/tracing alone knows OpenTelemetry", folder, path)
			}
			if path == "internal/pgtest" || path == "internal/tracing/otlptest" {
				t.Errorf("%s imports %s outside a test", folder, path)
			}
		}
	}
}

// Lines of the log can be grouped by their message, and found by their keys: messages are constant, and
// the key of an error is err.
func TestLogMessagesAreConstant(t *testing.T) {
	t.Parallel()
	at := map[string]int{"Debug": 0, "Info": 0, "Warn": 0, "Error": 0, "LogAttrs": 2} // the argument that is the message
	lines := 0
	for folder, files := range goFiles(t) {
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				method, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				message, ok := at[method.Sel.Name]
				if !ok || !isLogger(method.X) {
					return true
				}
				lines++
				if _, constant := call.Args[message].(*ast.BasicLit); !constant {
					t.Errorf("%s: %s logs a message that is made up", folder, method.Sel.Name)
				}
				for _, arg := range call.Args[message+1:] {
					if key, ok := arg.(*ast.BasicLit); ok && key.Value == `"error"` {
						t.Errorf("%s: an error is logged under another key than err", folder)
					}
				}
				return true
			})
		}
	}
	if lines < 50 {
		t.Errorf("only %d lines of log found: does the test still know them?", lines)
	}
}

// isLogger reports whether an expression is named like a logger.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.SelectorExpr:
		return isLogger(x.Sel)
	case *ast.Ident:
		return x.Name == "log" || x.Name == "logger" || x.Name == "Logger"
	}
	return false
}

// Vendors and CRMs are data: no Go code names one, but for the sandbox, which plays
// them, and the benchmark, which measures one. Sentences for people may, as examples.
func TestNoCodeNamesAVendor(t *testing.T) {
	t.Parallel()
	names := append(sources.Presets(), sinks.Presets()...)
	names = slices.DeleteFunc(names, func(name string) bool { return name == "webhook" })
	if len(names) < 3 {
		t.Fatalf("presets %v", names)
	}
	for folder, files := range goFiles(t) {
		if strings.HasPrefix(folder, "internal/sandbox") || folder == "internal/cmd/bench" || folder == "internal/cmd/chaos" {
			continue
		}
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				text := ""
				switch n := n.(type) {
				case *ast.Ident:
					text = n.Name
				case *ast.BasicLit:
					if n.Kind != token.STRING || strings.Contains(n.Value, " ") {
						return true
					}
					text = n.Value
				}
				for _, name := range names {
					if strings.Contains(strings.ToLower(text), name) {
						t.Errorf("%s: %s", folder, text)
					}
				}
				return true
			})
		}
	}
}
