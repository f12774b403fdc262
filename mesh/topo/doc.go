// Package topo is what a peer knows of the shape of the network: which peers there
// are and who is connected to whom; and the routes that follow from it.
//
// Its one idea: each peer is the only author of its own [Record], and signs it.
// Records are versioned by their author, so merging is taking the newer one, and
// all peers that have the same records compute the same routes.
//
// # Who is believed
//
// A record is taken only with the signature of the key that it names. Which key a
// name has is known for certain about neighbours, whose keys are proved by the
// handshake of the connection ([Topology.SetNeighbour]): what others say with
// another key is not believed, however new. About a peer further away the first key
// heard is kept for as long as some peer says that it is connected to the holder of
// just that key: each entry of a record has a [Mark] of the other end's key. So a
// member that lies can spoil its own connections, and take a name that nobody has;
// it can't touch the connections between others.
//
// # Restarts
//
// A record is newer if its Version is higher, or, at the same Version, its UID.
// A restarted peer has a new UID and starts again at a low Version; when it hears
// of its earlier self it raises its Version above it and announces itself again. So
// the newest life of a peer wins everywhere. If two live peers have one key and one
// name, which are copies of one host's state, they raise their Versions in turns:
// that is noticed, named by [Topology.Conflicts], and slowed down.
//
// # Reachability
//
// A peer that no chain of connections joins to the local peer, each announced by
// the end that is nearer, is forgotten with its record ([Topology.Collect]).
//
// # What others can cost
//
// Records, bytes of connections in all, updates of one author per second, and new
// names per second are limited; what is over a limit is left out and counted in
// [Counters], and found again later by comparing digests if it was honest.
//
// # Wire format
//
// A message between neighbours is a type byte and a body; numbers are big-endian.
// Unknown types are ignored; bytes after a body are an error.
//
//	0x01 sum      8 bytes: the first of SHA-256 over all stamps. If the receiver's are
//	              the same, nothing is to be done; otherwise it replies with its stamps.
//	0x02 stamps   first and last name(6, 6) of the range that the message is about, and
//	              the stamps of the sender's records in it, sorted: name(6) uid(8)
//	              version(8). The receiver replies with records that the sender lacks, and
//	              if it lacks some itself with its own stamps of that range, as 0x03.
//	0x03 stamps   as 0x02, but the receiver replies with records only.
//	0x04 updates  any number of updates
//	0x05 want     names(6) of records; the receiver replies with those it has, whole
//
// An update is a whole record, or what changed in one since a Version:
//
//	offset  size  meaning
//	0       6     name
//	6       8     uid
//	14      8     version
//	22      8     base: 0 for a whole record; else a receiver that has the record in this
//	              or a later version (of the same uid) can apply the change
//	30      1     flags: 1 full
//	   whole:                             change:
//	        2     TCP port, 0 none             2     n of connections, new or changed
//	        32    Ed25519 public key           n     connections
//	        1 n   nickname, UTF-8              2     n of connections that are gone
//	        1 n   program version, UTF-8       6 n   names
//	        2     n of connections
//	        n     connections
//	        64    signature               64    signature
//
// A connection, sorted by name in both:
//
//	0       6     name of the peer at the other end
//	6       4     mark of its key
//	10      1     flags: 1 outbound, 2 established, 4 IPv6
//	11      4|16  IP address of the other end
//	        2     TCP port of the other end
//
// The signature is over "weave topology record\x00" and the whole record without
// it, so that a change is good exactly if it leads to what the author signed.
//
// # Concurrency
//
// The package is pure; a Topology belongs to one goroutine. Records, Deltas and
// Routes are immutable.
package topo
