package keeper

import (
	"context"
	"net/netip"

	"github.com/vishvananda/netlink"

	"weave/internal/ether"
	"weave/odp"
)

// Driver makes what is different between kernel backends. Its methods are called one at
// a time, but for Run. Errors that tell why there is no way are odp.ReasonErrors.
type Driver interface {
	// Name of the backend.
	Name() string
	// Usable reports whether a device of the port's name and kind is as Create would
	// make it.
	Usable(p *Port, link netlink.Link) bool
	// Create makes the port's device, down and not on the bridge, and what belongs to
	// it, where there is none.
	Create(p *Port) error
	// Mend brings what belongs to an existing device back in order, but for its
	// entries; deep asks to look at what is seldom wrong too.
	Mend(p *Port, deep bool) error
	// Remove removes the device and what belongs to it, as far as it is there.
	Remove(p *Port) error
	// Enter makes frames to mac that enter the port go to an address; Leave undoes it.
	Enter(p *Port, mac ether.MAC, to netip.AddrPort) error
	Leave(p *Port, mac ether.MAC)
	// Admit lets packets from addrs in, and from no others: all there are, in order.
	// It is called often with the same.
	Admit(p *Port, addrs []netip.Addr) error
	// Sync makes the entries that are in the kernel those that are wanted.
	Sync(p *Port, want map[ether.MAC]netip.AddrPort) error
	// Entries reads the entries of a device, for adoption.
	Entries(p *Port) (map[ether.MAC]netip.Addr, error)
	// Strict reports whether Admit itself keeps packets of strangers out, so that the
	// port may be up where the kernel has no packet filter.
	Strict() bool
	// Counters adds totals to out.
	Counters(out map[string]uint64)
	// Run does what has to be done between calls, until ctx ends.
	Run(ctx context.Context, k *Keeper)
	// Close frees descriptors; the kernel stays as it is.
	Close() error
}

// Sealer is a Driver whose packets travel inside something that authenticates them. Its
// ports have one probe MAC for both families (odp.SealedProbeMAC), no packet filter, and
// entries that lead to addresses inside.
type Sealer interface {
	Driver
	// Inside takes note of a peer, and returns where frames to it lead. The peer is
	// admitted by the next Admit with that address, and forgotten by one without it.
	Inside(odp.Peer) (netip.AddrPort, error)
}

// Port is the device of a Driver that is a port of the bridge.
type Port struct {
	Name     string    // of the device
	Kind     string    // of the device, as in `ip -d link`; one of another kind is not ours
	Families [2]bool   // of the underlay that it serves: IPv4, IPv6
	MAC      ether.MAC // of the device: the probe MAC of the first family, or the sealed one; set by Open

	// Index is the ifindex, 0: there is no device, or it is not usable yet.
	Index int

	more   []ether.MAC // probe MACs of further families
	err    error       // why it is not usable, a ReasonError
	sock   *probeSock
	remade bool   // the bridge's entries of the port are gone
	logged string // last error logged
}

func (p *Port) serves(f int) bool { return p.Families[f] }

func (p *Port) setMACs(cfg *Config, sealed bool) {
	p.more = nil
	if sealed {
		p.MAC = odp.SealedProbeMAC(cfg.Local)
		return
	}
	for f, on := range p.Families {
		switch mac := odp.ProbeMAC(cfg.Local, f == 1); {
		case !on:
		case p.MAC == ether.MAC{}:
			p.MAC = mac
		default:
			p.more = append(p.more, mac)
		}
	}
}

func (p *Port) closeSock() {
	if p.sock != nil {
		p.sock.f.Close()
		p.sock = nil
	}
}
