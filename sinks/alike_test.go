package sinks

import (
	"testing"

	"github.com/shopspring/decimal"
)

// What a target shows, with the type that it shows it in, and a value of ours are the same where they say the same.
func TestAlike(t *testing.T) {
	t.Parallel()
	s := New(loadYAML(t, presetConfigs["hubspot"]), Options{})
	defer s.Close()
	for _, tt := range []struct {
		property    string
		ours, shown any
		want        bool
	}{
		{"name", "Acme", "ACME", true},
		{"name", "Acme", "Acme Inc", false},
		{"name", "Acme", "", false},
		{"name", "Acme", nil, false},
		{"name", "", nil, true},
		{"domain", "acme.com", "https://www.acme.com/", true},
		{"email", "A@b.co", "a@B.co ", true},
		{"seats", int64(7), "7", true},
		{"seats", "7", int64(7), true},
		{"seats", decimal.RequireFromString("7.50"), "7.5", true},
		{"seats", int64(7), int64(8), false},
		{"vip", true, "true", true},
		{"vip", true, true, true},
		{"vip", true, false, false},
		{"tags", []any{"a", "b"}, "b;a", true},
	} {
		if got := s.Alike(tt.property, tt.ours, tt.shown); got != tt.want {
			t.Errorf("%s: %v and %v: %v", tt.property, tt.ours, tt.shown, got)
		}
	}
	if got := s.Several("a; b;"); len(got) != 2 || got[0] != "a" || got[1] != "b" {
		t.Errorf("%q", got)
	}
	if got := s.Several([]any{"a", int64(2)}); len(got) != 2 || got[1] != "2" {
		t.Errorf("%q", got)
	}
	if got := s.Several(nil); got != nil {
		t.Errorf("%q", got)
	}
}
