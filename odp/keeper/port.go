package keeper

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weave/odp"
)

// ensure makes or mends the port: its device on the bridge, up, with its packet socket.
// made says that it has no entries.
func (k *Keeper) ensure(p *Port, deep bool) (made bool, err error) {
	link, err := k.host.NL.LinkByName(p.Name)
	if err == nil && link.Type() != p.Kind {
		return false, &odp.ReasonError{Why: odp.ReasonDevice, Err: fmt.Errorf("%s exists and is a %s device", p.Name, link.Type())}
	}
	if err == nil && !k.drv.Usable(p, link) {
		k.removePort(p)
		err = netlink.LinkNotFoundError{}
	}
	if IsGone(err) {
		p.closeSock()
		p.Index = 0
		if err := k.drv.Create(p); err != nil {
			k.drv.Remove(p)
			return false, asReason(err)
		}
		made = true
		link, err = k.host.NL.LinkByName(p.Name)
	}
	if err != nil {
		return false, asReason(err)
	}
	if err := k.drv.Mend(p, deep || made); err != nil {
		return false, k.notUsable(p, made, err)
	}
	if err := k.putOnBridge(p, link, deep); err != nil {
		return false, k.notUsable(p, made, err)
	}
	if p.Index != link.Attrs().Index {
		p.closeSock()
		p.Index, p.remade = link.Attrs().Index, true
		made = true
	}
	if p.sock == nil || p.sock.dead.Load() {
		p.closeSock()
		if p.sock, err = k.openProbe(p.Index); err != nil {
			return made, asReason(fmt.Errorf("opening packet socket: %w", err))
		}
	}
	return made, nil
}

// notUsable takes back what was made when the port does not come up.
func (k *Keeper) notUsable(p *Port, made bool, err error) error {
	if made {
		k.drv.Remove(p)
	}
	p.closeSock()
	p.Index = 0
	return asReason(err)
}

// asReason makes an error one with a reason.
func asReason(err error) error {
	var r *odp.ReasonError
	if err == nil || errors.As(err, &r) {
		return err
	}
	return &odp.ReasonError{Why: odp.ReasonDevice, Err: err}
}

func (k *Keeper) removePort(p *Port) error {
	p.closeSock()
	p.Index = 0
	if err := k.drv.Remove(p); err != nil {
		return fmt.Errorf("removing %s: %w", p.Name, err)
	}
	return nil
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
func (k *Keeper) putOnBridge(p *Port, link netlink.Link, deep bool) error {
	fail := func(what string, err error) error { return fmt.Errorf("%s %s: %w", what, p.Name, err) }
	a := link.Attrs()
	br, err := k.host.NL.LinkByName(k.cfg.Bridge)
	if err != nil {
		return fail("looking for the bridge of", err)
	}
	if string(a.HardwareAddr) != string(p.MAC[:]) {
		if err := k.host.NL.LinkSetHardwareAddr(link, p.MAC[:]); err != nil {
			return fail("setting the address of", err)
		}
	}
	if a.MTU != k.cfg.MTU {
		if err := k.host.NL.LinkSetMTU(link, k.cfg.MTU); err != nil {
			return fail("setting the MTU of", err)
		}
	}
	moved := a.MasterIndex != br.Attrs().Index
	if moved {
		if a.Flags&net.FlagUp != 0 {
			k.host.NL.LinkSetDown(link)
			a.Flags &^= net.FlagUp
		}
		k.host.Mute(link)
		if err := k.host.NL.LinkSetMaster(link, br); err != nil {
			return fail("putting on the bridge", err)
		}
		p.remade = true
	}
	if moved || (deep && !k.portInOrder(a.Index)) {
		if err := k.setPort(a.Index); err != nil {
			return fail("setting bridge port flags of", err)
		}
	}
	if moved || deep {
		if err := k.enterLocal(p, a.Index); err != nil {
			return fail("entering our probe address on", err)
		}
	}
	if a.Flags&net.FlagUp == 0 {
		if err := k.host.NL.LinkSetUp(link); err != nil {
			return VXLANError(err, p.Name, k.cfg.Port)
		}
	}
	return nil
}

// enterLocal makes further addresses of the port local ones of the bridge:
// `bridge fdb replace MAC dev PORT master permanent`.
func (k *Keeper) enterLocal(p *Port, index int) error {
	for _, mac := range p.more {
		err := k.host.NL.NeighSet(&netlink.Neigh{
			LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_MASTER,
			HardwareAddr: mac[:],
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *Keeper) setPort(index int) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	m := nl.NewIfInfomsg(unix.AF_BRIDGE)
	m.Index = int32(index)
	req.AddData(m)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for _, w := range portWant {
		info.AddRtAttr(w.attr, []byte{w.on})
	}
	req.AddData(info)
	return k.host.Execute(req)
}

// portInOrder reads the port's flags; one that the kernel does not tell is in order.
func (k *Keeper) portInOrder(index int) bool {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index = int32(index)
	req.AddData(m)
	msgs, err := k.host.Ask(req, unix.RTM_NEWLINK)
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
