// Command chaos tries to make partnersync lose or confuse something; `make chaos` runs it.
//
// It is the real binary in several processes, receivers and workers apart, on a Postgres of
// its own, with CRMs of the sandbox in this process. While senders post events, processes are
// killed and frozen, Postgres is killed and frozen, the CRMs fail in every way that a CRM may,
// workers join and leave, the config is reloaded, and an operator replays events, which is cut
// off, continued and cancelled. What happens when is drawn from a seed beforehand and printed,
// so that a run can be repeated; what the machine makes of it differs from run to run all the
// same.
//
// Among the events are some that archive records, of which others are to be made again, and some
// under several keys that are one record of the CRM. One CRM takes links with requests of their
// own, one along with the rows.
//
// The senders are such as a vendor with retries has: what is not answered with a 2xx is sent
// again until it is. Afterwards everything comes back, and when all is quiet the run asserts
// that nothing that was accepted is without an outcome, that the ledger balances, and that each
// record of the CRMs is what the events say. That is worked out anew from the events table by
// rules written down here, not by the mapper. How long it took until work went on is printed
// beside the aims, never asserted.
package main
