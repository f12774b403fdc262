package ovs

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/crypto/blake2s"

	"weave/internal/ether"
	"weave/odp/keeper"
	"weave/odp/ovs/wire"
)

// Vports of the datapath.
const (
	bridgePort = wire.LocalPort
	tunnelPort = 1
)

const outerTTL = 64

// ufid identifies a flow of ours by what it matches.
type ufid [16]byte

const (
	ufidLayout = 1
	kindTo     = 1 // frames from the bridge to a MAC
	kindFrom   = 2 // frames from an address
)

func newUFID(kind byte) ufid { return ufid{'w', 'v', ufidLayout, kind} }

// ours reports whether a flow that the kernel tells of is of this layout.
func ours(id []byte) (u ufid, ok bool) {
	if len(id) != len(u) {
		return u, false
	}
	u = ufid(id)
	return u, u[0] == 'w' && u[1] == 'v' && u[2] == ufidLayout
}

// tag is a frame's outer VLAN tag; the zero value is none.
type tag struct {
	tpid, tci uint16
	inner     uint16 // ethertype within
}

func tagOf(k *wire.Key) tag {
	if k.Has&wire.HasVLAN == 0 {
		return tag{}
	}
	return tag{k.TPID, k.TCI, k.EtherType}
}

var (
	exact = ether.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	any4  = netip.AddrFrom4([4]byte{})
	any6  = netip.IPv6Unspecified()
	all4  = netip.AddrFrom4([4]byte{0xff, 0xff, 0xff, 0xff})
	all6  = netip.AddrFrom16([16]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
)

// match adds the tag, and what it is before, to a mask: the kernel takes no tag whose
// inside is wild. The key has to be that of a frame then, as it has to tell all of the
// inside.
func (t tag) match(mask *wire.Key) {
	if t == (tag{}) {
		return
	}
	mask.Has |= wire.HasVLAN | wire.HasEtherType
	mask.TPID, mask.TCI, mask.EtherType = 0xffff, 0xffff, 0xffff
}

// to makes the flow of frames to mac; without an address they are dropped.
func (d *driver) to(mac ether.MAC, t tag, addr netip.AddrPort) (ufid, *wire.Flow) {
	id := newUFID(kindTo)
	copy(id[4:], mac[:])
	binary.BigEndian.PutUint16(id[10:], t.tci)
	binary.BigEndian.PutUint16(id[12:], t.tpid)
	binary.BigEndian.PutUint16(id[14:], t.inner)
	f := &wire.Flow{
		Datapath: d.datapath, UFID: id[:],
		Key:  wire.Key{Has: wire.HasInPort | wire.HasEthernet, InPort: bridgePort, Dst: mac},
		Mask: &wire.Key{Has: wire.HasInPort | wire.HasEthernet, InPort: 0xffffffff, Dst: exact},
	}
	t.match(f.Mask)
	if f.Drop = !addr.IsValid(); !f.Drop {
		f.Actions = d.actionsTo(addr)
	}
	return id, f
}

func (d *driver) actionsTo(addr netip.AddrPort) []wire.Action {
	t := wire.Tunnel{
		Has: wire.TunnelID | wire.TunnelDst | wire.TunnelTTL,
		ID:  keeper.VNI, Dst: addr.Addr(), TTL: outerTTL, DF: addr.Addr().Is4(), CSum: true,
	}
	if addr.Port() != 0 && addr.Port() != d.cfg.Port {
		t.Has |= wire.TunnelDstPort
		t.DstPort = addr.Port()
	}
	return []wire.Action{wire.SetTunnel(t), wire.Output(tunnelPort)}
}

// from makes the flow of frames from an address.
func (d *driver) from(addr netip.Addr, vni uint64, t tag, drop bool) (ufid, *wire.Flow) {
	id := newUFID(kindFrom)
	a := addr.As16()
	b := binary.BigEndian.AppendUint64(a[:], vni)
	for _, v := range []uint16{t.tpid, t.tci, t.inner} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	sum := blake2s.Sum256(b)
	copy(id[4:], sum[:])

	anyAddr, allAddr := any4, all4
	if addr.Is6() {
		anyAddr, allAddr = any6, all6
	}
	f := &wire.Flow{
		Datapath: d.datapath, UFID: id[:], Drop: drop,
		Key: wire.Key{Has: wire.HasInPort | wire.HasEthernet | wire.HasTunnel, InPort: tunnelPort, Tunnel: wire.Tunnel{
			// The kernel wants a destination and a TTL to be there, even if they are wild.
			Has: wire.TunnelID | wire.TunnelSrc | wire.TunnelDst | wire.TunnelTTL,
			ID:  vni, Src: addr, Dst: addr, TTL: outerTTL,
		}},
		Mask: &wire.Key{Has: wire.HasInPort | wire.HasEthernet | wire.HasTunnel, InPort: 0xffffffff, Tunnel: wire.Tunnel{
			// What is not named would have to be zero.
			Has: wire.TunnelID | wire.TunnelSrc | wire.TunnelDst | wire.TunnelTOS | wire.TunnelTTL |
				wire.TunnelSrcPort | wire.TunnelDstPort,
			ID: ^uint64(0), Src: allAddr, Dst: anyAddr,
		}},
	}
	t.match(f.Mask)
	if !drop {
		f.Actions = []wire.Action{wire.Output(bridgePort)}
	}
	return id, f
}

// sameActions compares what a flow does with what it should do.
func sameActions(a, b []wire.Action) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		switch x, y := a[i], b[i]; {
		case x.Output != nil && y.Output != nil && *x.Output == *y.Output:
		case x.SetTunnel != nil && y.SetTunnel != nil && sameTunnel(*x.SetTunnel, *y.SetTunnel):
		default:
			return false
		}
	}
	return true
}

// sameTunnel compares outer headers; the kernel tells of zeros that were not given.
func sameTunnel(a, b wire.Tunnel) bool {
	for _, t := range []*wire.Tunnel{&a, &b} {
		t.Has = 0
		if !t.Src.IsValid() || t.Src.IsUnspecified() {
			t.Src = netip.Addr{}
		}
	}
	return a == b
}
