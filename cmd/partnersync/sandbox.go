package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"partnersync/internal/config"
	"partnersync/sinks"
	"partnersync/sinks/sandbox"
)

type sandboxCmd struct {
	Listen  string        `help:"Address to listen on." default:"127.0.0.1:8090"`
	Latency time.Duration `help:"How long each request takes." default:"0s"`
	Lag     time.Duration `help:"How far a search is behind." default:"0s"`
}

func (c sandboxCmd) Run(ctx context.Context, cli *commands, s streams) error {
	box := sandbox.New(sandbox.Options{Latency: c.Latency, Lag: c.Lag})
	cfg, _ := config.Load(cli.Config, config.Options{Lenient: true})
	if cfg != nil {
		furnish(box, cfg)
		fmt.Fprintf(s.out, "the properties that %s writes are defined\n", cli.Config)
	} else {
		fmt.Fprintf(s.out, "no config %s can be read: only what each CRM has of its own is defined; --config FILE adds what that one writes\n", cli.Config)
	}
	cli.begun.Store(true)
	l, err := listen(c.Listen, "--listen")
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "sandbox CRM: http://%s/ lists its records; it takes any credentials. As sinks of a config, by the names that its mappings have under `to`:\n\n%s", l.Addr(), sandboxSinks(l.Addr(), cfg))
	server := &http.Server{Handler: sandboxHandler(box, c.Listen), ReadHeaderTimeout: 5 * time.Second}
	stopped := context.AfterFunc(ctx, func() {
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(deadline) // what still runs is cut off: it is a sandbox
	})
	defer stopped()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the sandbox: %w", err)
	}
	return nil
}

// sandboxHandler keeps pages of other sites away from the sandbox's own: records may be copies of real ones. What a CRM would
// answer is for programs, under whatever name they know it.
func sandboxHandler(box http.Handler, listen string) http.Handler {
	isCRM := func(r *http.Request) bool {
		head, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		return slices.Contains(sinks.Presets(), head)
	}
	return ownNames(listen, isCRM, ownPages(box))
}

// sandboxSinks is the section of a config whose sinks write to a sandbox, one for each preset; by the name that the config has
// for its sink of a preset, so that its mappings find it.
func sandboxSinks(box net.Addr, cfg *config.Config) string {
	names := map[string]string{}
	if cfg != nil {
		for _, name := range slices.Backward(sortedKeys(cfg.Sinks)) {
			names[cfg.Sinks[name].Preset] = name
		}
	}
	var text strings.Builder
	text.WriteString("sinks:\n")
	for _, preset := range sinks.Presets() {
		base := fmt.Sprintf("http://%s/%s", box, preset)
		for _, auth := range sandboxAuth {
			sink := fmt.Sprintf("{preset: %s, base_url: %q, auth: %s}", preset, base, auth)
			if auth == "" {
				sink = fmt.Sprintf("{preset: %s, url: %q}", preset, base)
			}
			one, problems := config.Parse("sandbox", fmt.Appendf(nil, "sinks: {%s: %s}", preset, sink), config.Options{Lenient: true})
			if one == nil || problems.Failed() {
				continue // it wants others
			}
			if path := one.Sinks[preset].TokenPath(); path != "" {
				sink = strings.Replace(sink, "auth: {", fmt.Sprintf("auth: {token_url: %q, ", base+path), 1)
			}
			fmt.Fprintf(&text, "  %s: %s\n", cmp.Or(names[preset], preset), sink)
			break
		}
	}
	return text.String()
}

// sandboxAuth are the credentials that presets ask for, made up, the fewest first.
var sandboxAuth = []string{
	"",
	"{token: sandbox}",
	"{client_id: sandbox, client_secret: sandbox}",
	"{client_id: sandbox, client_secret: sandbox, refresh_token: sandbox}",
	"{tenant: sandbox, client_id: sandbox, client_secret: sandbox}",
}

// furnish defines in the sandbox what a config's mappings write, as the set-up
// steps of a real CRM would: keys are unique properties. What the CRM has of its
// own stays as it is.
func furnish(box *sandbox.Server, cfg *config.Config) {
	for _, m := range cfg.Mappings.Mappings() {
		d := cfg.Sinks[m.Sink]
		if d == nil || d.Preset == "" || d.Preset == "webhook" {
			continue
		}
		define := func(object string, p sandbox.Property) {
			if p.Name != "" && !box.Defined(d.Preset, object, p.Name) {
				box.Define(d.Preset, object, p)
			}
		}
		define(m.Object, sandbox.Property{Name: m.Key, Unique: true})
		for _, l := range m.Links {
			define(l.To, sandbox.Property{Name: l.Key, Unique: true})
		}
	}
	// Keys first: a property that one mapping writes may be the key of another.
	for _, m := range cfg.Mappings.Mappings() {
		if d := cfg.Sinks[m.Sink]; d != nil && d.Preset != "" && d.Preset != "webhook" {
			for _, name := range m.Fields {
				if !box.Defined(d.Preset, m.Object, name) {
					box.Define(d.Preset, m.Object, sandbox.Property{Name: name})
				}
			}
		}
	}
}
