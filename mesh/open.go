package mesh

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"weave/internal/peer"
	"weave/mesh/dial"
	"weave/mesh/topo"
)

// Opening makes a direct connection between two peers of which neither can be dialed,
// because each is behind a NAT that lets in only what somebody behind it asked for:
//
//	1  an attempt to a found peer came to nothing, so that peer is asked, over the
//	   mesh, to open; which of two peers asks follows from their names
//	2  the one that asks dials from the port that it listens on
//	3  the one that is asked dials from its own such port to where the mesh says that
//	   the other one is, and takes what comes of it for an inbound connection
//
// Each end's first packet makes a way through its own NAT for the packets of the other.
// TCP joins two connects that meet; if one was early its kernel repeats it. The links'
// datagrams come through in the same way, since both ends send heartbeats at once.
// It takes NATs that keep the port, as most do while it is free.
//
// What a member can make us do by asking is bounded: we dial only the addresses that
// the topology has for a known peer, as discovery does anyway, for a short time, a few
// at a time, and rarely for the same peer.
const (
	openTime  = 3 * time.Second // for the two ends to meet
	openEvery = 4 * time.Second // a peer is heeded; its attempts take longer
	maxOpen   = 16              // attempts of ours at a time
	maxOpenTo = 4               // addresses of a peer
	maxAsked  = 256             // peers of which it is remembered when they asked
)

// msgOpen is the body of the unicast on the topology's channel that asks to open. What
// may follow is ignored.
const msgOpen = 1

// opening is the loop's memory of it.
type opening struct {
	asked map[peer.Name]time.Time // by whom; at most maxAsked
	busy  int                     // attempts of ours under way; <= maxOpen
}

// ask prepares an attempt to a found peer that could not be reached before: it asks the
// peer to open, and returns the port to dial from; 0: any.
func (l *loop) ask(e dial.Effect) uint16 {
	var err *Error
	if e.Peer.IsZero() || !errors.As(l.maker.LastErr(e.Attempt), &err) || err.Reason != ReasonUnreachable {
		return 0
	}
	if _, first := pairHash(l.r.cfg.Name, e.Peer); !first || l.topo.Record(e.Peer) == nil {
		return 0
	}
	if (sender{l.channels[0]}).Unicast(e.Peer, []byte{msgOpen}) != nil {
		return 0
	}
	l.counters.OpenAsked++
	return uint16(l.r.port.Load())
}

// OnUnicast implements gossip.Channel: a peer asks to open.
func (s *shape) OnUnicast(from peer.Name, msg []byte) error {
	switch {
	case len(msg) > 0 && msg[0] == msgOpen:
		s.l.open(from, time.Now())
		return nil
	case len(msg) > 0 && msg[0] == msgMeet:
		return s.l.meet(msg[1:], time.Now())
	}
	return topo.ErrMessage
}

// open dials a peer that asked, if we would like a connection to it.
func (l *loop) open(from peer.Name, now time.Time) {
	_, weAsk := pairHash(l.r.cfg.Name, from)
	limit := findLimit(l.r.cfg.ConnLimit)
	switch {
	case weAsk || !l.r.cfg.Discovery || l.peers[from] != nil || l.topo.Record(from) == nil:
		return
	case limit > 0 && len(l.conns) >= limit || now.Sub(l.opening.asked[from]) < openEvery:
		return
	}
	for n, at := range l.opening.asked {
		if now.Sub(at) >= openEvery {
			delete(l.opening.asked, n)
		}
	}
	if len(l.opening.asked) >= maxAsked {
		return
	}
	l.opening.asked[from] = now
	addrs := l.topo.Addrs(from)
	for _, to := range addrs[:min(len(addrs), maxOpenTo)] {
		if l.opening.busy >= maxOpen {
			return
		}
		l.opening.busy++
		l.counters.OpenTried++
		l.tasks.Go(func() { l.r.open(l.ctx, to) })
	}
}

// open dials from our port and serves the connection as if it were inbound: the other
// end dials too, and one of the two has to begin the handshake.
func (r *Router) open(ctx context.Context, to netip.AddrPort) {
	dctx, cancel := context.WithTimeout(ctx, openTime)
	nc, err := r.cfg.Net.Dial(dctx, netip.AddrPortFrom(r.cfg.Host, uint16(r.port.Load())), to)
	cancel()
	r.call(func(l *loop) { l.opening.busy-- })
	if err != nil {
		return // as a rule: it served the other end's attempt
	}
	s := r.newSocket(nc, 0)
	s.opened = true
	s.serve(ctx, func() {})
}

// dialFrom dials from a port of ours, or from another if that is not possible: the
// same two ends may have been joined a moment ago.
func (r *Router) dialFrom(ctx context.Context, port uint16, to netip.AddrPort) (net.Conn, error) {
	if port == 0 {
		return r.race(ctx, to)
	}
	nc, err := r.cfg.Net.Dial(ctx, netip.AddrPortFrom(r.cfg.Host, port), to)
	if err != nil && (errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EADDRINUSE)) {
		return r.race(ctx, to)
	}
	return nc, err
}
