package sinks

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/shopspring/decimal"
)

// What a read shows and what was sent are the same however the target spells it, and in doubt.
func TestSame(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		preset, property string
		ours, shown      any
		want             bool
	}{
		{"hubspot", "memo", "Acme", "ACME ", true},
		{"hubspot", "memo", "Acme", "Acme Inc", false},
		{"hubspot", "memo", "Acme", nil, false},
		{"hubspot", "memo", nil, nil, true},
		{"hubspot", "memo", nil, "theirs", false},
		{"hubspot", "seats", nil, int64(0), true}, // how a target shows that a number is blank
		{"hubspot", "vip", nil, false, true},
		{"hubspot", "vip", false, nil, true},
		{"hubspot", "vip", true, nil, false},
		{"hubspot", "amount", decimal.RequireFromString("7.50"), "7.5", true},
		{"hubspot", "amount", decimal.RequireFromString("7.50"), decimal.RequireFromString("7.51"), false},
		{"hubspot", "closed", "2026-11-21T08:00:00Z", "2026-11-21T08:00:00.000Z", true},
		{"hubspot", "closed", "2026-11-21", "2026-11-22", false},
		{"hubspot", "tags", []any{"a", "b"}, "b;a", true},
		{"hubspot", "tags", []any{"a", "b"}, "b;a;c", false},
		{"hubspot", "memo", map[string]any{"a": "b"}, "anything", true},
		{"attio", "memo", "Acme", "ACME", true},
		{"salesforce", "Memo__c", "Acme", "Acme Inc", false},
	} {
		s := New(loadYAML(t, presetConfigs[tt.preset]), Options{})
		if got := s.Same(tt.property, tt.ours, tt.shown); got != tt.want {
			t.Errorf("%s %s: %v and %v: %v", tt.preset, tt.property, tt.ours, tt.shown, got)
		}
		s.Close()
	}
}

// A key is held as the target compares keys, among further values too; of a number all digits count.
func TestHolds(t *testing.T) {
	t.Parallel()
	s := New(loadYAML(t, presetConfigs["hubspot"]), Options{})
	defer s.Close()
	for _, tt := range []struct {
		property, key string
		shown         any
		want          bool
	}{
		{"partner_key", "ps-1", "PS-1", true},
		{"partner_key", "ps-1", "PS-10", false},
		{"partner_key", "ps-1", nil, false},
		{"partner_key", "7", int64(7), true},
		{"partner_key", "5843104171000000001", "5843104171000000002", false},
		{"partner_key", "5843104171000000001", int64(5843104171000000001), true},
		{"hs_additional_emails", "a@b.test", "x@y.test;A@b.test", true},
		{"email", "a@b.test", []any{"x@y.test", "a@B.test"}, true},
	} {
		if got := s.Holds(tt.property, tt.key, tt.shown); got != tt.want {
			t.Errorf("%s %s: %v: %v", tt.property, tt.key, tt.shown, got)
		}
	}
}

// A sink that has a share of the limits leaves the rest to others: of the rate, also of one that the target tells, and of the day.
func TestShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		desc := loadYAML(t, presetConfigs["hubspot"])
		desc.limits = []limitRule{{Requests: 100, Per: 10 * time.Second, Told: &toldLimit{Requests: "X-Limit"}}}
		took := map[float64]time.Duration{}
		for _, share := range []float64{0, 0.5} {
			s := New(desc, Options{Share: share})
			for _, told := range []string{"", "50"} {
				if told != "" {
					a := &answer{header: map[string][]string{"X-Limit": {told}}}
					s.limiter.adjust(Read, a)
				}
				began := time.Now()
				for range 100 {
					delay, _, _ := s.limiter.reserve(Read)
					time.Sleep(delay)
				}
				took[share] += time.Since(began)
			}
			if s.limiter.budget == nil {
				t.Fatal("no budget")
			}
			s.limiter.budget.units = 1000
			for range 501 {
				if left := s.limiter.budget.exhausted(Read, time.Now()); share > 0 && left > 0 {
					break
				}
				s.limiter.budget.spend(Read, time.Now())
			}
			if left := s.limiter.budget.left(); share == 0 && left > 999-501 || share > 0 && left > 0 {
				t.Errorf("share %v: %d left", share, left)
			}
			s.Close()
		}
		if half := took[0.5].Seconds() / took[0].Seconds(); half < 1.9 || half > 2.4 {
			t.Errorf("half of the limits takes %v times as long", half)
		}
	})
}
