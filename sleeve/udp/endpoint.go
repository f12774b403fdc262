package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Endpoint is where datagrams go, and the local address they come from, in the
// form the kernel takes. It is a plain value of 72 bytes: copy it, compare it with
// ==. The zero Endpoint is no destination.
type Endpoint struct {
	name    rawName            // struct sockaddr_in or sockaddr_in6
	ctl     [sourceCtlMax]byte // IP_PKTINFO or IPV6_PKTINFO message, or nothing
	nameLen uint8              // bytes of name in use
	ctlLen  uint8              // bytes of ctl in use
}

// rawName is a struct sockaddr_in or sockaddr_in6, with zeroes behind it.
type rawName [unix.SizeofSockaddrInet6]byte

// NewEndpoint makes the Endpoint for dst. A valid source fixes the source address;
// without one the kernel chooses. A 4in6 address is taken for the IPv4 address it
// means. The zone of a link-local dst may be a number or an interface's name, which
// is looked up now. It fails on an invalid dst, on port 0, on an unknown zone, and on
// a source of the other address family.
func NewEndpoint(dst netip.AddrPort, source netip.Addr) (Endpoint, error) {
	addr, source := dst.Addr().Unmap(), source.Unmap()
	if !addr.IsValid() || dst.Port() == 0 {
		return Endpoint{}, fmt.Errorf("endpoint %v: no address or port", dst)
	}
	if source.IsValid() && source.Is4() != addr.Is4() {
		return Endpoint{}, fmt.Errorf("endpoint %v: source %v is of another address family", dst, source)
	}
	scope, err := scopeOf(addr.Zone())
	if err != nil {
		return Endpoint{}, fmt.Errorf("endpoint %v: %w", dst, err)
	}
	var ep Endpoint
	ep.nameLen = uint8(putName(&ep.name, addr, dst.Port(), scope))
	if source.IsValid() && !source.IsUnspecified() {
		ep.ctlLen = uint8(putSource(ep.ctl[:], source, scope))
	}
	return ep, nil
}

// IsValid reports whether ep was made by NewEndpoint.
func (ep *Endpoint) IsValid() bool { return ep.nameLen != 0 }

// AddrPort returns the destination; a zone is the interface's number.
func (ep *Endpoint) AddrPort() netip.AddrPort { return ep.name.addrPort() }

// Source returns the source address, or the zero Addr when the kernel chooses.
func (ep *Endpoint) Source() netip.Addr {
	if ep.ctlLen == 0 {
		return netip.Addr{}
	}
	return parseControl(ep.ctl[:ep.ctlLen]).local.addr()
}

// String returns the destination for logs.
func (ep Endpoint) String() string { return ep.AddrPort().String() }

// scopeOf returns the interface number that a zone means, 0 for none.
func scopeOf(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, errors.New("unknown zone")
	}
	return uint32(ifi.Index), nil
}

// putName writes the sockaddr (linux/in.h, linux/in6.h) and returns its length.
func putName(b *rawName, addr netip.Addr, port uint16, scope uint32) int {
	binary.BigEndian.PutUint16(b[2:], port)
	if addr.Is4() {
		binary.NativeEndian.PutUint16(b[0:], unix.AF_INET)
		*(*[4]byte)(b[4:]) = addr.As4()
		return unix.SizeofSockaddrInet4
	}
	binary.NativeEndian.PutUint16(b[0:], unix.AF_INET6)
	*(*[16]byte)(b[8:]) = addr.As16()
	binary.NativeEndian.PutUint32(b[24:], scope)
	return unix.SizeofSockaddrInet6
}

// addrPort decodes a sockaddr; 4in6 addresses come out as IPv4. An address family
// it does not know gives the zero AddrPort.
func (b *rawName) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(b[2:])
	switch binary.NativeEndian.Uint16(b[0:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case unix.AF_INET6:
		addr := netip.AddrFrom16([16]byte(b[8:24])).Unmap()
		if scope := binary.NativeEndian.Uint32(b[24:]); scope != 0 && addr.Is6() {
			addr = addr.WithZone(strconv.FormatUint(uint64(scope), 10))
		}
		return netip.AddrPortFrom(addr, port)
	}
	return netip.AddrPort{}
}
