package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"partnersync/internal/ledger"
	"partnersync/records"
)

// memory is a ledger for histories that are played by the thousand: one sink, with the fence, the
// revisions and the announcements of the real one, whose laws its own tests hold.
type memory struct {
	mu         sync.Mutex
	epoch      int64
	routes     []*ledger.Route // open and closed, in the order of their versions
	ends       map[uuid.UUID]ledger.Outcome
	deliveries map[progressKey]*ledger.Delivery
	records    map[uuid.UUID]*records.Record
	keys       map[records.Key]uuid.UUID
	announced  map[uuid.UUID]*intent
	twice      bool // some route was closed a second time
}

type progressKey struct {
	event                uuid.UUID
	mapping, object, key string
}

type intent struct {
	keys  []records.Key
	until time.Time
}

func newMemory() *memory {
	return &memory{
		ends: map[uuid.UUID]ledger.Outcome{}, deliveries: map[progressKey]*ledger.Delivery{},
		records: map[uuid.UUID]*records.Record{}, keys: map[records.Key]uuid.UUID{}, announced: map[uuid.UUID]*intent{},
	}
}

// acquire gives the sink to a new owner, with what the former may still be writing.
func (m *memory) acquire() (ledger.Lease, []ledger.Announcement) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	var announced []ledger.Announcement
	for _, a := range m.announced {
		left := ledger.Announcement{Left: time.Until(a.until)}
		for _, k := range a.keys {
			left.Records = append(left.Records, k.Object+"\x1f"+k.Property+"\x1f"+k.Key)
		}
		announced = append(announced, left)
	}
	return ledger.Lease{Sink: "crm", Epoch: m.epoch}, announced
}

// covers reports whether something is announced.
func (m *memory) covers() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.announced {
		if !time.Now().After(a.until) {
			return true
		}
	}
	return false
}

func (m *memory) open() []uuid.UUID {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []uuid.UUID
	for _, r := range m.routes {
		if m.ends[r.Event] == ledger.Open {
			ids = append(ids, r.Event)
		}
	}
	return ids
}

func (m *memory) Routes(_ context.Context, _ string, events []uuid.UUID) ([]*ledger.Route, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []*ledger.Route
	for _, r := range m.routes {
		if !slices.Contains(events, r.Event) || m.ends[r.Event] != ledger.Open {
			continue
		}
		c := *r
		for at, d := range m.deliveries {
			if at.event == r.Event {
				c.Deliveries = append(c.Deliveries, *d)
			}
		}
		list = append(list, &c)
	}
	return list, nil
}

func (m *memory) Records(_ context.Context, _ string, keys []records.Key) (map[records.Key]*records.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := map[records.Key]*records.Record{}
	byID := map[uuid.UUID]*records.Record{}
	for _, k := range keys {
		id, known := m.keys[k]
		if !known {
			continue
		}
		if byID[id] == nil {
			byID[id] = m.records[id].Clone()
		}
		found[k] = byID[id]
	}
	return found, nil
}

func (m *memory) Met(_ context.Context, _, object string, crmIDs []string) (map[string]ledger.Met, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := map[string]ledger.Met{}
	for k, id := range m.keys {
		if r := m.records[id]; r.Object == object && r.CRMID != "" && slices.Contains(crmIDs, r.CRMID) {
			found[r.CRMID] = ledger.Met{ID: id, Keys: append(found[r.CRMID].Keys, k)}
		}
	}
	return found, nil
}

func (m *memory) Announce(_ context.Context, lease ledger.Lease, id uuid.UUID, keys []records.Key, hold time.Duration, intended ...*records.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lease.Epoch != m.epoch {
		return ledger.ErrFenced
	}
	if err := m.store(intended); err != nil {
		return err
	}
	m.announced[id] = &intent{slices.Clone(keys), time.Now().Add(hold)}
	return nil
}

// store writes records over the revisions that they were read in, all or none.
func (m *memory) store(list []*records.Record) error {
	for _, r := range list {
		have := m.records[r.ID]
		if have != nil && have.Revision != r.Revision {
			return ledger.ErrSurpassed
		}
		if _, known := m.keys[records.Key{Object: r.Object, Property: r.Property, Key: r.Key}]; have == nil && known {
			return errors.New("the key is there")
		}
	}
	for _, r := range list {
		c := r.Clone()
		c.Revision++
		if c.New {
			m.keys[records.Key{Object: r.Object, Property: r.Property, Key: r.Key}] = r.ID
		}
		c.New = false
		m.records[r.ID] = c
	}
	return nil
}

func (m *memory) Write(_ context.Context, lease ledger.Lease, report *ledger.Report) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lease.Epoch != m.epoch && (len(report.Records) > 0 || len(report.Closings) > 0 || len(report.Deliveries) > 0 || report.Announced != uuid.Nil) {
		return ledger.ErrFenced
	}
	if err := m.store(report.Records); err != nil {
		return err
	}
	for _, g := range report.Merges {
		maps.DeleteFunc(m.records, func(id uuid.UUID, _ *records.Record) bool { return id == g.From })
		for k, id := range m.keys {
			if id == g.From {
				m.keys[k] = g.Into
			}
		}
		if _, known := m.keys[g.Key]; !known {
			m.keys[g.Key] = g.Into
		}
	}
	for _, d := range report.Deliveries {
		at := progressKey{d.Event, d.Mapping, d.Object, d.Key}
		if have := m.deliveries[at]; have == nil || have.Outcome == ledger.Open {
			m.deliveries[at] = &d
		}
	}
	for _, c := range report.Closings {
		m.twice = m.twice || m.ends[c.Event] != ledger.Open
		m.ends[c.Event] = c.Outcome
	}
	if a := m.announced[report.Announced]; a != nil {
		if len(report.InDoubt) > 0 {
			a.keys, a.until = slices.Clone(report.InDoubt), time.Now().Add(report.Settle)
		} else {
			delete(m.announced, report.Announced)
		}
	}
	for _, r := range report.Records {
		r.Revision++
	}
	return nil
}

func (m *memory) Account(_ context.Context, _, account string) (string, error) { return account, nil }

func (m *memory) Renumbered(_ context.Context, generation int64) (int64, error) {
	return generation, nil
}

func (m *memory) SinkState(context.Context, string) (ledger.SinkState, error) {
	return ledger.SinkState{State: ready}, nil
}
func (m *memory) SetSinkState(context.Context, string, ledger.SinkState) error { return nil }
func (m *memory) Wake(context.Context, string) (int64, error)                  { return 0, nil }

// String tells what is stored, for failures.
func (m *memory) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	text := ""
	for k, id := range m.keys {
		r := m.records[id]
		text += fmt.Sprintf("%s=%s is %q %s\n", k.Property, k.Key, r.CRMID, r.Presence)
		for name, f := range r.Fields {
			text += fmt.Sprintf("  %s %v acked %v\n", name, f.Wanted.Go, f.AckedAt == f.Version)
		}
		for _, l := range r.Links {
			text += fmt.Sprintf("  link %s want %d have %d verdict %d\n", l.Key, l.Want, l.Have, l.Verdict)
		}
	}
	for _, r := range m.routes {
		text += fmt.Sprintf("%s: %q\n", r.Event, m.ends[r.Event])
	}
	return text
}

// Nobody observes in these tests.
func (m *memory) Imagined(context.Context, string, []records.Key) (map[records.Key]*records.Record, error) {
	return nil, nil
}

// Nor is anybody guarded.
func (m *memory) Guard(context.Context, string, ledger.Guarded) error { return nil }

func (m *memory) DropShadow(context.Context, string) error { return nil }
