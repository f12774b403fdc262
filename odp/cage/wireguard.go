package cage

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/odp"
	"weave/odp/keeper"
)

// wireguard is the WireGuard device and what is wanted of it. The Keeper's mutex guards
// it.
type wireguard struct {
	port  uint16
	mtu   int
	self  netip.Addr // our address inside
	host  *keeper.Host
	place place
	key   wgtypes.Key

	known     map[netip.Addr]*member
	said      []netip.Addr // the last admitted
	unallowed uint64       // packets that peers sent with addresses that are not theirs
}

// member is a peer by its address inside.
type member struct {
	name     peer.Name
	key, psk wgtypes.Key
	endpoint netip.AddrPort
	changed  bool // the kernel has not been told of it yet
	moved    bool // the endpoint was another one before
}

func newWireguard(cfg Config, host *keeper.Host, at place) *wireguard {
	return &wireguard{
		port: cfg.Port, mtu: cfg.MTU + overlay.Overhead(false, overlay.EncapVXLAN), self: addressOf(cfg.Local),
		host: host, place: at, known: map[netip.Addr]*member{},
	}
}

// chooseKey takes the key of the device that an earlier run left, or makes one.
func (w *wireguard) chooseKey(adopt bool) (err error) {
	if adopt {
		var dev *wgtypes.Device
		if dev, err = w.device(); err == nil && dev.PrivateKey != (wgtypes.Key{}) {
			w.key = dev.PrivateKey
			return nil
		}
	}
	w.key, err = wgtypes.GeneratePrivateKey()
	return err
}

// control runs fn with a client inside the cage.
func (w *wireguard) control(fn func(*wgctrl.Client) error) error {
	return w.place.do(func() error {
		c, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer c.Close()
		return fn(c)
	})
}

// device reads what the kernel has; os.ErrNotExist: there is none.
func (w *wireguard) device() (dev *wgtypes.Device, err error) {
	err = w.control(func(c *wgctrl.Client) (err error) {
		dev, err = kernelDevice(c)
		return err
	})
	return dev, err
}

// kernelDevice refuses devices that a process of user space plays: the library would
// talk to one of the same name.
func kernelDevice(c *wgctrl.Client) (*wgtypes.Device, error) {
	dev, err := c.Device(wgName)
	if err == nil && dev.Type != wgtypes.LinuxKernel {
		return nil, os.ErrNotExist
	}
	return dev, err
}

// make makes the device in the cage, with its socket on the host, and brings it up.
func (w *wireguard) make() error {
	if err := w.create(); err != nil {
		return wgError(err)
	}
	port := int(w.port)
	err := w.control(func(c *wgctrl.Client) error {
		if _, err := kernelDevice(c); err != nil {
			return err
		}
		return c.ConfigureDevice(wgName, wgtypes.Config{PrivateKey: &w.key, ListenPort: &port, ReplacePeers: true})
	})
	if err != nil {
		return wgError(err)
	}
	for _, m := range w.known {
		m.changed = true
	}
	w.said = nil
	return w.place.do(w.up)
}

// remove removes the device, so that its UDP port is free at once; none is no error.
func (w *wireguard) remove() {
	w.place.do(func() error {
		link, err := netlink.LinkByName(wgName)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
}

// create is `ip link add weavewg netns CAGE type wireguard` on the host.
func (w *wireguard) create() error {
	cage, err := os.Open(w.place.path)
	if err != nil {
		return err
	}
	defer cage.Close()
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(wgName)))
	req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(w.mtu))))
	req.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(cage.Fd()))))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("wireguard"))
	req.AddData(info)
	return w.host.Execute(req)
}

// up gives the device its address and the only route there is. It runs inside.
func (w *wireguard) up() error {
	link, err := netlink.LinkByName(wgName)
	if err != nil {
		return wgError(err)
	}
	netlink.LinkSetIP6AddrGenMode(link, 1) // none; a kernel without IPv6 refuses
	self := single(w.self)
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &self}); err != nil {
		return wgError(fmt.Errorf("setting the address: %w", err))
	}
	if err := netlink.LinkSetUp(link); errors.Is(err, unix.EADDRINUSE) {
		return &odp.ReasonError{Why: odp.ReasonPort, Err: fmt.Errorf("UDP port %d: %w", w.port, err)}
	} else if err != nil {
		return wgError(fmt.Errorf("bringing up: %w", err))
	}
	if err := netlink.RouteAdd(w.route(link)); err != nil {
		return wgError(fmt.Errorf("setting the route: %w", err))
	}
	return nil
}

func (w *wireguard) route(link netlink.Link) *netlink.Route {
	_, all, _ := net.ParseCIDR("0.0.0.0/0")
	return &netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: all, Src: w.self.AsSlice()}
}

// whole reports whether the cage has the device as make leaves it, and no other that
// works.
func (w *wireguard) whole() bool {
	ok := false
	err := w.place.do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		others := false
		var wg netlink.Link
		for _, l := range links {
			switch a := l.Attrs(); {
			case a.Name == wgName && l.Type() == "wireguard":
				wg = l
			case a.Flags&net.FlagUp != 0:
				others = true
			}
		}
		if wg == nil || others || wg.Attrs().Flags&net.FlagUp == 0 || wg.Attrs().MTU != w.mtu {
			return nil
		}
		if s := wg.Attrs().Statistics; s != nil {
			w.unallowed = s.RxErrors
		}
		ok, err = w.reaches(wg)
		return err
	})
	return err == nil && ok
}

// reaches reports whether address and route are there. It runs inside.
func (w *wireguard) reaches(wg netlink.Link) (bool, error) {
	addrs, err := netlink.AddrList(wg, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || !addrs[0].IP.Equal(w.self.AsSlice()) {
		return false, err
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil || len(routes) != 1 {
		return false, err
	}
	r := routes[0]
	everywhere := r.Dst == nil || r.Dst.String() == "0.0.0.0/0"
	return everywhere && r.LinkIndex == wg.Attrs().Index && r.Gw == nil, nil
}

// know takes note of a peer; see keeper.Sealer.
func (w *wireguard) know(p odp.Peer) (netip.AddrPort, error) {
	at := addressOf(p.Name)
	m := &member{name: p.Name, psk: p.PSK, endpoint: p.Addr, changed: true}
	old := w.known[at]
	switch {
	case len(p.Data) != wgtypes.KeyLen:
		return netip.AddrPort{}, &odp.ReasonError{Why: odp.ReasonVersion, Err: fmt.Errorf("the peer's key has %d bytes", len(p.Data))}
	case p.PSK == [32]byte{}:
		return netip.AddrPort{}, &odp.ReasonError{Why: odp.ReasonPolicy, Err: errors.New("no secret is shared with the peer")}
	case at == w.self, old != nil && old.name != p.Name:
		return netip.AddrPort{}, &odp.ReasonError{Why: odp.ReasonDevice, Err: fmt.Errorf("%v inside is the address of another peer", at)}
	}
	m.key = wgtypes.Key([]byte(p.Data))
	if m.key == (wgtypes.Key{}) || m.key == w.key.PublicKey() {
		return netip.AddrPort{}, &odp.ReasonError{Why: odp.ReasonVersion, Err: errors.New("the peer's key is not its own")}
	}
	if old != nil && old.key == m.key {
		m.moved = old.moved || old.endpoint != m.endpoint
	}
	w.known[at] = m
	return netip.AddrPortFrom(at, insidePort), nil
}

// admit makes the device's peers those with these addresses inside: the known ones, and
// what is there already of the others. deep looks though nothing has changed here.
func (w *wireguard) admit(addrs []netip.Addr, deep bool) error {
	maps.DeleteFunc(w.known, func(a netip.Addr, _ *member) bool { return !slices.Contains(addrs, a) })
	for _, m := range w.known {
		deep = deep || m.changed
	}
	if !deep && slices.Equal(addrs, w.said) {
		return nil
	}
	err := w.control(func(c *wgctrl.Client) error {
		dev, err := kernelDevice(c)
		if err != nil {
			return err
		}
		cfg := w.changes(dev, addrs, time.Now())
		if len(cfg.Peers) == 0 && cfg.PrivateKey == nil && cfg.ListenPort == nil {
			return nil
		}
		return c.ConfigureDevice(wgName, cfg)
	})
	if err != nil {
		w.said = nil
		return wgError(fmt.Errorf("setting peers: %w", err))
	}
	for _, m := range w.known {
		m.changed, m.moved = false, false
	}
	w.said = slices.Clone(addrs)
	return nil
}

// sessionLife is how long WireGuard uses a session without a new handshake
// (REJECT_AFTER_TIME).
const sessionLife = 180 * time.Second

// changes says what the kernel has to be told so that the device is as wanted.
func (w *wireguard) changes(dev *wgtypes.Device, addrs []netip.Addr, now time.Time) (cfg wgtypes.Config) {
	if dev.PrivateKey != w.key {
		cfg.PrivateKey = &w.key
	}
	if port := int(w.port); dev.ListenPort != port {
		cfg.ListenPort = &port
	}
	have := map[netip.Addr]bool{}
	for _, p := range dev.Peers {
		at, ok := insideOf(p)
		m := w.known[at]
		switch {
		case !ok, !slices.Contains(addrs, at), m != nil && m.key != p.PublicKey:
			cfg.Peers = append(cfg.Peers, wgtypes.PeerConfig{PublicKey: p.PublicKey, Remove: true})
			continue
		case m != nil:
			cfg.Peers = append(cfg.Peers, m.update(p, now)...)
		}
		have[at] = true
	}
	for _, at := range slices.SortedFunc(maps.Keys(w.known), netip.Addr.Compare) {
		if !have[at] {
			cfg.Peers = append(cfg.Peers, w.known[at].add(at))
		}
	}
	return cfg
}

// insideOf is the address that a peer of the device may use.
func insideOf(p wgtypes.Peer) (a netip.Addr, ok bool) {
	if len(p.AllowedIPs) != 1 {
		return a, false
	}
	if ones, bits := p.AllowedIPs[0].Mask.Size(); bits != 32 || ones != 32 {
		return a, false
	}
	return netip.AddrFromSlice(p.AllowedIPs[0].IP.To4())
}

// add is the whole peer.
func (m *member) add(at netip.Addr) wgtypes.PeerConfig {
	return wgtypes.PeerConfig{
		PublicKey: m.key, PresharedKey: &m.psk, Endpoint: net.UDPAddrFromAddrPort(m.endpoint),
		ReplaceAllowedIPs: true, AllowedIPs: []net.IPNet{single(at)},
	}
}

// update is what has changed. An endpoint that the kernel has is left alone unless the
// peer is said to be elsewhere than it was, or there is no session that could have told.
// Without a session the peer is made anew, as the kernel would wait for seconds until it
// tried again.
func (m *member) update(p wgtypes.Peer, now time.Time) (out []wgtypes.PeerConfig) {
	session := now.Sub(p.LastHandshakeTime) < sessionLife
	elsewhere := m.changed && (m.moved || !session) && endpointOf(p) != m.endpoint
	switch at, _ := insideOf(p); {
	case elsewhere && !session:
		return append(out, wgtypes.PeerConfig{PublicKey: m.key, Remove: true}, m.add(at))
	case elsewhere, p.PresharedKey != m.psk:
		c := wgtypes.PeerConfig{PublicKey: m.key, UpdateOnly: true, PresharedKey: &m.psk}
		if elsewhere {
			c.Endpoint = net.UDPAddrFromAddrPort(m.endpoint)
		}
		return append(out, c)
	}
	return nil
}

// endpointOf is where the kernel sends packets to a peer; zero: nowhere yet.
func endpointOf(p wgtypes.Peer) netip.AddrPort {
	if p.Endpoint == nil {
		return netip.AddrPort{}
	}
	at := p.Endpoint.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}
