package wire

import (
	"net/netip"

	"weave/internal/ether"
)

// Key says what frames a flow is for, or, as a mask, which bits of it count. Fields that
// are not in Has are neither written nor were read.
type Key struct {
	Has    KeyField
	InPort uint32
	Src    ether.MAC
	Dst    ether.MAC
	// EtherType of the frame, or of the one within its tag; 0 in the key of a frame
	// with a length in that place.
	EtherType uint16
	// TCI of the frame's outer VLAN tag, with bit TagPresent. The tag's type, which is
	// that of the frame outside, is TPID.
	TCI    uint16
	TPID   uint16
	Tunnel Tunnel
}

// KeyField is a set of fields of a Key. Src and Dst go together.
type KeyField uint8

// Fields.
const (
	HasInPort KeyField = 1 << iota
	HasEthernet
	HasEtherType
	HasVLAN // TCI and TPID; EtherType is then the inner one
	HasTunnel
)

// TagPresent is set in each TCI of a frame that has a tag.
const TagPresent = 0x1000

// Append appends the key's attributes.
func (k *Key) Append(b []byte) []byte {
	if k.Has&HasTunnel != 0 {
		b = k.Tunnel.appendNested(b)
	}
	if k.Has&HasInPort != 0 {
		b = append32(b, keyInPort, k.InPort)
	}
	if k.Has&HasEthernet != 0 {
		var start int
		b, start = begin(b, keyEthernet)
		b = append(append(b, k.Src[:]...), k.Dst[:]...)
		b = end(b, start)
	}
	if k.Has&HasVLAN == 0 {
		return k.appendEtherType(b)
	}
	b = append16(b, keyEtherType, network, k.TPID)
	b = append16(b, keyVLAN, network, k.TCI)
	b, start := begin(b, keyEncap)
	return end(k.appendEtherType(b), start)
}

func (k *Key) appendEtherType(b []byte) []byte {
	if k.Has&HasEtherType != 0 {
		b = append16(b, keyEtherType, network, k.EtherType)
	}
	return b
}

// ParseKey reads a key or a mask.
func ParseKey(b []byte) (k Key, err error) {
	var encap []byte
	err = parseAttrs(b, func(f *fields, typ uint16, data []byte) {
		switch typ {
		case keyInPort:
			f.u32(&k.InPort, data)
			k.Has |= HasInPort
		case keyEthernet:
			if f.ok(data, 12) {
				k.Src, k.Dst = ether.MAC(data[:6]), ether.MAC(data[6:])
			}
			k.Has |= HasEthernet
		case keyEtherType:
			f.u16(&k.EtherType, network, data)
			k.Has |= HasEtherType
		case keyVLAN:
			f.u16(&k.TCI, network, data)
			k.Has |= HasVLAN
		case keyEncap:
			encap = data
		case keyTunnel:
			k.Tunnel, f.err = parseTunnel(data)
			k.Has |= HasTunnel
		}
	})
	if err != nil {
		return Key{}, err
	}
	if k.Has&HasVLAN == 0 {
		return k, nil
	}
	k.TPID, k.EtherType, k.Has = k.EtherType, 0, k.Has&^HasEtherType
	err = parseAttrs(encap, func(f *fields, typ uint16, data []byte) {
		if typ == keyEtherType {
			f.u16(&k.EtherType, network, data)
			k.Has |= HasEtherType
		}
	})
	if err != nil {
		return Key{}, err
	}
	return k, nil
}

// Tunnel is the outer header of a frame that came from, or goes to, a tunnel's vport.
type Tunnel struct {
	Has      TunnelField
	ID       uint64
	Src, Dst netip.Addr // both of one family
	TOS, TTL uint8
	SrcPort  uint16
	DstPort  uint16
	DF       bool // IPv4: don't fragment
	CSum     bool // a UDP checksum
}

// TunnelField is a set of fields of a Tunnel.
type TunnelField uint8

// Fields. DF and CSum are there when they are true.
const (
	TunnelID TunnelField = 1 << iota
	TunnelSrc
	TunnelDst
	TunnelTOS
	TunnelTTL
	TunnelSrcPort
	TunnelDstPort
)

func (t *Tunnel) appendNested(b []byte) []byte {
	b, start := begin(b, keyTunnel)
	if t.Has&TunnelID != 0 {
		b = append64(b, tunID, network, t.ID)
	}
	if t.Has&TunnelSrc != 0 {
		b = appendAddr(b, t.Src, tunSrc4, tunSrc6)
	}
	if t.Has&TunnelDst != 0 {
		b = appendAddr(b, t.Dst, tunDst4, tunDst6)
	}
	if t.Has&TunnelTOS != 0 {
		b = append8(b, tunTOS, t.TOS)
	}
	if t.Has&TunnelTTL != 0 {
		b = append8(b, tunTTL, t.TTL)
	}
	if t.DF {
		b = appendFlag(b, tunDF)
	}
	if t.CSum {
		b = appendFlag(b, tunCSum)
	}
	if t.Has&TunnelSrcPort != 0 {
		b = append16(b, tunTPSrc, network, t.SrcPort)
	}
	if t.Has&TunnelDstPort != 0 {
		b = append16(b, tunTPDst, network, t.DstPort)
	}
	return end(b, start)
}

func appendAddr(b []byte, a netip.Addr, typ4, typ6 uint16) []byte {
	if a.Is4() {
		return appendBytes(b, typ4, a.AsSlice())
	}
	return appendBytes(b, typ6, a.AsSlice())
}

func parseTunnel(b []byte) (t Tunnel, err error) {
	err = parseAttrs(b, func(f *fields, typ uint16, data []byte) {
		switch typ {
		case tunID:
			f.u64(&t.ID, network, data)
			t.Has |= TunnelID
		case tunSrc4, tunSrc6:
			t.addr(f, &t.Src, typ == tunSrc4, data)
			t.Has |= TunnelSrc
		case tunDst4, tunDst6:
			t.addr(f, &t.Dst, typ == tunDst4, data)
			t.Has |= TunnelDst
		case tunTOS:
			f.u8(&t.TOS, data)
			t.Has |= TunnelTOS
		case tunTTL:
			f.u8(&t.TTL, data)
			t.Has |= TunnelTTL
		case tunTPSrc:
			f.u16(&t.SrcPort, network, data)
			t.Has |= TunnelSrcPort
		case tunTPDst:
			f.u16(&t.DstPort, network, data)
			t.Has |= TunnelDstPort
		case tunDF:
			t.DF = f.ok(data, 0)
		case tunCSum:
			t.CSum = f.ok(data, 0)
		}
	})
	if err != nil {
		return Tunnel{}, err
	}
	return t, nil
}

// addr reads an address; an IPv6 address that holds an IPv4 one stays what it is.
func (t *Tunnel) addr(f *fields, p *netip.Addr, ipv4 bool, data []byte) {
	n := 16
	if ipv4 {
		n = 4
	}
	if f.ok(data, n) {
		*p, _ = netip.AddrFromSlice(data)
	}
}
