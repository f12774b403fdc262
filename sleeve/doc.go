// Package sleeve is the user-space overlay: it carries Ethernet superframes
// between peers in sealed UDP datagrams.
//
// Its one idea is the shard. A superframe (up to 64 KiB with one header, see
// [ether.Superframe]) is not segmented; it is cut into pieces that are each the
// unmodified header followed by whole segments of payload. Each piece is sealed on
// its own and all leave in one sendmsg. The receiver puts a complete run of
// shards together again without touching a header byte, so both ends work in units
// of 64 KiB while a lost datagram costs only the segments it carried. Datagrams of one
// UDP flow that come from the TAP device one by one are joined to a superframe first.
//
//	Link.Send → join or cut → session.Sealer.Seal (the only copy) → arena → Sender.Send
//	Socket.Recv → session.Opener.Open (in place) → lane → run → Receiver.Receive
//
// # Wire format
//
// A datagram is a session envelope (16 bytes, see package session) and a sealed
// plaintext. All integers are little-endian. If bit 0 (RELAYED) of the envelope's
// flags is set, the plaintext starts with a route, which is otherwise implied by
// the link (origin = sender, dest = receiver):
//
//	0      6 origin peer name
//	6      6 destination peer name, zero for a flood
//
// If bit 1 (FLOODED) is set, there is no route, and the frame is a flood of the
// sender's. Both bits are never set together.
//
// Then comes a meta of 8 bytes, then data:
//
//	0      kind in bits 7..4, flags in bits 3..0
//	       kinds  0 CONTROL  1 FRAME  2 SHARD  3 BUNDLE  4 FRAG
//	       flags  1 NEEDS_CSUM  2 LAST  4 ECN  8 PADDED
//	1      GSO type: 0 none, 1 TCPv4, 4 TCPv6, 5 UDP (of virtio_net_hdr)
//	2      SHARD: length of the template; else 0
//	3      csum_start, counted from the first byte of the frame, VLAN tags included
//	4..5   SHARD: index of the first segment   FRAME: csum_offset
//	       FRAG: bits 12..0 offset in units of 8 bytes, bit 15 "more follow"
//	6..7   SHARD: segment size   FRAG: identification   else 0
//
//	CONTROL  [message]                    lane 63 only, see below
//	FRAME    [Ethernet frame]             NEEDS_CSUM carries a partial checksum on
//	SHARD    [template][k whole segments] NEEDS_CSUM always; LAST: the superframe
//	                                      ends here and its last segment may be short;
//	                                      PADDED, never with LAST: what follows the
//	                                      last whole segment is ignored
//	BUNDLE   ([u16 n][meta of a FRAME][n bytes of frame])...
//	FRAG     [piece of a meta and frame]  of a frame that fits no datagram
//
// The template is the superframe's header from layer 2 to layer 4 exactly as its
// sender wrote it: total lengths, sequence number, IP ID and flags are the whole
// superframe's in every shard. There is no superframe identifier: a superframe
// takes a contiguous block of counters of one lane, so a shard continues another
// iff its counter is the next one and its index the next segment.
//
// A sender pads where the cipher is faster for it (see padding): AES-256-GCM works on
// 128 bytes at a time and then block by block. Padding is whatever lay behind in the
// same superframe.
//
// With a meta of 8 bytes a shard of one segment of maximal size is as long as a
// frame of maximal size: the overhead is [Overhead] bytes above the inner IP packet
// and TCP's maximum segment size needs no special case.
//
// # Control messages
//
// Heartbeats travel as sealed datagrams on lane 63 of the path that they prove:
//
//	0      1 = request, 2 = reply
//	1      zero; ignored on receipt
//	2..3   UDP payload of the request in bytes, in a reply as it was received
//	4..7   number of the request
//	8..15  sender's clock in nanoseconds, returned unchanged in the reply
//	16..   zeros up to the size that is to be proved (requests)
//
// A longer message than this is accepted and its tail ignored.
//
// # Path MTU
//
// The size of datagrams is what the peer echoed, never what ICMP says (RFC 8899).
// When a heartbeat of the size in use and two repetitions are not answered while
// smaller ones are, the link uses a smaller size. Then, and from time to time, the
// largest that passes is searched for. Superframes of TCP are cut anew to whatever
// the size is now; what fits no datagram goes in FRAGs if the network may cut it or
// it is as small as every link must carry, and else to Config.TooBig.
//
// # Lanes
//
// Each lane has its own keys, counters and replay window, and one owner at each
// end. TX worker q seals on lane q (0..15), RX worker l relays on lane 32+l, the
// link's own goroutine seals on lane 63. The receiving side of a lane belongs to one RX
// worker, see [Owner]; what arrives at another's socket is copied and handed over.
//
// # Concurrency
//
// [Overlay.Run] starts one RX worker per lane socket, a goroutine locked to its
// thread that reads until the socket is empty and calls the [Receiver]. TX workers
// belong to the caller: all calls of [Link.Send] and [Overlay.Flush] with the same
// lane come from one goroutine. Each link has one goroutine for heartbeats and keys;
// it changes what the workers see only by swapping atomic pointers to immutable
// values. Nothing on the packet path locks, allocates, or waits for another worker.
//
// # Errors
//
// Nothing that arrives from the network is an error: what is wrong with a datagram
// is counted by reason and the datagram dropped.
package sleeve
