package tun

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"weave/internal/ether"
	"weave/internal/rawio"
)

const (
	maxPieces = 255 // pieces of a frame that one writev takes; more are joined first
	maxSkips  = 64  // unusable frames that one Read skips before it returns
)

var errShortBuffer = errors.New("superframe buffer is smaller than Headroom and MaxSuperframe")

// Queue is one queue of a Device. One worker calls Read, one calls Write; see the
// package comment.
type Queue struct {
	fd  int // non-blocking; -1 after Close
	can Features

	read struct {
		n readCounters
		_ [64]byte // the two owners share no cache line
	}

	// Owned by who calls Write.
	write struct {
		n      writeCounters
		hdr    [vnetHdrLen]byte
		iov    [1 + maxPieces]unix.Iovec
		joined []byte // a frame in one piece, made when first needed
		seg    ether.Segmenter
		single [2][]byte // a segment's header and payload
	}
}

// NewWriter returns another writing side of the queue, for one more goroutine that
// writes now and then: it has Write and its own Counters, and ends with the Device.
// Its Read must not be called.
func (q *Queue) NewWriter() *Queue { return &Queue{fd: q.fd, can: q.can} }

// FD returns the descriptor, to be polled for reading. It stays the Device's to
// close.
func (q *Queue) FD() int { return q.fd }

// Read puts the next frame into sf: the frame at Head = ether.Headroom, the header
// in front of it where the overlay's will stand. Whatever sf held is gone. Buf
// needs the capacity that ether.NewSuperframe gives it.
//
// The Offload is checked: checksum field and start lie inside the frame, and a GSO
// kind comes with NeedsCsum, the right CsumOff and a Size. It does not follow that
// the headers in the frame fit it; see ether.TemplateLen.
//
// rawio.ErrWouldBlock means that nothing is to be read now, and sometimes, after
// many unusable frames, that the worker should poll again.
func (q *Queue) Read(sf *ether.Superframe) error {
	const at = ether.Headroom - vnetHdrLen
	if cap(sf.Buf) < ether.Headroom+ether.MaxSuperframe {
		return errShortBuffer
	}
	// One byte more than the largest frame, if it is there: tun cuts off in silence.
	buf := sf.Buf[at:min(cap(sf.Buf), ether.Headroom+ether.MaxSuperframe+1)]
	for range maxSkips {
		r, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(q.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
		if errno != 0 {
			if err := q.readError(errno); err != nil {
				return err
			}
			continue
		}
		n := int(r)
		if n < vnetHdrLen+ether.HeaderLen || n > vnetHdrLen+ether.MaxSuperframe {
			q.read.n.drops[readBadLength].Add(1)
			continue
		}
		frame := buf[vnetHdrLen:n]
		off, ok := readVnet((*[vnetHdrLen]byte)(buf), frame)
		if !ok {
			q.read.n.drops[readBadHeader].Add(1)
			continue
		}
		q.read.n.frames.Add(1)
		q.read.n.bytes.Add(uint64(len(frame)))
		sf.Offload, sf.Buf, sf.Head = off, sf.Buf[:at+n], ether.Headroom
		return nil
	}
	return rawio.ErrWouldBlock
}

// readError says what Read returns after errno; nil means: try again.
func (q *Queue) readError(errno unix.Errno) error {
	switch errno {
	case unix.EAGAIN:
		return rawio.ErrWouldBlock
	case unix.EINTR:
		return nil
	case unix.EINVAL:
		// The frame is gone: tun_put_user has no words for its offload.
		q.read.n.drops[readBadHeader].Add(1)
		return nil
	case unix.EBADFD, unix.EBADF:
		return ErrClosed
	}
	return fmt.Errorf("reading from the TAP device: %w", errno)
}

// Write gives the frame that the pieces of bufs make up to the bridge. The first
// piece should hold all headers. Nothing in bufs is changed or kept in use after
// Write returns. A superframe that the kernel cannot take is cut into single
// frames first.
//
// The error is ErrClosed or something that should not happen. It is nil for a frame
// that was dropped; see [Queue.Counters].
func (q *Queue) Write(off ether.Offload, bufs [][]byte) error {
	w := &q.write
	if off.GSO == ether.GSOUDPL4 {
		off.ECN = false
	}
	if off.GSO != ether.GSONone && !validGSO(off) {
		w.n.drops[writeMalformed].Add(1)
		return nil
	}
	size := 0
	for _, b := range bufs {
		size += len(b)
	}
	if size < ether.HeaderLen || size > ether.MaxSuperframe {
		w.n.drops[writeBadLength].Add(1)
		return nil
	}
	w.n.frames.Add(1)
	w.n.bytes.Add(uint64(size))
	if len(bufs) > maxPieces {
		w.single[0] = q.join(bufs)
		bufs = w.single[:1]
	}
	if !q.can.takes(off.GSO) {
		return q.writeSegments(off, bufs)
	}
	errno := q.writev(off, bufs)
	if errno == unix.EINVAL && off.GSO != ether.GSONone {
		// Some kernels refuse some superframes: too many segments, too short a
		// tail (e269d79c7d35). Single frames never offend.
		return q.writeSegments(off, bufs)
	}
	return q.writeError(errno)
}

// writeSegments writes a superframe frame by frame.
func (q *Queue) writeSegments(off ether.Offload, bufs [][]byte) error {
	w := &q.write
	frame := bufs[0]
	if len(bufs) > 1 {
		frame = q.join(bufs)
	}
	if w.seg.Reset(frame, off) != nil {
		w.n.drops[writeMalformed].Add(1)
		return nil
	}
	w.n.segmented.Add(1)
	for {
		hdr, payload, off, ok := w.seg.Next()
		if !ok {
			return nil
		}
		w.single = [2][]byte{hdr, payload}
		if err := q.writeError(q.writev(off, w.single[:])); err != nil {
			return err
		}
	}
}

// join copies bufs, of at most MaxSuperframe bytes, into one piece.
func (q *Queue) join(bufs [][]byte) []byte {
	w := &q.write
	if w.joined == nil {
		w.joined = make([]byte, 0, ether.MaxSuperframe)
	}
	w.joined = w.joined[:0]
	for _, b := range bufs {
		w.joined = append(w.joined, b...)
	}
	return w.joined
}

// writev writes one frame of 1 to maxPieces pieces.
func (q *Queue) writev(off ether.Offload, bufs [][]byte) unix.Errno {
	w := &q.write
	writeVnet(&w.hdr, off, bufs[0])
	w.iov[0].Base = &w.hdr[0]
	w.iov[0].SetLen(vnetHdrLen)
	n := 1
	for _, b := range bufs {
		if len(b) > 0 {
			w.iov[n].Base = &b[0]
			w.iov[n].SetLen(len(b))
			n++
		}
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(q.fd), uintptr(unsafe.Pointer(&w.iov[0])), uintptr(n))
		if errno != unix.EINTR {
			return errno
		}
	}
}

// writeError counts a frame that was not taken, and says what Write returns.
func (q *Queue) writeError(errno unix.Errno) error {
	drops := &q.write.n.drops
	switch errno {
	case 0:
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		drops[writeNoBuffer].Add(1)
	case unix.EIO:
		drops[writeDown].Add(1)
	case unix.EINVAL:
		drops[writeRefused].Add(1)
	case unix.EBADFD, unix.EBADF:
		return ErrClosed
	default:
		return fmt.Errorf("writing to the TAP device: %w", errno)
	}
	return nil
}
