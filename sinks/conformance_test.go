package sinks

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"partnersync/internal/sandbox"
)

// The conformance suite runs every preset of a CRM through every rule of the
// sandbox and every fault. What a CRM is called and which of its fields are which
// stands in crms; the tests name no CRM where they need not.

// crm is what the suite has to know of a CRM.
type crm struct {
	name   string
	config string // of the sink; URL is the address of the sandbox
	api    string // part of the paths of everything but tokens

	object, key string
	values      func(n string) map[string]any // what a record needs, and a field
	field       string                        // a field of free text
	required    string                        // a field without which nothing is made
	choice      string                        // a field that takes certain values
	bad         any                           // a value that it does not take
	allowed     []string                      // what the CRM says that it takes
	unnamed     bool                          // the CRM does not tell which field is required
	strange     string                        // the name of a field that is not there, where a search that is refused does not tell it
	silent      bool                          // an upsert does not tell whether it made the record
	oauth       bool                          // tokens are fetched
	caseless    bool                          // keys that differ in nothing but their case are one

	parent, parentKey string // what a record can be linked to
	parentValues      map[string]any
	as                string // of that link
	byKey             bool   // parents can be named by their key
	linkedBy          string // the field of the record that holds the link; "" for a link of its own

	note      string // an object that is appended to
	noteValue map[string]any
	noteAs    string

	custom map[string][]sandbox.Property
}

const (
	hexKey    = "0123456789abcdef0123456789abcdef01234567"
	hexParent = "76543210fedcba9876543210fedcba9876543210"
	hexLink   = "00112233445566778899aabbccddeeff00112233"
	clientID  = "client-id-0123"
	clientKey = "client-secret-0123456789"
	renewal   = "refresh-token-0123456789"
	static    = "static-token-0123456789"
)

func withKeys(values map[string]any, more map[string]any) map[string]any {
	out := maps.Clone(values)
	maps.Copy(out, more)
	return out
}

// crms are all presets but the webhook, which is no CRM.
func crms() []*crm {
	key := func(name string) sandbox.Property { return sandbox.Property{Name: name, Unique: true} }
	return []*crm{
		{
			name: "attio", config: "auth: {token: " + static + "}\n",
			object: "deals", key: "partner_key", field: "next_step", required: "stage", choice: "stage", bad: "Nowhere", unnamed: true, silent: true,
			values: func(n string) map[string]any {
				return map[string]any{"name": "Deal " + n, "stage": "Lead", "next_step": "call"}
			},
			parent: "companies", parentKey: "company_key", parentValues: map[string]any{"name": "Acme"}, byKey: true, linkedBy: "associated_company",
			note: "notes", noteValue: map[string]any{"title": "Note", "content": "hello", "format": "plaintext"},
			custom: map[string][]sandbox.Property{
				"attio/deals":     {key("partner_key"), {Name: "next_step"}},
				"attio/companies": {key("company_key")},
			},
		},
		{
			name: "dataverse", oauth: true, caseless: true, api: "/api/",
			config: "auth: {tenant: acme, client_id: " + clientID + ", client_secret: " + clientKey + ", token_url: \"URL/{auth.tenant}/oauth2/v2.0/token\"}\n",
			object: "contacts", key: "new_partnerkey", field: "jobtitle", required: "new_tier", choice: "preferredcontactmethodcode", bad: int64(9),
			allowed: []string{"1", "2", "3", "4", "5"},
			values: func(n string) map[string]any {
				return map[string]any{"lastname": "Doe " + n, "new_tier": "gold", "jobtitle": "CEO"}
			},
			parent: "accounts", parentKey: "new_partnerkey", parentValues: map[string]any{"name": "Acme"}, byKey: true, linkedBy: "parentcustomerid_account",
			note: "annotations", noteValue: map[string]any{"subject": "Note", "notetext": "hello"},
			custom: map[string][]sandbox.Property{
				"dataverse/contacts": {key("new_partnerkey"), {Name: "new_tier", Required: true}},
				"dataverse/accounts": {key("new_partnerkey")},
			},
		},
		{
			name: "hubspot", caseless: true, config: "auth: {token: " + static + "}\nsettings: {api_version: 2026-09}\n",
			object: "orders", key: "partner_key", field: "memo", required: "title", choice: "tier", bad: "bronze", allowed: []string{"gold", "silver"},
			values: func(n string) map[string]any {
				return map[string]any{"title": "Order " + n, "memo": "call"}
			},
			parent: "companies", parentKey: "company_key", parentValues: map[string]any{"name": "Acme"},
			note: "notes", noteValue: map[string]any{"hs_timestamp": "2026-11-21T10:00:00Z", "hs_note_body": "hello"},
			custom: map[string][]sandbox.Property{
				"hubspot/orders": {
					key("partner_key"), {Name: "title", Required: true}, {Name: "memo"},
					{Name: "tier", Type: "enumeration", Options: []string{"gold", "silver"}},
				},
				"hubspot/companies": {key("company_key")},
			},
		},
		{
			name: "pipedrive", config: "auth: {token: " + static + "}\n",
			object: "deals", key: hexKey, field: "origin_id", required: "title", choice: "status", bad: "parked", allowed: []string{"open", "won", "lost"},
			values: func(n string) map[string]any {
				return map[string]any{"title": "Deal " + n, "origin_id": "call"}
			},
			strange: strings.Repeat("f", 40),
			parent:  "organizations", parentKey: hexParent, parentValues: map[string]any{"name": "Acme"}, linkedBy: "org_id",
			note: "notes", noteValue: map[string]any{"content": "hello"},
			custom: map[string][]sandbox.Property{"pipedrive/deals": {{Name: hexKey}}, "pipedrive/organizations": {{Name: hexParent}}},
		},
		{
			name: "salesforce", oauth: true, caseless: true, api: "/data/",
			config: "auth: {client_id: " + clientID + ", client_secret: " + clientKey + "}\n",
			object: "Contact", key: "Partner_Key__c", field: "Title", required: "LastName", choice: "Tier__c", bad: "bronze",
			values: func(n string) map[string]any {
				return map[string]any{"LastName": "Doe " + n, "Title": "CEO"}
			},
			parent: "Account", parentKey: "Partner_Key__c", parentValues: map[string]any{"Name": "Acme"}, byKey: true, linkedBy: "AccountId",
			note: "Task", noteValue: map[string]any{"Subject": "Note"}, noteAs: "Who",
			custom: map[string][]sandbox.Property{
				"salesforce/Contact": {key("Partner_Key__c"), {Name: "Tier__c", Type: "enumeration", Options: []string{"gold", "silver"}}},
				"salesforce/Account": {key("Partner_Key__c")},
			},
		},
		{
			name: "zoho", oauth: true, caseless: true, api: "/crm/",
			config: "auth: {client_id: " + clientID + ", client_secret: " + clientKey + ", refresh_token: " + renewal + ", token_url: URL/oauth/v2/token}\n",
			object: "Contacts", key: "Partner_Key", field: "Title", required: "Last_Name", choice: "Tier", bad: "bronze", allowed: []string{"gold", "silver"},
			values: func(n string) map[string]any {
				return map[string]any{"Last_Name": "Doe " + n, "Title": "CEO"}
			},
			parent: "Accounts", parentKey: "Partner_Key", parentValues: map[string]any{"Account_Name": "Acme"}, linkedBy: "Account_Name",
			note: "Tasks", noteValue: map[string]any{"Subject": "Note"},
			custom: map[string][]sandbox.Property{
				"zoho/Contacts": {key("Partner_Key"), {Name: "Tier", Type: "enumeration", Options: []string{"gold", "silver"}}},
				"zoho/Accounts": {key("Partner_Key")},
			},
		},
	}
}

// eachCRM runs a test for every CRM.
func eachCRM(t *testing.T, test func(t *testing.T, c *crm)) {
	t.Helper()
	var names []string
	for _, c := range crms() {
		names = append(names, c.name)
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
	for _, preset := range Presets() {
		if preset != "webhook" && !slices.Contains(names, preset) {
			t.Errorf("the preset %s is in no test", preset)
		}
	}
}

// world is a sandbox, a sink that writes to it, and what went over the wire.
type world struct {
	*sandbox.Server
	c    *crm
	sink *Sink
	url  string // of the CRM in the sandbox

	mu  sync.Mutex
	got []recorded
}

func (c *crm) open(tb testing.TB, o sandbox.Options, extra string) *world {
	tb.Helper()
	return c.openWith(tb, o, extra, Options{})
}

func (c *crm) openWith(tb testing.TB, o sandbox.Options, extra string, options Options) *world {
	tb.Helper()
	w := c.serve(tb, o)
	w.sink = c.connect(tb, w.url, extra, options)
	return w
}

// serve starts the sandbox alone.
func (c *crm) serve(tb testing.TB, o sandbox.Options) *world {
	tb.Helper()
	if o.Token == "" {
		o.Token = static
	}
	if o.Custom == nil {
		o.Custom = c.custom
	}
	if o.Clients == nil {
		client := sandbox.Client{ID: clientID, Secret: clientKey, RefreshToken: renewal}
		o.Clients = map[string]sandbox.Client{"salesforce": client, "zoho": client, "dataverse": client, "pipedrive": client}
	}
	w := &world{Server: sandbox.New(o), c: c}
	srv := httptest.NewServer(w)
	tb.Cleanup(srv.Close)
	tb.Cleanup(w.Reset) // ends what a fault still holds back
	w.url = srv.URL + "/" + c.name
	return w
}

// connect makes a sink. Limits of time are off: those that matter have tests of their own.
func (c *crm) connect(tb testing.TB, url, extra string, options Options) *Sink {
	tb.Helper()
	text := "preset: " + c.name + "\nbase_url: " + url + "\n" + strings.ReplaceAll(c.config, "URL", url)
	if !strings.Contains(extra, "limits:") {
		text += "limits: []\n"
	}
	return newSink(tb, text+extra, options)
}

// ServeHTTP notes each request as it comes in.
func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	var b strings.Builder
	_, _ = copyBody(&b, r)
	r.Body = http.NoBody
	if b.Len() > 0 {
		r.Body = readCloser{strings.NewReader(b.String())}
		r.ContentLength = int64(b.Len())
	}
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/"+w.c.name)
	w.mu.Lock()
	w.got = append(w.got, recorded{r.Method, path, r.URL.RawQuery, b.String(), r.Header.Clone()})
	w.mu.Unlock()
	w.Server.ServeHTTP(rw, r)
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// isToken tells a request for an access token.
func (r recorded) isToken() bool {
	return strings.HasSuffix(r.path, "/token")
}

// sent returns the requests so far, without those for tokens, and forgets them.
func (w *world) sent() []recorded {
	w.mu.Lock()
	defer w.mu.Unlock()
	got := slices.DeleteFunc(slices.Clone(w.got), recorded.isToken)
	w.got = nil
	return got
}

// tokens is how many tokens were asked for; it forgets all requests.
func (w *world) tokens() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, r := range w.got {
		if r.isToken() {
			n++
		}
	}
	w.got = nil
	return n
}

// row is a record with a key of its own.
func (c *crm) row(n string) Row {
	return Row{Trace: "trace-" + n, Object: c.object, Property: c.key, Key: "PS-" + n, Values: c.values(n)}
}

// rows are records with keys of their own.
func (c *crm) rows(n int) []Row {
	out := make([]Row, n)
	for i := range out {
		out[i] = c.row(fmt.Sprint(i))
	}
	return out
}

// company is a record that others link to.
func (w *world) company(key string) (id string) {
	return w.Put(w.c.name, w.c.parent, withKeys(w.c.parentValues, map[string]any{w.c.parentKey: key}))
}

// record fetches what the sandbox keeps.
func (w *world) record(tb testing.TB, id string) map[string]any {
	tb.Helper()
	r, ok := w.Get(w.c.name, w.c.object, id)
	if !ok {
		tb.Fatalf("there is no %s %q", w.c.object, id)
	}
	return r.Properties
}

func (w *world) count() int { return len(w.Records(w.c.name, w.c.object)) }

// secrets must not be in any message.
func leaks(text string) string {
	for _, hidden := range []string{clientKey, renewal, static, "sandbox.session", "1000.sandbox", "eyJ0eXAi", "v1u:sandbox"} {
		if strings.Contains(text, hidden) {
			return hidden
		}
	}
	return ""
}

// checkWords fails on a message that is missing or tells a secret or a value.
func checkWords(tb testing.TB, r Result) {
	tb.Helper()
	all := strings.Join(slices.Concat([]string{r.Message, r.Code, r.Existing}, r.Fields, r.Allowed), " ")
	if len(r.Kept) > 0 {
		tb.Errorf("the CRM shows what it was sent, and passes for keeping something else: %v", r.Kept)
	}
	if r.Class != OK && r.Message == "" {
		tb.Errorf("no reason: %+v", r)
	}
	if hidden := leaks(all); hidden != "" {
		tb.Errorf("the words hold the secret %q: %s", hidden, all)
	}
}
