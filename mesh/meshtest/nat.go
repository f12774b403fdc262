package meshtest

import "net/netip"

// hole is what a NAT remembers of a packet that went out: who may answer to whom.
type hole struct {
	seen netip.AddrPort // the host behind the NAT, as others see it
	to   netip.AddrPort
}

// way is a hole and who made it.
type way struct {
	local  netip.AddrPort
	dialer *dialer // waits for the other end; nil: none
	met    *conn   // what it waited for
}

type dialer struct {
	local netip.AddrPort
	woken chan struct{}
}

func (d *dialer) wake() {
	select {
	case d.woken <- struct{}{}:
	default:
	}
}

// NAT puts a host behind a NAT: others see its packets come from the public address,
// with the port that they have. What comes from outside is let in only from where a
// packet was sent before, from the same port; all else is dropped. Each host has a
// public address of its own.
func (n *Net) NAT(host, public string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nat[netip.MustParseAddr(host)] = netip.MustParseAddr(public)
}

// seenLocked is what others see a host's address as.
func (n *Net) seenLocked(local netip.AddrPort) netip.AddrPort {
	if p, ok := n.nat[local.Addr()]; ok {
		return netip.AddrPortFrom(p, local.Port())
	}
	return local
}

// pierceLocked lets answers through the NAT that a host is behind, if it is.
func (n *Net) pierceLocked(local, to netip.AddrPort) *way {
	seen := n.seenLocked(local)
	w := &way{local: local}
	if seen == local {
		return w
	}
	if old := n.holes[hole{seen, to}]; old != nil && old.dialer == nil {
		return old
	}
	n.holes[hole{seen, to}] = w
	return w
}

// insideLocked finds where a packet for a public address goes; open is false if it is
// dropped.
func (n *Net) insideLocked(from, to netip.AddrPort) (in *way, open bool) {
	for _, public := range n.nat {
		if public == to.Addr() {
			in = n.holes[hole{to, from}]
			return in, in != nil
		}
	}
	return nil, true
}
