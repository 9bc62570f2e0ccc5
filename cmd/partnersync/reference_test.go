package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"partnersync/mappers"
	"partnersync/receiver/sources"
)

// same holds a document against what it should be.
func same(t *testing.T, file string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what it should be: -update writes it", file)
	}
}

// frame is what the examples of the documents stand in.
const frame = `
sources:
  partnerstack: {preset: partnerstack, verify: {token: a-token-of-the-test}, zone: America/Toronto, currency: USD}
  everflow: {preset: everflow, verify: {token: a-token-of-the-test}}
sinks:
  crm: {preset: hubspot, auth: {token: a-token-of-the-test}}
`

const frameTables = `
tables:
  stages: {map: {Working: qualifiedtobuy, Closed Won: closedwon, Closed Lost: closedlost}, else: skip}
  owners: {map: {maria.keller@yourcompany.example: "1001", john.doe@example.com: "1002"}, else: skip}
`

var example = regexp.MustCompile("(?ms)^```yaml (\\S+)\n(.*?)^```\n(?:\n```text\n.*?^```\n)?")

// TestExamplesOfDocuments runs every mapping of the documents over the sample of its event. What comes of it stands below.
func TestExamplesOfDocuments(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mappings", "cookbook"} {
		file := "../../docs/" + name + ".md"
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		same(t, file, example.ReplaceAllFunc(text, func(block []byte) []byte {
			n++
			parts := example.FindSubmatch(block)
			return fmt.Appendf(nil, "```yaml %s\n%s```\n\n```text\n%s```\n", parts[1], parts[2], tried(t, string(parts[1]), string(parts[2])))
		}))
		if n == 0 {
			t.Errorf("%s has no example", file)
		}
	}
}

// tried is what an example makes of the sample of an event, without the requests.
func tried(t *testing.T, event, text string) string {
	t.Helper()
	tables, mappings, own := strings.Cut(text, "mappings:\n")
	if !own {
		tables, mappings = frameTables, text
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(frame+tables+"mappings:\n"+mappings), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := run([]string{"--config", path, "check", path}, &out, &errs); code != 0 || strings.Contains(out.String()+errs.String(), "warning") {
		t.Errorf("the example for %s:\n%s\n%s%s", event, text, &out, &errs)
		return ""
	}
	out.Reset()
	if code := run([]string{"--config", path, "try", "--event", event}, &out, &errs); code != 0 {
		t.Errorf("the example for %s:\n%s\n%s", event, text, &errs)
	}
	_, shown, _ := strings.Cut(out.String(), "to crm\n")
	var kept strings.Builder
	for line := range strings.Lines(shown) {
		if strings.TrimSpace(line) == "" {
			break
		}
		kept.WriteString(strings.TrimPrefix(line, "  "))
	}
	if kept.Len() == 0 || strings.Contains(kept.String(), ": dead: ") || strings.Contains(kept.String(), ": skipped: ") {
		t.Errorf("the example for %s makes no record:\n%s\n%s", event, text, &out)
	}
	return kept.String()
}

func TestFunctionsDocument(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	b.WriteString("# What an expression may call\n\nWhat `partnersync show functions` prints. A missing value is null: where an argument is null, so is the result, unless the text says otherwise.\n")
	for _, f := range mappers.Functions() {
		fmt.Fprintf(&b, "\n## `%s`\n\n%s.\n\n| expression | gives |\n|---|---|\n", f.Signature, strings.TrimSuffix(f.Doc, "."))
		for _, e := range f.Examples {
			fmt.Fprintf(&b, "| %s | %s |\n", code(e.Expression), code(e.Result))
		}
	}
	same(t, "../../docs/functions.md", b.Bytes())
}

func TestEventsDocument(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	b.WriteString("# What the events of the presets carry\n\nWhat `partnersync show event SOURCE.EVENT` prints, without the samples. `[]` stands for an element of a list, which `each` calls `item`. " +
		"A mapping may not read what is private, unless `allow` of its source names it.\n")
	for _, name := range sources.Presets() {
		src := findSource(&commands{}, name)
		fmt.Fprintf(&b, "\n## %s\n", name)
		var before string
		for _, event := range src.EventNames() {
			e := src.Events[event]
			fmt.Fprintf(&b, "\n### `%s.%s`\n\n%s\n", name, event, e.Description)
			var fields bytes.Buffer
			tableOf(&fields, "event", e.Schema)
			switch {
			case fields.Len() == 0:
				b.WriteString("\nAny fields.\n")
			case fields.String() == before:
				b.WriteString("\nThe fields are those of the event above.\n")
			default:
				fmt.Fprintf(&b, "\n| field | type | | |\n|---|---|---|---|\n%s", &fields)
			}
			before = fields.String()
		}
	}
	same(t, "../../docs/events.md", b.Bytes())
}

func tableOf(b *bytes.Buffer, path string, s mappers.Schema) {
	for _, f := range fieldsOf(path, s) {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.path, f.kind, f.notes, strings.ReplaceAll(f.description, "|", `\|`))
	}
}

// code is a text as code in a table.
func code(text string) string {
	fence := "`"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	if len(fence) > 1 {
		text = " " + text + " "
	}
	return fence + strings.ReplaceAll(text, "|", `\|`) + fence
}
