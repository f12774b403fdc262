package daemon

import (
	"context"
	"fmt"
	"log/slog"

	"weave/internal/api"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/odp"
	"weave/odp/vxlan"
)

// fastpath is the kernel path of this host, or why there is none.
type fastpath struct {
	ov  *odp.Overlay  // nil: there is none
	be  odp.Backend   // nil with ov
	off *reasonedPath // why there is none
}

// reasonedPath says why no connection can have a path.
type reasonedPath struct{ reason, text string }

// backendName is what status says is in use.
func (f *fastpath) backendName() string {
	if f.be == nil {
		return "off"
	}
	return f.be.Name()
}

// describe says in a sentence what the kernel path is.
func (f *fastpath) describe() string {
	if f.off != nil {
		return f.off.text + ": user space (sleeve) is used"
	}
	return f.be.Name() + " where a connection may be in clear and its path is proven"
}

// openFast opens the kernel path that the configuration allows. What an earlier run
// left in the kernel is taken over if clear data is allowed anyway; otherwise it is
// gone when openFast returns, before there can be a connection.
func openFast(cfg *Config, local peer.Name, steer *steering, sw func(from peer.Name, macs []ether.MAC)) (*fastpath, error) {
	f := &fastpath{}
	switch {
	case cfg.FastDP == "off":
		f.off = &reasonedPath{odp.ReasonOff, "switched off (--no-fastdp)"}
	case cfg.Password != nil && len(cfg.Trusted) == 0:
		f.off = &reasonedPath{odp.ReasonPolicy, "a password is set and no subnet is trusted, so no data may be in clear"}
	case cfg.Port == 65535:
		f.off = &reasonedPath{odp.ReasonPort, "there is no UDP port after port 65535"}
	}
	if f.off != nil {
		if err := vxlan.Remove(); err != nil {
			return nil, fmt.Errorf("removing the kernel path of an earlier run: %w", err)
		}
		return f, nil
	}
	log := cfg.Log.With("part", "fastdp")
	be, err := vxlan.Open(vxlan.Config{
		Bridge: cfg.Bridge, Local: local, MTU: cfg.MTU, Port: cfg.Port + 1,
		// With a password it is not known yet who may be sent clear data.
		Adopt: cfg.Password == nil, Log: log,
	})
	if err != nil {
		return nil, err
	}
	f.be = be
	f.ov, err = odp.New(odp.Config{
		Backend: be, Local: local, MTU: cfg.MTU, Port: cfg.Port + 1, VNI: vxlan.VNI, Log: log,
		Vouched: sw, Changed: steer.kernelChanged,
	})
	if err != nil {
		be.Close()
		return nil, err
	}
	return f, nil
}

// run runs the kernel path until ctx ends.
func (f *fastpath) run(ctx context.Context) error {
	if f.ov == nil {
		return nil
	}
	return f.ov.Run(ctx)
}

// closing is to be called before connections end because the daemon does.
func (f *fastpath) closing() {
	if f.ov != nil {
		f.ov.Closing()
	}
}

func (f *fastpath) close() {
	if f.be != nil {
		f.be.Close()
	}
}

// pathLog tells of the path that each connection uses: it logs and counts changes. It
// belongs to the mesh's goroutine, but for what metrics read.
type pathLog struct {
	log *slog.Logger
	min string
	now map[peer.Name]string
	count
}

// checkFastDP refuses what this build cannot do.
func checkFastDP(word string) error {
	switch word {
	case "auto", "vxlan", "off":
		return nil
	case "ovs":
		return api.Errorf(api.CodeKernelFeature, "--fastdp=ovs: the Open vSwitch datapath is not in this build: use auto or vxlan")
	}
	return api.Errorf(api.CodeUsage, "--fastdp=%s: want auto, vxlan, ovs or off", word)
}
