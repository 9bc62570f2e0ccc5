package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"golang.org/x/term"

	"partnersync/internal/config"
	"partnersync/internal/diag"
)

type runCmd struct {
	Only string `help:"Run one half only: receive or work." enum:"receive,work," default:""`
}

func (c runCmd) Run(ctx context.Context, cli *commands, s streams) error {
	// From here on a SIGHUP, whose default is to end the process, waits to be heard: of a config that
	// changes while it is read, too. One that comes while a drained process exits must not turn that
	// into a failure.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	// Who takes webhooks in has no use for the secrets of the CRMs, and who delivers none for those of the senders.
	options := config.Options{Spare: map[string]string{"receive": "sinks", "work": "sources"}[c.Only]}
	cfg, err := cli.load(s, options)
	if err != nil {
		return err
	}
	cli.begun.Store(true)
	log := newLogger(s.err, cfg.Log)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200) // memory is small here; collecting it takes a fifth of the time otherwise
	}
	reread := func() (*config.Config, diag.Problems) { return config.Load(cli.Config, options) }
	p, err := newProcess(ctx, cfg, reread, parts{receive: c.Only != "work", work: c.Only != "receive"}, log)
	if err != nil {
		return err
	}
	reloading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-reloading.Done():
				return
			case <-hup:
				_, _ = p.reload(reloading, false) // logged and counted there
			}
		}
	}()
	err = p.run(ctx)
	stop()
	<-done
	return errors.Join(err, p.close())
}

// newLogger writes text to a terminal and JSON elsewhere, unless the config says otherwise.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: readable}
	f, isFile := w.(*os.File)
	if c.Format == "text" || (c.Format == "" && isFile && term.IsTerminal(int(f.Fd()))) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// readable writes durations as people do: JSON would have nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().Round(time.Microsecond).String())
	}
	return a
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
