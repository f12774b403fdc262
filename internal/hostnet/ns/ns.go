// Package ns runs code inside a network namespace.
//
// A network namespace is a property of an OS thread, so code that must run inside
// one needs a thread of its own. [Do] borrows a thread for one call; a [Thread]
// stays inside for as long as it is open.
//
// A thread goes back to the Go scheduler only if it is back in the namespace that
// it came from. Otherwise its goroutine ends while still locked, and the runtime
// destroys the thread: no other goroutine can ever run in the wrong namespace.
//
// Sockets, netlink sockets and processes belong to the namespace of the thread
// that creates them and stay there wherever they are used later. /proc/sys/net
// follows the reading thread; /proc/net follows the process's main thread, so
// nothing here should read it.
package ns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// self is the namespace of the calling thread.
const self = "/proc/thread-self/ns/net"

// errDied is what a caller gets whose function ended its goroutine.
var errDied = errors.New("function did not return")

// lock runs fn on a goroutine that is locked to its thread, which is not the
// process's main thread: that one cannot be destroyed, and it is the one that
// /proc/PID/ns/net tells of.
func lock(fn func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fn()
			return
		}
		started := make(chan struct{})
		go func() { // on another thread, as this one is taken
			runtime.LockOSThread()
			close(started)
			fn()
		}()
		<-started
		runtime.UnlockOSThread()
	}()
}

// Do runs fn on a thread inside the namespace that fd refers to and returns its
// error. It blocks until fn has returned. Goroutines that fn starts run outside.
func Do(fd int, fn func() error) error {
	errc := make(chan error, 1)
	lock(func() {
		err := errDied
		defer func() { errc <- err }()
		home, oerr := os.Open(self)
		if oerr != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("opening own network namespace: %w", oerr)
			return
		}
		defer home.Close()
		if serr := unix.Setns(fd, unix.CLONE_NEWNET); serr != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("entering network namespace: %w", serr)
			return
		}
		// Runs also when fn panics or calls runtime.Goexit.
		defer func() {
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = fn()
	})
	return <-errc
}

// Thread is an OS thread that lives inside one namespace.
type Thread struct {
	work chan func()
	done chan struct{}
}

// NewNamespace starts a thread in a new namespace, which lives as long as the
// thread, a process or socket in it, or a bind mount of it.
func NewNamespace() (*Thread, error) {
	t := &Thread{work: make(chan func()), done: make(chan struct{})}
	errc := make(chan error)
	lock(func() { // never unlocked: the thread dies with the goroutine
		defer close(t.done)
		err := unix.Unshare(unix.CLONE_NEWNET)
		errc <- err
		if err != nil {
			return
		}
		for fn := range t.work {
			fn()
		}
	})
	if err := <-errc; err != nil {
		return nil, fmt.Errorf("making network namespace: %w", err)
	}
	return t, nil
}

// Do runs fn on the thread and returns its error. Calls run one after the other.
// It must not be called after Close, nor from within fn.
func (t *Thread) Do(fn func() error) error {
	errc := make(chan error, 1)
	t.work <- func() { errc <- fn() }
	return <-errc
}

// Close ends the thread once the calls that were made have returned. Child
// processes that it started with a parent-death signal get that signal.
func (t *Thread) Close() {
	close(t.work)
	<-t.done
}
