package sleeve

import (
	"encoding/binary"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/peer"
)

// kind says what follows a meta. The values are protocol; append only.
type kind uint8

const (
	kindControl kind = 0
	kindFrame   kind = 1
	kindShard   kind = 2
	kindBundle  kind = 3
	kindFrag    kind = 4
	numKinds         = 5
)

const (
	metaNeedsCsum = 1
	metaLast      = 2
	metaECN       = 4
	metaPadded    = 8
)

// The envelope's flags; at most one is set.
const (
	flagRelayed uint16 = 1 // a route precedes the meta
	flagFlooded uint16 = 2 // a flood of the sender's own
)

const (
	metaLen  = 8
	routeLen = 2 * peer.NameLen

	bundleLenLen = 2                      // length in front of each frame of a bundle
	bundleItem   = bundleLenLen + metaLen // what a frame in a bundle costs

	fragUnit   = 8
	fragMore   = 1 << 15
	maxMessage = metaLen + ether.MaxSuperframe // what FRAGs add up to, at most
)

// Overhead is what a datagram's UDP payload holds beside the inner IP packet.
const Overhead = session.HeaderLen + session.TagLen + metaLen + ether.HeaderLen

// What a template holds at least, and where a checksum stands in its last header.
const (
	tcpCsumOff = 16
	udpCsumOff = 6
)

// meta is the decoded form of the 8 bytes that head every plaintext; the fields
// are drawn in the package comment.
type meta struct {
	kind      kind
	flags     uint8
	gso       ether.GSO
	tmplLen   uint8
	csumStart uint8
	a, b      uint16
}

func (m *meta) put(p []byte) {
	_ = p[7]
	p[0] = byte(m.kind)<<4 | m.flags
	p[1] = byte(m.gso)
	p[2] = m.tmplLen
	p[3] = m.csumStart
	binary.LittleEndian.PutUint16(p[4:], m.a)
	binary.LittleEndian.PutUint16(p[6:], m.b)
}

// parseMeta splits a plaintext, after its route, into meta and data. It accepts
// only what put can have made of a valid frame, so that whatever it returns can be
// used without further checks of lengths.
func parseMeta(p []byte) (m meta, data []byte, ok bool) {
	if len(p) < metaLen {
		return meta{}, nil, false
	}
	m = meta{
		kind:      kind(p[0] >> 4),
		flags:     p[0] & 0xf,
		gso:       ether.GSO(p[1]),
		tmplLen:   p[2],
		csumStart: p[3],
		a:         binary.LittleEndian.Uint16(p[4:]),
		b:         binary.LittleEndian.Uint16(p[6:]),
	}
	data = p[metaLen:]
	switch m.kind {
	case kindFrame:
		ok = m.validFrame(data)
	case kindShard:
		ok = m.validShard(data)
	case kindFrag:
		ok = m == meta{kind: kindFrag, a: m.a, b: m.b} && m.validFrag(len(data))
	case kindControl, kindBundle:
		ok = m == meta{kind: m.kind} && len(data) > 0
	}
	return m, data, ok
}

func (m *meta) validFrame(frame []byte) bool {
	if len(frame) < ether.HeaderLen || len(frame) > ether.MaxSuperframe || m.gso != 0 || m.tmplLen != 0 || m.b != 0 {
		return false
	}
	switch m.flags {
	case 0:
		return m.csumStart == 0 && m.a == 0
	case metaNeedsCsum:
		return m.csumStart >= ether.HeaderLen && int(m.csumStart)+int(m.a)+2 <= len(frame)
	}
	return false
}

func (m *meta) validShard(data []byte) bool {
	tmpl, start := int(m.tmplLen), int(m.csumStart)
	if m.flags&metaNeedsCsum == 0 || m.flags&(metaLast|metaPadded) == metaLast|metaPadded ||
		m.b == 0 || start < ether.HeaderLen || tmpl > ether.MaxTemplate || tmpl >= len(data) {
		return false
	}
	switch m.gso {
	case ether.GSOTCPv4, ether.GSOTCPv6:
		if start+ether.TCPHeaderLen > tmpl || start+int(data[start+12]>>4)*4 != tmpl {
			return false
		}
	case ether.GSOUDPL4:
		if start+ether.UDPHeaderLen != tmpl || m.flags&metaECN != 0 {
			return false
		}
	default:
		return false
	}
	payload := len(data) - tmpl
	switch rest := payload % int(m.b); m.flags & (metaLast | metaPadded) {
	case 0:
		if rest != 0 {
			return false
		}
	case metaPadded:
		if payload -= rest; rest == 0 || payload == 0 {
			return false
		}
	}
	return tmpl+int(m.a)*int(m.b)+payload <= ether.MaxSuperframe
}

// shard splits the data of a valid SHARD.
func (m *meta) shard(data []byte) (tmpl, payload []byte) {
	n := len(data)
	if m.flags&metaPadded != 0 {
		n -= (n - int(m.tmplLen)) % int(m.b)
	}
	return data[:m.tmplLen:m.tmplLen], data[m.tmplLen:n]
}

func (m *meta) validFrag(n int) bool {
	off := int(m.a&^fragMore) * fragUnit
	return m.a&^fragMore < 1<<13 && n > 0 && off+n <= maxMessage && (m.a&fragMore == 0 || n%fragUnit == 0)
}

// offload is what the meta of a FRAME or of a whole run says was left undone.
func (m *meta) offload() ether.Offload {
	switch {
	case m.kind == kindShard:
		return ether.Offload{
			GSO:       m.gso,
			ECN:       m.flags&metaECN != 0,
			NeedsCsum: true,
			CsumStart: uint16(m.csumStart),
			CsumOff:   csumOffOf(m.gso),
			Size:      m.b,
		}
	case m.flags&metaNeedsCsum != 0:
		return ether.Offload{NeedsCsum: true, CsumStart: uint16(m.csumStart), CsumOff: m.a}
	}
	return ether.Offload{}
}

func csumOffOf(g ether.GSO) uint16 {
	if g == ether.GSOUDPL4 {
		return udpCsumOff
	}
	return tcpCsumOff
}

// frameMeta is the meta of a frame without segmentation. ok is false when the
// partial checksum cannot be expressed and has to be finished first.
func frameMeta(off ether.Offload) (m meta, ok bool) {
	m.kind = kindFrame
	if !off.NeedsCsum {
		return m, true
	}
	m.flags = metaNeedsCsum
	m.csumStart = uint8(off.CsumStart)
	m.a = off.CsumOff
	return m, off.CsumStart <= 255
}

// shardMeta is the meta of a superframe's shards but for index and LAST.
func shardMeta(off ether.Offload, tmplLen int) meta {
	m := meta{
		kind:      kindShard,
		flags:     metaNeedsCsum,
		gso:       off.GSO,
		tmplLen:   uint8(tmplLen),
		csumStart: uint8(off.CsumStart),
		b:         off.Size,
	}
	if off.ECN {
		m.flags |= metaECN
	}
	return m
}

func putRoute(p []byte, rt peer.Route) {
	o, d := rt.Origin.Bytes(), rt.Dest.Bytes()
	copy(p, o[:])
	copy(p[peer.NameLen:], d[:])
}

// parseRoute takes the route off a plaintext of a RELAYED datagram; that of a flood
// has no destination.
func parseRoute(p []byte) (rt peer.Route, rest []byte, ok bool) {
	if len(p) < routeLen {
		return peer.Route{}, nil, false
	}
	rt.Origin = peer.NameFromBytes([peer.NameLen]byte(p))
	rt.Dest = peer.NameFromBytes([peer.NameLen]byte(p[peer.NameLen:]))
	return rt, p[routeLen:], !rt.Origin.IsZero()
}
