package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/diag"
	"partnersync/internal/ledger"
)

// filterFlags select events, the same for every command that does.
type filterFlags struct {
	Source  string `help:"Events of this source."`
	Type    string `help:"Events of this type, such as deal.updated."`
	Entity  string `help:"Events about this thing, such as deal:deal_123."`
	Status  string `help:"Events of this status." enum:"stored,unmapped,ignored,malformed,erased," default:""`
	Outcome string `help:"Events with this outcome." enum:"open,dead,delivered,stale,unchanged,skipped," default:""`
	Sink    string `help:"Events to this sink."`
	Mapping string `help:"Events that this mapping delivers."`
	Reason  string `help:"Events whose delivery gives this reason, or a part of it."`
	Text    string `help:"Events whose body holds this text."`
	Since   string `help:"Received since: a time such as 2026-11-21T08:00:00Z or a date, or an age such as 2h or 7d." placeholder:"TIME"`
	Until   string `help:"Received before." placeholder:"TIME"`
}

func (f filterFlags) filter(ids []string) (ledger.Filter, error) {
	out := ledger.Filter{
		Source: f.Source, Type: f.Type, Entity: f.Entity, Status: f.Status, Outcome: f.Outcome,
		Sink: f.Sink, Mapping: f.Mapping, Reason: f.Reason, Text: f.Text,
	}
	if source, typ, ok := strings.Cut(f.Type, "."); ok && source == f.Source {
		out.Type = typ // partnerstack.deal.updated beside --source partnerstack
	}
	for _, id := range ids {
		parsed, err := uuid.Parse(id)
		if err != nil {
			return out, usageError{fmt.Errorf("%q is not the id of an event: `partnersync events` lists them", id)}
		}
		out.IDs = append(out.IDs, parsed)
	}
	var err error
	if out.Since, err = moment("--since", f.Since); err != nil {
		return out, err
	}
	out.Until, err = moment("--until", f.Until)
	return out, err
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
