package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"weave/internal/api"
	"weave/internal/hostnet"
	"weave/internal/store"
	"weave/sleeve/udp"
	"weave/tun"
)

// The daemon is the api.Backend.
var _ api.Backend = (*daemon)(nil)

// Status is the services block.
func (d *daemon) Status(ctx context.Context) (api.Status, error) { return d.status(ctx), nil }

// Connections lists connections, targets without one, and recent refused attempts.
func (d *daemon) Connections(context.Context) (api.Connections, error) {
	st := d.router.Status()
	return api.Connections{Encryption: st.Encryption, Connections: d.connections(st)}, nil
}

// Peers lists the known members.
func (d *daemon) Peers(context.Context) (api.Peers, error) {
	return api.Peers{Peers: peers(d.router.Status())}, nil
}

// Targets lists what was given to launch and connect.
func (d *daemon) Targets(context.Context) (api.Targets, error) {
	return api.Targets{Targets: d.router.Targets()}, nil
}

// Connect adds or replaces targets and remembers them.
func (d *daemon) Connect(_ context.Context, req api.ConnectRequest) error {
	if err := d.router.Connect(req.Peers, req.Replace); err != nil {
		return err
	}
	return d.saveTargets()
}

// Forget removes targets and remembers that; unknown ones are ignored.
func (d *daemon) Forget(_ context.Context, req api.ForgetRequest) error {
	if err := d.router.Forget(req.Peers); err != nil {
		d.log.Debug("forgetting targets", "err", err)
	}
	return d.saveTargets()
}

func (d *daemon) saveTargets() error {
	if err := d.store.SetTargets(d.router.Targets()); err != nil {
		return coded(fmt.Errorf("remembering targets: %w", err))
	}
	return nil
}

// Ps lists what hangs on the bridge.
func (d *daemon) Ps(_ context.Context, req api.PsRequest) (api.Attachments, error) {
	list, err := d.attachments()
	if err != nil {
		return api.Attachments{}, coded(err)
	}
	if len(req.Containers) == 0 {
		return api.Attachments{Attachments: list}, nil
	}
	out := []api.Attachment{}
	for _, c := range req.Containers {
		for _, a := range list {
			if a.Container == c.String() {
				out = append(out, a)
			}
		}
	}
	return api.Attachments{Attachments: out}, nil
}

func (d *daemon) attachments() ([]api.Attachment, error) {
	list, err := d.hostside.host.List(d.cfg.Bridge)
	if err != nil {
		return nil, err
	}
	out := make([]api.Attachment, 0, len(list)+1)
	out = append(out, api.Attachment{Container: "weave:expose", Interface: d.cfg.Bridge, MAC: d.hostside.bridge.MAC.String(), Addrs: d.exposedAddrs()})
	for _, a := range list {
		addrs := a.Addrs
		if addrs == nil {
			addrs = []netip.Prefix{}
		}
		out = append(out, api.Attachment{Container: a.Container, Interface: a.IfName, MAC: a.MAC.String(), Addrs: addrs})
	}
	return out, nil
}

// Report is everything that is known.
func (d *daemon) Report(ctx context.Context) (api.Report, error) {
	st, rst := d.status(ctx), d.router.Status()
	list, err := d.attachments()
	if err != nil {
		d.log.Warn("listing containers", "err", err)
		list = []api.Attachment{}
	}
	r := api.Report{
		Ready:       true,
		Version:     st.Version,
		PID:         st.PID,
		StartedAt:   st.StartedAt,
		Degraded:    st.Degraded,
		Router:      st.Router,
		Connections: d.connections(rst),
		Peers:       peers(rst),
		Targets:     d.router.Targets(),
		Attachments: list,
		MACs:        d.macs(),
		Features:    d.features,
	}
	r.UnicastRoutes, r.BroadcastRoutes = d.routes()
	r.IPAM, r.DNS = d.services(ctx, true)
	return r, nil
}

// Reset gives this host's addresses to another, undoes everything on the host, forgets
// the state, and ends the daemon.
func (d *daemon) Reset(ctx context.Context, req api.ResetRequest) (given api.Given, err error) {
	if !req.Force {
		given = d.giveAway(ctx)
	}
	d.forgetOnExit.Store(true)
	return given, d.Stop(ctx)
}

// Stop begins the end.
func (d *daemon) Stop(context.Context) error {
	d.stop()
	return nil
}

// Undo removes what a daemon leaves on the host: containers' interfaces, the
// bridge, our rules. No daemon may be running. It is idempotent.
func Undo(bridge string) error {
	h, err := hostnet.Open()
	if err != nil {
		return coded(err)
	}
	defer h.Close()
	return coded(errors.Join(h.Reset(bridge), removeBackends()))
}

// coded gives an error of the packages below the code that users see.
func coded(err error) error {
	if err == nil {
		return nil
	}
	var e *api.Error
	if errors.As(err, &e) {
		return err
	}
	code, hint := api.CodeOf(err), ""
	if c, h := addressCode(err); c != "" {
		code, hint = c, h
	}
	switch {
	case errors.Is(err, hostnet.ErrNoNamespace):
		code, hint = api.CodeNotFound, ": is the container running?"
	case errors.Is(err, hostnet.ErrNoNftables):
		code, hint = api.CodeKernelFeature, ": use --without-masquerade"
	case errors.Is(err, hostnet.ErrNoBridge):
		code = api.CodeNotFound
	case errors.Is(err, hostnet.ErrAddressInUse), errors.Is(err, hostnet.ErrInterfaceExists), errors.Is(err, hostnet.ErrNotBridge),
		errors.Is(err, tun.ErrBusy):
		code = api.CodeConflict
	case errors.Is(err, store.ErrLocked):
		code = api.CodeConflict
	case errors.Is(err, store.ErrUnsafeDir):
		code = api.CodePermission
	case errors.Is(err, udp.ErrPortInUse), errors.Is(err, unix.EADDRINUSE):
		code, hint = api.CodeConflict, ": stop what uses it, or choose another --port"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		code, hint = api.CodeUsage, ": give --host an address of this host"
	case errors.Is(err, hostnet.ErrContainerName), errors.Is(err, hostnet.ErrHostNamespace),
		errors.Is(err, hostnet.ErrBadAddress), errors.Is(err, hostnet.ErrBadOption):
		code = api.CodeUsage
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		hint = ": make room there"
	case errors.Is(err, unix.EROFS):
		hint = ": make it writable, or choose another --state-dir"
	case errors.Is(err, unix.EPERM), errors.Is(err, os.ErrPermission):
		code = api.CodePermission
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, tun.ErrNoDevice), errors.Is(err, tun.ErrUnsupported):
		code = api.CodeKernelFeature
	}
	return &api.Error{Code: code, Message: err.Error() + hint, Err: err}
}
