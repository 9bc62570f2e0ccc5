// Package pgtest gives every test a Postgres database of its own, with all
// migrations applied, in a few dozen milliseconds: it is cloned from a template
// that is made once for each content of the migrations.
//
// The server is the one that PARTNERSYNC_TEST_DATABASE_URL names (its role may
// create databases), or else a private one: it runs while a test of the process
// needs it, in a directory below the temporary one that is kept for the next run.
// Each test process takes a directory of its own, so packages are tested side by
// side; a process that is killed takes its server with it and leaves a directory that
// the next one cleans up.
//
// It is for tests alone, and it trades durability for speed: fsync is off.
package pgtest
