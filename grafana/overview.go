package grafana

// What labels mean, in the words of those who run partner programs.
var (
	whyDead = map[string]string{
		"rejected": "the CRM refused the record", "conflict": "the CRM has several such records", "split": "the CRM refused the record", "mapping": "the mapping does not fit the event",
		"link": "the record to link to could not be found or made", "match": "several records fit, or the one that fits is of another key", "unavailable": "the CRM did not work for days",
		"timeout": "the CRM did not answer for days", "network": "the CRM could not be reached for days",
		"route": "the event could not be worked at all", "": "the event could not be worked at all",
	}
	whySkipped = map[string]string{
		"gone": "somebody deleted the record in the CRM", "archived": "an event archived the record", "there_already": "the record is there, and only made",
		"not_there": "the record is not there, and only changed", "refused_before": "the CRM refused the same value before",
		"kept": "the CRM keeps a value of its own", "expected": "a refusal that on_reject expects",
	}
	whyRefused = map[string]string{
		"unauthorized": "wrong or missing secret", "malformed": "not JSON", "refused": "the database cannot store it", "too_large": "too large",
		"unavailable": "we could not store it just then", "invalid": "not a webhook", "failed": "an error of ours",
	}
	whyMapping = map[string]string{
		"null_key": "the event does not name the record", "lookup_missed": "a value is missing in a table", "expression": "a value does not fit",
		"forward": "a value is not in its order",
	}
	whatBecame = []struct{ outcome, words string }{
		{"delivered", "delivered"}, {"unchanged", "the CRM had it"}, {"stale", "overtaken"}, {"skipped", "not wanted"}, {"observed", "only observed"}, {"dead", "needs somebody"},
	}
	stateWords = []Word{
		{Text: "working", Color: "green"}, {Text: "slowed down by the CRM", Color: "yellow"}, {Text: "paused: the CRM does not answer or its daily limit is reached", Color: "orange"},
		{Text: "on hold: the CRM refuses our access", Color: "red"}, {Text: "stopped by us", Color: "purple"},
	}
)

// stateNumber is the place of a sink's state in stateWords.
const stateNumber = `max by (job, sink) (partnersync_sink_state{sink,state="throttled"})
+ 2 * max by (job, sink) (partnersync_sink_state{sink,state="parked"})
+ 3 * max by (job, sink) (partnersync_sink_state{sink,state="held"})
+ 4 * max by (job, sink) (partnersync_sink_state{sink,state="stopped"})`

// onTime is the share of deliveries that keep the objective of alerts.yaml.
const onTime = `sum by (sink) (rate(partnersync_delivery_latency_seconds_bucket{sink,le=~"60|60.0"}[rate]))
/ (sum by (sink) (rate(partnersync_delivery_latency_seconds_count{sink}[rate])) + sum by (sink) (rate(partnersync_deliveries_total{sink,outcome="dead"}[rate])))`

func overview() Dashboard {
	good := steps("green")
	var became []q
	for _, b := range whatBecame {
		became = append(became, q{`60 * sum(rate(partnersync_deliveries_total{sink,outcome="` + b.outcome + `"}[rate]))`, b.words})
	}
	return dashboard("partnersync-overview", nil,
		row{"In this time", []Panel{
			number("Events accepted", "Events of partner programs that were taken in and stored. Repeated ones count once.", "short", 4, good,
				`sum(increase(partnersync_events_received_total{self,result=~"stored|unmapped|ignored"}[range]))`),
			number("Updates delivered", "Updates that a CRM has confirmed. One event may lead to several, or to none.", "short", 4, good,
				`sum(increase(partnersync_deliveries_total{sink,outcome="delivered"}[range]))`),
			number("On time", "Share of the updates that were in the CRM within a minute of the event. The aim is 99.5 %.", "percentunit", 4,
				steps("red", 0.97, "orange", 0.995, "green"),
				`sum(increase(partnersync_delivery_latency_seconds_bucket{sink,le=~"60|60.0"}[range]))
/ (sum(increase(partnersync_delivery_latency_seconds_count{sink}[range])) + sum(increase(partnersync_deliveries_total{sink,outcome="dead"}[range])))`),
			number("Waiting", "Updates that are on their way at this moment. They are stored and none is lost. Counted up to 10,000 of each kind.", "short", 4, steps("green", 1000.0, "orange", 10000.0, "red"),
				`sum(max by (job, sink, state) (partnersync_queue_jobs{sink}))`),
			to(number("Need somebody", "Updates that ended without success, all told: the CRM refused them, or the mapping does not fit. `partnersync dead` lists them with the reasons. Counted up to 10,000 for each CRM.", "short", 4,
				steps("green", 1.0, "red"), `sum(max by (job, sink) (partnersync_dead_deliveries{sink}))`), "partnersync-mappings"),
			to(number("CRMs paused or stopped", "How many CRMs are paused, on hold or stopped at this moment. Their updates wait, and none is lost.", "short", 4,
				steps("green", 1.0, "red"), `sum(max by (job, sink) (partnersync_sink_state{sink,state=~"parked|held|stopped"}))`), "partnersync-sinks"),
		}},
		row{"Each CRM", []Panel{
			to(timeline("How each CRM does", "Whether updates are sent to each CRM, and why not.", 24, 5, stateWords, q{stateNumber, "{{sink}}"}), "partnersync-sinks"),
			lines("Time from the event to the CRM", "Half of the updates were faster than the lower line of a CRM, 95 of 100 faster than the upper one.", "s", 8,
				q{`histogram_quantile(0.5, sum by (le, sink) (rate(partnersync_delivery_latency_seconds_bucket{sink}[rate])))`, "{{sink}}: half"},
				q{`histogram_quantile(0.95, sum by (le, sink) (rate(partnersync_delivery_latency_seconds_bucket{sink}[rate])))`, "{{sink}}: 95 of 100"}),
			lines("How far behind each CRM is", "Age of the oldest event that a CRM does not have yet; 0 when it has all.", "s", 8,
				q{`max by (sink) (partnersync_queue_oldest_seconds{sink})`, "{{sink}}"}),
			bars("Last confirmed update", "How long ago each CRM has last confirmed an update.", "s", 8, steps("green", 21600.0, "orange", 86400.0, "red"),
				q{`time() - max by (sink) (partnersync_last_delivery_timestamp_seconds{sink} > 0)`, "{{sink}}"}),
		}},
		row{"What has come in, and what became of it", []Panel{
			lines("Events of each program", "Events that were taken in, per minute.", "suffix: /min", 8,
				q{`60 * sum by (source) (rate(partnersync_events_received_total{self,result=~"stored|unmapped|ignored"}[rate]))`, "{{source}}"}),
			stacked("What became of the updates", "Updates that have come to an end, per minute. Overtaken: a newer event had decided. Not wanted: the mapping leaves such events out. Only what needs somebody is left to do.", "suffix: /min", 8, became...),
			bars("Last event of each program", "How long ago each program has last sent something.", "s", 8, steps("green", 21600.0, "orange", 86400.0, "red"),
				q{`time() - max by (source) (partnersync_last_event_timestamp_seconds{self} > 0)`, "{{source}}"}),
		}},
		row{"What did not work, and why", []Panel{
			to(table("Updates that need somebody", "Of this time: which mapping to which CRM, and why. `partnersync dead` shows the CRM's own words and an example.", "short", 9,
				`topk(10, sum by (sink, mapping, class) (increase(partnersync_dead_letters_total{sink}[range])) > 0)`,
				column{"sink", "CRM", nil}, column{"mapping", "Mapping", nil}, column{"class", "Why", whyDead}, column{"Value", "Updates", nil}), "partnersync-mappings"),
			to(table("Mappings that do not fit", "Of this time: which mapping could not be applied to an event, and why.", "short", 8,
				`topk(10, sum by (mapping, reason) (increase(partnersync_mapping_errors_total{self}[range])) > 0)`,
				column{"mapping", "Mapping", nil}, column{"reason", "Why", whyMapping}, column{"Value", "Events", nil}), "partnersync-mappings"),
			to(table("Requests that were turned away", "Of this time: who sent something that was not accepted, and why.", "short", 7,
				`topk(10, sum by (source, result) (increase(partnersync_events_received_total{self,result!~"stored|duplicate|unmapped|ignored|probe"}[range])) > 0)`,
				column{"source", "Program", nil}, column{"result", "Why", whyRefused}, column{"Value", "Requests", nil}), "partnersync-receiver"),
		}},
	)
}
