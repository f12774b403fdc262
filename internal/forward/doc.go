// Package forward is the Ethernet switch between the local bridge and the peers.
//
// Its one idea: a forwarding decision is data. [Switch.Decide] maps where a frame
// came from and its two MAC addresses to a [Verdict]: deliver here, send on these
// paths, or drop for a named reason. The packet workers execute the verdict on the
// frame in hand; a kernel path installs what the same function says.
//
//	TX[q]  TAP queue q → Read → Decide → Path.Send(lane q) … Flush(lane q)
//	RX[l]  sleeve socket l → Receive → Decide → port l Write, or Path.Relay(lane 32+l)
//
// What the workers look at is immutable or atomic: the mesh's routes are one
// [Snapshot] behind one pointer, the MAC table is read without a lock.
//
// # Floods
//
// Broadcasts, multicasts, and frames for addresses that nobody has heard from go along
// a tree of the peer that they come from at first, so that each peer gets them once. A
// peer takes them from its parent in that tree only; when the tree changes it would
// rather take none for a moment than one twice (see trees).
//
// # MAC addresses
//
// The switch is the only authority on where a MAC lives. A MAC is learned at a
// peer from frames that come from that peer, and as local from frames that come
// from the bridge. A MAC may move at any time, both ways: the newest sighting
// wins. A MAC that moves more than maxMoves times within moveWindow is the sign
// of a loop (a second layer-2 path between two hosts): it stays where it is and
// frames that say otherwise are dropped and counted until the window is over. What
// circulates in such a loop is dropped and counted, too (see repeats).
//
// # Concurrency
//
// One worker per port, locked to its OS thread, owns that port's buffers and the
// sending lane of the same number. Receive is called by the overlay's RX worker of
// the same lane number; a port is written by that worker alone. Learned and moved
// addresses are handed to Config.OnMAC through a bounded queue by a goroutine of
// the switch.
package forward
