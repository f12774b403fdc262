package udp

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sizes of control messages: a struct cmsghdr (u64 length, i32 level, i32 type) and
// its data, each padded to 8 bytes.
const (
	cmsgHdr      = unix.SizeofCmsghdr
	segmentCtl   = cmsgHdr + 8                               // UDP_SEGMENT: u16
	sourceCtlMax = cmsgHdr + 24                              // in6_pktinfo is 20 bytes, in_pktinfo 12
	sendCtlMax   = segmentCtl + sourceCtlMax                 //
	recvCtlMax   = segmentCtl + 2*sourceCtlMax + cmsgHdr + 8 // UDP_GRO, pktinfo, SO_RXQ_OVFL
)

// putCmsg writes one header and returns the offset behind the padded data.
func putCmsg(b []byte, level, kind int32, size int) int {
	binary.NativeEndian.PutUint64(b[0:], uint64(cmsgHdr+size))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(kind))
	return align8(cmsgHdr + size)
}

// putSource writes the control message that fixes the source address and returns
// its length. scope is the interface of a link-local address, else 0.
//
//	struct in_pktinfo  { int ipi_ifindex; struct in_addr ipi_spec_dst, ipi_addr; };
//	struct in6_pktinfo { struct in6_addr ipi6_addr; unsigned int ipi6_ifindex; };
func putSource(b []byte, source netip.Addr, scope uint32) int {
	data := b[cmsgHdr:]
	if source.Is4() {
		*(*[4]byte)(data[4:]) = source.As4()
		return putCmsg(b, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
	}
	*(*[16]byte)(data[0:]) = source.As16()
	binary.NativeEndian.PutUint32(data[16:], scope)
	return putCmsg(b, unix.SOL_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
}

// localAddr is the local address of a received datagram: bits is 32, 128, or 0 for
// none.
type localAddr struct {
	raw  [16]byte
	bits uint8
}

func (l localAddr) addr() netip.Addr {
	switch l.bits {
	case 32:
		return netip.AddrFrom4([4]byte(l.raw[:4]))
	case 128:
		return netip.AddrFrom16(l.raw).Unmap()
	}
	return netip.Addr{}
}

// control is what the control messages of one received slot say.
type control struct {
	local    localAddr
	segSize  int    // UDP_GRO: length of each datagram but the last; 0: not joined
	drops    uint32 // SO_RXQ_OVFL: datagrams the socket lost since it was made
	hasDrops bool   // absent until the first loss
}

// parseControl reads the control messages in b. Whatever is malformed ends the walk;
// unknown messages are stepped over.
func parseControl(b []byte) control {
	var c control
	for len(b) >= cmsgHdr {
		size := binary.NativeEndian.Uint64(b)
		if size < cmsgHdr || size > uint64(len(b)) {
			break
		}
		level := int32(binary.NativeEndian.Uint32(b[8:]))
		kind := int32(binary.NativeEndian.Uint32(b[12:]))
		c.add(level, kind, b[cmsgHdr:size])
		b = b[min(align8(int(size)), len(b)):]
	}
	return c
}

// add takes over one control message.
func (c *control) add(level, kind int32, data []byte) {
	switch {
	case level == unix.SOL_UDP && kind == unix.UDP_GRO && len(data) >= 4:
		if n := int32(binary.NativeEndian.Uint32(data)); n > 0 {
			c.segSize = int(n)
		}
	case level == unix.SOL_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		c.local = localAddr{bits: 32}
		copy(c.local.raw[:], data[4:8])
	case level == unix.SOL_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		c.local = localAddr{bits: 128, raw: [16]byte(data[:16])}
	case level == unix.SOL_SOCKET && kind == unix.SO_RXQ_OVFL && len(data) >= 4:
		c.drops, c.hasDrops = binary.NativeEndian.Uint32(data), true
	}
}

func align8(n int) int { return (n + 7) &^ 7 }
