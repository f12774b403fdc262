package testnet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The underlay's networks. Overlay addresses in tests must be others.
var (
	net4 = netip.MustParsePrefix("10.77.0.0/16")
	net6 = netip.MustParsePrefix("fd77::/64")
)

// Uplink is the name of a host's interface to the underlay.
const Uplink = "eth0"

// Host is a machine of the lab.
type Host struct {
	*Namespace
	Label string
	IP4   netip.Addr // its present underlay addresses
	IP6   netip.Addr

	index int // 1, 2, …; the switch's port is p<index>
	moves int
	wired bool // by Pair, so not on the switch
}

// HostOption changes how a host is made.
type HostOption func(*hostOptions)

type hostOptions struct {
	mtu    int
	noIPv4 bool
	noIPv6 bool
}

// MTU sets the MTU of the host's uplink; 1500 is usual.
func MTU(mtu int) HostOption { return func(o *hostOptions) { o.mtu = mtu } }

// NoIPv4 leaves the host without an IPv4 address.
func NoIPv4() HostOption { return func(o *hostOptions) { o.noIPv4 = true } }

// NoIPv6 leaves the host without a global IPv6 address.
func NoIPv6() HostOption { return func(o *hostOptions) { o.noIPv6 = true } }

// Host adds a host to the underlay: host n has the addresses 10.77.0.n/16 and
// fd77::n/64.
func (l *Lab) Host(label string, opts ...HostOption) *Host {
	l.t.Helper()
	if l.middle == nil {
		l.middle = l.Namespace("net")
		l.must(l.makeSwitch())
	}
	h := l.newHost(label)
	o := options(opts)
	l.must(veth(l.middle, h.port(), h.Namespace, Uplink, o.mtu))
	l.must(func() error {
		port, err := l.middle.NL.LinkByName(h.port())
		if err != nil {
			return err
		}
		br, err := l.middle.NL.LinkByName("br0")
		if err != nil {
			return err
		}
		return l.middle.NL.LinkSetMaster(port, br)
	}())
	l.must(h.addAddrs(o))
	return h
}

// Pair adds two hosts that are joined by a veth pair and nothing else, the fastest
// underlay there is. Cut, Loss and the lab's Capture do not reach it.
func (l *Lab) Pair(labelA, labelB string, opts ...HostOption) (a, b *Host) {
	l.t.Helper()
	a, b = l.newHost(labelA), l.newHost(labelB)
	a.wired, b.wired = true, true
	o := options(opts)
	l.must(veth(a.Namespace, Uplink, b.Namespace, Uplink, o.mtu))
	l.must(a.addAddrs(o))
	l.must(b.addAddrs(o))
	return a, b
}

func options(opts []HostOption) hostOptions {
	o := hostOptions{mtu: 1500}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

func (l *Lab) newHost(label string) *Host {
	l.t.Helper()
	h := &Host{Namespace: l.Namespace(label), Label: label, index: len(l.hosts) + 1}
	l.hosts = append(l.hosts, h)
	return h
}

func (l *Lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("building the lab: %v", err)
	}
}

func (l *Lab) makeSwitch() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	off := false
	br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
	if err := l.middle.NL.LinkAdd(br); err != nil {
		return fmt.Errorf("making the switch: %w", err)
	}
	return l.middle.NL.LinkSetUp(br)
}

// veth joins two namespaces and brings both ends up.
func veth(a *Namespace, nameA string, b *Namespace, nameB string, mtu int) error {
	f, err := os.Open(b.Path())
	if err != nil {
		return err
	}
	defer f.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = nameA, mtu
	link := netlink.NewVeth(attrs)
	link.PeerName, link.PeerNamespace = nameB, netlink.NsFd(f.Fd())
	if err := a.NL.LinkAdd(link); err != nil {
		return fmt.Errorf("making veth pair: %w", err)
	}
	for _, end := range []struct {
		n    *Namespace
		name string
	}{{a, nameA}, {b, nameB}} {
		link, err := end.n.NL.LinkByName(end.name)
		if err != nil {
			return err
		}
		if err := end.n.NL.LinkSetUp(link); err != nil {
			return err
		}
	}
	return a.awaitUp(nameA)
}

// awaitUp waits until the kernel uses a link whose other end came up after it. A worker
// of the kernel's sees to that: until it has, what is sent there is lost, and a bridge may
// not forward to and from it.
func (n *Namespace) awaitUp(name string) error {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		link, err := n.NL.LinkByName(name)
		if err != nil {
			return err
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Since(start) > 10*time.Second {
			return fmt.Errorf("%s is %v 10 s after its other end came up", name, link.Attrs().OperState)
		}
	}
}

func (h *Host) port() string { return fmt.Sprintf("p%d", h.index) }

// addresses are the ones the host has after it moved so many times.
func (h *Host) addresses(moves int) (ip4, ip6 netip.Addr) {
	b4, b6 := net4.Addr().As4(), net6.Addr().As16()
	b4[2], b4[3] = byte(moves), byte(h.index)
	b6[14], b6[15] = byte(moves), byte(h.index)
	return netip.AddrFrom4(b4), netip.AddrFrom16(b6)
}

func (h *Host) addAddrs(o hostOptions) error {
	h.IP4, h.IP6 = h.addresses(h.moves)
	if o.noIPv4 {
		h.IP4 = netip.Addr{}
	}
	if o.noIPv6 {
		h.IP6 = netip.Addr{}
	}
	return h.eachAddr(h.NL.AddrAdd)
}

func (h *Host) eachAddr(do func(netlink.Link, *netlink.Addr) error) error {
	link, err := h.NL.LinkByName(Uplink)
	if err != nil {
		return err
	}
	for _, a := range []netip.Addr{h.IP4, h.IP6} {
		if !a.IsValid() {
			continue
		}
		bits := net4.Bits()
		addr := &netlink.Addr{}
		if a.Is6() {
			bits, addr.Flags = net6.Bits(), unix.IFA_F_NODAD
		}
		addr.IPNet = &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
		if err := do(link, addr); err != nil {
			return fmt.Errorf("address %v of %s: %w", a, h.Label, err)
		}
	}
	return nil
}

// Move gives the host new underlay addresses and takes the old ones away, as when
// a laptop changes networks.
func (h *Host) Move() {
	h.lab.t.Helper()
	h.lab.must(h.eachAddr(h.NL.AddrDel))
	h.moves++
	h.lab.must(h.addAddrs(hostOptions{noIPv4: !h.IP4.IsValid(), noIPv6: !h.IP6.IsValid()}))
}

// Unplug takes the host off the underlay: its uplink loses the carrier.
func (h *Host) Unplug() { h.plug((*netlink.Handle).LinkSetDown) }

// Plug undoes Unplug.
func (h *Host) Plug() { h.plug((*netlink.Handle).LinkSetUp) }

func (h *Host) plug(set func(*netlink.Handle, netlink.Link) error) {
	h.lab.t.Helper()
	if h.wired {
		h.lab.t.Fatalf("%s is not on the switch", h.Label)
	}
	link, err := h.lab.middle.NL.LinkByName(h.port())
	h.lab.must(err)
	h.lab.must(set(h.lab.middle.NL, link))
}

// SetMTU changes the MTU of the host's uplink and of the port it is plugged into.
func (h *Host) SetMTU(mtu int) {
	h.lab.t.Helper()
	link, err := h.NL.LinkByName(Uplink)
	h.lab.must(err)
	h.lab.must(h.NL.LinkSetMTU(link, mtu))
	if !h.wired {
		port, err := h.lab.middle.NL.LinkByName(h.port())
		h.lab.must(err)
		h.lab.must(h.lab.middle.NL.LinkSetMTU(port, mtu))
	}
}

// Cut makes the switch drop everything that from sends to to; call it twice for
// both directions.
func (l *Lab) Cut(from, to *Host) { l.t.Helper(); l.drop(from, to, 1000) }

// Loss makes the switch drop that many of a thousand packets from one host to
// another, at random. The sender's trains are segmented before they reach the
// switch from then on, so that a loss is one packet.
func (l *Lab) Loss(from, to *Host, permille int) {
	l.t.Helper()
	link, err := from.NL.LinkByName(Uplink)
	l.must(err)
	// More segments than this in one skb make the stack segment it first.
	l.must(from.NL.LinkSetGSOMaxSegs(link, 1))
	l.drop(from, to, permille)
}

// Heal undoes Cut and Loss in both directions between two hosts.
func (l *Lab) Heal(a, b *Host) {
	l.t.Helper()
	l.drop(a, b, 0)
	l.drop(b, a, 0)
}

func (l *Lab) drop(from, to *Host, permille int) {
	l.t.Helper()
	if from.wired || to.wired {
		l.t.Fatalf("%s and %s are not on the switch", from.Label, to.Label)
	}
	l.rules[[2]int{from.index, to.index}] = permille
	if !l.hold {
		l.enforce()
	}
}

// Together makes all calls of Cut, Loss and Heal in fn take effect at the same moment,
// when fn returns.
func (l *Lab) Together(fn func()) {
	l.t.Helper()
	l.hold = true
	fn()
	l.hold = false
	l.enforce()
}

// enforce gives the switch the present rules.
func (l *Lab) enforce() {
	l.t.Helper()
	var b strings.Builder
	b.WriteString("table bridge lab\ndelete table bridge lab\ntable bridge lab {\n chain forward {\n  type filter hook forward priority 0;\n")
	for pair, n := range l.rules {
		switch {
		case n >= 1000:
			fmt.Fprintf(&b, "  iifname p%d oifname p%d drop\n", pair[0], pair[1])
		case n > 0:
			fmt.Fprintf(&b, "  iifname p%d oifname p%d numgen random mod 1000 < %d drop\n", pair[0], pair[1], n)
		}
	}
	b.WriteString(" }\n}\n")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	nft := l.middle.Command(ctx, "nft", "-f", "-")
	nft.Stdin = strings.NewReader(b.String())
	if out, err := nft.CombinedOutput(); err != nil {
		l.t.Fatalf("nft (package nftables) in the switch: %v\n%s", err, out)
	}
}

// Weather makes the switch treat what it sends to a host as netem is told, in the
// words of tc; "" is fair weather. Senders' trains are segmented before they reach the
// switch from then on, so that what happens happens to one packet. The kernel must
// have netem.
func (l *Lab) Weather(to *Host, netem string) {
	l.t.Helper()
	if to.wired {
		l.t.Fatalf("%s is not on the switch", to.Label)
	}
	for _, h := range l.hosts {
		link, err := h.NL.LinkByName(Uplink)
		l.must(err)
		l.must(h.NL.LinkSetGSOMaxSegs(link, 1))
	}
	if netem == "" {
		l.middle.Try("tc", "qdisc", "del", "dev", to.port(), "root")
		return
	}
	l.middle.Exec("tc", append([]string{"qdisc", "replace", "dev", to.port(), "root", "netem", "limit", "10000"}, strings.Fields(netem)...)...)
}

// WeatherLoss is how many packets to a host the weather took, since it was fair.
func (l *Lab) WeatherLoss(to *Host) (packets int) {
	l.t.Helper()
	out := l.middle.Exec("tc", "-s", "qdisc", "show", "dev", to.port())
	_, rest, _ := strings.Cut(out, "dropped ")
	if _, err := fmt.Sscanf(rest, "%d", &packets); err != nil {
		l.t.Fatalf("no count of lost packets in %q", out)
	}
	return packets
}

// Container adds a namespace to the host that stands for a container.
func (h *Host) Container(label string) *Namespace {
	h.lab.t.Helper()
	return h.lab.Namespace(h.Label + "-" + label)
}
