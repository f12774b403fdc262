package mesh

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"weave/internal/peer"
	"weave/mesh/dial"
	"weave/mesh/topo"
)

// Times and bounds of discovery.
const (
	findEvery  = time.Second     // candidates are looked for, if something changed
	findFirst  = time.Second     // the first of two peers waits up to so long
	findSecond = 4 * time.Second // and the other so long more, so that they don't meet
	lostFor    = time.Hour       // a peer that was lost is looked for
	maxLost    = 256
	lostOften  = 4 // so many of them often: one is enough to join two parts of a network
)

// lostPeer is where a peer listened to which we had a connection.
type lostPeer struct {
	addr  netip.AddrPort
	until time.Time
}

// findLimit is the number of connections from which on none is made or taken just
// because peers know of one another: the rest is for those that must have one, so
// that no part of the network is ever closed to others.
func findLimit(limit int) int {
	if limit < 4 {
		return limit
	}
	return limit - max(1, limit/8)
}

// isFull says whether we take no more such connections; a little room must come up
// before we say that there is some again.
func (l *loop) isFull(was bool) bool {
	limit := findLimit(l.r.cfg.ConnLimit)
	if was {
		limit -= limit / 16
	}
	return l.r.cfg.ConnLimit > 0 && len(l.conns) >= limit
}

// find tells the connection maker whom to look for: all peers that we know of and
// are not connected to. The order is that of a hash of both names, so that the two
// ends agree on how much they want one another, and a peer that comes or goes
// changes nothing for the others.
func (l *loop) find(now time.Time) {
	if !l.r.cfg.Discovery || !l.findOld {
		return
	}
	if due := l.foundAt.Add(findEvery); now.Before(due) {
		l.wakeAt(due)
		return
	}
	l.findOld, l.foundAt = false, now
	var wishes []wish
	for _, n := range l.topo.Names() {
		if !l.topo.Record(n).Full {
			wishes = l.want(wishes, n, false)
		}
	}
	for n, p := range l.lost {
		if now.After(p.until) {
			delete(l.lost, n)
		} else if l.topo.Record(n) == nil {
			wishes = l.want(wishes, n, true)
		}
	}
	slices.SortFunc(wishes, func(a, b wish) int {
		if a.lost != b.lost {
			return map[bool]int{false: -1, true: 1}[a.lost]
		}
		return cmp.Or(cmp.Compare(a.hash, b.hash), a.Peer.Compare(b.Peer))
	})
	out := make([]dial.Candidate, len(wishes))
	often := lostOften
	for i, w := range wishes {
		if w.lost {
			w.Lost = often > 0
			often--
		}
		out[i] = w.Candidate
	}
	l.maker.Find(now, out)
}

// wish is a candidate and its place in the order.
type wish struct {
	dial.Candidate
	lost bool
	hash uint64
}

// want adds a peer that we aren't connected to.
func (l *loop) want(wishes []wish, n peer.Name, lost bool) []wish {
	if l.peers[n] != nil || n == l.r.cfg.Name {
		return wishes
	}
	h, first := pairHash(l.r.cfg.Name, n)
	w := wish{Candidate: dial.Candidate{Peer: n, Wait: rand.N(findFirst), Far: lost}, lost: lost, hash: h}
	if !first && !lost {
		w.Wait += findSecond
	}
	return append(wishes, w)
}

// pairHash is the same for both ends of a pair; first is true on one of them.
func pairHash(self, other peer.Name) (hash uint64, first bool) {
	hash = topo.PairHash(self, other)
	return hash, (hash&1 == 0) == (self.Compare(other) <= 0)
}

// addrsOf is where a found peer may be.
func (l *loop) addrsOf(n peer.Name) []netip.AddrPort {
	addrs := l.topo.Addrs(n)
	if p, ok := l.lost[n]; ok && !slices.Contains(addrs, p.addr) {
		addrs = append(addrs, p.addr)
	}
	return addrs
}

// remember keeps in mind where the peer of a connection that broke was: if it is not
// only the connection, nobody else may be there to tell.
func (l *loop) remember(c *conn) {
	at := c.listen()
	if c.outbound {
		at = c.remote
	}
	if at.IsValid() && (len(l.lost) < maxLost || l.lost[c.hello.Name].addr.IsValid()) {
		l.lost[c.hello.Name] = lostPeer{at, time.Now().Add(lostFor)}
	}
}

// foreignPeer reports whether the peer at an address that others told of is none of
// this network's, and must not join it to another.
func (l *loop) foreignPeer(x *candidate) bool {
	if !x.outbound || !l.maker.IsFound(x.attempt) {
		return false
	}
	_, lost := l.lost[x.hello.Name]
	r := l.topo.Record(x.hello.Name)
	return r == nil && !lost || r != nil && r.Key != x.sign
}
