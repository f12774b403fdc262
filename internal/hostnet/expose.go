package hostnet

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Expose gives the bridge addresses, in addition to those it has, so that the host
// takes part in their subnets, and tells the neighbours. Doing it again is harmless.
// If it fails, what this call added is removed.
//
// An address that the host has on another interface, or whose network another
// interface is on, is an *AddressInUseError.
func (h *Host) Expose(ctx context.Context, bridge string, addrs []netip.Prefix) (err error) {
	if addrs, err = checkAddrs(addrs); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { err = hint(err) }()

	if err := ctx.Err(); err != nil {
		return err
	}
	br, err := h.bridge(bridge)
	if err != nil {
		return err
	}
	missing, err := h.checkExposed(br.Index, addrs)
	if err != nil {
		return fmt.Errorf("exposing the host: %w", err)
	}
	if len(missing) == 0 {
		return nil
	}
	h.tune(bridge, missing)
	for i, p := range missing {
		if err := h.addAddr(br.Index, p); err != nil {
			for _, done := range missing[:i] {
				h.delAddr(br.Index, done)
			}
			return fmt.Errorf("exposing the host: adding %v to %s: %w", p, bridge, err)
		}
	}
	// That nobody could be told is no failure: they will ask.
	h.announce(br.Index, macOf(br.HardwareAddr), missing)
	return nil
}

// checkExposed returns those of addrs that the bridge does not have yet.
func (h *Host) checkExposed(index int, addrs []netip.Prefix) (missing []netip.Prefix, err error) {
	have, err := h.addrs(noNSID, 0)
	if err != nil {
		return nil, fmt.Errorf("reading addresses: %w", err)
	}
	for _, want := range addrs {
		present := false
		for _, e := range have {
			own := e.index == index
			switch {
			case own && e.prefix == want:
				present = true
			case e.prefix.Addr() == want.Addr(), !own && e.scope != scopeLink && sameNetwork(e.prefix, want):
				return nil, &AddressInUseError{want, e.prefix, h.ifName(e.index), "the host"}
			}
		}
		if !present {
			missing = append(missing, want)
		}
	}
	return missing, nil
}

// Hide takes addresses from the bridge and returns those that it had.
func (h *Host) Hide(ctx context.Context, bridge string, addrs []netip.Prefix) (removed []netip.Prefix, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { err = hint(err) }()

	if err := ctx.Err(); err != nil {
		return nil, err
	}
	br, err := h.bridge(bridge)
	if err != nil {
		return nil, err
	}
	have, err := h.exposed(br.Index)
	if err != nil {
		return nil, err
	}
	keep := slices.DeleteFunc(slices.Clone(have), func(a netip.Prefix) bool { return slices.Contains(addrs, a) })
	removed = slices.DeleteFunc(have, func(a netip.Prefix) bool { return slices.Contains(keep, a) })
	return removed, h.takeAddrs(br.Index, removed, keep)
}

// Exposed returns the bridge's addresses, sorted, without link-local ones.
func (h *Host) Exposed(bridge string) ([]netip.Prefix, error) {
	br, err := h.bridge(bridge)
	if err != nil {
		return nil, hint(err)
	}
	out, err := h.exposed(br.Index)
	return out, hint(err)
}

func (h *Host) exposed(index int) ([]netip.Prefix, error) {
	list, err := h.addrs(noNSID, index)
	if err != nil {
		return nil, fmt.Errorf("reading the bridge's addresses: %w", err)
	}
	return given(list), nil
}

// HostAddr is an address of the host.
type HostAddr struct {
	Prefix    netip.Prefix
	Interface string
	Bridge    bool // the interface is a bridge: what is on its network is likely to be this host's
}

// Addresses lists the host's addresses on all interfaces.
func (h *Host) Addresses() ([]HostAddr, error) {
	links, err := h.links()
	if err != nil {
		return nil, hint(err)
	}
	type link struct {
		name   string
		bridge bool
	}
	byIndex := make(map[int]link, len(links))
	for _, l := range links {
		byIndex[l.Attrs().Index] = link{l.Attrs().Name, l.Type() == "bridge"}
	}
	list, err := h.addrs(noNSID, 0)
	if err != nil {
		return nil, hint(fmt.Errorf("reading addresses: %w", err))
	}
	out := make([]HostAddr, 0, len(list))
	for _, a := range list {
		l := byIndex[a.index]
		out = append(out, HostAddr{a.prefix, l.name, l.bridge})
	}
	return out, nil
}

// Overlaps returns a route of the host into p that does not lead to the bridge, as
// "10.0.0.0/8 dev eth0"; "" if there is none. Default routes do not count.
func (h *Host) Overlaps(bridge string, p netip.Prefix) (string, error) {
	index := 0
	if br, err := h.bridge(bridge); err == nil {
		index = br.Index
	}
	family := unix.AF_INET
	if p.Addr().Is6() {
		family = unix.AF_INET6
	}
	routes, err := h.nl.RouteList(nil, family)
	if err != nil {
		return "", hint(fmt.Errorf("reading routes: %w", err))
	}
	for _, r := range routes {
		if r.Dst == nil || index != 0 && r.LinkIndex == index {
			continue
		}
		ip, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		dst := netip.PrefixFrom(ip, bits)
		if family == unix.AF_INET {
			dst = netip.PrefixFrom(ip.Unmap(), bits)
		}
		if ok && bits > 0 && dst.Overlaps(p) {
			return fmt.Sprintf("%v dev %s", dst, h.ifName(r.LinkIndex)), nil
		}
	}
	return "", nil
}

// Find returns the container's attachment; false if it has none.
func (h *Host) Find(bridge string, c Container) (att Attachment, ok bool, err error) {
	p, s, err := h.findAttached(bridge, c)
	if err != nil || p.host == nil {
		return att, false, hint(err)
	}
	if s != nil {
		s.close()
	}
	att, err = h.describe(p)
	if isGone(err) {
		return att, false, nil
	}
	return att, err == nil, hint(err)
}
