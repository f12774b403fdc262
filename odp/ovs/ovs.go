package ovs

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	rtnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/odp"
	"weave/odp/keeper"
	"weave/odp/ovs/wire"
)

// Names and kinds of the devices.
const (
	datapathName = "weave-ovs"
	datapathKind = "openvswitch"
	tunnelName   = "weave-ovsvx"
	tunnelKind   = "vxlan"
)

// Config of a Backend.
type Config = keeper.Config

// driver makes one datapath for both families of the underlay.
type driver struct {
	cfg   Config
	host  *keeper.Host
	log   *slog.Logger
	byCPU bool            // false: as kernels before 5.15
	idle  time.Duration   // after which a flow that a miss has made is removed
	socks []*netlink.Conn // for upcalls

	// Guarded by the Keeper.
	c        *client
	datapath int32 // ifindex; 0: not ours yet
	admitted map[netip.Addr]bool
	passing  map[ufid]*passing
	counts   map[string]uint64
	lost     uint64 // upcalls that the kernel could not send
}

var _ keeper.Driver = (*driver)(nil)

// Open returns a Backend for the calling thread's network namespace. It makes nothing
// in the kernel.
func Open(cfg Config) (odp.Backend, error) { return open(cfg, true, passingIdle) }

func open(cfg Config, byCPU bool, idle time.Duration) (odp.Backend, error) {
	host, err := keeper.OpenHost()
	if err != nil {
		return nil, fmt.Errorf("opening ovs backend: %w", err)
	}
	d := &driver{cfg: cfg, host: host, log: cfg.Log, byCPU: byCPU, idle: idle, counts: map[string]uint64{}}
	d.forget()
	if err := d.openSockets(); err != nil {
		d.Close()
		host.Close()
		return nil, fmt.Errorf("opening ovs backend: %w", err)
	}
	return keeper.Open(cfg, host, d, port())
}

// Remove removes what Backends leave in the calling thread's network namespace. What
// is not there is no error.
func Remove() error {
	host, err := keeper.OpenHost()
	if err != nil {
		return err
	}
	d := &driver{host: host}
	d.forget()
	return keeper.Remove(host, d, port())
}

// Probe says why this kernel has no Open vSwitch datapath, with odp.ReasonOVS; nil if it
// has one. A module that is not loaded is loaded, where that is allowed.
func Probe() error {
	host, err := keeper.OpenHost()
	if err != nil {
		return err
	}
	defer host.Close()
	c, err := dial(host)
	c.close()
	return err
}

func port() *keeper.Port {
	return &keeper.Port{Name: datapathName, Kind: datapathKind, Families: [2]bool{true, true}}
}

// Name returns "ovs".
func (d *driver) Name() string { return "ovs" }

// forget notes that there is no datapath.
func (d *driver) forget() {
	d.datapath, d.admitted, d.passing = 0, map[netip.Addr]bool{}, map[ufid]*passing{}
}

func (d *driver) count(what string, n uint64) { d.counts[what] += n }

// connect finds the datapath's families; the kernel may get them later.
func (d *driver) connect() (err error) {
	if d.c == nil {
		d.c, err = dial(d.host)
	}
	return err
}

// Usable implements keeper.Driver: all but the name is mended.
func (d *driver) Usable(*keeper.Port, rtnl.Link) bool { return true }

// Create implements keeper.Driver.
func (d *driver) Create(*keeper.Port) error {
	d.forget()
	if err := d.connect(); err != nil {
		return err
	}
	if err := d.c.tell(d.c.datapath, wire.CmdNew, d.wanted()); err == nil {
		return nil
	} else if !d.byCPU || !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("making datapath %s: %w", datapathName, err)
	}
	d.byCPU = false
	if err := d.c.tell(d.c.datapath, wire.CmdNew, d.wanted()); err != nil {
		return fmt.Errorf("making datapath %s: %w", datapathName, err)
	}
	return nil
}

// wanted is the datapath as it is to be.
func (d *driver) wanted() *wire.Datapath {
	none, features := uint32(0), uint32(wire.FeatureUnaligned)
	m := &wire.Datapath{Name: datapathName, UpcallPID: &none, Features: &features}
	if d.byCPU {
		features |= wire.FeaturePerCPU
		m.PIDs = d.pids(processors())
	} else {
		features |= wire.FeatureVportPIDs
		m.UpcallPID = &d.pids(1)[0]
	}
	return m
}

// Mend implements keeper.Driver.
func (d *driver) Mend(p *keeper.Port, deep bool) error {
	if err := d.connect(); err != nil {
		return err
	}
	have, err := d.c.getDatapath(p.Name)
	if err != nil {
		return fmt.Errorf("asking for datapath %s: %w", p.Name, err)
	}
	d.lost = have.Stats.Lost
	fresh := have.Index != d.datapath
	if fresh {
		d.forget()
	}
	if fresh || deep { // upcalls go to us, whoever made it
		if err := d.claim(); err != nil {
			return fmt.Errorf("claiming datapath %s: %w", p.Name, err)
		}
	}
	if err := d.mendTunnel(); err != nil {
		return err
	}
	if err := d.mendVport(have.Index, fresh || deep); err != nil {
		return fmt.Errorf("adding %s to datapath %s: %w", tunnelName, p.Name, err)
	}
	d.datapath = have.Index
	return nil
}

// claim has upcalls sent to our sockets.
func (d *driver) claim() error {
	err := d.c.tell(d.c.datapath, wire.CmdSet, d.wanted())
	if d.byCPU && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) {
		d.byCPU = false
		err = d.c.tell(d.c.datapath, wire.CmdSet, d.wanted())
	}
	return err
}

// mendTunnel makes or mends the vxlan device, and brings it up.
func (d *driver) mendTunnel() error {
	link, err := d.host.NL.LinkByName(tunnelName)
	if err == nil {
		v, ok := link.(*rtnl.Vxlan)
		if ok && !(v.FlowBased && !v.Learning && v.Port == int(d.cfg.Port)) {
			if err := d.host.NL.LinkDel(link); err != nil && !keeper.IsGone(err) {
				return fmt.Errorf("removing %s: %w", tunnelName, err)
			}
			err = rtnl.LinkNotFoundError{}
			link = nil
		} else if !ok {
			return fmt.Errorf("%s exists and is a %s device", tunnelName, link.Type())
		}
	}
	if link == nil || keeper.IsGone(err) {
		attrs := rtnl.NewLinkAttrs()
		attrs.Name, attrs.MTU = tunnelName, d.cfg.MTU
		v := &rtnl.Vxlan{LinkAttrs: attrs, FlowBased: true, Port: int(d.cfg.Port)}
		if err := keeper.VXLANError(d.host.NL.LinkAdd(v), tunnelName, d.cfg.Port); err != nil {
			return err
		}
		link, err = d.host.NL.LinkByName(tunnelName)
	}
	if err != nil {
		return err
	}
	if link.Attrs().MTU != d.cfg.MTU {
		if err := d.host.NL.LinkSetMTU(link, d.cfg.MTU); err != nil {
			return fmt.Errorf("setting the MTU of %s: %w", tunnelName, err)
		}
	}
	if link.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	d.host.Mute(link)
	return keeper.VXLANError(d.host.NL.LinkSetUp(link), tunnelName, d.cfg.Port)
}

// mendVport makes the vxlan device a vport.
func (d *driver) mendVport(datapath int32, claim bool) error {
	var pids []uint32
	if !d.byCPU {
		pids = d.pids(len(d.socks))
	} else {
		pids = []uint32{0}
	}
	number := uint32(tunnelPort)
	have, err := d.c.getVport(datapath, number)
	if err != nil && !isAbsent(err) {
		return err
	}
	if err == nil && have.Name != tunnelName {
		if err := d.c.tell(d.c.vport, wire.CmdDel, &wire.Vport{Datapath: datapath, Port: &number}); err != nil && !isAbsent(err) {
			return err
		}
		err = unix.ENODEV
	}
	if err != nil {
		return d.c.tell(d.c.vport, wire.CmdNew, &wire.Vport{
			Datapath: datapath, Port: &number, Type: wire.VportNetdev, Name: tunnelName, PIDs: pids,
		})
	}
	if d.byCPU || !claim {
		return nil
	}
	local := uint32(bridgePort)
	return errors.Join(
		d.c.tell(d.c.vport, wire.CmdSet, &wire.Vport{Datapath: datapath, Port: &local, PIDs: pids}),
		d.c.tell(d.c.vport, wire.CmdSet, &wire.Vport{Datapath: datapath, Port: &number, PIDs: pids}),
	)
}

// Remove implements keeper.Driver. Where there is nothing, no module is loaded.
func (d *driver) Remove(p *keeper.Port) error {
	d.forget()
	link, err := d.host.NL.LinkByName(p.Name)
	switch {
	case keeper.IsGone(err):
		err = nil
	case err == nil && link.Type() == p.Kind:
		if err = d.connect(); err == nil {
			err = d.c.tell(d.c.datapath, wire.CmdDel, &wire.Datapath{Name: p.Name})
		}
		if isAbsent(err) {
			err = nil
		}
	}
	return errors.Join(err, d.host.RemoveLink(tunnelName, tunnelKind))
}

// Enter implements keeper.Driver.
func (d *driver) Enter(_ *keeper.Port, mac ether.MAC, to netip.AddrPort) error {
	if d.datapath == 0 {
		return unix.ENODEV
	}
	id, f := d.to(mac, tag{}, to)
	d.flush(func(p *passing) bool { return p.kind == kindTo && p.dst == mac }, id)
	return d.c.put(f)
}

// Leave implements keeper.Driver. A flow that cannot be removed is seen by Sync.
func (d *driver) Leave(_ *keeper.Port, mac ether.MAC) {
	if d.datapath == 0 {
		return
	}
	_, f := d.to(mac, tag{}, netip.AddrPort{})
	d.flush(func(p *passing) bool { return p.kind == kindTo && p.dst == mac }, ufid{})
	if err := d.c.del(&wire.Flow{Datapath: d.datapath, UFID: f.UFID, Key: f.Key}); err != nil {
		d.log.Debug("flow not removed", "mac", mac, "err", err)
	}
}

// Strict implements keeper.Driver: who has no flow is dropped.
func (d *driver) Strict() bool { return true }

// Counters implements keeper.Driver.
func (d *driver) Counters(out map[string]uint64) {
	for what, n := range d.counts {
		out[what] += n
	}
	if d.lost > 0 {
		out["upcalls_lost"] = d.lost
	}
}

// Close implements keeper.Driver.
func (d *driver) Close() error {
	var errs []error
	for _, c := range d.socks {
		errs = append(errs, c.Close())
	}
	d.c.close()
	d.socks, d.c = nil, nil
	return errors.Join(errs...)
}
