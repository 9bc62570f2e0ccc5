package config_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/config"
)

func TestSpool(t *testing.T) {
	t.Parallel()
	type spool struct {
		Dir string
		Max config.Size
	}
	tests := []struct {
		name string
		give string // below receiver
		want spool
		err  string
	}{
		{name: "none", give: "flushers: 2", want: spool{"", 1 << 30}},
		{name: "a directory", give: "spool: /var/spool/partnersync", want: spool{"/var/spool/partnersync", 1 << 30}},
		{name: "a size", give: "{spool: here, spool_max: 20GiB}", want: spool{"here", 20 << 30}},
		{name: "of thousands", give: "{spool: here, spool_max: 500 MB}", want: spool{"here", 500_000_000}},
		{name: "in bytes", give: "{spool: here, spool_max: 16777216}", want: spool{"here", 16 << 20}},
		{name: "no size", give: "{spool: here, spool_max: much}", err: `"much" is not a size`},
		{name: "a fraction", give: "{spool: here, spool_max: 1.5GiB}", err: `"1.5GiB" is not a size`},
		{name: "beyond all sizes", give: "{spool: here, spool_max: 9999999999TiB}", err: `"9999999999TiB" is not a size`},
		{name: "below zero", give: "{spool: here, spool_max: -1GiB}", err: `"-1GiB" is not a size`},
		{name: "too small", give: "{spool: here, spool_max: 1MiB}", err: "receiver.spool_max is out of range"},
		{name: "a size of nothing", give: "{spool_max: 1GiB}", err: "receiver.spool_max does nothing without receiver.spool"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, problems := config.Parse("config.yaml", []byte("receiver:\n  "+tt.give+"\n"), config.Options{})
			var messages []string
			for _, p := range problems {
				messages = append(messages, p.Message)
			}
			if got := strings.Join(messages, "; "); got != tt.err {
				t.Fatalf("got %q, want %q", got, tt.err)
			}
			if tt.err != "" {
				return
			}
			if diff := cmp.Diff(tt.want, spool{cfg.Receiver.Spool, cfg.Receiver.SpoolMax}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReceiver(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		give string // below receiver
		want string // the limit and the proxies
		err  string
	}{
		{give: "{}", want: "4096"},
		{give: "{max_connections: 100}", want: "100"},
		{give: "{max_connections: 2}", err: "receiver.max_connections is out of range"},
		{give: "{proxies: 10.1.2.3/8}", want: "4096 10.0.0.0/8"},
		{give: "{proxies: [192.0.2.7, '2001:db8::/32']}", want: "4096 192.0.2.7/32 2001:db8::/32"},
		{give: "{proxies: [proxy.example]}", err: `"proxy.example" is no network`},
	} {
		cfg, problems := config.Parse("config.yaml", []byte("receiver: "+tt.give+"\n"), config.Options{})
		if tt.err != "" {
			if len(problems) != 1 || problems[0].Message != tt.err {
				t.Errorf("%s: got %v, want %s", tt.give, problems, tt.err)
			}
			continue
		}
		got := strconv.Itoa(cfg.Receiver.MaxConnections)
		for _, p := range cfg.Receiver.Proxies {
			got += " " + p.String()
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.give, got, tt.want)
		}
	}
}

// The former names of sinks reach the sinks, and those that cannot be are refused.
func TestFormerly(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		give string // of sinks, by name what follows formerly
		want []string
		err  string
	}{
		{name: "none", give: "crm: []"},
		{name: "one", give: "crm: old", want: []string{"old"}},
		{name: "a chain", give: "crm: [older, old]", want: []string{"older", "old"}},
		{name: "two sinks", give: "crm: [old]\nerp: [old_erp]", want: []string{"old"}},
		{name: "no name", give: "crm: [Old CRM]", err: `"Old CRM" was never the name of a sink`},
		{name: "its own", give: "crm: [crm]", err: `sink "crm" still has this name`},
		{name: "twice", give: "crm: [old, old]", err: `"old" is named twice`},
		{name: "of two sinks", give: "crm: [old]\nerp: [old]", err: `sink "crm" was formerly "old", too`},
		{name: "of another sink", give: "crm: [erp]\nerp: []", err: `there is a sink "erp", which has its own state`},
		{name: "a ring", give: "a: [b]\nb: [c]\nc: [a]", err: `there is a sink "b", which has its own state; there is a sink "c", which has its own state; there is a sink "a", which has its own state`},
		{name: "a swap", give: "crm: [erp]\nerp: [crm]", err: `sinks "crm" and "erp" cannot swap their names at once`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := "sinks:\n"
			for line := range strings.Lines(tt.give) {
				name, formerly, _ := strings.Cut(strings.TrimSpace(line), ": ")
				text += "  " + name + ": {preset: webhook, url: 'https://example.com', formerly: " + formerly + "}\n"
			}
			cfg, problems := config.Parse("config.yaml", []byte(text), config.Options{})
			var messages []string
			for _, p := range problems {
				messages = append(messages, p.Message)
			}
			if got := strings.Join(messages, "; "); got != tt.err {
				t.Fatalf("got %q, want %q", got, tt.err)
			}
			if tt.err != "" {
				return
			}
			if diff := cmp.Diff(tt.want, cfg.Sinks["crm"].Formerly()); diff != "" && len(tt.want)+len(cfg.Sinks["crm"].Formerly()) > 0 {
				t.Error(diff)
			}
		})
	}
}
