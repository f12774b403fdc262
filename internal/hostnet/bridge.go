package hostnet

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/internal/peer"
)

// BridgeConfig is what the bridge is to be.
type BridgeConfig struct {
	Name string    // at most 15 bytes
	MTU  int       // overlay MTU in bytes, 68..65535
	MAC  ether.MAC // see BridgeMAC
}

// Bridge is what EnsureBridge found and did.
type Bridge struct {
	Index    int
	Created  bool
	Repaired []string // what was wrong with a bridge that existed
	Warnings []string // what of the host's settings hurts, and what to do
}

// BridgeMAC turns a peer's name into an address for its bridge: the name's octets,
// made individual and locally administered.
func BridgeMAC(n peer.Name) ether.MAC {
	m := ether.MAC(n.Bytes())
	m[0] = m[0]&^1 | 2
	return m
}

// EnsureBridge creates the bridge, or adopts one of that name and puts right what
// differs. It is idempotent, and quiet when nothing has to be done.
func (h *Host) EnsureBridge(cfg BridgeConfig) (b Bridge, err error) {
	if err := cfg.check(); err != nil {
		return b, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { err = hint(err) }()

	br, err := h.bridge(cfg.Name)
	if errors.Is(err, ErrNoBridge) {
		if br, err = h.createBridge(cfg); err == nil {
			b.Created = true
			defer func() {
				if err != nil {
					h.nl.LinkDel(br)
				}
			}()
		}
	}
	if err != nil {
		return b, err
	}
	b.Index = br.Index
	fixed, err := h.mendBridge(br, cfg, b.Created)
	if err != nil {
		return b, fmt.Errorf("setting up bridge %s: %w", cfg.Name, err)
	}
	if !b.Created {
		b.Repaired = fixed
	}
	b.Warnings = h.tuneBridge(cfg.Name)
	return b, nil
}

func (cfg BridgeConfig) check() error {
	switch {
	case !validIfName(cfg.Name):
		return fmt.Errorf("%q cannot name a bridge: %w: use 1 to 15 letters, digits or dashes", cfg.Name, ErrBadOption)
	case cfg.MTU < 68 || cfg.MTU > 65535:
		return fmt.Errorf("MTU %d of bridge %s: %w: use 68 to 65535", cfg.MTU, cfg.Name, ErrBadOption)
	case cfg.MAC.IsMulticast() || cfg.MAC == ether.MAC{}:
		return fmt.Errorf("%v cannot be the MAC of bridge %s: %w: use an individual address", cfg.MAC, cfg.Name, ErrBadOption)
	}
	return nil
}

// validIfName follows dev_valid_name (net/core/dev.c), and keeps to printable ASCII.
func validIfName(s string) bool {
	return s != "" && len(s) < unix.IFNAMSIZ && s != "." && s != ".." &&
		!strings.ContainsAny(s, "/:%") && printable(s)
}

// bridge returns the bridge of that name. Its error wraps ErrNoBridge or
// ErrNotBridge.
func (h *Host) bridge(name string) (*netlink.Bridge, error) {
	link, err := h.nl.LinkByName(name)
	if isGone(err) {
		return nil, fmt.Errorf("%s: %w: is the daemon running?", name, ErrNoBridge)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for bridge %s: %w", name, err)
	}
	br, ok := link.(*netlink.Bridge)
	if !ok {
		return nil, fmt.Errorf("%s is a %s device: %w: remove or rename it", name, link.Type(), ErrNotBridge)
	}
	return br, nil
}

func (h *Host) createBridge(cfg BridgeConfig) (*netlink.Bridge, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = cfg.Name
	attrs.HardwareAddr = net.HardwareAddr(cfg.MAC[:])
	if err := h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("creating bridge %s: %w", cfg.Name, err)
	}
	return h.bridge(cfg.Name)
}

// bridgeWant are the options that differ from what we need on a bridge made with
// defaults, or that somebody may have changed. Ageing is the kernel's default, in
// 1/100 s. VLANs are off down to the default PVID: with one, the kernel keeps each
// FDB entry twice.
var bridgeWant = []struct {
	attr uint16
	val  []byte
	what string
}{
	{nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0), "stp"},
	{nl.IFLA_BR_MCAST_SNOOPING, []byte{0}, "multicast snooping"},
	{nl.IFLA_BR_AGEING_TIME, nl.Uint32Attr(30000), "ageing time"},
	{nl.IFLA_BR_VLAN_FILTERING, []byte{0}, "vlan filtering"},
	{nl.IFLA_BR_VLAN_DEFAULT_PVID, nl.Uint16Attr(0), "default pvid"},
}

// mendBridge brings br to what cfg says and returns what it had to change.
func (h *Host) mendBridge(br *netlink.Bridge, cfg BridgeConfig, fresh bool) (fixed []string, err error) {
	have, err := h.bridgeAttrs(br.Index)
	if err != nil {
		return nil, err
	}
	wrong := make(map[uint16][]byte)
	for _, w := range bridgeWant {
		// A kernel without the feature does not report its attribute.
		if got, ok := have[w.attr]; ok && !bytes.Equal(got, w.val) {
			wrong[w.attr] = w.val
			fixed = append(fixed, w.what)
		}
	}
	if len(wrong) > 0 {
		if err := h.setBridge(br.Index, wrong); err != nil {
			return nil, err
		}
	}
	if !bytes.Equal(br.HardwareAddr, cfg.MAC[:]) {
		if err := h.nl.LinkSetHardwareAddr(br, cfg.MAC[:]); err != nil {
			return nil, fmt.Errorf("setting MAC %v: %w", cfg.MAC, err)
		}
		fixed = append(fixed, "mac")
	}
	if fresh || br.MTU != cfg.MTU {
		if err := h.forceMTU(br, cfg.MTU); err != nil {
			return nil, err
		}
		fixed = append(fixed, "mtu")
	}
	if br.Flags&net.FlagUp == 0 {
		if err := h.nl.LinkSetUp(br); err != nil {
			return nil, err
		}
		fixed = append(fixed, "down")
	}
	return fixed, nil
}

// forceMTU sets the MTU such that it stays. A bridge takes the least MTU of its
// ports until its own was set by hand, and setting the MTU that it has does not
// count as that (dev_set_mtu returns early, net/core/dev.c).
func (h *Host) forceMTU(br *netlink.Bridge, mtu int) error {
	if br.MTU == mtu {
		if err := h.nl.LinkSetMTU(br, mtu-1); err != nil && mtu > 68 {
			return fmt.Errorf("setting MTU %d: %w", mtu-1, err)
		}
	}
	if err := h.nl.LinkSetMTU(br, mtu); err != nil {
		return fmt.Errorf("setting MTU %d: %w", mtu, err)
	}
	return nil
}

// tuneBridge sets what has no netlink attribute and returns what could not be set,
// or is set by others to our harm.
func (h *Host) tuneBridge(name string) (warnings []string) {
	err := h.do(func() error {
		settings := append(quickARP(name), sysctl{"net/ipv6/conf/" + name + "/accept_ra", "0"})
		for _, s := range settings {
			if err := s.set(); err != nil {
				warnings = append(warnings, err.Error())
			}
		}
		for _, f := range []string{"iptables", "ip6tables"} {
			key := "net/bridge/bridge-nf-call-" + f
			if val, _ := os.ReadFile(filepath.Join("/proc/sys", key)); len(val) > 0 && val[0] != '0' {
				warnings = append(warnings, strings.ReplaceAll(key, "/", ".")+
					" is 1: bridged packets pass the host's firewall one by one, which costs speed; set it to 0 unless Docker or Kubernetes needs it here")
			}
		}
		return nil
	})
	if err != nil {
		warnings = append(warnings, err.Error())
	}
	return warnings
}

// sysctl is a setting under /proc/sys of the calling thread's namespace.
type sysctl struct{ key, val string }

// set writes the setting. A kernel that does not have it is no error.
func (s sysctl) set() error {
	err := os.WriteFile(filepath.Join("/proc/sys", s.key), []byte(s.val), 0)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("setting %s=%s: %w", s.key, s.val, errors.Unwrap(err))
}

// quickARP makes an interface notice within seconds that an address has moved to
// another MAC.
func quickARP(ifname string) (out []sysctl) {
	for _, family := range []string{"ipv4", "ipv6"} {
		dir := "net/" + family + "/neigh/" + ifname + "/"
		out = append(out,
			sysctl{dir + "base_reachable_time_ms", "5000"},
			sysctl{dir + "delay_first_probe_time", "2"},
			sysctl{dir + "ucast_solicit", "1"})
	}
	return out
}

// Port is a port of the bridge. Its Index is what the FDB wants.
type Port struct {
	Name  string
	Index int
}

// routerPort is how the router's port behaves: everything the bridge does not know
// goes there, and the bridge learns nothing from what comes from there. It is isolated,
// as are the ports of kernel paths: what came over the network must not be handed to
// the router as if it came from a container.
var routerPort = portFlags{
	nl.IFLA_BRPORT_LEARNING:       false,
	nl.IFLA_BRPORT_UNICAST_FLOOD:  true,
	nl.IFLA_BRPORT_MCAST_FLOOD:    true,
	nl.IFLA_BRPORT_BCAST_FLOOD:    true,
	nl.IFLA_BRPORT_ISOLATED:       true,
	nl.IFLA_BRPORT_NEIGH_SUPPRESS: false,
	nl.IFLA_BRPORT_MODE:           false, // hairpin
}

// AddRouterPort makes the TAP device dev the bridge's port to the router, with the
// bridge's MTU, without IPv6 addresses of its own, and up. It is idempotent. It
// leaves the device's gso_max_size alone; see the package comment.
func (h *Host) AddRouterPort(bridge, dev string) (p Port, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { err = hint(err) }()

	br, err := h.bridge(bridge)
	if err != nil {
		return p, err
	}
	link, err := h.nl.LinkByName(dev)
	if err != nil {
		return p, fmt.Errorf("adding %s to bridge %s: %w", dev, bridge, err)
	}
	if err := h.enslave(br, link, routerPort); err != nil {
		return p, fmt.Errorf("adding %s to bridge %s: %w", dev, bridge, err)
	}
	return Port{dev, link.Attrs().Index}, nil
}

// enslave makes link a port of br with br's MTU, and brings it up.
func (h *Host) enslave(br *netlink.Bridge, link netlink.Link, flags portFlags) error {
	a := link.Attrs()
	h.quietIPv6(link)
	if a.MTU != br.MTU {
		if err := h.nl.LinkSetMTU(link, br.MTU); err != nil {
			return fmt.Errorf("setting MTU %d: %w", br.MTU, err)
		}
	}
	moved := a.MasterIndex != br.Index
	if moved {
		if err := h.nl.LinkSetMaster(link, br); err != nil {
			return err
		}
	}
	if err := h.setPort(a.Index, flags); err != nil {
		return fmt.Errorf("setting port flags: %w", err)
	}
	if moved { // forget what it learned while learning was still on
		if err := h.setPort(a.Index, portFlags{nl.IFLA_BRPORT_FLUSH: true}); err != nil {
			return fmt.Errorf("flushing port: %w", err)
		}
	}
	return h.nl.LinkSetUp(link)
}

// quietIPv6 keeps a port from getting a link-local address, with which the host
// would talk into the overlay. A kernel without IPv6 refuses; that is as good.
func (h *Host) quietIPv6(link netlink.Link) {
	const addrGenModeNone = 1 // linux/if_link.h
	h.nl.LinkSetIP6AddrGenMode(link, addrGenModeNone)
}
