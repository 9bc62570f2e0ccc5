package jobs

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"partnersync/internal/ledger"
	"partnersync/internal/sandbox"
)

// carrier is a CRM that takes a link, which is a field there, together with the row of its record.
type carrier struct {
	name, sink      string
	object, key     string
	parent, parents string // the object that is linked to, and its key
	field, title    string // what both need, and a field of text
	link            string // the field that holds the link
	as              string // it, where the config has to name it
	byKey           bool   // it finds the other record by our key itself
	updates         string // path of an update
}

func carriers() []carrier {
	const person, firm = "0123456789abcdef0123456789abcdef01234567", "76543210fedcba9876543210fedcba9876543210"
	return []carrier{
		{
			name: "salesforce", object: "Contact", key: "Key__c", parent: "Account", parents: "Key__c", field: "LastName", title: "Title",
			link: "AccountId", byKey: true, updates: "/composite/",
			sink: "auth: {client_id: id, client_secret: \"${TOKEN}\"}",
		},
		{
			name: "pipedrive", object: "deals", key: person, parent: "organizations", parents: firm, field: "title", title: "origin_id",
			link: "org_id", updates: "/deals",
			sink: "auth: {token: \"${TOKEN}\"}",
		},
	}
}

// showing are CRMs in which a record shows what it is linked to.
func showing() []carrier {
	own := carriers()[1]
	own.link, own.as = strings.Repeat("ab", 20), strings.Repeat("ab", 20)
	return append(carriers(), own, carrier{
		name: "zoho", object: "Contacts", key: "Key", parent: "Accounts", parents: "Key", field: "Last_Name", title: "Title", link: "Account_Name",
		sink: "auth: {client_id: id, client_secret: \"${TOKEN}\", refresh_token: \"${TOKEN}\", token_url: URL/zoho/oauth/v2/token}",
	}, carrier{
		name: "dataverse", object: "contacts", key: "new_key", parent: "accounts", parents: "new_key", field: "lastname", title: "jobtitle", link: "parentcustomerid_account",
		sink: "auth: {tenant: acme, client_id: id, client_secret: \"${TOKEN}\", token_url: \"URL/dataverse/{auth.tenant}/oauth2/v2.0/token\"}",
	})
}

func (c carrier) setup(link string) setup {
	name := map[string]string{"salesforce": "Name", "pipedrive": "name", "zoho": "Account_Name", "dataverse": "name"}[c.name]
	fields := []sandbox.Property{{Name: c.key, Unique: c.name != "pipedrive"}}
	if c.as != "" {
		link, fields = ", as: "+c.as+link, append(fields, sandbox.Property{Name: c.as, Type: "lookup", Target: c.parent})
	}
	return setup{
		box: sandbox.Options{Custom: map[string][]sandbox.Property{
			c.name + "/" + c.object: fields,
			c.name + "/" + c.parent: {{Name: c.parents, Unique: c.name != "pipedrive"}},
		}},
		sinks: fmt.Sprintf("  far: {preset: %s, base_url: URL/%s, %s, limits: [], settle: 300ms, find_lag: 0s, timeout: 5s}\n", c.name, c.name, c.sink),
		mappings: fmt.Sprintf(`
mappings:
  - name: deals
    on: [shop.deal.created, shop.deal.updated]
    to: far
    object: %s
    key: {"%s": event.key}
    set: {%s: event.name ?? event.key, %s: event.note}
    links:
      - {to: %s, key: {"%s": event.company}%s}
  - name: firms
    on: [shop.company.created, shop.company.updated]
    to: far
    object: %s
    key: {"%s": event.key}
    set: {%s: event.name}
`, c.object, c.key, c.field, c.title, c.parent, c.parents, link, c.parent, c.parents, name),
	}
}

// linksOf are the links that the CRM has, as key of the record > key of what it leads to.
func (c carrier) linksOf(r *rig) map[string]string {
	parents := map[string]string{}
	for _, rec := range r.box.Records(c.name, c.parent) {
		parents[rec.ID] = fmt.Sprint(rec.Properties[c.parents])
	}
	links := map[string]string{}
	for _, rec := range r.box.Records(c.name, c.object) {
		to := ""
		if id := rec.Properties[c.link]; id != nil {
			to = parents[spelt(id)]
		}
		links[fmt.Sprint(rec.Properties[c.key])] = to
	}
	return links
}

// spelt is an id, which is a number in some CRMs.
func spelt(id any) string {
	if n, ok := id.(float64); ok {
		return strconv.FormatFloat(n, 'f', -1, 64)
	}
	return fmt.Sprint(id)
}

func (c carrier) want(r *rig, key, to string) {
	r.t.Helper()
	if got, ok := c.linksOf(r)[key]; !ok || got != to {
		r.t.Errorf("%s leads to %q, want %q (there: %v)", key, got, to, ok)
	}
}

func eachCarrier(t *testing.T, f func(t *testing.T, c carrier)) {
	t.Helper()
	each(t, carriers(), f)
}

func each(t *testing.T, list []carrier, f func(t *testing.T, c carrier)) {
	t.Helper()
	for _, c := range list {
		t.Run(c.name+" "+c.link, func(t *testing.T) { t.Parallel(); f(t, c) })
	}
}

func firm(key string, at int64) event {
	return shopEvent("company.created", key, at, "name", "Acme "+key)
}

// Both ends arrive together: the firm is made first, and the deal with its link in one request.
func TestCarryWithinABatch(t *testing.T) {
	t.Parallel()
	eachCarrier(t, func(t *testing.T, c carrier) {
		s := c.setup("")
		s.idle = true
		r := newRig(t, s)
		ids := r.acceptPerJob(9, deal("d1", 1, "company", "c1"), firm("c1", 1), deal("d2", 1, "company", "c1"))
		r.start()
		r.ended(ids...)
		c.want(r, "d1", "c1")
		c.want(r, "d2", "c1")
		if n := len(r.writes(c.updates)); n != 2 { // firms and deals, or one for each deal
			t.Errorf("%d requests: %v", n, r.writes(""))
		}
	})
}

// The CRM knows the firm, though no event has told of it yet.
func TestCarryByKey(t *testing.T) {
	t.Parallel()
	eachCarrier(t, func(t *testing.T, c carrier) {
		if !c.byKey {
			return
		}
		r := newRig(t, c.setup(", required: true"))
		r.deliver(firm("c1", 1))
		if _, err := r.pool.Exec(r.context(), `DELETE FROM record_keys`); err != nil { // as if somebody else had made it
			t.Fatal(err)
		}
		r.stop()
		r.start()
		before := len(r.writes(c.updates))
		if f := r.deliver(deal("d1", 1, "company", "c1"))[0]; f.Outcome != ledger.Delivered {
			t.Errorf("%+v", f)
		}
		c.want(r, "d1", "c1")
		if n := len(r.writes(c.updates)) - before; n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// The firm comes later: the deal is made without it, and linked then.
func TestCarryWhatComesLater(t *testing.T) {
	t.Parallel()
	eachCarrier(t, func(t *testing.T, c carrier) {
		r := newRig(t, c.setup(""))
		id := r.accept(deal("d1", 1, "company", "c1"))[0]
		r.until("the deal is there", func() bool { return len(r.box.Records(c.name, c.object)) == 1 })
		r.deliver(firm("c1", 1))
		if f := r.ended(id)[id]; f.Outcome != ledger.Delivered {
			t.Errorf("%+v", f)
		}
		c.want(r, "d1", "c1")
	})
}

// Of a link that is required: the record is made with it, or not at all.
func TestCarryRequired(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, link string
		want       ledger.Outcome
		reason     string
	}{
		{"for a while", ", for: 100ms", ledger.Dead, "known yet to link to"},
		{"skip", ", missing: skip", ledger.Delivered, ""},
		// These CRMs make no firm without a name, and say so.
		{"create", ", missing: create", ledger.Dead, "could not be made to link to: HTTP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			eachCarrier(t, func(t *testing.T, c carrier) {
				r := newRig(t, c.setup(", required: true"+tt.link))
				f := r.deliver(deal("d1", 1, "company", "c1"))[0]
				if f.Outcome != tt.want || !strings.Contains(f.Reason, tt.reason) {
					t.Errorf("%+v", f)
				}
				if got := len(r.box.Records(c.name, c.object)) == 1; got != (tt.want == ledger.Delivered) {
					t.Errorf("made: %v", got)
				}
			})
		})
	}
}

// A record that waits for a required link is made once its other end is there, with all
// that other events want of it by then.
func TestCarryRequiredWaits(t *testing.T) {
	t.Parallel()
	eachCarrier(t, func(t *testing.T, c carrier) {
		r := newRig(t, c.setup(", required: true"))
		first := r.accept(deal("d1", 1, "name", "n", "company", "c1"))[0]
		r.until("it waits", func() bool {
			f := r.fates(first)[first]
			return len(f.Deliveries) == 1 && strings.Contains(f.Deliveries[0].Reason, "is known yet")
		})
		if n := len(r.box.Records(c.name, c.object)); n != 0 {
			t.Fatalf("%d records", n)
		}
		second := r.accept(deal("d1", 2, "name", "m", "note", "later", "company", "c1"))[0]
		r.deliver(firm("c1", 3))
		fates := r.ended(first, second)
		for id, f := range fates {
			if f.Outcome == ledger.Dead || f.Deliveries[0].Attempts > 1 {
				t.Errorf("%s: %+v", id, f)
			}
		}
		c.want(r, "d1", "c1")
		recs := r.box.Records(c.name, c.object)
		if len(recs) != 1 || recs[0].Properties[c.field] != "m" || recs[0].Properties[c.title] != "later" {
			t.Errorf("%+v", recs)
		}
	})
}

// A new link takes the place of the former, which is not removed on top of it, nor
// before the new one can be made.
func TestCarryReplaces(t *testing.T) {
	t.Parallel()
	eachCarrier(t, func(t *testing.T, c carrier) {
		r := newRig(t, c.setup(", only: one"))
		r.deliver(firm("c1", 1), firm("c2", 1), deal("d1", 2, "company", "c1"))
		c.want(r, "d1", "c1")
		before := len(r.writes(c.updates))
		r.deliver(deal("d1", 3, "company", "c2"))
		c.want(r, "d1", "c2")
		if n := len(r.writes(c.updates)) - before; n != 1 {
			t.Errorf("%d requests", n)
		}
		id := r.accept(deal("d1", 4, "company", "c3", "note", "moved"))[0]
		r.until("it waits", func() bool {
			f := r.fates(id)[id]
			return len(f.Deliveries) == 1 && strings.Contains(f.Deliveries[0].Reason, "is known yet")
		})
		c.want(r, "d1", "c2")
		r.deliver(firm("c3", 1))
		if f := r.ended(id)[id]; f.Outcome != ledger.Delivered {
			t.Errorf("%+v", f)
		}
		c.want(r, "d1", "c3")
	})
}

// A link that is made only where the CRM has none leaves alone what sales put there.
func TestCarryOnlyIfEmpty(t *testing.T) {
	t.Parallel()
	each(t, showing(), func(t *testing.T, c carrier) {
		r := newRig(t, c.setup(", only: if_empty"))
		r.deliver(firm("c1", 1), firm("c2", 1), firm("theirs", 1))
		firms := map[string]any{}
		for _, rec := range r.box.Records(c.name, c.parent) {
			firms[fmt.Sprint(rec.Properties[c.parents])] = rec.ID
			if n, err := strconv.ParseFloat(rec.ID, 64); err == nil && c.name == "pipedrive" {
				firms[fmt.Sprint(rec.Properties[c.parents])] = n
			}
		}
		r.box.Put(c.name, c.object, map[string]any{c.key: "d2", c.field: "Theirs", c.link: firms["theirs"]})
		r.box.Put(c.name, c.object, map[string]any{c.key: "d3", c.field: "Nobody's"})
		made := r.deliver(deal("d1", 2, "company", "c1"), deal("d2", 2, "company", "c1"), deal("d3", 2, "company", "c1"))
		for i, want := range []string{"c1", "theirs", "c1"} {
			c.want(r, fmt.Sprintf("d%d", i+1), want)
			kept := strings.Contains(made[i].Deliveries[0].Reason, "the CRM keeps another link to "+c.parent)
			if made[i].Outcome != ledger.Delivered || kept != (want == "theirs") {
				t.Errorf("d%d: %+v", i+1, made[i])
			}
		}
		// What they change later is theirs, too, and costs no look.
		for _, rec := range r.box.Records(c.name, c.object) {
			if rec.Properties[c.key] == "d1" {
				r.box.Edit(c.name, c.object, rec.ID, map[string]any{c.link: firms["theirs"]})
			}
		}
		before := len(r.writes(""))
		if f := r.deliver(deal("d1", 3, "company", "c2"))[0]; f.Outcome != ledger.Skipped || !strings.Contains(f.Deliveries[0].Reason, "the CRM keeps another link") {
			t.Errorf("%+v", f)
		}
		if f := r.deliver(deal("d2", 3, "company", "c1"))[0]; f.Outcome != ledger.Unchanged {
			t.Errorf("%+v", f)
		}
		c.want(r, "d1", "theirs")
		c.want(r, "d2", "theirs")
		if n := len(r.writes("")) - before; n != 0 {
			t.Errorf("%d requests", n)
		}
	})
}
