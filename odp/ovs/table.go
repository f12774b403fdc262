package ovs

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/odp/keeper"
	"weave/odp/ovs/wire"
)

// passing is a flow that a miss has made, and that goes when it is idle.
type passing struct {
	kind    byte
	dst     ether.MAC
	drop    string // reason; "": it carries frames
	made    time.Time
	counted uint64 // dropped frames of it that were counted
}

// flush removes passing flows; the one with identifier keep is only forgotten, since
// its place is taken.
func (d *driver) flush(which func(*passing) bool, keep ufid) {
	for id, p := range d.passing {
		if which(p) {
			delete(d.passing, id)
			if id != keep {
				d.remove(id)
			}
		}
	}
}

// remove removes a flow by its identifier; the kernel wants no key then.
func (d *driver) remove(id ufid) {
	if err := d.c.del(&wire.Flow{Datapath: d.datapath, UFID: id[:]}); err != nil {
		d.log.Debug("flow not removed", "err", err)
	}
}

// Admit implements keeper.Driver.
func (d *driver) Admit(_ *keeper.Port, addrs []netip.Addr) error {
	want := map[netip.Addr]bool{}
	changed := len(addrs) != len(d.admitted)
	for _, a := range addrs {
		want[a] = true
		changed = changed || !d.admitted[a]
	}
	if !changed {
		return nil
	}
	had := d.admitted
	d.admitted = want
	// A stranger may have become a peer, or a peer a stranger.
	d.flush(func(p *passing) bool { return p.kind == kindFrom }, ufid{})
	var errs []error
	for a := range want {
		if !had[a] {
			_, f := d.from(a, keeper.VNI, tag{}, false)
			errs = append(errs, d.c.put(f))
		}
	}
	for a := range had {
		if !want[a] {
			id, _ := d.from(a, keeper.VNI, tag{}, false)
			d.remove(id)
		}
	}
	err := errors.Join(errs...)
	if err != nil {
		d.admitted = map[netip.Addr]bool{} // all of them again
	}
	return err
}

// Entries implements keeper.Driver.
func (d *driver) Entries(p *keeper.Port) (map[ether.MAC]netip.Addr, error) {
	if err := d.connect(); err != nil {
		return nil, err
	}
	flows, err := d.c.flows(int32(p.Index), wire.OmitMask)
	if err != nil {
		return nil, err
	}
	out := map[ether.MAC]netip.Addr{}
	for _, f := range flows {
		id, ok := ours(f.UFID)
		if ok && id[3] == kindTo && f.Key.Has&wire.HasVLAN == 0 && len(f.Actions) > 0 && f.Actions[0].SetTunnel != nil {
			out[f.Key.Dst] = f.Actions[0].SetTunnel.Dst
		}
	}
	return out, nil
}

// Sync implements keeper.Driver.
func (d *driver) Sync(_ *keeper.Port, want map[ether.MAC]netip.AddrPort) error {
	steady := map[ufid]*wire.Flow{}
	for mac, to := range want {
		id, f := d.to(mac, tag{}, to)
		steady[id] = f
	}
	for a := range d.admitted {
		id, f := d.from(a, keeper.VNI, tag{}, false)
		steady[id] = f
	}
	have, err := d.c.flows(d.datapath, wire.OmitKey|wire.OmitMask)
	if err != nil {
		return err
	}
	var errs []error
	seen := map[ufid]bool{}
	for _, f := range have {
		id, ok := ours(f.UFID)
		switch p := d.passing[id]; {
		case !ok: // somebody else's
			errs = append(errs, d.c.del(&wire.Flow{Datapath: d.datapath, UFID: f.UFID, RawKey: f.RawKey}))
		case steady[id] != nil && sameActions(f.Actions, steady[id].Actions):
			seen[id] = true
		case steady[id] != nil: // will be put again
		case p == nil:
			d.remove(id)
		case d.expired(p, &f):
			delete(d.passing, id)
			d.remove(id)
		default:
			seen[id] = true
		}
	}
	for id, f := range steady {
		if !seen[id] {
			errs = append(errs, d.c.put(f))
		}
	}
	for id := range d.passing {
		if !seen[id] {
			delete(d.passing, id)
		}
	}
	return errors.Join(errs...)
}

// expired reports whether a passing flow has not been needed for long, and counts what it
// dropped.
func (d *driver) expired(p *passing, f *wire.Flow) bool {
	if p.drop != "" && f.Packets > p.counted {
		d.count(p.drop, f.Packets-p.counted)
		p.counted = f.Packets
	}
	if f.Used == 0 {
		return time.Since(p.made) > d.idle
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return false
	}
	used := time.Duration(f.Used) * time.Millisecond
	return time.Duration(now.Nano())-used > d.idle
}
