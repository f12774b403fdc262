// Package wire has the bytes of control connections after their handshake:
// records, the messages split into them, and the messages' bodies.
//
// The idea to read it: a record is what is sealed, a message is what is meant; a
// message longer than a record is split into several, and nothing of a message is
// stored before its length so far was checked against the limit of its kind.
//
// The package is pure. Offers, which travel inside the handshake, are here too
// because they are made of the same CBOR.
//
// # Wire format
//
// The stream is a sequence of records:
//
//	offset  size  meaning
//	0       2     length n of the sealed body, big-endian, 18..16384
//	2       n     sealed body: plaintext and 16 bytes of tag
//
// The plaintext of a record:
//
//	0       1     tag, a Tag
//	1       1     flags: bit 0 MORE, the others zero
//	2       n-18  piece of the message's body
//
// All pieces of a message have its tag and stand one after the other; all but
// the last have MORE set. A record of another tag in between, an unknown flag, an
// empty piece with MORE, and a body longer than its tag's limit are errors that
// end the connection. A message of an unknown tag is skipped, never stored.
//
//	tag  name       limit    body
//	1    hello      4 KiB    CBOR map, once, first
//	2    heartbeat  8 B      8 bytes chosen by the sender
//	3    echo       8 B      the body of the heartbeat it answers
//	4    overlay    16 KiB   index u8 of the path in the agreement, then the overlay's message
//	5    unicast    128 KiB  hops left u8, origin (6), destination (6), channel, payload
//	6    gossip     128 KiB  channel, an update or answer of that channel
//	7    digest     128 KiB  channel, what it sums its state up to
//	8    close      1 KiB    CBOR map, once, last
//
// A channel is one byte of length, 1..32, and its name. The limits of 5 to 7 are for
// the payload; names and what stands before them come on top.
//
// CBOR (RFC 8949) is deterministic and of definite lengths, without tags or
// duplicate keys, its maps have integer keys, and nothing may follow the item.
// Unknown keys are ignored: that is how messages grow. Keys and values are
// append-only.
//
//	hello   1 name (6 bytes)  2 nickname (text ≤ 256 B)  3 uid (1..2^64-1)
//	        4 connection id (64 bit)  5 "I trust you" (bool)  6 TCP port it listens on, 0 none
//	        7 version (text ≤ 64 B)  8 capabilities (map of at most 32: u16 → ≤ 256 B)
//	        9 "I dialed an address that I had from other peers" (bool)
//	        10 how much the dialer wants it (u8, bits of Room)
//	close   1 code (u8)  2 text (≤ 512 B)  3 where to connect instead (≤ 8 of IP address,
//	        4 or 16 bytes, and port, 2 bytes)
//	offer   1 ciphers (≤ 8 of u8, not 0)  2 lanes (1..16)  3 paths (≤ 8 of path)
//	path    1 name (1..16 of [a-z0-9-])  2 UDP port  3 data (≤ 256 B)
//
// An offer is at most 512 bytes.
//
// # Errors
//
// ErrMalformed and ErrTooLong are all there is; both mean that the peer is broken
// or hostile and leave no state worth keeping.
package wire
