package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"partnersync/internal/config"
	"partnersync/receiver/sources"
)

type sendCmd struct {
	File   string `arg:"" optional:"" help:"A body to send instead of the samples." type:"existingfile"`
	To     string `help:"Base URL of the receiver; without it, this machine at receiver.listen." name:"to" placeholder:"URL"`
	Source string `help:"Send the events of this source only." predictor:"source"`
	Event  string `help:"Send this event only." predictor:"event"`
}

// sending is one request to the receiver.
type sending struct {
	source *sources.Source
	event  string
	body   []byte
}

// answer is what the receiver said.
type answer struct {
	Source  string `json:"source"`
	Event   string `json:"event"`
	Code    int    `json:"code"`
	ID      string `json:"id,omitempty"`
	Status  string `json:"status,omitempty"`
	Problem string `json:"error,omitempty"`
}

func (c sendCmd) Run(ctx context.Context, cli *commands, s streams) error {
	// It talks to the receiver alone: the secrets of the sinks need not be there.
	cfg, problems := config.Load(cli.Config, config.Options{Lenient: true})
	if cfg == nil {
		printProblems(s.err, problems)
		return errRefused
	}
	list, err := c.choose(cfg)
	if err != nil {
		return err
	}
	if c.To == "" {
		c.To = local(cfg.Receiver.Listen)
	}
	client := &http.Client{Timeout: 30 * time.Second}
	var answers []answer
	bad := 0
	for _, x := range list {
		a, err := x.post(ctx, client, c.To)
		if err != nil {
			return err
		}
		if a.Code >= 300 {
			bad++
		}
		answers = append(answers, a)
	}
	if cli.JSON {
		err = printJSON(s.out, answers)
	} else {
		w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
		for _, a := range answers {
			say(w, "%s.%s\t%d\t%s\t%s\n", a.Source, a.Event, a.Code, a.Status, strings.TrimSpace(a.ID+"  "+a.Problem))
		}
		err = w.Flush()
		if again := repeated(list, answers); again != "" {
			fmt.Fprintf(s.out, "\nduplicate: nothing happened: the same body was sent before; `partnersync replay %s` maps it anew\n", again)
		}
	}
	if err == nil && bad > 0 {
		err = fmt.Errorf("%d of %d were not accepted", bad, len(answers))
	}
	return err
}

// repeated are the flags that replay what was sent before already; "" where nothing was.
func repeated(list []sending, answers []answer) string {
	var found []int
	sources := map[string]bool{}
	for i, a := range answers {
		if a.Status == "duplicate" {
			found = append(found, i)
			sources[a.Source] = true
		}
	}
	switch {
	case len(found) == 0:
		return ""
	case len(found) == 1:
		x := list[found[0]]
		if e := x.source.Open(x.event, x.body); e.Entity != "" {
			return fmt.Sprintf("--source %s --entity '%s'", x.source.Name, e.Entity)
		}
		return answers[found[0]].ID
	case len(sources) == 1:
		return "--source " + sortedKeys(sources)[0]
	}
	return "--all"
}

// local is the base URL of a receiver of this machine.
func local(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

func (c sendCmd) choose(cfg *config.Config) ([]sending, error) {
	c.Source, c.Event = namedEvent(cfg, c.Source, c.Event)
	if c.File == "" {
		list := samplesOf(cfg, c.Source, c.Event)
		if len(list) == 0 {
			return nil, usageError{errors.New("no sample fits --source and --event: `partnersync show source NAME` lists them")}
		}
		return list, nil
	}
	if c.Source == "" && len(cfg.Sources) == 1 {
		c.Source = sortedKeys(cfg.Sources)[0]
	}
	source := cfg.Sources[c.Source]
	if source == nil {
		return nil, usageError{fmt.Errorf("name the source of the file with --source: one of %s", strings.Join(sortedKeys(cfg.Sources), ", "))}
	}
	body, err := os.ReadFile(c.File)
	if err != nil {
		return nil, usageError{err}
	}
	return []sending{{source, c.Event, body}}, nil
}

// namedEvent takes a type of events apart that is written with its source, as in partnerstack.deal.created.
func namedEvent(cfg *config.Config, source, event string) (string, string) {
	if s, e, ok := strings.Cut(event, "."); ok && source == "" && cfg.Sources[s] != nil {
		return s, e
	}
	return source, event
}

// samplesOf are the sample events of a config's sources in an order in which
// they might happen: creations first.
func samplesOf(cfg *config.Config, source, event string) []sending {
	var list []sending
	for _, name := range sortedKeys(cfg.Sources) {
		s := cfg.Sources[name]
		if source != "" && name != source {
			continue
		}
		names := s.EventNames()
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(s.Events[a].Rank, s.Events[b].Rank) })
		for _, e := range names {
			if sample := s.Events[e].Sample; sample != nil && (event == "" || e == event) {
				list = append(list, sending{s, e, sample})
			}
		}
	}
	return list
}

// post sends one event; only a receiver that cannot be reached is an error.
func (x sending) post(ctx context.Context, client *http.Client, to string) (answer, error) {
	a := answer{Source: x.source.Name, Event: x.event}
	target, err := url.JoinPath(to, "hooks", x.source.Name, x.event)
	if err != nil {
		return a, usageError{fmt.Errorf("--to: %w", err)}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(x.body))
	if err != nil {
		return a, usageError{errors.New("--to is not a URL: write http://host:port")}
	}
	r.Header.Set("Content-Type", "application/json")
	x.source.Sign(r, x.body, time.Now())
	res, err := client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may carry a token
		}
		return a, fmt.Errorf("no answer from %s: %w; is `partnersync run` up there?", to, err)
	}
	defer res.Body.Close()
	a.Code = res.StatusCode
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return a, fmt.Errorf("read the receiver's answer: %w", err)
	}
	var said struct{ ID, Status, Error string }
	if json.Unmarshal(text, &said) == nil {
		a.ID, a.Status, a.Problem = said.ID, said.Status, said.Error
	} else {
		a.Problem = strings.TrimSpace(string(text))
	}
	return a, nil
}
