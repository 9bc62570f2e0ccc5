package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"partnersync/internal/config"
)

type reloadCmd struct {
	Force bool `help:"Take the config although a CRM lacks more of what it names than of the former one."`
}

// reloadWithin is longer than a process takes that looks at its CRMs first.
const reloadWithin = 30 * time.Second

func (c reloadCmd) Run(ctx context.Context, cli *commands, s streams) error {
	cfg, err := cli.load(s, config.Options{Lenient: true})
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(cfg.Admin.Listen)
	if err != nil {
		return usageError{fmt.Errorf("admin.listen is no address: write host:port, such as 127.0.0.1:8081")}
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = ""
	}
	url := "http://" + net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port) + "/-/reload"
	if c.Force {
		url += "?force=1"
	}
	ctx, cancel := context.WithTimeout(ctx, reloadWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	if !cfg.Admin.Token.Empty() {
		req.Header.Set("Authorization", "Bearer "+cfg.Admin.Token.Reveal())
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no partnersync answers on admin.listen (%s): %w", cfg.Admin.Listen, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	text := strings.TrimSpace(string(body))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the config was not reloaded; the former one stays in force: %s", text)
	}
	say(s.out, "%s\n", text)
	return nil
}
