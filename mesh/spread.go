package mesh

import (
	"fmt"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"weave/mesh/gossip"
	"weave/mesh/wire"
)

// Times of gossip.
const (
	digestMin  = 5 * time.Second // to one neighbour, uniform between these
	digestMax  = 10 * time.Second
	roundMax   = 300 * time.Millisecond // between rounds of a channel
	roundMin   = 20 * time.Millisecond
	roundPeer  = 500 * time.Microsecond // for each known peer
	greetAll   = 16                     // with so few connections each new one gets digests
	foreignFor = 10 * time.Second       // how long a message of an unknown channel is remembered, at least
	maxForeign = 1024                   // so many messages
)

// channel is one replicated state, owned by the loop except for what mu guards.
type channel struct {
	name string
	r    *Router
	ch   gossip.Channel

	mu  sync.Mutex
	out gossip.Data // from Update, not yet seen by the loop; nil: none

	round     gossip.Data // waits for the next round; nil: nothing
	from      *conn       // whom all of round came from; nil: several, or from here
	flushed   time.Time   // the last round
	digestDue time.Time
	stats     ChannelStatus
}

// Update implements gossip.Sender.
func (ch *channel) Update(d gossip.Data) {
	ch.mu.Lock()
	first := ch.out == nil
	if first {
		ch.out = d
	} else {
		ch.out = ch.out.Merge(d)
	}
	ch.mu.Unlock()
	if first {
		ch.r.mail.put(func(l *loop) { l.spread(ch, ch.takeOut(), nil) })
	}
}

func (ch *channel) takeOut() gossip.Data {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	d := ch.out
	ch.out = nil
	return d
}

// spread gives data to the next round, which is now unless there was one just
// before. From is the neighbour that it came from, nil for changes made here.
func (l *loop) spread(ch *channel, d gossip.Data, from *conn) {
	switch {
	case d == nil:
		return
	case ch.round == nil:
		ch.round, ch.from = d, from
		return
	case ch.from != from:
		ch.from = nil
	}
	ch.round = ch.round.Merge(d)
}

// rounds sends what is due.
func (l *loop) rounds(now time.Time) {
	for _, ch := range l.channels {
		if ch.round == nil {
			continue
		}
		if due := ch.flushed.Add(l.roundGap()); now.Before(due) {
			l.wakeAt(due)
			continue
		}
		p := &parcel{channel: ch.name, tag: wire.TagGossip, data: ch.round}
		told := l.someNeighbours(l.fanOut(), ch.from)
		for _, c := range told {
			c.q.offer(p)
		}
		ch.stats.Sent += uint64(len(told))
		ch.stats.SentBytes += uint64(len(told)) * p.size()
		ch.round, ch.from, ch.flushed = nil, nil, now
	}
}

// roundGap keeps the number of messages in bounds while much is going on: the
// larger the network the more is put together.
func (l *loop) roundGap() time.Duration {
	return max(roundMin, min(time.Duration(l.topo.Len())*roundPeer, roundMax))
}

// fanOut is the number of neighbours that are told of news: 2·log2 of the number of
// peers, so that with all of them doing so nobody is likely to miss any.
func (l *loop) fanOut() int {
	return max(2, int(math.Ceil(2*math.Log2(float64(l.topo.Len())))))
}

// someNeighbours draws k neighbours, not the one that is left out. A neighbour
// through which many peers are reached is drawn more often: it may be the only way.
func (l *loop) someNeighbours(k int, but *conn) []*conn {
	type draw struct {
		c   *conn
		key float64
	}
	all := make([]draw, 0, len(l.conns))
	for _, c := range l.conns {
		if c != but {
			all = append(all, draw{c, rand.ExpFloat64() / float64(1+c.weight)})
		}
	}
	if len(all) > k {
		slices.SortFunc(all, func(a, b draw) int {
			if a.key < b.key {
				return -1
			}
			return 1
		})
		all = all[:k]
	}
	out := make([]*conn, len(all))
	for i, d := range all {
		out[i] = d.c
	}
	return out
}

// digests compares states with a neighbour now and then.
func (l *loop) digests(now time.Time) {
	for _, ch := range l.channels {
		if now.Before(ch.digestDue) {
			l.wakeAt(ch.digestDue)
			continue
		}
		ch.digestDue = now.Add(digestMin + rand.N(digestMax-digestMin))
		l.wakeAt(ch.digestDue)
		for _, c := range l.someNeighbours(1, nil) {
			l.digest(ch, c)
		}
	}
}

func (l *loop) digest(ch *channel, c *conn) {
	c.q.offer(&parcel{channel: ch.name, tag: wire.TagDigest, digest: ch.ch.Digest()})
	ch.stats.Digests++
}

// greetNeighbour compares all states over a new connection, unless the same run of
// the peer was reachable another way, so that it had its share of all news, and
// there are many connections already.
func (l *loop) greetNeighbour(c *conn, known bool) {
	if known && len(l.conns) > greetAll {
		return
	}
	for _, ch := range l.channels {
		l.digest(ch, c)
	}
}

// gossip takes an update, an answer or a digest from a neighbour. The error is for
// what no peer sends.
func (l *loop) gossip(c *conn, m wire.Msg) error {
	name, payload, err := wire.ParseChannel(m.Body)
	if err != nil {
		return err
	}
	ch := l.byName[name]
	if ch == nil {
		l.forward(c, m)
		return nil
	}
	ch.stats.Received++
	r, err := ch.ch.OnMessage(c.hello.Name, payload)
	if err != nil {
		l.channelError(ch, c, err)
	}
	l.spread(ch, r.News, c)
	if r.Reply != nil {
		c.q.offer(&parcel{channel: ch.name, tag: wire.TagGossip, data: r.Reply})
	}
	return nil
}

// channelError notes a message that a channel did not like. It costs no connection.
func (l *loop) channelError(ch *channel, c *conn, err error) {
	s := &ch.stats
	s.Errors++
	news := s.LastError != err.Error() || s.ErrorFrom != c.hello.Name || time.Since(s.ErrorAt) > refusedLogTime
	s.LastError, s.ErrorFrom, s.ErrorNick, s.ErrorAt = err.Error(), c.hello.Name, c.hello.NickName, time.Now()
	if news && l.errorLog.take(time.Now()) {
		c.log.Warn("bad gossip", "channel", ch.name, "err", err)
	}
}

// foreign remembers messages of channels that this peer lacks, so that it passes
// each on once.
type foreign struct {
	now, before map[uint64]bool // by hash; at most maxForeign in both
	turned      time.Time
}

var foreignSeed = maphash.MakeSeed()

// first reports whether the message wasn't seen lately.
func (f *foreign) first(now time.Time, body []byte) bool {
	if f.now == nil || now.Sub(f.turned) >= foreignFor || len(f.now) >= maxForeign/2 {
		f.before, f.now, f.turned = f.now, map[uint64]bool{}, now
	}
	h := maphash.Bytes(foreignSeed, body)
	if f.now[h] || f.before[h] {
		return false
	}
	f.now[h] = true
	return true
}

// forward passes on a message of a channel that this peer lacks: so those that have
// it needn't be neighbours.
func (l *loop) forward(c *conn, m wire.Msg) {
	if !l.foreign.first(time.Now(), m.Body) {
		return
	}
	l.counters.Surrogated++
	for _, n := range l.someNeighbours(l.fanOut(), c) {
		n.q.pushExtra(m) // may be lost like any gossip
	}
}

// openChannels makes the channels of cfg, the topology's first.
func (r *Router) openChannels() error {
	names := map[string]bool{topologyChannel: true}
	r.channels = []*channel{{name: topologyChannel, r: r}}
	for _, open := range r.cfg.Channels {
		ch := &channel{r: r}
		ch.ch = open(sender{ch})
		ch.name = ch.ch.Name()
		if _, err := wire.Gossip(ch.name, nil); err != nil || names[ch.name] {
			return fmt.Errorf("channel %q: %w", ch.name, ErrConfig)
		}
		names[ch.name] = true
		r.channels = append(r.channels, ch)
	}
	return nil
}
