package mesh

import (
	"context"
	"log/slog"
	"net"
	"net/netip"

	"weave/crypto/handshake"
	"weave/crypto/session"
	"weave/internal/peer"
	"weave/mesh/gossip"
	"weave/mesh/overlay"
)

// DefaultPort is the TCP port of control connections. Overlays use the UDP ports
// with the same and the next number.
const DefaultPort = 6783

// Config is all a Router needs. It is read once, by New.
type Config struct {
	Name     peer.Name // of this peer, never zero
	NickName string    // free text for people, usually the host name; at most 256 bytes are sent
	UID      peer.UID  // of this run; zero: New draws one
	Version  string    // of this program, shown by peers

	Static *handshake.StaticKey // who we are; never nil
	PSK    *handshake.PSK       // from the password; nil: none
	Pins   Pins                 // nil: kept in memory

	Host    netip.Addr // address to listen on and dial from; the zero Addr: all
	Port    uint16     // TCP port to listen on and of targets without one; 0: DefaultPort
	Targets []string   // dialed from the start, "host" or "host:port" or "[v6]:port"

	Overlays []overlay.Overlay // preferred first
	Ciphers  []session.Cipher  // acceptable for data, preferred first
	Lanes    int               // lanes this host can receive on, 1..overlay.MaxLanes
	Trusted  []netip.Prefix    // networks whose peers need no encryption, if they say the same of us

	ConnLimit int  // most connections, in and out together; 0: no limit
	Discovery bool // also dial peers that peers are connected to

	Channels []gossip.Open // replicated states that live on the mesh besides the topology; opened by New

	Net      Net          // nil: SystemNet
	OnChange func(View)   // called on the loop after each change and once at the start; must not block or call the Router; may be nil
	Log      *slog.Logger // nil: discarded
}

// Pins remembers which static key belongs to which name. It is called on the loop
// and may block for as long as a local disk does.
type Pins interface {
	Pin(peer.Name) (handshake.PublicKey, bool)
	SetPin(peer.Name, handshake.PublicKey)
}

// Net is what a Router needs of the network. [SystemNet] is the real one;
// mesh/meshtest has one in memory.
type Net interface {
	// Listen accepts connections to addr; the zero address means all.
	Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error)
	// Dial connects from an address (zero: any) and port (0: any; it may be one that is
	// listened on) to another. Addresses of the connection are *net.TCPAddr. Two dials
	// that meet give one connection.
	Dial(ctx context.Context, from, to netip.AddrPort) (net.Conn, error)
	// Resolve returns the addresses of a host name, best first, at least one
	// unless err is set. It is not called for literal addresses.
	Resolve(ctx context.Context, host string) ([]netip.Addr, error)
}
