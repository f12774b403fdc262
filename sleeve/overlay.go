package sleeve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"weave/crypto/session"
	"weave/internal/ether"
	"weave/internal/peer"
	"weave/mesh/overlay"
	"weave/sleeve/udp"
)

// Name is the overlay's name in offers and status.
const Name = "sleeve"

// DefaultMTU is the MTU of the overlay network if nothing else is asked for: it
// fits every underlay with an MTU of 1458 and more.
const DefaultMTU = 1376

// ErrClosed is returned by Prepare when Run is over.
var ErrClosed = errors.New("sleeve: closed")

// ErrLanes is returned by New when there are more sockets than lanes.
var ErrLanes = errors.New("sleeve: more sockets than lanes")

// Receiver takes the frames that peers send; package forward's Switch is one.
type Receiver interface {
	// Receive takes a frame of rt.Origin, to be put on rt.Dest's bridge, that the
	// peer from sent to us. bufs concatenated are the frame; the first piece holds
	// at least all of the header when the frame has segments (off.GSO), else at
	// least the Ethernet header. They are valid, and may be written to, until it
	// returns. It is called by RX worker lane, below Config.Lanes, on that worker's
	// thread.
	Receive(lane int, from peer.Name, rt peer.Route, off ether.Offload, bufs [][]byte)
}

// Config of an Overlay.
type Config struct {
	Network  Network
	Receiver Receiver
	Log      *slog.Logger

	// Lanes is the number of TX workers that call Send, and of lanes the Receiver
	// has room for: at most overlay.MaxLanes, and at least Network.Lanes, or two RX
	// workers would have to share one. 0: one per socket.
	Lanes int
	MTU   int // of the overlay network; 0: DefaultMTU

	// TooBig, if not nil, is told of a frame that fits no datagram and that nobody
	// may cut: its packet is larger than mtu. The frame is gone; it may be written
	// to and is valid until TooBig returns. It is called by the worker that sends.
	TooBig func(lane int, rt peer.Route, frame []byte, mtu int)

	RekeyAfter, RejectAfter time.Duration // of session.ExchangeConfig
}

// Overlay carries frames over the UDP sockets of one host. It implements
// overlay.Overlay.
type Overlay struct {
	net     Network
	log     *slog.Logger
	cfg     Config
	lanes   []txLane // each owned by the TX worker of its number
	relays  []txLane // each owned by the RX worker of its number
	workers []*rxWorker
	table   atomic.Pointer[map[uint32]*rxEntry] // immutable, by receiver index

	control beatSender

	mu     sync.Mutex
	index  map[uint32]bool // receiver indices given out
	links  map[*Link]struct{}
	past   overlay.Counters // of links that are gone
	closed bool
}

var _ overlay.Overlay = (*Overlay)(nil)

// New makes an Overlay. Links may be prepared at once; they hear nothing before Run.
func New(cfg Config) (*Overlay, error) {
	if cfg.Network == nil || cfg.Receiver == nil || cfg.Log == nil {
		return nil, errors.New("sleeve: incomplete configuration")
	}
	if cfg.MTU == 0 {
		cfg.MTU = DefaultMTU
	}
	n := cfg.Network.Lanes()
	if cfg.Lanes == 0 {
		cfg.Lanes = n
	}
	if n < 1 || n > overlay.MaxLanes || cfg.Lanes < 1 || cfg.Lanes > overlay.MaxLanes || cfg.MTU < 68 || cfg.MTU > largestMTU {
		return nil, fmt.Errorf("sleeve: %d sockets, %d lanes, mtu %d: out of range", n, cfg.Lanes, cfg.MTU)
	}
	if n > cfg.Lanes {
		return nil, fmt.Errorf("%d sockets, %d lanes: %w", n, cfg.Lanes, ErrLanes)
	}
	o := &Overlay{
		net:   cfg.Network,
		log:   cfg.Log,
		cfg:   cfg,
		index: map[uint32]bool{0: true}, // never given out
		links: map[*Link]struct{}{},
		past:  overlay.Counters{Drops: map[string]uint64{}},
	}
	o.table.Store(&map[uint32]*rxEntry{})
	o.control.out = cfg.Network.NewSender(0)
	o.lanes = make([]txLane, cfg.Lanes)
	for q := range o.lanes {
		o.initLane(&o.lanes[q], q, q, session.Lane(q), cfg.Network.NewSender(q%n))
	}
	o.relays = make([]txLane, n)
	for l := range o.relays {
		o.initLane(&o.relays[l], cfg.Lanes+l, l, session.RelayLane0+session.Lane(l), cfg.Network.NewSender(l))
		o.workers = append(o.workers, newRxWorker(o, l, cfg.Network.Socket(l), cfg.Receiver))
	}
	return o, nil
}

func (o *Overlay) initLane(t *txLane, slot, worker int, lane session.Lane, out Sender) {
	t.lane, t.slot, t.out = lane, slot, out
	t.arena = make([]byte, 0, arenaLen)
	if hook := o.cfg.TooBig; hook != nil {
		t.hook = func(rt peer.Route, frame []byte, mtu int) { hook(worker, rt, frame, mtu) }
	}
}

// Owner returns which of n sockets a lane belongs to: that of the same number, for
// relayed frames as for others, and the first for control messages.
func Owner(lane session.Lane, n int) int {
	if lane == session.LaneControl {
		return 0
	}
	return int(lane) % int(session.RelayLane0) % n
}

func (o *Overlay) ownerOf(lane session.Lane) int { return Owner(lane, len(o.workers)) }

// Run receives until ctx ends, then closes all links. It returns when all workers
// are gone.
func (o *Overlay) Run(ctx context.Context) error {
	var stop atomic.Bool
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range o.workers {
		cancel := context.AfterFunc(ctx, func() {
			stop.Store(true)
			w.sock.Wake()
		})
		defer cancel()
		g.Go(func() error {
			if err := w.loop(&stop); err != nil {
				return fmt.Errorf("receiving on socket %d: %w", w.id, err)
			}
			return nil
		})
	}
	err := g.Wait()
	o.mu.Lock()
	o.closed = true
	links := maps.Clone(o.links)
	o.mu.Unlock()
	for l := range links {
		l.Close()
	}
	return err
}

// Flush sends what Link.Send has queued on a lane. Its worker calls it at the end
// of each batch.
func (o *Overlay) Flush(lane int) { o.lanes[lane].flush() }

// Name returns [Name].
func (o *Overlay) Name() string { return Name }

// Offer has our UDP port.
func (o *Overlay) Offer() overlay.Path { return overlay.Path{Name: Name, Port: o.net.Port()} }

// Prepare makes the link of a control connection. It fails, with
// policy.ErrEncryptedOnly, when no cipher is agreed and the permit does not allow clear data.
func (o *Overlay) Prepare(p overlay.Params) (overlay.Link, error) {
	l, err := o.prepare(p)
	if err != nil {
		return nil, err // not a nil *Link in an interface
	}
	return l, nil
}

func (o *Overlay) prepare(p overlay.Params) (*Link, error) {
	if p.Local.IsZero() || p.Remote.IsZero() || p.Send == nil || p.Notify == nil {
		return nil, errors.New("sleeve: incomplete parameters")
	}
	ep, err := udp.NewEndpoint(p.RemoteAddr, netip.Addr{})
	if err != nil {
		return nil, fmt.Errorf("preparing link: %w", err)
	}
	ex, err := session.NewExchange(session.ExchangeConfig{
		Initiator:   p.Initiator,
		Secret:      p.Secret,
		Cipher:      p.Agreement.Cipher,
		Permit:      p.Permit,
		Lanes:       allLanes(),
		NewIndex:    o.newIndex,
		RekeyAfter:  o.cfg.RekeyAfter,
		RejectAfter: o.cfg.RejectAfter,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing link: %w", err)
	}
	p.Secret = session.Secret{} // the exchange has it
	l := newLink(o, p, ep)
	r := newLinkRun(l, ex, time.Now())
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, ErrClosed
	}
	o.links[l] = struct{}{}
	go r.loop()
	return l, nil
}

func (o *Overlay) forget(l *Link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.links, l)
	addCounters(&o.past, l.counters())
}

// Drops counts the datagrams that belonged to no link, by reason; those of a link
// are in its Status.
func (o *Overlay) Drops() map[string]uint64 {
	m := map[string]uint64{}
	for _, w := range o.workers {
		w.drops.addTo(m)
	}
	return m
}

// Counters sums over all links there are and were, and over datagrams that belonged
// to none. They never go down.
func (o *Overlay) Counters() overlay.Counters {
	sum := overlay.Counters{Drops: o.Drops()}
	o.mu.Lock()
	defer o.mu.Unlock()
	addCounters(&sum, o.past)
	for l := range o.links {
		addCounters(&sum, l.counters())
	}
	return sum
}

func addCounters(to *overlay.Counters, c overlay.Counters) {
	to.TxFrames += c.TxFrames
	to.TxBytes += c.TxBytes
	to.TxDatagrams += c.TxDatagrams
	to.RxFrames += c.RxFrames
	to.RxBytes += c.RxBytes
	to.RxDatagrams += c.RxDatagrams
	for r, n := range c.Drops {
		to.Drops[r] += n
	}
}
