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
	at         time.Time // when it was stored
	annex      bool      // it has a route to the annex, which is not always in the config
}

// body is what any event of the shop may carry. A pointer tells blank from absent.
type body struct {
	Ref         string  `json:"ref,omitzero"` // no two that are drawn have the same
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
	tieMade     = "tie.made"
	tieCut      = "tie.cut"
	callMade    = "call.made"
	firmSaved   = "firm.saved"
	seatSaved   = "seat.saved"
	seatEnded   = "seat.ended"
	memberSaved = "member.saved"
)

// sinksOf are the sinks that an event goes to, but for the annex.
func sinksOf(typ string) []string {
	switch typ {
	case dealCreated, dealUpdated:
		return []string{"crm", "living", "mirror", "office", "pipeline"}
	case seatSaved, seatEnded:
		return []string{"crm", "mirror", "office"}
	case noteAdded:
		return []string{"crm", "mirror"}
	case firmSaved, tieCut:
		return []string{"crm", "office"}
	case paymentMade, memberSaved, tieMade, callMade:
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
	if e.typ == dealUpdated || e.typ == seatEnded || e.typ == tieCut {
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

// kind says what a claim is about.
type kind uint8

const (
	newest  kind = iota // a value that the newest event decides; "" blanks
	oldest              // a value that the oldest event decides
	tie                 // a link to a firm, beside others
	tieOnly             // a link to a firm, after which no older one is left
	untie               // no link to a firm
	ends                // the record is archived
	noted               // the record is made, once
)

// claim is what one event says of one place.
type claim struct {
	place place
	kind  kind
	field string
	value string // of links: the key of the firm
	by    version
}

// claims are all that an event says. They know the config's mappings by heart, and none of the
// code that carries them out.
func claims(e *event) ([]claim, error) {
	var b body
	if err := json.Unmarshal(e.body, &b); err != nil {
		return nil, fmt.Errorf("event %s: %w", e.id, err)
	}
	v, err := versionOf(e, &b)
	if err != nil {
		return nil, err
	}
	s := &says{by: v}
	s.event(e, &b)
	return s.list, nil
}

// says gathers the claims of an event.
type says struct {
	by   version
	list []claim
}

func (s *says) event(e *event, b *body) {
	order := place{"crm", "orders", cmp.Or(b.Key, b.Deal)}
	mirrored := place{"mirror", "orders", order.key}
	switch e.typ {
	case dealCreated, dealUpdated:
		if b.Key == "" {
			return // dead: a record without a key
		}
		s.set(order, "order_key", b.Key)
		s.set(order, "title", b.Name)
		s.set(order, "amount", number(b.Amount))
		s.set(order, "tier", b.Stage)
		s.set(order, "touched", e.typ)
		if b.Description != nil {
			s.put(order, newest, "description", *b.Description) // blank clears
		}
		s.first(order, "first_partner", b.Partner)
		s.firm(order, b.Firm, "last_order")
		s.set(mirrored, "order_key", b.Key)
		s.set(mirrored, "title", b.Name)
		s.set(mirrored, "tier", b.Stage)
		deal := place{"pipeline", "deals", b.Key}
		s.set(deal, orderProperty, b.Key)
		s.set(deal, "title", b.Name)
		s.set(deal, "origin_id", b.Stage)
		office := place{"office", "orders", b.Key}
		s.set(office, "order_key", b.Key)
		s.set(office, "title", b.Name)
		s.set(office, "tier", b.Stage)
		s.first(office, "first_partner", b.Partner)
		s.firm(office, b.Firm, "last_order")
		if e.annex {
			annexed := place{"annex", "orders", b.Key}
			s.set(annexed, "order_key", b.Key)
			s.set(annexed, "title", b.Name)
			s.set(annexed, "tier", b.Stage)
		}
	case paymentMade:
		s.set(order, "order_key", b.Deal)
		s.set(order, "paid", number(b.Paid))
		s.set(order, "touched", e.typ)
	case noteAdded:
		s.set(order, "order_key", b.Deal)
		s.set(order, "note", b.Text)
		s.set(order, "touched", e.typ)
		s.set(mirrored, "order_key", b.Deal)
		s.set(mirrored, "note", b.Text)
	case tieMade:
		s.set(order, "order_key", b.Deal)
		s.put(order, tie, "", b.Firm)
	case tieCut:
		for _, sink := range sinksOf(e.typ) {
			cut := place{sink, "orders", b.Deal}
			s.set(cut, "order_key", b.Deal)
			s.put(cut, untie, "", b.Firm)
		}
	case callMade:
		s.put(place{"crm", "notes", e.id.String()}, noted, "", "")
	case firmSaved:
		for sink, field := range map[string]string{"crm": "name", "office": "title"} {
			firm := place{sink, "firms", b.Key}
			s.set(firm, "firm_key", b.Key)
			s.set(firm, field, b.Name)
		}
	case seatSaved, seatEnded:
		for _, sink := range sinksOf(e.typ) {
			s.seat(place{sink, "seats", b.Key}, e.typ, b)
		}
	case memberSaved:
		person := place{"crm", "contacts", b.Email}
		s.set(person, "email", b.Email)
		s.set(person, "firstname", b.Name)
		s.first(person, "jobtitle", b.Partner)
	}
}

func (s *says) seat(p place, typ string, b *body) {
	if typ == seatEnded {
		s.put(p, ends, "", "")
		return
	}
	s.set(p, "seat_key", b.Key)
	s.set(p, "title", b.Name)
	if p.sink == "mirror" {
		return
	}
	s.first(p, "first_partner", b.Partner)
	s.firm(p, b.Firm, "last_seat")
}

// firm links a record with one firm, which has the record's key in one of its fields.
func (s *says) firm(p place, key, field string) {
	if key == "" {
		return
	}
	s.put(p, tieOnly, "", key)
	firm := place{p.sink, "firms", key}
	s.set(firm, "firm_key", key)
	s.set(firm, field, p.key)
}

// set is a value that the newest event decides; an event without one decides nothing.
func (s *says) set(p place, field, value string) {
	if value != "" {
		s.put(p, newest, field, value)
	}
}

// first is a value that the oldest event decides.
func (s *says) first(p place, field, value string) {
	if value != "" {
		s.put(p, oldest, field, value)
	}
}

func (s *says) put(p place, k kind, field, value string) {
	s.list = append(s.list, claim{p, k, field, value, s.by})
}

// state is what the CRMs have to hold.
type state struct {
	records map[place]map[string]cell
	links   map[place]map[string]version // of orders and seats: the firms that they are linked to
	members map[string]map[string]bool   // of contacts, by e-mail: the keys that are this one person
	ended   map[place]version            // of seats: the newest event that has ended them
}

// cell is a value and who decides it.
type cell struct {
	value string // "" means blank
	by    version
}

// oracle works out what the CRMs have to hold after all these events, in whatever order they came.
func oracle(events []event) (state, error) {
	s := state{
		records: map[place]map[string]cell{}, links: map[place]map[string]version{}, members: map[string]map[string]bool{}, ended: map[place]version{},
	}
	said := map[place]map[string]claim{} // of each link, what the newest event says
	only := map[place]version{}          // of the newest event after which no older link is left
	for i := range events {
		list, err := claims(&events[i])
		if err != nil {
			return s, err
		}
		for _, c := range list {
			s.fold(c, said, only)
		}
		if events[i].typ == memberSaved {
			var b body
			_ = json.Unmarshal(events[i].body, &b) // claims has read it
			if s.members[b.Email] == nil {
				s.members[b.Email] = map[string]bool{}
			}
			s.members[b.Email][b.Key] = true
		}
	}
	for p, links := range said {
		for firm, c := range links {
			if c.kind == untie || c.by.compare(only[p]) < 0 {
				continue
			}
			if s.links[p] == nil {
				s.links[p] = map[string]version{}
			}
			s.links[p][firm] = c.by
		}
	}
	for p, end := range s.ended {
		// The key comes with every event that wants the seat, so the newest of them decides it.
		if p.sink == "mirror" || end.compare(s.records[p]["seat_key"].by) > 0 {
			delete(s.records, p)
			delete(s.links, p)
		}
	}
	return s, nil
}

func (s *state) fold(c claim, said map[place]map[string]claim, only map[place]version) {
	switch c.kind {
	case newest, oldest:
		if s.records[c.place] == nil {
			s.records[c.place] = map[string]cell{}
		}
		have, ok := s.records[c.place][c.field]
		order := c.by.compare(have.by)
		if c.kind == oldest {
			order = -order
		}
		if !ok || order > 0 {
			s.records[c.place][c.field] = cell{c.value, c.by}
		}
	case tie, tieOnly, untie:
		if said[c.place] == nil {
			said[c.place] = map[string]claim{}
		}
		if have, ok := said[c.place][c.value]; !ok || c.by.compare(have.by) > 0 {
			said[c.place][c.value] = c
		}
		if c.kind == tieOnly && c.by.compare(only[c.place]) > 0 {
			only[c.place] = c.by
		}
	case ends:
		if c.by.compare(s.ended[c.place]) > 0 {
			s.ended[c.place] = c.by
		}
	}
}

func number(n *int64) string {
	if n == nil {
		return ""
	}
	return strconv.FormatInt(*n, 10)
}

func sortedKeys[M ~map[K]V, K cmp.Ordered, V any](m M) []K { return slices.Sorted(maps.Keys(m)) }
