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
// It asserts counts (what was answered was stored, what was stored was delivered) and
// never times: the aims are printed beside the results as met or missed.
package main
