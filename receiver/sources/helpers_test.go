package sources_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"partnersync/internal/diag"
	"partnersync/receiver/sources"
)

// variables stand for the environment in tests.
var variables = map[string]string{"TOKEN": "tok-1", "SECRET": "s3cret", "EMPTY": ""}

func decoding() *diag.Decoding {
	return &diag.Decoding{Expand: func(name string) (string, error) {
		value, ok := variables[name]
		if !ok {
			return "", errors.New("the environment variable " + name + " is not set")
		}
		return value, nil
	}}
}

// load compiles a source that must be sound.
func load(t testing.TB, name, yaml string) *sources.Source {
	t.Helper()
	s, d := loadAny(t, name, yaml)
	if d.Problems.Failed() {
		t.Fatalf("the source has problems:\n%v", d.Problems.Error())
	}
	return s
}

func loadAny(t testing.TB, name, yaml string) (*sources.Source, *diag.Decoding) {
	t.Helper()
	n, problems := diag.Parse("config.yaml", []byte(yaml))
	if len(problems) > 0 {
		t.Fatal(problems.Error())
	}
	d := decoding()
	return sources.Load(name, n, d), d
}

func preset(t testing.TB, name string) *sources.Source {
	t.Helper()
	return load(t, name, "{preset: "+name+", verify: none}")
}

// body reads a real body: a sample by the name of its event, or a variant.
func body(t testing.TB, source, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("samples/" + source + "/" + name + ".json")
	if err != nil {
		if data, err = os.ReadFile("testdata/variants/" + source + "/" + name + ".json"); err != nil {
			t.Fatal(err)
		}
	}
	return data
}

func lines(texts ...string) string { return strings.Join(texts, "\n") }
