package udp

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// MTUOf returns the largest IP packet that a datagram to dst can leave this host
// in: the MTU of the egress interface, or less where the route, or a path MTU that the
// kernel holds for dst, says so. Nothing is sent. It fails when there is no route.
func MTUOf(dst netip.Addr) (int, error) {
	ep, err := NewEndpoint(netip.AddrPortFrom(dst, 9), netip.Addr{})
	if err != nil {
		return 0, fmt.Errorf("mtu of %v: %w", dst, err)
	}
	family, level, opt := unix.AF_INET, unix.SOL_IP, unix.IP_MTU
	var sa unix.Sockaddr
	if dst = ep.AddrPort().Addr(); dst.Is4() {
		sa = &unix.SockaddrInet4{Port: 9, Addr: dst.As4()}
	} else {
		scope, _ := scopeOf(dst.Zone())
		family, level, opt = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_MTU
		sa = &unix.SockaddrInet6{Port: 9, Addr: dst.As16(), ZoneId: scope}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("mtu of %v: %w", dst, err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, sa); err != nil {
		return 0, fmt.Errorf("mtu of %v: %w", dst, err)
	}
	mtu, err := unix.GetsockoptInt(fd, level, opt)
	if err != nil {
		return 0, fmt.Errorf("mtu of %v: %w", dst, err)
	}
	return mtu, nil
}
