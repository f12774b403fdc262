package keeper

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weave/internal/ether"
	"weave/odp"
)

// Times of mending.
const (
	checkEvery = time.Second     // links and filter
	deepEvery  = 4 * time.Second // entries and port flags too
	settle     = 20 * time.Millisecond
)

// Run implements odp.Backend.
func (k *Keeper) Run(ctx context.Context, s odp.Sink) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var helpers sync.WaitGroup
	for _, f := range k.watch {
		helpers.Go(func() { k.listen(ctx, f) })
	}
	k.mu.Lock()
	k.sink, k.running = s, ctx
	k.mend(true)
	k.mu.Unlock()
	helpers.Go(func() { k.drv.Run(ctx, k) })
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-k.poke:
			select { // let a burst pass
			case <-ctx.Done():
			case <-time.After(settle):
			}
		case <-tick.C:
		}
		if ctx.Err() == nil {
			k.check()
		}
	}
	k.mu.Lock()
	k.sink, k.running = nil, nil
	for _, p := range k.ports {
		p.closeSock()
	}
	k.mu.Unlock()
	for _, f := range k.watch {
		f.SetReadDeadline(time.Unix(1, 0))
	}
	helpers.Wait()
	k.readers.Wait()
	return nil
}

// check mends what is not as it should be.
func (k *Keeper) check() {
	k.mu.Lock()
	before := make([]int, len(k.ports))
	for i, p := range k.ports {
		before[i] = p.Index
	}
	k.mend(time.Since(k.deepAt) >= deepEvery)
	changed := false
	for i, p := range k.ports {
		changed = changed || before[i] != p.Index || p.remade
		p.remade = false
	}
	sink := k.sink
	k.mu.Unlock()
	if changed && sink != nil {
		sink.Changed()
	}
}

// mend brings the kernel to the state asked for, as far as it can. mu is held.
func (k *Keeper) mend(deep bool) {
	if deep {
		k.deepAt = time.Now()
	}
	addrs := k.admissible()
	var need [2]bool
	for _, t := range k.peers {
		need[t.family] = true
	}
	for _, a := range k.adopted {
		need[family(a)] = true
	}
	if !need[0] && !need[1] {
		if err := k.removeAll(); err != nil {
			k.log.Warn("removing kernel path", "err", err)
		}
		return
	}
	k.mendFilter(addrs)
	for _, p := range k.ports {
		if need[0] && p.serves(0) || need[1] && p.serves(1) {
			k.mendPort(p, addrs, deep)
		} else {
			k.removePort(p)
		}
	}
}

func (k *Keeper) mendFilter(addrs []netip.Addr) {
	if k.seal != nil {
		return
	}
	fixed, err := k.filter.ensure(addrs)
	if fixed {
		k.count("filter_repairs")
		k.log.Warn("filter for vxlan packets repaired")
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != k.logged && err != nil {
		k.log.Warn("filter for vxlan packets not in order", "err", err)
	}
	k.logged = text
}

// admissible lists the addresses that packets may come from, in order.
func (k *Keeper) admissible() []netip.Addr {
	addrs := slices.Clone(k.admitted)
	for _, t := range k.peers {
		if t.err != nil {
			continue
		}
		addrs = append(addrs, t.to.Addr())
		if t.Also.IsValid() && k.seal == nil {
			addrs = append(addrs, t.Also)
		}
	}
	for _, a := range k.adopted {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

func (k *Keeper) count(what string) { k.counts[what]++ }

func (k *Keeper) mendPort(p *Port, addrs []netip.Addr, deep bool) {
	if k.filter.err != nil && k.seal == nil && !k.drv.Strict() { // no device without a filter
		k.removePort(p)
		p.err = k.filter.err
	} else if made, err := k.ensure(p, deep); err != nil {
		p.err = err
	} else if err := k.drv.Admit(p, addrs); err != nil {
		p.err = asReason(err)
	} else {
		p.err = nil
		if deep || made {
			if err := k.drv.Sync(p, k.wanted(p)); err != nil {
				k.log.Warn("entries of kernel path not in order", "device", p.Name, "err", err)
			}
		}
	}
	text := ""
	if p.err != nil {
		text = p.err.Error()
	}
	if text != p.logged {
		p.logged = text
		if p.err != nil {
			k.log.Warn("kernel path not available", "device", p.Name, "reason", odp.ReasonOf(p.err), "err", p.err)
		} else {
			k.log.Info("kernel path available", "device", p.Name, "port", k.cfg.Port)
		}
	}
}

// wanted returns the entries that a port is to have.
func (k *Keeper) wanted(p *Port) map[ether.MAC]netip.AddrPort {
	want := map[ether.MAC]netip.AddrPort{}
	for mac, a := range k.adopted {
		if p.serves(family(a)) {
			want[mac] = netip.AddrPortFrom(a, k.cfg.Port)
		}
	}
	for _, t := range k.peers {
		if p.serves(t.family) && t.err == nil {
			want[t.probe] = t.to
		}
	}
	for mac, n := range k.macs {
		if t := k.peers[n]; t != nil && p.serves(t.family) && t.err == nil {
			want[mac] = t.to
		}
	}
	return want
}
