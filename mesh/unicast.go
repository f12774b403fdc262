package mesh

import (
	"fmt"
	"maps"
	"sync"

	"weave/internal/peer"
	"weave/mesh/gossip"
	"weave/mesh/wire"
)

// maxHops is how far a unicast message goes.
const maxHops = 64

// sender is what a channel speaks through.
type sender struct{ ch *channel }

func (s sender) Update(d gossip.Data) { s.ch.Update(d) }

func (s sender) Unicast(to peer.Name, msg []byte) error {
	r := s.ch.r
	m, err := wire.Unicast{Hops: maxHops, Origin: r.cfg.Name, Dest: to, Channel: s.ch.name, Payload: msg}.Msg()
	if err != nil {
		return fmt.Errorf("unicast to %s: %w", to, gossip.ErrTooLong)
	}
	if to == r.cfg.Name {
		r.mail.put(func(l *loop) { l.deliver(nil, m.Body) })
		return nil
	}
	c := r.ways.next(to)
	if c == nil {
		return fmt.Errorf("unicast to %s: %w", to, gossip.ErrNoRoute)
	}
	if c.q.pushExtra(m) != nil {
		return fmt.Errorf("unicast to %s: %w", to, gossip.ErrBusy)
	}
	return nil
}

// ways leads to the connection that is next on the way to a peer. The loop writes,
// anybody reads.
type ways struct {
	mu     sync.RWMutex
	direct map[peer.Name]*conn
	via    map[peer.Name]peer.Name
}

// next returns nil if there is no way.
func (w *ways) next(to peer.Name) *conn {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if c := w.direct[w.via[to]]; c != nil {
		return c
	}
	return w.direct[to] // of which others don't know yet
}

func (w *ways) setDirect(direct map[peer.Name]*conn) {
	direct = maps.Clone(direct)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.direct = direct
}

func (w *ways) setVia(via map[peer.Name]peer.Name) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.via = via
}

// unicast takes a message for this peer, or hands it on.
func (l *loop) unicast(c *conn, m wire.Msg) error {
	u, err := wire.ParseUnicast(m.Body)
	if err != nil {
		return err
	}
	from := c.hello.Name
	straight := u.Origin == from || l.now.Unicast[u.Origin] != u.Origin
	switch {
	case u.Origin == l.r.cfg.Name || !straight:
		// Our own, or from a neighbour that would have sent it to us itself.
		l.counters.UnicastSpoofed++
	case u.Dest == l.r.cfg.Name:
		l.deliver(c, m.Body)
	default:
		next := l.r.ways.next(u.Dest)
		if u.Hops == 0 || next == nil || next == c {
			l.counters.UnicastLost++
			return nil
		}
		m.Body[0] = u.Hops - 1
		if next.q.pushExtra(m) != nil {
			l.counters.UnicastLost++
			return nil
		}
		l.counters.UnicastRelayed++
	}
	return nil
}

// deliver hands a unicast message to its channel; c is nil if it is our own.
func (l *loop) deliver(c *conn, body []byte) {
	u, err := wire.ParseUnicast(body)
	ch := l.byName[u.Channel]
	if err != nil || ch == nil {
		l.counters.UnicastLost++
		return
	}
	ch.stats.Unicasts++
	if err := ch.ch.OnUnicast(u.Origin, u.Payload); err != nil && c != nil {
		l.channelError(ch, c, fmt.Errorf("unicast from %s: %w", u.Origin, err))
	}
}
