// Command bench measures partnersync and prints a table; `make bench` runs it.
//
// Everything is measured in one run and on one machine, and what is compared takes
// turns in short windows, so that the ratios hold on any machine although the numbers
// do not. Each part is a process of its own, as in life: partnersync itself (the real
// binary, built for the occasion, with its defaults), a plain River program to compare
// with, a handler that stores nothing, a CRM that answers at once, and Postgres, which is
// a private one unless DATABASE_URL names a server where databases may be made. The load
// comes from this process.
//
// What goes to the CRMs by their presets, and what these calls cost, is measured against
// the sandbox, which runs in this process and counts what comes. The worker without
// convergence that partnersync is compared with is written for the comparison. Big tables
// are filled by Postgres, in a database of their own that is dropped in the end.
//
// `--list` lists the parts, `--only` chooses some, and each prints one table when it is
// done. All run by default, which takes about fifteen minutes, but for the one on big
// tables, which wants to know how big: `--rows 10000000`.
//
// It asserts counts (what was answered was stored, what was stored was delivered) and
// never times: the aims are printed beside the results as met or missed.
package main
