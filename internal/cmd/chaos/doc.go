// Command chaos tries to make partnersync lose or confuse something; `make chaos` runs it.
//
// It is the real binary in several processes, receivers and workers apart, on a Postgres of
// its own, with CRMs of the sandbox in this process. While senders post events, processes are
// killed and frozen, and cut off from Postgres one at a time; Postgres is killed, frozen, and
// frozen and then killed; the CRMs fail in every way that a CRM may; workers join and leave; the
// config is reloaded, with sinks that have another name or are gone; jobs are deleted from the
// queue; old events come, and expire; and an operator forgets people and replays events, which is
// cut off, continued and cancelled. What happens when is drawn from a seed beforehand and
// printed, so that a run can be repeated; what the machine makes of it differs from run to run
// all the same.
//
// Among the events are some that archive records, of which others are to be made again, some
// under several keys that are one record of the CRM, links of which one kind takes the place of
// others and that are taken back, and what is appended and must not be there twice. One CRM takes
// links with requests of their own, one along with the rows.
//
// The senders are such as a vendor with retries has: what is not answered with a 2xx is sent
// again until it is. Afterwards everything comes back, and when all is quiet the run asserts
//
//   - that nothing that was accepted is without an outcome, or was never stored, and that the
//     ledger balances (judge.go);
//   - that each record of the CRMs is what the events say. That is worked out anew from all events
//     that were ever stored, by rules written down here, not by the mapper (oracle.go);
//   - that it never was anything else: the CRMs keep a journal, and no write in it is older than
//     what the CRM had before, as far as who wrote it could know, archives what a newer event wants,
//     brings back who was forgotten, or takes effect when nobody has said any more that he writes the
//     record (court.go);
//   - that nobody sets out to write what another may still be writing, and that no more rows come
//     twice than were in the write intents when somebody was lost (chronicle.go).
//
// How long it took until work went on is printed beside the aims, never asserted.
package main
