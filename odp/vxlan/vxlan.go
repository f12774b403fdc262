package vxlan

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"weave/odp"
	"weave/odp/keeper"
	"weave/odp/vxdev"
)

// VNI of all weave networks.
const VNI = keeper.VNI

// Names of the devices. Whatever has one of them and is a vxlan device is ours.
const (
	deviceName  = "weavevx"
	deviceName6 = "weavevx6"
)

// Config of a Backend.
type Config = keeper.Config

// driver makes a vxlan device for each family of the underlay.
type driver struct {
	cfg Config
	vxdev.Table
}

var _ keeper.Driver = (*driver)(nil)

// Open returns a Backend for the calling thread's network namespace. It makes nothing
// in the kernel.
func Open(cfg Config) (odp.Backend, error) {
	host, err := keeper.OpenHost()
	if err != nil {
		return nil, fmt.Errorf("opening vxlan backend: %w", err)
	}
	return keeper.Open(cfg, host, newDriver(cfg, host), ports()...)
}

// Remove removes what Backends leave in the calling thread's network namespace. What
// is not there is no error.
func Remove() error {
	host, err := keeper.OpenHost()
	if err != nil {
		return err
	}
	return keeper.Remove(host, newDriver(Config{}, host), ports()...)
}

func newDriver(cfg Config, host *keeper.Host) *driver {
	return &driver{cfg, vxdev.Table{Host: host, Port: cfg.Port}}
}

func ports() []*keeper.Port {
	return []*keeper.Port{
		{Name: deviceName, Kind: vxdev.Kind, Families: [2]bool{true, false}},
		{Name: deviceName6, Kind: vxdev.Kind, Families: [2]bool{false, true}},
	}
}

// Name returns "vxlan".
func (d *driver) Name() string { return vxdev.Kind }

// Usable implements keeper.Driver. The device's family is not to be seen; the name
// stands for it.
func (d *driver) Usable(p *keeper.Port, link netlink.Link) bool { return d.device(p).Is(link) }

// Create implements keeper.Driver.
func (d *driver) Create(p *keeper.Port) error {
	return keeper.VXLANError(d.Host.Execute(d.device(p).Request()), p.Name, d.cfg.Port)
}

func (d *driver) device(p *keeper.Port) vxdev.Device {
	return vxdev.Device{Name: p.Name, MAC: p.MAC, MTU: d.cfg.MTU, Port: d.cfg.Port, IPv6: p.Families[1]}
}

// Mend implements keeper.Driver: there is nothing but the device.
func (d *driver) Mend(*keeper.Port, bool) error { return nil }

// Remove implements keeper.Driver.
func (d *driver) Remove(p *keeper.Port) error { return d.Host.RemoveLink(p.Name, p.Kind) }

// Admit implements keeper.Driver: the filter does it.
func (d *driver) Admit(*keeper.Port, []netip.Addr) error { return nil }

// Strict implements keeper.Driver: without the filter all are admitted.
func (d *driver) Strict() bool { return false }

// Counters implements keeper.Driver.
func (d *driver) Counters(map[string]uint64) {}

// Run implements keeper.Driver.
func (d *driver) Run(context.Context, *keeper.Keeper) {}

// Close implements keeper.Driver.
func (d *driver) Close() error { return nil }
