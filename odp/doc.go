// Package odp is the kernel path "fastdp": frames of known MACs go from bridge to
// bridge in the kernel, without user space.
//
// Its one idea: this package never sees a frame of the overlay. It proves that the
// kernel's path to a peer works (package proof), and tells who steers where each MAC
// may go; a [Backend] keeps the forwarding state in the kernel. Broadcast, multicast
// and unknown addresses stay in user space, whatever the path.
//
// # Life of a path
//
//	Prepare   the permit allows clear data, or there is no path; packets of the
//	          peer are admitted (its receive side is armed)
//	Start     both ends say hello over the control connection; heartbeats begin
//	up        three heartbeats of the full MTU were answered: MACs may be steered
//	down      none was answered for 1.2 s, or the backend says why there is no way
//	Close     a path that was up lingers: the kernel goes on for LingerTime, so
//	          that a peer's new daemon finds its traffic where it was
//
// # MAC addresses
//
// What travels in the kernel is not seen by the switch, which would forget who lives
// where. So each end vouches for the MACs on its own bridge, over the control
// connection: all of them when a path starts and once a minute, new ones at once.
//
// # Wire format
//
// Messages over the control connection, integers big-endian; what follows the fields
// is ignored, as are messages of types that are not known:
//
//	0   1  type: 1 hello
//	1   1  version, 1
//	2   3  VXLAN network identifier
//	5   2  MTU of the overlay
//	7   1  length of the address: 0, 4 or 16
//	8      address that the sender's packets to the receiver come from
//
//	0   1  type: 2 MACs, at most 1000
//	1      6 bytes each
//
// Data of the offer in the handshake; from byte 6 on of sealed paths only:
//
//	0   1  version, 1
//	1   3  VXLAN network identifier
//	4   2  MTU of the overlay
//	6   1  1: this end wants the path whatever the ciphers are
//	7      what the Backend at the other end is to know
//
// Heartbeats are drawn in package proof. Their keys are session.Secret.Derive of
// "weave fastdp v1 initiator" and "... responder", by who dialed the control
// connection of the sender. The Backend of a sealed path gets "weave cage v1 psk".
//
// # Concurrency
//
// Each link has a goroutine that owns its proof.Machine. Overlay's mutex guards the
// tables of links and of paths that linger; it is not held while a Backend is asked
// for something that takes long, nor while Params.Send or Notify is called.
package odp
