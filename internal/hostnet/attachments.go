package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// pair is a veth pair of a container, as seen from the host.
type pair struct {
	host netlink.Link
	ref  string // the container's reference; "" if the pair is half made
	nsid int    // the id by which the host knows the peer's namespace; noNSID: it is the host's
	peer int    // ifindex of the container's end
}

func pairOf(link netlink.Link) pair {
	a := link.Attrs()
	p := pair{host: link, nsid: a.NetNsID, peer: a.ParentIndex}
	if ref, ok := strings.CutPrefix(a.Alias, aliasPrefix); ok {
		p.ref = ref
	}
	return p
}

// pairs lists the containers' pairs, half-made ones too.
func (h *Host) pairs() (out []pair, err error) {
	links, err := h.links()
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if link.Type() != "veth" || !strings.HasPrefix(link.Attrs().Name, hostPrefix) {
			continue
		}
		out = append(out, pairOf(link))
	}
	return out, nil
}

func (h *Host) links() ([]netlink.Link, error) {
	for try := 0; ; try++ {
		links, err := h.nl.LinkList()
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < dumpTries {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing links: %w", err)
		}
		return links, nil
	}
}

// describe looks at the container's end from the host.
func (h *Host) describe(p pair) (Attachment, error) {
	att := Attachment{Container: p.ref, HostIf: p.host.Attrs().Name}
	link, err := h.linkIn(p.nsid, p.peer)
	if err != nil {
		return att, fmt.Errorf("looking at the interface of %s: %w", p.ref, err)
	}
	addrs, err := h.addrs(p.nsid, p.peer)
	if err != nil {
		return att, fmt.Errorf("reading addresses of %s: %w", p.ref, err)
	}
	att.IfName = link.Attrs().Name
	att.MAC = macOf(link.Attrs().HardwareAddr)
	att.MTU = link.Attrs().MTU
	att.Addrs = given(addrs)
	return att, nil
}

// given returns the addresses that somebody gave, sorted.
func given(addrs []ifAddr) (out []netip.Prefix) {
	for _, a := range addrs {
		if a.scope != scopeLink {
			out = append(out, a.prefix)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

const scopeLink = uint8(netlink.SCOPE_LINK)

// List returns the containers on the bridge, sorted by reference, including those
// whose port has lost its bridge. It needs no access to the containers.
func (h *Host) List(bridge string) ([]Attachment, error) {
	pairs, err := h.ours(bridge)
	if err != nil {
		return nil, hint(err)
	}
	var out []Attachment
	for _, p := range pairs {
		att, err := h.describe(p)
		if isGone(err) || errors.Is(err, unix.EINVAL) && h.ended(p) {
			continue // it went between the two looks
		}
		if err != nil {
			return nil, hint(err)
		}
		out = append(out, att)
	}
	slices.SortFunc(out, func(a, b Attachment) int { return strings.Compare(a.Container, b.Container) })
	return out, nil
}

// ended reports whether a container's namespace is gone. Its pair outlives it for a
// moment, in which looking inside is EINVAL: the kernel has forgotten the namespace's id
// (net/core/net_namespace.c, cleanup_net). Another may have the name by then.
func (h *Host) ended(p pair) bool {
	c, err := ParseContainer(p.ref)
	if err != nil {
		return false
	}
	s, err := h.enter(c)
	if err != nil {
		return errors.Is(err, ErrNoNamespace)
	}
	defer s.close()
	id, err := h.nl.GetNetNsIdByFd(s.fd())
	return err == nil && id != p.nsid
}

// ours returns the complete pairs that are not on another bridge.
func (h *Host) ours(bridge string) ([]pair, error) {
	pairs, err := h.pairs()
	if err != nil {
		return nil, err
	}
	index := 0
	if br, err := h.bridge(bridge); err == nil {
		index = br.Index
	}
	return slices.DeleteFunc(pairs, func(p pair) bool {
		master := p.host.Attrs().MasterIndex
		return p.ref == "" || p.nsid == noNSID || (master != 0 && master != index)
	}), nil
}

// Detach takes these addresses, or all if none is given, from the container, and
// takes it off the bridge with the last one. It returns the addresses removed;
// those it does not have are no error. The container may be gone, then what is
// left of it is removed.
func (h *Host) Detach(ctx context.Context, bridge string, c Container, addrs []netip.Prefix) (removed []netip.Prefix, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { err = hint(err) }()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, s, err := h.findAttached(bridge, c)
	if err != nil || p.host == nil {
		return nil, err
	}
	if s != nil {
		defer s.close()
	}
	list, err := h.addrs(p.nsid, p.peer)
	if err != nil {
		return nil, fmt.Errorf("reading addresses of %s: %w", c, err)
	}
	have := given(list)
	keep := slices.DeleteFunc(slices.Clone(have), func(a netip.Prefix) bool {
		return len(addrs) == 0 || slices.Contains(addrs, a)
	})
	removed = slices.DeleteFunc(have, func(a netip.Prefix) bool { return slices.Contains(keep, a) })
	if len(keep) == 0 {
		if err := h.nl.LinkDel(p.host); err != nil && !isGone(err) {
			return nil, fmt.Errorf("removing %s: %w", p.host.Attrs().Name, err)
		}
		return removed, nil
	}
	if s == nil {
		return nil, fmt.Errorf("%s: %w: detach it without naming addresses", c, ErrNoNamespace)
	}
	return removed, s.takeAddrs(p.peer, removed, keep)
}

// findAttached returns c's pair, without a host end if it has none, and c's
// namespace, or nil if the reference leads nowhere any more.
func (h *Host) findAttached(bridge string, c Container) (p pair, s *space, err error) {
	pairs, err := h.ours(bridge)
	if err != nil {
		return p, nil, err
	}
	s, err = h.enter(c)
	id := noNSID
	switch {
	case err == nil:
		if id, err = h.nl.GetNetNsIdByFd(s.fd()); err != nil {
			s.close()
			return p, nil, fmt.Errorf("identifying network namespace of %s: %w", c, err)
		}
	case !errors.Is(err, ErrNoNamespace):
		return p, nil, err
	}
	i := slices.IndexFunc(pairs, func(p pair) bool {
		if s == nil {
			return p.ref == c.String()
		}
		return id >= 0 && p.nsid == id
	})
	if i < 0 {
		if s != nil {
			s.close()
		}
		return pair{}, nil, err // ErrNoNamespace if the namespace is gone
	}
	return pairs[i], s, nil
}

// takeAddrs removes addresses. With the first IPv4 address of a network the kernel
// removes the others of that network, and with the last one all IPv4 routes, so
// what is to stay is put back.
func (s *space) takeAddrs(index int, removed, keep []netip.Prefix) error {
	routed, err := s.hasMulticastRoute(index)
	if err != nil {
		return err
	}
	for _, a := range removed {
		if err := s.delAddr(index, a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("removing %v: %w", a, err)
		}
	}
	now, err := s.addrs(noNSID, index)
	if err != nil {
		return fmt.Errorf("reading addresses: %w", err)
	}
	left := given(now)
	for _, a := range keep {
		if slices.Contains(left, a) {
			continue
		}
		if err := s.addAddr(index, a); err != nil {
			return fmt.Errorf("putting back %v: %w", a, err)
		}
	}
	if !routed {
		return nil
	}
	return s.addMulticastRoute(index)
}
