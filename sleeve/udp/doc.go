// Package udp is the socket layer under the user-space overlay: it moves trains
// of equal-sized datagrams with one system call each way.
//
// Its one idea: what the data plane hands over is a buffer and a segment size. The
// kernel cuts the buffer into datagrams as late as it can (UDP_SEGMENT) and joins
// them as early as it can (UDP_GRO), so a 64 KiB train crosses most of both network
// stacks as one packet. Whatever a kernel or device refuses is sent again in plain
// datagrams at once, and the offload is dropped if it cannot work.
//
// # Flow
//
//	Listen   → Group of n sockets on one port, one Socket per lane
//	Socket   → NewSender per sending goroutine, NewReceiver for its receiving worker
//	Sender   Send(endpoint, buf, segSize) → one sendmsg; SendBatch → one sendmmsg
//	Receiver Recv() → recvmmsg → Slots; Slot.Next() → datagrams
//
// # Steering
//
// With more than one socket a classic BPF program on the reuseport group picks the
// socket from byte 1 of the datagram, the lane: lane 63 (control) goes to socket 0,
// any other to socket (lane mod 32) mod n. A datagram of fewer than two bytes goes
// to socket 0. Steering is by the first datagram of a train: all lanes of two hosts
// share one pair of addresses and ports, so a receiving device that rejoins
// datagrams (GRO) may put a datagram of another lane behind it. A receiver must
// therefore accept datagrams of any lane on any socket.
//
// # Filler
//
// Kernels 7.0 to 7.1.4 send wrong headers and checksums when the last segment of a
// train is as long as the others. On these a short datagram of zeroes ends such a
// train. [Slot.Next] leaves out what cannot be a frame: datagrams shorter than two
// bytes, and those that start with a zero byte.
//
// # Concurrency
//
// A Sender belongs to one goroutine, a Receiver to one goroutine; any number of
// Senders may share a socket. Features and Stats may be called from anywhere.
// All descriptors are non-blocking. Recv never blocks; wait with rawio.Poller on
// Socket.FDs. Send blocks only when the socket buffer is full, for 100 ms at most.
//
// Close wakes nobody and a closed descriptor may be reused by the process at once:
// stop the workers first (rawio.Poller.Wake), then call [Group.Close].
//
// # Errors
//
// Send returns one of the Err values of this package, unwrapped, so that a caller
// may compare; each says what happened to the datagrams, and each has its counter in
// [Stats]. All but ErrClosed leave the Sender usable. ICMP errors never surface: a
// heartbeat that stays out says more and cannot be forged.
package udp
