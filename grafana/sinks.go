package grafana

func sinks() Dashboard {
	words := []Word{{Text: "ready", Color: "green"}, {Text: "throttled", Color: "yellow"}, {Text: "parked", Color: "orange"}, {Text: "held", Color: "red"}, {Text: "stopped", Color: "purple"}}
	return dashboard("partnersync-sinks", nil,
		row{"State", []Panel{
			timeline("State of each sink", "ready; throttled (goes on by time); parked (quota used up, or it answers nobody); held (credentials or permissions refused); stopped (by a command).", 12, 8, words, q{stateNumber, "{{sink}}"}),
			timeline("Owned by a worker", "Whether a live worker process owns each sink and works its queue.", 6, 8, []Word{{Text: "no owner", Color: "red"}, {Text: "owned", Color: "green"}},
				q{`max by (job, sink) (partnersync_sink_owned{sink})`, "{{sink}}"}),
			lines("Changes of the owner", "A sink changes hands at a deploy, after a crash, or when its owner was silent for too long.", "short", 6,
				q{`max by (sink) (increase(partnersync_sink_owner_changes_total{sink}[rate]))`, "{{sink}}"}),
		}},
		row{"Deliveries", []Panel{
			stacked("Deliveries by outcome", "Deliveries that have ended.", "suffix: /s", 8, q{`sum by (outcome) (rate(partnersync_deliveries_total{sink}[rate]))`, "{{outcome}}"}),
			lines("From received to acknowledged", "By how many were faster.", "s", 8,
				q{`histogram_quantile(0.5, sum by (le, sink) (rate(partnersync_delivery_latency_seconds_bucket{sink}[rate])))`, "{{sink}}: half"},
				q{`histogram_quantile(0.95, sum by (le, sink) (rate(partnersync_delivery_latency_seconds_bucket{sink}[rate])))`, "{{sink}}: 95 of 100"},
				q{`histogram_quantile(0.99, sum by (le, sink) (rate(partnersync_delivery_latency_seconds_bucket{sink}[rate])))`, "{{sink}}: 99 of 100"}),
			limited(lines("On time", "Share of deliveries that were acknowledged within 60 s of the event; dead ones are missed. The dashed line is the objective.", "percentunit", 8,
				q{onTime, "{{sink}}"}, q{`vector(0.995)`, "objective"}), "objective"),
			lines("Dead, by what refused them", "Deliveries that need somebody, by the class of the refusal.", "suffix: /s", 8,
				q{`sum by (sink, class) (rate(partnersync_dead_letters_total{sink}[rate])) > 0`, "{{sink}}: {{class}}"}),
			lines("Dead, all told", "Routes that ended dead and were not replayed since; counted up to 10,000.", "short", 8, q{`max by (sink) (partnersync_dead_deliveries{sink})`, "{{sink}}"}),
			lines("Oldest event that waits", "Age of the oldest open route.", "s", 8, q{`max by (sink) (partnersync_queue_oldest_seconds{sink})`, "{{sink}}"}),
		}},
		row{"Requests to the CRM", []Panel{
			stacked("Requests by class of the answer", "ok; rejected (the record is refused); split (the batch is sent again in halves); conflict (it is there already); throttled, parked, held (the sink waits); unavailable, timeout, network (tried again).", "reqps", 8,
				q{`sum by (class) (rate(partnersync_sink_requests_total{sink}[rate]))`, "{{class}}"}),
			lines("Requests by operation", "What is asked of the CRM; \"token\" is for access.", "reqps", 8, q{`sum by (sink, operation) (rate(partnersync_sink_requests_total{sink}[rate])) > 0`, "{{sink}}: {{operation}}"}),
			lines("Share of requests that fail", "Those that are neither ok nor about single records.", "percentunit", 8,
				q{`sum by (sink) (rate(partnersync_sink_requests_total{sink,class!~"ok|rejected|conflict|split"}[rate])) / sum by (sink) (rate(partnersync_sink_requests_total{sink}[rate]))`, "{{sink}}"}),
			lines("Time that the CRM takes", "Of a request, by operation: 95 of 100 were faster.", "s", 8,
				q{`histogram_quantile(0.95, sum by (le, sink, operation) (rate(partnersync_sink_request_duration_seconds_bucket{sink}[rate])))`, "{{sink}}: {{operation}}"}),
			lines("Rows per request", "The more wait, the fuller the requests.", "short", 8,
				q{`sum by (sink) (rate(partnersync_sink_batch_rows_sum{sink}[rate])) / sum by (sink) (rate(partnersync_sink_batch_rows_count{sink}[rate]))`, "{{sink}}: mean"},
				q{`histogram_quantile(0.95, sum by (le, sink) (rate(partnersync_sink_batch_rows_bucket{sink}[rate])))`, "{{sink}}: 95 of 100"}),
			lines("Waiting instead of sending", "Seconds of waiting per second, all requests together: rate is for a limit, concurrency for a request before. Longer waits than 2 s show as the state throttled.", "suffix: s/s", 8,
				q{`sum by (sink, reason) (rate(partnersync_sink_wait_seconds_total{sink}[rate]))`, "{{sink}}: {{reason}}"}),
		}},
	)
}
