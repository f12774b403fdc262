package tun

import (
	"slices"
	"sync/atomic"
)

// Counters of one queue since Open. Each is exact, but they are not read at one
// instant.
type Counters struct {
	ReadFrames, ReadBytes   uint64            // superframes count as one
	WriteFrames, WriteBytes uint64            // given to Write with a sensible length
	Segmented               uint64            // superframes that Write cut into single frames
	Drops                   map[string]uint64 // frames lost, by reason; none with count 0
}

// Why Read skips a frame.
const (
	readBadLength = iota // longer than a superframe, or no frame at all
	readBadHeader        // an offload that was not asked for, or offsets outside of the frame
	readReasons
)

// Why Write drops a frame.
const (
	writeBadLength = iota // no Ethernet header, or longer than a superframe
	writeMalformed        // headers and Offload do not fit
	writeNoBuffer         // ENOMEM, ENOBUFS, EAGAIN
	writeDown             // the device is not up
	writeRefused          // EINVAL
	writeReasons
)

var (
	readReason  = [readReasons]string{"tap read length", "tap read header"}
	writeReason = [writeReasons]string{"tap write length", "tap write malformed", "tap write no buffer",
		"tap write down", "tap write refused"}
)

// DropReasons lists the reasons that Counters.Drops can have.
func DropReasons() []string { return slices.Concat(readReason[:], writeReason[:]) }

type readCounters struct {
	frames, bytes atomic.Uint64
	drops         [readReasons]atomic.Uint64
}

type writeCounters struct {
	frames, bytes, segmented atomic.Uint64
	drops                    [writeReasons]atomic.Uint64
}

// Counters returns what Read and Write have done so far.
func (q *Queue) Counters() Counters {
	r, w := &q.read.n, &q.write.n
	c := Counters{
		ReadFrames: r.frames.Load(), ReadBytes: r.bytes.Load(),
		WriteFrames: w.frames.Load(), WriteBytes: w.bytes.Load(),
		Segmented: w.segmented.Load(),
		Drops:     make(map[string]uint64),
	}
	for i := range r.drops {
		if n := r.drops[i].Load(); n > 0 {
			c.Drops[readReason[i]] = n
		}
	}
	for i := range w.drops {
		if n := w.drops[i].Load(); n > 0 {
			c.Drops[writeReason[i]] = n
		}
	}
	return c
}
