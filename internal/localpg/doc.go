// Package localpg runs a private Postgres for one process: it finds the installed
// binaries, makes the data directory when there is none, starts the server on
// loopback and stops it with the process. `run` and `demo` use it when the
// config names no database, and so do the tests.
//
// Everything is kept in one directory:
//
//	DIR/postgres          a directory, or a link to one elsewhere (see below)
//	  lock                held by the process that owns the server
//	  password            of the role partnersync, which is no superuser, and of postgres, which is; readable by the owner alone
//	  port                used last; used again when it is free
//	  postgres.log        what the server says; never a value or a statement
//	  data/               the cluster
//
// Postgres refuses to run as root. Started by root it runs as the owner of the
// data, which for a new one is the user postgres, or nobody. Where that user cannot
// reach DIR, as below /root, DIR/postgres links to a directory below
// /var/lib/partnersync, or below the temporary directory if DIR itself is there.
//
// The server never outlives its process for long. A process that ends without
// Stop, by kill -9 too, takes the server down: Linux sends it a signal, elsewhere a
// small watcher does. Whatever is left nevertheless, the next Start clears away,
// unless its owner is alive. Nothing is lost either way: fsync is on.
//
// The package knows nothing of our tables, downloads nothing, and never touches a
// Postgres that it did not start.
package localpg
