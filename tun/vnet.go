package tun

import (
	"encoding/binary"

	"weave/internal/ether"
)

// The fields of struct virtio_net_hdr; see the package comment.
const (
	vnetHdrLen = 10

	vnetNeedsCsum = 1
	vnetECN       = 0x80
)

// readVnet returns what hdr says about frame. ok is false if the two do not fit,
// so that nobody after us has to check: a kind that was not asked for, or offsets
// outside of the frame.
func readVnet(hdr *[vnetHdrLen]byte, frame []byte) (off ether.Offload, ok bool) {
	if hdr[0]&vnetNeedsCsum != 0 {
		off.NeedsCsum = true
		off.CsumStart = binary.NativeEndian.Uint16(hdr[6:])
		off.CsumOff = binary.NativeEndian.Uint16(hdr[8:])
		if int(off.CsumStart)+int(off.CsumOff)+2 > len(frame) {
			return off, false
		}
	}
	off.GSO = ether.GSO(hdr[1] &^ vnetECN)
	if off.GSO == ether.GSONone {
		return off, true
	}
	off.ECN = hdr[1]&vnetECN != 0
	off.Size = binary.NativeEndian.Uint16(hdr[4:])
	return off, validGSO(off)
}

// writeVnet makes hdr say what off says. head is the beginning of the frame.
func writeVnet(hdr *[vnetHdrLen]byte, off ether.Offload, head []byte) {
	*hdr = [vnetHdrLen]byte{}
	if off.NeedsCsum {
		hdr[0] = vnetNeedsCsum
		binary.NativeEndian.PutUint16(hdr[6:], off.CsumStart)
		binary.NativeEndian.PutUint16(hdr[8:], off.CsumOff)
	}
	if off.GSO == ether.GSONone {
		return
	}
	hdr[1] = byte(off.GSO)
	if off.ECN {
		hdr[1] |= vnetECN
	}
	// With the true header length the kernel puts the headers, and nothing else,
	// into the linear part of its buffer.
	binary.NativeEndian.PutUint16(hdr[2:], uint16(headerLen(off, head)))
	binary.NativeEndian.PutUint16(hdr[4:], off.Size)
}

// validGSO applies the kernel's rules for superframes.
func validGSO(off ether.Offload) bool {
	switch off.GSO {
	case ether.GSOTCPv4, ether.GSOTCPv6:
		return off.NeedsCsum && off.Size != 0 && off.CsumOff == 16
	case ether.GSOUDPL4:
		return off.NeedsCsum && off.Size != 0 && off.CsumOff == 6 && !off.ECN
	}
	return false
}

// headerLen returns the length of the L2 to L4 headers of a superframe that
// begins with head, or 0 if head is too short to tell.
func headerLen(off ether.Offload, head []byte) int {
	l4 := int(off.CsumStart)
	if off.GSO == ether.GSOUDPL4 {
		return l4 + ether.UDPHeaderLen
	}
	if l4+ether.TCPHeaderLen > len(head) {
		return 0
	}
	return l4 + ether.TCP(head[l4:]).HeaderLen()
}
