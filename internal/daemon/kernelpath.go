package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"weave/internal/api"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/odp"
	"weave/odp/keeper"
)

// kernelPath is one of the two paths that the kernel can carry: in clear, or encrypted.
type kernelPath struct {
	ov       *odp.Overlay // nil: this host does not have it
	be       odp.Backend  // nil with ov
	port     uint16       // UDP; 0 with ov
	off      reasonedPath // why not
	backends []choice     // that the path could have, best first
}

// reasonedPath says why no connection can have a path.
type reasonedPath struct{ reason, text string }

// kernelPaths are those of this host.
type kernelPaths struct {
	clear, sealed kernelPath
	trial         *trial
}

// Words of Config.EncryptedPath.
const (
	sealedSleeve = "sleeve" // user space only
	sealedKernel = "kernel" // the kernel where the other end can too
	sealedAuto   = "auto"   // the same where user space has no AES
)

// decideKernel says for which paths the configuration leaves room, before the kernel
// is looked at: policy first. A zero reasonedPath is a yes.
func decideKernel(cfg *Config, t *trial) (clear, sealed reasonedPath) {
	encrypted, trusts := cfg.Password != nil, len(cfg.Trusted) > 0
	quarantined := reasonedPath{odp.ReasonTrouble, t.explain()}
	noPort := reasonedPath{odp.ReasonPort, "there is no UDP port after the control port"}
	switch {
	case cfg.FastDP == fastOff:
		clear = reasonedPath{odp.ReasonOff, "switched off at this host (--no-fastdp)"}
	case encrypted && !trusts:
		clear = reasonedPath{odp.ReasonPolicy, "a password is set and no subnet is trusted, so no data may be in clear"}
	case t.quarantined && cfg.FastDP == fastAuto:
		clear = quarantined
	case cfg.Port > 65535-1:
		clear = noPort
	}
	switch {
	case cfg.EncryptedPath == sealedSleeve:
		sealed = reasonedPath{odp.ReasonOff, "not asked for: launch with --encrypted-path=kernel"}
	case cfg.FastDP == fastOff:
		sealed = reasonedPath{odp.ReasonOff, "switched off at this host (--no-fastdp)"}
	case !encrypted:
		sealed = reasonedPath{odp.ReasonClear, "no password is set, so no data is encrypted"}
	case t.quarantined && cfg.EncryptedPath == sealedAuto:
		sealed = quarantined
	case cfg.Port > 65535-2:
		sealed = noPort
	}
	return clear, sealed
}

// openKernel opens the kernel paths that the configuration allows and the kernel can
// do. What an earlier run left in the kernel is taken over where it may be; all else is
// gone when openKernel returns, before there can be a connection.
func openKernel(cfg *Config, local peer.Name, t *trial, steer *steering, vouched func(from peer.Name, macs []ether.MAC)) (_ *kernelPaths, err error) {
	k := &kernelPaths{trial: t}
	k.clear.off, k.sealed.off = decideKernel(cfg, t)
	mustClear, mustSealed := "", ""
	if cfg.FastDP != fastAuto && cfg.FastDP != fastOff {
		mustClear = cfg.FastDP
	}
	if cfg.EncryptedPath == sealedKernel && cfg.FastDP != fastOff {
		mustSealed = "cage"
	}
	useClear, err := k.clear.choose(odp.Name, mustClear)
	if err != nil {
		return nil, refuseLaunch("--fastdp="+cfg.FastDP, err)
	}
	useSealed, err := k.sealed.choose(odp.SealedName, mustSealed)
	if err != nil {
		return nil, refuseLaunch("--encrypted-path="+cfg.EncryptedPath, err)
	}
	var keep []string
	for _, b := range []*kernelBackend{useClear, useSealed} {
		if b != nil {
			keep = append(keep, b.name)
		}
	}
	if err := removeBackends(keep...); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	set := odp.Config{Local: local, MTU: cfg.MTU, VNI: keeper.VNI, Begin: t.begin, Vouched: vouched, Relayed: steer.relayed, Changed: steer.kernelChanged}
	// With a password it is not known yet who may be sent clear data.
	if err := k.clear.open(cfg, useClear, set, cfg.Password == nil); err != nil {
		return nil, err
	}
	set.Sealed, set.Wanted = true, cfg.EncryptedPath == sealedKernel
	return k, k.sealed.open(cfg, useSealed, set, true)
}

// refuseLaunch says which flag asks for what there is not.
func refuseLaunch(flag string, err error) error {
	var e *api.Error
	if errors.As(err, &e) {
		return api.Errorf(e.Code, "%s: %w", flag, err)
	}
	return fmt.Errorf("%s: %w", flag, err)
}

// choose finds the backend of a path. What was asked for by name has to be there even
// where the policy has no use for it; otherwise nothing is probed in vain.
func (p *kernelPath) choose(path, must string) (used *kernelBackend, err error) {
	if p.off.reason != "" && must == "" {
		for i := range kernelBackends {
			if b := &kernelBackends[i]; b.path == path {
				p.backends = append(p.backends, choice{b, p.off.reason, p.off.text})
			}
		}
		return nil, nil
	}
	used, p.backends, err = chooseBackend(path, must)
	switch {
	case err != nil:
		return nil, err
	case p.off.reason != "":
		for i := range p.backends {
			p.backends[i].reason, p.backends[i].text = p.off.reason, p.off.text
		}
		return nil, nil
	case used == nil:
		p.off = reasonedPath{odp.ReasonBuild, "not in this build"}
		if len(p.backends) > 0 {
			p.off = reasonedPath{p.backends[0].reason, p.backends[0].text}
		}
	}
	return used, nil
}

func (p *kernelPath) open(cfg *Config, b *kernelBackend, set odp.Config, adopt bool) (err error) {
	if b == nil {
		return nil
	}
	set.Log, set.Port = cfg.Log.With("part", "fastdp"), cfg.Port+b.port
	p.be, err = b.open(keeper.Config{Bridge: cfg.Bridge, Local: set.Local, MTU: cfg.MTU, Port: set.Port, Adopt: adopt, Log: set.Log})
	if err != nil {
		return fmt.Errorf("opening the kernel path: %w", err)
	}
	set.Backend, p.port = p.be, set.Port
	if key, ok := p.be.(interface{ OfferData() []byte }); ok {
		set.OfferData = key.OfferData()
	}
	p.ov, err = odp.New(set)
	return err
}

// all are the two paths.
func (k *kernelPaths) all() []*kernelPath { return []*kernelPath{&k.clear, &k.sealed} }

// overlays are those that this host has.
func (k *kernelPaths) overlays() (out []*odp.Overlay) {
	for _, p := range k.all() {
		if p.ov != nil {
			out = append(out, p.ov)
		}
	}
	return out
}

// offered are the same for the mesh.
func (k *kernelPaths) offered() (out []overlay.Overlay) {
	for _, ov := range k.overlays() {
		out = append(out, ov)
	}
	return out
}

// of returns the path of connections that are encrypted, or are not.
func (k *kernelPaths) of(encrypted bool) *kernelPath {
	if encrypted {
		return &k.sealed
	}
	return &k.clear
}

// run runs the kernel paths until ctx ends.
func (k *kernelPaths) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, ov := range k.overlays() {
		g.Go(func() error { return ov.Run(ctx) })
	}
	return g.Wait()
}

// closing is to be called before connections end because the daemon does.
func (k *kernelPaths) closing() {
	for _, ov := range k.overlays() {
		ov.Closing()
	}
}

func (k *kernelPaths) close() {
	for _, p := range k.all() {
		if p.be != nil {
			p.be.Close()
		}
	}
}

// adopted are the MACs that lead to peers by entries of an earlier run.
func (k *kernelPaths) adopted() map[ether.MAC]netip.Addr {
	out := map[ether.MAC]netip.Addr{}
	for _, ov := range k.overlays() {
		for mac, a := range ov.Adopted() {
			out[mac] = a
		}
	}
	return out
}

// counters are those of all backends.
func (k *kernelPaths) counters() map[string]uint64 {
	out := map[string]uint64{}
	for _, p := range k.all() {
		if p.be == nil {
			continue
		}
		for event, n := range p.be.Counters() {
			out[event] += n
		}
	}
	return out
}

// describe says in a sentence what the path is.
func (p *kernelPath) describe(where string) string {
	if p.be == nil {
		return p.off.text + ": user space (sleeve) is used"
	}
	return p.be.Name() + " where " + where + " and its path is proven"
}

// name is what status says is in use; without is for where there is none.
func (p *kernelPath) name(without string) string {
	if p.be == nil {
		return without
	}
	return p.be.Name()
}
