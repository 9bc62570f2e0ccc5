package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"partnersync/internal/sandbox"
)

// What the config says of every CRM.
const (
	crmTimeout = 2 * time.Second
	crmSettle  = 1500 * time.Millisecond
	findLag    = 1500 * time.Millisecond // the sandbox lags somewhat less
)

const crmToken = "token-of-the-crm"

// orderProperty is the property of our key where the CRM calls properties by forty characters.
const orderProperty = "0123456789abcdef0123456789abcdef01234567"

// firmField is the field that links a record with its firm where the CRM keeps links so.
const firmField = "firm__c"

// crm is one CRM, with what has been asked of it.
type crm struct {
	sink    string // that writes to it
	dialect string
	box     *sandbox.Server
	server  *http.Server
	url     string

	journal []write // all that the CRM has ever changed, in its order; the sandbox guards it

	mu       sync.Mutex
	faults   []func() // what lifts them
	under    int      // requests under way
	requests int      // that write
	failed   int      // of these, those without a 2xx
	rows     int      // rows written
	sent     map[row][]sending
	unsure   map[string]bool // notes of which a create had no clear answer, by their bodies
	wrote    []time.Time     // when requests that write came in
	worst    time.Duration   // how much later than it may a request took effect; negative where none did
}

func newCRM(sink, dialect string) (*crm, error) {
	c := &crm{sink: sink, dialect: dialect, sent: map[row][]sending{}, unsure: map[string]bool{}, worst: -time.Hour}
	text := func(names ...string) []sandbox.Property {
		var list []sandbox.Property
		for _, name := range names {
			list = append(list, sandbox.Property{Name: name})
		}
		return list
	}
	orders := append(text("title", "description", "first_partner", "paid", "note", "touched"),
		sandbox.Property{Name: "order_key", Unique: true}, sandbox.Property{Name: "amount", Type: "number"},
		sandbox.Property{Name: "tier", Type: "enumeration", Options: tiers()})
	c.box = sandbox.New(sandbox.Options{Token: crmToken, Lag: findLag * 2 / 3, Watch: c.note, Custom: map[string][]sandbox.Property{
		"hubspot/orders":   orders,
		"hubspot/firms":    append(text("name", "last_order", "last_seat"), sandbox.Property{Name: "firm_key", Unique: true}),
		"hubspot/seats":    append(text("title", "first_partner"), sandbox.Property{Name: "seat_key", Unique: true}),
		"hubspot/contacts": {{Name: "member_key", Unique: true}},
		"hubspot/companies": {{Name: "shop_key", Unique: true}, {Name: "phase"},
			{Name: "tags", Type: "enumeration", FieldType: "checkbox", Options: append(tiers(), salesTag)}},
		"pipedrive/deals": text(orderProperty),
		"salesforce/orders": append(text("title", "tier", "first_partner"), sandbox.Property{Name: "order_key", Unique: true},
			sandbox.Property{Name: firmField, Type: "lookup", Target: "firms"}),
		"salesforce/firms": append(text("title", "last_order", "last_seat"), sandbox.Property{Name: "firm_key", Unique: true}),
		"salesforce/seats": append(text("title", "first_partner"), sandbox.Property{Name: "seat_key", Unique: true},
			sandbox.Property{Name: firmField, Type: "lookup", Target: "firms"}),
	}})
	if sink == living {
		c.enter()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("a CRM: %w", err)
	}
	c.url = "http://" + l.Addr().String() + "/" + dialect
	c.server = &http.Server{Handler: c}
	go func() { _ = c.server.Serve(l) }() // until close
	return c, nil
}

// note writes the journal.
func (c *crm) note(change sandbox.Change) {
	c.journal = append(c.journal, write{time.Now(), change})
}

// close ends what is under way.
func (c *crm) close() error {
	c.box.Reset()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(c.server.Shutdown(ctx), c.server.Close())
}

// fail lets requests go wrong until the returned function is called.
func (c *crm) fail(s step) (heal func()) {
	f := sandbox.Fault{Probability: s.chance, Seed: s.seed, Latency: s.latency}
	switch s.do {
	case throttle:
		f.Effect, f.RetryAfter = sandbox.EffectThrottle, "1"
	case unavailable:
		f.Effect, f.Status = sandbox.EffectStatus, http.StatusServiceUnavailable
	case lie:
		f.Effect, f.Status, f.Apply = sandbox.EffectStatus, http.StatusServiceUnavailable, true
	case slow, hang:
		f.Effect = sandbox.EffectNone
	case cut:
		f.Effect = sandbox.EffectReset
	case lose:
		f.Effect, f.Apply = sandbox.EffectReset, true
	case truncate:
		f.Effect = sandbox.EffectTruncate
	case late:
		f.Effect, f.Status = sandbox.EffectLate, http.StatusGatewayTimeout
	}
	lift := c.box.Fault(f)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, lift)
	return lift
}

// heal lets nothing go wrong any more.
func (c *crm) heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, lift := range c.faults {
		lift()
	}
	c.faults = nil
}

// ServeHTTP notes each request on its way to the sandbox.
func (c *crm) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	body, err := io.ReadAll(io.LimitReader(r.Body, 32<<20))
	if err != nil {
		return // the sender is gone
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	writes := r.Method != http.MethodGet && !strings.HasSuffix(r.URL.Path, "/read") && !strings.HasSuffix(r.URL.Path, "/search") &&
		!strings.HasSuffix(r.URL.Path, "/token")
	rows := rowsOf(r.URL.Path, body)
	a := &answered{ResponseWriter: w}
	c.mu.Lock()
	c.under++
	if writes {
		c.wrote = append(c.wrote, time.Now()) // in this order, whatever came in first
	}
	c.mu.Unlock()
	defer func() {
		ended := time.Now()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.under--
		// A request may take effect for so long after the sender has its answer, or has given up.
		may := begun.Add(crmTimeout)
		if !a.at.IsZero() && a.at.Before(may) {
			may = a.at
		}
		c.worst = max(c.worst, ended.Sub(may)-crmSettle)
		if !writes {
			return
		}
		c.requests++
		c.rows += len(rows)
		taken := a.whole && a.status >= 200 && a.status <= 299 && a.status != http.StatusMultiStatus
		clear := taken && ended.Sub(begun) < crmTimeout/2 // who waits has begun to before us, and reads it after
		for _, r := range rows {
			c.sent[r] = append(c.sent[r], sending{begun, clear})
			if r.note != "" && !clear {
				c.unsure[r.note] = true
			}
		}
		if !taken {
			c.failed++
		}
	}()
	c.box.ServeHTTP(a, r)
	a.whole = true
}

// row is one of a batch: the same hash means the same row for the same events.
type row struct {
	hash   uint64
	event  [36]byte // the one that the row tells
	object string
	id     string // the CRM's, or "" where the row has
	key    string // ours
	note   string // the body, of a note
}

// sending is one time that a row was sent.
type sending struct {
	at    time.Time
	clear bool // the answer left no doubt
}

func rowsOf(path string, body []byte) []row {
	object, _, _ := strings.Cut(path, "/batch/")
	object = object[strings.LastIndex(object, "/")+1:]
	var batch struct {
		Inputs []struct {
			ID         string            `json:"id"`
			Property   string            `json:"idProperty"`
			Trace      string            `json:"objectWriteTraceId"`
			Properties map[string]string `json:"properties"`
		} `json:"inputs"`
	}
	if json.Unmarshal(body, &batch) != nil {
		return nil
	}
	var rows []row
	for _, in := range batch.Inputs {
		if in.Trace == "" {
			continue
		}
		h := fnv.New64a()
		_, _ = io.WriteString(h, in.Trace) // never fails
		for _, name := range sortedKeys(in.Properties) {
			fmt.Fprintf(h, "\x00%s=%s", name, in.Properties[name])
		}
		r := row{hash: h.Sum64(), object: object, id: in.ID, note: in.Properties["hs_note_body"]}
		if in.Property != "" {
			r.id, r.key = "", in.ID
		} else if r.note != "" {
			r.key = r.note
		}
		copy(r.event[:], in.Trace)
		rows = append(rows, r)
	}
	return rows
}

// answered notes when the answer began, and its status.
type answered struct {
	http.ResponseWriter
	status int
	at     time.Time
	whole  bool // it was not broken off
}

// Unwrap lets the sandbox reach the connection, which it cuts.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answered) WriteHeader(status int) {
	if a.at.IsZero() {
		a.status, a.at = status, time.Now()
	}
	a.ResponseWriter.WriteHeader(status)
}

// firstWrite is when somebody first asked the CRM to write something after a moment; zero
// while nobody has.
func (c *crm) firstWrite(after time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, _ := slices.BinarySearchFunc(c.wrote, after, time.Time.Compare)
	if at == len(c.wrote) {
		return time.Time{}
	}
	return c.wrote[at]
}

// busy reports whether a request is under way.
func (c *crm) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.under > 0
}

// records are the live ones of an object by the text of a property.
func (c *crm) records(object, property string) map[string][]sandbox.Record {
	out := map[string][]sandbox.Record{}
	for _, r := range c.box.Records(c.dialect, object) {
		key := textOf(r.Properties[property])
		out[key] = append(out[key], r)
	}
	return out
}

// links are those of an object's records with firms, by their keys.
func (c *crm) links(object, property string) map[string][]string {
	name := func(object, property string) map[string]string {
		names := map[string]string{}
		for key, list := range c.records(object, property) {
			for _, r := range list {
				names[r.ID] = key
			}
		}
		return names
	}
	keys, firms := name(object, property), name("firms", "firm_key")
	out := map[string][]string{}
	tie := func(id, firm string) {
		if key, ok := keys[id]; ok && !slices.Contains(out[key], firms[firm]) {
			out[key] = append(out[key], firms[firm])
		}
	}
	for _, r := range c.box.Records(c.dialect, object) {
		if id := textOf(r.Properties[firmField]); id != "" {
			tie(r.ID, id)
		}
	}
	for _, l := range c.box.Links(c.dialect) {
		switch {
		case l.FromObject == object && l.ToObject == "firms":
			tie(l.FromID, l.ToID)
		case l.ToObject == object && l.FromObject == "firms":
			tie(l.ToID, l.FromID)
		}
	}
	return out
}

func textOf(v any) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}
