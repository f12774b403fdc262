package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"weave/internal/api"
	"weave/odp"
	"weave/odp/cage"
	"weave/odp/keeper"
	"weave/odp/ovs"
	"weave/odp/vxlan"
)

// kernelBackend is a way to build a kernel path, in the order of preference in
// kernelBackends. Backends of one path speak the same on the wire, so each host takes
// its own.
type kernelBackend struct {
	name   string // in --fastdp and status
	path   string // odp.Name or odp.SealedName
	module string // of the kernel, for people
	port   uint16 // what to add to the control port
	probe  func() error
	open   func(keeper.Config) (odp.Backend, error)
	remove func() error
}

// kernelBackends are those of this build, best first.
var kernelBackends = []kernelBackend{
	{
		name: "vxlan", path: odp.Name, module: "vxlan", port: 1, probe: vxlan.Probe, remove: vxlan.Remove,
		open: func(c keeper.Config) (odp.Backend, error) { return vxlan.Open(c) },
	},
	{
		name: "ovs", path: odp.Name, module: "openvswitch", port: 1, probe: ovs.Probe, remove: ovs.Remove,
		open: func(c keeper.Config) (odp.Backend, error) { return ovs.Open(c) },
	},
	{
		name: "cage", path: odp.SealedName, module: "wireguard", port: 2, probe: cage.Probe, remove: cage.Remove,
		open: func(c keeper.Config) (odp.Backend, error) { return cage.Open(c) },
	},
}

// removeBackends removes what runs left in the kernel, but for what keep is to take
// over.
func removeBackends(keep ...string) error {
	var errs []error
	for _, b := range kernelBackends {
		if !slices.Contains(keep, b.name) {
			if err := b.remove(); err != nil {
				errs = append(errs, fmt.Errorf("removing the kernel path of an earlier run (%s): %w", b.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// choice is what became of a backend at the launch.
type choice struct {
	*kernelBackend
	reason string // why it is not the one in use; "": it is
	text   string // the same in a sentence
}

// chooseBackend takes the first backend of a path that the kernel can do. With must it
// is that one or an error.
func chooseBackend(path, must string) (used *kernelBackend, all []choice, err error) {
	for i := range kernelBackends {
		b := &kernelBackends[i]
		c := choice{kernelBackend: b}
		switch {
		case b.path != path:
			continue
		case must != "" && b.name != must:
			c.reason, c.text = odp.ReasonOff, "another backend was asked for"
		case used != nil:
			c.reason, c.text = odp.ReasonSpare, used.name+" is used"
		default:
			if err = b.probe(); err == nil {
				used = b
				break
			}
			c.reason, c.text = odp.ReasonOf(err), oneSentence(err)
		}
		all = append(all, c)
	}
	if used == nil && must != "" && err == nil {
		return nil, all, api.Errorf(api.CodeKernelFeature, "the backend %s is not in this build: ask for auto", must)
	}
	if used == nil && must != "" {
		return nil, all, api.Errorf(api.CodeKernelFeature, "the kernel cannot do %s: %s: load module %s, or ask for auto", must, oneSentence(err), moduleOf(must))
	}
	return used, all, nil
}

func moduleOf(backend string) string {
	for _, b := range kernelBackends {
		if b.name == backend {
			return b.module
		}
	}
	return backend
}

// oneSentence is an error's text without the reason in front.
func oneSentence(err error) string {
	var r *odp.ReasonError
	if errors.As(err, &r) && r.Err != nil {
		err = r.Err
	}
	return strings.TrimSpace(err.Error())
}
