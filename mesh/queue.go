package mesh

import (
	"errors"
	"slices"
	"sync"

	"weave/mesh/gossip"
	"weave/mesh/wire"
)

// Bounds of what waits for one writer.
const (
	queueBytes = 2 * wire.MaxMessage
	queueMsgs  = 4096
	extraBytes = 4 * gossip.MaxMessage
	extraMsgs  = 1024
)

var (
	errQueueFull  = errors.New("mesh: queue to peer is full")
	errQueueEnded = errors.New("mesh: connection is closed")
)

// queue holds the messages for the writer of one connection. All methods may be
// called from any goroutine and none blocks. Heartbeats and echoes have a slot
// each in which the latest replaces the one before, so they never add up. Each
// channel of gossip has one too, in which what waits is merged.
type queue struct {
	wake chan struct{} // holds one token when there is something to take

	mu     sync.Mutex
	must   backlog // of queueMsgs and queueBytes
	beat   slot
	echo   slot
	ended  bool
	extra  backlog   // of extraMsgs and extraBytes; may be lost: unicasts and what we forward for others
	gossip []*parcel // at most one for each channel, and one with its digest; longest waiting first
}

// backlog is messages in order, with the bytes of their bodies.
type backlog struct {
	msgs []wire.Msg
	size int
}

// takeTo moves all to the end of out.
func (b *backlog) takeTo(out []wire.Msg) []wire.Msg {
	out = append(out, b.msgs...)
	clear(b.msgs)
	b.msgs, b.size = b.msgs[:0], 0
	return out
}

type slot struct {
	token uint64
	set   bool
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// push queues a message that may not be lost; without room for it the connection has
// to end.
func (q *queue) push(m wire.Msg) error { return q.add(&q.must, queueMsgs, queueBytes, m) }

// pushExtra is push for what may be lost: when there is no room it is not taken.
func (q *queue) pushExtra(m wire.Msg) error { return q.add(&q.extra, extraMsgs, extraBytes, m) }

func (q *queue) add(b *backlog, maxMsgs, maxBytes int, m wire.Msg) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.ended:
		return errQueueEnded
	case b.size+len(m.Body) > maxBytes || len(b.msgs) >= maxMsgs:
		return errQueueFull
	}
	b.msgs = append(b.msgs, m)
	b.size += len(m.Body)
	q.wakeLocked()
	return nil
}

func (q *queue) pushBeat(token uint64) { q.fill(&q.beat, token) }
func (q *queue) pushEcho(token uint64) { q.fill(&q.echo, token) }

func (q *queue) fill(s *slot, token uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.ended {
		*s = slot{token, true}
		q.wakeLocked()
	}
}

// end makes the writer stop after what is queued. Only the first last is sent.
func (q *queue) end(last *wire.Close) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return
	}
	q.ended = true
	if last != nil {
		if m, err := last.Msg(); err == nil {
			q.must.msgs = append(q.must.msgs, m)
		}
	}
	q.wakeLocked()
}

func (q *queue) wakeLocked() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// offer merges a parcel with what waits of its channel.
func (q *queue) offer(p *parcel) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return
	}
	for i, old := range q.gossip {
		if old.channel == p.channel && old.tag == p.tag {
			q.gossip[i] = old.merge(p)
			return
		}
	}
	q.gossip = append(q.gossip, p)
	q.wakeLocked()
}

// take empties the queue into out, except for gossip, of which the parcel that
// waited longest is taken; the next call gets the next.
func (q *queue) take(out []wire.Msg) (_ []wire.Msg, p *parcel, ended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out = q.urgentLocked(out)
	if q.ended {
		return out, nil, true
	}
	out = q.extra.takeTo(out)
	if len(q.gossip) > 0 {
		p = q.gossip[0]
		q.gossip = slices.Delete(q.gossip, 0, 1)
	}
	if len(q.gossip) > 0 {
		q.wakeLocked()
	}
	return out, p, false
}

// urgent takes what shall not wait behind a large parcel.
func (q *queue) urgent(out []wire.Msg) []wire.Msg {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return out // with the last message, by take
	}
	return q.urgentLocked(out)
}

func (q *queue) urgentLocked(out []wire.Msg) []wire.Msg {
	out = q.must.takeTo(out) // first, since the hello may be among them
	if q.echo.set && !q.ended {
		out = append(out, wire.Echo(q.echo.token))
	}
	if q.beat.set && !q.ended {
		out = append(out, wire.Heartbeat(q.beat.token))
	}
	q.echo, q.beat = slot{}, slot{}
	return out
}

// parcel is gossip for some connections, encoded once for all.
type parcel struct {
	channel string
	tag     wire.Tag // TagGossip, TagDigest
	data    gossip.Data
	digest  []byte // of a TagDigest, instead of data

	once sync.Once
	msgs []wire.Msg
}

// merge returns what tells of both; of digests the later counts.
func (p *parcel) merge(later *parcel) *parcel {
	if p.tag == wire.TagDigest || p == later {
		return later
	}
	return &parcel{channel: p.channel, tag: p.tag, data: p.data.Merge(later.data)}
}

// encode returns the messages; those over the limits are left out.
func (p *parcel) encode() []wire.Msg {
	p.once.Do(func() {
		if p.tag == wire.TagDigest {
			if m, err := wire.Digest(p.channel, p.digest); err == nil {
				p.msgs = []wire.Msg{m}
			}
			return
		}
		for _, b := range p.data.Encode() {
			if m, err := wire.Gossip(p.channel, b); err == nil {
				p.msgs = append(p.msgs, m)
			}
		}
	})
	return p.msgs
}

// size is that of all messages.
func (p *parcel) size() (n uint64) {
	for _, m := range p.encode() {
		n += uint64(len(m.Body))
	}
	return n
}

// mailbox carries calls to the loop from goroutines that must not block. Its
// length is bounded by what its users may have under way: link events, and one
// entry per connection that overflows.
type mailbox struct {
	wake chan struct{}

	mu    sync.Mutex
	calls []func(*loop)
}

func (m *mailbox) put(f func(*loop)) {
	m.mu.Lock()
	m.calls = append(m.calls, f)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() []func(*loop) {
	m.mu.Lock()
	defer m.mu.Unlock()
	calls := m.calls
	m.calls = nil
	return calls
}
