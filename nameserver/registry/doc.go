// Package registry is the replicated set of names: which container, on which peer,
// has which name and address.
//
// Its one idea: a peer is the only author of its entries, and it numbers its
// changes. So each peer's names are a log, all that a replica can lack is the end
// of a log or a hole in it, and a digest of everything is one number for each peer.
//
// # Logs
//
// A change either adds an entry or removes one that an earlier change added; the
// content of an entry never changes. What a log means is the set of changes whose
// entries are alive. A [Delta] carries segments: a segment speaks of the changes in
// (from, to], lists the entries of these that are alive and the removals among them,
// and by its silence says that every other entry added in its range is dead. Applying
// a segment is idempotent, and segments of one log may come in any order: a replica
// knows which ranges it has seen, and what it has seen does not change its mind about
// an older message. That is why delayed gossip cannot bring a name back.
//
// # Forgetting removals
//
// A replica keeps the newest removals of each log only. Asked for a range that starts
// below the forgotten ones, it answers with a whole segment: the numbers of all entries
// that are alive up to from, as runs, then the range as usual. It replaces what the
// receiver holds, so no removal need be remembered for the sake of absent peers, and
// no clock says when to forget.
//
// # Lives
//
// A log belongs to a [Life] of its author: an epoch and the daemon's UID. The higher
// life wins. A peer that hears of an earlier life of itself, or of changes that it
// never made, raises its epoch above that and announces itself again: its own word
// about its names always wins. With another UID the log starts anew; with the same UID
// a higher epoch continues the log.
//
// A peer that is gone is buried with the life it had: its names vanish and gossip that
// is still under way cannot bring them back. Who hears of a buried life asks that peer
// ([Message]); if it lives, it raises its epoch, and everybody takes its names again.
//
// # Wire format
//
// A message is a type byte and a body; integers are big-endian, "uv" is an unsigned
// varint of encoding/binary. Bytes after a body are an error; unknown types are ignored.
//
//	0x01 sum      8 bytes: the first of SHA-256 over all stamps. Equal: nothing to do.
//	              Otherwise the receiver replies with its stamps (0x02).
//	0x02 stamps   n × stamp, sorted by name. The receiver replies with what the sender
//	              lacks, and with its own stamps (0x03) if it lacks something itself.
//	0x03 stamps   as 0x02, but the receiver replies with segments only
//	0x04 segments one or more segments to the end of the message
//	0x05 want     n × stamp: reply with what is newer of these logs only
//	0x06 held     one stamp, by unicast to its author: "this is the life of yours that I hold"
//	0x07 buried   one stamp, by unicast to its author: "I took this life of yours for gone"
//
//	stamp:   name(6) epoch(8) uid(8) known(8)
//	segment: name(6) epoch(8) uid(8) from(uv) to-from(uv) flags(1; 1 = whole)
//	         if whole: runs(uv) × { dead(uv) alive(uv) }      numbers ≤ from, in order
//	         adds(uv) × { number-previous(uv) 4|16(1) address
//	                      length(1) name length(1) container }  previous of the first is from
//	         removals(uv) × { number-previous(uv) number-removed(uv) }
//
// # Concurrency
//
// The package is pure. A [Registry] belongs to one goroutine at a time; its [Index]
// may be read by any number of goroutines meanwhile, without a lock.
package registry
