package config_test

import (
	"strings"
	"testing"
	"time"

	"partnersync/internal/config"
)

func TestRetention(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name string
		give string
		want time.Duration
		err  string
	}{
		{"nothing said", "log: {level: info}", 400 * day, ""},
		{"days", "retention: {events: 30d}", 30 * day, ""},
		{"hours", "retention: {events: 720h}", 30 * day, ""},
		{"for ever", "retention: {events: 0}", 0, ""},
		{"the least", "retention: {events: 7d}", 7 * day, ""},
		{"too short", "retention: {events: 6d}", 0, "config.yaml:1:21: retention.events is out of range"},
		{"below zero", "retention: {events: -7d}", 0, "config.yaml:1:21"},
		{"no duration", "retention: {events: long}", 0, "config.yaml:1:21"},
		{"another key", "retention: {event: 30d}", 0, `unknown key "event"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, problems := config.Parse("config.yaml", []byte(tt.give), config.Options{})
			switch {
			case tt.err != "":
				if c != nil || !strings.Contains(problems.Error(), tt.err) {
					t.Errorf("got %v", problems)
				}
			case c == nil:
				t.Errorf("got %v", problems)
			case c.Retention.Events != tt.want:
				t.Errorf("got %s, want %s", c.Retention.Events, tt.want)
			}
		})
	}
}
