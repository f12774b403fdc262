// Package ether holds the nouns and views of Ethernet traffic that the TAP
// device, the switch and the overlays share.
//
// A [Superframe] is what one read of the TAP device returns: a whole Ethernet
// frame of up to 64 KiB together with its [Offload] metadata, that is, what the
// sending container's kernel left to be done (segmentation, checksum). It stays
// in that shape across the network whenever it can.
//
// The package is pure: values and views over byte slices, no goroutine, socket,
// file or clock, and no allocation on the packet path.
package ether

import (
	"errors"
	"fmt"
)

// MAC is a 48-bit Ethernet address, a comparable value.
type MAC [6]byte

// Broadcast is the address of all stations.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// String returns six lower-case hex octets.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText gives the String form.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// IsMulticast reports whether m addresses a group; broadcast is one.
func (m MAC) IsMulticast() bool { return m[0]&1 != 0 }

// Sizes in bytes.
const (
	HeaderLen     = 14    // destination, source, ethertype
	VLANTagLen    = 4     // 802.1Q tag
	MaxSuperframe = 65535 // largest frame one TAP read can return, headers included
	MaxTemplate   = 254   // longest L2..L4 header that a segmented superframe may have
)

// GSO says how a superframe's payload is to be cut into packets. The values are
// those of struct virtio_net_hdr (include/uapi/linux/virtio_net.h) and of the
// shard format; append only.
type GSO uint8

const (
	GSONone  GSO = 0 // one packet
	GSOTCPv4 GSO = 1 // TCP payload cut into segments of Size bytes (TSO)
	GSOTCPv6 GSO = 4 // the same over IPv6
	GSOUDPL4 GSO = 5 // UDP payload cut into datagrams of Size bytes (USO)
)

// Offload is what a superframe's sender left undone. The zero Offload is a plain
// frame with complete checksums.
type Offload struct {
	GSO       GSO
	ECN       bool   // TCP segments carry CWR on the first segment only
	NeedsCsum bool   // the L4 checksum field holds the pseudo-header sum only
	CsumStart uint16 // offset from the start of the frame where summing starts (the L4 header)
	CsumOff   uint16 // offset of the checksum field from CsumStart: TCP 16, UDP 6
	Size      uint16 // payload bytes per segment; 0 when GSO is GSONone
}

// Headroom is how many writable bytes stand in front of every Superframe's
// frame, so that an overlay can put its own header there without a copy.
const Headroom = 64

// Superframe is a frame on its way from the TAP device to a peer.
//
// The frame is Buf[Head:], Head >= Headroom. Whoever is handed a *Superframe may
// overwrite the whole of Buf until it returns and must not keep any part of it
// afterwards. A caller that sends one superframe to several peers gives each but
// the last a copy.
type Superframe struct {
	Offload
	Buf  []byte
	Head int
}

// Frame returns the Ethernet frame.
func (s *Superframe) Frame() []byte { return s.Buf[s.Head:] }

// ErrTruncated reports a frame shorter than its headers say.
var ErrTruncated = errors.New("truncated frame")

// CopyFrom makes s a copy of o, in s's own buffer, which must be as large.
func (s *Superframe) CopyFrom(o *Superframe) {
	s.Offload = o.Offload
	s.Head = o.Head
	s.Buf = s.Buf[:len(o.Buf)]
	copy(s.Buf[s.Head:], o.Buf[o.Head:])
}
