package mesh

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"weave/internal/peer"
	"weave/mesh/dial"
	"weave/mesh/wire"
)

const (
	tickEvery     = 500 * time.Millisecond
	challengeTime = time.Second      // for a connection in doubt to answer
	pendingBeat   = 2 * time.Second  // between heartbeats while no link is up
	pendingTime   = 3 * time.Second  // a connection without a link that is up makes way for another then
	noPathTime    = 60 * time.Second // and is closed then
)

// errUnanswered is why the peer of a connection is looked for elsewhere.
var errUnanswered = errors.New("the peer doesn't answer")

// loop owns all state of a running Router. Only its goroutine calls its methods.
type loop struct {
	r     *Router
	ctx   context.Context
	tasks sync.WaitGroup // sockets and attempts

	maker    *dial.Maker
	conns    map[uint64]*conn    // by key, admitted
	peers    map[peer.Name]*conn // the same, by who is there
	lastKey  uint64
	readmit  []*candidate // whose challenged rival is gone
	refused  refusedList
	counters Counters

	*shape
	channels []*channel // the topology's first
	byName   map[string]*channel
	foreign  foreign
	errorLog logBudget
	lost     map[peer.Name]lostPeer // at most maxLost
	findOld  bool                   // candidates of discovery are to be looked for
	foundAt  time.Time              // and were last
	opening  opening
	room     room

	viewOld   bool               // OnChange is due
	known     map[peer.Name]Peer // of the last view
	wake      time.Time          // when to settle even if nothing happens; zero: never
	lastToken uint64             // of heartbeats
}

func newLoop(r *Router) *loop {
	l := &loop{
		r:     r,
		conns: map[uint64]*conn{}, peers: map[peer.Name]*conn{}, lost: map[peer.Name]lostPeer{},
		counters: Counters{InboundRefused: map[Reason]uint64{}},
		channels: r.channels, byName: map[string]*channel{},
		viewOld: true, opening: opening{asked: map[peer.Name]time.Time{}},
	}
	l.maker = dial.New(dial.Config{
		Port: r.cfg.Port, Limit: r.cfg.ConnLimit, FindLimit: findLimit(r.cfg.ConnLimit), Rand: rand.Float64, Reaches: l.reaches,
	})
	l.shape = newShape(l)
	l.channels[0].ch = l.shape
	for _, ch := range l.channels {
		l.byName[ch.name] = ch
		ch.digestDue = time.Now().Add(rand.N(digestMax))
	}
	return l
}

// run serves until ctx ends and all goroutines are gone.
func (l *loop) run(ctx context.Context, lis net.Listener) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.ctx = ctx
	gate := newGate()
	var accepting sync.WaitGroup
	accepting.Go(func() { l.r.accept(ctx, lis, gate, &l.tasks) })
	l.maker.Connect(time.Now(), l.r.cfg.Targets, false) // New checked them
	l.serve(ctx)

	lis.Close()
	l.closeAll()
	close(l.r.quit)
	accepting.Wait() // it may have been about to serve another
	gate.close()
	l.tasks.Wait()
}

// serve executes calls and keeps the timers until ctx ends.
func (l *loop) serve(ctx context.Context) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-l.r.calls:
			f(l)
		case <-l.r.mail.wake:
			for _, f := range l.r.mail.take() {
				f(l)
			}
		case <-tick.C:
			l.tick(time.Now())
		case <-timer.C:
		}
		l.settle()
		timer.Stop()
		if !l.wake.IsZero() {
			timer.Reset(time.Until(l.wake))
		}
	}
}

// wakeAt makes the loop settle at that time, or before.
func (l *loop) wakeAt(at time.Time) {
	if l.wake.IsZero() || at.Before(l.wake) {
		l.wake = at
	}
}

// settle does what follows from any event.
func (l *loop) settle() {
	for len(l.readmit) > 0 {
		c := l.readmit[0]
		l.readmit = l.readmit[1:]
		l.admit(c)
	}
	now := time.Now()
	l.wake = time.Time{}
	l.find(now)
	l.dial(now)
	l.shape.step(now)
	l.digests(now)
	l.rounds(now)
	if l.viewOld {
		l.viewOld = false
		l.publish()
	}
}

// dial does what the connection maker wants.
func (l *loop) dial(now time.Time) {
	for again := true; again; {
		effects, next := l.maker.Step(now)
		again = false
		for _, e := range effects {
			if !e.Find.IsZero() {
				l.maker.Found(now, e.Attempt, l.addrsOf(e.Find))
				again = true
			} else {
				l.start(e)
			}
		}
		if !again && !next.IsZero() {
			l.wakeAt(next)
		}
	}
}

// publish tells everybody what there is now.
func (l *loop) publish() {
	v := l.view()
	before := l.known
	l.known = v.Peers
	l.r.cfg.OnChange(v)
	for n := range before {
		if _, ok := l.known[n]; !ok {
			for _, ch := range l.channels {
				ch.ch.OnGone(n)
			}
		}
	}
}

// tick does what depends on time alone, the maker's part apart.
func (l *loop) tick(now time.Time) {
	l.shape.tick(now)
	for _, c := range l.conns {
		if !now.Before(c.nextBeat) {
			l.beat(c, now)
		}
		if c.challenge.unanswered(now) {
			l.drop(c, &Error{Reason: ReasonReplaced, Text: "the peer came back while this connection didn't answer"}, true)
			continue
		}
		if !c.established && !now.Before(c.since.Add(noPathTime)) {
			l.drop(c, l.noPath(c), true)
			continue
		}
		if !c.established && c.silent == (question{}) && !now.Before(c.beatAt.Add(pendingBeat)) {
			c.silent = l.question(c, now)
		}
		if c.silent.unanswered(now) {
			// The connection stays, as long as it may: this may pass.
			l.maker.Doubt(now, c.key, errUnanswered)
		}
		if c.established {
			l.maker.Moved(c.key, c.elsewhere())
		}
	}
}

func (l *loop) beat(c *conn, now time.Time) {
	l.lastToken++
	c.beatToken, c.beatAt = l.lastToken, now
	c.nextBeat = now.Add(HeartbeatEvery)
	c.q.pushBeat(l.lastToken)
}

// message handles what a peer sent.
func (l *loop) message(c *conn, m wire.Msg) {
	if c.gone {
		return
	}
	var err error
	switch m.Tag {
	case wire.TagEcho:
		err = l.echo(c, m.Body)
	case wire.TagOverlay:
		err = l.control(c, m.Body)
	case wire.TagGossip, wire.TagDigest:
		err = l.gossip(c, m)
	case wire.TagUnicast:
		err = l.unicast(c, m)
	case wire.TagHello:
		err = wire.ErrMalformed
	default:
		l.counters.UnknownMessages++
	}
	if err != nil {
		l.drop(c, &Error{Reason: ReasonProtocol, Text: m.Tag.String() + " message", Err: err}, true)
	}
}

// echo takes an answer to a heartbeat: the peer is alive, and this is how far.
func (l *loop) echo(c *conn, body []byte) error {
	token, err := wire.ParseToken(body)
	if err != nil {
		return err
	}
	if token == c.beatToken {
		sample := time.Since(c.beatAt)
		if c.rtt == 0 {
			c.rtt = sample
		}
		c.rtt += (sample - c.rtt) / 8
	}
	if token > l.lastToken {
		return nil
	}
	if c.challenge.answeredBy(token) {
		l.survived(c)
	}
	if c.silent.answeredBy(token) {
		l.answered(c)
	}
	return nil
}

// answered ends the doubt whether the peer still answers.
func (l *loop) answered(c *conn) {
	c.silent = question{}
	l.maker.Doubt(time.Now(), c.key, nil)
}

// ended is the report of a socket's reader.
func (l *loop) ended(c *conn, err *Error) {
	if err != nil {
		l.drop(c, err, false)
	}
}

// closeAll tells all peers that we stop.
func (l *loop) closeAll() {
	for _, c := range l.conns {
		for _, x := range c.challengers {
			x.verdict <- verdict{}
		}
		c.challengers = nil
	}
	for _, c := range maps.Clone(l.conns) {
		l.drop(c, &Error{Reason: ReasonStopping, Text: "the peer stops"}, true)
	}
}
