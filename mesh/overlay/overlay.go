// Package overlay is the contract between the mesh, which knows who is connected
// to whom, and the overlays, which carry frames between two peers.
//
// The mesh asks an [Overlay] for a [Link] for each control connection. A link
// proves itself by authenticated heartbeats on its very path and reports that
// with an [Event]; only then does the mesh announce the connection as
// established and the switch send frames over it.
//
// # Life of a link
//
//	Prepare   the receiving side is armed, nothing is sent
//	Start     called once, after the mesh has registered the connection;
//	          key exchange and heartbeats begin
//	Control   a message that the same overlay at the other end gave to Params.Send
//	Close     idempotent; when it returns the link sends nothing more, its keys
//	          are gone, and Notify is not called again
//
// # Concurrency
//
// All methods may be called from any goroutine and none blocks on the network.
// Params.Send and Params.Notify never block either: Send queues (and fails when
// the connection is gone), Notify hands over to the mesh's own goroutine. Neither
// may be called while holding a lock that a Link method takes.
package overlay

import (
	"net/netip"
	"slices"
	"time"

	"weave/crypto/policy"
	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/peer"
)

// Overlay makes links over one kind of path.
type Overlay interface {
	// Name is the path's word in status and offers: "sleeve", "fastdp".
	Name() string
	// Offer says what this end can do. It becomes part of the handshake
	// transcript, so nobody on the way can weaken it. Constant for a run.
	Offer() Path
	// Prepare makes the link of one control connection.
	Prepare(Params) (Link, error)
}

// Path is one overlay's part of an Offer.
type Path struct {
	Name string // Overlay.Name
	Port uint16 // UDP port this end receives on
	Data []byte // overlay's own parameters, at most 256 bytes
}

// Offer is what one end of a control connection brings. Both ends compute the
// same Agreement from the two offers.
type Offer struct {
	Ciphers []session.Cipher // acceptable ciphers, preferred first
	Lanes   int              // lanes this end can receive on, 1..MaxLanes
	Paths   []Path           // overlays, preferred first
}

// MaxLanes is the largest number of lanes a link can have for bridge traffic.
const MaxLanes = 16

// Agreement is what two offers have in common.
type Agreement struct {
	Cipher session.Cipher // CipherNone when there is none in common
	Lanes  int
	Paths  []string // common overlays in the order of preference of the initiator
}

// Agree computes what the two ends of a connection will do. It is a pure function
// of both offers, equal on both ends. The cipher that both ends put first wins;
// otherwise ChaCha20-Poly1305 if both accept it (it is fast on every CPU);
// otherwise the initiator's first that the responder accepts.
func Agree(initiator, responder Offer) Agreement {
	a := Agreement{Lanes: max(1, min(initiator.Lanes, responder.Lanes, MaxLanes))}
	var common []session.Cipher
	for _, c := range initiator.Ciphers {
		if c != session.CipherNone && slices.Contains(responder.Ciphers, c) {
			common = append(common, c)
		}
	}
	switch {
	case len(common) == 0:
	case initiator.Ciphers[0] == responder.Ciphers[0] || !slices.Contains(common, session.CipherChaCha):
		a.Cipher = common[0]
	default:
		a.Cipher = session.CipherChaCha
	}
	for _, p := range initiator.Paths {
		if slices.ContainsFunc(responder.Paths, func(r Path) bool { return r.Name == p.Name }) {
			a.Paths = append(a.Paths, p.Name)
		}
	}
	return a
}

// Params is all a link needs to know of its connection.
type Params struct {
	Local, Remote peer.Name
	ConnUID       uint64 // equal on both ends, new for every control connection
	Initiator     bool   // this end dialed the control connection
	LocalAddr     netip.Addr
	RemoteAddr    netip.AddrPort // the peer's address as TCP sees it, with the UDP port of its offer; the initiator's is right unless there is NAT, the responder's only a hint
	Offer         Path           // what the other end offered of this path, as the transcript has it
	Agreement     Agreement      // its Cipher is CipherNone if Permit allows clear data
	Secret        session.Secret // shared by the two ends of the control connection alone
	Permit        policy.Permit  // whether the data may travel in clear

	Send   func(msg []byte) error // to the same overlay at the other end, reliable and in order; copies msg
	Notify func(Event)
}

// Event is a change of a link's state, in the order it happened.
type Event struct {
	Up     bool
	Reason string // constant word or two: why it is down; empty when up
	Err    error  // detail, may be nil
	Fatal  bool   // the link will not come up again by itself; close the connection
}

// Link is one path to one peer.
type Link interface {
	Start()
	Control(msg []byte)
	Status() Status
	Close()
}

// FrameLink is a Link that takes frames from user space.
type FrameLink interface {
	Link
	// Send carries sf towards rt.Dest. It is called only by the worker that owns
	// lane and may overwrite sf. Datagrams may stay queued until the worker's
	// Flush. A frame that cannot be sent is dropped and counted by reason.
	Send(lane int, rt peer.Route, sf *ether.Superframe)
}

// Status is what users see of a link.
type Status struct {
	Path      string // Overlay.Name
	Up        bool
	Cipher    session.Cipher // CipherNone: in clear
	Lanes     int
	Remote    netip.AddrPort // where datagrams go now
	MTU       int            // largest inner IP packet the path carries in one datagram; 0 unknown
	RTT       time.Duration  // smoothed; 0 unknown
	LastHeard time.Time      // last authenticated datagram; zero: none
	KeyEpoch  uint32         // key exchanges done on this link
	KeyAge    time.Duration
	Reason    string // why it is not up
	Offloads  string // for instance "gso,gro"
	Counters  Counters
}

// Counters of one link since it was prepared.
type Counters struct {
	TxFrames, TxBytes, TxDatagrams uint64
	RxFrames, RxBytes, RxDatagrams uint64
	Drops                          map[string]uint64 // by reason
}
