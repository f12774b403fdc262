package odp

import (
	"context"
	"errors"
	"net/netip"

	"golang.org/x/crypto/blake2s"

	"weave/internal/ether"
	"weave/internal/peer"
)

// Backend carries frames of known MACs to peers in the kernel. What it makes there
// it finds again by name, and keeps in the state that it was asked for until Close,
// whatever others do to it. It is in no hurry to report: a peer that cannot be
// reached now has a State with the reason, and is tried again.
//
// All methods may be called from any goroutine; they ask the kernel and do not wait
// for the network.
type Backend interface {
	// Name of the backend in status: "vxlan".
	Name() string
	// AddPeer admits packets from the peer's addresses, and makes its probe MAC
	// reachable. Called again it changes the addresses. It steers nothing.
	AddPeer(Peer)
	// RemovePeer undoes AddPeer, and Steer of MACs to that peer.
	RemovePeer(peer.Name)
	// Steer makes frames to mac that enter port go to the peer. The caller then
	// points the bridge's entry of mac to port. Called again it moves mac.
	Steer(mac ether.MAC, to peer.Name) (port int, err error)
	// Unsteer undoes Steer, after the bridge's entry is gone from the port.
	Unsteer(mac ether.MAC)
	// Ports lists the ifindexes of the bridge's ports that the backend has now.
	Ports() []int
	// SendProbe sends a whole Ethernet frame to the peer's probe MAC on the path
	// that steered frames take.
	SendProbe(to peer.Name, frame []byte) error
	// State says what is known of the way to the peer.
	State(peer.Name) State
	// Adopted returns the MACs, and where they lead, of entries that an earlier run
	// left and nobody has asked for yet; Disown removes them.
	Adopted() map[ether.MAC]netip.Addr
	Disown()
	// Counters are totals since Open, by a constant word.
	Counters() map[string]uint64
	// Run keeps the kernel in the state asked for, and hands over probe frames,
	// until ctx ends. It returns when its goroutines are gone.
	Run(ctx context.Context, s Sink) error
	// Close frees descriptors. What is in the kernel stays and works.
	Close() error
}

// Sink is what a running Backend talks to. Its methods are called from goroutines of
// the backend and do not block.
type Sink interface {
	// Probe takes a frame of the probe's ethertype; it is valid until Probe returns.
	Probe(frame []byte)
	// Changed says that ports were made anew: the bridge has lost its entries.
	Changed()
}

// Peer is what a backend needs to know of a peer.
type Peer struct {
	Name peer.Name
	Addr netip.AddrPort // where its kernel listens
	Also netip.Addr     // another address that its packets come from; zero: none

	// Of a path that encrypts by itself, else zero.
	Data string   // what the peer's end put into its offer: Config.OfferData
	PSK  [32]byte // known to the two ends of the control connection alone
}

// State is what a backend knows of the way to a peer.
type State struct {
	Err    error      // why there is no way, with a Reason; nil: there may be one
	Port   int        // ifindex of the bridge's port; 0: none
	MTU    int        // largest inner IP packet that can leave this host; 0: unknown
	Source netip.Addr // our address on packets to the peer; zero: unknown
}

// Reasons why a kernel path is not up. They are values of labels and of JSON: append
// only.
const (
	ReasonOff      = "off"            // switched off at this host
	ReasonRemote   = "not-offered"    // the peer does not do it
	ReasonPolicy   = "encryption"     // the data must be encrypted, and this path is not
	ReasonModule   = "no-vxlan"       // the kernel cannot make the device
	ReasonOVS      = "no-openvswitch" // the kernel has no Open vSwitch datapath
	ReasonFilter   = "no-nftables"    // strangers' packets could not be kept out
	ReasonPort     = "port-in-use"    // by somebody else's device or socket
	ReasonDevice   = "device"         // the device could not be made or mended
	ReasonRoute    = "no-route"       // the host has no way to the peer
	ReasonMTU      = "mtu"            // the way is too narrow for the overlay's MTU
	ReasonVersion  = "version"        // the peer's kernel path is of another kind
	ReasonProbing  = "probing"        // too early to tell
	ReasonSilent   = "no-reply"       // heartbeats get no answer: a firewall, or another host is there
	ReasonTimeout  = "timeout"        // it worked, and heartbeats are not answered any more
	ReasonSettling = "settling"       // works again, and has to for a while
	ReasonClosed   = "closed"         // the connection ended
	ReasonBuild    = "not-available"  // the backend is not in this build
	ReasonClear    = "clear"          // the data may be in clear, and this path encrypts
	ReasonCipher   = "cipher"         // user space encrypts faster: both CPUs do AES
	ReasonNoWG     = "no-wireguard"
	ReasonTrouble  = "quarantine" // earlier runs died soon after they used it
	ReasonSpare    = "spare"      // another backend of this host is used for the path
)

// ReasonError is an error with one of the reasons.
type ReasonError struct {
	Why string
	Err error
}

// Error returns the reason and the cause.
func (e *ReasonError) Error() string {
	if e.Err == nil {
		return e.Why
	}
	return e.Why + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *ReasonError) Unwrap() error { return e.Err }

// Reason returns the constant word.
func (e *ReasonError) Reason() string { return e.Why }

// ReasonOf returns the reason of an error, ReasonDevice for one without; "" for nil.
func ReasonOf(err error) string {
	var r *ReasonError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &r):
		return r.Why
	}
	return ReasonDevice
}

// ProbeMAC is the address that a peer's heartbeats come from and go to, made of its
// name: on each family of the underlay another one, as each has its own port.
func ProbeMAC(n peer.Name, ipv6 bool) ether.MAC {
	if ipv6 {
		return probeMAC(n, 6)
	}
	return probeMAC(n, 4)
}

// SealedProbeMAC is the same on paths that encrypt, which have one port for both
// families.
func SealedProbeMAC(n peer.Name) ether.MAC { return probeMAC(n, 's') }

func probeMAC(n peer.Name, port byte) ether.MAC {
	b := n.Bytes()
	sum := blake2s.Sum256(append(append([]byte("weave probe mac v1"), b[:]...), port))
	m := ether.MAC(sum[:6])
	m[0] = m[0]&^1 | 2
	return m
}
