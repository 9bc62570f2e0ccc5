package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// The forms that are compared.
const (
	formOurs    = "partnersync"
	formOurs100 = "partnersync, events_per_job: 100"
	formOne     = "partnersync, webhook: one POST per event"
	formPlain   = "plain River"
	formBare    = "bare handler"
)

// eventsPerJob is the setting of a form of ours.
func eventsPerJob(form string) int {
	if form == formOurs100 {
		return 100
	}
	return 1
}

// configText is partnersync's: its defaults, but for where things are, and for HubSpot's
// request limit, which would hold every worker to 1,000 records a second.
const configText = `
database: {url: %[1]q}
receiver: {listen: "127.0.0.1:0"}
admin: {listen: "127.0.0.1:0"}
jobs: {events_per_job: %[3]d}
sources:
  partnerstack:
    preset: partnerstack
    verify: {token: %[2]q}
sinks:
  crm:%[4]s
tables:
  deal_stages: {map: {Working: qualifiedtobuy, Closed Won: closedwon}, else: skip}
mappings:
  - name: deals
    on: partnerstack.deal.updated
    to: crm
    object: deals
    key: {partnerstack_deal_key: event.key}
    set:
      dealname: event.account_name
      amount: cents(event.amount)
      closedate: date(event.close_date)
      dealstage: lookup(event.stage, "deal_stages")
    set_first:
      first_partner: event.partner_key
`

// The sinks of our forms: batches of a hundred, and a target that takes one record per request.
const (
	batchSink = `
    preset: hubspot
    auth: {token: %[2]q}
    base_url: %[1]q
    limits: [{requests: 1000000, per: 1s, burst: 1000000}]`
	oneSink = `
    preset: webhook
    url: %[1]s/one
    headers: {Authorization: "Bearer %[2]s"}
    operations: {upsert: {body: record.fields}}`
)

// ours reports whether a form is one of ours.
func ours(form string) bool { return form == formOurs || form == formOurs100 || form == formOne }

// start starts the program of a form; halves are "receive", "work", or "receive,work".
func (b *bench) start(ctx context.Context, form, halves string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	crm := "http://" + b.crm.address
	switch form {
	case formBare:
		return spawn(ctx, "bare", b.dir, []string{roleVariable + "=" + roleBare}, self)
	case formPlain:
		return spawn(ctx, "plain", b.dir, []string{
			roleVariable + "=" + rolePlain, databaseVariable + "=" + b.database.url, crmVariable + "=" + crm, halvesVariable + "=" + halves,
		}, self)
	}
	return b.startOurs(ctx, b.config(form), halves)
}

// config is that of a form of ours.
func (b *bench) config(form string) string {
	crm, sink := "http://"+b.crm.address, batchSink
	if form == formOne {
		sink = oneSink
	}
	return fmt.Sprintf(configText, b.database.url, token, eventsPerJob(form), fmt.Sprintf(sink, crm, token))
}

// startOurs starts partnersync with a config.
func (b *bench) startOurs(ctx context.Context, text, halves string) (*child, error) {
	path, err := b.writeConfig(text)
	if err != nil {
		return nil, err
	}
	args := []string{"run", "--config", path}
	if halves == "receive" || halves == "work" {
		args = append(args, "--only", halves)
	}
	return spawn(ctx, "partnersync", b.dir, nil, b.program, args...)
}

// writeConfig puts a config into a file of its own.
func (b *bench) writeConfig(text string) (string, error) {
	sum := sha256.Sum256([]byte(text))
	path := filepath.Join(b.dir, "config-"+hex.EncodeToString(sum[:4])+".yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write the config: %w", err)
	}
	return path, nil
}

// hooksPath is where the receivers are posted to.
const hooksPath = "/hooks/partnerstack/deal.updated"
