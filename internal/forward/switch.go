package forward

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"weave/internal/ether"
	"weave/internal/peer"
	"weave/internal/rawio"
)

// Port is one queue of the TAP device. Read and FD belong to the queue's TX
// worker, Write to the RX worker of the same number. Read never blocks and
// returns rawio.ErrWouldBlock when the queue is empty.
type Port interface {
	Read(*ether.Superframe) error
	Writer
	FD() int
}

// Writer puts a frame, in pieces, on the bridge. It has one user.
type Writer interface {
	Write(ether.Offload, [][]byte) error
}

// MACEvent says that a MAC address was found to live at Owner; with the zero
// Owner, that it was forgotten; with the zero MAC too, that all are to be
// forgotten because events were lost: those still known follow.
type MACEvent struct {
	MAC   ether.MAC
	Owner peer.Name
}

// Config of a Switch. All fields but OnMAC are required.
type Config struct {
	Local peer.Name
	Ports []Port         // port q is TX worker q's and RX worker q's
	Back  []Writer       // one more writing side per port, for answers of its TX worker
	Flush func(lane int) // sends what Path.Send queued on a lane
	OnMAC func(MACEvent) // called from one goroutine, in order; may block
	Log   *slog.Logger
	Start time.Time // zero of the switch's clock
}

const (
	txBatch    = 64   // frames read before a flush
	eventQueue = 4096 // MAC events waiting for OnMAC
)

// Switch forwards frames between the bridge and the peers.
type Switch struct {
	cfg     Config
	log     *slog.Logger
	macs    *macTable
	snap    atomic.Pointer[Snapshot]
	routes  routing
	repeats repeats
	events  chan MACEvent
	lostEvs atomic.Uint64 // events that found the queue full
	asked   asked
	workers []worker
}

// routing is where Switch.snap comes from.
type routing struct {
	mu    sync.Mutex
	given *Snapshot     // by SetRoutes
	trees trees         // given.Parent as far as it is followed
	poke  chan struct{} // tells house that trees.due changed
}

// worker counts what one port's workers did; padded so that two do not share a
// cache line.
type worker struct {
	tx, rx         counters
	txBack, rxBack answer
	_              [64]byte
}

type counters struct {
	frames, bytes atomic.Uint64
	drops         [numReasons]atomic.Uint64
	writeErrors   atomic.Uint64
}

// New makes a Switch with no routes: everything stays local.
func New(cfg Config) (*Switch, error) {
	if cfg.Local.IsZero() || len(cfg.Ports) == 0 || len(cfg.Back) != len(cfg.Ports) || cfg.Flush == nil || cfg.Log == nil {
		return nil, errors.New("forward: incomplete configuration")
	}
	s := &Switch{
		cfg:     cfg,
		log:     cfg.Log,
		macs:    newMACTable(),
		repeats: repeats{seed: maphash.MakeSeed()},
		events:  make(chan MACEvent, eventQueue),
		workers: make([]worker, len(cfg.Ports)),
	}
	s.routes.poke = make(chan struct{}, 1)
	s.SetRoutes(&Snapshot{Local: cfg.Local})
	return s, nil
}

// SetRoutes makes the workers use snap from their next frame on, except that floods
// of an origin whose Parent is another than before are taken a quarter of a second
// later: see trees.
func (s *Switch) SetRoutes(snap *Snapshot) {
	r := &s.routes
	r.mu.Lock()
	defer r.mu.Unlock()
	r.given = snap
	s.followLocked()
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// follow lets parents settle whose time has come, and returns how long until it is
// to be called again; 0: never.
func (s *Switch) follow() time.Duration {
	r := &s.routes
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Since(s.cfg.Start)
	if r.trees.due > 0 && r.trees.due <= now {
		s.followLocked()
	}
	if r.trees.due == 0 {
		return 0
	}
	return max(r.trees.due-now, time.Millisecond)
}

func (s *Switch) followLocked() {
	use := *s.routes.given
	use.Parent = s.routes.trees.follow(use.Parent, time.Since(s.cfg.Start))
	s.snap.Store(&use)
}

// Run reads the ports until ctx ends; it returns when all workers are gone.
func (s *Switch) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.house(ctx) })
	for q := range s.cfg.Ports {
		p, err := rawio.NewPoller(s.cfg.Ports[q].FD())
		if err != nil {
			return fmt.Errorf("making poller of port %d: %w", q, err)
		}
		stop := context.AfterFunc(ctx, p.Wake)
		g.Go(func() error {
			defer p.Close()
			defer stop()
			return s.runPort(ctx, q, p)
		})
	}
	return g.Wait()
}

// runPort is TX worker q.
func (s *Switch) runPort(ctx context.Context, q int, p *rawio.Poller) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	port := s.cfg.Ports[q]
	sf := ether.NewSuperframe()
	spare := ether.NewSuperframe()
	for {
		err := s.drainPort(q, port, sf, spare)
		s.cfg.Flush(q)
		if err == nil {
			continue // a full batch: there may be more
		}
		if err != rawio.ErrWouldBlock {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("reading port %d: %w", q, err)
		}
		if _, err := p.Wait(-1); err != nil {
			return fmt.Errorf("waiting on port %d: %w", q, err)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// drainPort forwards up to txBatch frames. It returns nil after a full batch.
func (s *Switch) drainPort(q int, port Port, sf, spare *ether.Superframe) error {
	now := s.now()
	for range txBatch {
		if err := port.Read(sf); err != nil {
			return err
		}
		s.fromBridge(q, sf, spare, now)
	}
	return nil
}

func (s *Switch) fromBridge(q int, sf, spare *ether.Superframe, now int64) {
	c := &s.workers[q].tx
	frame := sf.Frame()
	if len(frame) < ether.HeaderLen {
		c.drops[DropShort].Add(1)
		return
	}
	c.frames.Add(1)
	c.bytes.Add(uint64(len(frame)))
	if s.circulates([][]byte{frame}, now) {
		c.drops[DropLoop].Add(1)
		return
	}
	v := s.Decide(Source{}, ether.MAC(frame[6:12]), ether.MAC(frame[0:6]), now)
	if v.Flood || v.Drop == DropNoPeers {
		s.asked.note(frame, time.Now())
	}
	if v.Drop != NotDropped {
		c.drops[v.Drop].Add(1)
		return
	}
	rt := peer.Route{Origin: s.cfg.Local, Dest: v.Dest}
	last := len(v.Hops) - 1
	for i := range v.Hops {
		if i == last {
			v.Hops[i].Path.Send(q, rt, sf)
			break
		}
		spare.CopyFrom(sf)
		v.Hops[i].Path.Send(q, rt, spare)
	}
	if b := &s.workers[q].txBack; b.pending {
		b.pending = false
		if err := s.cfg.Back[q].Write(ether.Offload{}, b.pieces()); err != nil {
			c.writeErrors.Add(1)
		}
	}
}

// Receive takes a frame in pieces from a neighbour: bufs concatenated are the
// frame, the first piece holds at least the Ethernet header. It is called by RX
// worker lane and is done with bufs when it returns.
func (s *Switch) Receive(lane int, neighbour peer.Name, rt peer.Route, off ether.Offload, bufs [][]byte) {
	lane %= len(s.workers)
	c := &s.workers[lane].rx
	if len(bufs) == 0 || len(bufs[0]) < ether.HeaderLen {
		c.drops[DropShort].Add(1)
		return
	}
	c.frames.Add(1)
	for _, b := range bufs {
		c.bytes.Add(uint64(len(b)))
	}
	head, now := bufs[0], s.now()
	if s.circulates(bufs, now) {
		c.drops[DropLoop].Add(1)
		return
	}
	v := s.Decide(Source{Neighbour: neighbour, Route: rt}, ether.MAC(head[6:12]), ether.MAC(head[0:6]), now)
	if v.Drop != NotDropped {
		c.drops[v.Drop].Add(1)
		return
	}
	if v.Flood {
		rt.Dest = peer.Name{}
	}
	for i := range v.Hops {
		if v.Hops[i].Peer == neighbour {
			continue
		}
		v.Hops[i].Path.Relay(lane, rt, off, bufs)
	}
	if b := &s.workers[lane].rxBack; b.take() {
		s.answerOrigin(lane, b)
	}
	if v.Deliver {
		if err := s.cfg.Ports[lane].Write(off, bufs); err != nil {
			c.writeErrors.Add(1)
		}
	}
}

// now is the switch's clock: whole seconds since Config.Start.
func (s *Switch) now() int64 { return int64(time.Since(s.cfg.Start) / time.Second) }

// learn records a sighting and reports whether the frame may pass.
func (s *Switch) learn(m ether.MAC, owner peer.Name, now int64) bool {
	switch s.macs.learn(m, owner, now) {
	case learnNew, learnMoved:
		s.emit(MACEvent{MAC: m, Owner: owner})
	case learnHeld:
		return false
	}
	return true
}

func (s *Switch) emit(e MACEvent) {
	if s.cfg.OnMAC == nil {
		return
	}
	select {
	case s.events <- e:
	default:
		s.lostEvs.Add(1)
	}
}

// Sighted records that the kernel's bridge saw m on a port other than ours.
func (s *Switch) Sighted(m ether.MAC) { s.learn(m, s.cfg.Local, s.now()) }

// Vouched records that the peer owner says m is on its bridge: an address that is not
// known, or is known to be there, was heard now. Where another peer, or the bridge, has
// it only frames move it.
func (s *Switch) Vouched(m ether.MAC, owner peer.Name) {
	if m.IsMulticast() || owner.IsZero() || owner == s.cfg.Local {
		return
	}
	if at, known := s.macs.lookup(m); !known || at == owner {
		s.learn(m, owner, s.now())
	}
}

// ForgetPeer drops all MACs that live at a peer that is gone.
func (s *Switch) ForgetPeer(n peer.Name) {
	for _, m := range s.macs.remove(func(e *macEntry) bool { return e.owner == n }) {
		s.emit(MACEvent{MAC: m})
	}
}

// house hands MAC events on, sweeps old addresses, and lets trees settle.
func (s *Switch) house(ctx context.Context) error {
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	resync := time.NewTicker(time.Second)
	defer resync.Stop()
	settle := time.NewTimer(0)
	defer settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-s.events:
			s.cfg.OnMAC(e)
		case <-s.routes.poke:
			settle.Reset(0)
		case <-settle.C:
			if wait := s.follow(); wait > 0 {
				settle.Reset(wait)
			}
		case <-resync.C:
			if s.lostEvs.Swap(0) > 0 {
				s.cfg.OnMAC(MACEvent{})
				s.MACs(func(m ether.MAC, owner peer.Name, _ time.Duration) { s.cfg.OnMAC(MACEvent{m, owner}) })
			}
		case <-sweep.C:
			old := s.now() - macMaxAge
			for _, m := range s.macs.remove(func(e *macEntry) bool { return e.seen.Load() < old }) {
				s.emit(MACEvent{MAC: m})
			}
		}
	}
}

// MACs calls f with every known address, where it lives and how long ago it was
// heard (whole seconds).
func (s *Switch) MACs(f func(m ether.MAC, owner peer.Name, age time.Duration)) {
	now := s.now()
	s.macs.each(func(m ether.MAC, owner peer.Name, seen int64) {
		f(m, owner, time.Duration(now-seen)*time.Second)
	})
}

// Stats are totals since start.
type Stats struct {
	FromBridge, ToBridge           uint64 // frames (superframes count once)
	FromBridgeBytes, ToBridgeBytes uint64
	WriteErrors                    uint64
	TooBig                         uint64            // "packet too big" answers given
	Drops                          map[string]uint64 // by Reason
}

// Stats sums the workers' counters.
func (s *Switch) Stats() Stats {
	st := Stats{Drops: map[string]uint64{}}
	for i := range s.workers {
		w := &s.workers[i]
		st.FromBridge += w.tx.frames.Load()
		st.FromBridgeBytes += w.tx.bytes.Load()
		st.ToBridge += w.rx.frames.Load()
		st.ToBridgeBytes += w.rx.bytes.Load()
		st.WriteErrors += w.rx.writeErrors.Load() + w.tx.writeErrors.Load()
		st.TooBig += w.txBack.count.Load() + w.rxBack.count.Load()
		for r := Reason(1); r < numReasons; r++ {
			if n := w.tx.drops[r].Load() + w.rx.drops[r].Load(); n > 0 {
				st.Drops[r.String()] += n
			}
		}
	}
	return st
}
