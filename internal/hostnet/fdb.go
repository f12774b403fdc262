package hostnet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
)

// FDB is the forwarding table of one bridge: which port leads to which MAC.
//
// The router enters remote MACs on its own ports as extern_learn entries, which
// do not age. If the bridge sees such a MAC as the source of a frame on another
// port, it takes the entry over by itself: the MAC has come home. All other
// entries the bridge learns and forgets by itself; Watch tells of them.
//
// Methods may be called from any goroutine.
type FDB struct {
	host   *Host
	bridge string
}

// FDB returns the forwarding table of the bridge of that name, which need not
// exist yet and may be deleted and made again.
func (h *Host) FDB(bridge string) *FDB { return &FDB{h, bridge} }

// Replace makes port, an ifindex, the way to mac, whatever it was before, be it a
// local port. The entry stays until it is deleted, replaced, or taken over by a
// local sighting.
func (f *FDB) Replace(mac ether.MAC, port int) error {
	if err := f.host.nl.NeighSet(externEntry(mac, port)); err != nil {
		return hint(fmt.Errorf("entering %v on port %d of bridge %s: %w", mac, port, f.bridge, err))
	}
	return nil
}

// Delete removes mac's entry if it is on port, whoever made it. No entry, or no
// port, is no error.
func (f *FDB) Delete(mac ether.MAC, port int) error {
	if err := f.host.nl.NeighDel(externEntry(mac, port)); err != nil && !isGone(err) {
		return hint(fmt.Errorf("removing %v from port %d of bridge %s: %w", mac, port, f.bridge, err))
	}
	return nil
}

// externEntry is `bridge fdb replace MAC dev PORT master dynamic extern_learn`.
func externEntry(mac ether.MAC, port int) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex:    port,
		Family:       unix.AF_BRIDGE,
		State:        netlink.NUD_REACHABLE,
		Flags:        netlink.NTF_EXT_LEARNED | netlink.NTF_MASTER,
		HardwareAddr: mac[:],
	}
}

// Flush removes the entries that Replace made on the ports given, or on all ports
// if none is given.
func (f *FDB) Flush(ports ...int) error {
	_, neighs, err := f.dump()
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range neighs {
		if n.Flags&netlink.NTF_EXT_LEARNED != 0 && (len(ports) == 0 || slices.Contains(ports, n.LinkIndex)) {
			errs = append(errs, f.Delete(macOf(n.HardwareAddr), n.LinkIndex))
		}
	}
	return errors.Join(errs...)
}

// Prune removes the entries that Replace made on these ports, now or in an earlier run
// of the program, and that keep says are not wanted.
func (f *FDB) Prune(keep func(ether.MAC) bool, ports ...int) error {
	_, neighs, err := f.dump()
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range neighs {
		if mac := macOf(n.HardwareAddr); n.Flags&netlink.NTF_EXT_LEARNED != 0 && slices.Contains(ports, n.LinkIndex) && !keep(mac) {
			errs = append(errs, f.Delete(mac, n.LinkIndex))
		}
	}
	return errors.Join(errs...)
}

// dump returns the bridge's ifindex and entries; 0 and none if there is no bridge.
func (f *FDB) dump() (bridge int, own []netlink.Neigh, err error) {
	br, err := f.host.bridge(f.bridge)
	if errors.Is(err, ErrNoBridge) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, hint(err)
	}
	all, err := f.host.dumpFDB()
	if err != nil {
		return 0, nil, hint(fmt.Errorf("reading FDB of %s: %w", f.bridge, err))
	}
	own = slices.DeleteFunc(all, func(n netlink.Neigh) bool { return !ofBridge(&n, br.Index) })
	return br.Index, own, nil
}

// ofBridge reports whether n is an entry of that bridge for untagged frames.
func ofBridge(n *netlink.Neigh, bridge int) bool {
	return bridge != 0 && n.Family == unix.AF_BRIDGE && n.MasterIndex == bridge && n.Vlan == 0 && len(n.HardwareAddr) == len(ether.MAC{})
}

// FDBEvent says where a MAC of this host is now. The last event of a MAC is its
// present state.
type FDBEvent struct {
	MAC       ether.MAC
	Port      int  // ifindex of the port that leads there; 0: it is not local, or no more
	Permanent bool // the address of a port itself, or of the bridge, not one behind it
}

// Watch calls fn with an event for each local MAC there is, then for each that
// appears, moves to another port, or vanishes (aged out, port gone, or made remote
// by Replace), until ctx ends. It returns ctx's error or the one that made
// watching impossible. Entries made by Replace are not reported. fn runs on the
// caller's goroutine.
//
// Watch follows the bridge when it is deleted and made again, and when the kernel
// had to drop notifications it catches up from a dump, so that fn misses no
// lasting state; a MAC that came and went meanwhile may go unreported.
func (f *FDB) Watch(ctx context.Context, fn func(FDBEvent)) error {
	// Subscribed before the first dump: nothing falls in between. A queued
	// notification older than the dump is followed by those that led to it.
	l, err := f.host.listen(unix.RTNLGRP_NEIGH, unix.RTNLGRP_LINK)
	if err != nil {
		return hint(err)
	}
	defer l.close()
	v := &fdbView{fdb: f, local: make(map[ether.MAC]FDBEvent), emit: fn}
	if err := v.resync(); err != nil {
		return err
	}
	return l.run(ctx, v.handle, v.resync)
}

// fdbView is what a Watch has told its caller. It is owned by the Watch.
type fdbView struct {
	fdb    *FDB
	bridge int // ifindex, 0: none
	local  map[ether.MAC]FDBEvent
	emit   func(FDBEvent)
}

// resync compares the kernel's table with the view and tells the differences.
func (v *fdbView) resync() error {
	bridge, neighs, err := v.fdb.dump()
	if err != nil {
		return err
	}
	v.bridge = bridge
	present := make(map[ether.MAC]bool, len(neighs))
	for i := range neighs {
		if neighs[i].Flags&netlink.NTF_EXT_LEARNED == 0 {
			present[macOf(neighs[i].HardwareAddr)] = true
		}
	}
	for mac := range v.local {
		if !present[mac] {
			v.vanished(mac)
		}
	}
	for i := range neighs {
		v.entry(&neighs[i])
	}
	return nil
}

func (v *fdbView) handle(msgs []syscall.NetlinkMessage) error {
	for _, m := range msgs {
		switch m.Header.Type {
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			v.neigh(m)
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			index, name, ok := linkOf(m)
			made := m.Header.Type == unix.RTM_NEWLINK && name == v.fdb.bridge && index != v.bridge
			gone := m.Header.Type == unix.RTM_DELLINK && index == v.bridge
			if ok && (made || gone) {
				return v.resync() // what is queued is of the time before
			}
		}
	}
	return nil
}

func (v *fdbView) neigh(m syscall.NetlinkMessage) {
	n, err := parseNeigh(m.Data)
	if err != nil || !ofBridge(n, v.bridge) {
		return
	}
	if m.Header.Type == unix.RTM_NEWNEIGH {
		v.entry(n)
	} else if mac := macOf(n.HardwareAddr); v.local[mac].Port == n.LinkIndex {
		v.vanished(mac)
	}
}

// entry takes in an entry that is in the table.
func (v *fdbView) entry(n *netlink.Neigh) {
	mac := macOf(n.HardwareAddr)
	if n.Flags&netlink.NTF_EXT_LEARNED != 0 {
		v.vanished(mac)
		return
	}
	ev := FDBEvent{MAC: mac, Port: n.LinkIndex, Permanent: n.State&netlink.NUD_PERMANENT != 0}
	if v.local[mac] != ev {
		v.local[mac] = ev
		v.emit(ev)
	}
}

// vanished takes in that mac is not local; telling it twice is avoided.
func (v *fdbView) vanished(mac ether.MAC) {
	if _, ok := v.local[mac]; ok {
		delete(v.local, mac)
		v.emit(FDBEvent{MAC: mac})
	}
}
