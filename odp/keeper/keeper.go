package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/odp"
)

// VNI is the vxlan network identifier of all weave networks: it is not what keeps
// networks apart, the filter is.
const VNI = 0x776576

// routeEvery is how old what is known of the way to a peer may be.
const routeEvery = 10 * time.Second

// Config of a Keeper.
type Config struct {
	Bridge string    // must exist when the first peer is added
	Local  peer.Name // whose probe MAC the ports have
	MTU    int       // of the overlay: the ports' MTU
	Port   uint16    // UDP
	Adopt  bool      // take over what an earlier run left, instead of removing it
	Log    *slog.Logger
}

// Keeper implements odp.Backend.
type Keeper struct {
	cfg   Config
	log   *slog.Logger
	host  *Host
	drv   Driver
	seal  Sealer        // drv if it is one, else nil
	watch []*os.File    // notification sockets
	poke  chan struct{} // has room for one: something may have changed

	mu       sync.Mutex
	peers    map[peer.Name]*target
	macs     map[ether.MAC]peer.Name
	ports    []*Port
	adopted  map[ether.MAC]netip.Addr // entries of an earlier run
	admitted []netip.Addr             // addresses that run let in
	filter   filter
	sink     odp.Sink // nil: not running
	deepAt   time.Time
	running  context.Context
	readers  sync.WaitGroup
	counts   map[string]uint64
	logged   string // last error of the filter
}

var _ odp.Backend = (*Keeper)(nil)

// target is a peer that was added.
type target struct {
	odp.Peer
	to     netip.AddrPort // where entries lead: Addr, or the peer's address inside
	family int            // of to
	probe  ether.MAC
	way    route
	err    error // why entries lead nowhere
}

// Open returns a Keeper of the ports of a driver in the host's namespace. It makes
// nothing in the kernel. Host and driver are its own from now on, also when it fails.
func Open(cfg Config, host *Host, drv Driver, ports ...*Port) (*Keeper, error) {
	k := &Keeper{
		cfg: cfg, log: cfg.Log, host: host, drv: drv, ports: ports, poke: make(chan struct{}, 1),
		peers: map[peer.Name]*target{}, macs: map[ether.MAC]peer.Name{}, adopted: map[ether.MAC]netip.Addr{},
		counts: map[string]uint64{},
	}
	k.seal, _ = drv.(Sealer)
	for _, p := range ports {
		p.setMACs(&cfg, k.seal != nil)
	}
	if err := k.open(); err != nil {
		k.Close()
		return nil, fmt.Errorf("opening %s backend: %w", drv.Name(), err)
	}
	return k, nil
}

func (k *Keeper) open() error {
	for _, w := range []struct{ proto, groups int }{
		{unix.NETLINK_ROUTE, unix.RTMGRP_LINK},
		{unix.NETLINK_NETFILTER, 1 << (unix.NFNLGRP_NFTABLES - 1)},
	} {
		f, err := k.host.subscribe(w.proto, w.groups)
		if err != nil {
			if w.proto == unix.NETLINK_NETFILTER {
				continue // no nftables: the filter will say so
			}
			return err
		}
		k.watch = append(k.watch, f)
	}
	k.filter.open(k.host.FD(), k.cfg.Port)
	if !k.cfg.Adopt {
		return k.removeAll()
	}
	return k.adopt()
}

// Remove removes what Keepers of the driver leave in the host's namespace, and closes
// both. What is not there is no error. The filter stays if it guards another backend's
// device.
func Remove(host *Host, drv Driver, ports ...*Port) error {
	k := &Keeper{host: host, drv: drv, ports: ports}
	k.seal, _ = drv.(Sealer)
	defer k.Close()
	k.filter.open(host.FD(), 0)
	err := k.removePorts()
	if k.seal != nil || k.guarded() {
		return err
	}
	return errors.Join(err, k.filter.remove())
}

// guarded reports whether there is a device that listens on the port of the filter.
func (k *Keeper) guarded() bool {
	port := k.filter.guards()
	links, err := k.host.NL.LinkList()
	return port != 0 && err == nil && slices.ContainsFunc(links, func(l netlink.Link) bool {
		v, ok := l.(*netlink.Vxlan)
		return ok && v.Port == int(port)
	})
}

// Close frees descriptors; Run must have returned.
func (k *Keeper) Close() error {
	for _, f := range k.watch {
		f.Close()
	}
	k.watch = nil
	err := k.drv.Close()
	k.host.Close()
	return err
}

// Name returns the driver's.
func (k *Keeper) Name() string { return k.drv.Name() }

func family(a netip.Addr) int {
	if a.Unmap().Is6() {
		return 1
	}
	return 0
}

// port serves peers of a family.
func (k *Keeper) port(f int) *Port {
	for _, p := range k.ports {
		if p.Families[f] {
			return p
		}
	}
	panic("keeper: a driver without a port for a family") // a constant of the driver
}

// AddPeer implements odp.Backend.
func (k *Keeper) AddPeer(p odp.Peer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p.Addr = netip.AddrPortFrom(p.Addr.Addr().Unmap().WithZone(""), p.Addr.Port())
	p.Also = p.Also.Unmap().WithZone("")
	old := k.peers[p.Name]
	if old != nil && old.Peer == p {
		return
	}
	t := k.target(p)
	if old != nil && old.to != t.to {
		k.unsteerAll(p.Name)
		k.leave(old.family, old.probe)
	}
	k.peers[p.Name] = t
	delete(k.adopted, t.probe)
	k.mend(false)
	if port := k.port(t.family); port.err == nil && t.err == nil {
		if err := k.drv.Enter(port, t.probe, t.to); err != nil {
			k.log.Debug("probe entry not set", "peer", p.Name, "err", err)
		}
	}
}

// target says how a peer is reached.
func (k *Keeper) target(p odp.Peer) *target {
	t := &target{Peer: p, to: p.Addr}
	if k.seal != nil {
		t.to, t.err = k.seal.Inside(p)
		t.family, t.probe = family(t.to.Addr()), odp.SealedProbeMAC(p.Name)
		return t
	}
	t.family = family(t.to.Addr())
	t.probe = odp.ProbeMAC(p.Name, t.family == 1)
	return t
}

// RemovePeer implements odp.Backend.
func (k *Keeper) RemovePeer(n peer.Name) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.peers[n]
	if t == nil {
		return
	}
	k.unsteerAll(n)
	delete(k.peers, n)
	k.leave(t.family, t.probe)
	k.mend(false)
}

func (k *Keeper) unsteerAll(n peer.Name) {
	for mac, at := range k.macs {
		if at == n {
			delete(k.macs, mac)
			k.leave(k.peers[n].family, mac)
		}
	}
}

// leave has the driver remove an entry, if there is a device.
func (k *Keeper) leave(f int, mac ether.MAC) {
	if p := k.port(f); p.Index != 0 {
		k.drv.Leave(p, mac)
	}
}

// Steer implements odp.Backend.
func (k *Keeper) Steer(mac ether.MAC, to peer.Name) (port int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.peers[to]
	if t == nil {
		return 0, &odp.ReasonError{Why: odp.ReasonClosed}
	}
	p := k.port(t.family)
	if err := cmp.Or(p.err, t.err); err != nil {
		return 0, err
	}
	if old := k.peers[k.macs[mac]]; old != nil && k.port(old.family) != p {
		k.leave(old.family, mac)
	}
	if err := k.drv.Enter(p, mac, t.to); err != nil {
		k.Wake()
		return 0, asReason(fmt.Errorf("entering %v on %s: %w", mac, p.Name, err))
	}
	delete(k.adopted, mac)
	k.macs[mac] = to
	return p.Index, nil
}

// Unsteer implements odp.Backend.
func (k *Keeper) Unsteer(mac ether.MAC) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t, left := k.peers[k.macs[mac]], k.adopted[mac]
	delete(k.macs, mac)
	delete(k.adopted, mac)
	switch {
	case t != nil:
		k.leave(t.family, mac)
	case left.IsValid():
		k.leave(family(left), mac)
	}
}

// Ports implements odp.Backend.
func (k *Keeper) Ports() (ports []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.ports {
		if p.Index != 0 {
			ports = append(ports, p.Index)
		}
	}
	return ports
}

// State implements odp.Backend.
func (k *Keeper) State(n peer.Name) odp.State {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.peers[n]
	if t == nil {
		return odp.State{Err: &odp.ReasonError{Why: odp.ReasonClosed}}
	}
	if time.Since(t.way.looked) >= routeEvery {
		t.way = k.host.look(t.Addr.Addr(), k.encapsulation())
	}
	p := k.port(t.family)
	st := odp.State{Port: p.Index, MTU: t.way.mtu, Source: t.way.source}
	switch {
	case p.err != nil:
		st.Err = p.err
	case t.err != nil:
		st.Err = t.err
	case t.way.err != nil:
		st.Err = t.way.err
	case t.way.mtu < k.cfg.MTU:
		st.Err = &odp.ReasonError{Why: odp.ReasonMTU, Err: fmt.Errorf(
			"the underlay carries inner packets of %d bytes, the overlay has %d", t.way.mtu, k.cfg.MTU)}
	}
	return st
}

func (k *Keeper) encapsulation() overlay.Encapsulation {
	if k.seal != nil {
		return overlay.EncapCage
	}
	return overlay.EncapVXLAN
}

// With calls fn with where frames to mac go, if it is steered, adopted, or a peer's probe
// MAC. Nothing changes while fn runs: it may do what methods of the Driver may. It is
// for goroutines of Driver.Run.
func (k *Keeper) With(mac ether.MAC, fn func(to netip.AddrPort, ok bool)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.peers[k.macs[mac]]; t != nil {
		fn(t.to, true)
		return
	}
	if a, ok := k.adopted[mac]; ok {
		fn(netip.AddrPortFrom(a, k.cfg.Port), true)
		return
	}
	for _, t := range k.peers {
		if t.probe == mac {
			fn(t.to, true)
			return
		}
	}
	fn(netip.AddrPort{}, false)
}

// Adopted implements odp.Backend.
func (k *Keeper) Adopted() map[ether.MAC]netip.Addr {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make(map[ether.MAC]netip.Addr, len(k.adopted))
	for mac, a := range k.adopted {
		out[mac] = a
	}
	return out
}

// Disown implements odp.Backend.
func (k *Keeper) Disown() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.adopted, k.admitted = map[ether.MAC]netip.Addr{}, nil
	k.mend(true)
}

// Counters implements odp.Backend.
func (k *Keeper) Counters() map[string]uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]uint64{}
	if k.seal == nil {
		out["stranger"] = k.filter.dropped()
	}
	for what, n := range k.counts {
		out[what] = n
	}
	k.drv.Counters(out)
	return out
}

// SendProbe implements odp.Backend.
func (k *Keeper) SendProbe(to peer.Name, frame []byte) error {
	k.mu.Lock()
	t := k.peers[to]
	if t == nil {
		k.mu.Unlock()
		return &odp.ReasonError{Why: odp.ReasonClosed}
	}
	p := k.port(t.family)
	sock, err := p.sock, p.err
	k.mu.Unlock()
	if sock == nil {
		return &odp.ReasonError{Why: odp.ReasonDevice, Err: err}
	}
	if _, err := sock.f.Write(frame); err != nil {
		k.Wake()
		return &odp.ReasonError{Why: odp.ReasonDevice, Err: err}
	}
	return nil
}

// Wake has the kernel's state looked at soon; it may be called from anywhere.
func (k *Keeper) Wake() {
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// adopt takes note of what an earlier run left.
func (k *Keeper) adopt() error {
	for _, p := range k.ports {
		link, err := k.host.NL.LinkByName(p.Name)
		if IsGone(err) || err == nil && link.Type() != p.Kind {
			continue
		}
		if err != nil {
			return err
		}
		if !k.drv.Usable(p, link) {
			k.removePort(p)
			continue
		}
		p.Index = link.Attrs().Index
		have, err := k.drv.Entries(p)
		if err != nil {
			return err
		}
		for mac, a := range have {
			k.adopted[mac] = a
		}
	}
	if len(k.adopted) == 0 {
		return k.removeAll()
	}
	if k.seal == nil {
		k.admitted = k.filter.admitted()
	}
	return nil
}

// removeAll leaves nothing in the kernel.
func (k *Keeper) removeAll() error {
	err := k.removePorts()
	if k.seal != nil {
		return err
	}
	return errors.Join(err, k.filter.remove())
}

func (k *Keeper) removePorts() error {
	var errs []error
	for _, p := range k.ports {
		errs = append(errs, k.removePort(p))
		p.err = nil
	}
	return errors.Join(errs...)
}
