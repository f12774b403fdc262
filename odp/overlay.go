package odp

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"weave/crypto/policy"
	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/odp/proof"
)

// Names of paths in offers. Status says Name for both, and whether it is encrypted.
const (
	Name       = "fastdp"
	SealedName = "cage"
)

// LingerTime is how long the kernel goes on carrying frames to a peer whose
// connection ended while the path was up: that was an end of the peer's daemon rather
// than of its host, whose kernel goes on too. A peer that can be reached in another way
// gets frames for no longer than LingerShort.
const (
	LingerTime  = 10 * time.Second
	LingerShort = 1750 * time.Millisecond
	lingerLook  = 500 * time.Millisecond
)

// vouchEvery is how often a peer is told again of the MACs that are here: well below
// the time after which a switch forgets one.
const vouchEvery = time.Minute

// ErrClosed is returned by Prepare when Run is over.
var ErrClosed = errors.New("odp: closed")

// Config of an Overlay.
type Config struct {
	Backend Backend
	Local   peer.Name
	MTU     int    // of the overlay: what heartbeats prove
	Port    uint16 // UDP port that the backend receives on
	VNI     uint32
	Timing  proof.Timing
	Log     *slog.Logger

	// Sealed says that the Backend encrypts: the path is for connections whose data
	// must be, and has another name. OfferData is what peers' Backends are to know of
	// ours, for instance a public key; at most 64 bytes.
	Sealed    bool
	OfferData []byte
	// Wanted says that a sealed path is better than user space whatever the ciphers
	// are. Without it, at both ends, it is used where user space has no AES.
	Wanted bool

	// Begin is called before the Backend first has a peer, once; it may take as long as
	// a write to disk. nil: nobody wants to know.
	Begin func()
	// Vouched is told of MACs that a peer says are on its bridge; it does not block.
	Vouched func(from peer.Name, macs []ether.MAC)
	// Relayed reports whether others relay frames to a peer that has no connection with
	// us; it does not block. nil: they never do.
	Relayed func(peer.Name) bool
	// Changed is told that what Lingers, or the backend's ports, say may have
	// changed; it does not block.
	Changed func()
}

// Overlay makes the links of the kernel path. It implements overlay.Overlay, and
// Sink for its Backend.
type Overlay struct {
	cfg Config
	be  Backend
	log *slog.Logger

	begin sync.Once

	mu     sync.Mutex
	links  map[peer.Name]*Link
	probes map[ether.MAC]*Link // by the source of its heartbeats
	linger map[peer.Name]*lingering
	macs   []ether.MAC // on our bridge; immutable
	closed bool
}

// lingering is the time after a connection in which the kernel goes on.
type lingering struct {
	timer *time.Timer
	end   time.Time
}

var _ overlay.Overlay = (*Overlay)(nil)

// New makes an Overlay. Links may be prepared at once; they hear nothing before Run.
func New(cfg Config) (*Overlay, error) {
	if cfg.Backend == nil || cfg.Local.IsZero() || cfg.Log == nil || cfg.MTU < 68 || cfg.Vouched == nil || cfg.Changed == nil {
		return nil, errors.New("odp: incomplete configuration")
	}
	return &Overlay{
		cfg: cfg, be: cfg.Backend, log: cfg.Log,
		links: map[peer.Name]*Link{}, probes: map[ether.MAC]*Link{}, linger: map[peer.Name]*lingering{},
	}, nil
}

// Name returns [Name] or [SealedName].
func (o *Overlay) Name() string {
	if o.cfg.Sealed {
		return SealedName
	}
	return Name
}

// fixedOffer is the length of a sealed path's offer before Config.OfferData; the last
// byte of it is 1 if the path is wanted.
const fixedOffer = 7

// Offer has our port, and what the doc of the package draws.
func (o *Overlay) Offer() overlay.Path {
	d := []byte{version, byte(o.cfg.VNI >> 16), byte(o.cfg.VNI >> 8), byte(o.cfg.VNI)}
	d = binary.BigEndian.AppendUint16(d, uint16(o.cfg.MTU))
	if o.cfg.Sealed {
		wanted := byte(0)
		if o.cfg.Wanted {
			wanted = 1
		}
		d = append(append(d, wanted), o.cfg.OfferData...)
	}
	return overlay.Path{Name: o.Name(), Port: o.cfg.Port, Data: d}
}

// refuse says why a connection cannot have this path, or nil.
func (o *Overlay) refuse(p *overlay.Params) error {
	switch {
	case !o.cfg.Sealed && !p.Permit.Clear():
		return &ReasonError{Why: ReasonPolicy, Err: policy.ErrEncryptedOnly}
	case !o.cfg.Sealed:
		return nil
	case p.Permit.Clear():
		return &ReasonError{Why: ReasonClear}
	case len(p.Offer.Data) < fixedOffer || p.Offer.Data[0] != version:
		return &ReasonError{Why: ReasonVersion}
	case !o.cfg.Wanted && p.Offer.Data[fixedOffer-1] != 1 && p.Agreement.Cipher != session.CipherChaCha:
		return &ReasonError{Why: ReasonCipher}
	}
	return nil
}

func (o *Overlay) probeMACs(n peer.Name) []ether.MAC {
	if o.cfg.Sealed {
		return []ether.MAC{SealedProbeMAC(n)}
	}
	return []ether.MAC{ProbeMAC(n, false), ProbeMAC(n, true)}
}

// Prepare makes the link of a control connection. Without a permit for clear data it
// fails with policy.ErrEncryptedOnly unless the path is sealed, and ends what the
// kernel still did for that peer. An error has a Reason.
func (o *Overlay) Prepare(p overlay.Params) (overlay.Link, error) {
	if err := o.refuse(&p); err != nil {
		o.dropLinger(p.Remote)
		return nil, err
	}
	if p.Remote.IsZero() || p.Send == nil || p.Notify == nil || !p.RemoteAddr.IsValid() {
		return nil, errors.New("odp: incomplete parameters")
	}
	l := newLink(o, p)
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil, ErrClosed
	}
	old := o.links[p.Remote]
	o.links[p.Remote] = l
	for _, m := range o.probeMACs(p.Remote) {
		o.probes[m] = l
	}
	o.mu.Unlock()
	if old != nil { // the mesh closes it, but may not have yet
		old.Close()
	}
	if o.cfg.Begin != nil {
		o.begin.Do(o.cfg.Begin)
	}
	o.be.AddPeer(l.peer())
	go l.run()
	return l, nil
}

// closedLink is called once by a link that ends.
func (o *Overlay) closedLink(l *Link, wasUp bool) {
	name := l.p.Remote
	o.mu.Lock()
	current := o.links[name] == l
	if current {
		delete(o.links, name)
		for _, m := range o.probeMACs(name) {
			delete(o.probes, m)
		}
	}
	// When we stop ourselves the kernel keeps all it has: the next run finds it.
	if current && wasUp && !o.closed {
		if before := o.linger[name]; before != nil {
			before.timer.Stop()
		}
		o.linger[name] = &lingering{time.AfterFunc(LingerShort, func() { o.endLinger(name) }), time.Now().Add(LingerTime)}
	}
	keep := !current || wasUp || o.closed || o.linger[name] != nil
	o.mu.Unlock()
	if !keep {
		o.be.RemovePeer(name)
	}
}

// endLinger ends the time of a path whose connection has not come back, if it is over.
func (o *Overlay) endLinger(name peer.Name) {
	o.mu.Lock()
	l, was := o.linger[name]
	// A new link stands for a connection that has no path at first.
	relayed := o.links[name] == nil && o.cfg.Relayed != nil && o.cfg.Relayed(name)
	if was && !o.closed && time.Now().Before(l.end) && !relayed {
		l.timer.Reset(lingerLook)
		o.mu.Unlock()
		return
	}
	delete(o.linger, name)
	gone := was && o.links[name] == nil && !o.closed
	o.mu.Unlock()
	if !was {
		return
	}
	if gone {
		o.log.Info("kernel path given up", "peer", name, "reason", ReasonClosed)
	}
	o.cfg.Changed() // first the bridge's entries go, which is up to others
	if gone {
		time.AfterFunc(100*time.Millisecond, func() {
			o.mu.Lock()
			gone := o.links[name] == nil && o.linger[name] == nil && !o.closed
			o.mu.Unlock()
			if gone {
				o.be.RemovePeer(name)
			}
		})
	}
}

// dropLinger ends all for a peer at once.
func (o *Overlay) dropLinger(name peer.Name) {
	o.mu.Lock()
	l := o.linger[name]
	delete(o.linger, name)
	gone := o.links[name] == nil
	o.mu.Unlock()
	if l != nil {
		l.timer.Stop()
	}
	if gone {
		o.be.RemovePeer(name)
		o.cfg.Changed()
	}
}

// Lingers reports whether the kernel goes on carrying frames to a peer that has no
// connection.
func (o *Overlay) Lingers(name peer.Name) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.linger[name] != nil
}

// Adopted returns the MACs that lead to peers by entries of an earlier run which
// nobody asked for yet.
func (o *Overlay) Adopted() map[ether.MAC]netip.Addr { return o.be.Adopted() }

// Backend returns the one given to New.
func (o *Overlay) Backend() Backend { return o.be }

// SetLocalMACs says which MACs are on our bridge; peers are told of new ones at once.
// The caller does not change macs afterwards.
func (o *Overlay) SetLocalMACs(macs []ether.MAC) {
	o.mu.Lock()
	o.macs = macs
	links := maps.Clone(o.links)
	o.mu.Unlock()
	for _, l := range links {
		l.wake()
	}
}

func (o *Overlay) localMACs() []ether.MAC {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.macs
}

// Probe implements Sink.
func (o *Overlay) Probe(frame []byte) {
	if len(frame) < proof.MinLen {
		return
	}
	o.mu.Lock()
	l := o.probes[ether.MAC(frame[6:12])]
	o.mu.Unlock()
	if l != nil {
		l.heard(frame)
	}
}

// Changed implements Sink.
func (o *Overlay) Changed() { o.cfg.Changed() }

// Run runs the backend until ctx ends, then closes all links. What the kernel does
// stays: it goes on between two runs of a daemon.
func (o *Overlay) Run(ctx context.Context) error {
	err := o.be.Run(ctx, o)
	o.mu.Lock()
	o.closed = true
	for _, l := range o.linger {
		l.timer.Stop()
	}
	links := maps.Clone(o.links)
	o.mu.Unlock()
	for _, l := range links {
		l.Close()
	}
	return err
}

// Closing makes links that end from now on leave the kernel as it is. It is to be
// called before the mesh closes its connections because the daemon stops.
func (o *Overlay) Closing() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}
