package localpg

import (
	"errors"
	"log/slog"
)

const (
	// role is whom partnersync is to Postgres: the owner of the database of the same name, and nothing more.
	role = "partnersync"
	// admin is the superuser that makes it; nobody needs it afterwards. A data directory of an earlier version has none: there
	// role is the superuser, and stays it.
	admin = "postgres"
)

// ErrInUse is returned when another live process owns the directory.
var ErrInUse = errors.New("in use")

// ErrNotFound is returned when no usable Postgres is installed.
var ErrNotFound = errors.New("no Postgres found")

// Options say where a private Postgres lives and how it runs.
type Options struct {
	// Dir is made when it does not exist, and belongs to the private Postgres.
	Dir string
	// Logger gets a line on start, stop and whatever is out of the ordinary. Nil
	// means none.
	Logger *slog.Logger
	// Settings are parameters of Postgres, over the defaults of this package.
	Settings map[string]string
	// Superuser makes the role one that may do anything, where the data directory is made now: for tests and
	// benchmarks, which make databases and look into the server.
	Superuser bool

	// For tests: directories of binaries instead of those found, and the place for
	// what cannot be reached instead of /var/lib/partnersync.
	binaries  []string
	elsewhere string
}

// defaultSettings suit a small machine that Postgres shares with us.
func defaultSettings() map[string]string {
	return map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_permissions": "0700",
		"timezone":                "UTC",
		// Nobody replicates from it, and its queries are short.
		"wal_level":                       "minimal",
		"max_wal_senders":                 "0",
		"jit":                             "off",
		"max_parallel_workers_per_gather": "0",
		// A queue makes dead rows all the time.
		"autovacuum_naptime": "15s",
		// The log must not tell what is in the data: no details of a broken constraint,
		// no statements, no parameters.
		"logging_collector":                 "off",
		"log_destination":                   "stderr",
		"log_line_prefix":                   "%m [%p] ",
		"log_error_verbosity":               "terse",
		"log_min_error_statement":           "panic",
		"log_parameter_max_length":          "0",
		"log_parameter_max_length_on_error": "0",
	}
}
