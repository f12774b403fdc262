package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"weave/crypto/handshake"
	"weave/internal/api"
	"weave/internal/ether"
	"weave/internal/hostnet"
	"weave/internal/peer"
	"weave/internal/store"
	"weave/mesh"
	"weave/mesh/gossip"
	"weave/mesh/overlay"
)

// daemon is everything that runs, built once by Run.
type daemon struct {
	cfg     *Config
	log     *slog.Logger
	pid     int
	started time.Time
	stop    context.CancelFunc

	encrypted bool                  // a password was given
	psk       func() *handshake.PSK // of it; waits until it is made

	*dataplane
	store    *store.Store
	router   *mesh.Router
	kernel   *kernelPaths
	paths    *pathLog
	hostside *hostside
	features map[string]string
	uid      peer.UID     // of this run
	addrs    *addresses   // set once by openServices
	names    *names       // the same
	targets  atomic.Int64 // that are other hosts

	view         atomic.Pointer[mesh.View]
	ready        bool        // the start has succeeded
	forgetOnExit atomic.Bool // reset: undo everything once all has stopped
}

// Run is a daemon's life. It returns nil after Stop or when ctx ends, and an error
// with an api code when the daemon cannot start or cannot go on. All it opened is
// closed then; the bridge and the containers stay, unless a reset was asked for.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.fill(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	encrypted := cfg.Password != nil
	d := &daemon{cfg: &cfg, log: cfg.Log, pid: os.Getpid(), started: time.Now(), stop: stop, encrypted: encrypted, uid: peer.NewUID()}
	err := d.run(ctx)
	if d.forgetOnExit.Load() {
		err = errors.Join(err, Undo(cfg.Bridge), store.Remove(cfg.StateDir))
	}
	return coded(err)
}

func (d *daemon) run(ctx context.Context) (err error) {
	var undo cleanup
	defer undo.run()

	d.psk = d.stretch() // takes longer than all else
	undo.add(func() { d.psk() })
	if d.store, err = store.Open(d.cfg.StateDir, d.log); err != nil {
		return err
	}
	undo.add(func() { d.store.Close() })
	name, static, err := d.identify()
	if err != nil {
		return err
	}
	host, err := hostnet.Open()
	if err != nil {
		return err
	}
	undo.add(func() { host.Close() })
	if err := d.checkRange(host); err != nil {
		return err
	}

	bridgeMAC := hostnet.BridgeMAC(name)
	steer := newSteering(host.FDB(d.cfg.Bridge), name, bridgeMAC, d.log.With("part", "bridge"))
	if d.dataplane, err = openDataplane(d.cfg, name, steer.onMAC); err != nil {
		return err
	}
	undo.add(d.dataplane.close)
	undo.add(reserveProcs(2 * d.cfg.Lanes)) // one that sends and one that receives
	steer.sw = d.sw
	d.hostside = &hostside{
		host: host, tap: d.tap.Name(), steer: steer, log: steer.log, joined: make(chan struct{}, 1), grown: make(chan struct{}, 1),
		bridge: hostnet.BridgeConfig{Name: d.cfg.Bridge, MTU: d.cfg.MTU, MAC: bridgeMAC},
	}
	undo.add(func() {
		if !d.ready {
			d.hostside.undo()
		}
	})
	if err := d.hostside.ensure(); err != nil {
		return err
	}
	trial, err := loadTrial(d.store, d.log.With("part", "fastdp"), d.cfg.Version+" on "+kernelRelease(), d.cfg.asksKernel(), time.Now)
	if err != nil {
		return err
	}
	undo.add(func() { trial.end(false) })
	if d.kernel, err = openKernel(d.cfg, name, trial, steer, d.vouched); err != nil {
		return err
	}
	undo.add(d.kernel.close)
	steer.setKernel(d.kernel)
	d.paths = &pathLog{log: d.log.With("part", "paths")}
	d.features = d.probe()
	channels, err := d.openServices(ctx, name, &undo)
	if err != nil {
		return err
	}
	if d.router, err = d.newRouter(name, static, channels); err != nil {
		return err
	}
	return d.serve(ctx, name)
}

// serve runs all parts until one fails or ctx ends.
func (d *daemon) serve(ctx context.Context, name peer.Name) error {
	control, err := api.ListenControl(d.cfg.RunDir)
	if err != nil {
		return err
	}
	defer control.Close()
	var status net.Listener
	if d.cfg.StatusAddr != "" {
		if status, err = api.ListenStatus(d.cfg.StatusAddr); err != nil {
			return err
		}
		defer status.Close()
	}
	server := api.NewServer(api.ServerConfig{Backend: d, Metrics: newMetrics(d).handler(), Log: d.log.With("part", "api")})
	g, ctx := errgroup.WithContext(ctx)
	// The mesh goes first at the end, so that peers hear of it while we still send.
	data, stopData := context.WithCancel(context.WithoutCancel(ctx))
	meshCtx, stopMesh := context.WithCancel(context.WithoutCancel(ctx))
	defer stopMesh()
	defer context.AfterFunc(ctx, func() {
		// The kernel goes on with what it does while we are away.
		d.hostside.steer.stopped.Store(true)
		d.kernel.closing()
		stopMesh()
	})()
	g.Go(func() error {
		defer stopData()
		return d.router.Run(meshCtx)
	})
	g.Go(func() error { return d.kernel.run(data) })
	g.Go(func() error { return d.hostside.steer.run(ctx) })
	g.Go(func() error { return d.ov.Run(data) })
	g.Go(func() error { return d.sw.Run(data) })
	g.Go(func() error { return d.hostside.steer.watch(ctx) })
	g.Go(func() error { return d.hostside.repair(ctx) })
	g.Go(func() error { return d.hostside.announce(ctx) })
	g.Go(func() error { return d.hostside.ask(ctx, d.sw.Asked) })
	g.Go(func() error { return d.watchMinPath(ctx) })
	g.Go(func() error { return d.hostside.untrack(ctx, d.kernel.clear.port) })
	d.serveAddresses(ctx, g)
	g.Go(func() error { return server.RunControl(ctx, control) })
	if status != nil {
		g.Go(func() error { return server.RunStatus(ctx, status) })
	}
	if d.router.Status().Port == 0 { // it could not listen
		return g.Wait()
	}
	d.ready = true
	d.log.Info("ready", "name", name, "nickname", d.cfg.NickName, "port", d.cfg.Port,
		"encryption", d.encrypted, "lanes", d.cfg.Lanes, "mtu", d.cfg.MTU, "version", d.cfg.Version)
	if d.cfg.Ready != nil {
		d.cfg.Ready(name)
	}
	if err = g.Wait(); err != nil {
		d.log.Error("stopped", "err", err)
	} else {
		d.log.Info("stopped")
	}
	return err
}

// identify finds out who this peer is, and makes its key at the first launch.
func (d *daemon) identify() (peer.Name, *handshake.StaticKey, error) {
	id, err := d.store.Identify(d.cfg.Name, d.cfg.HostRoot)
	if err != nil {
		return peer.Name{}, nil, err
	}
	if id.HostChanged {
		d.log.Warn("the host's ids changed since the last run: if this disk was copied, run weave reset on the copy")
	}
	raw, err := d.store.StaticKey()
	if err != nil {
		return peer.Name{}, nil, err
	}
	if raw != nil {
		key, err := handshake.ParseStaticKey(raw)
		return id.Name, key, err
	}
	key, err := handshake.NewStaticKey(rand.Reader)
	if err != nil {
		return peer.Name{}, nil, err
	}
	return id.Name, key, d.store.SetStaticKey(key.AppendPrivate(nil))
}

func (d *daemon) newRouter(name peer.Name, static *handshake.StaticKey, channels []gossip.Open) (*mesh.Router, error) {
	targets := d.cfg.Peers
	if d.cfg.Resume {
		stored, err := d.store.Targets()
		if err != nil {
			return nil, err
		}
		targets = stored
	} else if err := d.store.SetTargets(targets); err != nil {
		return nil, err
	}
	ciphers, err := d.cfg.ciphers()
	if err != nil {
		return nil, err
	}
	d.targets.Store(int64(len(targets)))
	return mesh.New(mesh.Config{
		Name: name, NickName: d.cfg.NickName, UID: d.uid, Version: d.cfg.Version, Channels: channels,
		Static: static, PSK: d.psk(),
		Host: d.cfg.Host, Port: d.cfg.Port, Targets: targets,
		Overlays: d.overlays(), Ciphers: ciphers, Lanes: d.cfg.Lanes,
		Trusted: d.cfg.Trusted, ConnLimit: d.cfg.ConnLimit, Discovery: !d.cfg.NoDiscovery,
		Pins: pins{d.store, d.log}, OnChange: d.onChange, Log: d.log.With("part", "mesh"),
	})
}

// overlays are the paths there are, best first.
func (d *daemon) overlays() []overlay.Overlay {
	return append(d.kernel.offered(), d.ov)
}

// vouched takes a peer's word for where MACs are.
func (d *daemon) vouched(from peer.Name, macs []ether.MAC) {
	for _, m := range macs {
		d.sw.Vouched(m, from)
	}
}

// stretch begins to make the network's key of the password, and forgets that. What it
// returns waits for the key; nil: there is no password.
func (d *daemon) stretch() (psk func() *handshake.PSK) {
	if d.cfg.Password == nil {
		return func() *handshake.PSK { return nil }
	}
	made := make(chan *handshake.PSK, 1)
	go func() {
		psk := handshake.PSKFromPassword(d.cfg.Password)
		clear(d.cfg.Password)
		debug.FreeOSMemory() // Argon2id's 64 MiB
		made <- psk
	}()
	return sync.OnceValue(func() *handshake.PSK { return <-made })
}

// onChange is called on the mesh's goroutine.
func (d *daemon) onChange(v mesh.View) {
	old := d.view.Swap(&v)
	d.setView(v, d.log)
	d.hostside.steer.setView(v)
	d.paths.follow(*old, v)
	if len(old.Links) == 0 && len(v.Links) > 0 {
		wake(d.hostside.joined)
	}
	for name := range v.Routes.Unicast {
		if _, before := old.Routes.Unicast[name]; !before {
			wake(d.hostside.grown)
			break
		}
	}
	for name := range old.Peers {
		if _, still := v.Peers[name]; !still {
			d.sw.ForgetPeer(name)
		}
	}
}

// probe says what the kernel can do, and what is used where it cannot.
func (d *daemon) probe() map[string]string {
	f := d.tap.Features()
	return map[string]string{
		"tap":    fmt.Sprint(f),
		"udp":    d.net.Offloads(),
		"fastdp": d.kernel.clear.describe("a connection may be in clear"),
		"cage":   d.kernel.sealed.describe("a connection must be encrypted"),
	}
}

func (d *daemon) overlayDrops() map[string]uint64 { return d.ov.Counters().Drops }

func (d *daemon) tapDrops() map[string]uint64 {
	sum := map[string]uint64{}
	for q := range d.tap.Queues() {
		for reason, n := range d.tap.Queue(q).Counters().Drops {
			sum[reason] += n
		}
	}
	return sum
}

// kernelRelease is what uname -r says.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "?"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// pins keeps the mesh's memory of peers' keys in the store.
type pins struct {
	store *store.Store
	log   *slog.Logger
}

// Pin returns the key a name had.
func (p pins) Pin(n peer.Name) (handshake.PublicKey, bool) {
	b, ok, err := p.store.Pin(n)
	if err != nil {
		p.log.Error("reading a peer's key", "peer", n, "err", err)
	}
	return handshake.PublicKeyFromBytes(b), ok && err == nil
}

// SetPin remembers the key a name has.
func (p pins) SetPin(n peer.Name, k handshake.PublicKey) {
	if err := p.store.SetPin(n, k.Bytes()); err != nil {
		p.log.Error("remembering a peer's key", "peer", n, "err", err)
	}
}

// cleanup undoes steps in reverse.
type cleanup struct{ steps []func() }

func (c *cleanup) add(f func()) { c.steps = append(c.steps, f) }

func (c *cleanup) run() {
	for len(c.steps) > 0 {
		last := len(c.steps) - 1
		c.steps[last]()
		c.steps = c.steps[:last]
	}
}
