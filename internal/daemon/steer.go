package daemon

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weave/internal/ether"
	"weave/internal/forward"
	"weave/internal/hostnet"
	"weave/internal/peer"
	"weave/mesh"
	"weave/odp"
)

const (
	adoptGrace = 10 * time.Second      // for peers to come back to what an earlier run left
	localDelay = 20 * time.Millisecond // in which new local MACs are gathered
)

// steering keeps the kernel bridge's forwarding table in step with the switch and the
// paths: every remote MAC has an entry, on the router's port or on that of a kernel
// path, and local MACs that the bridge sees are told to the switch and the peers.
//
// The receiving side of a kernel path is armed when its link is prepared; here only
// the sending side moves, entry by entry, and each move is one replacement.
type steering struct {
	fdb    *hostnet.FDB
	local  peer.Name
	bridge ether.MAC    // the bridge's own: the host as a member of the network
	port   atomic.Int64 // ifindex of the router's port, changes when it is repaired
	log    *slog.Logger
	sw     *forward.Switch // set once before run
	fast   []*odp.Overlay  // set by setKernel: the kernel paths there are

	paths   atomic.Pointer[map[peer.Name]*odp.Overlay] // peers with a connection: the kernel path it uses, or nil
	relays  atomic.Pointer[map[peer.Name]peer.Name]    // the next hop to each peer
	poke    chan struct{}                              // has room for one
	stale   atomic.Bool                                // entries may be gone
	stopped atomic.Bool                                // the daemon ends: the kernel is to stay as it is

	mu      sync.Mutex // held while the kernel is asked
	at      map[ether.MAC]place
	adopted map[ether.MAC]bool // entries of an earlier run that lead to a peer by the kernel

	locals struct {
		sync.Mutex
		macs  map[ether.MAC]bool
		dirty bool
	}
}

// place is where a remote MAC's entry points to.
type place struct {
	owner peer.Name
	port  int
	via   *odp.Overlay // nil: user space
	gone  bool         // the switch has forgotten it; it stays for as long as its path lingers
	left  bool         // as an earlier run left it, until the owner's connection has a path
}

func newSteering(fdb *hostnet.FDB, local peer.Name, bridge ether.MAC, log *slog.Logger) *steering {
	s := &steering{fdb: fdb, local: local, bridge: bridge, log: log, poke: make(chan struct{}, 1), at: map[ether.MAC]place{}}
	s.paths.Store(&map[peer.Name]*odp.Overlay{})
	s.locals.macs = map[ether.MAC]bool{}
	return s
}

// setKernel takes the kernel paths, and note of what an earlier run left there. It is
// to be called before run.
func (s *steering) setKernel(k *kernelPaths) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fast, s.adopted = k.overlays(), map[ether.MAC]bool{}
	for mac := range k.adopted() {
		s.adopted[mac] = true
	}
}

// setView takes note of the paths there are; it does not block.
func (s *steering) setView(v mesh.View) {
	paths := make(map[peer.Name]*odp.Overlay, len(v.Links))
	for name, links := range v.Links {
		paths[name] = nil
		if l, ok := links[0].(*odp.Link); ok {
			paths[name] = l.Overlay()
		}
	}
	s.paths.Store(&paths)
	s.relays.Store(&v.Routes.Unicast)
	s.wake()
}

// relayed reports whether frames to a peer without a connection have a way.
func (s *steering) relayed(name peer.Name) bool {
	hops := s.relays.Load()
	if hops == nil {
		return false
	}
	_, ok := (*hops)[name]
	return ok
}

// wake has all entries looked at.
func (s *steering) wake() { wake(s.poke) }

// kernelChanged is told that ports of kernel paths were made anew, and have no entries,
// or that a path has lingered long enough.
func (s *steering) kernelChanged() {
	s.stale.Store(true)
	s.wake()
}

// kernel returns the kernel path that frames to the peer take, nil if user space does.
// A connection decides by its best path; without one a path that was up lingers.
func (s *steering) kernel(owner peer.Name) *odp.Overlay {
	if via, connected := (*s.paths.Load())[owner]; connected {
		return via
	}
	return s.lingering(owner)
}

// lingering returns the kernel path that goes on since the peer's last connection,
// nil if there is none.
func (s *steering) lingering(owner peer.Name) *odp.Overlay {
	for _, ov := range s.fast {
		if ov.Lingers(owner) {
			return ov
		}
	}
	return nil
}

// onMAC follows the switch; it runs on the switch's goroutine.
func (s *steering) onMAC(e forward.MACEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.port.Load() == 0 || s.stopped.Load() {
		return
	}
	switch {
	case e.MAC == (ether.MAC{}):
		for mac := range s.at {
			s.remove(mac)
		}
		s.done("flush", s.fdb.Flush(int(s.port.Load())))
	case e.Owner.IsZero():
		s.forget(e.MAC)
	case e.Owner == s.local:
		// The bridge has made the entry its own.
		if p, ok := s.at[e.MAC]; ok {
			delete(s.at, e.MAC)
			if p.via != nil {
				s.done("delete", s.fdb.Delete(e.MAC, p.port))
				p.via.Backend().Unsteer(e.MAC)
			}
		}
	default:
		s.put(e.MAC, e.Owner)
	}
}

func (s *steering) forget(mac ether.MAC) {
	if p := s.at[mac]; p.via != nil && s.kernel(p.owner) == p.via {
		p.gone = true
		s.at[mac] = p
		return
	}
	s.remove(mac)
}

// remove takes away the entry of a MAC, wherever it points to.
func (s *steering) remove(mac ether.MAC) {
	p, ok := s.at[mac]
	if !ok {
		s.done("delete", s.fdb.Delete(mac, int(s.port.Load())))
		return
	}
	delete(s.at, mac)
	s.done("delete", s.fdb.Delete(mac, p.port))
	if p.via != nil {
		p.via.Backend().Unsteer(mac)
	}
}

// put points a MAC to the best path to its owner.
func (s *steering) put(mac ether.MAC, owner peer.Name) {
	before := s.at[mac]
	if _, connected := (*s.paths.Load())[owner]; !connected && s.adopted[mac] {
		s.at[mac] = place{owner: owner, left: true}
		return
	}
	delete(s.adopted, mac)
	now := place{owner: owner, port: int(s.port.Load())}
	if via := s.kernel(owner); via != nil {
		if port, err := via.Backend().Steer(mac, owner); err == nil {
			now.port, now.via = port, via
		} else {
			s.log.Debug("not steered to the kernel path", "mac", mac, "peer", owner, "err", err)
		}
	}
	s.done("replace", s.fdb.Replace(mac, now.port))
	s.at[mac] = now
	if before.via != nil && now.via != before.via {
		before.via.Backend().Unsteer(mac)
	}
}

func (s *steering) done(what string, err error) {
	if err != nil {
		s.log.Debug("bridge entry not set", "what", what, "err", err)
	}
}

// apply moves all MACs whose path has changed.
func (s *steering) apply() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped.Load() || s.port.Load() == 0 {
		return
	}
	type way struct {
		via  *odp.Overlay
		port int
	}
	ways := map[peer.Name]way{}
	moved := 0
	for mac, p := range s.at {
		w, ok := ways[p.owner]
		if !ok {
			w = way{nil, int(s.port.Load())}
			if via := s.kernel(p.owner); via != nil {
				if port := via.Backend().State(p.owner).Port; port != 0 {
					w = way{via, port}
				}
			}
			ways[p.owner] = w
		}
		switch {
		case p.gone && w.via == nil:
			// The owner's new connection has no path yet, and the switch does not know
			// the address: where the entry leads is all there is.
			if p.via == nil || s.lingering(p.owner) != p.via {
				s.remove(mac)
			}
		case p.left || p.via != w.via || p.port != w.port:
			s.put(mac, p.owner)
			moved++
		}
	}
	if moved > 0 {
		s.log.Debug("addresses moved between paths", "count", moved)
	}
}

// refill sets the entries anew: a bridge or a port that was made anew has none.
func (s *steering) refill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped.Load() || s.port.Load() == 0 {
		return
	}
	s.sw.MACs(func(m ether.MAC, owner peer.Name, _ time.Duration) {
		if owner != s.local {
			s.put(m, owner)
		}
	})
}

// run moves MACs when paths change, and tells peers of local ones, until ctx ends.
func (s *steering) run(ctx context.Context) error {
	grace := time.NewTimer(adoptGrace)
	defer grace.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.poke:
		case <-grace.C:
			s.disown()
		}
		if ctx.Err() != nil {
			return nil
		}
		if s.stale.Swap(false) {
			s.refill()
		}
		s.apply()
		s.tellLocals(ctx)
	}
}

// disown removes what an earlier run left and nobody came back for.
func (s *steering) disown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.adopted)
	for _, ov := range s.fast {
		be := ov.Backend()
		err := s.fdb.Prune(func(m ether.MAC) bool { return s.at[m].via == ov }, be.Ports()...)
		s.done("prune", err)
		if n := len(be.Adopted()); n > 0 {
			s.log.Info("addresses of an earlier run not asked for", "path", be.Name(), "count", n)
		}
		be.Disown()
	}
}

// watch tells the switch of MACs the bridge sees on other ports.
func (s *steering) watch(ctx context.Context) error {
	for {
		err := s.fdb.Watch(ctx, s.sighted)
		if ctx.Err() != nil {
			return nil
		}
		s.log.Warn("watching the bridge's addresses ended; starting again", "err", err)
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

func (s *steering) sighted(e hostnet.FDBEvent) {
	ours := e.Port == int(s.port.Load())
	if e.Port != 0 && !ours && !e.Permanent {
		s.sw.Sighted(e.MAC)
	}
	s.locals.Lock()
	defer s.locals.Unlock()
	here := e.Port != 0 && !ours && (!e.Permanent || e.MAC == s.bridge)
	if here == s.locals.macs[e.MAC] {
		return
	}
	if here {
		s.locals.macs[e.MAC] = true
	} else {
		delete(s.locals.macs, e.MAC)
	}
	s.locals.dirty = true
	s.wake()
}

// tellLocals has the peers told which MACs are here.
func (s *steering) tellLocals(ctx context.Context) {
	s.locals.Lock()
	dirty := s.locals.dirty
	s.locals.Unlock()
	if !dirty || len(s.fast) == 0 || !pause(ctx, localDelay) {
		return
	}
	s.locals.Lock()
	s.locals.dirty = false
	macs := make([]ether.MAC, 0, len(s.locals.macs))
	for m := range s.locals.macs {
		macs = append(macs, m)
	}
	s.locals.Unlock()
	slices.SortFunc(macs, func(a, b ether.MAC) int { return slices.Compare(a[:], b[:]) })
	for _, ov := range s.fast {
		ov.SetLocalMACs(macs)
	}
}
