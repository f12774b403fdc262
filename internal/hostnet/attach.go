package hostnet

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
)

// Attaching goes through these steps. The alias comes when everything is in place
// and marks the pair as ours and complete.
//
//	1 check      addresses make sense and are free in the namespace
//	2 makePair   veth pair, the peer created inside the namespace under its name
//	3 setInside  MTU, GSO sizes, loopback up, neighbour timers, up
//	4 addAddrs   addresses, without duplicate address detection
//	5 enslave    the host end becomes a port of the bridge, up
//	6 route      multicast
//	7 alias
//	8 announce   when the port forwards: ARP announcement, neighbour advertisement
//
// Each step that makes something pushes what undoes it.

const (
	vethPrefix  = "vethwe"    // every veth of weave's has it
	hostPrefix  = "vethwepl"  // the host end of a container's
	aliasPrefix = "weave "    // then the container's reference
	defaultIf   = "ethwe"     // in the container
	gsoMaxSize  = 65536       // what every path takes whole, and what the kernel's own default is
	settle      = time.Second // the longest wait for the port to forward
)

// AttachOptions are what has a usual value; the zero AttachOptions has them all.
type AttachOptions struct {
	IfName           string // name in the container; default "ethwe"
	MTU              int    // default: the bridge's
	NoMulticastRoute bool   // leave out the route 224.0.0.0/4
}

// Attachment is a container on the bridge.
type Attachment struct {
	Container string // the reference first given to Attach
	HostIf    string // the host end, a port of the bridge
	IfName    string // the container's end
	MAC       ether.MAC
	MTU       int
	Addrs     []netip.Prefix // sorted, without link-local ones
}

// Attach puts the container on the bridge with these addresses, in addition to
// those it has there. Doing it again is harmless and mends what was changed. If it
// fails, or ctx ends, what this call made is removed.
//
// An address that the container's namespace has on another interface, or whose
// network another interface is on, is an *AddressInUseError. Attach waits up to a
// second for the port to forward, as neighbours learn of the addresses then.
func (h *Host) Attach(ctx context.Context, bridge string, c Container, addrs []netip.Prefix, o AttachOptions) (att Attachment, err error) {
	addrs, err = checkAddrs(addrs)
	if err != nil {
		return att, err
	}
	if o.IfName == "" {
		o.IfName = defaultIf
	}
	if !validIfName(o.IfName) {
		return att, fmt.Errorf("%q cannot name an interface: use 1 to 15 letters, digits or dashes: %w", o.IfName, ErrBadOption)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { err = hint(err) }()

	br, err := h.bridge(bridge)
	if err != nil {
		return att, err
	}
	if o.MTU == 0 {
		o.MTU = br.MTU
	}
	if o.MTU < 68 || o.MTU > br.MTU {
		return att, fmt.Errorf("MTU %d for %s: %w: use 68 to %d, the MTU of bridge %s", o.MTU, c, ErrBadOption, br.MTU, bridge)
	}
	s, err := h.enter(c)
	if err != nil {
		return att, err
	}
	defer s.close()
	a := &attacher{h: h, s: s, br: br, c: c, opts: o}
	if err = a.run(ctx, addrs); err != nil {
		a.rollback()
		return att, fmt.Errorf("attaching %s: %w", c, err)
	}
	return h.describe(a.pair)
}

// attacher is one call of Attach.
type attacher struct {
	h    *Host
	s    *space // the container's namespace
	br   *netlink.Bridge
	c    Container
	opts AttachOptions
	pair pair
	undo []func()
}

func (a *attacher) run(ctx context.Context, addrs []netip.Prefix) error {
	var missing []netip.Prefix
	steps := []func() error{
		a.findPair,
		func() (err error) { missing, err = a.checkFree(addrs); return err },
		a.makePair,
		func() error { return a.setInside(addrs) },
		func() error { return a.addAddrs(missing) },
		func() error { return a.h.enslave(a.br, a.pair.host, containerPort) },
		a.addMulticastRoute,
		a.setAlias,
		func() error { return a.announce(ctx, addrs) },
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (a *attacher) rollback() {
	for _, undo := range slices.Backward(a.undo) {
		undo()
	}
}

// containerPort is an ordinary port that learns. No hairpin: nothing behind a
// container's port needs its own frames back.
var containerPort = portFlags{
	nl.IFLA_BRPORT_LEARNING:      true,
	nl.IFLA_BRPORT_UNICAST_FLOOD: true,
	nl.IFLA_BRPORT_MCAST_FLOOD:   true,
	nl.IFLA_BRPORT_BCAST_FLOOD:   true,
	nl.IFLA_BRPORT_ISOLATED:      false,
	nl.IFLA_BRPORT_MODE:          false, // hairpin
}

// checkAddrs refuses what cannot be an interface's address and drops repetitions.
func checkAddrs(in []netip.Prefix) ([]netip.Prefix, error) {
	if len(in) == 0 {
		return nil, fmt.Errorf("no address given: %w: use one such as 10.32.0.1/12", ErrBadAddress)
	}
	out := make([]netip.Prefix, 0, len(in))
	for _, p := range in {
		if why := unfit(p); why != "" {
			return nil, fmt.Errorf("%v %s: %w: use one such as 10.32.0.1/12", p, why, ErrBadAddress)
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// unfit says why p cannot be an interface's address; "" if it can.
func unfit(p netip.Prefix) string {
	a := p.Addr()
	hostBits := a.BitLen() - p.Bits()
	switch {
	case !p.IsValid():
		return "is malformed"
	case a.Is4In6():
		return "is an IPv4 address in IPv6 form"
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || p.Bits() == 0:
		return "is not an address of one interface"
	case hostBits > 1 && p.Masked().Addr() == a:
		return "is the network's own address"
	case hostBits > 1 && a.Is4() && lastOf(p) == a:
		return "is the network's broadcast address"
	}
	return ""
}

// lastOf returns the last address of an IPv4 network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// findPair looks for the pair that an earlier Attach made, and clears away what it
// left half made.
func (a *attacher) findPair() error {
	pairs, err := a.h.pairs()
	if err != nil {
		return err
	}
	id, err := a.h.nl.GetNetNsIdByFd(a.s.fd())
	if err != nil {
		return fmt.Errorf("identifying network namespace: %w", err)
	}
	for _, p := range pairs {
		switch {
		case id < 0 || p.nsid != id:
		case p.ref == "":
			if err := a.h.nl.LinkDel(p.host); err != nil && !isGone(err) {
				return fmt.Errorf("removing half-made %s: %w", p.host.Attrs().Name, err)
			}
		default:
			a.pair = p
		}
	}
	return nil
}

// checkFree returns those of addrs that are still to be added.
func (a *attacher) checkFree(addrs []netip.Prefix) (missing []netip.Prefix, err error) {
	have, err := a.s.addrs(noNSID, 0)
	if err != nil {
		return nil, fmt.Errorf("reading addresses: %w", err)
	}
	for _, want := range addrs {
		present := false
		for _, e := range have {
			own := a.pair.host != nil && e.index == a.pair.peer
			switch {
			case own && e.prefix == want:
				present = true
			case e.prefix.Addr() == want.Addr(), !own && sameNetwork(e.prefix, want):
				return nil, &AddressInUseError{want, e.prefix, a.s.ifName(e.index), a.c.String()}
			}
		}
		if !present {
			missing = append(missing, want)
		}
	}
	return missing, nil
}

// sameNetwork reports whether two interfaces with these addresses would have the
// same route. Every interface has the link-local one.
func sameNetwork(p, q netip.Prefix) bool {
	return p.Masked() == q.Masked() && !p.IsSingleIP() && !p.Addr().IsLinkLocalUnicast()
}

func (s *space) ifName(index int) string {
	link, err := s.nl.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("number %d", index)
	}
	return link.Attrs().Name
}

// nameTries is how many host names are tried for one namespace.
const nameTries = 8

func (a *attacher) makePair() error {
	if a.pair.host != nil {
		return nil
	}
	if _, err := a.s.nl.LinkByName(a.opts.IfName); err == nil {
		return fmt.Errorf("%s in %s: %w: remove or rename it", a.opts.IfName, a.c, ErrInterfaceExists)
	}
	for try := range nameTries {
		name := hostName(a.s.id, try)
		err := a.addVeth(name)
		if errors.Is(err, unix.EEXIST) {
			// A namespace with the same hash, or one that is gone and whose veth
			// the kernel has yet to remove.
			continue
		}
		if err != nil {
			return fmt.Errorf("making veth pair: %w", err)
		}
		link, err := a.h.nl.LinkByName(name)
		if err != nil {
			return fmt.Errorf("making veth pair: %w", err)
		}
		a.pair = pairOf(link)
		return nil
	}
	return fmt.Errorf("making veth pair: all names such as %s are taken: %w", hostName(a.s.id, 0), unix.EEXIST)
}

// hostName is the prefix and 35 bits of a hash of the namespace's identity, which
// fills an interface name.
func hostName(id nsID, try int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %d", id.dev, id.ino, try))
	text := base32.StdEncoding.EncodeToString(sum[:])
	return hostPrefix + strings.ToLower(text[:unix.IFNAMSIZ-1-len(hostPrefix)])
}

// addVeth makes the pair in one step, so that the peer is never in the host's
// namespace. All offloads stay as the kernel has them: on.
func (a *attacher) addVeth(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.MTU = a.opts.MTU
	veth := netlink.NewVeth(attrs)
	veth.PeerName = a.opts.IfName
	veth.PeerNamespace = netlink.NsFd(a.s.fd())
	if err := a.h.nl.LinkAdd(veth); err != nil {
		return err
	}
	a.undo = append(a.undo, func() { a.h.nl.LinkDel(veth) })
	return nil
}

// setInside brings up the container's end.
func (a *attacher) setInside(addrs []netip.Prefix) error {
	link, err := a.s.nl.LinkByIndex(a.pair.peer)
	if err != nil {
		return fmt.Errorf("looking at the container's interface: %w", err)
	}
	if link.Attrs().MTU != a.opts.MTU {
		if err := a.s.nl.LinkSetMTU(link, a.opts.MTU); err != nil {
			return fmt.Errorf("setting MTU %d: %w", a.opts.MTU, err)
		}
	}
	// Kernels that lack one of these ignore or refuse it: they have the default,
	// or a smaller superframe.
	a.s.nl.LinkSetGSOMaxSize(link, gsoMaxSize)
	a.s.nl.LinkSetGSOIPv4MaxSize(link, gsoMaxSize)
	if err := a.s.tune(link.Attrs().Name, addrs); err != nil {
		return err
	}
	if err := a.s.upLoopback(); err != nil {
		return err
	}
	if err := a.s.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing up %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// tune makes what settings it can; where one matters, what comes next fails and
// says so.
func (s *space) tune(ifname string, addrs []netip.Prefix) error {
	settings := quickARP(ifname)
	if slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		// Container runtimes turn IPv6 off where their own network has none.
		settings = append(settings, sysctl{"net/ipv6/conf/" + ifname + "/disable_ipv6", "0"})
	}
	return s.do(func() error {
		for _, s := range settings {
			s.set()
		}
		return nil
	})
}

func (s *space) upLoopback() error {
	lo, err := s.nl.LinkByName("lo")
	if err != nil || lo.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := s.nl.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing up lo: %w", err)
	}
	return nil
}

func (a *attacher) addAddrs(addrs []netip.Prefix) error {
	for _, p := range addrs {
		err := a.s.addAddr(a.pair.peer, p)
		if errors.Is(err, unix.EACCES) && p.Addr().Is6() {
			return fmt.Errorf("adding %v: IPv6 is off in %s: set net.ipv6.conf.%s.disable_ipv6=0 there", p, a.c, a.opts.IfName)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("adding %v: %w", p, err)
		}
		a.undo = append(a.undo, func() { a.s.delAddr(a.pair.peer, p) })
	}
	return nil
}

// addAddr adds an address that is usable at once: whoever gave it out vouches that
// it is unique.
func (s *space) addAddr(index int, p netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return s.nl.AddrAdd(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}, addr)
}

func (s *space) delAddr(index int, p netip.Prefix) error {
	return s.nl.AddrDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}, &netlink.Addr{IPNet: ipNet(p)})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// addMulticastRoute sends IPv4 multicast into the overlay unless the container has
// a route for it. IPv6 has one per interface by itself.
func (a *attacher) addMulticastRoute() error {
	if a.opts.NoMulticastRoute {
		return nil
	}
	return a.s.addMulticastRoute(a.pair.peer)
}

func multicastRoute(index int) *netlink.Route {
	return &netlink.Route{
		LinkIndex: index,
		Scope:     netlink.SCOPE_LINK,
		Dst:       ipNet(netip.MustParsePrefix("224.0.0.0/4")),
	}
}

func (s *space) hasMulticastRoute(index int) (bool, error) {
	routes, err := s.nl.RouteListFiltered(netlink.FAMILY_V4, multicastRoute(index), netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST)
	if err != nil {
		return false, fmt.Errorf("reading routes: %w", err)
	}
	return len(routes) > 0, nil
}

func (s *space) addMulticastRoute(index int) error {
	err := s.nl.RouteAdd(multicastRoute(index))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding multicast route: %w", err)
	}
	return nil
}

// setAlias marks the pair as complete. A pair keeps the reference that it got first.
func (a *attacher) setAlias() error {
	if a.pair.ref != "" {
		return nil
	}
	if err := a.h.nl.LinkSetAlias(a.pair.host, aliasPrefix+a.c.String()); err != nil {
		return fmt.Errorf("recording the container's name: %w", err)
	}
	a.pair.ref = a.c.String()
	return nil
}

// announce waits until the bridge forwards what the container sends, then tells
// the neighbours. That nobody could be told is no failure to attach.
func (a *attacher) announce(ctx context.Context, addrs []netip.Prefix) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(settle)
	for time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if ok, err := a.h.portForwards(a.pair.host.Attrs().Index); ok || err != nil {
			break
		}
	}
	link, err := a.s.nl.LinkByIndex(a.pair.peer)
	if err != nil {
		return fmt.Errorf("looking at the container's interface: %w", err)
	}
	a.s.announce(a.pair.peer, macOf(link.Attrs().HardwareAddr), addrs)
	return nil
}
