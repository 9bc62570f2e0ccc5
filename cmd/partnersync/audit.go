package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"partnersync/internal/audit"
	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/ledger"
	"partnersync/internal/progress"
	"partnersync/records"
	"partnersync/sinks"
)

type auditCmd struct {
	Sink   string   `arg:"" help:"Name of the sink." predictor:"sink"`
	Object string   `help:"Only records of this object, such as deals." placeholder:"OBJECT"`
	CSV    string   `help:"Also write each difference to a file, a line each; with --after it is added to." name:"csv" placeholder:"FILE"`
	After  string   `help:"Go on behind this record, as an audit that was stopped says." placeholder:"OBJECT/ID"`
	Repair bool     `help:"Send our values again where theirs are others; asks before."`
	Field  []string `help:"With --repair: only this field; may be repeated." placeholder:"NAME" sep:"none"`
	DryRun bool     `help:"With --repair: show what would be sent again; change nothing."`
	Yes    bool     `help:"With --repair: do not ask."`
}

// auditShare is the part of a CRM's limits that an audit takes: the rest stays for the worker.
const auditShare = 0.5

func (c auditCmd) Run(ctx context.Context, cli *commands, s streams) error {
	switch {
	case !c.Repair && (len(c.Field) > 0 || c.DryRun || c.Yes):
		return usageError{errors.New("--field, --dry-run and --yes say how to --repair: add that")}
	case c.DryRun && c.Yes:
		return usageError{errors.New("--dry-run changes nothing, so there is nothing to say --yes to")}
	case c.Repair && !c.DryRun && !c.Yes && !canAsk(cli):
		return errNobodyToAsk
	}
	after := audit.Position{}
	if c.After != "" {
		var err error
		if after, err = audit.ParsePosition(c.After); err != nil {
			return usageError{fmt.Errorf("--after: %w", err)}
		}
	}
	if cfg, _ := config.Load(cli.Config, config.Options{Lenient: true}); cfg != nil {
		d := cfg.Sinks[c.Sink]
		if d == nil {
			return usageError{fmt.Errorf("there is no sink %q in the config: %s", c.Sink, diag.OneOf(c.Sink, sortedKeys(cfg.Sinks)))}
		}
		if slices.ContainsFunc(d.Secrets(), isUnset) {
			return usageError{fmt.Errorf("the credentials of sink %s are not set here: `partnersync check --strict` names the variables", c.Sink)}
		}
	}
	return cli.withLedger(ctx, s, func(cfg *config.Config, l *ledger.Ledger) error {
		store, err := newTokenStore(l, c.Sink, cfg.Sinks[c.Sink].Formerly(), cfg.Database.TokenKey)
		if err != nil {
			return fmt.Errorf("database.token_key: %w", err)
		}
		options := sinks.Options{Share: auditShare}
		if store != nil {
			options.Tokens = store // only where there is one: a nil *tokenStore is no nil TokenStore
		}
		sink := sinks.New(cfg.Sinks[c.Sink], options)
		defer sink.Close()
		a := &auditor{auditCmd: c, streams: s, json: cli.JSON, config: cfg, ledger: l, sink: sink, confirm: confirmed, configFile: cli.Config, counts: map[auditGroup]int64{}, fields: map[string]int64{}}
		a.options = audit.Options{Ledger: l, Sink: sink, Mappings: cfg.Mappings, Object: cfg.Mappings.Object(c.Sink, c.Object), After: after}
		return a.run(ctx)
	})
}

// auditor is an auditCmd at work.
type auditor struct {
	auditCmd
	streams
	json    bool
	config  *config.Config
	ledger  *ledger.Ledger
	sink    *sinks.Sink
	options audit.Options
	confirm func(context.Context, streams) bool // asks a person whether to go on

	configFile string

	file   *os.File
	began  bool                 // the JSON is begun
	lines  []audit.Difference   // the first of each group, for the table
	counts map[auditGroup]int64 // all differences
	fields map[string]int64     // of these, those of fields that a repair sends again, by object.field
	gone   int64                // those of records that are gone, of which it replays the newest event
	apart  int64                // those that it leaves

	sending  bool // this run repairs
	repaired ledger.Repaired
	replays  []int64
	spec     ledger.ReplaySpec
}

type auditGroup struct {
	object string
	kind   audit.Kind
}

// mostLines is how many differences of one object and kind the table shows: the file has all.
const mostLines = 500

func (a *auditor) run(ctx context.Context) (err error) {
	a.options.Tell = func(found []audit.Difference) error { return a.tell(ctx, found) }
	if err := a.can(ctx); err != nil {
		return err
	}
	if err := a.openFile(); err != nil {
		return err
	}
	if a.file != nil {
		defer func() { err = errors.Join(err, a.file.Close()) }()
	}
	if a.sending = a.Yes; a.sending {
		if err := a.prepare(ctx); err != nil {
			return err
		}
	}
	report, err := a.audit(ctx)
	if err != nil && !audit.Interrupted(err) {
		return err
	}
	if printErr := a.print(report); printErr != nil {
		return printErr
	}
	if err != nil {
		return a.goOn(report)
	}
	if a.Repair && !a.DryRun && !a.Yes && len(a.fields)+int(a.gone) > 0 {
		if !a.confirm(ctx, a.streams) {
			return errors.New("nothing has been sent again")
		}
		if report, err = a.again(ctx); err != nil {
			if audit.Interrupted(err) {
				return a.goOn(report)
			}
			return err
		}
	}
	left := a.apart + a.repaired.Moving + a.repaired.Lost
	if !a.sending {
		for _, n := range a.fields {
			left += n
		}
		left += a.gone
	}
	switch {
	case left == 1:
		return errors.New("1 difference is left")
	case left > 0:
		return fmt.Errorf("%d differences are left", left)
	case len(report.Unread) > 0:
		return errors.New("not everything could be read")
	}
	return nil
}

// can refuses what cannot be audited.
func (a *auditor) can(ctx context.Context) error {
	if !a.sink.Supports(sinks.Read) {
		return usageError{fmt.Errorf("sink %s does not show what it has: it cannot be audited", a.Sink)}
	}
	var written []string
	for _, u := range a.config.Mappings.Uses(a.Sink) {
		if u.Purpose == "value" {
			written = append(written, u.Property)
		}
	}
	for _, name := range a.Field {
		if !slices.Contains(written, name) {
			return usageError{fmt.Errorf("--field: no mapping of %s writes %s: %s", a.Sink, name, diag.OneOf(name, written))}
		}
	}
	known, err := a.ledger.KnownObjects(ctx, a.Sink, nil)
	if err != nil {
		return err
	}
	if object := a.options.Object; object != "" && !slices.ContainsFunc(known, func(o ledger.KnownObject) bool { return o.Object == object }) {
		return fmt.Errorf("partnersync knows no %s of %s%s", object, a.Sink, otherObjects(a.config, a.Sink, object))
	}
	if len(known) == 0 || !a.sink.Supports(sinks.WhoAmI) {
		return nil
	}
	account, err := a.ledger.KnownAccount(ctx, a.Sink)
	if err != nil {
		return err
	}
	// Not every credential may ask; what may be read the audit tells.
	if res := a.sink.Account(ctx); account != "" && res.Class == sinks.OK && res.ID != "" && res.ID != account {
		return fmt.Errorf("the credentials are of account %s, but this sink has been writing to %s", res.ID, account)
	}
	return nil
}

// openFile opens the file of --csv: one that holds something is added to, and never begun anew.
func (a *auditor) openFile() error {
	if a.CSV == "" {
		return nil
	}
	file, err := os.OpenFile(a.CSV, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return usageError{fmt.Errorf("--csv: %w", err)}
	}
	info, err := file.Stat()
	if err == nil && info.Size() > 0 && a.After == "" {
		err = usageError{fmt.Errorf("--csv: %s is there already: name another file, or go on with --after", a.CSV)}
	}
	if err == nil && info.Size() == 0 {
		_, err = file.WriteString("object,difference,key,id,field,ours,theirs,url,mapping,event\n")
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	a.file = file
	return nil
}

func (a *auditor) prepare(ctx context.Context) (err error) {
	a.spec = ledger.ReplaySpec{By: operator(), Wants: a.config.Mappings.Sinks}
	a.spec.Generation, err = a.ledger.Generation(ctx, a.config.Hash, operator())
	return err
}

func (a *auditor) audit(ctx context.Context) (*audit.Report, error) {
	bar := progress.New(a.err)
	defer bar.End()
	o, told := a.options, false
	o.Progress = func(done, total int64) {
		if least := a.sink.LeastReading(sinks.Read, total); !told && least > time.Second {
			bar.Line("%s to look at, which takes at least %s: an audit leaves half of the CRM's limits to the worker", plural(int(total), "record"), least.Round(time.Second))
		}
		told = true
		bar.Set("records", done, total)
	}
	return audit.Run(ctx, o)
}

// again goes through the records once more, and sends what still differs: some time has passed since.
func (a *auditor) again(ctx context.Context) (*audit.Report, error) {
	if err := a.prepare(ctx); err != nil {
		return nil, err
	}
	a.sending = true
	a.options.Tell = func(found []audit.Difference) error { return a.resend(ctx, found) }
	report, err := a.audit(ctx)
	if !a.json {
		a.printRepaired()
	}
	return report, err
}

// tell takes up what was found on a page.
func (a *auditor) tell(ctx context.Context, found []audit.Difference) error {
	if a.sending {
		if err := a.resend(ctx, found); err != nil {
			return err
		}
	}
	if err := a.write(found); err != nil {
		return err
	}
	for _, d := range found {
		group := auditGroup{d.Object, d.Kind}
		a.counts[group]++
		switch {
		case !a.chosen(d):
			a.apart++
		case d.Kind == audit.Gone:
			a.gone++
		default:
			a.fields[d.Object+"."+d.Field]++
		}
		if a.json {
			if err := a.stream(d); err != nil {
				return err
			}
		} else if a.counts[group] <= mostLines {
			a.lines = append(a.lines, d)
		}
	}
	return nil
}

// chosen reports whether a repair sends ours again for a difference.
func (a *auditor) chosen(d audit.Difference) bool {
	switch {
	case !a.Repair || len(d.Resend) == 0:
		return false
	case d.Kind == audit.Gone: // what follows `if_deleted` says
		return len(a.Field) == 0
	}
	return len(a.Field) == 0 || slices.Contains(a.Field, d.Field)
}

// resend has the chosen fields of a page sent again.
func (a *auditor) resend(ctx context.Context, found []audit.Difference) error {
	var list []ledger.Repair
	for _, d := range found {
		if !a.chosen(d) {
			continue
		}
		i := slices.IndexFunc(list, func(r ledger.Repair) bool { return r.ID == d.Record })
		if i < 0 {
			i = len(list)
			list = append(list, ledger.Repair{ID: d.Record, Fields: map[string]records.Version{}})
		}
		maps.Copy(list[i].Fields, d.Resend)
	}
	if len(list) == 0 {
		return nil
	}
	done, err := a.ledger.Repair(ctx, a.Sink, list, a.spec)
	a.repaired.Records += done.Records
	a.repaired.Fields += done.Fields
	a.repaired.Moving += done.Moving
	a.repaired.Lost += done.Lost
	a.repaired.Routes += done.Routes
	if done.Replay != 0 {
		a.replays = append(a.replays, done.Replay)
	}
	if err != nil && done.Replay != 0 {
		return fmt.Errorf("%w\n  replay %d was cut short: `partnersync replay --continue %d` does the rest", err, done.Replay, done.Replay)
	}
	return err
}

// write adds differences to the file, those of a page at once.
func (a *auditor) write(found []audit.Difference) error {
	if a.file == nil || len(found) == 0 {
		return nil
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	for _, d := range found {
		event := ""
		if !d.Version.IsZero() {
			event = d.Version.Event.String()
		}
		row := []string{d.Object, string(d.Kind), keyText(d), d.ID, d.Field, plainText(d.Ours), plainText(d.Theirs), d.URL, d.Mapping, event}
		for i := range row {
			row[i] = cell(row[i])
		}
		_ = w.Write(row) // to memory
	}
	w.Flush()
	if _, err := a.file.WriteString(b.String()); err != nil {
		return fmt.Errorf("--csv: %w", err)
	}
	return nil
}

// cell keeps a spreadsheet from taking a text for a formula: values come from strangers.
func cell(text string) string {
	if text == "" || !strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return text
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return text
	}
	return "'" + text
}

func plainText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	return records.NewValue(v).JSON
}

func keyText(d audit.Difference) string {
	if d.Property == "" {
		return d.Key
	}
	return d.Property + "=" + d.Key
}

// differenceJSON is a difference as --json has it.
type differenceJSON struct {
	Object     string     `json:"object"`
	Difference audit.Kind `json:"difference"`
	Property   string     `json:"property,omitempty"`
	Key        string     `json:"key"`
	ID         string     `json:"id"`
	URL        string     `json:"url,omitempty"`
	Field      string     `json:"field,omitempty"`
	Ours       any        `json:"ours"`
	Theirs     any        `json:"theirs"`
	Mapping    string     `json:"mapping,omitempty"`
	Event      string     `json:"event,omitempty"`
}

// stream prints a difference at once: all of them may be more than the memory holds.
func (a *auditor) stream(d audit.Difference) error {
	out := differenceJSON{d.Object, d.Kind, d.Property, d.Key, d.ID, d.URL, d.Field, json.RawMessage(records.NewValue(d.Ours).JSON), json.RawMessage(records.NewValue(d.Theirs).JSON), d.Mapping, ""}
	if !d.Version.IsZero() {
		out.Event = d.Version.Event.String()
	}
	return a.item(out)
}

func (a *auditor) item(v any) error {
	text, err := jsonLine(v)
	if err != nil {
		return err
	}
	before := ",\n    "
	if !a.began {
		before = "{\n  \"differences\": [\n    "
	}
	a.began = true
	_, err = io.WriteString(a.out, before+text)
	return err
}

func jsonLine(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(b.String()), err
}

// auditJSON is what stands in --json beside the differences.
type auditJSON struct {
	*audit.Report
	Counts   map[string]map[audit.Kind]int64 `json:"counts"` // of differences, by object
	After    string                          `json:"after,omitempty"`
	Repair   map[string]int64                `json:"repair,omitempty"`   // what a repair sends again, by object.field
	Repaired *ledger.Repaired                `json:"repaired,omitempty"` // what it has
	Replays  []int64                         `json:"replays,omitempty"`
}

func (a *auditor) print(r *audit.Report) error {
	if a.json {
		return a.printJSON(r)
	}
	for _, object := range a.objects() {
		for _, kind := range audit.Kinds() {
			if n := a.counts[auditGroup{object, kind}]; n > 0 {
				if err := a.printGroup(object, kind, n); err != nil {
					return err
				}
			}
		}
	}
	say(a.out, "%s and %s compared\n", plural(int(r.Records), "record"), plural(int(r.Fields), "field"))
	a.printSkipped(r)
	if a.sending {
		a.printRepaired()
	} else if a.Repair {
		a.printPlan()
	}
	return nil
}

func (a *auditor) printJSON(r *audit.Report) error {
	out := auditJSON{Report: r, Counts: map[string]map[audit.Kind]int64{}, Replays: a.replays}
	for group, n := range a.counts {
		if out.Counts[group.object] == nil {
			out.Counts[group.object] = map[audit.Kind]int64{}
		}
		out.Counts[group.object][group.kind] = n
	}
	if r.Stopped != "" {
		out.After = r.After.String()
	}
	if a.Repair {
		out.Repair = a.fields
	}
	if a.sending {
		out.Repaired = &a.repaired
	}
	text, err := jsonLine(out)
	if err != nil {
		return err
	}
	begin := "\n  ],\n"
	if !a.began {
		begin = "{\n  \"differences\": [],\n"
	}
	_, err = io.WriteString(a.out, begin+"  \"summary\": "+text+"\n}\n")
	return err
}

func (a *auditor) objects() []string {
	names := map[string]bool{}
	for group := range a.counts {
		names[group.object] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// kindTexts tell what a kind of difference means.
var kindTexts = map[audit.Kind]string{
	audit.Edited:  "edited there",
	audit.Key:     "without our key",
	audit.Linked:  "linked otherwise",
	audit.Merged:  "merged into another, or our key is another's",
	audit.Several: "with our key on several records",
	audit.Gone:    "gone",
}

func (a *auditor) printGroup(object string, kind audit.Kind, n int64) error {
	say(a.out, "%s: %d %s\n", object, n, kindTexts[kind])
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "  KEY\tID\tFIELD\tOURS\tTHEIRS\tAT")
	shown := int64(0)
	for _, d := range a.lines {
		if d.Object != object || d.Kind != kind {
			continue
		}
		shown++
		say(w, "  %s\t%s\t%s\t%s\t%s\t%s\n", keyText(d), d.ID, orNone(d.Field), auditValue(d.Ours), auditValue(d.Theirs), d.URL)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if shown < n {
		say(a.out, "  and %d more: --csv FILE has all\n", n-shown)
	}
	fmt.Fprintln(a.out)
	return nil
}

// auditValue is a value in a table; empty ones say so.
func auditValue(v any) string {
	if text := plainText(v); text != "" {
		return text
	}
	return "(empty)"
}

// printSkipped tells what was not compared, and why.
func (a *auditor) printSkipped(r *audit.Report) {
	for _, k := range []struct {
		n    int64
		what string
	}{
		{r.Skipped[records.NotSent], "not sent yet"},
		{r.Skipped[records.NotTaken], "refused by the CRM, which `partnersync dead` tells"},
		{r.Skipped[records.NotKept], "of which the CRM keeps a value of its own, which `partnersync why` tells"},
		{r.Skipped[records.NotOurs], "theirs by their rule"},
		{r.Unmapped, "that no mapping writes any more"},
	} {
		if k.n > 0 {
			say(a.out, "  not compared: %s %s\n", plural(int(k.n), "field"), k.what)
		}
	}
	if r.Moving > 0 {
		say(a.out, "  not compared: %s that were being written all the time\n", plural(int(r.Moving), "record"))
	}
	for _, name := range sortedKeys(r.Hidden) {
		say(a.out, "  not compared: %s of %s, which the CRM does not show\n", name, plural(int(r.Hidden[name]), "record"))
	}
	for _, why := range sortedKeys(r.Unread) {
		say(a.out, "  not read: %s of %s\n", plural(int(r.Unread[why]), "record"), why)
	}
	for _, note := range r.Notes {
		say(a.out, "  %s\n", note)
	}
}

// printPlan tells what a repair would send.
func (a *auditor) printPlan() {
	for _, name := range sortedKeys(a.fields) {
		say(a.out, "to send again: %s of %s\n", name, plural(int(a.fields[name]), "record"))
	}
	if a.gone > 0 {
		say(a.out, "to replay: the newest event of %s; it makes the record again where its mapping says `if_deleted: recreate`\n", plural(int(a.gone), "record")+" that "+areOrIs(a.gone)+" gone")
	}
	if len(a.fields) == 0 && a.gone == 0 {
		fmt.Fprintln(a.out, "nothing to send again")
	}
	a.printApart()
}

func areOrIs(n int64) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// printApart tells which differences no repair mends.
func (a *auditor) printApart() {
	if a.apart > 0 {
		say(a.out, "  left to people: %s: merged or doubled records, keys, links, and what was not chosen\n", plural(int(a.apart), "difference"))
	}
}

func (a *auditor) printRepaired() {
	r := a.repaired
	say(a.out, "sent again: %s of %s", plural(int(r.Fields), "field"), plural(int(r.Records), "record"))
	if len(a.replays) > 0 {
		say(a.out, ", by %s", plural(int(r.Routes), "route"))
		say(a.out, " of %s (`partnersync replay --list`)", plural(len(a.replays), "replay"))
	}
	fmt.Fprintln(a.out)
	if r.Moving > 0 {
		say(a.out, "  left alone: %s of records that are being written: audit again\n", plural(int(r.Moving), "field"))
	}
	if r.Lost > 0 {
		say(a.out, "  left alone: %s whose event is not stored any more, or no mapping wants\n", plural(int(r.Lost), "field"))
	}
	a.printApart()
}

// goOn is the error of an audit that has ended before its end: one line that tells how to go on.
func (a *auditor) goOn(r *audit.Report) error {
	args := []string{"partnersync"}
	if a.configFile != defaultConfig {
		args = append(args, "--config", shellWord(a.configFile))
	}
	args = append(args, "audit", a.Sink)
	if a.Object != "" {
		args = append(args, "--object", a.Object)
	}
	if a.CSV != "" {
		args = append(args, "--csv", shellWord(a.CSV))
	}
	if a.Repair {
		args = append(args, "--repair")
	}
	for _, name := range a.Field {
		args = append(args, "--field", name)
	}
	if a.Yes {
		args = append(args, "--yes")
	}
	if a.DryRun {
		args = append(args, "--dry-run")
	}
	if after := r.After.String(); after != "" {
		args = append(args, "--after", shellWord(after))
	}
	return fmt.Errorf("the audit has stopped: %s; `%s` goes on", r.Stopped, strings.Join(args, " "))
}

// defaultConfig is where the config is if nobody says otherwise.
const defaultConfig = "config.yaml"

// shellWord is a word for a shell to take as it is.
func shellWord(text string) string {
	if strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
