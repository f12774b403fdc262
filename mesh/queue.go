package mesh

import (
	"errors"
	"sync"

	"weave/mesh/wire"
)

// Bounds of what waits for one writer.
const (
	queueBytes = 2 * wire.MaxMessage
	queueMsgs  = 4096
)

var (
	errQueueFull  = errors.New("mesh: queue to peer is full")
	errQueueEnded = errors.New("mesh: connection is closed")
)

// queue holds the messages for the writer of one connection. All methods may be
// called from any goroutine and none blocks. Heartbeats and echoes have a slot
// each in which the latest replaces the one before, so they never add up.
type queue struct {
	wake chan struct{} // holds one token when there is something to take

	mu    sync.Mutex
	msgs  []wire.Msg
	size  int // bytes of msgs' bodies, <= queueBytes
	beat  slot
	echo  slot
	ended bool
}

type slot struct {
	token uint64
	set   bool
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

func (q *queue) push(m wire.Msg) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.ended:
		return errQueueEnded
	case q.size+len(m.Body) > queueBytes || len(q.msgs) >= queueMsgs:
		return errQueueFull
	}
	q.msgs = append(q.msgs, m)
	q.size += len(m.Body)
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
			q.msgs = append(q.msgs, m)
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

// take empties the queue into out.
func (q *queue) take(out []wire.Msg) (_ []wire.Msg, ended bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out = append(out, q.msgs...) // first, since the hello may be among them
	clear(q.msgs)
	if q.echo.set && !q.ended {
		out = append(out, wire.Echo(q.echo.token))
	}
	if q.beat.set && !q.ended {
		out = append(out, wire.Heartbeat(q.beat.token))
	}
	q.msgs, q.size, q.echo, q.beat = q.msgs[:0], 0, slot{}, slot{}
	return out, q.ended
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
