package mappers

import (
	"os"
	"strings"
	"testing"

	"partnersync/internal/diag"
)

// Every key of a mapping, of a link and of a table stands in the reference.
func TestEveryKeyIsInTheReference(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/mappings.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range diag.KeysOf(entry{}) {
		if !strings.Contains(string(text), "\n| `"+key+"` | ") && !(strings.Contains(string(text), "`"+key+"`") && isLater(key)) {
			t.Errorf("docs/mappings.md does not tell of %s", key)
		}
	}
}

func isLater(key string) bool {
	for _, k := range later {
		if k == key {
			return true
		}
	}
	return false
}
