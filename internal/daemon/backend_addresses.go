package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"weave/internal/api"
	"weave/internal/peer"
	"weave/ipam"
)

// Attach puts a container on the network.
func (d *daemon) Attach(ctx context.Context, req api.AttachRequest) (api.Addresses, error) {
	got, err := d.addrs.attach(ctx, req)
	return api.Addresses{Addrs: got}, coded(err)
}

// Detach takes addresses, or all of them, from a container.
func (d *daemon) Detach(ctx context.Context, req api.DetachRequest) (api.Addresses, error) {
	gone, err := d.addrs.detach(ctx, req)
	return api.Addresses{Addrs: gone}, coded(err)
}

// Expose puts the host on the network.
func (d *daemon) Expose(ctx context.Context, req api.ExposeRequest) (api.Addresses, error) {
	got, err := d.addrs.expose(ctx, req)
	return api.Addresses{Addrs: got}, coded(err)
}

// Hide takes the host off the network.
func (d *daemon) Hide(ctx context.Context, req api.HideRequest) (api.Addresses, error) {
	gone, err := d.addrs.hide(ctx, req)
	return api.Addresses{Addrs: gone}, coded(err)
}

var errNoIPAM = api.Errorf(api.CodeUsage, "addresses are not allocated here: launch with an --ipalloc-range")

// Prime waits until the range is divided.
func (d *daemon) Prime(ctx context.Context, req api.PrimeRequest) error {
	if d.addrs.alloc == nil {
		return errNoIPAM
	}
	return coded(d.addrs.alloc.Prime(ctx, req.Wait))
}

// RmPeer takes over what a lost peer owned.
func (d *daemon) RmPeer(ctx context.Context, req api.RmPeerRequest) (api.Removed, error) {
	if d.addrs.alloc == nil {
		return api.Removed{}, errNoIPAM
	}
	n, err := d.addrs.alloc.RmPeer(ctx, req.Peer)
	return api.Removed{Peer: req.Peer, Addresses: n}, coded(err)
}

// AddName makes a name.
func (d *daemon) AddName(_ context.Context, req api.DNSRequest) error {
	return coded(d.names.addName(d.addrs, req))
}

// RemoveName takes names away.
func (d *daemon) RemoveName(_ context.Context, req api.DNSRequest) error {
	return coded(d.names.removeName(d.addrs, req))
}

// Lookup returns the addresses of a name.
func (d *daemon) Lookup(_ context.Context, req api.LookupRequest) (api.NameAddresses, error) {
	v, err := d.names.lookup(req.Name)
	return v, coded(err)
}

// IPAM says how the range is shared.
func (d *daemon) IPAM(ctx context.Context) (api.IPAM, error) {
	if d.addrs.alloc == nil {
		return api.IPAM{}, errNoIPAM
	}
	v, err := d.ipam(ctx, true)
	if err != nil {
		return api.IPAM{}, coded(err)
	}
	return *v, nil
}

// DNS lists all names.
func (d *daemon) DNS(context.Context) (api.DNS, error) {
	return *d.names.status(d.nicks(), true), nil
}

// giveAway hands what this host owns to another, before a reset.
func (d *daemon) giveAway(ctx context.Context) (v api.Given) {
	if d.addrs.alloc == nil {
		return v
	}
	n, err := d.addrs.alloc.Shutdown(ctx)
	if v.Addresses = n; err != nil {
		v.Warning = fmt.Sprintf("the addresses of this host: %v", err)
		d.log.Warn("addresses not handed over", "err", err)
	}
	return v
}

// nicks are the nicknames of all peers.
func (d *daemon) nicks() map[peer.Name]string {
	out := map[peer.Name]string{}
	for name, p := range d.view.Load().Peers {
		out[name] = p.NickName
	}
	out[d.view.Load().Local] = d.cfg.NickName
	return out
}

// services adds what the status says of addresses and names; lists if full.
func (d *daemon) services(ctx context.Context, full bool) (*api.IPAM, *api.DNS) {
	i, err := d.ipam(ctx, full)
	if err != nil {
		d.log.Debug("status of addresses", "err", err)
	}
	return i, d.names.status(d.nicks(), full)
}

// ipam is the allocator for people; nil if there is none.
func (d *daemon) ipam(ctx context.Context, full bool) (*api.IPAM, error) {
	if d.addrs.alloc == nil {
		return nil, nil
	}
	s, err := d.addrs.alloc.Status(ctx)
	if err != nil {
		return nil, err
	}
	v := &api.IPAM{
		Status: s.State, Ready: s.Ready, Range: s.Range, RangeNumIPs: s.RangeSize, DefaultSubnet: s.DefaultSubnet, Init: s.Mode.String(),
		ActiveIPs: s.Active, Owned: s.Owned, Free: s.Free, Unreachable: s.Unreachable,
	}
	for _, n := range s.Conflicts {
		v.Conflicts = append(v.Conflicts, n.Text)
	}
	if full {
		lists(v, s)
	}
	return v, nil
}

func lists(v *api.IPAM, s *ipam.Status) {
	v.Seeds = s.Seeds
	if s.Seeds == nil {
		v.Quorum, v.KnownPeers = s.Quorum, s.Known
	}
	for i, sh := range s.Shares {
		v.Shares = append(v.Shares, api.Share{Peer: sh.Peer, NickName: sh.Nick, Addresses: sh.Addresses, Self: i == 0, Reachable: sh.Reachable})
	}
	for _, e := range s.Entries {
		v.Entries = append(v.Entries, api.RingEntry{Start: e.Start, Size: e.Size, Peer: e.Peer, NickName: e.Nick, Known: e.Known, Version: e.Version})
	}
	for _, l := range s.Leases {
		v.Leases = append(v.Leases, api.Lease{Owner: l.Ident, Address: l.Prefix, Foreign: l.Foreign})
	}
	v.Claims, v.Allocations = pending(s.PendingClaims), pending(s.PendingAllocations)
	for _, n := range s.Notes {
		v.Events = append(v.Events, n.Text)
	}
}

func pending(ps []ipam.Pending) (out []api.PendingIP) {
	for _, p := range ps {
		out = append(out, api.PendingIP{Owner: p.Ident, Address: p.Prefix, Reason: p.Reason})
	}
	return out
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }

// exposedAddrs are the bridge's addresses, for ps.
func (d *daemon) exposedAddrs() []netip.Prefix {
	list, err := d.hostside.host.Exposed(d.cfg.Bridge)
	if err != nil {
		d.log.Debug("reading the bridge's addresses", "err", err)
	}
	return list
}
