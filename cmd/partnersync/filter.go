package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/ledger"
)

// filterFlags select events, the same for every command that does.
type filterFlags struct {
	Source  string `help:"Events of this source." predictor:"source"`
	Type    string `help:"Events of this type, such as deal.updated." predictor:"type"`
	Entity  string `help:"Events about this thing, such as deal:deal_123."`
	Status  string `help:"Events of this status: stored, unmapped, ignored, malformed or erased." predictor:"status"`
	Outcome string `help:"Events with this outcome: open, dead, delivered, stale, unchanged, skipped or observed." predictor:"outcome"`
	Sink    string `help:"Events to this sink." predictor:"sink"`
	Mapping string `help:"Events that this mapping delivers." predictor:"mapping"`
	Reason  string `help:"Events whose delivery gives this reason, or a part of it."`
	Text    string `help:"Events whose body holds this text."`
	Since   string `help:"Received since: a time such as 2026-11-21T08:00:00Z or a date, or an age such as 2h or 7d." placeholder:"TIME"`
	Until   string `help:"Received before." placeholder:"TIME"`
}

var (
	statuses = []string{"stored", "unmapped", "ignored", "malformed", "erased"}
	outcomes = []string{"open", "dead", "delivered", "stale", "unchanged", "skipped", "observed"}
)

func (f filterFlags) filter(ids []string) (ledger.Filter, error) {
	out := ledger.Filter{
		Source: f.Source, Type: f.Type, Entity: f.Entity, Status: f.Status, Outcome: f.Outcome,
		Sink: f.Sink, Mapping: f.Mapping, Reason: f.Reason, Text: f.Text,
	}
	for _, id := range ids {
		parsed, err := uuid.Parse(id)
		if err != nil {
			return out, usageError{fmt.Errorf("%q is not the id of an event: `partnersync events` lists them", id)}
		}
		if !slices.Contains(out.IDs, parsed) {
			out.IDs = append(out.IDs, parsed)
		}
	}
	for flag, text := range map[string]string{"entity": f.Entity, "mapping": f.Mapping, "reason": f.Reason, "text": f.Text} {
		if !utf8.ValidString(text) {
			return out, usageError{fmt.Errorf("--%s: this is no UTF-8 text", flag)}
		}
	}
	for _, choice := range []struct {
		flag, text string
		of         []string
	}{
		{"status", f.Status, statuses},
		{"outcome", f.Outcome, outcomes},
	} {
		if choice.text != "" && !slices.Contains(choice.of, choice.text) {
			return out, usageError{fmt.Errorf("--%s: there is no %s %q: %s", choice.flag, choice.flag, choice.text, diag.OneOf(choice.text, choice.of))}
		}
	}
	var err error
	if out.Since, err = moment("--since", f.Since); err != nil {
		return out, err
	}
	if out.Until, err = moment("--until", f.Until); err != nil {
		return out, err
	}
	if !out.Since.IsZero() && !out.Until.IsZero() && !out.Since.Before(out.Until) {
		return out, usageError{fmt.Errorf("--since %s is not before --until %s: nothing is in between", f.Since, f.Until)}
	}
	return out, nil
}

// resolve completes a filter by what the config says, and refuses names that neither
// the config nor the database knows.
func resolve(ctx context.Context, cfg *config.Config, l *ledger.Ledger, f *ledger.Filter) error {
	if source, typ, ok := strings.Cut(f.Type, "."); ok && cfg.Sources[source] != nil && (f.Source == "" || f.Source == source) {
		f.Source, f.Type = source, typ // partnerstack.deal.updated
	}
	// An alias is another name of a type.
	if source := cfg.Sources[f.Source]; source != nil && f.Type != "" {
		if found := source.Find(f.Type); len(found) == 1 {
			f.Type = found[0].Name
		}
	}
	for _, name := range []struct {
		what, text string
		has        []string
		known      func(context.Context, string) (bool, error)
	}{
		{"source", f.Source, sortedKeys(cfg.Sources), l.KnowsSource},
		{"sink", f.Sink, sortedKeys(cfg.Sinks), l.KnowsSink},
	} {
		if name.text == "" || slices.Contains(name.has, name.text) {
			continue
		}
		// One that the config had once still has its events.
		known, err := name.known(ctx, name.text)
		if err != nil {
			return err
		}
		if !known {
			return usageError{fmt.Errorf("there is no %s %q in the config, and nothing of it is stored: %s", name.what, name.text, diag.OneOf(name.text, name.has))}
		}
	}
	return nil
}

// strangers tells which names of a filter the config does not have: perhaps why nothing fits.
func strangers(cfg *config.Config, f ledger.Filter) string {
	var types, mappings []string
	for name, source := range cfg.Sources {
		if f.Source == "" || f.Source == name {
			types = append(types, source.EventNames()...)
		}
	}
	for _, m := range cfg.Mappings.Mappings() {
		mappings = append(mappings, m.Name)
	}
	var hints strings.Builder
	for _, name := range []struct {
		what, text string
		has        []string
	}{{"type", f.Type, types}, {"mapping", f.Mapping, mappings}} {
		if name.text != "" && !slices.Contains(name.has, name.text) {
			fmt.Fprintf(&hints, "; the config has no %s %q", name.what, name.text)
			if near := diag.DidYouMean(name.text, name.has); near != "" {
				fmt.Fprintf(&hints, ": %s", near)
			}
		}
	}
	return hints.String()
}

// moment reads a time, or an age as a time.
func moment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if age, err := diag.ParseDuration(text); err == nil {
		return time.Now().Add(-age), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usageError{fmt.Errorf("%s: %q is neither a time such as 2026-11-21T08:00:00Z nor an age such as 2h or 7d", flag, text)}
}
