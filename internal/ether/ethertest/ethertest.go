// Package ethertest makes Ethernet frames for tests.
//
// A [Packet] is the short description of a frame, with sensible values for what
// is left out. It is built byte by byte and summed word by word, on purpose
// without the functions of package ether, so that it can be their oracle.
package ethertest

import (
	"encoding/binary"
	"net/netip"

	"weave/internal/ether"
)

// Packet describes a TCP or UDP packet in an Ethernet frame. The zero Packet is a
// TCP segment from 10.0.0.1 to 10.0.0.2 without payload, with DF clear.
type Packet struct {
	Dst, Src         ether.MAC
	VLANs            []uint16   // tag control information, outermost first
	SrcIP, DstIP     netip.Addr // both IPv4 or both IPv6
	ID               uint16     // IPv4 identification
	DF               bool       // IPv4 don't fragment
	IPOptions        []byte     // IPv4 options, or IPv6 extension headers, of 4n or 8n bytes
	ExtType          uint8      // IPv6 type of the first extension header; the last must name the L4 protocol itself
	UDP              bool       // otherwise TCP
	SrcPort, DstPort uint16
	Seq              uint32
	Flags            ether.TCPFlags
	TCPOptions       []byte // 4n bytes
	Payload          []byte
}

// Frame returns the frame with complete checksums.
func (p Packet) Frame() []byte {
	b, l3, l4 := p.build()
	field := p.field(l4)
	binary.BigEndian.PutUint16(b[field:], p.pseudo(b[l3:], len(b)-l4))
	check := ^SlowSum(b[l4:])
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(b[field:], check)
	return b
}

// Superframe returns the frame as a kernel with offloads would: the L4 checksum is
// partial and the payload is to be cut into pieces of size bytes, or into none if
// size is 0.
func (p Packet) Superframe(size int) ([]byte, ether.Offload) {
	b, l3, l4 := p.build()
	field := p.field(l4)
	binary.BigEndian.PutUint16(b[field:], p.pseudo(b[l3:], len(b)-l4))
	off := ether.Offload{NeedsCsum: true, CsumStart: uint16(l4), CsumOff: uint16(field - l4)}
	if size > 0 {
		off.GSO, off.Size = p.gso(), uint16(size)
	}
	return b, off
}

func (p Packet) gso() ether.GSO {
	switch {
	case p.UDP:
		return ether.GSOUDPL4
	case p.v6():
		return ether.GSOTCPv6
	}
	return ether.GSOTCPv4
}

func (p Packet) v6() bool { return p.SrcIP.Is6() }

func (p Packet) field(l4 int) int {
	if p.UDP {
		return l4 + 6
	}
	return l4 + 16
}

func (p Packet) proto() byte {
	if p.UDP {
		return ether.ProtoUDP
	}
	return ether.ProtoTCP
}

// build returns the frame with L4 checksum 0, and where L3 and L4 begin.
func (p Packet) build() (b []byte, l3, l4 int) {
	be := binary.BigEndian
	b = append(b, p.Dst[:]...)
	b = append(b, p.Src[:]...)
	for _, tci := range p.VLANs {
		b = be.AppendUint16(b, ether.TypeVLAN)
		b = be.AppendUint16(b, tci)
	}
	if p.v6() {
		b = be.AppendUint16(b, ether.TypeIPv6)
	} else {
		b = be.AppendUint16(b, ether.TypeIPv4)
	}
	l3 = len(b)
	l4msg := append(p.l4Header(), p.Payload...)
	if p.v6() {
		b = append(b, p.ipv6(len(l4msg))...)
	} else {
		b = append(b, p.ipv4(len(l4msg))...)
	}
	l4 = len(b)
	return append(b, l4msg...), l3, l4
}

func (p Packet) l4Header() []byte {
	be := binary.BigEndian
	h := be.AppendUint16(nil, p.SrcPort)
	h = be.AppendUint16(h, p.DstPort)
	if p.UDP {
		h = be.AppendUint16(h, uint16(8+len(p.Payload)))
		return append(h, 0, 0)
	}
	h = be.AppendUint32(h, p.Seq)
	h = append(h, 0, 0, 0, 1) // acknowledgement
	h = append(h, byte(5+len(p.TCPOptions)/4)<<4, byte(p.Flags))
	h = append(h, 0x20, 0, 0, 0, 0, 0) // window, checksum, urgent
	return append(h, p.TCPOptions...)
}

func (p Packet) ipv4(n int) []byte {
	be := binary.BigEndian
	src, dst := [4]byte{10, 0, 0, 1}, [4]byte{10, 0, 0, 2}
	if p.SrcIP.IsValid() {
		src, dst = p.SrcIP.As4(), p.DstIP.As4()
	}
	h := []byte{byte(0x45 + len(p.IPOptions)/4), 0}
	h = be.AppendUint16(h, uint16(20+len(p.IPOptions)+n))
	h = be.AppendUint16(h, p.ID)
	if p.DF {
		h = append(h, 0x40, 0)
	} else {
		h = append(h, 0, 0)
	}
	h = append(h, 64, p.proto(), 0, 0)
	h = append(h, src[:]...)
	h = append(h, dst[:]...)
	h = append(h, p.IPOptions...)
	be.PutUint16(h[10:], ^SlowSum(h))
	return h
}

func (p Packet) ipv6(n int) []byte {
	src, dst := p.SrcIP.As16(), p.DstIP.As16()
	h := []byte{0x60, 0, 0, 0}
	h = binary.BigEndian.AppendUint16(h, uint16(len(p.IPOptions)+n))
	next := p.proto()
	if len(p.IPOptions) > 0 {
		next = p.ExtType
	}
	h = append(h, next, 64)
	h = append(h, src[:]...)
	h = append(h, dst[:]...)
	return append(h, p.IPOptions...)
}

// pseudo returns the sum of the pseudo-header of an L4 message of n bytes in packet ip.
func (p Packet) pseudo(ip []byte, n int) uint16 {
	addrs := ip[12:20]
	if p.v6() {
		addrs = ip[8:40]
	}
	tail := binary.BigEndian.AppendUint32([]byte{0, p.proto()}, uint32(n))
	return SlowSum(append(tail, addrs...))
}

// SlowSum is the ones' complement sum of b's big-endian words, one word at a time.
func SlowSum(b []byte) uint16 {
	sum := uint32(0)
	for i, v := range b {
		if i%2 == 0 {
			sum += uint32(v) << 8
		} else {
			sum += uint32(v)
		}
		if sum > 0xffff {
			sum -= 0xffff
		}
	}
	return uint16(sum)
}
