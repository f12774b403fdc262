package vxlan

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/odp"
	"weave/odp/keeper"
)

// VNI of all weave networks.
const VNI = keeper.VNI

// Names of the devices. Whatever has one of them and is a vxlan device is ours.
const (
	deviceName  = "weavevx"
	deviceName6 = "weavevx6"
	kind        = "vxlan"
)

// Config of a Backend.
type Config = keeper.Config

// driver makes a vxlan device for each family of the underlay.
type driver struct {
	cfg  Config
	host *keeper.Host
}

var _ keeper.Driver = (*driver)(nil)

// Open returns a Backend for the calling thread's network namespace. It makes nothing
// in the kernel.
func Open(cfg Config) (odp.Backend, error) {
	host, err := keeper.OpenHost()
	if err != nil {
		return nil, fmt.Errorf("opening vxlan backend: %w", err)
	}
	return keeper.Open(cfg, host, &driver{cfg, host}, ports()...)
}

// Remove removes what Backends leave in the calling thread's network namespace. What
// is not there is no error.
func Remove() error {
	host, err := keeper.OpenHost()
	if err != nil {
		return err
	}
	return keeper.Remove(host, &driver{host: host}, ports()...)
}

func ports() []*keeper.Port {
	return []*keeper.Port{
		{Name: deviceName, Kind: kind, Families: [2]bool{true, false}},
		{Name: deviceName6, Kind: kind, Families: [2]bool{false, true}},
	}
}

// Name returns "vxlan".
func (d *driver) Name() string { return kind }

// Usable implements keeper.Driver. The device's family is not to be seen; the name
// stands for it.
func (d *driver) Usable(_ *keeper.Port, link netlink.Link) bool {
	v, ok := link.(*netlink.Vxlan)
	return ok && v.VxlanId == VNI && v.Port == int(d.cfg.Port) && !v.Learning && !v.FlowBased &&
		v.VtepDevIndex == 0 && (v.Group == nil || v.Group.IsUnspecified())
}

// Create implements keeper.Driver.
func (d *driver) Create(p *keeper.Port) error {
	const (
		iflaVxlanDF = 29 // linux/if_link.h, Linux 4.20
		vxlanDFSet  = 1
		outerTTL    = 64
	)
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(p.Name)))
	req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, p.MAC[:]))
	req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(d.cfg.MTU))))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(VNI))
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, d.cfg.Port))
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, []byte{0})
	data.AddRtAttr(nl.IFLA_VXLAN_TTL, []byte{outerTTL})
	if p.Families[1] {
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL6, net.IPv6zero)
	} else {
		data.AddRtAttr(iflaVxlanDF, []byte{vxlanDFSet})
	}
	req.AddData(info)
	return keeper.VXLANError(d.host.Execute(req), p.Name, d.cfg.Port)
}

// Mend implements keeper.Driver: there is nothing but the device.
func (d *driver) Mend(*keeper.Port, bool) error { return nil }

// Remove implements keeper.Driver.
func (d *driver) Remove(p *keeper.Port) error { return d.host.RemoveLink(p.Name, p.Kind) }

// Enter is `bridge fdb replace MAC dev DEVICE self permanent dst ADDR port PORT`.
func (d *driver) Enter(p *keeper.Port, mac ether.MAC, to netip.AddrPort) error {
	const ndaPort = 6 // linux/neighbour.h
	req := d.entry(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, p, mac)
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, to.Addr().AsSlice()))
	if to.Port() != 0 && to.Port() != d.cfg.Port {
		req.AddData(nl.NewRtAttr(ndaPort, binary.BigEndian.AppendUint16(nil, to.Port())))
	}
	return d.host.Execute(req)
}

// Leave implements keeper.Driver. An entry that cannot be removed is seen by Sync.
func (d *driver) Leave(p *keeper.Port, mac ether.MAC) {
	d.host.Execute(d.entry(unix.RTM_DELNEIGH, 0, p, mac))
}

// entry begins a request about an entry of the device itself. The library's own adds
// a destination where there is none, and knows no ports.
func (d *driver) entry(typ, flags int, p *keeper.Port, mac ether.MAC) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(typ, flags|unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{
		Family: unix.AF_BRIDGE, Index: uint32(p.Index),
		State: netlink.NUD_PERMANENT | netlink.NUD_NOARP, Flags: netlink.NTF_SELF,
	})
	req.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, mac[:]))
	return req
}

// Entries implements keeper.Driver.
func (d *driver) Entries(p *keeper.Port) (map[ether.MAC]netip.Addr, error) {
	var list []netlink.Neigh
	var err error
	for range 5 {
		if list, err = d.host.NL.NeighList(p.Index, unix.AF_BRIDGE); !errors.Is(err, netlink.ErrDumpInterrupted) {
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
func (d *driver) Sync(p *keeper.Port, want map[ether.MAC]netip.AddrPort) error {
	have, err := d.Entries(p)
	if err != nil {
		return err
	}
	var errs []error
	for mac, to := range want {
		if have[mac] != to.Addr() {
			errs = append(errs, d.Enter(p, mac, to))
		}
	}
	for mac := range have {
		if !want[mac].IsValid() {
			d.Leave(p, mac)
		}
	}
	return errors.Join(errs...)
}

// Admit implements keeper.Driver: the filter does it.
func (d *driver) Admit(*keeper.Port, []netip.Addr) error { return nil }

// Strict implements keeper.Driver: without the filter all are admitted.
func (d *driver) Strict() bool { return false }

// Counters implements keeper.Driver.
func (d *driver) Counters(map[string]uint64) {}

// Run implements keeper.Driver.
func (d *driver) Run(context.Context, *keeper.Keeper) {}

// Close implements keeper.Driver.
func (d *driver) Close() error { return nil }
