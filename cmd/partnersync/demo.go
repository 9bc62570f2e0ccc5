package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/config"
	"partnersync/internal/diag"
	"partnersync/internal/ledger"
	"partnersync/internal/localpg"
	"partnersync/internal/progress"
	"partnersync/internal/sandbox"
	"partnersync/receiver/sources"
)

type demoCmd struct {
	Keep    bool          `help:"Stay up afterwards, to look around."`
	Timeout time.Duration `help:"How long the events may take to arrive." default:"60s"`
	Dir     string        `help:"Directory of the private Postgres; empty is a new one that is removed afterwards." placeholder:"DIR"`
}

// arrival is one line of the demo's table.
type arrival struct {
	Event   string   `json:"event"`
	Outcome string   `json:"outcome"`
	Records []string `json:"records"`
	CRMIDs  []string `json:"crm_ids"`
	Reason  string   `json:"reason,omitempty"`
	Seconds float64  `json:"seconds"` // from received to applied
	ok      bool
}

func (c demoCmd) Run(ctx context.Context, cli *commands, s streams) (err error) {
	if !given(cli.Config) {
		cli.Config = "config.example.yaml"
	}
	box := sandbox.New(sandbox.Options{})
	crm, err := listen("127.0.0.1:0", "the sandbox")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: sandboxHandler(box, crm.Addr().String()), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(crm) }() // ends by Close below
	defer server.Close()

	dir := c.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "partnersync-demo-"); err != nil {
			return fmt.Errorf("make a directory for the demo: %w", err)
		}
		defer func() {
			err = errors.Join(err, localpg.Remove(context.WithoutCancel(ctx), filepath.Join(dir, "postgres")), os.RemoveAll(dir))
		}()
	}
	options := demoOptions(cli.Config, crm.Addr(), filepath.Join(dir, "postgres"))
	cfg, err := cli.load(s, options)
	if err != nil {
		return err
	}
	cli.begun.Store(true)
	furnish(box, cfg)
	log := slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	fmt.Fprintln(s.err, "starting a private Postgres, a sandbox CRM, the receiver and the workers ...")
	p, err := newProcess(ctx, cfg, func() (*config.Config, diag.Problems) { return config.Load(cli.Config, options) }, parts{receive: true, work: true}, log)
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done, p.close())
	}()

	bar := progress.New(s.err)
	arrivals, err := c.sendAll(ctx, p, cfg, bar)
	bar.End()
	if err != nil {
		return err
	}
	failed, unwanted := 0, 0
	for _, a := range arrivals {
		switch {
		case a.ok:
		case a.Outcome == string(ledger.Unmapped) || a.Outcome == string(ledger.Ignored):
			unwanted++
		default:
			failed++
		}
	}
	if cli.JSON {
		err = printJSON(s.out, arrivals)
	} else {
		err = printArrivals(s.out, arrivals)
	}
	if err != nil {
		return err
	}
	if c.Keep {
		fmt.Fprintf(s.err, "\nthe CRM's records:  http://%s/\n", crm.Addr())
		for _, name := range sortedKeys(cfg.Sources) {
			fmt.Fprintf(s.err, "hooks of %-10s %s\n", name+":", c.hookURL(p.hooks.Addr(), cfg.Sources[name]))
		}
		admin := url.URL{Scheme: "http", Host: p.admin.Addr().String(), Path: "/metrics"}
		if token := cfg.Admin.Token.Reveal(); invented(token) {
			admin.User = url.UserPassword("admin", token)
		}
		fmt.Fprintf(s.err, "metrics:            %s\nControl-C ends it\n", &admin)
		<-ctx.Done()
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d events did not arrive", failed, len(arrivals))
	}
	switch {
	case cli.JSON:
	case unwanted > 0:
		fmt.Fprintf(s.out, "\n%d events arrived; %d are stored, but no mapping wants them\n", len(arrivals)-unwanted, unwanted)
	default:
		fmt.Fprintf(s.out, "\nall %d events arrived\n", len(arrivals))
	}
	return nil
}

// hookURL is where a source takes events, with what it asks for as far as an address can hold it. Secrets that the demo
// has not made up are not shown.
func (c demoCmd) hookURL(hooks net.Addr, source *sources.Source) string {
	u := url.URL{Scheme: "http", Host: hooks.String(), Path: "/hooks/" + source.Name}
	r := &http.Request{Method: http.MethodPost, URL: &u, Header: http.Header{}}
	source.Sign(r, nil, time.Now())
	bearer, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if isBearer {
		r.URL.RawQuery = url.Values{"token": {bearer}}.Encode()
		r.Header.Del("Authorization")
	}
	if name, password, basic := r.BasicAuth(); basic && invented(password) {
		u.User = url.UserPassword(name, password)
		r.Header.Del("Authorization")
	}
	if token := u.Query().Get("token"); token != "" && !invented(token) {
		u.RawQuery = ""
		return u.String() + "?token=... as the config has it"
	}
	if len(r.Header) > 0 {
		return u.String() + " (`partnersync send` signs what it sends)"
	}
	return u.String()
}

// madeUp begins the secrets of the demo.
const madeUp = "demo-"

func invented(secret string) bool { return strings.HasPrefix(secret, madeUp) }

func given(configFile string) bool {
	_, err := os.Stat(configFile)
	return configFile != "config.yaml" || err == nil
}

// demoOptions lay over the config what makes it harmless: every sink goes to the
// sandbox, the database is private, secrets need not be there.
func demoOptions(path string, crm net.Addr, dir string) config.Options {
	options := config.Options{Getenv: func(name string) (string, bool) { return madeUp + strings.ToLower(name), name != "DATABASE_URL" }}
	cfg, _ := config.Load(path, options)
	if cfg == nil {
		return options // loading it again reports what is wrong
	}
	var over strings.Builder
	fmt.Fprintf(&over, "database: {url: '', dir: %q}\nreceiver: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}\n", dir)
	if len(cfg.Sinks) > 0 {
		over.WriteString("sinks:\n")
	}
	for _, name := range sortedKeys(cfg.Sinks) {
		d := cfg.Sinks[name]
		base := fmt.Sprintf("http://%s/%s", crm, d.Preset)
		fmt.Fprintf(&over, "  %s:\n    url: null\n    limits: []\n    base_url: %q\n", name, base)
		if path := d.TokenPath(); path != "" {
			fmt.Fprintf(&over, "    auth: {token_url: %q}\n", base+path)
		}
	}
	options.Over = over.String()
	return options
}

// sendAll posts every sample over HTTP and waits until each has come to an end.
func (c demoCmd) sendAll(ctx context.Context, p *process, cfg *config.Config, bar *progress.Progress) ([]arrival, error) {
	client := &http.Client{Timeout: 10 * time.Second}
	var arrivals []arrival
	byID := map[uuid.UUID]int{}
	var ids []uuid.UUID
	deadline, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	samples := inOrder(samplesOf(cfg, "", ""), cfg)
	for i, x := range samples {
		if x.waits {
			if _, err := c.settled(deadline, p, ids, bar); err != nil {
				return nil, err
			}
		}
		bar.Set("events sent", int64(i), int64(len(samples)))
		a, err := x.post(ctx, client, "http://"+p.hooks.Addr().String())
		if err != nil {
			return nil, err
		}
		at := arrival{Event: x.source.Name + "." + x.event, Outcome: a.Status, Reason: a.Problem, Records: []string{}, CRMIDs: []string{}}
		if id, err := uuid.Parse(a.ID); err == nil && a.Code == http.StatusAccepted && a.Status == "stored" {
			byID[id] = len(arrivals)
			ids = append(ids, id)
		}
		arrivals = append(arrivals, at)
	}
	fates, err := c.settled(deadline, p, ids, bar)
	if err != nil {
		return nil, err
	}
	fill(arrivals, byID, fates)
	return arrivals, ctx.Err()
}

// settled waits until the events have come to an end, or the time is over.
func (c demoCmd) settled(ctx context.Context, p *process, ids []uuid.UUID, bar *progress.Progress) ([]*ledger.Fate, error) {
	for {
		fates, err := p.ledger.Fates(context.WithoutCancel(ctx), ids)
		if err != nil {
			return nil, err
		}
		open := 0
		for _, f := range fates {
			if f.Outcome == ledger.Open {
				open++
			}
		}
		bar.Set("events arrived", int64(len(ids)-min(open, len(ids))), int64(len(ids)))
		if open == 0 || ctx.Err() != nil {
			return fates, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// step is a sample, and whether it has to wait for those before it.
type step struct {
	sending
	waits bool
}

// inOrder puts what makes a record before what links to it, as far as one of the others does.
func inOrder(list []sending, cfg *config.Config) []step {
	type thing struct{ sink, object, key string }
	makes, links := map[string][]thing{}, map[string][]thing{}
	for _, m := range cfg.Mappings.Mappings() {
		for _, event := range m.On {
			makes[event] = append(makes[event], thing{m.Sink, m.Object, m.Key})
			for _, l := range m.Links {
				if !l.Remove {
					links[event] = append(links[event], thing{m.Sink, l.To, l.Key})
				}
			}
		}
	}
	made := map[thing]bool{}    // by those that are sent
	settled := map[thing]bool{} // by those that are waited for
	name := func(x sending) string { return x.source.Name + "." + x.event }
	rank := func(x sending) int { return x.source.Events[x.event].Rank }
	var out []step
	for len(list) > 0 {
		next := slices.IndexFunc(list, func(x sending) bool {
			return !slices.ContainsFunc(links[name(x)], func(t thing) bool {
				return slices.ContainsFunc(list, func(y sending) bool {
					return rank(y) <= rank(x) && slices.Contains(makes[name(y)], t) && !slices.Contains(links[name(y)], t)
				})
			})
		})
		x := list[max(next, 0)]
		list = slices.Delete(slices.Clone(list), max(next, 0), max(next, 0)+1)
		waits := slices.ContainsFunc(links[name(x)], func(t thing) bool { return made[t] && !settled[t] })
		if waits {
			settled = maps.Clone(made)
		}
		for _, t := range makes[name(x)] {
			made[t] = true
		}
		out = append(out, step{x, waits})
	}
	return out
}

func fill(arrivals []arrival, byID map[uuid.UUID]int, fates []*ledger.Fate) {
	for _, f := range fates {
		a := &arrivals[byID[f.Event]]
		a.Outcome, a.Reason = string(f.Outcome), f.Reason
		a.ok = f.Outcome != ledger.Open && f.Outcome != ledger.Dead
		if f.Outcome == ledger.Open {
			a.Outcome = "open"
		}
		if !f.ClosedAt.IsZero() {
			a.Seconds = max(a.Seconds, f.ClosedAt.Sub(f.ReceivedAt).Seconds())
		}
		for _, d := range f.Deliveries {
			if d.Outcome == ledger.Open && d.Reason != "" {
				a.Reason = d.Reason
			}
			if d.Object != "" {
				a.Records = append(a.Records, d.Object)
				a.CRMIDs = append(a.CRMIDs, d.CRMID)
			}
		}
	}
}

func printArrivals(out io.Writer, arrivals []arrival) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "EVENT\tOUTCOME\tRECORDS\tCRM IDS\tRECEIVED TO APPLIED\t")
	for _, a := range arrivals {
		took := ""
		if a.Seconds > 0 {
			took = fmt.Sprintf("%.0f ms", a.Seconds*1000)
		}
		say(w, "%s\t%s\t%s\t%s\t%s\t%s\n", a.Event, a.Outcome, strings.Join(a.Records, ", "), strings.Join(a.CRMIDs, ", "), took, a.Reason)
	}
	return w.Flush()
}
