package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/mdlayher/genetlink"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Modules that not every kernel has.
const (
	ovsModule       = "openvswitch"
	wireguardModule = "wireguard"
)

// kernelFeatures names the family of generic netlink that shows a module to be there;
// asking for it loads the module.
var kernelFeatures = map[string]string{ovsModule: "ovs_datapath", wireguardModule: "wireguard"}

// hasFeature asks the kernel.
func hasFeature(module string) bool {
	c, err := genetlink.Dial(nil)
	if err != nil {
		return false
	}
	defer c.Close()
	_, err = c.GetFamily(kernelFeatures[module])
	return err == nil
}

// absence is a path that could not be measured, and the module it needs.
type absence struct {
	Path  string `json:"path"`
	Lacks string `json:"kernel_lacks"`
}

// String is a line of a report.
func (a absence) String() string {
	title := a.Path
	if i := slices.Index(pathNames(), a.Path); i >= 0 {
		title = allPaths()[i].title
	}
	return fmt.Sprintf("%s: not here: kernel lacks %s", title, a.Lacks)
}

// split separates the paths that the kernel has all for from the others.
func split(paths []path, has func(module string) bool) (here []path, absent []absence) {
	for _, p := range paths {
		if p.needs != "" && !has(p.needs) {
			absent = append(absent, absence{p.name, p.needs})
			continue
		}
		here = append(here, p)
	}
	return here, absent
}

// Overheads of the kernel's WireGuard by hand, whose underlay is known to be IPv4.
const (
	wireguardOverhead = 60 // IPv4 20, UDP 8, WireGuard 32
	vxlanOverhead     = 50 // IPv4 20, UDP 8, vxlan 8, inner Ethernet 14
)

// inside are the hosts' addresses in the kernel's WireGuard where vxlan is in it.
var inside = [2]netip.Addr{netip.MustParseAddr("10.56.0.1"), netip.MustParseAddr("10.56.0.2")}

// setupKernelWireguard has the layout of wireguard-go: layer 3, no container.
func setupKernelWireguard(ctx context.Context, b *bed) (*endpoints, error) {
	mtu := b.mtu - wireguardOverhead
	return &endpoints{client: "h1", server: "h2", addr: overlay[1], mtu: mtu}, b.kernelWireguard(ctx, mtu, overlay)
}

// setupKernelCage is weave's encrypted kernel path as one would make it by hand:
// container, bridge, vxlan device, and a WireGuard device below it.
func setupKernelCage(ctx context.Context, b *bed) (*endpoints, error) {
	mtu := b.mtu - wireguardOverhead
	if err := b.kernelWireguard(ctx, mtu, inside); err != nil {
		return nil, err
	}
	return b.vxlanBridges(ctx, inside, mtu-vxlanOverhead)
}

// kernelWireguard joins the hosts by a WireGuard device on each, with these addresses.
func (b *bed) kernelWireguard(ctx context.Context, mtu int, addrs [2]netip.Addr) error {
	var keys [2]wgtypes.Key
	for i := range keys {
		var err error
		if keys[i], err = wgtypes.GeneratePrivateKey(); err != nil {
			return err
		}
	}
	for i, host := range roles[:2] {
		if err := ip(ctx, host, "link add wg0 type wireguard"); err != nil {
			return err
		}
		set, err := json.Marshal(wireguardEnd{keys[i], keys[1-i].PublicKey(), underlay[1-i], addrs[1-i]})
		if err != nil {
			return err
		}
		if _, err := output(ctx, string(set), inNS(host, b.tools.self, helperWireguard, "wg0")...); err != nil {
			return err
		}
		err = ip(ctx, host, fmt.Sprintf("addr add %s/24 dev wg0", addrs[i]), fmt.Sprintf("link set wg0 mtu %d up", mtu))
		if err != nil {
			return err
		}
	}
	return nil
}

// wireguardPort is that of all WireGuard devices here.
const wireguardPort = 51820

// wireguardEnd is what a WireGuard device of the kernel has to know.
type wireguardEnd struct {
	Key      wgtypes.Key // its own, private
	Peer     wgtypes.Key
	Endpoint netip.Addr // of the peer
	Inside   netip.Addr // of the peer
}

// runWireguard is a helper: it configures the device DEVICE of its namespace by a
// wireguardEnd in JSON on standard input, which other users cannot read as they can
// arguments.
func runWireguard(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: want 1 argument", helperWireguard)
	}
	var end wireguardEnd
	if err := json.NewDecoder(os.Stdin).Decode(&end); err != nil {
		return err
	}
	c, err := wgctrl.New()
	if err != nil {
		return err
	}
	defer c.Close()
	port := wireguardPort
	return c.ConfigureDevice(args[0], wgtypes.Config{
		PrivateKey: &end.Key, ListenPort: &port,
		Peers: []wgtypes.PeerConfig{{
			PublicKey:  end.Peer,
			Endpoint:   net.UDPAddrFromAddrPort(netip.AddrPortFrom(end.Endpoint, wireguardPort)),
			AllowedIPs: []net.IPNet{{IP: end.Inside.AsSlice(), Mask: net.CIDRMask(32, 32)}},
		}},
	})
}
