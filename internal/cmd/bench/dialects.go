package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"partnersync/internal/config"
	"partnersync/internal/sandbox"
	"partnersync/sinks"
)

// dialect is how deals go to one CRM.
type dialect struct {
	name   string // of the preset
	object string
	key    string // the property with our key
	auth   string
	stage  string // in the CRM's words
	fields string // the mapping's, as YAML
	named  string // the property with the name of a deal, by which sales know it
	byID   int    // requests that 1,000 updates are to take once ids are known; 0: no aim

	// What the preset says.
	batch   int     // rows of one request
	sought  int     // rows of one search
	slots   int     // requests at a time
	allowed float64 // rows per second by its limits; 0: they set none
}

// dialects are all CRMs.
func dialects() ([]dialect, error) {
	all := plainDialects()
	for i := range all {
		if err := all[i].read(); err != nil {
			return nil, fmt.Errorf("preset %s: %w", all[i].name, err)
		}
	}
	return all, nil
}

func plainDialects() []dialect {
	return []dialect{
		{
			name: "hubspot", named: "dealname", object: "deals", key: "partnerstack_deal_key", stage: "closedwon", byID: 10, auth: "{token: bench}",
			fields: "{dealname: event.account_name, amount: cents(event.amount), closedate: date(event.close_date), dealstage: " + stageOf + "}",
		},
		{
			name: "salesforce", named: "Name", object: "Opportunity", key: "PartnerStack_Key__c", stage: "Closed Won", byID: 5, auth: "{client_id: bench, client_secret: bench-secret}",
			fields: "{Name: event.account_name, Amount: cents(event.amount), CloseDate: date(event.close_date), StageName: " + stageOf + "}",
		},
		{
			name: "zoho", named: "Deal_Name", object: "Deals", key: "PartnerStack_Key", stage: "Closed Won", byID: 10,
			auth:   "{client_id: bench, client_secret: bench-secret, refresh_token: bench-refresh, token_url: %s/oauth/v2/token}",
			fields: "{Deal_Name: event.account_name, Amount: cents(event.amount), Closing_Date: date(event.close_date), Stage: " + stageOf + "}",
		},
		{
			name: "pipedrive", named: "title", object: "deals", key: "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567", stage: "won", byID: 1000, auth: "{token: bench}",
			fields: "{title: event.account_name, value: cents(event.amount), expected_close_date: date(event.close_date), status: " + stageOf + "}",
		},
		{
			name: "attio", named: "name", object: "deals", key: "partnerstack_deal_key", stage: "Won 🎉", auth: "{token: bench}",
			fields: "{name: event.account_name, value: cents(event.amount), stage: " + stageOf + "}",
		},
		{
			name: "dataverse", named: "name", object: "opportunities", key: "new_partnerstackkey", stage: "won",
			auth:   "{tenant: bench.example, client_id: bench, client_secret: bench-secret, token_url: %s/bench.example/oauth2/v2.0/token}",
			fields: "{name: event.account_name, estimatedvalue: cents(event.amount), estimatedclosedate: date(event.close_date), stepname: " + stageOf + "}",
		},
	}
}

const stageOf = `'lookup(event.stage, "stages")'`

// read takes over what the preset says.
func (d *dialect) read() error {
	text := strings.Replace(d.config("postgres://localhost/none", "http://127.0.0.1:1"), ", limits: []", "", 1)
	cfg, problems := config.Parse("bench.yaml", []byte(text), config.Options{})
	if cfg == nil {
		return problems
	}
	const many = 10_000_000
	if least := cfg.Sinks["crm"].LeastTime(many); least > 0 {
		d.allowed = many / least.Seconds()
	}
	s := sinks.New(cfg.Sinks["crm"], sinks.Options{})
	defer s.Close()
	d.batch, d.sought, d.slots = s.MaxRows(sinks.Update), s.MaxRows(sinks.Search), s.Concurrency()
	return nil
}

// config is partnersync's for one CRM: the preset as it is, but for its limits, which
// change how long requests wait and not how many there are.
func (d dialect) config(database, crm string) string {
	base := crm + "/" + d.name
	auth := d.auth
	if strings.Contains(auth, "%s") {
		auth = fmt.Sprintf(auth, base)
	}
	return fmt.Sprintf(`
database: {url: %q}
receiver: {listen: "127.0.0.1:0"}
admin: {listen: "127.0.0.1:0"}
sources:
  partnerstack: {preset: partnerstack, verify: {token: %q}}
sinks:
  crm: {preset: %s, base_url: %q, auth: %s, limits: []}
tables:
  stages: {map: {Closed Won: %q}}
mappings:
  - {name: deals, on: partnerstack.deal.updated, to: crm, object: %s, key: {%s: event.key}, set: %s}
`, database, token, d.name, base, auth, d.stage, d.object, d.key, d.fields)
}

// matching is the mapping of a CRM that has deals already: they are found by their name, which is
// what sales own.
func (d dialect) matching(text string) string {
	fields := strings.Replace(d.fields, d.named+": event.account_name, ", "", 1)
	return strings.Replace(text, "set: "+d.fields, fmt.Sprintf("match: [{%s: event.key}], set: %s, set_if_empty: {%s: event.key}", d.named, fields, d.named), 1)
}

// What a request is for.
const (
	writes  = "writes"
	lookups = "lookups"
	others  = "others" // tokens, and whose account it is
)

// boxed is a sandbox CRM in this process that counts what comes.
type boxed struct {
	*sandbox.Server
	url string

	mu     sync.Mutex
	counts map[string]int
}

// openSandbox starts a CRM that has the key of a dialect. Its owner calls the function.
func openSandbox(d dialect) (*boxed, func(context.Context) error, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("open a sandbox: %w", err)
	}
	b := &boxed{Server: sandbox.New(sandbox.Options{}), url: "http://" + l.Addr().String(), counts: map[string]int{}}
	b.Define(d.name, d.object, sandbox.Property{Name: d.key, Unique: true})
	server := &http.Server{Handler: b, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	return b, func(ctx context.Context) error {
		b.Reset() // ends what a fault still holds back
		err := server.Shutdown(ctx)
		if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

func (b *boxed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.counts[purpose(r)]++
	b.mu.Unlock()
	b.Server.ServeHTTP(w, r)
}

// take returns what has been counted, and begins anew.
func (b *boxed) take() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	counted := b.counts
	b.counts = map[string]int{}
	return counted
}

func purpose(r *http.Request) string {
	has := func(part string) bool { return strings.Contains(r.URL.Path, part) }
	switch {
	case slices.ContainsFunc([]string{"/oauth", "/account-info/", "/users/me", "/v2/self", "/WhoAmI", "/org"}, has):
		return others
	case r.Method == http.MethodGet, slices.ContainsFunc([]string{"/batch/read", "/search", "/query"}, has):
		return lookups
	}
	return writes
}

// onSandbox calls use for each CRM with empty tables and a CRM that has nothing.
func (b *bench) onSandbox(ctx context.Context, some []dialect, use func(dialect, *boxed) error) error {
	one := func(d dialect) (err error) {
		if err := b.database.empty(ctx); err != nil {
			return err
		}
		box, stop, err := openSandbox(d)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop(context.WithoutCancel(ctx))) }()
		return use(d, box)
	}
	for _, d := range some {
		if err := one(d); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

// worker starts a worker of a config.
func (b *bench) worker(text string) func(context.Context) (*child, error) {
	return func(ctx context.Context) (*child, error) { return b.startOurs(ctx, text, "work") }
}

// make makes deals that the CRM has, and whose ids the ledger knows.
func (b *bench) make(ctx context.Context, text string, n int) error {
	deals := make([]deal, n)
	for i := range deals {
		deals[i] = deal{index: i}
	}
	_, err := b.workQueue(ctx, queue{deals: deals, perJob: 1, sink: "crm", start: b.worker(text)})
	return err
}

// changes are updates of n deals that change the amount; the n-th such.
func changes(n, nth int) []deal {
	deals := make([]deal, n)
	for i := range deals {
		deals[i] = deal{index: i, amount: 10_000 + nth, later: 1000 * nth}
	}
	return deals
}
