package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"partnersync/internal/config"
	"partnersync/sinks/sandbox"
)

type sandboxCmd struct {
	Listen  string        `help:"Address to listen on." default:"127.0.0.1:8090"`
	Latency time.Duration `help:"How long each request takes." default:"0s"`
	Lag     time.Duration `help:"How far a search is behind." default:"0s"`
}

func (c sandboxCmd) Run(ctx context.Context, cli *commands, s streams) error {
	box := sandbox.New(sandbox.Options{Latency: c.Latency, Lag: c.Lag})
	if cfg, _ := config.Load(cli.Config, config.Options{Lenient: true}); cfg != nil {
		furnish(box, cfg)
		fmt.Fprintf(s.out, "the properties that %s writes are defined\n", cli.Config)
	}
	l, err := listen(c.Listen, "--listen")
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "sandbox CRM: http://%s/ lists its records; point a sink's base_url at http://%s/hubspot\n", l.Addr(), l.Addr())
	server := &http.Server{Handler: box, ReadHeaderTimeout: 5 * time.Second}
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
