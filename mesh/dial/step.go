package dial

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weave/internal/peer"
)

var (
	errNoAddress = errors.New("no address known")
	errOther     = errors.New("another peer is there")
)

// Step returns what to do now, and when to call it again if nothing else happens
// before; zero: not at all. It is to be called after each other method; when there
// is nothing to do it costs nothing.
func (m *Maker) Step(now time.Time) (out []Effect, next time.Time) {
	if !m.changed && (m.next.IsZero() || now.Before(m.next)) {
		return nil, m.next
	}
	out, m.next = m.step(now)
	m.changed = false
	return out, m.next
}

func (m *Maker) step(now time.Time) (out []Effect, next time.Time) {
	room := m.room(m.cfg.Limit)
	findRoom, finding := m.room(m.cfg.FindLimit), maxFinding-m.trying(2)
	hinted := m.trying(1) > 0
	later := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for _, t := range m.due(now, later) {
		switch {
		case t.state == dialing: // next address of a round
			t.attempt = m.newAttempt()
			out = append(out, m.dialEffect(t))
			continue
		case !t.found.IsZero() && (finding <= 0 || !t.far && min(findRoom, room) <= 0):
			continue
		case !t.found.IsZero() && now.Before(m.nextFind):
			later(m.nextFind)
			continue
		case t.class() == 1 && hinted:
			continue // one after the other, since one will do
		case room <= 0 && !m.mayExceed(now, t, later):
			continue
		}
		if !t.found.IsZero() {
			m.nextFind = now.Add(findGap)
			finding--
			findRoom--
		}
		hinted = hinted || t.class() == 1
		t.over = room <= 0
		e, ok := m.start(now, t)
		if ok {
			room--
			out = append(out, e)
		} else {
			later(t.due)
		}
	}
	return out, next
}

// mayExceed reports whether an attempt may be made although there is no room, and notes
// that it is. Later is told when there may be another.
func (m *Maker) mayExceed(now time.Time, t *target, later func(time.Time)) bool {
	t.limited = true
	if m.reaches(t.peer) || len(m.conns) < m.cfg.Limit {
		return false
	}
	for o := range m.busy {
		if o.over {
			return false
		}
	}
	next := m.nextOver
	for _, c := range m.conns {
		if at := c.up.Add(overAfter); at.After(next) {
			next = at
		}
	}
	if now.Before(next) {
		later(next)
		return false
	}
	m.nextOver = now.Add(overGap/2 + time.Duration(m.cfg.Rand()*float64(overGap)))
	return true
}

func (m *Maker) reaches(p peer.Name) bool {
	return m.cfg.Reaches != nil && !p.IsZero() && m.cfg.Reaches(p)
}

// due returns the targets with something to do, in order: those of users, hints,
// found peers. Later is told when others will have something.
func (m *Maker) due(now time.Time, later func(time.Time)) (out []*target) {
	for _, t := range m.targets {
		switch {
		case t.state == dialing && t.attempt == 0:
			out = append(out, t)
		case t.state != waiting || t.never:
		case !t.until.IsZero() && (m.serves(t) || !now.Before(t.until)):
			m.remove(t)
		case m.serves(t):
		case t.due.After(now):
			later(t.due)
		default:
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *target) int {
		return cmp.Or(cmp.Compare(a.class(), b.class()), cmp.Compare(a.rank, b.rank), strings.Compare(a.text, b.text))
	})
	return out
}

// class orders targets by who gave them.
func (t *target) class() int {
	switch {
	case t.direct:
		return 0
	case t.found.IsZero():
		return 1
	}
	return 2
}

// trying is the number of attempts under way of targets of that class.
func (m *Maker) trying(class int) (n int) {
	for t := range m.busy {
		if t.class() == class {
			n++
		}
	}
	return n
}

// enter changes the state of a target; waiting, it has no attempt.
func (m *Maker) enter(t *target, s state) {
	t.state = s
	if s == waiting {
		t.attempt, t.addrs = 0, nil
		delete(m.busy, t)
	} else {
		m.busy[t] = true
	}
}

func (m *Maker) dialEffect(t *target) Effect {
	return Effect{Attempt: t.attempt, Target: t.text, Dial: t.addr, Peer: t.found, Over: t.over, Hint: t.class() == 1}
}

// start begins an attempt. It isn't ok when another target dials that address.
func (m *Maker) start(now time.Time, t *target) (Effect, bool) {
	t.limited, t.crowded = false, false
	e := Effect{Target: t.text, Resolve: t.host, Port: m.port(t)}
	if !t.found.IsZero() {
		e = Effect{Target: t.text, Find: t.found}
	}
	if a, err := netip.ParseAddr(t.host); err == nil {
		t.known = []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), m.port(t))}
		round := m.round(t)
		if m.dialed(round[0]) {
			t.due = now.Add(soon)
			return e, false
		}
		if m.serves(t) {
			return e, false
		}
		m.dial(t, round)
		e = m.dialEffect(t)
	} else {
		m.enter(t, resolving)
	}
	t.attempt, t.began = m.newAttempt(), now
	e.Attempt = t.attempt
	return e, true
}

// round lists the addresses of one attempt, in the order in which to dial them.
func (m *Maker) round(t *target) []netip.AddrPort {
	out := slices.Clone(t.known)
	if t.seen.IsValid() && !slices.Contains(t.known, t.seen) {
		out = slices.Insert(out, 0, t.seen)
	}
	slices.SortStableFunc(out, func(a, b netip.AddrPort) int {
		return cmp.Compare(m.doubts(a), m.doubts(b))
	})
	return out
}

// doubts returns how many connections to a are in doubt.
func (m *Maker) doubts(a netip.AddrPort) (n int) {
	for _, c := range m.conns {
		if c.doubt && (c.Addr == a || c.Listen == a) {
			n++
		}
	}
	return n
}

func (m *Maker) newAttempt() uint64 { m.attempt++; return m.attempt }

func (m *Maker) port(t *target) uint16 {
	if t.port != 0 {
		return t.port
	}
	return m.cfg.Port
}

// room is how many attempts may start now under a limit of connections.
func (m *Maker) room(limit int) int {
	if limit <= 0 {
		return maxTargets + maxFound
	}
	return limit - len(m.conns) - len(m.busy)
}

// dialed reports whether an attempt to a is under way.
func (m *Maker) dialed(a netip.AddrPort) bool {
	for t := range m.busy {
		if t.state == dialing && t.addr == a {
			return true
		}
	}
	return false
}

// serves reports whether some connection makes an attempt for t needless.
func (m *Maker) serves(t *target) bool {
	if !t.peer.IsZero() && m.peers[t.peer] > 0 {
		return true
	}
	return slices.ContainsFunc(t.known, func(a netip.AddrPort) bool { return m.addrs[a] > 0 })
}

func (c *conn) serves(t *target) bool {
	return slices.Contains(t.known, c.Addr) || slices.Contains(t.known, c.Listen) ||
		(!t.peer.IsZero() && t.peer == c.Peer)
}

// countConn adds n to the counts that serves looks at.
func (m *Maker) countConn(c *conn, n int) {
	for _, a := range []netip.AddrPort{c.Addr, c.Listen} {
		if m.addrs[a] += n; m.addrs[a] == 0 {
			delete(m.addrs, a)
		}
	}
	if m.peers[c.Peer] += n; m.peers[c.Peer] == 0 {
		delete(m.peers, c.Peer)
	}
}

// Resolved is the outcome of a Resolve effect.
func (m *Maker) Resolved(now time.Time, attempt uint64, addrs []netip.Addr, err error) {
	m.changed = true
	t := m.byAttempt(attempt)
	if t == nil || t.state != resolving {
		return
	}
	m.enter(t, waiting)
	if err == nil && len(addrs) == 0 {
		err = errNoAddress
	}
	if err != nil {
		m.fail(now, t, err)
		return
	}
	var aps []netip.AddrPort
	for _, a := range addrs {
		aps = append(aps, netip.AddrPortFrom(a.Unmap(), m.port(t)))
	}
	m.begin(now, t, aps)
}

// Found is the outcome of a Find effect: where others see the peer.
func (m *Maker) Found(now time.Time, attempt uint64, addrs []netip.AddrPort) {
	m.changed = true
	t := m.byAttempt(attempt)
	if t == nil || t.state != resolving || t.found.IsZero() {
		return
	}
	m.enter(t, waiting)
	if len(addrs) == 0 {
		m.fail(now, t, errNoAddress)
		return
	}
	m.begin(now, t, addrs)
}

// begin dials the first of a target's addresses, at least one.
func (m *Maker) begin(now time.Time, t *target, addrs []netip.AddrPort) {
	t.known = nil
	for _, a := range addrs {
		if !slices.Contains(t.known, a) {
			t.known = append(t.known, a)
		}
	}
	if m.serves(t) {
		t.due = now
		return
	}
	round := m.round(t)
	if m.dialed(round[0]) {
		t.due = now.Add(soon)
		return
	}
	m.dial(t, round)
}

// dial is for a target whose attempt goes to addresses one after the other.
func (m *Maker) dial(t *target, round []netip.AddrPort) {
	t.addr, t.addrs = round[0], round[1:]
	m.enter(t, dialing)
}

// Up says that a connection passed all checks. Key is the caller's, unique among
// those that are up; Wants(c.Attempt) holds for one that was dialed.
func (m *Maker) Up(now time.Time, key uint64, c Conn) {
	m.changed = true
	m.conns[key] = &conn{Conn: c, up: now}
	m.countConn(m.conns[key], 1)
	if t := m.byAttempt(c.Attempt); t != nil {
		m.enter(t, waiting)
		if !t.found.IsZero() && t.found != c.Peer {
			t.known = nil
			m.fail(now, t, errOther)
			return
		}
		t.peer, t.addr, t.err = c.Peer, c.Addr, nil
		if !t.until.IsZero() {
			m.dropHints()
		}
		if !slices.Contains(t.known, c.Addr) {
			t.known = append(t.known, c.Addr)
		}
		if t.seen != c.Addr {
			t.seen = netip.AddrPort{}
		}
		t.due = now
	}
}

// dropHints forgets the hints that no attempt is made to.
func (m *Maker) dropHints() {
	for _, t := range m.targets {
		if !t.until.IsZero() && t.state == waiting {
			m.remove(t)
		}
	}
}

// Established says that the connection carries frames.
func (m *Maker) Established(key uint64) {
	if c := m.conns[key]; c != nil {
		c.established = true
	}
}

// Moved says where the peer of a connection listens now that its address is
// another; zero: it is as it was.
func (m *Maker) Moved(key uint64, to netip.AddrPort) {
	if c := m.conns[key]; c != nil {
		c.moved = to
	}
}

// Doubt says that the peer of a connection doesn't answer on it, for the reason err,
// or with nil that it does again.
func (m *Maker) Doubt(now time.Time, key uint64, err error) {
	c := m.conns[key]
	if c == nil || c.doubt == (err != nil) {
		return
	}
	m.changed = true
	if c.doubt = err != nil; !c.doubt {
		m.countConn(c, 1)
		return
	}
	m.countConn(c, -1)
	for _, t := range m.targets {
		if t.state == waiting && c.serves(t) {
			m.lost(now, t, c, Failed, err)
		}
	}
}

// Down says that a connection ended, with outcome Duplicate when another to that
// peer stays, else Failed, Self or Collision.
func (m *Maker) Down(now time.Time, key uint64, o Outcome, err error) {
	m.changed = true
	c := m.conns[key]
	if c == nil {
		return
	}
	delete(m.conns, key)
	if !c.doubt {
		m.countConn(c, -1)
	}
	for _, t := range m.targets {
		switch {
		case t.state == waiting && c.serves(t):
			m.lost(now, t, c, o, err)
		case t.state == waiting && t.crowded:
			t.due, t.crowded = now, false
		}
	}
}

func (m *Maker) lost(now time.Time, t *target, c *conn, o Outcome, err error) {
	t.began = now
	if c.moved.IsValid() {
		t.seen = c.moved
	}
	switch {
	case m.serves(t):
		t.due = now
	case o != Failed:
		m.end(now, t, o, c.Peer, err)
	case !c.established:
		m.fail(now, t, err)
	case now.Sub(c.up) > longLived || t.fastUntil.IsZero():
		t.err = err
		t.due, t.interval, t.fastUntil = now, fastFirst, now.Add(fastFor)
	default:
		m.fail(now, t, err)
	}
}

// Ended says that an attempt came to nothing. Peer is the one that was found
// there, zero if none.
func (m *Maker) Ended(now time.Time, attempt uint64, o Outcome, p peer.Name, err error) {
	m.changed = true
	t := m.byAttempt(attempt)
	if t == nil || t.state != dialing {
		return
	}
	if o == Unreachable && len(t.addrs) > 0 {
		t.attempt, t.err, t.addr, t.addrs = 0, err, t.addrs[0], t.addrs[1:]
		return
	}
	m.enter(t, waiting)
	m.end(now, t, o, p, err)
}

func (m *Maker) end(now time.Time, t *target, o Outcome, p peer.Name, err error) {
	switch o {
	case Duplicate:
		t.peer, t.err = p, nil
		t.due = now.Add(soon)
	case Self, Collision:
		t.never, t.err = true, err
	case NoRoom:
		t.peer, t.fastUntil, t.crowded = p, time.Time{}, t.over
		m.fail(now, t, err)
		if !t.until.IsZero() && m.reaches(p) {
			m.remove(t) // its purpose was to get into that network
		}
	default:
		m.fail(now, t, err)
	}
}

func (m *Maker) fail(now time.Time, t *target, err error) {
	t.err = err
	var d time.Duration
	fast := now.Before(t.fastUntil)
	d, t.interval = delay(t.interval, fast, m.cfg.Rand())
	t.due = now.Add(d)
	if fast && t.due.After(t.began.Add(d)) { // an attempt without an answer took its time already
		t.due = t.began.Add(d)
		if t.due.Before(now) {
			t.due = now
		}
	}
}

// delay returns how long to wait when the interval is i, and the next interval.
// R is uniform in [0, 1).
func delay(i time.Duration, fast bool, r float64) (d, next time.Duration) {
	limit := maxDelay
	if fast {
		limit = fastMax
	}
	i = min(i, limit)
	return i/2 + time.Duration(r*float64(i)), min(i+i/2, limit)
}

func (m *Maker) sorted() []*target {
	out := make([]*target, 0, len(m.targets))
	for _, t := range m.targets {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b *target) int { return strings.Compare(a.text, b.text) })
	return out
}

// TargetStatus is what users see of a target that no connection serves.
type TargetStatus struct {
	Text   string
	Addr   netip.AddrPort // dialed now or last; zero: none yet
	Direct bool           // given by the user
	Trying bool           // an attempt is under way
	Err    error          // of the last attempt, nil if there was none
	Retry  time.Time      // when not Trying: next attempt
	Never  bool           // no attempt until Connect
	Peer   peer.Name      // whom it led to last; zero: unknown
}

// Unserved returns the targets that have no connection, in order of text; found
// peers only when they were dialed.
func (m *Maker) Unserved() []TargetStatus {
	var out []TargetStatus
	for _, t := range m.sorted() {
		if t.state == waiting && m.serves(t) || !t.found.IsZero() && !t.addr.IsValid() {
			continue
		}
		st := TargetStatus{
			Text: t.text, Addr: t.addr, Direct: t.direct, Trying: t.state != waiting,
			Err: t.err, Retry: t.due, Never: t.never, Peer: t.peer,
		}
		if t.limited {
			st.Err = ErrLimit
		}
		out = append(out, st)
	}
	return out
}

// Serving returns the target, given by the user, that the connection serves;
// empty: none.
func (m *Maker) Serving(key uint64) string {
	c := m.conns[key]
	if c == nil {
		return ""
	}
	for _, t := range m.sorted() {
		if t.direct && c.serves(t) {
			return t.text
		}
	}
	return ""
}
