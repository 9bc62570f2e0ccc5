package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/ledger"
	"partnersync/mappers"
	"partnersync/records"
	"partnersync/sinks"
)

type whyCmd struct {
	Sink   string `arg:"" help:"Name of the sink." predictor:"sink"`
	Object string `arg:"" help:"Object in the CRM, such as deals."`
	Key    string `arg:"" help:"Our key, the CRM's id, or the value of a field such as an e-mail address."`
}

// reasons is why a record is what it is.
type reasons struct {
	Object  string                   `json:"object"`
	Keys    map[string][]string      `json:"keys"` // by property
	CRMID   string                   `json:"crm_id"`
	State   string                   `json:"state"` // of the record in the CRM
	Fields  []fieldReason            `json:"fields"`
	Links   []linkReason             `json:"links,omitempty"`
	Dropped []ledger.DroppedDelivery `json:"dropped"`
}

type fieldReason struct {
	Field   string    `json:"field"`
	Wanted  any       `json:"wanted"`
	CRM     string    `json:"crm"`               // acknowledged, waiting, refused or kept
	Acked   any       `json:"acked,omitempty"`   // what the CRM took last or keeps, where that is something else
	Added   []string  `json:"added,omitempty"`   // under add: what is there since we put it there
	Refused string    `json:"refused,omitempty"` // the event whose value the CRM refused
	Event   string    `json:"event"`
	Type    string    `json:"type"`
	Mapping string    `json:"mapping"`
	Rule    string    `json:"rule"`
	As      time.Time `json:"as_of"`
}

type linkReason struct {
	To      string `json:"to"`
	Key     string `json:"key"`
	As      string `json:"as,omitempty"`
	CRM     string `json:"crm"`
	Event   string `json:"event"`
	Mapping string `json:"mapping"`
}

func (c whyCmd) Run(ctx context.Context, cli *commands, s streams) error {
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		desc := cfg.Sinks[c.Sink]
		if desc == nil {
			return usageError{fmt.Errorf("there is no sink %q in the config: %s", c.Sink, diag.OneOf(c.Sink, sortedKeys(cfg.Sinks)))}
		}
		sink := sinks.New(desc, sinks.Options{})
		defer sink.Close()
		c.Object = cfg.Mappings.Object(c.Sink, c.Object)
		stories, err := l.Why(ctx, c.Sink, c.Object, []string{c.Key, sink.Fold("", c.Key)}, searchTime)
		if errors.Is(err, ledger.ErrTooSlow) {
			return fmt.Errorf("no %s of %s has that key or id, and there are too many to look through all their values within %s: name the record by our key or by the CRM's id; `partnersync events --text` finds events by what they hold", c.Object, c.Sink, searchTime)
		}
		if err != nil {
			return err
		}
		if len(stories) == 0 {
			return fmt.Errorf("partnersync knows no %s of %s by that key, id or value%s", c.Object, c.Sink, otherObjects(cfg, c.Sink, c.Object))
		}
		list := make([]reasons, len(stories))
		for i, story := range stories {
			list[i] = reasonsOf(story)
		}
		if cli.JSON {
			return printJSON(s.out, list)
		}
		for i, r := range list {
			if i > 0 {
				fmt.Fprintln(s.out)
			}
			if err := r.print(s.out); err != nil {
				return err
			}
		}
		return nil
	})
}

// searchTime bounds the search by a value, which reads every record: about a million
// take three seconds.
const searchTime = 20 * time.Second

// otherObjects tells which objects there are, where nothing writes the one asked for.
func otherObjects(cfg *config.Config, sink, object string) string {
	var has []string
	for _, m := range cfg.Mappings.Mappings() {
		if m.Sink == sink && !slices.Contains(has, m.Object) {
			has = append(has, m.Object)
		}
	}
	if slices.Contains(has, object) || len(has) == 0 {
		return ""
	}
	return fmt.Sprintf("; no mapping writes %s: %s", object, diag.OneOf(object, has))
}

func reasonsOf(s *ledger.RecordStory) reasons {
	r := reasons{Object: s.Record.Object, CRMID: s.Record.CRMID, State: string(s.Record.Presence), Keys: map[string][]string{}, Fields: []fieldReason{}, Dropped: s.Dropped}
	for _, k := range s.Keys {
		r.Keys[k.Property] = append(r.Keys[k.Property], k.Key)
	}
	for _, name := range sortedKeys(s.Record.Fields) {
		f := s.Record.Fields[name]
		e := s.Events[f.Version.Event]
		out := fieldReason{
			Field: name, Wanted: f.Wanted.Go, CRM: "acknowledged", Event: f.Version.Event.String(), Type: e.Source + "." + e.Type,
			Mapping: f.Mapping, Rule: f.Rule, As: time.UnixMicro(f.Version.At).UTC(), Added: f.Added,
		}
		switch {
		case f.Unsaid() && f.Rule == string(mappers.SetOnCreate):
			out.CRM = "kept"
		case f.Unsaid():
			out.CRM = "refused"
		case f.Refused != uuid.Nil:
			out.CRM = "refused"
			out.Refused = f.Refused.String()
		case f.Kept != nil:
			out.CRM = "kept" // another value of its own
			out.Acked = f.Kept.Go
			if out.Acked == nil {
				out.Acked = "" // it shows that it has none
			}
		case f.Pending():
			out.CRM = "waiting"
		}
		if out.CRM != "acknowledged" && !f.AckedAt.IsZero() {
			out.Acked = f.Acked.Go
		}
		r.Fields = append(r.Fields, out)
	}
	for _, name := range sortedKeys(s.Record.Links) {
		k := s.Record.Links[name]
		out := linkReason{To: k.To, Key: k.Property + "=" + k.Key, As: k.As, CRM: "waiting", Event: k.Version.Event.String(), Mapping: k.Mapping}
		switch {
		case k.Verdict == records.Refused:
			out.CRM = "refused"
		case k.Verdict == records.Waived:
			out.CRM = "skipped" // missing: skip
		case k.Verdict == records.Theirs:
			out.CRM = "kept" // another in its place
		case k.Need() != records.Nothing:
		case k.Want == records.Unlinked:
			out.CRM = "removed"
		default:
			out.CRM = "acknowledged"
		}
		r.Links = append(r.Links, out)
	}
	return r
}

func (r reasons) print(out io.Writer) error {
	say(out, "%s", r.Object)
	for _, property := range sortedKeys(r.Keys) {
		for _, k := range r.Keys[property] {
			say(out, "  %s=%s", property, k)
		}
	}
	say(out, "\nin the CRM: %s", r.State)
	if r.CRMID != "" {
		say(out, " as %s", r.CRMID)
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "\nFIELD\tWANTED\tCRM\tAS OF\tEVENT\tMAPPING\tRULE")
	for _, f := range r.Fields {
		crm := f.CRM
		if f.Refused != "" && f.Refused != f.Event {
			crm += " of event " + f.Refused
		}
		theirs := f.Rule == string(mappers.SetIfEmpty) || f.Rule == string(mappers.Forward)
		switch {
		case f.CRM == "kept" && f.Acked == nil:
			crm += " (only a new record gets it)"
		case f.CRM == "refused" && f.Refused == "":
			crm += " (by the mode of its mapping)"
		case f.CRM == "kept" && theirs && f.Acked == "":
			crm += " (the CRM does not show its value, which stays)"
		case f.CRM == "kept" && theirs:
			crm += fmt.Sprintf(" (the CRM has another value, which stays: %s)", showValue(f.Acked))
		case f.Acked == "":
			crm += " (has none)"
		case f.Acked != nil:
			crm += fmt.Sprintf(" (has %v)", showValue(f.Acked))
		case len(f.Added) > 0:
			crm += fmt.Sprintf(" (we added %s)", strings.Join(f.Added, ", "))
		}
		say(w, "%s\t%s\t%s\t%s\t%s %s\t%s\t%s\n", f.Field, showValue(f.Wanted), crm, f.As.Format("2006-01-02 15:04:05Z"), f.Type, f.Event, f.Mapping, f.Rule)
	}
	for _, k := range r.Links {
		say(w, "link to %s\t%s\t%s\t\t%s\t%s\t%s\n", k.To, k.Key, k.CRM, k.Event, k.Mapping, k.As)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(r.Dropped) > 0 {
		fmt.Fprintln(out, "\ndropped:")
	}
	for _, d := range r.Dropped {
		say(out, "  %s  %s %s by %q: %s: %s\n", clock(d.At), d.Type, d.Event, d.Mapping, d.Outcome, d.Reason)
	}
	return nil
}
