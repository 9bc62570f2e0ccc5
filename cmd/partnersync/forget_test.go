package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"partnersync/internal/ledger"
	"partnersync/internal/pgtest"
)

// inProcess runs a command of this very program, on a world's config.
func (w *world) inProcess(args ...string) (code int, out, errOut string) {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(append([]string{"--config", filepath.Join(w.dir, "config.yaml")}, args...), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestForget(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	// Without variables, since the tests of this process share their values.
	config := strings.NewReplacer("${DATABASE_URL:-}", url, "${HOOK_TOKEN}", hookToken, "${CRM_TOKEN}", crmToken).Replace(shopConfig)
	w := newWorld(t, config, url)
	for _, kv := range w.env {
		if crm, ok := strings.CutPrefix(kv, "CRM_URL="); ok {
			w.write(strings.Replace(config, "${CRM_URL}", crm, 1))
		}
	}
	s := w.start()
	s.mustPost("d1", 1, "Jane@example.com asks")
	s.mustPost("d2", 1, "Joe asks")
	s.until("both have arrived", func() bool { return len(w.titles()) == 2 })
	crmID := w.box.Records("hubspot", "orders")[0].ID
	for _, r := range w.box.Records("hubspot", "orders") {
		if r.Properties["order_key"] == "d1" {
			crmID = r.ID
		}
	}

	for _, tt := range []struct {
		name string
		give []string
		code int
		want string // a pattern of what is printed
	}{
		{"no address", []string{"forget"}, 2, `expected "<email>"`},
		{"not an address", []string{"forget", "Jane"}, 2, `"Jane" is not an e-mail address`},
		{"nobody to ask", []string{"forget", "jane@example.com"}, 2, `nothing can be brought back: look with --dry-run, then say --yes`},
		{"nobody by that address", []string{"forget", "joe@example.com", "--dry-run"}, 0, `^to erase: 0 events, 0 deliveries, 0 records, errors of 0 jobs\n$`},
		{"a dry run", []string{"forget", "jane@example.com", "--dry-run"}, 0,
			`^to erase: 1 event, 1 delivery, 1 record, errors of 0 jobs\n\nthese records are in the CRMs, where partnersync deletes nothing:\nSINK +OBJECT +ID +BECAUSE\ncrm +orders +` + crmID + ` +it holds the address\n$`},
		{"the event is still there", []string{"events", "--status", "erased"}, 0, `^no event fits\n$`},
	} {
		if code, out, errOut := w.inProcess(tt.give...); code != tt.code || !regexp.MustCompile(tt.want).MatchString(out+errOut) {
			t.Errorf("%s: exit %d, %s%s", tt.name, code, out, errOut)
		}
	}

	code, out, errOut := w.inProcess("--json", "forget", "JANE@example.com", "--yes")
	var got ledger.Forgotten
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || errOut != "" {
		t.Fatalf("exit %d, %v, %s%s", code, err, out, errOut)
	}
	want := ledger.Forgotten{Events: 1, Deliveries: 1, Records: 1, CRM: []ledger.CRMRecord{{Sink: "crm", Object: "orders", ID: crmID, Holds: true}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	code, out, errOut = w.inProcess("forget", "jane@example.com", "--yes")
	if code != 0 || !strings.HasPrefix(out, "erased: 0 events,") || !strings.Contains(out, "an event that comes later and holds the address is skipped and erased") || errOut != "" {
		t.Errorf("once more: exit %d, %s%s", code, out, errOut)
	}

	// A late event, then what the commands tell of all this.
	s.mustPost("d1", 2, "jane@example.com asks again")
	s.mustPost("d2", 2, "Joe asks again")
	s.until("the other one has arrived", func() bool { return w.titles()["d2"] == "Joe asks again" })
	s.until("hers has ended", func() bool {
		_, out, _ := w.inProcess("events", "--status", "erased")
		return strings.Count(out, "erased") == 2
	})
	if title := w.titles()["d1"]; title != "Jane@example.com asks" {
		t.Errorf("the CRM has %q", title)
	}
	_, out, _ = w.inProcess("events", "--status", "erased", "--outcome", "skipped")
	id := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).FindString(out)
	for _, tt := range []struct {
		give []string
		code int
		want string
	}{
		{[]string{"explain", id}, 0, `(?s)received, 0 bytes: erased \(a forgotten person\).*closed: skipped \(a forgotten person\)`},
		{[]string{"explain", "--body", id}, 0, `erased`},
		{[]string{"replay", id}, 1, `nothing to replay: 1 event erased, since a person is forgotten\n`},
		{[]string{"replay", "--status", "erased", "--dry-run"}, 0, `^0 events\n  not replayed: 2 events erased, since a person is forgotten\n$`},
		{[]string{"ledger"}, 0, `shop`},
		{[]string{"why", "crm", "orders", "d1"}, 0, `erased`},
	} {
		code, out, errOut := w.inProcess(tt.give...)
		if code != tt.code || !regexp.MustCompile(tt.want).MatchString(out+errOut) || strings.Contains(strings.ToLower(out+errOut), "jane") {
			t.Errorf("%v: exit %d, %s%s", tt.give, code, out, errOut)
		}
	}
	s.stop()
	if strings.Contains(strings.ToLower(s.said()), "jane") {
		t.Error("the log tells of her")
	}
}

func TestForgetTellsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	found := &ledger.Forgotten{Events: 1, UnderWay: []ledger.UnderWay{{Sink: "crm", Object: "contacts", Records: 1}, {Sink: "crm", Object: "deals", Records: 2}}}
	if err := printForgotten(&out, found, true); err != nil {
		t.Fatal(err)
	}
	want := `to erase: 1 event, 0 deliveries, 0 records, errors of 0 jobs

requests for 3 records were on their way: look in the CRM for this address
SINK  OBJECT    RECORDS
crm   contacts  1
crm   deals     2
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
