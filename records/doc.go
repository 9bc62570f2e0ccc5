// Package records holds the rules: what a CRM record should be, what to do next about it, and
// what an answer of the CRM means. It is pure. It knows no context, SQL, HTTP, queue, clock, log
// or randomness, so that a test can play a hundred thousand histories a minute against it.
//
// # The states
//
// A Record has a desired state and an observed state, field by field and link by link.
//
//	Field    Wanted at Version             what the newest event wants (set_first: the oldest)
//	         Acked at AckedAt              what the CRM took last; no AckedAt: nobody is sure, and
//	                                       HadAt tells of when it was
//	         Refused, Kept                 the CRM will not have the wanted value, or has one of its own
//	                                       that stays; it is not sent again
//	Link     Want  Linked, Unlinked        what the newest statement wants
//	         Have  Absent, InDoubt, Exists what the CRM has
//	         Verdict Open, Refused, Waived whether it may still be acted on; Need is the table of all three
//	Record   Presence Unknown              no event has made it yet, or it is to be made again
//	                  Present, Gone        the CRM has it, or has it no more
//	                  Unsure               a create that must not be repeated got no answer
//
// A Delivery is one change on its way to its record. It is open until it has an Outcome. While
// it is open it is ready for a step, waiting (uncounted), failing (counted) or blocked (by a
// record of the same batch). Finish, Wait, Fail and Block are its transitions; nothing else
// writes them.
//
// # The loop
//
//	Begin    lays the changes of a batch over the desired state (Fold)
//	Next     ends the deliveries that need nothing more and names the next step: Find, Search or
//	         Read, then Write, Archive, and when the rows are done Linking and Unlink
//	Intend   is the record as it has to be stored before the step is sent: in doubt
//	Apply    turns the answer into observed state and outcomes
//	Rest     puts off what is left
//
// Next looks at the state alone, never at what led to it. So every remedy is a step like any
// other: a record that is gone is looked up, made again or given up; a field that the CRM
// refuses by name is left out, and an older value of the batch stands in for it; a row that is
// refused without a name is sent again event by event.
//
// # What holds
//
//   - Folding commutes: the same changes in any order give the same desired state. Merging two
//     records gives what folding all their changes into one would have.
//   - A value is acknowledged only by an answer that says so. Whatever may have been carried out
//     is in doubt: it is sent again, and a create that must not be repeated is not.
//   - No value is sent that is older than what the CRM has acknowledged.
//   - Each remedy is tried once for a record in a batch, so that a batch ends.
//   - A record that may be found in the CRM is looked for before it is made, and is made by a
//     request that changes none that is there.
//   - A value under a rule that depends on the CRM is sent only after the CRM has shown what it
//     has, or that it has no such record.
//
// fold.go is the desired state, link.go the state of links, delivery.go that of deliveries,
// work.go a record within a batch, look.go what the CRM has already, rules.go the values that
// depend on that, next.go the next step, apply.go the answers.
package records
