package sandbox

import (
	"slices"
	"strings"
)

const (
	hubspotDefined = "HUBSPOT_DEFINED"
	userDefined    = "USER_DEFINED"
	primaryLabel   = "Primary"
)

// associationType is one way to tie two objects. The inverse is its number seen from the other end.
type associationType struct {
	from, to    string
	id, inverse int
	category    string
	label       string
}

// hubspotAssociations are the types with fixed numbers, each once. The first of a pair is its default. A primary company is
// one of a record's companies; naming another takes the title from the former.
func hubspotAssociations() []associationType {
	return []associationType{
		{"contacts", "companies", 279, 280, hubspotDefined, ""},
		{"contacts", "companies", 1, 2, hubspotDefined, primaryLabel},
		{"deals", "contacts", 3, 4, hubspotDefined, ""},
		{"deals", "companies", 341, 342, hubspotDefined, ""},
		{"deals", "companies", 5, 6, hubspotDefined, primaryLabel},
		{"tickets", "contacts", 16, 15, hubspotDefined, ""},
		{"tickets", "companies", 339, 340, hubspotDefined, ""},
		{"tickets", "companies", 26, 25, hubspotDefined, primaryLabel},
		{"tickets", "deals", 28, 27, hubspotDefined, ""},
		// The numbers of the other direction are assumed.
		{"leads", "contacts", 608, 609, hubspotDefined, ""},
		{"leads", "contacts", 578, 579, hubspotDefined, primaryLabel},
		{"leads", "companies", 610, 611, hubspotDefined, ""},
		{"leads", "companies", 580, 581, hubspotDefined, primaryLabel},
		{"leads", "deals", 1037, 1036, hubspotDefined, ""},
		{"notes", "leads", 855, 854, hubspotDefined, ""},
		{"tasks", "leads", 647, 646, hubspotDefined, ""},
		{"notes", "contacts", 202, 201, hubspotDefined, ""},
		{"notes", "companies", 190, 189, hubspotDefined, ""},
		{"notes", "deals", 214, 213, hubspotDefined, ""},
		{"notes", "tickets", 228, 227, hubspotDefined, ""},
		{"tasks", "contacts", 204, 203, hubspotDefined, ""},
		{"tasks", "companies", 192, 191, hubspotDefined, ""},
		{"tasks", "deals", 216, 215, hubspotDefined, ""},
		{"tasks", "tickets", 230, 229, hubspotDefined, ""},
	}
}

func (h *hubspot) checkType(from, to *table, spec associationSpec) (associationType, *problem) {
	for _, t := range h.types(from, to) {
		if t.id == spec.TypeID && t.category == spec.Category {
			return t, nil
		}
	}
	return associationType{}, validation("association type id %d doesn't exist between %s and %s",
		spec.TypeID, strings.ToLower(h.title(from)), strings.ToLower(h.title(to)))
}

// types are all ways to tie two objects, as seen from the first. The caller holds the store.
func (h *hubspot) types(from, to *table) []associationType {
	var out []associationType
	for _, t := range slices.Concat(hubspotAssociations(), h.labels) {
		if t.from == from.object && t.to == to.object {
			out = append(out, t)
		} else if t.from == to.object && t.to == from.object {
			out = append(out, t.swap())
		}
	}
	if len(out) == 0 || out[0].category == userDefined {
		// A portal gives pairs of its custom objects numbers of its own.
		f, t := slices.Index(h.store.tables, from), slices.Index(h.store.tables, to)
		own := associationType{from.object, to.object, 1000 + 100*f + t, 1000 + 100*t + f, userDefined, ""}
		if h.singular(from) != "" && h.singular(to) != "" {
			own.category = hubspotDefined
		}
		out = slices.Insert(out, 0, own)
	}
	return out
}

func (h *hubspot) defaultType(from, to *table) associationType { return h.types(from, to)[0] }

func (t associationType) swap() associationType {
	t.from, t.to, t.id, t.inverse = t.to, t.from, t.inverse, t.id
	return t
}

func (t associationType) link(fromID, toID string) Link {
	return Link{
		Dialect: hubspotName, FromObject: t.from, FromID: fromID, ToObject: t.to, ToID: toID,
		Category: t.category, TypeID: t.id, Label: t.label,
	}
}

func (t associationType) result() typeResult {
	r := typeResult{Category: t.category, TypeID: t.id}
	if t.label != "" {
		r.Label = &t.label
	}
	return r
}

// results are both directions of a default link.
func (t associationType) results(fromID, toID string) []defaultResult {
	return []defaultResult{
		{idOnly{fromID}, idOnly{toID}, associationSpec{t.category, t.id}},
		{idOnly{toID}, idOnly{fromID}, associationSpec{t.category, t.inverse}},
	}
}

// tie makes a link as a person would; the caller holds the store.
func (h *hubspot) tie(from *table, id string, to *table, toID, label string) {
	for _, t := range h.types(from, to) {
		if label == "" || t.label == label {
			h.connect(t.link(id, toID))
			return
		}
	}
}

func (h *hubspot) labelled(from, to, label string) bool {
	return slices.ContainsFunc(slices.Concat(hubspotAssociations(), h.labels), func(t associationType) bool {
		return t.label == label && (t.from == from && t.to == to || t.from == to && t.to == from)
	})
}
