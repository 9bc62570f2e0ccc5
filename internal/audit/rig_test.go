package audit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"partnersync/internal/audit"
	"partnersync/internal/config"
	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
	"partnersync/internal/sandbox"
	"partnersync/jobs"
	"partnersync/records"

	"partnersync/sinks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a condition; only a broken test reaches it.
const patience = time.Minute

const secretOfCRM = "secret-of-the-crm-0123456789"

// crm is how a CRM plays the part of the tests: records with a title, that may be linked to a firm.
type crm struct {
	name, auth       string
	object, key      string
	needed, title    string // what a record needs, and a field of text
	firms, firmKey   string
	firmName, linked string // linked: the field that holds the link; "" where none does
	custom           map[string][]sandbox.Property
	loose            bool // two records may have one key
}

const hexKey, hexFirm = "0123456789abcdef0123456789abcdef01234567", "76543210fedcba9876543210fedcba9876543210"

func key(name string) sandbox.Property { return sandbox.Property{Name: name, Unique: true} }

func crms() []crm {
	const client = "client_id: id, client_secret: \"${SECRET}\""
	return []crm{
		{
			name: "hubspot", auth: `{token: "${SECRET}"}`, object: "orders", key: "partner_key", needed: "title", title: "memo",
			firms: "companies", firmKey: "company_key", firmName: "name",
			custom: map[string][]sandbox.Property{
				"hubspot/orders": {
					key("partner_key"), {Name: "title"}, {Name: "memo"}, {Name: "stage"}, {Name: "owner"}, {Name: "source"},
					{Name: "tags", Type: "enumeration", FieldType: "checkbox", Options: []string{"a", "b", "c"}},
				},
				"hubspot/companies": {key("company_key")},
			},
		},
		{
			name: "pipedrive", auth: `{token: "${SECRET}"}`, object: "deals", key: hexKey, needed: "title", title: "origin_id",
			firms: "organizations", firmKey: hexFirm, firmName: "name", linked: "org_id", loose: true,
			custom: map[string][]sandbox.Property{"pipedrive/deals": {{Name: hexKey}}, "pipedrive/organizations": {{Name: hexFirm}}},
		},
		{
			name: "salesforce", auth: "{" + client + "}", object: "Contact", key: "Key__c", needed: "LastName", title: "Title",
			firms: "Account", firmKey: "Key__c", firmName: "Name", linked: "AccountId",
			custom: map[string][]sandbox.Property{"salesforce/Contact": {key("Key__c")}, "salesforce/Account": {key("Key__c")}},
		},
		{
			name: "attio", auth: `{token: "${SECRET}"}`, object: "deals", key: "partner_key", needed: "name", title: "next_step",
			firms: "companies", firmKey: "company_key", firmName: "name", linked: "associated_company",
			custom: map[string][]sandbox.Property{"attio/deals": {key("partner_key"), {Name: "next_step"}}, "attio/companies": {key("company_key")}},
		},
		{
			name: "zoho", auth: "{" + client + ", refresh_token: \"${SECRET}\", token_url: URL/oauth/v2/token}", object: "Contacts", key: "Partner_Key",
			needed: "Last_Name", title: "Title", firms: "Accounts", firmKey: "Partner_Key", firmName: "Account_Name", linked: "Account_Name",
			custom: map[string][]sandbox.Property{"zoho/Contacts": {key("Partner_Key")}, "zoho/Accounts": {key("Partner_Key")}},
		},
		{
			name: "dataverse", auth: "{tenant: acme, " + client + ", token_url: \"URL/{auth.tenant}/oauth2/v2.0/token\"}", object: "contacts", key: "new_partnerkey",
			needed: "lastname", title: "jobtitle", firms: "accounts", firmKey: "new_partnerkey", firmName: "name", linked: "parentcustomerid_account",
			custom: map[string][]sandbox.Property{"dataverse/contacts": {key("new_partnerkey")}, "dataverse/accounts": {key("new_partnerkey")}},
		},
	}
}

func crmNamed(name string) crm {
	list := crms()
	return list[slices.IndexFunc(list, func(c crm) bool { return c.name == name })]
}

// plain are the mappings of most tests.
func (c crm) plain() string {
	also := ""
	if c.name == "attio" {
		also = `, stage: value("Lead")`
	}
	return fmt.Sprintf(`
mappings:
  - name: firms
    on: shop.firm
    to: crm
    object: %s
    key: {"%s": event.key}
    set: {%s: event.name}
  - name: deals
    on: shop.deal
    to: crm
    object: %s
    key: {"%s": event.key}
    set: {%s: event.name, %s: event.title%s}
    links: [{to: %s, key: {"%s": event.firm}%s}]
`, c.firms, c.firmKey, c.firmName, c.object, c.key, c.needed, c.title, also, c.firms, c.firmKey, map[bool]string{true: ", as: parentcustomerid_account"}[c.name == "dataverse"])
}

// rig is workers with all that is around them: Postgres, CRM, config.
type rig struct {
	t      *testing.T
	crm    crm
	pool   *pgxpool.Pool
	ledger *ledger.Ledger
	box    *sandbox.Server
	url    string
	config *config.Config
	plan   *jobs.Plan
	at     int64
}

func newRig(t *testing.T, c crm, mappings, extra string) *rig {
	t.Helper()
	client := sandbox.Client{ID: "id", Secret: secretOfCRM, RefreshToken: secretOfCRM}
	r := &rig{t: t, crm: c, pool: pgtest.Pool(t), box: sandbox.New(sandbox.Options{
		Token: secretOfCRM, Custom: c.custom, Clients: map[string]sandbox.Client{"salesforce": client, "zoho": client, "dataverse": client},
	})}
	r.ledger = ledger.New(r.pool)
	srv := httptest.NewServer(r.box)
	t.Cleanup(srv.Close)
	t.Cleanup(r.box.Reset)
	r.url = srv.URL + "/" + c.name
	if !strings.Contains(extra, "limits:") {
		extra += "    limits: []\n"
	}
	r.load(`
sources:
  shop:
    verify: none
    events:
      deal: &deal
        schema: {key: id, at: time s, name: text, title: text, firm: id, stage: text, owner: text, tags: list of text}
        entity: {deal: event.key}
        occurred_at: event.at
      note: {<<: *deal, rank: 1}
      firm: {<<: *deal, entity: {firm: event.key}}
sinks:
  crm:
    preset: ` + c.name + `
    base_url: ` + r.url + `
    auth: ` + strings.ReplaceAll(c.auth, "URL", r.url) + `
    settle: 300ms
    find_lag: 0s
    timeout: 5s
` + extra + mappings)
	registry := prometheus.NewRegistry()
	workers, err := jobs.New(jobs.Options{Pool: r.pool, Logger: slog.New(slog.DiscardHandler), Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	sink := sinks.New(r.config.Sinks["crm"], sinks.Options{Observer: workers.Observer("crm")})
	t.Cleanup(sink.Close)
	r.plan.Sinks["crm"] = sink
	workers.Use(r.plan)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- workers.Run(ctx, 10*time.Second) }()
	t.Cleanup(sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the workers ended with %v", err)
		}
	}))
	return r
}

func (r *rig) load(text string) {
	r.t.Helper()
	cfg, problems := config.Parse("config.yaml", []byte(text), config.Options{Getenv: func(name string) (string, bool) {
		return secretOfCRM, name == "SECRET"
	}})
	if problems.Failed() {
		r.t.Fatalf("the config of the test is wrong:\n%v", problems)
	}
	generation, err := r.ledger.Generation(r.t.Context(), uuid.NewString(), "test")
	if err != nil {
		r.t.Fatal(err)
	}
	r.config = cfg
	r.plan = &jobs.Plan{Generation: generation, Sources: cfg.Sources, Mappings: cfg.Mappings, Sinks: map[string]*sinks.Sink{}}
}

// send accepts an event, which is newer than all before, and waits until its route has ended.
func (r *rig) send(typ, key string, fields ...any) uuid.UUID {
	r.t.Helper()
	id := r.accept(typ, key, fields...)
	r.ended()
	return id
}

func (r *rig) accept(typ, key string, fields ...any) uuid.UUID {
	r.t.Helper()
	r.at++
	body := map[string]any{"key": key, "at": 1_700_000_000 + r.at}
	for i := 0; i+1 < len(fields); i += 2 {
		body[fields[i].(string)] = fields[i+1]
	}
	text, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	open := r.config.Sources["shop"].Open(typ, text)
	if !open.Known || open.Malformed != nil {
		r.t.Fatalf("not what the shop sends: %+v", open)
	}
	id := uuid.Must(uuid.NewV7())
	_, err = r.ledger.Accept(r.t.Context(), []ledger.Incoming{{
		ID: id, Source: "shop", Type: open.Type, Entity: open.Entity, OccurredAt: open.OccurredAt, Rank: int16(open.Rank), ReceivedAt: time.Now(),
		Status: ledger.Stored, Body: open.Payload, Sinks: r.config.Mappings.Sinks("shop", open.Type),
	}}, r.plan.Generation, 1)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// ended waits until no route is open.
func (r *rig) ended() {
	r.t.Helper()
	r.until("all routes are closed", func() bool { return r.count(`routes WHERE outcome IS NULL`) == 0 })
}

func (r *rig) until(what string, holds func() bool) {
	r.t.Helper()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-deadline:
			r.t.Fatalf("waited in vain: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (r *rig) count(from string) (n int) {
	r.t.Helper()
	if err := r.pool.QueryRow(context.Background(), "SELECT count(*) FROM "+from).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// ids are the CRM's ids of an object's records, by our key.
func (r *rig) ids(object, key string) map[string]string {
	out := map[string]string{}
	for _, rec := range r.box.Records(r.crm.name, object) {
		out[fmt.Sprint(rec.Properties[key])] = rec.ID
	}
	return out
}

func (r *rig) id(key string) string { return r.ids(r.crm.object, r.crm.key)[key] }

// shown is a property of a record in the CRM.
func (r *rig) shown(id, property string) string {
	r.t.Helper()
	rec, ok := r.box.Get(r.crm.name, r.crm.object, id)
	if !ok {
		r.t.Fatalf("there is no record %s", id)
	}
	return fmt.Sprint(rec.Properties[property])
}

func (r *rig) edit(id, property string, value any) {
	r.t.Helper()
	if !r.box.Edit(r.crm.name, r.crm.object, id, map[string]any{property: value}) {
		r.t.Fatalf("%s is not edited", id)
	}
}

// audit audits with a sink of its own, as another process does.
func (r *rig) audit(edit ...func(*audit.Options)) ([]audit.Difference, *audit.Report, error) {
	r.t.Helper()
	return r.auditWithin(r.t.Context(), edit...)
}

func (r *rig) auditWithin(ctx context.Context, edit ...func(*audit.Options)) ([]audit.Difference, *audit.Report, error) {
	sink := sinks.New(r.config.Sinks["crm"], sinks.Options{Share: 0.5})
	defer sink.Close()
	var all []audit.Difference
	o := audit.Options{Ledger: r.ledger, Sink: sink, Mappings: r.config.Mappings, Tell: func(found []audit.Difference) error {
		all = append(all, found...)
		return nil
	}}
	for _, e := range edit {
		e(&o)
	}
	report, err := audit.Run(ctx, o)
	return all, report, err
}

// clean expects an audit that finds nothing.
func (r *rig) clean(compared int64) *audit.Report {
	r.t.Helper()
	found, report, err := r.audit()
	if err != nil || len(found) > 0 || report.Records != compared || len(report.Unread) > 0 || len(report.Hidden) > 0 {
		r.t.Fatalf("%v\n%+v\n%+v", err, told(found), report)
	}
	return report
}

// told are differences in short.
func told(found []audit.Difference) []string {
	out := []string{}
	for _, d := range found {
		out = append(out, fmt.Sprintf("%s %s %s: %v, %v", d.Kind, d.Key, d.Field, d.Ours, d.Theirs))
	}
	slices.Sort(out)
	return out
}

// repair has what was found sent again, and waits until it is.
func (r *rig) repair(found []audit.Difference) *ledger.Repaired {
	r.t.Helper()
	done := r.repairAt(found)
	r.ended()
	return done
}

func (r *rig) repairAt(found []audit.Difference) *ledger.Repaired {
	r.t.Helper()
	var list []ledger.Repair
	for _, d := range found {
		list = append(list, ledger.Repair{ID: d.Record, Fields: d.Resend})
	}
	done, err := r.ledger.Repair(r.t.Context(), "crm", list, ledger.ReplaySpec{By: "tester", Wants: r.config.Mappings.Sinks, Generation: r.plan.Generation})
	if err != nil {
		r.t.Fatal(err)
	}
	return done
}

func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	if _, err := r.pool.Exec(context.Background(), sql, args...); err != nil {
		r.t.Fatal(err)
	}
}

// announce says that a request on its way may be changing a record.
func (r *rig) announce(k records.Key) {
	r.t.Helper()
	r.exec(`INSERT INTO announcements (id, sink, epoch, records, until) VALUES ($1, 'crm', 1, $2, now() + interval '1 hour')`,
		uuid.New(), []string{k.Object + "\x1f" + k.Property + "\x1f" + k.Key})
}
