package ether

import "errors"

// ErrMalformed reports headers that contradict themselves or each other.
var ErrMalformed = errors.New("malformed frame")

// Bounds on what Parse walks. No honest sender comes near them.
const (
	MaxVLANTags   = 8  // the depth at which Linux gives up as well (VLAN_MAX_DEPTH)
	maxExtensions = 16 // IPv6 extension headers
)

// Layers says where the layers of a frame stand. All offsets count from the
// first byte of the Ethernet header.
type Layers struct {
	EtherType uint16 // that of the payload, VLAN tags skipped; below 0x600 an 802.3 length
	VLANs     int    // tags skipped, 0 to MaxVLANTags
	L3        int    // behind the Ethernet header and the tags
	IPVersion int    // 4 or 6; 0: not IP, and what follows is zero
	Proto     uint8  // L4 protocol; IPv6 extension headers are skipped
	Fragment  bool   // one of several fragments, or an IPv6 atomic fragment (RFC 6946)
	L4        int    // L4 header; 0 when there is none: in a fragment other than the first
	Payload   int    // behind the TCP or UDP header; for other protocols, and in later fragments, behind the IP headers
	End       int    // end of the IP packet; Ethernet padding may follow
}

// Parse finds the layers of frame. On an error the Layers hold what was understood
// up to there, always within the frame: a switch forwards such frames as well.
// ErrTruncated means that frame ends before its headers say, ErrMalformed that
// they make no sense.
func Parse(frame []byte) (Layers, error) {
	l, err := parseHeaders(frame)
	if l.End > len(frame) {
		l.End = len(frame)
		if err == nil {
			err = ErrTruncated
		}
	}
	return l, err
}

// parseHeaders is Parse for a frame whose payload may be missing: End is what the
// IP header says.
func parseHeaders(frame []byte) (Layers, error) {
	var l Layers
	if len(frame) < HeaderLen {
		return l, ErrTruncated
	}
	l.L3 = HeaderLen
	l.EtherType = be.Uint16(frame[HeaderLen-2:])
	for l.EtherType == TypeVLAN || l.EtherType == TypeQinQ {
		if l.VLANs == MaxVLANTags {
			return l, ErrMalformed
		}
		if len(frame) < l.L3+VLANTagLen {
			return l, ErrTruncated
		}
		l.VLANs++
		l.L3 += VLANTagLen
		l.EtherType = be.Uint16(frame[l.L3-2:])
	}
	switch l.EtherType {
	case TypeIPv4:
		return l, l.parseIPv4(frame)
	case TypeIPv6:
		return l, l.parseIPv6(frame)
	}
	return l, nil
}

func (l *Layers) parseIPv4(frame []byte) error {
	if len(frame) < l.L3+IPv4HeaderLen {
		return ErrTruncated
	}
	ip := IPv4(frame[l.L3:])
	hl := ip.HeaderLen()
	if ip[0]>>4 != 4 || hl < IPv4HeaderLen || ip.TotalLen() < hl {
		return ErrMalformed
	}
	if len(ip) < hl {
		return ErrTruncated
	}
	l.IPVersion, l.Proto = 4, ip.Protocol()
	l.End = l.L3 + ip.TotalLen()
	l.Fragment = ip.MoreFragments() || ip.FragmentOffset() != 0
	return l.parseL4(frame, l.L3+hl, ip.FragmentOffset() == 0)
}

// IPv6 extension headers (RFC 8200 §4, IANA "IPv6 Extension Header Types").
const (
	extHopByHop = 0
	extRouting  = 43
	extFragment = 44
	extAuth     = 51
	extDest     = 60
	extMobility = 135
	extHIP      = 139
	extShim6    = 140
)

func (l *Layers) parseIPv6(frame []byte) error {
	if len(frame) < l.L3+IPv6HeaderLen {
		return ErrTruncated
	}
	ip := IPv6(frame[l.L3:])
	if ip[0]>>4 != 6 {
		return ErrMalformed
	}
	l.IPVersion, l.Proto = 6, ip.NextHeader()
	l.End = l.L3 + IPv6HeaderLen + ip.PayloadLen()
	at, first := l.L3+IPv6HeaderLen, true
	for range maxExtensions {
		if !isExtension(l.Proto) || !first {
			return l.parseL4(frame, at, first)
		}
		if len(frame) < at+8 { // every extension header is longer than that or as long
			return ErrTruncated
		}
		ext := frame[at:]
		if l.Proto == extFragment {
			l.Fragment = true
			first = be.Uint16(ext[2:])&^7 == 0
		}
		at += extensionLen(l.Proto, ext[1])
		if len(frame) < at {
			return ErrTruncated
		}
		l.Proto = ext[0]
	}
	return ErrMalformed
}

func isExtension(proto uint8) bool {
	switch proto {
	case extHopByHop, extRouting, extFragment, extAuth, extDest, extMobility, extHIP, extShim6:
		return true
	}
	return false
}

// extensionLen returns the size in bytes of an extension header whose second byte
// is field: at least 8.
func extensionLen(proto, field uint8) int {
	switch proto {
	case extFragment: // RFC 8200 §4.5: the byte is reserved
		return 8
	case extAuth: // RFC 4302 §2.2: counts 4-byte words
		return (int(field) + 2) * 4
	}
	return (int(field) + 1) * 8
}

// parseL4 sets L4 and Payload for the L4 header at offset at. There is none in a
// fragment other than the first.
func (l *Layers) parseL4(frame []byte, at int, first bool) error {
	size := 0
	switch {
	case !first:
	case l.Proto == ProtoTCP:
		if len(frame) < at+TCPHeaderLen {
			return ErrTruncated
		}
		if size = TCP(frame[at:]).HeaderLen(); size < TCPHeaderLen {
			return ErrMalformed
		}
	case l.Proto == ProtoUDP:
		size = UDPHeaderLen
	}
	if len(frame) < at+size {
		return ErrTruncated
	}
	if at+size > l.End {
		return ErrMalformed
	}
	if first {
		l.L4 = at
	}
	l.Payload = at + size
	return nil
}
