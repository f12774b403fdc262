package sleeve

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxBeats    = 64 // heartbeats waiting for the link's goroutine
	maxMessages = 64 // control messages waiting
)

// wake is a bit in inbox.flags.
type wake uint32

const (
	wakeRekey  wake = 1 << iota // a sealer is nearly used up
	wakeMoved                   // the endpoint changed
	wakeTooBig                  // the kernel refused a datagram for its size
	wakeStart                   // the mesh called Start
)

// inbox is what waits for a link's goroutine. Nothing in it blocks the one who
// puts; the mutex is taken for heartbeats and control messages, never per packet.
type inbox struct {
	flags  atomic.Uint32
	signal chan struct{} // capacity 1

	mu     sync.Mutex
	inputs []input
	beats  []timedBeat
}

// timedBeat is a heartbeat with the size of its datagram and when it came.
type timedBeat struct {
	b    beat
	size int
	at   time.Time
}

func (b *inbox) wake() {
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

// flag sets a bit; a second time before it is taken does nothing.
func (b *inbox) flag(f wake) {
	if b.flags.Load()&uint32(f) != 0 {
		return
	}
	b.flags.Or(uint32(f))
	b.wake()
}

// put queues an input of the mesh or the workers. Past maxMessages the oldest
// control message is lost, which the key exchange survives: it sends again.
func (b *inbox) put(in input) {
	b.mu.Lock()
	if len(b.inputs) >= maxMessages {
		b.inputs = append(b.inputs[:0], b.inputs[1:]...)
	}
	b.inputs = append(b.inputs, in)
	b.mu.Unlock()
	b.wake()
}

func (b *inbox) used(index uint32) { b.put(input{kind: inFirstUse, index: index}) }

func (b *inbox) beat(t timedBeat) bool {
	b.mu.Lock()
	full := len(b.beats) >= maxBeats
	if !full {
		b.beats = append(b.beats, t)
	}
	b.mu.Unlock()
	b.wake()
	return !full
}

// take empties the inbox.
func (b *inbox) take() (inputs []input, beats []timedBeat, flags wake) {
	flags = wake(b.flags.Swap(0))
	b.mu.Lock()
	defer b.mu.Unlock()
	inputs, beats = b.inputs, b.beats
	b.inputs, b.beats = nil, nil
	return inputs, beats, flags
}
