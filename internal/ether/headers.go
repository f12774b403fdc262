package ether

import (
	"encoding/binary"
	"net/netip"
)

// EtherTypes that this package understands.
const (
	TypeIPv4 = 0x0800
	TypeARP  = 0x0806
	TypeVLAN = 0x8100 // 802.1Q
	TypeIPv6 = 0x86dd
	TypeQinQ = 0x88a8 // 802.1ad
)

// IP protocol numbers that this package understands.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
)

// Sizes in bytes of the L3 and L4 headers without options.
const (
	IPv4HeaderLen = 20
	IPv6HeaderLen = 40
	TCPHeaderLen  = 20
	UDPHeaderLen  = 8
)

var be = binary.BigEndian

// Header is a view of a frame's Ethernet header. Its methods panic on fewer than
// HeaderLen bytes.
type Header []byte

// Dst returns the destination address, bytes 0 to 5.
func (h Header) Dst() MAC { return MAC(h[0:6]) }

// Src returns the source address, bytes 6 to 11.
func (h Header) Src() MAC { return MAC(h[6:12]) }

// IPv4 is a view of a packet that begins with an IPv4 header (RFC 791 §3.1). Its
// methods panic on fewer than IPv4HeaderLen bytes.
type IPv4 []byte

const (
	ipv4DF     = 0x4000
	ipv4MF     = 0x2000
	ipv4Offset = 0x1fff // in units of 8 bytes
)

// HeaderLen returns the length of the header with its options, in bytes, as the
// header says: 0 to 60, not checked.
func (p IPv4) HeaderLen() int { return int(p[0]&0x0f) * 4 }

// TotalLen returns the length of header and payload in bytes, not checked.
func (p IPv4) TotalLen() int { return int(be.Uint16(p[2:])) }

// SetTotalLen leaves the checksum to the caller.
func (p IPv4) SetTotalLen(n uint16) { be.PutUint16(p[2:], n) }

// ID returns the identification that the fragments of a packet share.
func (p IPv4) ID() uint16 { return be.Uint16(p[4:]) }

// SetID leaves the checksum to the caller.
func (p IPv4) SetID(id uint16) { be.PutUint16(p[4:], id) }

// DontFragment reports the DF bit.
func (p IPv4) DontFragment() bool { return be.Uint16(p[6:])&ipv4DF != 0 }

// MoreFragments reports the MF bit: other fragments follow this one.
func (p IPv4) MoreFragments() bool { return be.Uint16(p[6:])&ipv4MF != 0 }

// FragmentOffset returns where this fragment's payload stands in the whole one, in bytes.
func (p IPv4) FragmentOffset() int { return int(be.Uint16(p[6:])&ipv4Offset) * 8 }

// Protocol returns the L4 protocol.
func (p IPv4) Protocol() uint8 { return p[9] }

// Src returns the source address.
func (p IPv4) Src() netip.Addr { return netip.AddrFrom4([4]byte(p[12:16])) }

// Dst returns the destination address.
func (p IPv4) Dst() netip.Addr { return netip.AddrFrom4([4]byte(p[16:20])) }

// Checksum returns the header checksum field.
func (p IPv4) Checksum() uint16 { return be.Uint16(p[10:]) }

// UpdateChecksum computes the header checksum anew; HeaderLen must fit in p.
func (p IPv4) UpdateChecksum() {
	be.PutUint16(p[10:], 0)
	be.PutUint16(p[10:], ^Sum(p[:p.HeaderLen()], 0))
}

// IPv6 is a view of a packet that begins with an IPv6 header (RFC 8200 §3). Its
// methods panic on fewer than IPv6HeaderLen bytes.
type IPv6 []byte

// PayloadLen returns the bytes after the fixed header, extension headers
// included, not checked.
func (p IPv6) PayloadLen() int { return int(be.Uint16(p[4:])) }

// SetPayloadLen overwrites the payload length; no checksum covers it.
func (p IPv6) SetPayloadLen(n uint16) { be.PutUint16(p[4:], n) }

// NextHeader returns what follows the fixed header: an extension or an L4 protocol.
func (p IPv6) NextHeader() uint8 { return p[6] }

// Src returns the source address.
func (p IPv6) Src() netip.Addr { return netip.AddrFrom16([16]byte(p[8:24])) }

// Dst returns the destination address.
func (p IPv6) Dst() netip.Addr { return netip.AddrFrom16([16]byte(p[24:40])) }

// TCPFlags is byte 13 of a TCP header.
type TCPFlags uint8

// Flags of a TCP header (RFC 9293 §3.1).
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// TCP is a view of a segment that begins with a TCP header (RFC 9293 §3.1). Its
// methods panic on fewer than TCPHeaderLen bytes.
type TCP []byte

// SrcPort returns the source port.
func (t TCP) SrcPort() uint16 { return be.Uint16(t[0:]) }

// DstPort returns the destination port.
func (t TCP) DstPort() uint16 { return be.Uint16(t[2:]) }

// Seq returns the sequence number of the first payload byte.
func (t TCP) Seq() uint32 { return be.Uint32(t[4:]) }

// SetSeq leaves the checksum to the caller.
func (t TCP) SetSeq(n uint32) { be.PutUint32(t[4:], n) }

// HeaderLen returns the length of the header with its options in bytes, as the
// header says: 0 to 60, not checked.
func (t TCP) HeaderLen() int { return int(t[12]>>4) * 4 }

// Flags returns the control bits.
func (t TCP) Flags() TCPFlags { return TCPFlags(t[13]) }

// SetFlags leaves the checksum to the caller.
func (t TCP) SetFlags(f TCPFlags) { t[13] = byte(f) }

// SetChecksum overwrites the checksum field.
func (t TCP) SetChecksum(c uint16) { be.PutUint16(t[16:], c) }

// UDP is a view of a datagram that begins with a UDP header (RFC 768). Its methods
// panic on fewer than UDPHeaderLen bytes.
type UDP []byte

// SrcPort returns the source port.
func (u UDP) SrcPort() uint16 { return be.Uint16(u[0:]) }

// DstPort returns the destination port.
func (u UDP) DstPort() uint16 { return be.Uint16(u[2:]) }

// Len returns the length of header and payload in bytes, not checked.
func (u UDP) Len() int { return int(be.Uint16(u[4:])) }

// SetLen leaves the checksum to the caller.
func (u UDP) SetLen(n uint16) { be.PutUint16(u[4:], n) }

// Checksum returns the checksum field; 0 says that the datagram has none.
func (u UDP) Checksum() uint16 { return be.Uint16(u[6:]) }

// SetChecksum overwrites the checksum field.
func (u UDP) SetChecksum(c uint16) { be.PutUint16(u[6:], c) }
