package forward

import (
	"sync/atomic"

	"weave/internal/ether"
	"weave/internal/peer"
)

// answer is the "packet too big" that one worker owes the sender of the frame it is
// forwarding. It is built while the path still has the frame and leaves when the
// path has returned, because paths must not be entered twice.
type answer struct {
	pending bool
	rt      peer.Route // of the answer
	frame   []byte
	one     [1][]byte
	count   atomic.Uint64
}

func (a *answer) take() bool {
	p := a.pending
	a.pending = false
	return p
}

func (a *answer) pieces() [][]byte {
	a.one[0] = a.frame
	return a.one[:]
}

// TooBig tells the switch that a path could not carry a frame on the route rt and
// nobody may cut it: its IP packet is longer than mtu. The switch answers in the
// addressee's place with ICMP "fragmentation needed" or ICMPv6 "packet too big". It
// is called from within Path.Send or Path.Relay, by the same worker, and is done
// with frame when it returns.
//
// Hosts may ignore an MTU below 1280 in IPv6 (RFC 8201 section 4), below 576 in
// IPv4; overlays cut such packets themselves.
func (s *Switch) TooBig(lane int, rt peer.Route, frame []byte, mtu int) {
	a := &s.workers[lane%len(s.workers)].txBack
	if rt.Origin != s.cfg.Local {
		if rt.Dest.IsZero() {
			return // a flood: nobody knows yet in whose place to answer
		}
		a = &s.workers[lane%len(s.workers)].rxBack
	}
	if a.pending {
		return // one answer is enough
	}
	if cap(a.frame) == 0 {
		a.frame = make([]byte, 0, ether.MaxTooBig)
	}
	var err error
	if a.frame, err = ether.AppendTooBig(a.frame[:0], frame, mtu); err != nil {
		return
	}
	a.pending, a.rt = true, peer.Route{Origin: rt.Dest, Dest: rt.Origin}
	a.count.Add(1)
}

// answerOrigin sends an answer to the peer that the relayed frame came from.
func (s *Switch) answerOrigin(lane int, a *answer) {
	hops := s.snap.Load().Unicast[a.rt.Dest]
	if len(hops) == 0 {
		s.workers[lane].rx.drops[DropNoRoute].Add(1)
		return
	}
	hops[0].Path.Relay(lane, a.rt, ether.Offload{}, a.pieces())
}
