package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
)

// event is a row of the events table.
type event struct {
	id         uuid.UUID
	typ        string
	entity     string
	occurredAt *time.Time
	versionAt  time.Time
	receivedAt time.Time
	rank       int16
	status     string
	body       []byte
}

// body is what any event of the shop may carry. A pointer tells blank from absent.
type body struct {
	Key         string  `json:"key,omitzero"`
	At          int64   `json:"at,omitzero"`
	Name        string  `json:"name,omitzero"`
	Amount      *int64  `json:"amount,omitzero"`
	Stage       string  `json:"stage,omitzero"`
	Description *string `json:"description,omitzero"`
	Partner     string  `json:"partner,omitzero"`
	Firm        string  `json:"firm,omitzero"`
	Deal        string  `json:"deal,omitzero"`
	Paid        *int64  `json:"paid,omitzero"`
	Text        string  `json:"text,omitzero"`
	Email       string  `json:"email,omitzero"`
}

// The types of the shop's events.
const (
	dealCreated = "deal.created"
	dealUpdated = "deal.updated"
	paymentMade = "payment.made"
	noteAdded   = "note.added"
	firmSaved   = "firm.saved"
	seatSaved   = "seat.saved"
	seatEnded   = "seat.ended"
	memberSaved = "member.saved"
)

// sinksOf are the sinks that an event goes to.
func sinksOf(typ string) []string {
	switch typ {
	case dealCreated, dealUpdated:
		return []string{"crm", "mirror", "office", "pipeline"}
	case seatSaved, seatEnded:
		return []string{"crm", "mirror", "office"}
	case noteAdded:
		return []string{"crm", "mirror"}
	case firmSaved:
		return []string{"crm", "office"}
	case paymentMade, memberSaved:
		return []string{"crm"}
	}
	return nil
}

// version orders events, by the design: time, then rank, then id.
type version struct {
	at   time.Time
	rank int16
	id   uuid.UUID
}

func (v version) compare(o version) int {
	return cmp.Or(v.at.Compare(o.at), cmp.Compare(v.rank, o.rank), bytes.Compare(v.id[:], o.id[:]))
}

// skew is how far the sender's clock may run ahead.
const skew = 2 * time.Minute

// versionOf works the version out from what was sent. For an event without a time, or with
// one that cannot be, it is the moment of its arrival, which the table alone knows.
func versionOf(e *event, b *body) (version, error) {
	v := version{at: e.versionAt, id: e.id}
	if e.typ == dealUpdated || e.typ == seatEnded {
		v.rank = 1
	}
	if b.At == 0 {
		if e.occurredAt != nil {
			return v, fmt.Errorf("event %s carries no time, but has one in the table", e.id)
		}
		return v, nil
	}
	if at := time.Unix(b.At, 0); !at.After(e.receivedAt.Add(skew)) {
		v.at = at
	} else if v.at.Before(e.receivedAt) || !v.at.Before(at) {
		return v, fmt.Errorf("event %s has the version %s in the table, want one between %s and %s", e.id, e.versionAt, e.receivedAt, at)
	}
	if !v.at.Equal(e.versionAt) || v.rank != e.rank {
		return v, fmt.Errorf("event %s has the version %s rank %d in the table, want %s rank %d", e.id, e.versionAt, e.rank, v.at, v.rank)
	}
	return v, nil
}

// place names a record of a CRM.
type place struct{ sink, object, key string }

func (p place) String() string { return p.sink + " " + p.object + " " + p.key }

// state is what the CRMs have to hold.
type state struct {
	records map[place]map[string]cell
	firms   map[place]cell             // of orders and seats: the firm that they are linked to
	members map[string]map[string]bool // of contacts, by e-mail: the keys that are this one person
	ended   map[place]version          // of seats: the newest event that has ended them
}

// cell is a value and who decides it.
type cell struct {
	value string // "" means blank
	by    version
}

// oracle works out what the CRMs have to hold after all these events, in whatever order they
// came. It knows the config's mappings by heart, and none of the code that carries them out.
func oracle(events []event) (state, error) {
	s := state{
		records: map[place]map[string]cell{}, firms: map[place]cell{}, members: map[string]map[string]bool{}, ended: map[place]version{},
	}
	for i := range events {
		e := &events[i]
		var b body
		if err := json.Unmarshal(e.body, &b); err != nil {
			return s, fmt.Errorf("event %s: %w", e.id, err)
		}
		v, err := versionOf(e, &b)
		if err != nil {
			return s, err
		}
		s.add(e.typ, &b, v)
	}
	for p, end := range s.ended {
		// The key comes with every event that wants the seat, so the newest of them decides it.
		if p.sink == "mirror" || end.compare(s.records[p]["seat_key"].by) > 0 {
			delete(s.records, p)
			delete(s.firms, p)
		}
	}
	return s, nil
}

func (s *state) add(typ string, b *body, v version) {
	order := place{"crm", "orders", cmp.Or(b.Key, b.Deal)}
	mirrored := place{"mirror", "orders", order.key}
	switch typ {
	case dealCreated, dealUpdated:
		if b.Key == "" {
			return // dead: a record without a key
		}
		s.set(order, "order_key", b.Key, v)
		s.set(order, "title", b.Name, v)
		s.set(order, "amount", number(b.Amount), v)
		s.set(order, "tier", b.Stage, v)
		s.set(order, "touched", typ, v)
		if b.Description != nil {
			s.put(order, "description", *b.Description, v) // blank clears
		}
		s.first(order, "first_partner", b.Partner, v)
		s.link(order, b.Firm, "last_order", v)
		s.set(mirrored, "order_key", b.Key, v)
		s.set(mirrored, "title", b.Name, v)
		s.set(mirrored, "tier", b.Stage, v)
		deal := place{"pipeline", "deals", b.Key}
		s.set(deal, orderProperty, b.Key, v)
		s.set(deal, "title", b.Name, v)
		s.set(deal, "origin_id", b.Stage, v)
		office := place{"office", "orders", b.Key}
		s.set(office, "order_key", b.Key, v)
		s.set(office, "title", b.Name, v)
		s.set(office, "tier", b.Stage, v)
		s.first(office, "first_partner", b.Partner, v)
		s.link(office, b.Firm, "last_order", v)
	case paymentMade:
		s.set(order, "order_key", b.Deal, v)
		s.set(order, "paid", number(b.Paid), v)
		s.set(order, "touched", typ, v)
	case noteAdded:
		s.set(order, "order_key", b.Deal, v)
		s.set(order, "note", b.Text, v)
		s.set(order, "touched", typ, v)
		s.set(mirrored, "order_key", b.Deal, v)
		s.set(mirrored, "note", b.Text, v)
	case firmSaved:
		for sink, field := range map[string]string{"crm": "name", "office": "title"} {
			firm := place{sink, "firms", b.Key}
			s.set(firm, "firm_key", b.Key, v)
			s.set(firm, field, b.Name, v)
		}
	case seatSaved, seatEnded:
		for _, sink := range sinksOf(typ) {
			s.seat(place{sink, "seats", b.Key}, typ, b, v)
		}
	case memberSaved:
		person := place{"crm", "contacts", b.Email}
		s.set(person, "email", b.Email, v)
		s.set(person, "firstname", b.Name, v)
		s.first(person, "jobtitle", b.Partner, v)
		if s.members[b.Email] == nil {
			s.members[b.Email] = map[string]bool{}
		}
		s.members[b.Email][b.Key] = true
	}
}

func (s *state) seat(p place, typ string, b *body, v version) {
	if typ == seatEnded {
		if v.compare(s.ended[p]) > 0 {
			s.ended[p] = v
		}
		return
	}
	s.set(p, "seat_key", b.Key, v)
	s.set(p, "title", b.Name, v)
	if p.sink == "mirror" {
		return
	}
	s.first(p, "first_partner", b.Partner, v)
	s.link(p, b.Firm, "last_seat", v)
}

// link is the one firm of a record, by the newest event that names one. The firm has the
// record's key in one of its fields.
func (s *state) link(p place, key, field string, v version) {
	if key == "" {
		return
	}
	if have, ok := s.firms[p]; !ok || v.compare(have.by) > 0 {
		s.firms[p] = cell{key, v}
	}
	firm := place{p.sink, "firms", key}
	s.set(firm, "firm_key", key, v)
	s.set(firm, field, p.key, v)
}

// set is a value that the newest event decides; an event without one decides nothing.
func (s *state) set(p place, field, value string, v version) {
	if value != "" {
		s.put(p, field, value, v)
	}
}

func (s *state) put(p place, field, value string, v version) {
	rec := s.record(p)
	if have, ok := rec[field]; !ok || v.compare(have.by) > 0 {
		rec[field] = cell{value, v}
	}
}

// first is a value that the oldest event decides.
func (s *state) first(p place, field, value string, v version) {
	if value == "" {
		return
	}
	rec := s.record(p)
	if have, ok := rec[field]; !ok || v.compare(have.by) < 0 {
		rec[field] = cell{value, v}
	}
}

func (s *state) record(p place) map[string]cell {
	if s.records[p] == nil {
		s.records[p] = map[string]cell{}
	}
	return s.records[p]
}

func number(n *int64) string {
	if n == nil {
		return ""
	}
	return strconv.FormatInt(*n, 10)
}

func sortedKeys[M ~map[K]V, K cmp.Ordered, V any](m M) []K { return slices.Sorted(maps.Keys(m)) }
