package ether

import (
	"errors"
	"net/netip"
)

// Sizes in bytes of the frames built here, for the caller's buffer.
const (
	MaxTooBig       = HeaderLen + MaxVLANTags*VLANTagLen + maxICMPv6 // AppendTooBig
	MaxAnnouncement = HeaderLen + IPv6HeaderLen + 32                 // AppendAnnouncement

	maxICMPv4 = 576  // whole packet (RFC 1812 §4.3.2.3)
	maxICMPv6 = 1280 // whole packet (RFC 4443 §2.4 c)
	icmpLen   = 8
)

// ErrNoAnswer reports a frame to which no ICMP error may be sent: it is one
// itself, went to or came from a group, is a later fragment, or is not IP.
var ErrNoAnswer = errors.New("no ICMP error may answer this frame")

// AppendTooBig appends to dst the frame by which the addressee of frame would say
// that its IP packet is longer than mtu: ICMP "fragmentation needed" (RFC 792 type
// 3 code 4, RFC 1191 §4) or ICMPv6 "packet too big" (RFC 4443 §3.2). It goes from
// frame's destination to its source, addresses of both layers swapped, VLAN tags
// kept. frame may be a superframe; dst must not overlap it. It does not allocate
// if dst has room for MaxTooBig more bytes.
//
// The error is ErrNoAnswer, or that of [Parse] if the IP header is broken.
func AppendTooBig(dst, frame []byte, mtu int) ([]byte, error) {
	l, err := Parse(frame)
	if l.IPVersion == 0 {
		if err == nil {
			err = ErrNoAnswer
		}
		return dst, err
	}
	if !mayAnswer(frame, &l) {
		return dst, ErrNoAnswer
	}
	h := Header(frame)
	src, to := h.Src(), h.Dst()
	dst = append(dst, src[:]...)
	dst = append(dst, to[:]...)
	dst = append(dst, frame[2*len(src):l.L3]...)
	packet := frame[l.L3:l.End]
	if l.IPVersion == 4 {
		return appendFragNeeded(dst, packet, mtu), nil
	}
	return appendPacketTooBig(dst, packet, mtu), nil
}

// appendFragNeeded appends the ICMP answer to an IPv4 packet.
//
//	 0  IPv4 header, 20 bytes
//	20  3 type, 4 code, checksum (2)
//	24  0 (2), next-hop MTU (2)
//	28  the packet's first bytes
func appendFragNeeded(dst []byte, packet []byte, mtu int) []byte {
	const quote = IPv4HeaderLen + icmpLen
	packet = packet[:min(len(packet), maxICMPv4-quote)]
	start := len(dst)
	dst = append(dst, 0x45, 0xc0, 0, 0, 0, 0, ipv4DF>>8, 0, 64, ProtoICMP, 0, 0) // TOS: internetwork control
	dst = append(dst, packet[16:20]...)
	dst = append(dst, packet[12:16]...)
	dst = append(dst, 3, 4, 0, 0, 0, 0)
	dst = be.AppendUint16(dst, uint16(max(0, min(mtu, 0xffff))))
	dst = append(dst, packet...)
	ip := IPv4(dst[start:])
	ip.SetTotalLen(uint16(len(ip)))
	ip.UpdateChecksum()
	icmp := ip[IPv4HeaderLen:]
	be.PutUint16(icmp[2:], ^Sum(icmp, 0))
	return dst
}

// appendPacketTooBig appends the ICMPv6 answer to an IPv6 packet.
//
//	 0  IPv6 header, 40 bytes
//	40  2 type, 0 code, checksum (2)
//	44  MTU (4)
//	48  the packet's first bytes
func appendPacketTooBig(dst []byte, packet []byte, mtu int) []byte {
	const quote = IPv6HeaderLen + icmpLen
	packet = packet[:min(len(packet), maxICMPv6-quote)]
	start := len(dst)
	dst = append(dst, 0x60, 0, 0, 0, 0, 0, ProtoICMPv6, 64)
	dst = append(dst, packet[24:40]...)
	dst = append(dst, packet[8:24]...)
	dst = append(dst, 2, 0, 0, 0)
	dst = be.AppendUint32(dst, uint32(max(0, mtu)))
	dst = append(dst, packet...)
	finishICMPv6(dst[start:])
	return dst
}

// finishICMPv6 fills in the payload length and the checksum of an ICMPv6 packet
// without extension headers.
func finishICMPv6(p IPv6) {
	icmp := p[IPv6HeaderLen:]
	p.SetPayloadLen(uint16(len(icmp)))
	be.PutUint16(icmp[2:], ^Sum(icmp, PseudoSum(p[8:24], p[24:40], ProtoICMPv6, len(icmp))))
}

// mayAnswer says whether an ICMP error may be sent about frame (RFC 1122 §3.2.2,
// RFC 4443 §2.4 e).
func mayAnswer(frame []byte, l *Layers) bool {
	h := Header(frame)
	if h.Dst().IsMulticast() || h.Src().IsMulticast() {
		return false
	}
	var src, dst netip.Addr
	if l.IPVersion == 4 {
		ip := IPv4(frame[l.L3:])
		if ip.FragmentOffset() != 0 {
			return false
		}
		src, dst = ip.Src(), ip.Dst()
	} else {
		src, dst = IPv6(frame[l.L3:]).Src(), IPv6(frame[l.L3:]).Dst()
	}
	if !isHost(src) || !isHost(dst) {
		return false
	}
	switch l.Proto {
	case ProtoICMP:
		return l.L4 != 0 && l.L4 < l.End && !isICMPv4Error(frame[l.L4])
	case ProtoICMPv6:
		const redirect = 137
		return l.L4 != 0 && l.L4 < l.End && frame[l.L4] >= 128 && frame[l.L4] != redirect
	}
	return true
}

// isHost reports whether a is the address of one station.
func isHost(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// isICMPv4Error reports whether an ICMP message type is about another packet.
func isICMPv4Error(typ byte) bool {
	switch typ {
	case 3, 4, 5, 11, 12: // unreachable, quench, redirect, time exceeded, parameter problem
		return true
	}
	return false
}

// AppendAnnouncement appends to dst the frame that tells all stations that addr is
// at mac now: for IPv4 a gratuitous ARP request (RFC 5227 §2.3), for IPv6 an
// unsolicited neighbour advertisement with the override flag (RFC 4861 §7.2.6).
// The zero Addr appends nothing. It does not allocate if dst has room for
// MaxAnnouncement more bytes.
func AppendAnnouncement(dst []byte, mac MAC, addr netip.Addr) []byte {
	switch addr = addr.Unmap(); {
	case addr.Is4():
		return appendARP(dst, mac, addr.As4())
	case addr.Is6():
		return appendNA(dst, mac, addr.As16())
	}
	return dst
}

// appendARP appends an ARP request (RFC 826) in which the sender asks for itself.
func appendARP(dst []byte, mac MAC, ip [4]byte) []byte {
	dst = append(dst, Broadcast[:]...)
	dst = append(dst, mac[:]...)
	dst = append(dst, TypeARP>>8, TypeARP&0xff)
	dst = append(dst, 0, 1, TypeIPv4>>8, TypeIPv4&0xff, 6, 4, 0, 1) // Ethernet, IPv4, sizes, request
	dst = append(dst, mac[:]...)
	dst = append(dst, ip[:]...)
	dst = append(dst, 0, 0, 0, 0, 0, 0) // the hardware address asked for
	return append(dst, ip[:]...)
}

// appendNA appends a neighbour advertisement (RFC 4861 §4.4) to all nodes.
func appendNA(dst []byte, mac MAC, ip [16]byte) []byte {
	const override = 0x20
	dst = append(dst, 0x33, 0x33, 0, 0, 0, 1)
	dst = append(dst, mac[:]...)
	dst = append(dst, TypeIPv6>>8, TypeIPv6&0xff)
	start := len(dst)
	dst = append(dst, 0x60, 0, 0, 0, 0, 0, ProtoICMPv6, 255)
	dst = append(dst, ip[:]...)
	dst = append(dst, 0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1) // ff02::1
	dst = append(dst, 136, 0, 0, 0, override, 0, 0, 0)
	dst = append(dst, ip[:]...)
	dst = append(dst, 2, 1) // option: target link-layer address, 8 bytes
	dst = append(dst, mac[:]...)
	finishICMPv6(dst[start:])
	return dst
}
