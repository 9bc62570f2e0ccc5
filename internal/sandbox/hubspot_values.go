package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	emailProperty     = "email"
	lifecycleProperty = "lifecyclestage"
	hubspotKey        = "hs_object_id"
)

// hubspotLifecycle is the order in which a lifecycle stage moves, and never back.
func hubspotLifecycle() []string {
	return []string{
		"subscriber", "lead", "marketingqualifiedlead", "salesqualifiedlead", "opportunity", "customer", "evangelist", "other",
	}
}

// stageProperties are the names of an object's pipeline and stage properties.
func stageProperties(object string) (pipeline, stage string) {
	if object == "deals" {
		return "pipeline", "dealstage"
	}
	return "hs_pipeline", "hs_pipeline_stage"
}

// check normalises the values of one row in place and collects what is refused. target is nil for a record to be made.
func (h *hubspot) check(t *table, target *record, values pairs) []invalidValue {
	var refused []invalidValue
	for i := range values {
		v := &values[i]
		p := t.properties[v.name]
		if p == nil {
			refused = append(refused, unknownProperty(v.name))
			continue
		}
		if p.ReadOnly {
			refused = append(refused, invalidValue{
				v.name, "READ_ONLY_VALUE", fmt.Sprintf("%q is a read only property; its value cannot be set.", v.name),
			})
			continue
		}
		if v.value == "" {
			continue
		}
		if bad := h.checkValue(t, target, p, v); bad != nil {
			refused = append(refused, *bad)
		}
	}
	return append(refused, h.checkStage(t, target, values)...)
}

// checkValue normalises one value by the type of its property.
func (h *hubspot) checkValue(t *table, target *record, p *Property, v *pair) *invalidValue {
	switch p.Type {
	case "number":
		if _, err := strconv.ParseFloat(v.value, 64); err != nil {
			return &invalidValue{p.Name, "INVALID_INTEGER", v.value + " was not a valid number"}
		}
	case "bool":
		if v.value != "true" && v.value != "false" {
			return invalidOption(p.Name, v.value, []string{"true", "false"})
		}
	case "date":
		at, ok := parseTime(v.value)
		if !ok {
			return &invalidValue{p.Name, "INVALID_DATE", v.value + " was not a valid date"} // the text is assumed
		}
		v.value = at.UTC().Format(time.DateOnly)
	case "datetime":
		at, ok := parseTime(v.value)
		if !ok {
			return &invalidValue{p.Name, "INVALID_LONG", v.value + " was not a valid long."}
		}
		v.value = at.UTC().Format(hubspotTime)
	case "enumeration":
		return checkOption(target, p, v)
	default:
		if p.Name == emailProperty && t.object == "contacts" {
			v.value = strings.ToLower(strings.TrimSpace(v.value))
			if !plausibleEmail(v.value) {
				return &invalidValue{p.Name, "INVALID_EMAIL", "Email address " + v.value + " is invalid"}
			}
		}
	}
	return nil
}

// checkStage holds a stage against the pipeline that the record is in or moves to.
func (h *hubspot) checkStage(t *table, target *record, values pairs) []invalidValue {
	if len(t.pipelines) == 0 {
		return nil
	}
	pipelineName, stageName := stageProperties(t.object)
	id, moves := values.get(pipelineName)
	if id == "" && target != nil {
		id = text(target.properties[pipelineName])
	}
	if id == "" {
		id = t.pipelines[0].ID
	}
	i := slices.IndexFunc(t.pipelines, func(p Pipeline) bool { return p.ID == id })
	if i < 0 {
		if !moves {
			return nil
		}
		var ids []string
		for _, p := range t.pipelines {
			ids = append(ids, p.ID)
		}
		return []invalidValue{*invalidOption(pipelineName, id, ids)}
	}
	stage, set := values.get(stageName)
	if !set || stage == "" {
		return nil
	}
	var ids []string
	for _, s := range t.pipelines[i].Stages {
		if s.ID == stage {
			return nil
		}
		ids = append(ids, s.ID)
	}
	return []invalidValue{*invalidOption(stageName, stage, ids)}
}

// checkRequired says what a new record lacks. 2026-09 also enforces what an administrator made required.
func (h *hubspot) checkRequired(t *table, version string, values pairs) *problem {
	has := func(name string) bool {
		value, _ := values.get(name)
		return value != ""
	}
	oneOf := func(names ...string) []string {
		if slices.ContainsFunc(names, has) {
			return nil
		}
		return names
	}
	var lacks []string
	all := func(names ...string) {
		for _, name := range names {
			if !has(name) && !slices.Contains(lacks, name) {
				lacks = append(lacks, name)
			}
		}
	}
	switch t.object {
	case "contacts":
		lacks = oneOf(emailProperty, "firstname", "lastname")
	case "companies":
		lacks = oneOf("name", "domain")
	case "deals":
		all("dealname", "dealstage")
		if len(t.pipelines) > 1 {
			all("pipeline")
		}
	case "tickets":
		all("subject", "hs_pipeline_stage")
	case "notes", "tasks":
		all("hs_timestamp")
	case "leads":
		all("hs_lead_name")
	}
	if version == hubspotStrict {
		for _, name := range t.names {
			if t.properties[name].Required {
				all(name)
			}
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	p := validation("Error creating %s. Some required properties were not set.", h.title(t))
	p.context = map[string][]string{"properties": lacks}
	return p
}

// owner is who holds, or in this batch is about to hold, a unique value: a record, or the row that will make one.
type owner struct {
	record *record
	row    int
}

type claim struct{ property, value string }

// checkUnique refuses a value that another record or an earlier row of the batch holds, and claims the values for this row.
func (h *hubspot) checkUnique(t *table, me owner, values pairs, claims map[claim]owner) *problem {
	if me.record != nil {
		me.row = -1
	}
	mine := make([]claim, 0, 4)
	for _, v := range values {
		if v.value == "" || t.unique[v.name] == nil {
			continue
		}
		c := claim{v.name, strings.ToLower(v.value)}
		if other := t.find(v.name, v.value); other != nil && other != me.record {
			return h.taken(t, v, other.id)
		}
		if other, claimed := claims[c]; claimed && other != me {
			return h.taken(t, v, "")
		}
		mine = append(mine, c)
	}
	for _, c := range mine {
		claims[c] = me
	}
	return nil
}

func (h *hubspot) taken(t *table, v pair, by string) *problem {
	if v.name == emailProperty && t.object == "contacts" {
		message := "Contact already exists"
		if by != "" {
			message += ". Existing ID: " + by
		}
		return &problem{status: http.StatusConflict, category: "CONFLICT", message: message}
	}
	// HubSpot's text names the holder in Java's notation; only the code is relied on in the field.
	return invalidValues([]invalidValue{{
		v.name, "CONFLICTING_UNIQUE_VALUE", fmt.Sprintf("Cannot set %q. %s already has that value.", v.name, by),
	}})
}

// checkOption holds a value against the options. A checkbox takes several, and adds to what it has after a leading ";".
func checkOption(target *record, p *Property, v *pair) *invalidValue {
	if len(p.Options) == 0 {
		return nil
	}
	options := slices.Concat(p.Options, p.Retired) // assumed: a hidden one is not shown, but taken
	if p.FieldType != "checkbox" && !p.Multiple {
		if !slices.Contains(options, v.value) {
			return invalidOption(p.Name, v.value, p.Options)
		}
		return nil
	}
	chosen, appends := strings.CutPrefix(v.value, ";")
	var kept []string
	if appends && target != nil && target.properties[p.Name] != nil {
		kept = strings.Split(text(target.properties[p.Name]), ";")
	}
	for option := range strings.SplitSeq(chosen, ";") {
		if !slices.Contains(options, option) {
			return invalidOption(p.Name, option, p.Options)
		}
		if !slices.Contains(kept, option) {
			kept = append(kept, option)
		}
	}
	v.value = strings.Join(kept, ";")
	return nil
}

func invalidOption(name, value string, allowed []string) *invalidValue {
	return &invalidValue{
		name, "INVALID_OPTION", fmt.Sprintf("%s was not one of the allowed options: [%s]", value, strings.Join(allowed, ", ")),
	}
}

// parseTime takes Unix milliseconds, a date, or a date with time and zone.
func parseTime(s string) (time.Time, bool) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.UnixMilli(ms), true
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func plausibleEmail(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && local != "" && strings.Contains(strings.Trim(domain, "."), ".") && !strings.ContainsAny(domain, "@") &&
		!strings.ContainsAny(s, " \t\r\n,;<>\"")
}
