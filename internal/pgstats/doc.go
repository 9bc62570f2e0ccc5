// Package pgstats reads what a queue in Postgres dies of, as metrics: a pool
// without a free connection, dead rows that vacuum does not get to, the
// transaction that holds vacuum back, jobs that nobody takes.
//
// It reads the statistics of Postgres and single rows of River's tables by their
// indexes, all in one round trip, at most once in a few seconds however many
// ask. It counts no table, writes nothing, and knows nothing of events.
package pgstats
