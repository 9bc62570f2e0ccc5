package live

import (
	"slices"
	"strings"
	"testing"

	"partnersync/internal/config"
	"partnersync/sinks"
)

// A field that the config has by its label is looked for by that.
func TestCheckLabels(t *testing.T) {
	t.Parallel()
	labelled := strings.Replace(text, "auth: {token: a-token-of-the-crm}}", "auth: {token: a-token-of-the-crm}, fields: {deals: {amount: The amount}}}", 1)
	cfg, problems := config.Parse("config.yaml", []byte(labelled), config.Options{Getenv: func(string) (string, bool) { return "won", true }})
	if cfg == nil {
		t.Fatal(problems)
	}
	amount := func(name string, kind sinks.FieldKind, label string) sinks.Field {
		return field(name, kind, func(f *sinks.Field) { f.Label = label })
	}
	for _, tt := range []struct {
		name string
		has  []sinks.Field
		want string
	}{
		{"one", []sinks.Field{amount("p_7", "number", "The Amount ")}, ""},
		{"none", []sinks.Field{amount("p_7", "number", "The amounts")}, `deals of sink "crm" have no field with the label "The amount" (did you mean "The amounts"?)`},
		{"two", []sinks.Field{amount("p_7", "number", "The amount"), amount("p_8", "number", "The amount")}, `2 fields of deals have the label "The amount"`},
		{"of another type", []sinks.Field{amount("p_7", "date", "The amount")}, `p_7 of deals takes a date in the CRM, and this is a number`},
		{"one of that name, which is another", []sinks.Field{amount("amount", "number", "Some other"), amount("p_7", "number", "The amount")}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &crm{fields: all()}
			c.fields["deals"] = append(slices.DeleteFunc(c.fields["deals"], func(f sinks.Field) bool { return f.Name == "amount" }), tt.has...)
			found := Check(t.Context(), "crm", c, cfg.Mappings.Uses("crm"), nil)
			if got := found.Problems.Error(); tt.want == "" && len(found.Problems) > 0 || !strings.Contains(got, tt.want) {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
