// Package vxdev makes vxlan devices that carry frames of single MACs, and keeps their
// entries.
//
// Its one idea: such a device learns nothing and has no default remote, so that a frame
// goes where an entry of the device itself leads its MAC, or nowhere.
package vxdev

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/odp/keeper"
)

// Kind of the devices, as in `ip -d link`.
const Kind = "vxlan"

// Device is a vxlan device as it is to be made.
type Device struct {
	Name string
	MAC  ether.MAC
	MTU  int
	Port uint16 // UDP
	IPv6 bool   // family of the addresses that entries lead to
	// Local is the source of packets; zero: any address.
	Local netip.Addr
	// NetNS is a descriptor of the network namespace that the device is to be in;
	// 0: where the request is made. Its UDP socket is where the request is made.
	NetNS int
}

// Request is the RTM_NEWLINK that makes the device, down. IPv4 packets are never
// fragmented.
func (d Device) Request() *nl.NetlinkRequest {
	const (
		iflaVxlanDF = 29 // linux/if_link.h, Linux 4.20
		vxlanDFSet  = 1
		outerTTL    = 64
	)
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(d.Name)))
	req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, d.MAC[:]))
	req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(d.MTU))))
	if d.NetNS != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(d.NetNS))))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(Kind))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(keeper.VNI))
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, d.Port))
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, []byte{0})
	data.AddRtAttr(nl.IFLA_VXLAN_TTL, []byte{outerTTL})
	switch {
	case d.IPv6:
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL6, net.IPv6zero)
	case d.Local.IsValid():
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL, d.Local.AsSlice())
		fallthrough
	default:
		data.AddRtAttr(iflaVxlanDF, []byte{vxlanDFSet})
	}
	req.AddData(info)
	return req
}

// Is reports whether a device that exists is as Request would make it, as far as the
// kernel tells: not the family of a device without Local, nor where its socket is.
func (d Device) Is(link netlink.Link) bool {
	v, ok := link.(*netlink.Vxlan)
	return ok && v.VxlanId == keeper.VNI && v.Port == int(d.Port) && !v.Learning && !v.FlowBased &&
		v.VtepDevIndex == 0 && (v.Group == nil || v.Group.IsUnspecified()) &&
		(!d.Local.IsValid() || v.SrcAddr.Equal(d.Local.AsSlice()))
}

// Table is the entries of the devices of a driver. It has those methods of
// keeper.Driver that are about them.
type Table struct {
	Host *keeper.Host
	Port uint16 // of the devices
}

// Enter is `bridge fdb replace MAC dev DEVICE self permanent dst ADDR port PORT`.
func (e Table) Enter(p *keeper.Port, mac ether.MAC, to netip.AddrPort) error {
	const ndaPort = 6 // linux/neighbour.h
	req := entry(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, p, mac)
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, to.Addr().AsSlice()))
	if to.Port() != 0 && to.Port() != e.Port {
		req.AddData(nl.NewRtAttr(ndaPort, binary.BigEndian.AppendUint16(nil, to.Port())))
	}
	return e.Host.Execute(req)
}

// Leave implements keeper.Driver. An entry that cannot be removed is seen by Sync.
func (e Table) Leave(p *keeper.Port, mac ether.MAC) {
	e.Host.Execute(entry(unix.RTM_DELNEIGH, 0, p, mac))
}

// entry begins a request about an entry of the device itself. The library's own adds
// a destination where there is none, and knows no ports.
func entry(typ, flags int, p *keeper.Port, mac ether.MAC) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(typ, flags|unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{
		Family: unix.AF_BRIDGE, Index: uint32(p.Index),
		State: netlink.NUD_PERMANENT | netlink.NUD_NOARP, Flags: netlink.NTF_SELF,
	})
	req.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, mac[:]))
	return req
}

// Entries implements keeper.Driver.
func (e Table) Entries(p *keeper.Port) (map[ether.MAC]netip.Addr, error) {
	var list []netlink.Neigh
	var err error
	for range 5 {
		if list, err = e.Host.NL.NeighList(p.Index, unix.AF_BRIDGE); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	out := map[ether.MAC]netip.Addr{}
	for _, n := range list {
		if n.LinkIndex != p.Index || n.Flags&netlink.NTF_SELF == 0 || len(n.HardwareAddr) != len(ether.MAC{}) {
			continue
		}
		if a, ok := netip.AddrFromSlice(n.IP); ok {
			out[ether.MAC(n.HardwareAddr)] = a.Unmap()
		}
	}
	return out, nil
}

// Sync implements keeper.Driver.
func (e Table) Sync(p *keeper.Port, want map[ether.MAC]netip.AddrPort) error {
	have, err := e.Entries(p)
	if err != nil {
		return err
	}
	var errs []error
	for mac, to := range want {
		if have[mac] != to.Addr() {
			errs = append(errs, e.Enter(p, mac, to))
		}
	}
	for mac := range have {
		if !want[mac].IsValid() {
			e.Leave(p, mac)
		}
	}
	return errors.Join(errs...)
}
