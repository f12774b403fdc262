// Package rawio has the blocking primitive of the packet workers.
//
// A worker is a goroutine locked to its OS thread that owns one or more
// non-blocking file descriptors. It reads until the kernel says EAGAIN, flushes
// what it gathered, and only then sleeps in [Poller.Wait]. The Go netpoller is not
// used: its futex and goroutine switch per wake-up cost more than the packet work.
//
// Reads and writes that cannot block may use RawSyscall, which keeps the thread's
// P; Wait uses an ordinary system call, which hands it off.
package rawio

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrWouldBlock says that a non-blocking descriptor has nothing more just now.
// Readers return this very value, so that workers compare with ==.
var ErrWouldBlock = errors.New("nothing to read now")

// Poller waits for descriptors to become readable, or for Wake. It is owned by
// one worker; only Wake may be called by others.
type Poller struct {
	fds  []unix.PollFd // fds[0] is the eventfd
	woke atomic.Bool
}

// NewPoller makes a Poller for fds, which stay the caller's to close.
func NewPoller(fds ...int) (*Poller, error) {
	ev, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	p := &Poller{fds: []unix.PollFd{{Fd: int32(ev), Events: unix.POLLIN}}}
	for _, fd := range fds {
		p.fds = append(p.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return p, nil
}

// Wait blocks until a descriptor is readable (or has an error to read), or Wake
// was called, or timeout milliseconds went by (-1: no limit). It reports whether
// Wake was called since the last Wait.
func (p *Poller) Wait(timeout int) (woken bool, err error) {
	for {
		_, err = unix.Poll(p.fds, timeout)
		if err != unix.EINTR {
			break
		}
	}
	if p.fds[0].Revents != 0 {
		var b [8]byte
		unix.Read(int(p.fds[0].Fd), b[:])
	}
	return p.woke.Swap(false), err
}

// Wake makes the current or the next Wait return. It may be called from any
// goroutine until Close.
func (p *Poller) Wake() {
	if p.woke.Swap(true) {
		return
	}
	one := [8]byte{1}
	unix.Write(int(p.fds[0].Fd), one[:])
}

// Close frees the eventfd. Nobody may be in Wait or Wake.
func (p *Poller) Close() error { return unix.Close(int(p.fds[0].Fd)) }
