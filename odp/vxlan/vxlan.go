package vxlan

import (
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

// Times of mending.
const (
	checkEvery = time.Second      // links and filter
	deepEvery  = 4 * time.Second  // entries and port flags too
	routeEvery = 10 * time.Second // how the peer is reached
	settle     = 20 * time.Millisecond
)

// Config of a Backend.
type Config struct {
	Bridge string    // must exist when the first peer is added
	Local  peer.Name // whose probe MAC the devices have
	MTU    int       // of the overlay: the devices' MTU
	Port   uint16    // UDP
	Adopt  bool      // take over what an earlier run left, instead of removing it
	Log    *slog.Logger
}

// Backend implements odp.Backend.
type Backend struct {
	cfg   Config
	log   *slog.Logger
	ns    *os.File
	nl    *netlink.Handle
	watch []*os.File    // notification sockets
	poke  chan struct{} // has room for one: something may have changed

	mu       sync.Mutex
	peers    map[peer.Name]*target
	macs     map[ether.MAC]peer.Name
	devs     [2]device                // by family: 0 IPv4, 1 IPv6
	adopted  map[ether.MAC]netip.Addr // entries of an earlier run
	admitted []netip.Addr             // addresses that run let in
	filter   filter
	sink     odp.Sink // nil: not running
	deepAt   time.Time
	running  context.Context
	readers  sync.WaitGroup
	counts   map[string]uint64
	logged   [2]string // last error logged for each family
}

var _ odp.Backend = (*Backend)(nil)

// target is a peer that was added.
type target struct {
	odp.Peer
	family int
	probe  ether.MAC

	looked time.Time // when the route was
	mtu    int
	source netip.Addr
	err    error // of the route
}

// Open returns a Backend for the calling thread's network namespace. It makes nothing
// in the kernel.
func Open(cfg Config) (*Backend, error) {
	b := &Backend{
		cfg: cfg, log: cfg.Log, poke: make(chan struct{}, 1),
		peers: map[peer.Name]*target{}, macs: map[ether.MAC]peer.Name{}, adopted: map[ether.MAC]netip.Addr{},
		counts: map[string]uint64{},
	}
	b.devs[0].name, b.devs[1].name = deviceName, deviceName6
	b.devs[1].ipv6 = true
	for i := range b.devs {
		b.devs[i].mac = odp.ProbeMAC(cfg.Local, b.devs[i].ipv6)
	}
	if err := b.open(); err != nil {
		b.Close()
		return nil, fmt.Errorf("opening vxlan backend: %w", err)
	}
	return b, nil
}

func (b *Backend) open() (err error) {
	if b.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	if b.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if err := b.nl.SetSocketTimeout(5 * time.Second); err != nil {
		return err
	}
	for _, w := range []struct{ proto, groups int }{
		{unix.NETLINK_ROUTE, unix.RTMGRP_LINK},
		{unix.NETLINK_NETFILTER, 1 << (unix.NFNLGRP_NFTABLES - 1)},
	} {
		f, err := subscribe(w.proto, w.groups)
		if err != nil {
			if w.proto == unix.NETLINK_NETFILTER {
				continue // no nftables: the filter will say so
			}
			return err
		}
		b.watch = append(b.watch, f)
	}
	b.filter.open(int(b.ns.Fd()), b.cfg.Port)
	if !b.cfg.Adopt {
		return b.removeAll()
	}
	return b.adopt()
}

// Remove removes what Backends leave in the calling thread's network namespace. What
// is not there is no error.
func Remove() error {
	b := &Backend{}
	defer b.Close()
	var err error
	if b.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	if b.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	b.devs[0].name, b.devs[1].name = deviceName, deviceName6
	b.filter.open(int(b.ns.Fd()), 0)
	return b.removeAll()
}

// Close frees descriptors; Run must have returned.
func (b *Backend) Close() error {
	for _, f := range b.watch {
		f.Close()
	}
	b.watch = nil
	if b.nl != nil {
		b.nl.Close()
	}
	if b.ns != nil {
		b.ns.Close()
	}
	return nil
}

// Name returns "vxlan".
func (b *Backend) Name() string { return "vxlan" }

func family(a netip.Addr) int {
	if a.Unmap().Is6() {
		return 1
	}
	return 0
}

// AddPeer implements odp.Backend.
func (b *Backend) AddPeer(p odp.Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.Addr = netip.AddrPortFrom(p.Addr.Addr().Unmap().WithZone(""), p.Addr.Port())
	p.Also = p.Also.Unmap().WithZone("")
	f := family(p.Addr.Addr())
	if old := b.peers[p.Name]; old != nil && old.Peer == p {
		return
	} else if old != nil && old.Addr != p.Addr {
		b.unsteerAll(p.Name)
		b.delEntry(old.family, old.probe)
	}
	t := &target{Peer: p, family: f, probe: odp.ProbeMAC(p.Name, f == 1)}
	b.peers[p.Name] = t
	delete(b.adopted, t.probe)
	b.mend(false)
	if b.devs[f].err == nil {
		if err := b.addEntry(f, t.probe, t.Addr); err != nil {
			b.log.Debug("probe entry not set", "peer", p.Name, "err", err)
		}
	}
}

// RemovePeer implements odp.Backend.
func (b *Backend) RemovePeer(n peer.Name) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.peers[n]
	if t == nil {
		return
	}
	b.unsteerAll(n)
	delete(b.peers, n)
	b.delEntry(t.family, t.probe)
	b.mend(false)
}

func (b *Backend) unsteerAll(n peer.Name) {
	for mac, at := range b.macs {
		if at == n {
			delete(b.macs, mac)
			b.delEntry(b.peers[n].family, mac)
		}
	}
}

// Steer implements odp.Backend.
func (b *Backend) Steer(mac ether.MAC, to peer.Name) (port int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.peers[to]
	if t == nil {
		return 0, &odp.ReasonError{Why: odp.ReasonClosed}
	}
	d := &b.devs[t.family]
	if d.err != nil {
		return 0, d.err
	}
	if old := b.peers[b.macs[mac]]; old != nil && old.family != t.family {
		b.delEntry(old.family, mac)
	}
	if err := b.addEntry(t.family, mac, t.Addr); err != nil {
		b.wake()
		return 0, err
	}
	delete(b.adopted, mac)
	b.macs[mac] = to
	return d.index, nil
}

// Unsteer implements odp.Backend.
func (b *Backend) Unsteer(mac ether.MAC) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.peers[b.macs[mac]]
	delete(b.macs, mac)
	delete(b.adopted, mac)
	if t != nil {
		b.delEntry(t.family, mac)
	}
}

// Ports implements odp.Backend.
func (b *Backend) Ports() (ports []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.devs {
		if b.devs[i].index != 0 {
			ports = append(ports, b.devs[i].index)
		}
	}
	return ports
}

// State implements odp.Backend.
func (b *Backend) State(n peer.Name) odp.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.peers[n]
	if t == nil {
		return odp.State{Err: &odp.ReasonError{Why: odp.ReasonClosed}}
	}
	if now := time.Now(); now.Sub(t.looked) >= routeEvery {
		t.looked = now
		b.route(t)
	}
	st := odp.State{Port: b.devs[t.family].index, MTU: t.mtu, Source: t.source}
	switch {
	case b.filter.err != nil:
		st.Err = b.filter.err
	case b.devs[t.family].err != nil:
		st.Err = b.devs[t.family].err
	case t.err != nil:
		st.Err = t.err
	case t.mtu < b.cfg.MTU:
		st.Err = &odp.ReasonError{Why: odp.ReasonMTU, Err: fmt.Errorf(
			"the underlay carries inner packets of %d bytes, the overlay has %d", t.mtu, b.cfg.MTU)}
	}
	return st
}

// route looks up how large packets to the peer may be, and where they come from.
func (b *Backend) route(t *target) {
	t.mtu, t.source, t.err = 0, netip.Addr{}, nil
	routes, err := b.nl.RouteGet(t.Addr.Addr().AsSlice())
	if err != nil || len(routes) == 0 {
		t.err = &odp.ReasonError{Why: odp.ReasonRoute, Err: err}
		return
	}
	r := routes[0]
	link, err := b.nl.LinkByIndex(r.LinkIndex)
	if err != nil {
		t.err = &odp.ReasonError{Why: odp.ReasonRoute, Err: err}
		return
	}
	mtu := link.Attrs().MTU
	if r.MTU > 0 {
		mtu = min(mtu, r.MTU)
	}
	t.mtu = overlay.InnerMTU(mtu, t.family == 1, overlay.EncapVXLAN)
	t.source, _ = netip.AddrFromSlice(r.Src)
	t.source = t.source.Unmap()
}

// Adopted implements odp.Backend.
func (b *Backend) Adopted() map[ether.MAC]netip.Addr {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[ether.MAC]netip.Addr, len(b.adopted))
	for mac, a := range b.adopted {
		out[mac] = a
	}
	return out
}

// Disown implements odp.Backend.
func (b *Backend) Disown() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.adopted, b.admitted = map[ether.MAC]netip.Addr{}, nil
	b.mend(true)
}

// Counters implements odp.Backend.
func (b *Backend) Counters() map[string]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]uint64{"stranger": b.filter.dropped()}
	for k, n := range b.counts {
		out[k] = n
	}
	return out
}

// SendProbe implements odp.Backend.
func (b *Backend) SendProbe(to peer.Name, frame []byte) error {
	b.mu.Lock()
	t := b.peers[to]
	if t == nil {
		b.mu.Unlock()
		return &odp.ReasonError{Why: odp.ReasonClosed}
	}
	sock, err := b.devs[t.family].sock, b.devs[t.family].err
	b.mu.Unlock()
	if sock == nil {
		return &odp.ReasonError{Why: odp.ReasonDevice, Err: err}
	}
	if _, err := sock.f.Write(frame); err != nil {
		b.wake()
		return &odp.ReasonError{Why: odp.ReasonDevice, Err: err}
	}
	return nil
}

// wake has the kernel's state looked at soon.
func (b *Backend) wake() {
	select {
	case b.poke <- struct{}{}:
	default:
	}
}

// Run implements odp.Backend.
func (b *Backend) Run(ctx context.Context, s odp.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watchers sync.WaitGroup
	for _, f := range b.watch {
		watchers.Go(func() { b.listen(ctx, f) })
	}
	b.mu.Lock()
	b.sink, b.running = s, ctx
	b.mend(true)
	b.mu.Unlock()
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-b.poke:
			select { // let a burst pass
			case <-ctx.Done():
			case <-time.After(settle):
			}
		case <-tick.C:
		}
		if ctx.Err() == nil {
			b.check()
		}
	}
	b.mu.Lock()
	b.sink, b.running = nil, nil
	for i := range b.devs {
		b.devs[i].closeSock()
	}
	b.mu.Unlock()
	for _, f := range b.watch {
		f.SetReadDeadline(time.Unix(1, 0))
	}
	watchers.Wait()
	b.readers.Wait()
	return nil
}

// check mends what is not as it should be.
func (b *Backend) check() {
	b.mu.Lock()
	var before [2]int
	for i := range b.devs {
		before[i] = b.devs[i].index
	}
	now := time.Now()
	deep := now.Sub(b.deepAt) >= deepEvery
	b.mend(deep)
	changed := false
	for i := range b.devs {
		changed = changed || before[i] != b.devs[i].index || b.devs[i].remade
		b.devs[i].remade = false
	}
	sink := b.sink
	b.mu.Unlock()
	if changed && sink != nil {
		sink.Changed()
	}
}

// mend brings the kernel to the state asked for, as far as it can. mu is held.
func (b *Backend) mend(deep bool) {
	if deep {
		b.deepAt = time.Now()
	}
	var need [2]bool
	var addrs []netip.Addr
	for _, t := range b.peers {
		need[t.family] = true
		addrs = append(addrs, t.Addr.Addr())
		if t.Also.IsValid() {
			addrs = append(addrs, t.Also)
		}
	}
	for _, a := range b.adopted {
		need[family(a)] = true
		addrs = append(addrs, a)
	}
	addrs = append(addrs, b.admitted...)
	if !need[0] && !need[1] {
		if err := b.removeAll(); err != nil {
			b.log.Warn("removing kernel path", "err", err)
		}
		return
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	if fixed, err := b.filter.ensure(slices.Compact(addrs)); err != nil {
		b.log.Warn("filter for vxlan packets not in order", "err", err)
	} else if fixed {
		b.count("filter_repairs")
		b.log.Warn("filter for vxlan packets repaired")
	}
	for i := range b.devs {
		if !need[i] {
			b.removeDevice(&b.devs[i])
			continue
		}
		b.mendDevice(i, deep)
	}
}

func (b *Backend) count(what string) { b.counts[what]++ }

func (b *Backend) mendDevice(i int, deep bool) {
	d := &b.devs[i]
	if b.filter.err != nil { // no device without a filter
		b.removeDevice(d)
		d.err = b.filter.err
	} else if made, err := b.ensureDevice(d, deep); err != nil {
		d.err = err
	} else {
		d.err = nil
		if made {
			deep = true
		}
		if deep {
			if err := b.syncEntries(i); err != nil {
				b.log.Warn("entries of vxlan device not in order", "device", d.name, "err", err)
			}
		}
	}
	text := ""
	if d.err != nil {
		text = d.err.Error()
	}
	if text != b.logged[i] {
		b.logged[i] = text
		if d.err != nil {
			b.log.Warn("kernel path not available", "device", d.name, "reason", odp.ReasonOf(d.err), "err", d.err)
		} else {
			b.log.Info("kernel path available", "device", d.name, "port", b.cfg.Port)
		}
	}
}

// removeAll leaves nothing in the kernel.
func (b *Backend) removeAll() error {
	var errs []error
	for i := range b.devs {
		errs = append(errs, b.removeDevice(&b.devs[i]))
		b.devs[i].err = nil
	}
	errs = append(errs, b.filter.remove())
	return errors.Join(errs...)
}
