package cage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/crypto/blake2s"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weave/internal/hostnet/ns"
	"weave/internal/peer"
	"weave/odp"
	"weave/odp/keeper"
	"weave/odp/vxdev"
)

// Names of the devices. Whatever has one of them in its place is ours.
const (
	deviceName = "weavecage"
	wgName     = "weavewg"
)

// insidePort is the UDP port of vxlan inside the cage (RFC 7348).
const insidePort = 4789

// Config of a Backend; its Port is WireGuard's on the host.
type Config = keeper.Config

// Backend implements odp.Backend.
type Backend struct {
	*keeper.Keeper
	public wgtypes.Key
}

var _ odp.Backend = (*Backend)(nil)

// Open returns a Backend for the calling thread's network namespace. It makes nothing
// in the kernel.
func Open(cfg Config) (*Backend, error) {
	host, err := keeper.OpenHost()
	if err != nil {
		return nil, fmt.Errorf("opening cage backend: %w", err)
	}
	d, err := newDriver(cfg, host)
	if err == nil {
		err = d.wg.chooseKey(cfg.Adopt)
	}
	if err != nil {
		host.Close()
		return nil, fmt.Errorf("opening cage backend: %w", err)
	}
	inner := cfg
	inner.Port = insidePort
	k, err := keeper.Open(inner, host, d, ports()...)
	if err != nil {
		return nil, err
	}
	return &Backend{k, d.wg.key.PublicKey()}, nil
}

// OfferData is what peers' Backends are to know of this one: its public key.
func (b *Backend) OfferData() []byte { return b.public[:] }

// Remove removes what Backends leave in the calling thread's network namespace. What
// is not there is no error.
func Remove() error {
	host, err := keeper.OpenHost()
	if err != nil {
		return err
	}
	d, err := newDriver(Config{}, host)
	if err != nil {
		host.Close()
		return err
	}
	return keeper.Remove(host, d, ports()...)
}

// Probe tries whether the kernel has what a cage is made of; it leaves nothing. The
// error is an odp.ReasonError.
func Probe() error {
	th, err := ns.NewNamespace()
	if err != nil {
		return &odp.ReasonError{Why: odp.ReasonDevice, Err: err}
	}
	defer th.Close()
	return th.Do(func() error {
		if err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: wgName}}); err != nil {
			return wgError(err)
		}
		dev := vxdev.Device{Name: deviceName, MAC: odp.SealedProbeMAC(peer.Name{}), MTU: 1376, Port: insidePort, Local: addressOf(peer.Name{})}
		_, err := dev.Request().Execute(unix.NETLINK_ROUTE, 0)
		return keeper.VXLANError(err, deviceName, insidePort)
	})
}

// wgError gives the error of making a WireGuard device a reason.
func wgError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP):
		return &odp.ReasonError{Why: odp.ReasonNoWG, Err: fmt.Errorf("the kernel has no WireGuard (module wireguard): %w", err)}
	}
	return &odp.ReasonError{Why: odp.ReasonDevice, Err: fmt.Errorf("making %s: %w", wgName, err)}
}

func ports() []*keeper.Port {
	return []*keeper.Port{{Name: deviceName, Kind: vxdev.Kind, Families: [2]bool{true, true}}}
}

// addressOf is a peer's address inside.
func addressOf(n peer.Name) netip.Addr {
	b := n.Bytes()
	sum := blake2s.Sum256(append([]byte("weave cage address v1"), b[:]...))
	sum[0] = 1 + sum[0]%126 // neither 0, nor loopback, nor multicast
	return netip.AddrFrom4([4]byte(sum[:4]))
}

// driver makes the cage and what is in it.
type driver struct {
	cfg Config
	vxdev.Table
	wg    *wireguard
	place place
	deep  bool // Admit is to look at what is in the kernel
}

var _ keeper.Sealer = (*driver)(nil)

func newDriver(cfg Config, host *keeper.Host) (*driver, error) {
	at, err := placeOf(host)
	if err != nil {
		return nil, err
	}
	return &driver{
		cfg: cfg, place: at, Table: vxdev.Table{Host: host, Port: insidePort},
		wg: newWireguard(cfg, host, at), deep: true,
	}, nil
}

// Name returns "cage".
func (d *driver) Name() string { return "cage" }

func (d *driver) device(p *keeper.Port) vxdev.Device {
	return vxdev.Device{
		Name: p.Name, MAC: p.MAC, MTU: d.cfg.MTU, Port: insidePort,
		Local: d.wg.self, NetNS: d.Host.FD(),
	}
}

// Usable implements keeper.Driver: the device's socket has to be in the cage, and the
// cage to be whole. A device whose socket is elsewhere would send in clear.
func (d *driver) Usable(p *keeper.Port, link netlink.Link) bool {
	return d.device(p).Is(link) && d.place.id() == link.Attrs().NetNsID && link.Attrs().NetNsID >= 0 && d.wg.whole()
}

// Create implements keeper.Driver: first the cage, then WireGuard, then the way in.
func (d *driver) Create(p *keeper.Port) error {
	if err := d.Remove(p); err != nil {
		return err
	}
	if err := d.place.make(); err != nil {
		return err
	}
	if err := d.wg.make(); err != nil {
		return err
	}
	d.deep = true
	return keeper.VXLANError(d.place.do(func() error {
		_, err := d.device(p).Request().Execute(unix.NETLINK_ROUTE, 0)
		return err
	}), p.Name, insidePort)
}

// Mend implements keeper.Driver: what Usable does not see is seen by the next Admit.
func (d *driver) Mend(_ *keeper.Port, deep bool) error {
	d.deep = d.deep || deep
	return nil
}

// Remove implements keeper.Driver: first the way in.
func (d *driver) Remove(p *keeper.Port) error {
	err := d.Host.RemoveLink(p.Name, p.Kind)
	d.wg.remove()
	return errors.Join(err, d.place.remove())
}

// Inside implements keeper.Sealer.
func (d *driver) Inside(p odp.Peer) (netip.AddrPort, error) { return d.wg.know(p) }

// Admit implements keeper.Driver.
func (d *driver) Admit(_ *keeper.Port, addrs []netip.Addr) error {
	deep := d.deep
	d.deep = false
	err := d.wg.admit(addrs, deep)
	d.deep = d.deep || err != nil
	return err
}

// Strict implements keeper.Driver.
func (d *driver) Strict() bool { return true }

// Counters implements keeper.Driver.
func (d *driver) Counters(out map[string]uint64) { out["unallowed"] = d.wg.unallowed }

// Run implements keeper.Driver.
func (d *driver) Run(context.Context, *keeper.Keeper) {}

// Close implements keeper.Driver.
func (d *driver) Close() error { return nil }

// single is the prefix of one address.
func single(a netip.Addr) net.IPNet {
	return net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
