package mesh

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"weave/internal/peer"
	"weave/mesh/dial"
	"weave/mesh/topo"
	"weave/mesh/wire"
)

// With as many connections as it may have a peer takes another one only for a peer that
// nothing leads to, and lets one go that the network can do without: so hosts whose
// connections are used up never stay parts that are closed to one another. Who has none
// to spare names peers that have: to the one it turns away, or, if it is the one that
// dialed, the other way round: it asks such a peer to dial in its place.
//
// It comes to rest, since connections are let go only when the number of parts falls,
// and only those that are on no way of the tree that all peers agree on (topo.Spare).

const (
	minSpareAge = 20 * time.Millisecond // what may be spared is not looked for more often,
	maxSpareAge = time.Second           // in large networks
	meetEvery   = time.Second           // we dial in somebody's place
	maxMeet     = 4                     // addresses in a message

	// Of the limit only this part can be had by pressing: so a member that comes under
	// many names, or says that it leads where it doesn't, takes no more than that.
	pressedPart = 4
)

// room is the loop's memory of it.
type room struct {
	spare   *topo.Spare
	spareAt time.Time
	metAt   time.Time // we dialed in somebody's place last
}

// reaches reports whether some way leads to a peer.
func (l *loop) reaches(n peer.Name) bool {
	if l.peers[n] != nil {
		return true
	}
	_, ok := l.shape.now.Messages[n]
	return ok
}

// isFullFor returns why there is no place for x; nil: there is, since another connection
// was let go perhaps.
func (l *loop) isFullFor(x *candidate) *Error {
	most, reached := l.r.cfg.ConnLimit, l.reaches(x.hello.Name)
	if !x.outbound {
		switch {
		case x.hello.Room&wire.RoomFull == 0:
		case reached:
			return &Error{Reason: ReasonLimit, Text: "connection limit reached"}
		case x.hello.Room&wire.RoomNone != 0:
			return l.noRoom(x, "connection limit reached")
		}
		if reached && x.hello.Found {
			most = findLimit(most)
		}
	}
	if most == 0 || len(l.conns) < most || !reached && l.makeRoom(x) {
		return nil
	}
	if !x.outbound && !reached && x.hello.Room&wire.RoomInsist != 0 {
		l.delegate([]netip.AddrPort{x.listen()}, x.hello.Name)
	}
	return l.noRoom(x, fmt.Sprintf("connection limit of %d reached at %s", most, l.r.cfg.Name))
}

func (l *loop) noRoom(x *candidate, text string) *Error {
	return &Error{Reason: ReasonLimit, Text: text, instead: l.somePeers(maxInstead, x.hello.Name)}
}

// makeRoom lets a connection go for x, which nothing leads to, unless x had better try
// others first.
func (l *loop) makeRoom(x *candidate) bool {
	insists := x.hello.Room&wire.RoomInsist != 0
	if x.outbound {
		insists = l.wasTurnedAway(x.attempt)
	} else if !insists && x.hello.Room&wire.RoomFull == 0 && l.othersHaveRoom() {
		return false
	}
	c := l.spareConn(insists)
	if c == nil {
		return false
	}
	x.pressed = true
	l.drop(c, &Error{Reason: ReasonLimit, Text: fmt.Sprintf(
		"%s made room for a host that nothing led to; others lead here", l.r.cfg.Name)}, true)
	return true
}

// wasTurnedAway reports whether the attempt before this one failed for lack of room.
func (l *loop) wasTurnedAway(attempt uint64) bool {
	e, ok := l.maker.LastErr(attempt).(*Error)
	return ok && e.Reason == ReasonLimit
}

func (l *loop) othersHaveRoom() bool {
	for n := range l.shape.now.Messages {
		if r := l.topo.Record(n); r != nil && !r.Full {
			return true
		}
	}
	return false
}

// spareNow returns what the network can do without, as of a moment ago.
func (l *loop) spareNow() *topo.Spare {
	age := max(minSpareAge, min(time.Duration(l.topo.Len())*routesPeer, maxSpareAge))
	if now := time.Now(); l.room.spare == nil || now.Sub(l.room.spareAt) >= age {
		l.room.spare, l.room.spareAt = l.topo.Spare(), now
	}
	return l.room.spare
}

// spareConn returns the connection to let go for another one: rather one that is no
// target's, and one to a peer with many. If the network can do without none, or just
// without any single one, it is nil unless somebody insists. Where pressing got its part
// it may only change what it got.
func (l *loop) spareConn(insists bool) *conn {
	pressed := 0
	for _, c := range l.conns {
		if c.pressed {
			pressed++
		}
	}
	more := pressed < max(1, l.r.cfg.ConnLimit/pressedPart)
	may := func(c *conn) bool { return c != nil && c.established && (more || c.pressed) }
	var spare []*conn
	for _, n := range l.spareNow().Local() {
		if c := l.peers[n]; may(c) {
			spare = append(spare, c)
		}
	}
	if len(spare) == 0 && insists {
		for n, c := range l.peers {
			if may(c) && l.topo.ReachesWithout(n) {
				spare = append(spare, c)
			}
		}
	}
	if len(spare) == 0 {
		return nil
	}
	return slices.MinFunc(spare, func(a, b *conn) int {
		return cmp.Or(cmp.Compare(l.worth(a), l.worth(b)), a.hello.Name.Compare(b.hello.Name))
	})
}

// worth orders connections by how willingly they are kept.
func (l *loop) worth(c *conn) int {
	w := 0
	if l.maker.Serving(c.key) != "" {
		w += topo.MaxConns
	}
	if r := l.topo.Record(c.hello.Name); r != nil {
		w -= r.Len()
	}
	return w
}

// roomOf says how much an attempt is wanted.
func (l *loop) roomOf(e dial.Effect) (r wire.Room) {
	insists := l.wasTurnedAway(e.Attempt)
	if insists {
		r |= wire.RoomInsist
	}
	if e.Over {
		r |= wire.RoomFull
		if l.spareConn(insists) == nil {
			r |= wire.RoomNone
		}
	}
	return r
}

// noRoomOutcome is what the connection maker makes of a connection that one end had no
// room for. If the other end is in another network, others may have room.
func (l *loop) noRoomOutcome(s *socket, err *Error) dial.Outcome {
	_, lost := l.lost[s.hello.Name]
	switch {
	case !l.r.cfg.Discovery || l.reaches(s.hello.Name) || s.found && !lost:
	case s.room&wire.RoomNone == 0:
		l.maker.Hint(time.Now(), err.instead)
	case !s.hinted:
		l.delegate(append([]netip.AddrPort{s.remote}, err.instead...), s.hello.Name)
	}
	return dial.NoRoom
}

// delegate asks a peer that has room, or can make some, to dial one that nothing leads to.
func (l *loop) delegate(to []netip.AddrPort, not peer.Name) {
	var able, free []peer.Name
	for n := range l.shape.now.Messages {
		r := l.topo.Record(n)
		switch {
		case n == not || r == nil:
		case !r.Full:
			free = append(free, n)
		case l.spareNow().Has(n):
			able = append(able, n)
		}
	}
	if len(free) > 0 {
		able = free
	}
	if len(able) == 0 || len(to) == 0 {
		return
	}
	msg := []byte{msgMeet}
	for _, a := range to[:min(len(to), maxMeet)] {
		b := a.Addr().As16()
		msg = binary.BigEndian.AppendUint16(append(msg, b[:]...), a.Port())
	}
	// If it is lost there will be another attempt.
	_ = (sender{l.channels[0]}).Unicast(able[rand.IntN(len(able))], msg)
}

// msgMeet is the first byte of the unicast on the topology's channel that asks to dial
// addresses: IPv6 or IPv4-mapped (16 bytes) and port (2) each.
const msgMeet = 2

// meet dials in the place of a peer that asked, if we would take the connection. What a
// member can make us do by asking is bounded: hints are dialed one after the other, few
// are kept, and not for long.
func (l *loop) meet(b []byte, now time.Time) error {
	const each = 18
	if len(b) == 0 || len(b)%each != 0 || len(b) > maxMeet*each {
		return topo.ErrMessage
	}
	most := l.r.cfg.ConnLimit
	if !l.r.cfg.Discovery || now.Sub(l.room.metAt) < meetEvery || most > 0 && len(l.conns) >= most && l.spareConn(false) == nil {
		return nil
	}
	l.room.metAt = now
	var to []netip.AddrPort
	for ; len(b) > 0; b = b[each:] {
		a := netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[each-2:]))
		if topo.Usable(a) {
			to = append(to, a)
		}
	}
	l.maker.Hint(now, to)
	return nil
}
