// Package spool keeps records on disk, in order, until they have been stored
// elsewhere. What [Spool.Append] has taken survives a kill -9 and a loss of power.
//
// It is a directory of segments: files that are appended to, and removed when all
// of their records are dropped. Each record has a checksum of its own, and so has
// its header, so that damage costs the records that it hits and no other. At the
// next start a write that was cut off is cut away; a damaged segment is reported,
// its good records are read, and then it is set aside under another name, never
// removed.
//
// A position is not kept: records that were dropped may come again after a crash,
// as long as others of their segment are left. Whoever stores them must know them
// again.
//
// The package knows nothing of what the records hold.
package spool
