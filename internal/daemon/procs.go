package daemon

import "runtime"

// reserveProcs lets the runtime run the given number of packet workers beside as
// many goroutines as it would anyway. undo takes it back.
//
// A worker that waits for packets is in a system call. When all of the runtime's
// processors are taken, its monitor wakes up every 20 µs, thousands of times a
// second under load, to take them back from such threads. With one to spare it lets
// them be, and a worker that gets a packet goes on at once.
func reserveProcs(workers int) (undo func()) {
	before := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(before + workers)
	return func() { runtime.GOMAXPROCS(before) }
}
