// Package tuntest has a TAP queue without a TAP device, for tests of those who
// read and write frames.
//
// A [Queue] behaves as tun.Queue does, down to a descriptor that a poller can
// wait for. On its other side the test stands in for the bridge: it pushes the
// frames that are to be read and receives those that were written.
//
// # Concurrency
//
// All methods may be called from any goroutine, Close last.
package tuntest

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/internal/rawio"
	"weave/tun"
)

// Frame is a frame on the bridge's side, in one piece.
type Frame struct {
	ether.Offload
	Data []byte
}

// Queue is the fake. Its queues hold a fixed number of frames in each direction
// and lose what finds them full, as the kernel's do.
type Queue struct {
	in, out chan Frame
	event   int // eventfd, readable whenever in is not empty
	closed  atomic.Bool
	lost    atomic.Uint64
}

// NewQueue makes a Queue that holds up to depth frames in each direction. Close
// frees it.
func NewQueue(depth int) (*Queue, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &Queue{in: make(chan Frame, depth), out: make(chan Frame, depth), event: event}, nil
}

// Push queues f to be read; f.Data must not change any more. It reports false, and
// loses f, if the queue is full.
func (q *Queue) Push(f Frame) bool {
	select {
	case q.in <- f:
		q.signal()
		return true
	default:
		q.lost.Add(1)
		return false
	}
}

// Written is where the frames come out that were given to Write.
func (q *Queue) Written() <-chan Frame { return q.out }

// Lost returns how many frames found a queue full.
func (q *Queue) Lost() uint64 { return q.lost.Load() }

// Read is as tun.Queue.Read.
func (q *Queue) Read(sf *ether.Superframe) error {
	if q.closed.Load() {
		return tun.ErrClosed
	}
	select {
	case f := <-q.in:
		sf.Offload, sf.Head = f.Offload, ether.Headroom
		sf.Buf = append(sf.Buf[:ether.Headroom], f.Data...)
		return nil
	default:
	}
	var b [8]byte
	unix.Read(q.event, b[:]) // EAGAIN if it is drained already
	if len(q.in) > 0 {
		q.signal() // pushed just now, and we took its signal
	}
	return rawio.ErrWouldBlock
}

// Write is as tun.Queue.Write; no superframe is cut.
func (q *Queue) Write(off ether.Offload, bufs [][]byte) error {
	if q.closed.Load() {
		return tun.ErrClosed
	}
	f := Frame{Offload: off}
	for _, b := range bufs {
		f.Data = append(f.Data, b...)
	}
	select {
	case q.out <- f:
	default:
		q.lost.Add(1)
	}
	return nil
}

// FD is as tun.Queue.FD: it polls readable while there is a frame to read, and now
// and then when there is none.
func (q *Queue) FD() int { return q.event }

func (q *Queue) signal() {
	one := [8]byte{1}
	unix.Write(q.event, one[:])
}

// Close frees the descriptor. Nobody may poll it any more.
func (q *Queue) Close() error {
	if q.closed.Swap(true) {
		return nil
	}
	return unix.Close(q.event)
}
