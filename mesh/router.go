package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"weave/crypto/handshake"
	"weave/internal/peer"
	"weave/mesh/dial"
	"weave/mesh/overlay"
	"weave/mesh/topo"
	"weave/mesh/wire"
)

var (
	// ErrConfig reports a Config that New can't use.
	ErrConfig = errors.New("mesh: bad configuration")
	// ErrStopped is returned by methods after Run has returned.
	ErrStopped = errors.New("mesh: router is stopped")
)

// Router is this peer's part of the mesh.
type Router struct {
	// Set once by New.
	cfg        Config
	log        *slog.Logger
	offer      overlay.Offer
	offerBytes []byte
	sign       ed25519.PrivateKey                       // of topology records
	verify     func(key topo.Key, msg, sig []byte) bool // nil: as topo does
	channels   []*channel                               // the topology's first
	ways       ways

	calls   chan func(*loop) // executed by the loop in order; senders block
	mail    mailbox          // the same for those who must not block
	quit    chan struct{}    // closed by the loop when it takes no more calls
	running atomic.Bool
	port    atomic.Uint32 // that we listen on
}

// New checks cfg and makes a Router. Nothing is opened before Run.
func New(cfg Config) (*Router, error) {
	if cfg.Name.IsZero() || cfg.Static == nil || cfg.ConnLimit < 0 {
		return nil, fmt.Errorf("name, static key or connection limit: %w", ErrConfig)
	}
	if cfg.UID == 0 {
		cfg.UID = peer.NewUID()
	}
	if cfg.Port == 0 {
		cfg.Port = DefaultPort
	}
	if cfg.Net == nil {
		cfg.Net = SystemNet()
	}
	if cfg.Pins == nil {
		cfg.Pins = memoryPins{}
	}
	if cfg.OnChange == nil {
		cfg.OnChange = func(View) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	offer := overlay.Offer{Ciphers: cfg.Ciphers, Lanes: max(1, min(cfg.Lanes, overlay.MaxLanes))}
	for _, o := range cfg.Overlays {
		offer.Paths = append(offer.Paths, o.Offer())
	}
	b, err := wire.EncodeOffer(offer)
	if err != nil {
		return nil, fmt.Errorf("offer: %w: %w", ErrConfig, err)
	}
	for _, t := range cfg.Targets {
		if _, _, err := dial.ParseTarget(t); err != nil {
			return nil, fmt.Errorf("target: %w: %w", ErrConfig, err)
		}
	}
	sign, err := signKey(cfg.Static)
	if err != nil {
		return nil, fmt.Errorf("key of topology records: %w", err)
	}
	r := &Router{
		cfg: cfg, log: cfg.Log, offer: offer, offerBytes: b, sign: sign,
		calls: make(chan func(*loop)), quit: make(chan struct{}),
		mail: mailbox{wake: make(chan struct{}, 1)},
	}
	return r, r.openChannels()
}

// Run listens, dials and serves connections until ctx ends; then it tells the
// peers, closes all links and returns nil. Other errors: the port can't be
// listened on. Its goroutines are gone when it returns. It can be called once.
func (r *Router) Run(ctx context.Context) error {
	if r.running.Swap(true) {
		return fmt.Errorf("second Run: %w", ErrConfig)
	}
	lis, err := r.cfg.Net.Listen(ctx, netip.AddrPortFrom(r.cfg.Host, r.cfg.Port))
	if err != nil {
		close(r.quit)
		return fmt.Errorf("listening for peers on port %d: %w", r.cfg.Port, err)
	}
	r.port.Store(uint32(addrPort(lis.Addr()).Port()))
	newLoop(r).run(ctx, lis)
	return nil
}

// Connect adds targets, or with replace makes them the only ones, and dials all
// that are given at once, also those that had been given up. Connections stay. Bad
// targets are named in the error and the others taken nevertheless, but a list
// with a bad target replaces nothing. It blocks until Run is running.
func (r *Router) Connect(targets []string, replace bool) error {
	err := ErrStopped
	r.wait(func(l *loop) { err = l.maker.Connect(time.Now(), targets, replace) })
	return err
}

// Forget removes targets; those that are none are ignored. Connections stay until
// they break, and are not made again from this end. It blocks like Connect.
func (r *Router) Forget(targets []string) error {
	err := ErrStopped
	r.wait(func(l *loop) { l.maker.Forget(targets); err = nil })
	return err
}

// Targets returns the current targets as given, in order of text; nil after Run
// has returned. It blocks like Connect.
func (r *Router) Targets() (out []string) {
	r.wait(func(l *loop) { out = l.maker.Targets() })
	return out
}

// Status returns a copy of the router's state, the zero Status after Run has
// returned. It blocks like Connect.
func (r *Router) Status() (out Status) {
	var peers func() []PeerStatus // off the loop: there may be many
	r.wait(func(l *loop) { out, peers = l.status(), l.peerStatuses() })
	if peers != nil {
		out.Peers = peers()
	}
	return out
}

// call hands f to the loop, in order with the caller's other calls, or drops it
// when the loop has stopped.
func (r *Router) call(f func(*loop)) bool {
	select {
	case r.calls <- f:
		return true
	case <-r.quit:
		return false
	}
}

// wait is call, and returns when f was executed.
func (r *Router) wait(f func(*loop)) {
	done := make(chan struct{})
	if r.call(func(l *loop) { f(l); close(done) }) {
		<-done
	}
}

// hello is what we say of ourselves, with a connection ID of its own.
func (r *Router) hello() wire.Hello {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return wire.Hello{
		Name: r.cfg.Name, NickName: r.cfg.NickName, UID: r.cfg.UID, Version: r.cfg.Version,
		Port: uint16(r.port.Load()), ConnID: binary.BigEndian.Uint64(b[:]),
		Caps: map[wire.Cap][]byte{wire.CapSignKey: r.sign.Public().(ed25519.PublicKey)},
	}
}

// memoryPins are pins for as long as the Router lives.
type memoryPins map[peer.Name]handshake.PublicKey

func (m memoryPins) Pin(n peer.Name) (handshake.PublicKey, bool) { k, ok := m[n]; return k, ok }

func (m memoryPins) SetPin(n peer.Name, k handshake.PublicKey) { m[n] = k }
