package grafana

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Dashboards returns all dashboards, the one to begin with first.
func Dashboards() []Dashboard {
	return []Dashboard{overview(), receiver(), sinks(), queue(), mappings()}
}

// The dashboards, and what each is for.
var pages = []struct{ uid, title, description string }{
	{"partnersync-overview", "partnersync: Overview", "What partners' events have become: what has come in, what each CRM has, what is waiting, and what needs somebody."},
	{"partnersync-receiver", "partnersync: Receiver", "Webhooks on their way in: who sends what, how it is answered, and how it is stored."},
	{"partnersync-sinks", "partnersync: Sinks", "Deliveries on their way out: the state of each sink, how its CRM answers, and what it refuses."},
	{"partnersync-queue", "partnersync: Queue and Postgres", "What waits and for how long, whether every event is accounted for, and the health of the database."},
	{"partnersync-mappings", "partnersync: Mappings and payload drift", "What the config makes of events: mappings that fail, values that tables lack, payloads that have changed."},
}

var prometheus = Datasource{Type: "prometheus", UID: "${datasource}"}

// width of Grafana's grid.
const width = 24

// row is a heading and the panels below it.
type row struct {
	title  string
	panels []Panel
}

// dashboard lays out rows below each other. More is the variables that this one
// has besides those of all.
func dashboard(uid string, more []Variable, rows ...row) Dashboard {
	d := Dashboard{
		UID: uid, Tags: []string{"partnersync"}, Timezone: "browser", GraphTooltip: 1, Refresh: "30s", SchemaVersion: 39,
		Time: TimeRange{"now-6h", "now"}, Templating: Templating{append(variables(), more...)},
		Annotations: Annotations{[]Annotation{{
			Name: "Config loaded", Datasource: prometheus, Enable: true, Step: "60s", IconColor: "blue",
			Expr:        query(`max by (instance) (changes(partnersync_config_last_reload_success_timestamp_seconds{self}[rate])) > 0`),
			TitleFormat: "Config loaded by {{instance}}",
		}}},
	}
	for _, p := range pages {
		if p.uid == uid {
			d.Title, d.Description = p.title, p.description
			continue
		}
		d.Links = append(d.Links, Link{Type: "link", Title: strings.TrimPrefix(p.title, "partnersync: "), URL: "/d/" + p.uid, Icon: "dashboard", IncludeVars: true, KeepTime: true, Tags: []string{}})
	}
	y, id := 0, 0
	add := func(p Panel, x int) {
		id++
		p.ID, p.GridPos.X, p.GridPos.Y = id, x, y
		d.Panels = append(d.Panels, p)
	}
	for _, r := range rows {
		open := false
		add(Panel{Type: "row", Title: r.title, GridPos: GridPos{H: 1, W: width}, Collapsed: &open, Panels: &[]Panel{}}, 0)
		y++
		x, high := 0, 0
		for _, p := range r.panels {
			if x+p.GridPos.W > width {
				x, y, high = 0, y+high, 0
			}
			add(p, x)
			x, high = x+p.GridPos.W, max(high, p.GridPos.H)
		}
		y += high
	}
	return d
}

func variables() []Variable {
	return []Variable{
		{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus", Refresh: 1},
		choice("job", "Installation", `label_values(partnersync_build_info, job)`),
		choice("instance", "Process", `label_values(partnersync_build_info{job=~"$job"}, instance)`),
		choice("sink", "Sink", `label_values(partnersync_sink_state{job=~"$job"}, sink)`),
	}
}

func sources() []Variable {
	return []Variable{choice("source", "Source", `label_values(partnersync_events_received_total{job=~"$job"}, source)`)}
}

func choice(name, label, query string) Variable {
	return Variable{
		Name: name, Label: label, Type: "query", Query: query, Definition: query, Datasource: &prometheus, Refresh: 2, Sort: 1,
		Multi: true, IncludeAll: true, AllValue: ".*", Current: &Current{Text: []string{"All"}, Value: []string{"$__all"}},
	}
}

// Queries are written with {self}, {sink} and {source} for the selectors that the
// variables make, and [rate] and [range] for the windows that Grafana chooses.
var shorthand = strings.NewReplacer(
	"{self", `{job=~"$job",instance=~"$instance"`,
	"{sink", `{job=~"$job",instance=~"$instance",sink=~"$sink"`,
	"{source", `{job=~"$job",instance=~"$instance",source=~"$source"`,
	"[rate]", "[$__rate_interval]",
	"[range]", "[$__range]",
)

func query(q string) string { return shorthand.Replace(q) }

// q is a query and the name of its series.
type q struct{ expr, legend string }

func targets(qs []q) []Target {
	out := make([]Target, len(qs))
	for i, one := range qs {
		out[i] = Target{RefID: string(rune('A' + i)), Datasource: prometheus, Expr: query(one.expr), LegendFormat: one.legend, Range: true}
	}
	return out
}

func panel(kind, title, description, unit string, w, h int, qs []q) Panel {
	zero := 0.0
	return Panel{
		Type: kind, Title: title, Description: description, GridPos: GridPos{W: w, H: h}, Datasource: &prometheus, Targets: targets(qs),
		FieldConfig: &FieldConfig{
			Defaults:  Defaults{Unit: unit, Min: &zero, Color: map[string]any{"mode": "palette-classic"}},
			Overrides: []Override{},
		},
	}
}

// lines shows how values go on.
func lines(title, description, unit string, w int, qs ...q) Panel {
	p := panel("timeseries", title, description, unit, w, 8, qs)
	p.FieldConfig.Defaults.Custom = map[string]any{
		"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": false, "stacking": map[string]any{"mode": "none", "group": "A"},
	}
	p.Options = map[string]any{
		"legend":  map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
		"tooltip": map[string]any{"mode": "multi", "sort": "desc"},
	}
	p.FieldConfig.Overrides = coloured(qs)
	return p
}

// stacked is lines that add up.
func stacked(title, description, unit string, w int, qs ...q) Panel {
	p := lines(title, description, unit, w, qs...)
	p.FieldConfig.Defaults.Custom["fillOpacity"] = 60
	p.FieldConfig.Defaults.Custom["stacking"] = map[string]any{"mode": "normal", "group": "A"}
	return p
}

// number shows what is now; steps are colours and where they begin.
func number(title, description, unit string, w int, steps []Threshold, expr string) Panel {
	p := panel("stat", title, description, unit, w, 4, []q{{expr, ""}})
	instantly(&p)
	p.FieldConfig.Defaults.Color = map[string]any{"mode": "thresholds"}
	p.FieldConfig.Defaults.Thresholds = &Thresholds{Mode: "absolute", Steps: steps}
	p.Options = map[string]any{
		"colorMode": "value", "graphMode": "none", "justifyMode": "auto", "textMode": "auto", "orientation": "auto",
		"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
	}
	return p
}

// said makes a number that is 0 or 1 say what that means.
func said(p Panel, zero, one string) Panel {
	p.FieldConfig.Defaults.Mappings = []Mapping{inTurn([]Word{{Text: zero, Color: "red"}, {Text: one, Color: "green"}})}
	return p
}

// bars compares the present values of several.
func bars(title, description, unit string, w int, steps []Threshold, qs ...q) Panel {
	p := number(title, description, unit, w, steps, "")
	p.Type, p.GridPos.H, p.Targets = "bargauge", 8, targets(qs)
	instantly(&p)
	p.Options = map[string]any{
		"displayMode": "basic", "orientation": "horizontal", "showUnfilled": true, "valueMode": "color", "minVizWidth": 0, "minVizHeight": 10,
		"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
	}
	return p
}

// timeline shows when which of some states was.
func timeline(title, description string, w, h int, words []Word, qs ...q) Panel {
	p := panel("state-timeline", title, description, "none", w, h, qs)
	p.FieldConfig.Defaults.Custom = map[string]any{"fillOpacity": 80, "lineWidth": 0}
	p.FieldConfig.Defaults.Color = map[string]any{"mode": "thresholds"}
	p.FieldConfig.Defaults.Thresholds = &Thresholds{Mode: "absolute", Steps: steps("text")}
	p.FieldConfig.Defaults.Mappings = []Mapping{inTurn(words)}
	p.Options = map[string]any{
		"mergeValues": true, "showValue": "auto", "alignValue": "left", "rowHeight": 0.9,
		"legend":  map[string]any{"displayMode": "list", "placement": "bottom", "showLegend": true},
		"tooltip": map[string]any{"mode": "single", "sort": "none"},
	}
	return p
}

// inTurn maps 0, 1, 2, ... to words.
func inTurn(words []Word) Mapping {
	m := Mapping{Type: "value", Options: map[string]Word{}}
	for i, w := range words {
		w.Index = i
		m.Options[fmt.Sprint(i)] = w
	}
	return m
}

// column is one of a table: a label, or "Value".
type column struct {
	label, title string
	words        map[string]string
}

// table lists the series of one query, the largest first.
func table(title, description, unit string, w int, expr string, columns ...column) Panel {
	p := panel("table", title, description, unit, w, 8, []q{{expr, ""}})
	instantly(&p)
	p.Targets[0].Format = "table"
	p.FieldConfig.Defaults.NoValue = "nothing"
	p.Options = map[string]any{
		"showHeader": true, "cellHeight": "sm",
		"sortBy": []map[string]any{{"displayName": columns[len(columns)-1].title, "desc": true}},
	}
	names, order, hidden := map[string]string{}, map[string]int{}, map[string]bool{"Time": true}
	for i, c := range columns {
		names[c.label], order[c.label] = c.title, i
		if len(c.words) == 0 {
			continue
		}
		m := Mapping{Type: "value", Options: map[string]Word{}}
		for j, label := range slices.Sorted(maps.Keys(c.words)) {
			m.Options[label] = Word{Text: c.words[label], Index: j}
		}
		p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, Override{Matcher{"byName", c.title}, []Property{{"mappings", []Mapping{m}}}})
	}
	zero := 0
	p.FieldConfig.Defaults.Decimals = &zero
	p.Transformations = []Transformation{{"organize", map[string]any{"renameByName": names, "indexByName": order, "excludeByName": hidden}}}
	return p
}

// short makes a panel less high.
func short(p Panel) Panel {
	p.GridPos.H = 5
	return p
}

func instantly(p *Panel) {
	for i := range p.Targets {
		p.Targets[i].Instant, p.Targets[i].Range = true, false
	}
}

// steps is a first colour and then values with the colour that begins there.
func steps(first string, more ...any) []Threshold {
	out := []Threshold{{Color: first}}
	for i := 0; i+1 < len(more); i += 2 {
		v := more[i].(float64)
		out = append(out, Threshold{Color: more[i+1].(string), Value: &v})
	}
	return out
}

// colours of names that mean the same on every dashboard.
var colours = map[string]string{
	"delivered": "green", "unchanged": "blue", "stale": "purple", "skipped": "text", "observed": "light-purple", "dead": "red",
	"stored": "green", "duplicate": "blue", "unmapped": "text", "ignored": "light-blue", "malformed": "orange",
	"unauthorized": "red", "unavailable": "dark-red", "refused": "dark-orange",
	"ok": "green", "rejected": "red", "split": "light-blue", "conflict": "orange", "throttled": "yellow", "parked": "dark-yellow", "held": "dark-red",
	"timeout": "dark-orange", "network": "purple",
	"the CRM had it": "blue", "overtaken": "purple", "not wanted": "text", "only observed": "light-purple", "needs somebody": "red",
}

// ofAll are the legends of series that are named by any of the colours' names.
var ofAll = []string{"{{outcome}}", "{{result}}", "{{class}}"}

// coloured gives the series whose name has a colour that colour.
func coloured(qs []q) []Override {
	out, named := []Override{}, map[string]bool{}
	for _, one := range qs {
		if slices.Contains(ofAll, one.legend) {
			for name := range colours {
				named[name] = true
			}
		}
		named[one.legend] = colours[one.legend] != ""
	}
	for _, name := range slices.Sorted(maps.Keys(colours)) {
		if named[name] {
			out = append(out, Override{Matcher{"byName", name}, []Property{{"color", map[string]any{"mode": "fixed", "fixedColor": colours[name]}}}})
		}
	}
	return out
}

// limited draws the series whose name matches as a dashed line, without a fill.
func limited(p Panel, pattern string) Panel {
	p.FieldConfig.Overrides = append(p.FieldConfig.Overrides, Override{Matcher{"byRegexp", pattern}, []Property{
		{"custom.lineStyle", map[string]any{"fill": "dash", "dash": []int{6, 6}}},
		{"custom.fillOpacity", 0},
		{"custom.stacking", map[string]any{"mode": "none", "group": "limit"}},
		{"color", map[string]any{"mode": "fixed", "fixedColor": "text"}},
	}})
	return p
}

// to adds a link to another dashboard.
func to(p Panel, uid string) Panel {
	for _, page := range pages {
		if page.uid == uid {
			p.Links = append(p.Links, Link{Title: strings.TrimPrefix(page.title, "partnersync: "), URL: "/d/" + uid + "?${__url_time_range}&${__all_variables}"})
		}
	}
	return p
}
