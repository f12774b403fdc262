package vxlan

import (
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
)

// Names of the devices. Whatever has one of them and is a vxlan device is ours.
const (
	deviceName  = "weavevx"
	deviceName6 = "weavevx6"
)

// device is the vxlan device of one family of the underlay.
type device struct {
	name   string
	ipv6   bool
	mac    ether.MAC
	index  int   // 0: there is none
	err    error // why it is not usable, a ReasonError
	sock   *probeSock
	remade bool // the bridge's entries of the port are gone
}

func (d *device) closeSock() {
	if d.sock != nil {
		d.sock.f.Close()
		d.sock = nil
	}
}

// isGone reports whether err says that a link or entry is not there.
func isGone(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.As(err, &notFound)
}

func (b *Backend) removeDevice(d *device) error {
	d.closeSock()
	d.index = 0
	link, err := b.nl.LinkByName(d.name)
	if isGone(err) {
		return nil
	}
	if err == nil && link.Type() == "vxlan" {
		if err = b.nl.LinkDel(link); isGone(err) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("removing %s: %w", d.name, err)
	}
	return nil
}

// ensureDevice makes or mends the device: a port of the bridge, up, with its packet
// socket. made says that it has no entries.
func (b *Backend) ensureDevice(d *device, deep bool) (made bool, err error) {
	link, err := b.nl.LinkByName(d.name)
	if err == nil && !b.usable(link) {
		if link.Type() != "vxlan" {
			return false, &odp.ReasonError{Why: odp.ReasonDevice, Err: fmt.Errorf("%s exists and is a %s device", d.name, link.Type())}
		}
		b.removeDevice(d)
		err = netlink.LinkNotFoundError{}
		link = nil
	}
	if isGone(err) {
		d.closeSock()
		d.index = 0
		if err := b.create(d); err != nil {
			return false, err
		}
		made = true
		link, err = b.nl.LinkByName(d.name)
	}
	if err != nil {
		return false, &odp.ReasonError{Why: odp.ReasonDevice, Err: err}
	}
	if err := b.putOnBridge(d, link, deep); err != nil {
		if made {
			b.nl.LinkDel(link)
		}
		d.closeSock()
		d.index = 0
		return false, err
	}
	if d.index != link.Attrs().Index {
		d.closeSock()
		d.index, d.remade = link.Attrs().Index, true
		made = true
	}
	if d.sock == nil || d.sock.dead.Load() {
		d.closeSock()
		if d.sock, err = b.openProbe(d.index); err != nil {
			return made, &odp.ReasonError{Why: odp.ReasonDevice, Err: fmt.Errorf("opening packet socket: %w", err)}
		}
	}
	return made, nil
}

// usable reports whether a device that exists was made as we would make it. Its family
// is not to be seen; the name stands for it.
func (b *Backend) usable(link netlink.Link) bool {
	v, ok := link.(*netlink.Vxlan)
	return ok && v.VxlanId == VNI && v.Port == int(b.cfg.Port) && !v.Learning && !v.FlowBased &&
		v.VtepDevIndex == 0 && (v.Group == nil || v.Group.IsUnspecified())
}

// create makes the device, down and alone.
func (b *Backend) create(d *device) error {
	const (
		iflaVxlanDF = 29 // linux/if_link.h, Linux 4.20
		vxlanDFSet  = 1
		outerTTL    = 64
	)
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(d.name)))
	req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, d.mac[:]))
	req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(b.cfg.MTU))))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(VNI))
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, b.cfg.Port))
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, []byte{0})
	data.AddRtAttr(nl.IFLA_VXLAN_TTL, []byte{outerTTL})
	if d.ipv6 {
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL6, net.IPv6zero)
	} else {
		data.AddRtAttr(iflaVxlanDF, []byte{vxlanDFSet})
	}
	req.AddData(info)
	err := b.execute(req)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.EADDRINUSE):
		return &odp.ReasonError{Why: odp.ReasonPort, Err: fmt.Errorf("another vxlan device has UDP port %d: %w", b.cfg.Port, err)}
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EPFNOSUPPORT):
		return &odp.ReasonError{Why: odp.ReasonModule, Err: fmt.Errorf("the kernel has no vxlan (module vxlan): %w", err)}
	}
	return &odp.ReasonError{Why: odp.ReasonDevice, Err: fmt.Errorf("creating %s: %w", d.name, err)}
}

// portWant is how the port behaves: it takes no frame that was not steered to it, and
// gives none to another port of ours.
var portWant = []struct {
	attr int
	on   byte
}{
	{nl.IFLA_BRPORT_LEARNING, 0},
	{nl.IFLA_BRPORT_UNICAST_FLOOD, 0},
	{nl.IFLA_BRPORT_MCAST_FLOOD, 0},
	{nl.IFLA_BRPORT_BCAST_FLOOD, 0},
	{nl.IFLA_BRPORT_ISOLATED, 1},
	{nl.IFLA_BRPORT_MODE, 0}, // hairpin
}

// putOnBridge brings a device that exists to what we want of it. Its flags are set
// before it comes up.
func (b *Backend) putOnBridge(d *device, link netlink.Link, deep bool) error {
	fail := func(what string, err error) error {
		return &odp.ReasonError{Why: odp.ReasonDevice, Err: fmt.Errorf("%s %s: %w", what, d.name, err)}
	}
	a := link.Attrs()
	br, err := b.nl.LinkByName(b.cfg.Bridge)
	if err != nil {
		return fail("looking for the bridge of", err)
	}
	if string(a.HardwareAddr) != string(d.mac[:]) {
		if err := b.nl.LinkSetHardwareAddr(link, d.mac[:]); err != nil {
			return fail("setting the address of", err)
		}
	}
	if a.MTU != b.cfg.MTU {
		if err := b.nl.LinkSetMTU(link, b.cfg.MTU); err != nil {
			return fail("setting the MTU of", err)
		}
	}
	moved := a.MasterIndex != br.Attrs().Index
	if moved {
		if a.Flags&net.FlagUp != 0 {
			b.nl.LinkSetDown(link)
			a.Flags &^= net.FlagUp
		}
		b.nl.LinkSetIP6AddrGenMode(link, 1) // none; a kernel without IPv6 refuses
		if err := b.nl.LinkSetMaster(link, br); err != nil {
			return fail("putting on the bridge", err)
		}
		d.remade = true
	}
	if moved || (deep && !b.portInOrder(a.Index)) {
		if err := b.setPort(a.Index); err != nil {
			return fail("setting bridge port flags of", err)
		}
	}
	if a.Flags&net.FlagUp == 0 {
		if err := b.nl.LinkSetUp(link); err != nil {
			if errors.Is(err, unix.EADDRINUSE) {
				return &odp.ReasonError{Why: odp.ReasonPort, Err: fmt.Errorf("UDP port %d: %w", b.cfg.Port, err)}
			}
			return fail("bringing up", err)
		}
	}
	return nil
}

func (b *Backend) setPort(index int) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	m := nl.NewIfInfomsg(unix.AF_BRIDGE)
	m.Index = int32(index)
	req.AddData(m)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for _, w := range portWant {
		info.AddRtAttr(w.attr, []byte{w.on})
	}
	req.AddData(info)
	return b.execute(req)
}

// portInOrder reads the port's flags; one that the kernel does not tell is in order.
func (b *Backend) portInOrder(index int) bool {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index = int32(index)
	req.AddData(m)
	msgs, err := b.ask(req, unix.RTM_NEWLINK)
	if err != nil || len(msgs) == 0 || len(msgs[0]) < unix.SizeofIfInfomsg {
		return false
	}
	attrs := attributes(attributes(attributes(msgs[0][unix.SizeofIfInfomsg:])[unix.IFLA_LINKINFO])[nl.IFLA_INFO_SLAVE_DATA])
	for _, w := range portWant {
		if v := attrs[uint16(w.attr)]; len(v) == 1 && v[0] != w.on {
			return false
		}
	}
	return true
}

// attributes reads a run of netlink attributes (linux/netlink.h); what is malformed
// ends it.
func attributes(buf []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	for len(buf) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(buf))
		typ := binary.NativeEndian.Uint16(buf[2:])
		if n < unix.SizeofRtAttr || n > len(buf) {
			break
		}
		out[typ&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = buf[unix.SizeofRtAttr:n]
		buf = buf[min(len(buf), (n+3)&^3):]
	}
	return out
}

// addEntry is `bridge fdb replace MAC dev DEVICE self permanent dst ADDR port PORT`.
func (b *Backend) addEntry(f int, mac ether.MAC, to netip.AddrPort) error {
	const ndaPort = 6 // linux/neighbour.h
	req := b.entry(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, f, mac)
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, to.Addr().AsSlice()))
	if to.Port() != 0 && to.Port() != b.cfg.Port {
		req.AddData(nl.NewRtAttr(ndaPort, binary.BigEndian.AppendUint16(nil, to.Port())))
	}
	if err := b.execute(req); err != nil {
		return &odp.ReasonError{Why: odp.ReasonDevice, Err: fmt.Errorf("entering %v on %s: %w", mac, b.devs[f].name, err)}
	}
	return nil
}

// delEntry removes an entry; none is no error.
func (b *Backend) delEntry(f int, mac ether.MAC) {
	if b.devs[f].index == 0 {
		return
	}
	if err := b.execute(b.entry(unix.RTM_DELNEIGH, 0, f, mac)); err != nil && !isGone(err) {
		b.log.Debug("entry not removed", "mac", mac, "device", b.devs[f].name, "err", err)
	}
}

// entry begins a request about an entry of the device itself. The library's own adds
// a destination where there is none, and knows no ports.
func (b *Backend) entry(typ, flags, f int, mac ether.MAC) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(typ, flags|unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{
		Family: unix.AF_BRIDGE, Index: uint32(b.devs[f].index),
		State: netlink.NUD_PERMANENT | netlink.NUD_NOARP, Flags: netlink.NTF_SELF,
	})
	req.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, mac[:]))
	return req
}

// entries lists the device's own entries.
func (b *Backend) entries(f int) (map[ether.MAC]netip.Addr, error) {
	var list []netlink.Neigh
	var err error
	for range 5 {
		if list, err = b.nl.NeighList(b.devs[f].index, unix.AF_BRIDGE); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	out := map[ether.MAC]netip.Addr{}
	for _, n := range list {
		if n.LinkIndex != b.devs[f].index || n.Flags&netlink.NTF_SELF == 0 || len(n.HardwareAddr) != len(ether.MAC{}) {
			continue
		}
		if a, ok := netip.AddrFromSlice(n.IP); ok {
			out[ether.MAC(n.HardwareAddr)] = a.Unmap()
		}
	}
	return out, nil
}

// syncEntries makes the device's own entries those that are wanted.
func (b *Backend) syncEntries(f int) error {
	want := map[ether.MAC]netip.AddrPort{}
	for mac, a := range b.adopted {
		if family(a) == f {
			want[mac] = netip.AddrPortFrom(a, b.cfg.Port)
		}
	}
	for _, t := range b.peers {
		if t.family == f {
			want[t.probe] = t.Addr
		}
	}
	for mac, n := range b.macs {
		if t := b.peers[n]; t != nil && t.family == f {
			want[mac] = t.Addr
		}
	}
	have, err := b.entries(f)
	if err != nil {
		return err
	}
	var errs []error
	for mac, to := range want {
		if have[mac] != to.Addr() {
			errs = append(errs, b.addEntry(f, mac, to))
		}
	}
	for mac := range have {
		if !want[mac].IsValid() {
			b.delEntry(f, mac)
		}
	}
	return errors.Join(errs...)
}

// adopt takes note of what an earlier run left.
func (b *Backend) adopt() error {
	for f := range b.devs {
		d := &b.devs[f]
		link, err := b.nl.LinkByName(d.name)
		if isGone(err) {
			continue
		}
		if err != nil {
			return err
		}
		if !b.usable(link) {
			b.removeDevice(d)
			continue
		}
		d.index = link.Attrs().Index
		have, err := b.entries(f)
		if err != nil {
			return err
		}
		for mac, a := range have {
			b.adopted[mac] = a
		}
	}
	if len(b.adopted) == 0 {
		return b.removeAll()
	}
	b.admitted = b.filter.admitted()
	return nil
}
