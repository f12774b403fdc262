package udp

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32 // bytes received or sent
}

// kernel is the sending half of the socket's system calls. Tests put refusals in
// front of it that need hardware this machine has not.
type kernel struct {
	sendmsg  func(fd int, m *unix.Msghdr) unix.Errno
	sendmmsg func(fd int, m *mmsghdr, n int) (int, unix.Errno)
	wait     func(p []unix.PollFd, ms int)
}

// newKernel returns the real system calls. The raw calls keep the thread's P, which
// is right here: the descriptors are non-blocking, and handing the P over costs more
// than the call.
func newKernel() kernel {
	return kernel{sendmsg: sendmsg, sendmmsg: sendmmsg, wait: waitWritable}
}

func sendmsg(fd int, m *unix.Msghdr) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), unix.MSG_NOSIGNAL)
	return e
}

// sendmmsg returns the number of messages sent, or the errno of the first one.
func sendmmsg(fd int, m *mmsghdr, n int) (int, unix.Errno) {
	r, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), uintptr(n), unix.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

func recvmmsg(fd int, m *mmsghdr, n int) (int, unix.Errno) {
	r, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// waitWritable is an ordinary system call, so that the P is handed off.
func waitWritable(p []unix.PollFd, ms int) { unix.Poll(p, ms) }
