package grafana

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"partnersync/internal/pgtest"
)

// world is partnersync as it runs in earnest, a receiver and a worker, between
// senders and a sandbox of the CRMs that can be told to fail.
type world struct {
	t       *testing.T
	hooks   string          // URL
	admins  []string        // addresses
	sandbox string          // URL
	url     string          // of the database
	first   map[string]bool // series before anything has been sent
	sent    atomic.Int64
}

const hookToken = "token-of-the-hooks"

// newWorld starts the processes on the example config.
func newWorld(t *testing.T) *world {
	t.Helper()
	binary, dir := build(t), t.TempDir()
	w := &world{t: t, url: pgtest.URL(t)}
	data, err := os.ReadFile(filepath.Join("..", "config.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := regexp.MustCompile(`(?m)^admin:.*(\n .*)*`).ReplaceAllString(string(data), "admin: {listen: 127.0.0.1:0}")
	for _, change := range [][2]string{
		{`listen: ":8080"`, "listen: 127.0.0.1:0\n  spool: spool"},
		{`preset: hubspot`, "preset: hubspot\n    base_url: ${CRM_URL}\n    settle: 1s"},
		{`url: https://example.com/partner-events`, "url: ${ARCHIVE_URL}"},
		{`else: nil `, `else: skip `},
		{"\ntables:\n", "\ntables:\n  owners: {from: crm, list: owners, by: email}\n"},
	} {
		if !strings.Contains(config, change[0]) {
			t.Fatalf("the example config has no %q", change[0])
		}
		config = strings.Replace(config, change[0], change[1], 1)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"DATABASE_URL=" + w.url, "PARTNERSTACK_HOOK_TOKEN=" + hookToken, "EVERFLOW_HOOK_TOKEN=" + hookToken, "HUBSPOT_TOKEN=token-of-the-crm"}
	box := start(t, "sandbox", dir, append(env, "CRM_URL=http://127.0.0.1", "ARCHIVE_URL=http://127.0.0.1"), binary, "sandbox", "--listen", "127.0.0.1:0")
	w.sandbox = "http://" + box.await(t, `http://([0-9.:]+)/ lists`)[0]
	env = append(env, "CRM_URL="+w.sandbox+"/hubspot", "ARCHIVE_URL="+w.sandbox+"/webhook")
	for _, part := range []string{"work", "receive"} {
		p := start(t, part, dir, env, binary, "run", "--only", part)
		found := p.await(t, `"partnersync runs".*"hooks":"([^"]*)","admin":"([^"]+)"`)
		w.hooks = "http://" + found[0] + "/hooks/"
		w.admins = append(w.admins, found[1])
	}
	w.first = w.series()
	return w
}

// fault makes the sandbox fail; the function that it returns ends that.
func (w *world) fault(form string) (end func()) {
	w.t.Helper()
	resp, err := http.Post(w.sandbox+"/faults", "application/json", strings.NewReader(form))
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated {
		w.t.Fatalf("a fault: %s %s %v", resp.Status, body, err)
	}
	var id int
	if _, err := fmt.Sscanf(string(body), `{"id":%d}`, &id); err != nil {
		w.t.Fatalf("a fault: %s", body)
	}
	return func() {
		req, err := http.NewRequest(http.MethodDelete, fmt.Sprintf("%s/faults/%d", w.sandbox, id), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			w.t.Fatal(err)
		}
		resp.Body.Close()
	}
}

// post sends one webhook; any answer will do.
func (w *world) post(ctx context.Context, event, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.hooks+event, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+hookToken)
	if strings.HasSuffix(event, "!") { // of somebody who does not know the secret
		req.URL.Path = strings.TrimSuffix(req.URL.Path, "!")
		req.Header.Del("Authorization")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// send posts webhooks at about the given rate until ctx ends: mostly good ones, and
// now and then each kind of trouble that senders make.
func (w *world) send(ctx context.Context, rate func() float64) {
	for ctx.Err() == nil {
		n := w.sent.Add(1)
		event, body := webhook(n, time.Now())
		if err := w.post(ctx, event, body); err != nil && ctx.Err() == nil {
			w.t.Errorf("post %s: %v", event, err)
			return
		}
		pause := time.NewTimer(time.Duration(float64(time.Second) / math.Max(rate(), 1)))
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// rejectMe is what the archive refuses in the test.
const rejectMe = "reject-me"

// odd is how many webhooks make up a round with one of each trouble.
func odd() int64 {
	if *record > 0 {
		return 2000 // as in life
	}
	return 40
}

// webhook is the n-th one.
func webhook(n int64, now time.Time) (event, body string) {
	ms := now.UnixMilli()
	stages := []string{"Submitted", "Working", "Proposal", "Negotiation", "Closed Won"}
	deal := func(key, stage string, at int64, more string) string {
		return fmt.Sprintf(`{"key":%q,"account_name":"Account %d","amount":%d,"stage":%q,"partner_key":"partner-%d","close_date":%d,"created_at":%d,"updated_at":%d%s}`,
			key, n%50, 1000+n, stage, n%7, ms, ms, at, more)
	}
	lead := func(status, mail string) string {
		return fmt.Sprintf(`{"key":"lead_%d","name":"Lead Number%d","email":"lead%d@%s","status":%q,"partner_key":"partner-%d","created_at":%d,"updated_at":%d}`,
			n, n, n, mail, status, n%7, ms, ms)
	}
	transaction := func(customer string) string {
		return fmt.Sprintf(`{"key":"tran_%d","customer_key":%q,"partner_key":"partner-%d","currency":"USD","amount":%d,"archived":false,"created_at":%d,"updated_at":%d}`,
			n, customer, n%7, 100*n, ms, ms)
	}
	key := fmt.Sprintf("deal_%d", n%40)
	switch n % odd() {
	case 1:
		return "partnerstack/deal.updated", deal(key, "Working", ms-3_600_000, "") // late: a newer one has decided
	case 3:
		return "partnerstack/lead.created", lead("nurturing", "example.com") // the table lacks it
	case 5:
		return "partnerstack/transaction.created", transaction(rejectMe)
	case 7:
		return "partnerstack/deal.created", deal("", "Working", ms, "") // names no record
	case 9:
		return "partnerstack/deal.updated", deal(key, "Working", ms, `,"margin":12,"region":"emea"`)
	case 11:
		return "partnerstack/partner.renamed", fmt.Sprintf(`{"key":"partner-%d","updated_at":%d}`, n%7, ms)
	case 13:
		return "partnerstack/lead.created", lead("open", "test.example")
	case 15:
		return "partnerstack/deal.created", `{"key":`
	case 17:
		return "partnerstack/deal.created!", deal(key, "Working", ms, "")
	case 19:
		return "partnerstack/deal.updated", deal(key, "Working", ms+600_000, "")
	case 21, 22:
		return "partnerstack/transaction.updated", `{"key":"tran_1","currency":"USD","amount":100,"customer_key":"c","partner_key":"p","archived":false,"created_at":1537205154288,"updated_at":1537205154288}`
	}
	switch n % 4 {
	case 0:
		return "partnerstack/deal.updated", deal(key, stages[n/40%5], ms, "")
	case 1:
		return "partnerstack/lead.created", lead("open", "example.com")
	case 2:
		return "everflow/partner.updated", fmt.Sprintf(`{"network_affiliate_id":%d,"name":"Partner %d","account_status":"active","time_created":%d,"time_saved":%d,"relationship":{"users":{"total":1,"entries":[{"network_affiliate_user_id":%d,"first_name":"User","last_name":"Number %d","email":"user%d@example.com","account_status":"active"}]}}}`,
			n%30+1, n/40, ms/1000, ms/1000, n%30+1, n/40, n%30+1)
	}
	return "partnerstack/transaction.created", transaction(fmt.Sprintf("customer-%d", n%9))
}

// exec runs SQL on the database.
func (w *world) exec(sql string) {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatal(err)
	}
}

// metrics scrapes a process.
func (w *world) metrics(admin string) []byte {
	w.t.Helper()
	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatalf("scrape: %s %v", resp.Status, err)
	}
	return out.Bytes()
}

// families are what a process exports.
func (w *world) families(admin string) map[string]*dto.MetricFamily {
	w.t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(w.metrics(admin)))
	if err != nil {
		w.t.Fatal(err)
	}
	return families
}

// series are the names of our own series with their labels, of all processes.
func (w *world) series() map[string]bool {
	w.t.Helper()
	all := map[string]bool{}
	for _, admin := range w.admins {
		for name, family := range w.families(admin) {
			if !strings.HasPrefix(name, "partnersync_") {
				continue
			}
			for _, m := range family.GetMetric() {
				one := name
				for _, l := range m.GetLabel() {
					one += fmt.Sprintf(" %s=%q", l.GetName(), l.GetValue())
				}
				all[one] = true
			}
		}
	}
	return all
}

// rhythm is how many webhooks come in a second: always the same, or as on a day with
// its ups and downs where a run is recorded.
func rhythm(began time.Time) func() float64 {
	return func() float64 {
		if *record == 0 {
			return 60
		}
		at := time.Since(began).Seconds() / record.Seconds()
		return 14 + 10*math.Sin(at*4*math.Pi) + 4*math.Sin(at*23*math.Pi)
	}
}

// troubles makes one trouble after the other within the given time.
func (w *world) troubles(span time.Duration) {
	rest := func(share float64) {
		timer := time.NewTimer(time.Duration(share * float64(span)))
		defer timer.Stop()
		select {
		case <-w.t.Context().Done():
		case <-timer.C:
		}
	}
	rest(0.2)
	for _, trouble := range []struct {
		fault string
		share float64
	}{
		{`{"dialect":"hubspot","effect":"none","latency":"700ms"}`, 0.1},
		{`{"dialect":"hubspot","effect":"throttle","policy":"TEN_SECONDLY_ROLLING","retry_after":"5","probability":0.3,"seed":1}`, 0.1},
		{`{"dialect":"hubspot","effect":"status","status":401}`, 0.1},
		{`{"dialect":"webhook","effect":"status","status":503}`, 0.2},
	} {
		end := w.fault(trouble.fault)
		rest(trouble.share)
		end()
		rest(0.06)
	}
	rest(0.06)
}
