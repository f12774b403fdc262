package mesh

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"weave/internal/peer"
	"weave/mesh/dial"
	"weave/mesh/overlay"
	"weave/mesh/topo"
)

const (
	maxChallengers = 4 // candidates that wait for one connection's answer
	maxInstead     = 8 // addresses for one that is turned away
)

// candidate is a connection that asks to be admitted.
type candidate struct {
	*socket
	verdict chan<- verdict // has room for one answer
	chosen  bool           // the other end has let it in
	heir    bool           // the connection of who had its name here didn't answer
}

// verdict is what becomes of a candidate; zero: it is turned away.
type verdict struct {
	conn *conn // admitted as this
	wait bool  // ask again when the other end has let it in
}

// conn is an admitted connection, owned by the loop; the socket in it is safe
// for any goroutine.
type conn struct {
	*socket
	key   uint64
	log   *slog.Logger
	links []*link
	gone  bool // dropped; late events are ignored

	absent []overlay.Status // paths of ours that this connection cannot have, with the reason

	established bool      // a link is up
	wasUp       bool      // a link was up once
	since       time.Time // of established's last change, or admission

	nextBeat  time.Time
	beatToken uint64 // of the latest heartbeat
	beatAt    time.Time
	rtt       time.Duration
	weight    int // peers that messages reach through it

	silent question // while no link is up: the last one without an answer

	// While other connections claim to be the same peer.
	challengers []*candidate // at most maxChallengers
	challenge   question     // none is awaited without challengers
}

// question is a heartbeat whose answer shows that the peer lives; zero: none is awaited.
type question struct {
	token uint64 // an echo of this one or a later one is an answer
	at    time.Time
}

// question sends a heartbeat that is one.
func (l *loop) question(c *conn, now time.Time) question {
	l.beat(c, now)
	return question{c.beatToken, now}
}

func (q question) answeredBy(token uint64) bool { return q.token != 0 && token >= q.token }

// unanswered reports whether the answer is overdue.
func (q question) unanswered(now time.Time) bool {
	return q.token != 0 && !now.Before(q.at.Add(challengeTime))
}

// admit decides about a candidate: now, or when the connection that is in its
// way has shown whether it is alive.
func (l *loop) admit(x *candidate) {
	if err, told := l.unfit(x); err != nil {
		l.refuseTelling(x, err, told)
		return
	}
	old := l.peers[x.hello.Name]
	switch {
	case old == nil:
	case old.uid == x.uid:
		l.refuse(x, duplicateError())
		l.drop(old, duplicateError(), true)
		return
	case old.sameRun(x.socket) && !x.chosen && !l.decides(x):
		x.verdict <- verdict{wait: true}
		return
	case old.sameRun(x.socket) && (x.chosen || !old.established && time.Since(old.since) >= pendingTime):
		l.drop(old, duplicateError(), true)
	default:
		l.challengeFor(old, x)
		return
	}
	if err := l.isFullFor(x); err != nil {
		l.refuse(x, err)
		return
	}
	l.pin(x)
	l.welcome(x)
}

// unfit returns why x can't be admitted whoever else is connected, in our words
// and in those for the other end.
func (l *loop) unfit(x *candidate) (err, told *Error) {
	if x.outbound && !l.maker.Wants(x.attempt) {
		err = &Error{Reason: ReasonForgotten, Text: "the target was forgotten"}
		return err, err
	}
	if l.foreignPeer(x) {
		err = &Error{Reason: ReasonForeign, Text: fmt.Sprintf("a peer of another network is there: %s(%s)", x.hello.Name, x.hello.NickName)}
		return err, &Error{Reason: ReasonForeign, Text: "the address came from peers that don't know this one"}
	}
	if err = l.namesake(x); err != nil {
		return err, err
	}
	cfg := &l.r.cfg
	same := x.hs.RemoteStatic == cfg.Static.Public()
	switch {
	case x.hello.Name != cfg.Name:
		return nil, nil
	case same && x.hello.UID == cfg.UID:
		err = &Error{Reason: ReasonSelf, Text: "the address is this host's own"}
		return err, err
	case same:
		return cloneError(cfg.Name, x.hello.NickName, x.remote), cloneError(cfg.Name, cfg.NickName, x.local)
	}
	return collisionError(cfg.Name, x.hello.NickName, x.remote), collisionError(cfg.Name, cfg.NickName, x.local)
}

// namesake returns why x is turned away if a peer further away has its name; nil: none
// has. It may come in when that one is gone, and if it proves the key that the name had
// here before: then it is the other one that took its name.
func (l *loop) namesake(x *candidate) *Error {
	name := x.hello.Name
	r := l.topo.Record(name)
	if r == nil || name == l.r.cfg.Name || r.Key == x.sign || x.heir || l.peers[name] != nil || !l.topo.Supported(name) {
		return nil
	}
	if pin, ok := l.r.cfg.Pins.Pin(name); ok && pin == x.hs.RemoteStatic {
		return nil
	}
	return &Error{Reason: ReasonNamesake, Text: fmt.Sprintf(
		"peer name %s already used by %s elsewhere in the network: give one host another --name", name, printable(r.NickName))}
}

func collisionError(name peer.Name, nick string, at netip.AddrPort) *Error {
	return &Error{Reason: ReasonCollision, Text: fmt.Sprintf(
		"peer name %s already used by %s at %s: give one host another --name", name, nick, at.Addr())}
}

func cloneError(name peer.Name, nick string, at netip.AddrPort) *Error {
	return &Error{Reason: ReasonClone, Text: fmt.Sprintf(
		"peer name %s and its key already used by %s at %s: this is a copy of that host's state; run 'weave reset' on one of them", name, nick, at.Addr())}
}

func duplicateError() *Error {
	return &Error{Reason: ReasonDuplicate, Text: "another connection between the two peers stays"}
}

// sameRun reports whether both are connections to the same run of a peer.
func (s *socket) sameRun(x *socket) bool {
	return s.hs.RemoteStatic == x.hs.RemoteStatic && s.hello.UID == x.hello.UID
}

// decides reports whether this end says which of two connections to the same run of a
// peer stays, which is the first it has let in, if that lives; the other end waits for
// its word. Were both to decide, they could each keep another one, as neither knows yet
// what the other has let in. An end that told of its room waits in any case.
func (l *loop) decides(x *candidate) bool {
	return x.hello.Room != 0 || l.r.cfg.Name.Compare(x.hello.Name) < 0
}

// challengeFor asks the old connection for a sign of life, since x has the same
// name: the peer may have been restarted, or have lost the old connection without
// our noticing. Until the sign comes, or doesn't, x waits; one that was asked for
// before will do.
func (l *loop) challengeFor(old *conn, x *candidate) {
	if len(old.challengers) >= maxChallengers {
		l.refuse(x, rivalError(old, x))
		return
	}
	old.challengers = append(old.challengers, x)
	if len(old.challengers) > 1 {
		return
	}
	if old.challenge = old.silent; old.challenge == (question{}) {
		old.challenge = l.question(old, time.Now())
	}
}

// survived turns the challengers of c away, since it answered.
func (l *loop) survived(c *conn) {
	for _, x := range c.challengers {
		l.refuse(x, rivalError(c, x))
	}
	c.challengers, c.challenge = nil, question{}
}

func rivalError(old *conn, x *candidate) *Error {
	switch {
	case old.sameRun(x.socket):
		return duplicateError()
	case old.hs.RemoteStatic == x.hs.RemoteStatic:
		return cloneError(x.hello.Name, old.hello.NickName, old.remote)
	}
	return collisionError(x.hello.Name, old.hello.NickName, old.remote)
}

// pin notes the key of a name. Nobody with that name is connected, so another
// key than before is a reinstalled host.
func (l *loop) pin(x *candidate) {
	was, ok := l.r.cfg.Pins.Pin(x.hello.Name)
	if ok && was == x.hs.RemoteStatic {
		return
	}
	if ok {
		l.counters.Repinned++
		l.r.log.Warn("peer has a new static key: taken for a reinstalled host", "peer", x.hello.Name, "nick", x.hello.NickName,
			"addr", x.remote, "was", was.ShortString(), "now", x.hs.RemoteStatic.ShortString())
	}
	l.r.cfg.Pins.SetPin(x.hello.Name, x.hs.RemoteStatic)
}

// welcome registers x and starts its links.
func (l *loop) welcome(x *candidate) {
	now := time.Now()
	l.lastKey++
	c := &conn{
		socket: x.socket, key: l.lastKey, since: now,
		log: l.r.log.With("peer", x.hello.Name, "nick", x.hello.NickName, "addr", x.remote, "outbound", x.outbound),
	}
	old := l.topo.Record(c.hello.Name)
	known := old != nil && old.UID == c.hello.UID && old.Key == c.sign
	l.conns[c.key], l.peers[c.hello.Name] = c, c
	delete(l.lost, c.hello.Name)
	l.topo.SetNeighbour(c.hello.Name, topo.Neighbour{Key: c.sign, UID: c.hello.UID})
	l.r.ways.setDirect(l.peers)
	l.connChanged(now, false)
	l.counters.Admitted++
	l.refused.forget(c.remote.Addr())
	l.maker.Up(now, c.key, dial.Conn{Attempt: c.attempt, Addr: c.remote, Listen: c.listen(), Peer: c.hello.Name})
	c.log.Info("connection pending")
	l.beat(c, now)
	x.verdict <- verdict{conn: c}
	l.greetNeighbour(c, known)
	l.link(c)
}

// listen is where the peer says it accepts connections.
func (s *socket) listen() netip.AddrPort {
	if s.hello.Port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(s.remote.Addr(), s.hello.Port)
}

// refuse turns away a candidate and tells the other end why.
func (l *loop) refuse(x *candidate, err *Error) { l.refuseTelling(x, err, err) }

func (l *loop) refuseTelling(x *candidate, err, told *Error) {
	if err.Reason == ReasonClone || err.Reason == ReasonCollision || err.Reason == ReasonNamesake {
		l.topo.TurnedAway(x.hello.Name, x.hello.NickName, x.hello.UID, err.Reason == ReasonClone, time.Now())
	}
	m := told.message()
	x.finish(&m)
	x.verdict <- verdict{}
	l.turnedAway(x.socket, err)
}

// turnedAway notes a connection that ended before it was admitted.
func (l *loop) turnedAway(s *socket, err *Error) {
	level := l.newsLevel(s.attempt, err, slog.LevelWarn)
	if s.outbound {
		l.counters.DialFailed++
		l.maker.Ended(time.Now(), s.attempt, l.outcomeOf(s, err), s.hello.Name, err)
	}
	switch {
	case l.ctx.Err() != nil:
	case err.Reason == ReasonDuplicate:
		l.counters.Duplicates++
		l.r.log.Debug("connection closed", "addr", s.remote, "outbound", s.outbound, "reason", err.Reason)
	case s.outbound && err.Reason == ReasonSelf:
		l.r.log.Info("target is this host itself", "addr", s.remote)
	case err.Reason == ReasonLimit && l.reaches(s.hello.Name): // as the user wants it
		if !s.outbound {
			l.counters.InboundRefused[err.Reason]++
		}
		l.r.log.Debug("no room for a connection", "addr", s.remote, "outbound", s.outbound, "peer", s.hello.Name, "err", err)
	case s.outbound:
		l.r.log.Log(l.ctx, level, "connection refused", "addr", s.remote, "outbound", true, "reason", err.Reason, "err", err)
	case err.Reason == ReasonSelf: // told by the other end of the same connection
	case s.opened:
		l.r.log.Debug("opening came to nothing", "addr", s.remote, "reason", err.Reason)
	default:
		l.refusedInbound(s.remote.Addr(), err)
	}
}

// drop ends an admitted connection; with tell the other end learns why.
func (l *loop) drop(c *conn, err *Error, tell bool) {
	if c.gone {
		return
	}
	c.gone = true
	delete(l.conns, c.key)
	if l.peers[c.hello.Name] == c {
		delete(l.peers, c.hello.Name)
		l.topo.ClearNeighbour(c.hello.Name)
		l.r.ways.setDirect(l.peers)
	}
	if err.Reason != ReasonShutdown && err.Reason != ReasonDuplicate && err.Reason != ReasonSelf {
		l.remember(c)
	}
	l.connChanged(time.Now(), true)
	for _, k := range c.links {
		k.link.Close()
	}
	if tell {
		m := err.message()
		c.finish(&m)
	} else {
		c.q.end(nil)
	}
	o := l.outcomeOf(c.socket, err)
	if o == dial.Unreachable {
		o = dial.Failed // it was reachable, whatever happened then
	}
	l.maker.Down(time.Now(), c.key, o, err)
	for _, x := range c.challengers {
		x.heir = true
	}
	l.readmit = append(l.readmit, c.challengers...)
	c.challengers = nil
	l.logEnd(c, err)
}

// outcomeOf is what the connection maker makes of the end of a connection.
func (l *loop) outcomeOf(s *socket, err *Error) dial.Outcome {
	if err.Reason == ReasonLimit && s.outbound {
		return l.noRoomOutcome(s, err)
	}
	return err.outcome()
}

func (l *loop) logEnd(c *conn, err *Error) {
	switch err.Reason {
	case ReasonDuplicate:
		l.counters.Duplicates++
		c.log.Debug("connection closed", "reason", err.Reason)
		return
	case ReasonSelf:
		c.log.Info("connection closed", "reason", err.Reason)
		return
	}
	l.counters.Terminated++
	level := slog.LevelWarn
	if err.Reason == ReasonStopping || err.Reason == ReasonLimit || err.Reason == ReasonShutdown || err.Reason == ReasonReplaced {
		level = slog.LevelInfo
	}
	c.log.Log(l.ctx, level, "connection closed", "reason", err.Reason, "err", err, "established", c.wasUp)
}
