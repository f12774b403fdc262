package mesh

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"weave/crypto/session"
	"weave/internal/peer"
	"weave/mesh/dial"
	"weave/mesh/overlay"
	"weave/mesh/topo"
)

func (l *loop) local() Peer {
	cfg := &l.r.cfg
	return Peer{Name: cfg.Name, NickName: cfg.NickName, UID: cfg.UID, Version: cfg.Version}
}

func (c *conn) peer() Peer {
	return Peer{Name: c.hello.Name, NickName: c.hello.NickName, UID: c.hello.UID, Version: c.hello.Version}
}

// view makes what OnChange is given.
func (l *loop) view() View {
	v := View{Local: l.r.cfg.Name, Links: map[peer.Name][]overlay.Link{}, Peers: l.peersNow()}
	for name, c := range l.peers {
		for _, k := range c.links {
			if k.up {
				v.Links[name] = append(v.Links[name], k.link)
			}
		}
	}
	v.Routes = l.routesNow(v.Links)
	return v
}

// status is all but the peers.
func (l *loop) status() Status {
	cfg := &l.r.cfg
	s := Status{
		Local: l.local(), Port: uint16(l.r.port.Load()), Encryption: cfg.PSK != nil,
		Discovery: cfg.Discovery, ConnLimit: cfg.ConnLimit, Trusted: []string{},
		Targets: l.maker.Targets(), Conns: l.connStatuses(),
		Refused: l.refused.snapshot(time.Now()), Counters: l.counters, Topology: l.topo.Counters(),
		Conflicts: l.conflicts(),
	}
	for _, ch := range l.channels {
		ch.stats.Name = ch.name
		s.Channels = append(s.Channels, ch.stats)
	}
	for _, p := range cfg.Trusted {
		s.Trusted = append(s.Trusted, p.String())
	}
	s.Counters.InboundRefused = maps.Clone(l.counters.InboundRefused)
	return s
}

func (l *loop) connStatuses() []ConnStatus {
	out := []ConnStatus{}
	for _, c := range l.conns {
		out = append(out, l.connStatus(c))
	}
	for _, t := range l.maker.Unserved() {
		s := targetStatus(t)
		if s.Reached = s.Reason == ReasonLimit && l.reaches(t.Peer); s.Reached {
			s.Error += "; other hosts lead there"
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b ConnStatus) int {
		if a.Outbound != b.Outbound {
			return map[bool]int{true: -1, false: 1}[a.Outbound]
		}
		return cmp.Or(cmp.Compare(a.Addr, b.Addr), cmp.Compare(a.Target, b.Target))
	})
	return out
}

func (l *loop) connStatus(c *conn) ConnStatus {
	s := ConnStatus{
		Addr: c.remote.String(), Outbound: c.outbound, State: StatePending,
		Peer: c.hello.Name, NickName: c.hello.NickName, Since: c.since,
		Encrypted: !c.permit().Clear(), RTT: c.rtt,
	}
	if c.outbound {
		s.Target = l.maker.Serving(c.key)
	}
	var best *overlay.Status
	for _, k := range c.links {
		st := k.link.Status()
		s.Links = append(s.Links, st)
		if best == nil || (k.up && !best.Up) {
			best = &s.Links[len(s.Links)-1]
		}
	}
	if best != nil {
		s.Path, s.MTU = best.Path, best.MTU
		if best.RTT != 0 {
			s.RTT = best.RTT
		}
		if best.Up {
			s.Encrypted = best.Cipher != session.CipherNone
		}
	}
	s.Links = append(s.Links, c.absent...)
	if c.established {
		s.State = StateEstablished
	} else {
		e := l.noPath(c)
		s.Error, s.Reason = e.Error(), e.Reason
	}
	return s
}

func targetStatus(t dial.TargetStatus) ConnStatus {
	s := ConnStatus{Addr: t.Text, Target: t.Text, Outbound: true, State: StateFailed, Retry: t.Retry, Never: t.Never}
	if s.Found = !t.Direct; s.Found {
		s.Target = ""
	}
	if t.Addr.IsValid() {
		s.Addr = t.Addr.String()
	}
	switch {
	case t.Trying && t.Err == nil, !t.Trying && t.Err == nil && !t.Never:
		s.State = StateConnecting
	case t.Trying:
		s.State = StateRetrying
	}
	if s.State != StateFailed || t.Never || errors.Is(t.Err, dial.ErrLimit) {
		s.Retry = time.Time{}
	}
	if t.Err != nil {
		s.Error = t.Err.Error()
		var e *Error
		if errors.As(t.Err, &e) {
			s.Reason = e.Reason
		} else if errors.Is(t.Err, dial.ErrLimit) {
			s.Reason = ReasonLimit
		}
	}
	return s
}

// peerStatuses returns what lists the local peer first, then the others by name, on
// any goroutine.
func (l *loop) peerStatuses() func() []PeerStatus {
	local := PeerStatus{Peer: l.local(), Record: l.topo.Local().Version, Conns: l.ownConns()}
	all := l.peersNow()
	records := make(map[peer.Name]*topo.Record, len(all))
	silent := map[peer.Name]PeerConn{} // have yet to speak for themselves
	for name := range all {
		r := l.topo.Record(name)
		if c := l.peers[name]; c != nil && (r == nil || r.UID != c.hello.UID) {
			silent[name] = PeerConn{
				Peer: local.Name, NickName: local.NickName, Addr: c.local.String(), Outbound: !c.outbound, Established: c.established,
			}
		} else if name != local.Name {
			records[name] = r
		}
	}
	return func() []PeerStatus {
		out := append(make([]PeerStatus, 0, len(all)), local)
		for _, name := range slices.SortedFunc(maps.Keys(all), peer.Name.Compare) {
			if name == local.Name {
				continue
			}
			p := PeerStatus{Peer: all[name], Conns: []PeerConn{}}
			if c, ok := silent[name]; ok {
				p.Conns = append(p.Conns, c)
			} else if r := records[name]; r != nil {
				p.Record = r.Version
				for c := range r.Conns() {
					p.Conns = append(p.Conns, PeerConn{
						Peer: c.Peer, NickName: all[c.Peer].NickName, Addr: c.Addr.String(), Outbound: c.Outbound, Established: c.Established,
					})
				}
			}
			out = append(out, p)
		}
		return out
	}
}

func (l *loop) ownConns() []PeerConn {
	out := []PeerConn{}
	for _, name := range slices.SortedFunc(maps.Keys(l.peers), peer.Name.Compare) {
		c := l.peers[name]
		out = append(out, PeerConn{
			Peer: name, NickName: c.hello.NickName, Addr: c.remote.String(), Outbound: c.outbound, Established: c.established,
		})
	}
	return out
}

func (l *loop) conflicts() []Conflict {
	out := []Conflict{}
	for _, c := range l.topo.Conflicts(time.Now()) {
		nick := printable(c.NickName)
		text := fmt.Sprintf("peer name %s is also used by another host, %s: give one host another --name", c.Name, nick)
		if c.Clone {
			text = fmt.Sprintf("peer name %s and its key are also used by another host, %s: this is a copy of that host's state; run 'weave reset' on one of them", c.Name, nick)
		}
		out = append(out, Conflict{Name: c.Name, NickName: nick, Clone: c.Clone, Refused: c.Refused, Last: c.Last, Text: text})
	}
	return out
}
