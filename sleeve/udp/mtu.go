package udp

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// maxPacket is the largest IP packet.
const maxPacket = 65535

// MTUOf returns the largest IP packet that a datagram to dst can leave this host
// in: the MTU of the egress interface, or what the operator set on the route if that
// is less. A path MTU that the kernel learned from ICMP does not count: anybody can
// send that. Nothing is sent. It fails when there is no route.
func MTUOf(dst netip.Addr) (int, error) {
	ep, err := NewEndpoint(netip.AddrPortFrom(dst, 9), netip.Addr{})
	if err != nil {
		return 0, fmt.Errorf("mtu of %v: %w", dst, err)
	}
	dst = ep.AddrPort().Addr()
	scope, _ := scopeOf(dst.Zone()) // a number by now
	// The entry of the table, not what the kernel would use: that has learned MTUs.
	routes, err := netlink.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true, OifIndex: int(scope)})
	if err != nil {
		return 0, fmt.Errorf("mtu of %v: %w", dst, err)
	}
	mtu := maxPacket
	for _, r := range routes {
		if r.MTU > 0 {
			mtu = min(mtu, r.MTU)
		}
		for _, index := range exits(r) {
			link, err := netlink.LinkByIndex(index)
			if err != nil {
				return 0, fmt.Errorf("mtu of %v: %w", dst, err)
			}
			mtu = min(mtu, link.Attrs().MTU)
		}
	}
	return mtu, nil
}

// exits are the interfaces that a route may use.
func exits(r netlink.Route) (indices []int) {
	if r.LinkIndex > 0 {
		return []int{r.LinkIndex}
	}
	for _, hop := range r.MultiPath {
		indices = append(indices, hop.LinkIndex)
	}
	return indices
}
