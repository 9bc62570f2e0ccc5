package grafana

func mappings() Dashboard {
	return dashboard("partnersync-mappings", sources(),
		row{"Mappings", []Panel{
			lines("Mappings that fail", "Events that a mapping could not be applied to. They are dead until a fix and a replay.", "suffix: /s", 8,
				q{`sum by (mapping, reason) (rate(partnersync_mapping_errors_total{self}[rate])) > 0`, "{{mapping}}: {{reason}}"}),
			lines("Values that tables lack", "Lookups that found nothing and left their field alone, by table.", "suffix: /s", 8,
				q{`sum by (table) (rate(partnersync_lookup_misses_total{self}[rate]))`, "{{table}}"}),
			stacked("Deliveries by mapping", "What each mapping leads to.", "suffix: /s", 8,
				q{`sum by (mapping) (rate(partnersync_deliveries_total{sink}[rate])) > 0`, "{{mapping}}"}),
			table("Outcomes of each mapping", "Of this time.", "short", 12, `sum by (sink, mapping, outcome) (increase(partnersync_deliveries_total{sink}[range])) > 0`,
				column{"sink", "Sink", nil}, column{"mapping", "Mapping", nil}, column{"outcome", "Outcome", nil}, column{"Value", "Deliveries", nil}),
			table("Dead by mapping", "Of this time: what refused them. `partnersync dead` shows the reasons and an example.", "short", 12,
				`sum by (sink, mapping, class) (increase(partnersync_dead_letters_total{sink}[range])) > 0`,
				column{"sink", "Sink", nil}, column{"mapping", "Mapping", nil}, column{"class", "Why", whyDead}, column{"Value", "Deliveries", nil}),
		}},
		row{"Payloads", []Panel{
			lines("Payload drift", "Values in payloads that the schema of their event does not know, or that do not fit it. They are kept, and mappings can reach them.", "suffix: /s", 12,
				q{`sum by (source, type) (rate(partnersync_payload_drift_total{source}[rate])) > 0`, "{{source}}.{{type}}"}),
			table("Drift of this time", "Which events have changed their form, and how often.", "short", 12,
				`sum by (source, type) (increase(partnersync_payload_drift_total{source}[range])) > 0`,
				column{"source", "Source", nil}, column{"type", "Event", nil}, column{"Value", "Values", nil}),
			lines("Events that nothing maps", "Stored and not delivered. \"other\" is a type that the source does not know: a new event of the vendor, or a mistyped URL.", "suffix: /s", 8,
				q{`sum by (source, type) (rate(partnersync_events_received_total{source,result="unmapped"}[rate])) > 0`, "{{source}}.{{type}}"}),
			lines("Events that are ignored", "By the ignore rules of their source.", "suffix: /s", 8,
				q{`sum by (source, type) (rate(partnersync_events_received_total{source,result="ignored"}[rate])) > 0`, "{{source}}.{{type}}"}),
			lines("Times from the future", "Events whose time lay more than 2 minutes ahead of ours and was clamped.", "suffix: /s", 8,
				q{`sum by (source) (rate(partnersync_version_clamps_total{source}[rate]))`, "{{source}}"}),
		}},
		row{"The config in force", []Panel{
			said(number("Last reload", "Whether the last reload took effect in every process; one that refuses it keeps the former config.", "short", 6,
				steps("red", 1.0, "green"), `min(partnersync_config_last_reload_successful{self})`), "refused", "took effect"),
			number("Configs in force", "More than one means that some process runs another config than the others.", "short", 6,
				steps("green", 2.0, "orange"), `count(count by (hash) (partnersync_config_info{self}))`),
			number("Loaded", "How long ago the config in force was loaded by the last process.", "s", 6, steps("text"), `time() - max(partnersync_config_last_reload_success_timestamp_seconds{self})`),
			number("Versions that run", "More than one is to be expected during an upgrade only.", "short", 6,
				steps("green", 2.0, "orange"), `count(count by (version) (partnersync_build_info{self}))`),
			short(table("Processes", "What each process runs.", "short", 24, `max by (instance, version, hash) (partnersync_build_info{self} * on (job, instance) group_left (hash) partnersync_config_info{self})`,
				column{"instance", "Process", nil}, column{"version", "Version", nil}, column{"hash", "Config", nil}, column{"Value", "Runs", nil})),
		}},
	)
}
