package grafana

func queue() Dashboard {
	return dashboard("partnersync-queue", nil,
		row{"Is everything accounted for", []Panel{
			number("Unaccounted routes", "Open routes that had no job at the last sweep. More than 0 for long means that something loses jobs.", "short", 6,
				steps("green", 1.0, "red"), `max(partnersync_unaccounted_routes{self})`),
			number("Found by the sweeper", "Routes of this time that had lost their job and got a new one. After a crash this is to be expected.", "short", 6,
				steps("green", 1.0, "orange"), `sum(increase(partnersync_swept_routes_total{sink}[range]))`),
			said(number("Postgres answers", "Whether Postgres answered the last scrape of every process.", "short", 6, steps("red", 1.0, "green"), `min(partnersync_postgres_up{self})`), "no", "yes"),
			said(number("River has a leader", "Whether a worker leads: without one no job that waits for its time becomes due.", "short", 6, steps("red", 1.0, "green"), `max(partnersync_queue_leader{self})`), "no", "yes"),
		}},
		row{"The queue", []Panel{
			stacked("Jobs by state", "available: could be worked; running; retryable: failed, to be tried again; scheduled: waits for its time. Each counted up to 10,000.", "short", 8,
				q{`max by (sink, state) (partnersync_queue_jobs{sink})`, "{{sink}}: {{state}}"}),
			lines("Oldest open route", "Age of the oldest event that has not come to an end, whatever it waits for.", "s", 8, q{`max by (sink) (partnersync_queue_oldest_seconds{sink})`, "{{sink}}"}),
			lines("Oldest job that is due", "How long the oldest job that could be worked has waited to be taken.", "s", 8, q{`max by (sink) (partnersync_queue_oldest_job_seconds{sink})`, "{{sink}}"}),
			lines("Opened and closed", "Routes opened by receivers, and those that came to an end. Where the first stays above the second, the queue grows.", "suffix: /s", 12,
				q{`sum by (sink) (rate(partnersync_routes_opened_total{sink}[rate]))`, "{{sink}}: opened"},
				q{`sum by (sink) (rate(partnersync_routes_closed_total{sink}[rate]))`, "{{sink}}: closed"}),
			stacked("Closed by outcome", "How routes have ended: the first of dead, observed, delivered, stale, unchanged, skipped that one of their deliveries had.", "suffix: /s", 12,
				q{`sum by (outcome) (rate(partnersync_routes_closed_total{sink}[rate]))`, "{{outcome}}"}),
		}},
		row{"Connections", []Panel{
			limited(lines("Pool", "Connections of each process's pool that are in use. At the dashed line others wait.", "short", 8,
				q{`partnersync_postgres_pool_connections{self,state="acquired"}`, "{{instance}}"}, q{`min(partnersync_postgres_pool_limit_connections{self})`, "limit"}), "limit"),
			lines("Waiting for a connection", "Seconds of waiting per second: 1 means that at any moment one waits.", "percentunit", 8,
				q{`rate(partnersync_postgres_pool_wait_seconds_total{self}[rate])`, "{{instance}}"}),
			lines("Share of acquires that wait", "Of all connections taken from the pool, those that were not free at once, or were given up.", "percentunit", 8,
				q{`rate(partnersync_postgres_pool_waits_total{self}[rate]) / rate(partnersync_postgres_pool_acquires_total{self}[rate])`, "{{instance}}: waited"},
				q{`rate(partnersync_postgres_pool_canceled_total{self}[rate]) / rate(partnersync_postgres_pool_acquires_total{self}[rate])`, "{{instance}}: given up"}),
			limited(stacked("Connections to the server", "Of whomever, by state. Idle in a transaction is what holds vacuum back. The dashed line is max_connections.", "short", 24,
				q{`max by (state) (partnersync_postgres_connections{self})`, "{{state}}"}, q{`max(partnersync_postgres_connections_limit{self})`, "limit"}), "limit"),
		}},
		row{"Vacuum", []Panel{
			lines("Dead rows", "Rows that vacuum has not removed yet, as Postgres estimates them. A queue slows down when they pile up.", "short", 8,
				q{`max by (table) (partnersync_postgres_table_dead_rows{self})`, "{{table}}"}),
			lines("Share of dead rows", "Of the rows of each table; autovacuum begins at a fifth unless told otherwise.", "percentunit", 8,
				q{`max by (table) (partnersync_postgres_table_dead_rows{self}) / (max by (table) (partnersync_postgres_table_dead_rows{self}) + max by (table) (partnersync_postgres_table_live_rows{self}) > 1000)`, "{{table}}"}),
			lines("Time since the last vacuum", "Of each table that has ever been vacuumed.", "s", 8, q{`max by (table) (partnersync_postgres_table_vacuum_age_seconds{self})`, "{{table}}"}),
			lines("Oldest transaction that holds vacuum back", "What is younger than it cannot be removed.", "s", 8, q{`max by (job) (partnersync_postgres_oldest_transaction_seconds{self})`, "{{job}}"}),
			lines("Transactions that vacuum is held back", "By sessions, prepared transactions and replication slots.", "short", 8, q{`max by (job) (partnersync_postgres_oldest_transaction_xids{self})`, "{{job}}"}),
			lines("Age of the oldest id that is not frozen", "Autovacuum freezes from 200 million on; near 2 billion Postgres stops writing.", "short", 8, q{`max by (job) (partnersync_postgres_frozen_age_xids{self})`, "{{job}}"}),
		}},
		row{"Size", []Panel{
			stacked("Rows", "Bytes of the tables.", "bytes", 8, q{`max by (table) (partnersync_postgres_table_bytes{self,part="heap"})`, "{{table}}"}),
			stacked("Indexes", "Bytes of the indexes of each table.", "bytes", 8, q{`max by (table) (partnersync_postgres_table_bytes{self,part="indexes"})`, "{{table}}"}),
			lines("Cost of reading all this", "How long a process takes to read the statistics of Postgres; done at most once in 5 s.", "s", 8,
				q{`partnersync_postgres_stats_duration_seconds{self} and partnersync_postgres_stats_up{self} == 1`, "{{instance}}"}),
		}},
		row{"Processes", processes()},
	)
}
