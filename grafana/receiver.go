package grafana

func receiver() Dashboard {
	return dashboard("partnersync-receiver", sources(),
		row{"Requests", []Panel{
			stacked("Requests by what became of them", "Everything that came to /hooks, by the answer it got.", "reqps", 12,
				q{`sum by (result) (rate(partnersync_events_received_total{source}[rate]))`, "{{result}}"}),
			stacked("Events by type", "Requests with a valid secret, by the type of their event. \"other\" is a type that the source does not know.", "reqps", 12,
				q{`sum by (source, type) (rate(partnersync_events_received_total{source,result!~"unauthorized|too_large|probe|invalid|failed"}[rate])) > 0`, "{{source}}.{{type}}"}),
			lines("Turned away", "Requests that were not accepted and are the sender's to put right: wrong secrets, bodies that are not JSON, too large ones.", "reqps", 8,
				q{`sum by (source, result) (rate(partnersync_events_received_total{source,result=~"unauthorized|malformed|refused|too_large|invalid"}[rate])) > 0`, "{{source}}: {{result}}"}),
			lines("Told to come again", "Requests that were answered 503 because Postgres or memory was short, and errors of ours. Neither vendor promises to come again.", "reqps", 8,
				q{`sum by (source) (rate(partnersync_events_received_total{source,result="unavailable"}[rate]))`, "{{source}}: 503"},
				q{`sum by (source) (rate(partnersync_events_received_total{source,result="failed"}[rate]))`, "{{source}}: 500"}),
			lines("Against last week", "Accepted events now, and at the same time a week ago.", "reqps", 8,
				q{`sum by (source) (rate(partnersync_events_received_total{source,result=~"stored|duplicate|unmapped|ignored"}[rate]))`, "{{source}}"},
				q{`sum by (source) (rate(partnersync_events_received_total{source,result=~"stored|duplicate|unmapped|ignored"}[rate] offset 1w))`, "{{source}}: a week ago"}),
		}},
		row{"Answers", []Panel{
			lines("Time to answer", "From the head of a request to its answer, which comes after the commit.", "s", 12,
				q{`histogram_quantile(0.5, sum by (le) (rate(partnersync_receive_duration_seconds_bucket{source}[rate])))`, "half"},
				q{`histogram_quantile(0.95, sum by (le) (rate(partnersync_receive_duration_seconds_bucket{source}[rate])))`, "95 of 100"},
				q{`histogram_quantile(0.99, sum by (le) (rate(partnersync_receive_duration_seconds_bucket{source}[rate])))`, "99 of 100"}),
			lines("Time to answer by source", "The mean.", "s", 12,
				q{`sum by (source) (rate(partnersync_receive_duration_seconds_sum{source}[rate])) / sum by (source) (rate(partnersync_receive_duration_seconds_count{source}[rate]))`, "{{source}}"}),
		}},
		row{"Storing", []Panel{
			lines("Events per commit", "Concurrent requests share a transaction: the more come, the more share it.", "short", 8,
				q{`sum by (instance) (rate(partnersync_commit_batch_events_sum{self}[rate])) / sum by (instance) (rate(partnersync_commit_batch_events_count{self}[rate]))`, "{{instance}}: mean"},
				q{`histogram_quantile(0.95, sum by (le, instance) (rate(partnersync_commit_batch_events_bucket{self}[rate])))`, "{{instance}}: 95 of 100"}),
			lines("Time of a commit", "How long Postgres takes to store a batch.", "s", 8,
				q{`histogram_quantile(0.5, sum by (le, instance) (rate(partnersync_commit_duration_seconds_bucket{self}[rate])))`, "{{instance}}: half"},
				q{`histogram_quantile(0.95, sum by (le, instance) (rate(partnersync_commit_duration_seconds_bucket{self}[rate])))`, "{{instance}}: 95 of 100"}),
			lines("Routes opened", "Stored events, once for each sink that wants them.", "suffix: /s", 8,
				q{`sum by (sink) (rate(partnersync_routes_opened_total{source,sink=~"$sink"}[rate]))`, "{{sink}}"}),
			limited(lines("Requests that wait for a commit", "At the dashed line further ones are told to come again.", "short", 12,
				q{`partnersync_receive_waiting_events{self}`, "{{instance}}"},
				q{`min(partnersync_receive_waiting_limit_events{self})`, "limit"}), "limit"),
			limited(lines("Bodies in memory", "Bodies of requests that wait for their commit. At the dashed line further ones are told to come again.", "bytes", 12,
				q{`partnersync_receive_held_bytes{self}`, "{{instance}}"},
				q{`min(partnersync_receive_held_limit_bytes{self})`, "limit"}), "limit"),
			limited(lines("Connections", "Connections of senders that are open. At the dashed line those who have not proved who they are are cut for new ones.", "short", 12,
				q{`partnersync_receive_connections{self}`, "{{instance}}"},
				q{`min(partnersync_receive_connections_limit{self})`, "limit"}), "limit"),
			lines("Given up for others", "Connections and bodies of those who had not proved who they are, cut because others came and there was no room.", "suffix: /s", 12,
				q{`sum by (instance, what) (rate(partnersync_receive_cut_total{self}[rate]))`, "{{instance}}: {{what}}"}),
		}},
		row{"Spool: where events wait while Postgres is away", []Panel{
			limited(lines("Spool", "Size of the spool. At the dashed line senders are told to come again; 0 where none is configured.", "bytes", 8,
				q{`partnersync_spool_bytes{self}`, "{{instance}}"},
				q{`min(partnersync_spool_limit_bytes{self})`, "limit"}), "limit"),
			lines("Events in the spool", "They are stored in order when Postgres is back.", "short", 8, q{`partnersync_spool_events{self}`, "{{instance}}"}),
			lines("Oldest event in the spool", "How long it has waited for Postgres.", "s", 8, q{`partnersync_spool_oldest_seconds{self}`, "{{instance}}"}),
			lines("Into the spool and out of it", "Events written to the spool, and those taken out of it because they are stored.", "suffix: /s", 12,
				q{`rate(partnersync_spool_written_total{self}[rate])`, "{{instance}}: written"},
				q{`rate(partnersync_spool_drained_total{self}[rate])`, "{{instance}}: drained"}),
			number("Damaged segments", "Segments of the spool that were found damaged in this time, and were set aside.", "short", 12, steps("green", 1.0, "red"),
				`sum(increase(partnersync_spool_corrupt_segments_total{self}[range]))`),
		}},
		row{"Processes", processes()},
	)
}

// processes shows what every process takes.
func processes() []Panel {
	return []Panel{
		lines("Processors", "Processor time of each process.", "suffix: cores", 6, q{`rate(process_cpu_seconds_total{self}[rate])`, "{{instance}}"}),
		lines("Memory", "Resident memory of each process.", "bytes", 6, q{`process_resident_memory_bytes{self}`, "{{instance}}"}),
		lines("Goroutines", "Those of Go's runtime; they follow the requests and jobs under way.", "short", 6, q{`go_goroutines{self}`, "{{instance}}"}),
		limited(lines("Open files", "Connections count as files. At the dashed line no further one can be opened.", "short", 6,
			q{`process_open_fds{self}`, "{{instance}}"}, q{`min(process_max_fds{self})`, "limit"}), "limit"),
	}
}
